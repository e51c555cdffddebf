//! Evidence before and after: bytes counted, layers ranked by what they cost, mixes that keep what
//! they promise.

use std::ops::ControlFlow;

use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    Calibration, DynamicConfig, FloatLinear, FloatMlp, ForwardError, Layers, Linear, LinearWorkspace, Method,
    Mlp, ModelOutput, ObserverChoice, PassConfig, QuantConfig, StaticConfig, Target, TrialError,
    TrialProgress, Warning, WeightConfig, analyze_model_sizes, analyze_sensitivity, calibrate_model,
    compare_schemes, quantize_model,
};

use crate::small::{linear, rows};

pub(crate) const WIDTH: usize = 24;
const ROWS: usize = 200;

pub(crate) fn model() -> Mlp {
    FloatMlp::new((1..=4).map(|i| linear(&format!("fc{i}"), WIDTH, WIDTH)).collect()).unwrap().into()
}

pub(crate) fn inputs() -> Vec<f32> {
    (0..ROWS * WIDTH).map(|i| (i as f32 * 0.61).sin()).collect()
}

pub(crate) fn bits(bits: u32) -> Method {
    let weights = WeightConfig::with_bits(bits).unwrap();
    Method::Static(StaticConfig { weights, ..StaticConfig::default() })
}

/// `fc2` at two bits: what costs most.
pub(crate) fn config() -> PassConfig {
    PassConfig::default().with_rule("fc2", bits(2)).with_rule("fc4", bits(6))
}

pub(crate) fn calibrated(model: &mut Mlp, x: MatRef<'_, f32>, candidates: &[Method]) -> Calibration {
    let config = PassConfig { candidates: candidates.to_vec(), ..config() };
    calibrate_model(model, &config, [x], Mlp::run_batch, |_| {}).unwrap()
}

pub(crate) fn go_on(_: TrialProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn evaluate(model: &Mlp, x: MatRef<'_, f32>) -> Result<ModelOutput, ForwardError> {
    let mut values = vec![0.0; ROWS * WIDTH];
    let out = MatMut::new(&mut values, ROWS, WIDTH)?;
    model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())?;
    Ok(ModelOutput { values, cols: WIDTH })
}

pub(crate) fn methods(model: &Mlp) -> Vec<&'static str> {
    model.layers().iter().map(|layer| layer.form().name()).collect()
}

#[test]
fn sizes_count_everything() {
    let (mut model, x) = (model(), inputs());
    let float = 4 * 4 * (WIDTH * WIDTH + WIDTH);
    let sizes = analyze_model_sizes(&model);
    assert_eq!((sizes.float_bytes(), sizes.stored().total(), sizes.compression()), (float, float, 1.0));
    let config = PassConfig::default()
        .with_rule("fc1", Method::Float)
        .with_rule("fc3", Method::Dynamic(DynamicConfig::default()));
    quantize_model(&mut model, &config, [rows(&x, WIDTH)], Mlp::run_batch, |_| {}).unwrap();
    let sizes = analyze_model_sizes(&model);
    let [weights, channels] = [WIDTH * WIDTH, 4 * WIDTH];
    let totals: Vec<_> = sizes.layers.iter().map(|layer| layer.stored.total()).collect();
    let static_bytes = weights + 2 * channels + 8; // scales, biases, the input's scale and zero point
    assert_eq!(totals, [4 * weights + channels, static_bytes, weights + 2 * channels, static_bytes]);
    assert_eq!((sizes.layers[1].stored.scales, sizes.layers[1].stored.zero_points), (channels + 4, 4));
    assert_eq!((sizes.parameters(), sizes.float_bytes()), (float / 4, float));
    let text = sizes.to_string();
    assert!(text.contains("dynamic") && text.lines().count() == 6, "{text}");
}

#[test]
fn affine_weights_have_zero_points_to_store() {
    let (mut model, x) = (model(), inputs());
    let affine = WeightConfig { scheme: qcore::Scheme::activations_i8(), ..WeightConfig::default() };
    let method = Method::Dynamic(DynamicConfig { weights: affine, ..DynamicConfig::default() });
    let config = PassConfig { method, ..PassConfig::default() };
    let report = quantize_model(&mut model, &config, [rows(&x, WIDTH)], Mlp::run_batch, |_| {}).unwrap();
    assert!(report.layers.iter().all(|layer| layer.stored.zero_points == WIDTH), "{report}");
    assert!(report.layers.iter().all(|layer| layer.sqnr_db.unwrap() > 35.0), "{report}");
}

#[test]
fn layers_are_ranked_by_what_they_cost() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let before = evaluate(&model, x).unwrap();
    let calibration = calibrated(&mut model, x, &[]);
    let report =
        analyze_sensitivity(&mut model, &calibration, None, |model| evaluate(model, x), go_on).unwrap();
    let names: Vec<_> = report.layers.iter().map(|layer| &layer.name[..]).collect();
    assert_eq!(names[..2], ["fc2", "fc4"], "{report}");
    assert!(
        report.layers.is_sorted_by(|a, b| a.quality.sqnr_db <= b.quality.sqnr_db) && report.mix.is_none()
    );
    assert!(report.layers[0].quality.sqnr_db < 15.0 && report.layers[3].quality.sqnr_db > 35.0, "{report}");
    assert_eq!(methods(&model), ["float"; 4]);
    assert_eq!(evaluate(&model, x).unwrap(), before, "the model is as it was");
}

#[test]
fn a_mix_keeps_what_it_promises_at_the_least_bytes() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    for (target, candidates, expected) in [
        (Target::SqnrDb(1.0), vec![], ["static"; 4]),
        (Target::SqnrDb(25.0), vec![], ["static", "float", "static", "static"]),
        (Target::SqnrDb(25.0), vec![bits(8)], ["static"; 4]),
        (Target::SqnrDb(f64::INFINITY), vec![], ["float"; 4]),
    ] {
        let calibration = calibrated(&mut model, x, &candidates);
        let evaluated = |model: &mut Mlp| evaluate(model, x);
        let report = analyze_sensitivity(&mut model, &calibration, Some(target), evaluated, go_on).unwrap();
        assert_eq!(methods(&model), ["float"; 4]);
        let mix = report.mix.as_ref().unwrap();
        let found: Vec<_> = mix.methods.iter().map(|(_, method)| method.form().name()).collect();
        assert_eq!(found, expected, "{target:?}\n{report}");
        let Target::SqnrDb(db) = target else { unreachable!() };
        assert!(mix.quality.sqnr_db >= db, "{report}");
        // A pass by the mix's configuration makes the very model that was measured.
        let mut mixed = self::model();
        quantize_model(&mut mixed, &mix.config(config()), [x], Mlp::run_batch, |_| {}).unwrap();
        assert_eq!(methods(&mixed), expected);
        let (expected, got) = (evaluate(&model, x).unwrap(), evaluate(&mixed, x).unwrap());
        let sqnr = if expected == got {
            f64::INFINITY
        } else {
            qcore::sqnr_db(&expected.values, &got.values).unwrap()
        };
        assert!((sqnr - mix.quality.sqnr_db).abs() < 1e-9 || sqnr == mix.quality.sqnr_db, "{sqnr} {report}");
        assert_eq!(mix.stored_bytes, analyze_model_sizes(&mixed).stored().total());
    }
    let target = Some(Target::Agreement(0.99));
    let calibration = calibrated(&mut model, x, &[]);
    let report =
        analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), go_on).unwrap();
    assert!(report.mix.as_ref().unwrap().quality.agreement >= 0.99, "{report}");
    assert!(report.to_string().contains("mix: SQNR"), "{report}");
}

#[test]
fn what_cannot_be_measured_is_an_error_and_changes_nothing() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x, &[]);
    let (mut runs, target) = (0, Some(Target::SqnrDb(99.0)));
    let seventh = |model: &mut Mlp| {
        runs += 1;
        if runs == 7 { Err("the seventh run") } else { evaluate(model, x).map_err(|_| "no") }
    };
    let error = analyze_sensitivity(&mut model, &calibration, target, seventh, go_on);
    assert!(matches!(error, Err(TrialError::Evaluate("the seventh run"))));
    assert_eq!(methods(&model), ["float"; 4]);
    let mut cols = 4;
    let longer = |_: &mut Mlp| {
        cols += 4;
        Ok::<_, ForwardError>(ModelOutput { values: vec![1.0; cols], cols: 8 })
    };
    let error = analyze_sensitivity(&mut model, &calibration, None, longer, go_on);
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "the output has 12 values, which make no rows of 8");
    assert_eq!(methods(&model), ["float"; 4]);
    for (values, cols, expected) in [
        (vec![], 8, "the output has 0 values, which make no rows of 8"),
        (vec![1.0; 8], 0, "the output has 8 values, which make no rows of 0"),
        (vec![1.0; 8], 4, "the output was (1, 8) (rows, columns) in f32, and is (2, 4) now"),
        (vec![1.0; 16], 8, "the output was (1, 8) (rows, columns) in f32, and is (2, 8) now"),
    ] {
        let mut outputs = vec![ModelOutput { values, cols }, ModelOutput { values: vec![1.0; 8], cols: 8 }];
        let next = |_: &mut Mlp| Ok::<_, ForwardError>(outputs.pop().unwrap());
        let error = analyze_sensitivity(&mut model, &calibration, None, next, go_on).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let infinite = |_: &mut Mlp| {
        Ok::<_, ForwardError>(ModelOutput { values: vec![1.0, 2.0, f32::INFINITY, 0.0], cols: 2 })
    };
    let error = compare_schemes(&mut model, &calibration, infinite, go_on).unwrap_err();
    assert_eq!(error.to_string(), "the f32 model's output has inf in row 1, column 0");
    for (target, rows, expected) in [
        (Target::SqnrDb(f64::NAN), 2, "an SQNR of NaN dB cannot be the target: it must be a number"),
        (
            Target::Agreement(99.0),
            2,
            "the same class in 9900 % of the rows cannot be the target: a share is from 0 to 1",
        ),
        (
            Target::SqnrAboutMeanDb(20.0),
            1,
            "an SQNR about the mean of 20 dB cannot be the target: a mean takes at least two rows of output",
        ),
    ] {
        let some = |_: &mut Mlp| Ok::<_, ForwardError>(ModelOutput { values: vec![1.0; rows * 8], cols: 8 });
        let error = analyze_sensitivity(&mut model, &calibration, Some(target), some, go_on).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(methods(&model), ["float"; 4]);
    let mut count = 0;
    model.visit(&mut |_| count += 1);
    assert_eq!(count, 4);
}

const OUTLIER: usize = 17;

/// Numbers of mean 0 and deviation 1, nearly normal, that have nothing to do with each other.
fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    core::iter::repeat_with(move || (0..12).map(|_| uniform()).sum())
}

fn random_layer(name: &str, n: usize, k: usize, seed: u64) -> FloatLinear {
    let weight = noise(seed).take(n * k).map(|w| w / (k as f32).sqrt()).collect();
    FloatLinear::new(name, n, k, weight, vec![0.0; n]).unwrap()
}

/// A model like trained ones: 256 inputs, 64 hidden values, 10 outputs.
fn random_model() -> FloatMlp {
    FloatMlp::new(vec![random_layer("fc1", 64, 256, 1), random_layer("fc2", 10, 64, 2)]).unwrap()
}

/// Rows of 256 channels of deviation 1, one of them about 1000.
fn outliers(rows: usize) -> Vec<f32> {
    let mut x: Vec<f32> = noise(3).take(rows * 256).collect();
    x.iter_mut().skip(OUTLIER).step_by(256).for_each(|v| *v += 1000.0);
    x
}

/// What a model of 100 rows and 10 outputs gives.
fn logits(model: &Mlp, x: MatRef<'_, f32>) -> Result<ModelOutput, ForwardError> {
    let mut values = vec![0.0; 1000];
    let out = MatMut::new(&mut values, 100, 10)?;
    model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())?;
    Ok(ModelOutput { values, cols: 10 })
}

/// Whether there is a warning of each kind about the layer.
fn warned(warnings: &[Warning]) -> (bool, bool) {
    let mean = warnings.iter().any(|w| matches!(w, Warning::MeanHidesNoise { layer, .. } if layer == "fc1"));
    let outlier = warnings
        .iter()
        .any(|w| matches!(w, Warning::OutlierInput { layer, channel: OUTLIER, .. } if layer == "fc1"));
    (mean, outlier)
}

/// What each observer saw is what a pass with that observer alone would have seen.
#[test]
fn a_static_candidate_takes_the_range_of_its_own_observer() {
    let x = inputs();
    let x = rows(&x, WIDTH);
    let observer = |observer| Method::Static(StaticConfig { observer, ..StaticConfig::default() });
    let percentile = observer(ObserverChoice::Percentile(60.0));
    let affine = |codes| StaticConfig {
        activations: qcore::Scheme::tutorial_affine(codes),
        ..StaticConfig::default()
    };
    let i8_codes = Method::Static(affine(qcore::CodeRange::I8));
    let mse = Method::Static(StaticConfig { observer: ObserverChoice::Mse, ..affine(qcore::CodeRange::I8) });
    let candidates = vec![bits(8), percentile, observer(ObserverChoice::Mse), mse, i8_codes, bits(2)];
    for planned in [bits(2), percentile, Method::Dynamic(DynamicConfig::default())] {
        let config = PassConfig { method: planned, candidates: candidates.clone(), ..PassConfig::default() };
        let mut model = model();
        let calibration = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
        let report = compare_schemes(&mut model, &calibration, |model| evaluate(model, x), go_on).unwrap();
        assert_eq!(report.schemes.len(), 7);
        for (result, method) in report.schemes.iter().zip(core::iter::once(&planned).chain(&candidates)) {
            let mut quantized = self::model();
            let config = PassConfig { method: *method, ..PassConfig::default() };
            quantize_model(&mut quantized, &config, [x], Mlp::run_batch, |_| {}).unwrap();
            let (float, got) = (evaluate(&model, x).unwrap(), evaluate(&quantized, x).unwrap());
            let cost = result.cost.as_ref().unwrap();
            assert_eq!(qcore::sqnr_db(&float.values, &got.values).unwrap(), cost.quality.sqnr_db, "{method}");
            assert_eq!(cost.bytes, analyze_model_sizes(&quantized).stored().total(), "{method}");
        }
        assert_eq!(methods(&model), ["float"; 4]);
    }
}

/// An engine's forward may change its own state, for instance a cache.
#[test]
fn a_model_may_change_while_it_runs() {
    struct Counting {
        layer: Linear,
        runs: usize,
    }
    qnn::layers!(Counting { layer });
    impl Counting {
        fn forward(&mut self, x: MatRef<'_, f32>) -> Result<Vec<f32>, ForwardError> {
            self.runs += 1;
            self.layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new())
        }
    }
    let x = inputs();
    let x = rows(&x, WIDTH);
    let mut model = Counting { layer: linear("fc", WIDTH, WIDTH).into(), runs: 0 };
    let run = |model: &mut Counting, x| model.forward(x).map(drop);
    let calibration = calibrate_model(&mut model, &PassConfig::default(), [x, x], run, |_| {}).unwrap();
    assert_eq!(model.runs, 2);
    let evaluate =
        |model: &mut Counting| Ok::<_, ForwardError>(ModelOutput { values: model.forward(x)?, cols: WIDTH });
    analyze_sensitivity(&mut model, &calibration, None, evaluate, go_on).unwrap();
    assert_eq!(model.runs, 4);
}

#[test]
fn a_mix_names_its_layers_whatever_their_names() {
    let names = ["a*", "ab", r"a\*", "?", "x"];
    let layers = names.map(|name| Linear::from(linear(name, WIDTH, WIDTH))).into();
    let mut model = Mlp::new(layers).unwrap();
    let x = inputs();
    let config = PassConfig::default();
    let calibration =
        calibrate_model(&mut model, &config, [rows(&x, WIDTH)], Mlp::run_batch, |_| {}).unwrap();
    let evaluate = |_: &mut Mlp| Ok::<_, ForwardError>(ModelOutput { values: vec![1.0], cols: 1 });
    let target = Some(Target::SqnrDb(0.0));
    let report = analyze_sensitivity(&mut model, &calibration, target, evaluate, go_on).unwrap();
    let mut mix = report.mix.unwrap();
    for (name, method) in &mut mix.methods {
        let stays = !["ab", "x"].contains(&&name[..]);
        *method = if stays { Method::Float } else { Method::Dynamic(DynamicConfig::default()) };
    }
    let config = mix.config(PassConfig::default());
    quantize_model(&mut model, &config, [rows(&x, WIDTH)], Mlp::run_batch, |_| {}).unwrap();
    let forms: Vec<_> = model.layers().iter().map(|layer| layer.form().name()).collect();
    assert_eq!(forms, ["float", "dynamic", "float", "float", "dynamic"]);
}

#[test]
fn a_large_mean_does_not_hide_the_noise() {
    let x = outliers(100);
    let x = rows(&x, 256);
    let float = random_model();
    let per_tensor = qkernels::Dynamic::PerTensor(qcore::Scheme::onnx_dynamic(qcore::CodeRange::U8));
    for (method, integers) in [
        (Method::default(), true),
        (Method::Dynamic(DynamicConfig::default()), true),
        (Method::Dynamic(DynamicConfig { activations: per_tensor, ..DynamicConfig::default() }), true),
        (Method::WeightOnly(WeightConfig::default()), false),
    ] {
        let config = PassConfig { method, ..PassConfig::default() }.with_rule("fc2", Method::Float);
        let mut model = Mlp::from(float.clone());
        let report = quantize_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
        let layer = &report.layers[0];
        let (sqnr, about_mean) = (layer.sqnr_db.unwrap(), layer.sqnr_about_mean_db.unwrap());
        assert!(sqnr > 30.0, "{report}");
        assert!(if integers { about_mean < 3.0 } else { about_mean > 40.0 }, "{report}");
        assert_eq!(warned(&report.warnings), (integers, integers), "{report}");
        let text = report.to_string();
        assert!(text.contains("about mean"), "{text}");
        for words in [
            "warning: fc1: input channel 17 takes most of the range",
            "keep this layer in weight-only or f32, or smooth its input",
        ] {
            assert_eq!(text.contains(words), integers, "{text}");
        }

        // Of the model's output, layer by layer.
        let calibration =
            calibrate_model(&mut Mlp::from(float.clone()), &config, [x], Mlp::run_batch, |_| {}).unwrap();
        let evaluate = |model: &mut Mlp| logits(model, x);
        let mut model = Mlp::from(float.clone());
        let target = Some(Target::SqnrAboutMeanDb(20.0));
        let report = analyze_sensitivity(&mut model, &calibration, target, evaluate, go_on).unwrap();
        assert_eq!(report.layers[0].quality.sqnr_about_mean_db.unwrap() < 15.0, integers, "{report}");
        assert_eq!(warned(&report.warnings).0, integers, "{report}");
        let mix = report.mix.as_ref().unwrap();
        assert!(mix.quality.sqnr_about_mean_db.unwrap() >= 20.0, "{report}");
        assert_eq!(matches!(mix.methods[0].1, Method::Float), integers, "{report}");
    }
    let model = float.calibrate([x]).unwrap().quantize(&QuantConfig::default()).unwrap();
    let report = model.report(&float, x).unwrap();
    assert!(report.layers[0].sqnr_db > report.layers[0].sqnr_about_mean_db.unwrap() + 10.0, "{report}");
    assert_eq!(warned(&report.warnings), (true, true), "{report}");
    assert!(report.to_string().contains("warning: fc1: "), "{report}");
}

#[test]
fn healthy_models_have_no_warnings() {
    let x: Vec<f32> = noise(3).take(100 * 256).collect();
    let x = rows(&x, 256);
    let mut model = Mlp::from(random_model());
    let calibration =
        calibrate_model(&mut model, &PassConfig::default(), [x], Mlp::run_batch, |_| {}).unwrap();
    let evaluate = |model: &mut Mlp| logits(model, x);
    let report = analyze_sensitivity(&mut model, &calibration, None, evaluate, go_on).unwrap();
    assert_eq!(report.warnings, []);
    let quant = random_model();
    let quant = quant.calibrate([x]).unwrap().quantize(&QuantConfig::default()).unwrap();
    assert_eq!(quant.report(&random_model(), x).unwrap().warnings, []);
    let report = calibration.quantize(&mut model).unwrap();
    assert_eq!((&report.warnings[..], report.to_string().contains("warning")), (&[][..], false));
    // One row tells nothing of what differs from row to row.
    let one = x.row_range(0..1).unwrap();
    let mut model = Mlp::from(random_model());
    let report = quantize_model(&mut model, &PassConfig::default(), [one], Mlp::run_batch, |_| {});
    let report = report.unwrap();
    assert!(report.layers.iter().all(|l| l.sqnr_db.is_some() && l.sqnr_about_mean_db.is_none()), "{report}");
    assert_eq!(report.warnings, []);
}

#[test]
fn a_row_without_a_number_agrees_with_nothing() {
    let (mut model, x) = (model(), inputs());
    let calibration = calibrated(&mut model, rows(&x, WIDTH), &[]);
    // The second of four rows has no number with fc3 quantized.
    let evaluate = |model: &mut Mlp| {
        let number = if methods(model)[2] == "float" { 1.0 } else { f32::NAN };
        let values = vec![1.0, 0.0, number, number, 0.0, 1.0, 1.0, 0.5];
        Ok::<_, ForwardError>(ModelOutput { values, cols: 2 })
    };
    let target = Some(Target::SqnrDb(20.0));
    let report = analyze_sensitivity(&mut model, &calibration, target, evaluate, go_on).unwrap();
    let agreements: Vec<_> = report.layers.iter().map(|layer| layer.quality.agreement).collect();
    assert_eq!(
        (&report.layers[0].name[..], &agreements[..]),
        ("fc3", &[0.75, 1.0, 1.0, 1.0][..]),
        "{report}"
    );
    // It costs most, so it is the one that goes.
    let mix = report.mix.unwrap();
    assert_eq!(
        mix.methods.iter().map(|(_, method)| method.form().name()).collect::<Vec<_>>(),
        ["static", "static", "float", "static"]
    );
}
