//! A whole transformer, trained on digits: quantized, saved, loaded, and compared scheme by scheme.
//! The model is that of the example.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use qkernels::MatRef;
use qnn::{
    Calibration, Checkpoint, DynamicConfig, ForwardError, LayerFile, Method, ModelOutput, ObserverChoice,
    PassConfig, StaticConfig, WeightConfig, analyze_model_sizes, argmax_rows, calibrate_model,
    compare_schemes, layers_to_bytes, quantize_model,
};

use crate::dataset::{CLASSES, Digits as Images, PIXELS, read_f32};
use digits::Digits;

#[path = "../../examples/transformer/digits.rs"]
mod digits;
#[path = "../../examples/transformer/encoder.rs"]
mod encoder;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist").join(name)
}

fn images(name: &str) -> Images {
    Images::read(&path(name)).unwrap()
}

static TRAINED: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(path("mnist_transformer.safetensors")).unwrap());
static CALIBRATION: LazyLock<Images> = LazyLock::new(|| images("mnist_calib_500.safetensors"));
static TEST: LazyLock<Images> = LazyLock::new(|| images("mnist_test_2500.safetensors"));

fn model() -> Digits {
    let mut checkpoint = Checkpoint::parse(&TRAINED).unwrap();
    let model = Digits::new(checkpoint.source()).unwrap();
    checkpoint.finish().unwrap();
    model
}

fn run(model: &mut Digits, images: &[f32]) -> Result<(), ForwardError> {
    model.forward(images).map(drop)
}

fn batches(images: usize) -> impl Iterator<Item = &'static [f32]> {
    CALIBRATION.inputs[..images * PIXELS].chunks(20 * PIXELS)
}

fn config(method: Method) -> PassConfig {
    PassConfig { method, ..PassConfig::default() }.with_rule("classifier", Method::Float)
}

/// How many of the first test images are right.
fn right(model: &Digits, images: usize) -> usize {
    let blocks = TEST.inputs[..images * PIXELS].chunks(50 * PIXELS);
    let logits: Vec<f32> = blocks.flat_map(|images| model.forward(images).unwrap()).collect();
    TEST.correct(argmax_rows(MatRef::new(&logits, images, CLASSES).unwrap()))
}

#[test]
fn the_f32_model_is_the_one_that_was_trained() {
    let model = model();
    let expected = read_f32(&path("mnist_transformer_logits_256.safetensors"), "logits").unwrap();
    let got = model.forward(&TEST.inputs[..256 * PIXELS]).unwrap();
    assert_eq!(got.len(), expected.len());
    assert!(got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() < 1e-3));
}

#[test]
fn it_is_quantized_saved_and_loaded_with_the_same_bits() {
    let float = right(&model(), 500);
    for method in [
        Method::default(),
        Method::Dynamic(DynamicConfig::default()),
        Method::Dynamic(DynamicConfig::in_groups_of(32, 8).unwrap()),
        Method::Dynamic(DynamicConfig::in_groups_of(16, 4).unwrap()),
        Method::WeightOnly(WeightConfig::default()),
        Method::WeightOnly(WeightConfig::with_bits(4).unwrap().in_groups_of(32)),
    ] {
        let mut model = model();
        let report = quantize_model(&mut model, &config(method), batches(100), run, |_| {}).unwrap();
        let least = if method.to_string().contains("4 bits") { 15.0 } else { 25.0 };
        assert!(report.layers.iter().all(|layer| layer.sqnr_db.is_none_or(|db| db > least)), "{report}");
        let saved = layers_to_bytes(&model).unwrap();
        assert!(saved.len() * 2 < TRAINED.len(), "{}", saved.len());
        let mut file = LayerFile::parse(&saved).unwrap();
        let restored = Digits::new(file.source()).unwrap();
        file.finish().unwrap();
        let some = &TEST.inputs[..30 * PIXELS];
        assert_eq!(restored.forward(some).unwrap(), model.forward(some).unwrap(), "{method}");
        assert!(right(&restored, 500) + 3 >= float, "{method}: {} of {float}", right(&restored, 500));
    }
}

fn calibrated(model: &mut Digits) -> Calibration {
    let config = PassConfig { candidates: Method::schemes(), ..config(Method::default()) };
    calibrate_model(model, &config, batches(60), run, |_| {}).unwrap()
}

/// What the guides say of schemes for transformers.
#[test]
fn its_schemes_differ_as_the_guides_say() {
    let mut model = model();
    let calibration = calibrated(&mut model);
    let evaluate = |model: &mut Digits| {
        let values = model.forward(&TEST.inputs[..60 * PIXELS])?;
        Ok::<_, ForwardError>(ModelOutput { values, cols: CLASSES })
    };
    let report = compare_schemes(&mut model, &calibration, evaluate, |_| ControlFlow::Continue(())).unwrap();
    let float_bytes = analyze_model_sizes(&model).float_bytes();
    assert_eq!(report.float_bytes, float_bytes, "the model is in f32 again");
    let sqnr = |method: &str| {
        let named = |name: &Option<Method>| name.as_ref().is_some_and(|name| name.to_string() == method);
        let scheme = report.schemes.iter().find(|scheme| named(&scheme.method));
        scheme.unwrap_or_else(|| panic!("{method}")).cost.as_ref().unwrap().quality.sqnr_db
    };
    let per_token = sqnr("dynamic u8 per token");
    assert!(per_token > sqnr("dynamic i8 per token") && per_token > sqnr("static u8, min-max"), "{report}");
    assert!(sqnr("weight-only") > per_token && per_token > 20.0, "{report}");
    assert!(sqnr("dynamic u7 per token") < per_token, "{report}");
    println!("{report}");
}

/// Query, key and value see the same values, so that the pass gives them the same codes.
#[test]
fn layers_that_share_their_input_quantize_it_alike() {
    let mut model = model();
    let report = quantize_model(&mut model, &config(Method::default()), batches(40), run, |_| {}).unwrap();
    let input = |part: &str| {
        let name = format!("encoder.layer.1.attention.self.{part}");
        report.layers.iter().find(|layer| layer.name == name).unwrap().input.unwrap()
    };
    assert_eq!((input("query"), input("query")), (input("key"), input("value")));
    let observer = ObserverChoice::Percentile(99.0);
    let method = Method::Static(StaticConfig { observer, ..StaticConfig::default() });
    let mut clipped = self::model();
    let report = quantize_model(&mut clipped, &config(method), batches(40), run, |_| {}).unwrap();
    let worst = report.layers.iter().filter_map(|layer| layer.sqnr_db).fold(f64::INFINITY, f64::min);
    assert!(worst < 25.0, "a percentile cuts what a transformer needs: {report}");
}
