//! Two trained models on 2,500 digits that they have not seen: accuracy, agreement, files, kernels,
//! threads, batches.

use std::path::PathBuf;
use std::sync::LazyLock;

use qcore::Scheme;
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, DynamicConfig, FloatMlp, LinearWorkspace, Method, Mlp, ObserverChoice, PassConfig,
    QuantConfig, QuantMlp, StaticConfig, WeightConfig, WeightGranularity, argmax_rows, layers_to_bytes,
    quantize_model,
};

use crate::dataset::{self, CLASSES, Digits, PIXELS};

pub(crate) const MODELS: [(&str, &str); 2] =
    [("mnist_mlp_784_256_128_10", "mlp256"), ("mnist_mlp_784_512_512_10", "mlp512")];

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "data/mnist", &format!("{name}.safetensors")].iter().collect()
}

pub(crate) static TEST: LazyLock<Digits> = LazyLock::new(|| Digits::read(&file("mnist_test_2500")).unwrap());
static CALIBRATION: LazyLock<Digits> = LazyLock::new(|| Digits::read(&file("mnist_calib_500")).unwrap());
pub(crate) static FLOAT: LazyLock<[FloatMlp; 2]> =
    LazyLock::new(|| MODELS.map(|(name, _)| FloatMlp::load(file(name)).unwrap()));
pub(crate) static FLOAT_LOGITS: LazyLock<[Vec<f32>; 2]> =
    LazyLock::new(|| FLOAT.each_ref().map(float_logits));

pub(crate) fn images(digits: &Digits) -> MatRef<'_, f32> {
    MatRef::new(&digits.inputs, digits.len(), PIXELS).unwrap()
}

fn matrix(logits: &[f32]) -> MatRef<'_, f32> {
    MatRef::new(logits, logits.len() / CLASSES, CLASSES).unwrap()
}

fn float_logits(model: &FloatMlp) -> Vec<f32> {
    let mut logits = vec![0.0; TEST.len() * CLASSES];
    let out = MatMut::new(&mut logits, TEST.len(), CLASSES).unwrap();
    model.forward(images(&TEST), out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    logits
}

pub(crate) fn quantize(model: &FloatMlp, config: &QuantConfig) -> QuantMlp {
    let batches = (0..CALIBRATION.len()).step_by(64);
    let batches = batches.map(|i| images(&CALIBRATION).row_range(i..CALIBRATION.len().min(i + 64)).unwrap());
    model.calibrate(batches).unwrap().quantize(config).unwrap()
}

/// Logits of all test images, as bits, run through the model `batch` rows at a time.
pub(crate) fn logits(model: &QuantMlp, batch: usize, threads: Threads<'_>) -> Vec<f32> {
    let mut logits = vec![f32::NAN; TEST.len() * CLASSES];
    let mut workspace = LinearWorkspace::new();
    for (i, out) in logits.chunks_mut(batch * CLASSES).enumerate() {
        let rows = out.len() / CLASSES;
        let x = images(&TEST).row_range(i * batch..i * batch + rows).unwrap();
        model.forward(x, MatMut::new(out, rows, CLASSES).unwrap(), threads, &mut workspace).unwrap();
    }
    logits
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

pub(crate) fn same_class(a: &[f32], b: &[f32]) -> usize {
    argmax_rows(matrix(a)).zip(argmax_rows(matrix(b))).filter(|(a, b)| a == b).count()
}

/// All types of activations, of 8 bits and of 7.
fn activation_configs() -> impl Iterator<Item = QuantConfig> {
    ActivationCodes::ALL.into_iter().flat_map(|activations| {
        let config = move |reduce_range| QuantConfig { activations, reduce_range, ..QuantConfig::default() };
        [false, true].into_iter().map(config)
    })
}

fn configs() -> impl Iterator<Item = QuantConfig> {
    ActivationCodes::ALL.into_iter().flat_map(|activations| {
        let config = move |weights| QuantConfig { activations, weights, ..QuantConfig::default() };
        [WeightGranularity::PerChannel, WeightGranularity::PerTensor].into_iter().map(config)
    })
}

#[test]
fn f32_models_are_those_that_were_trained() {
    for ((model, logits), (_, tensor)) in FLOAT.iter().zip(FLOAT_LOGITS.iter()).zip(MODELS) {
        assert_eq!(
            model.layers().iter().map(|layer| layer.name()).collect::<Vec<_>>(),
            ["fc1", "fc2", "fc3"]
        );
        assert_eq!(TEST.correct(argmax_rows(matrix(logits))), 2443, "{tensor}");
        let expected = dataset::read_f32(&file("mnist_logits_256"), &format!("{tensor}.logits")).unwrap();
        assert_eq!(expected.len(), 256 * CLASSES);
        let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{tensor}: f32 logits differ from the trainer's by at most {worst:.2e}");
        assert!(worst <= 1e-4, "{tensor}: {worst}");
    }
}

#[test]
fn int8_models_decide_as_the_f32_models_do() {
    for ((float, reference), (_, name)) in FLOAT.iter().zip(FLOAT_LOGITS.iter()).zip(MODELS) {
        for config in configs() {
            let model = quantize(float, &config);
            let logits = logits(&model, TEST.len(), Threads::Serial);
            let right = TEST.correct(argmax_rows(matrix(&logits)));
            let agree = same_class(&logits, reference);
            let sqnr = qcore::sqnr_db(reference, &logits).unwrap();
            let which = format!("{name} {} {}", config.activations, config.weights);
            println!("{which}: {right} right, {agree} of {} agree, logits SQNR {sqnr:.2} dB", TEST.len());
            let report = model.report(float, images(&TEST)).unwrap();
            assert!((report.logits_sqnr_db - sqnr).abs() < 1e-3, "{which}: {} {sqnr}", report.logits_sqnr_db);
            assert_eq!(report.agreement, agree as f64 / TEST.len() as f64, "{which}");
            assert_eq!(report.warnings, [], "{which}: healthy models have none");
            if config.weights == WeightGranularity::PerChannel {
                println!("{report}");
                assert!(right >= 2440 && agree >= 2485 && sqnr >= 34.0, "{which}: {right} {agree} {sqnr}");
            }
        }
    }
}

/// What the quantize pass makes of a model by `method`: how many digits are right, and the SQNR of
/// the logits in dB.
fn pass(model: usize, method: Method) -> (usize, f64) {
    let mut mlp = Mlp::from(FLOAT[model].clone());
    let config = PassConfig { method, ..PassConfig::default() };
    let batches = (0..CALIBRATION.len()).step_by(100);
    let batches = batches.map(|i| images(&CALIBRATION).row_range(i..i + 100).unwrap());
    let report = quantize_model(&mut mlp, &config, batches, Mlp::run_batch, |_| {}).unwrap();
    assert_eq!(report.warnings, [], "{report}");
    let mut logits = vec![f32::NAN; TEST.len() * CLASSES];
    let out = MatMut::new(&mut logits, TEST.len(), CLASSES).unwrap();
    mlp.forward(images(&TEST), out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    let sqnr = qcore::sqnr_db(&FLOAT_LOGITS[model], &logits).unwrap();
    (TEST.correct(argmax_rows(matrix(&logits))), sqnr)
}

#[test]
fn squared_error_is_the_best_observer() {
    let observers = [
        ObserverChoice::MinMax,
        ObserverChoice::MovingAverage(0.01),
        ObserverChoice::Percentile(99.9),
        ObserverChoice::Percentile(99.99),
        ObserverChoice::Percentile(99.999),
        ObserverChoice::Histogram,
        ObserverChoice::Entropy,
    ];
    let total = |observer: ObserverChoice| {
        let sqnr = MODELS.iter().enumerate().map(|(model, (name, _))| {
            let method = Method::Static(StaticConfig { observer, ..StaticConfig::default() });
            let (right, sqnr) = pass(model, method);
            println!("{name} static {observer:?}: {right} right, logits SQNR {sqnr:.2} dB");
            assert!(right >= 2440, "{name} {observer:?}: {right}");
            assert!(sqnr >= 45.0 || !matches!(observer, ObserverChoice::Mse), "{name}: {sqnr} dB");
            sqnr
        });
        sqnr.sum::<f64>()
    };
    let best = total(ObserverChoice::Mse);
    for observer in observers {
        assert!(total(observer) < best, "{observer:?}");
    }
}

#[test]
fn dynamic_models_need_no_calibration_to_be_as_good() {
    for (model, (name, _)) in MODELS.iter().enumerate() {
        for scheme in [Scheme::weights_i8(), Scheme::activations_u8()] {
            let activations = Dynamic::PerToken(scheme);
            let method = Method::Dynamic(DynamicConfig { activations, ..DynamicConfig::default() });
            let (right, sqnr) = pass(model, method);
            println!("{name} dynamic, codes {:?}: {right} right, logits SQNR {sqnr:.2} dB", scheme.codes);
            assert!(right >= 2442 && sqnr >= 45.0, "{name}: {right} {sqnr}");
        }
    }
}

#[test]
fn weights_alone_cost_least() {
    for (model, (name, _)) in MODELS.iter().enumerate() {
        let (right, sqnr) = pass(model, Method::WeightOnly(WeightConfig::default()));
        println!("{name} weight-only: {right} right, logits SQNR {sqnr:.2} dB");
        assert!(right >= 2442 && sqnr >= 49.0, "{name}: {right} {sqnr}");
    }
}

#[test]
fn every_kernel_thread_count_and_file_gives_the_same_bits() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for float in FLOAT.iter() {
        for config in activation_configs() {
            let model = quantize(float, &config);
            let expected = bits(&logits(&model, TEST.len(), Threads::Serial));
            let bytes = model.to_bytes().unwrap();
            for kernel in Kernel::available() {
                let restored = QuantMlp::from_bytes(&bytes, Some(kernel)).unwrap();
                assert_eq!((restored.kernel(), restored.to_bytes().unwrap() == bytes), (kernel, true));
                for threads in [Threads::Serial, Threads::Pool(&pool)] {
                    let logits = logits(&restored, TEST.len(), threads);
                    assert!(bits(&logits) == expected, "{config:?} {} {threads:?}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    for config in activation_configs() {
        let model = quantize(&FLOAT[0], &config);
        let expected = bits(&logits(&model, TEST.len(), Threads::Serial));
        for batch in [1, 7, 256] {
            assert!(bits(&logits(&model, batch, Threads::Serial)) == expected, "{config:?} batch {batch}");
        }
    }
}

#[test]
fn a_saved_model_is_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = quantize(&FLOAT[0], &QuantConfig::default());
    model.save(&path).unwrap();
    model.save(&path).unwrap(); // over an older file
    let restored = QuantMlp::load(&path, None).unwrap();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["model.safetensors"], "nothing else is left");
    assert_eq!(std::fs::read(&path).unwrap(), restored.to_bytes().unwrap());
    let any_form = Mlp::load(&path, None).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), layers_to_bytes(&any_form).unwrap());
    let [a, b] = [&model, &restored].map(|model| bits(&logits(model, 100, Threads::Serial)));
    assert!(a == b);
}
