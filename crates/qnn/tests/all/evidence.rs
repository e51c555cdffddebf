//! Evidence before and after: bytes counted, layers ranked by what they cost, mixes that keep what
//! they promise.

use std::ops::ControlFlow;

use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    Calibration, DynamicConfig, FloatLinear, FloatMlp, ForwardError, Layers, Linear, LinearWorkspace, Method,
    Mlp, ModelOutput, ObserverChoice, PassConfig, QuantConfig, StaticConfig, Target, TrialError,
    TrialProgress, Warning, WeightConfig, WeightOnlyConfig, analyze_model_sizes, analyze_sensitivity,
    calibrate_model, compare_schemes, quantize_model,
};

use crate::small::{linear, rows};

const WIDTH: usize = 24;
const ROWS: usize = 200;

fn model() -> Mlp {
    FloatMlp::new((1..=4).map(|i| linear(&format!("fc{i}"), WIDTH, WIDTH)).collect()).unwrap().into()
}

fn inputs() -> Vec<f32> {
    (0..ROWS * WIDTH).map(|i| (i as f32 * 0.61).sin()).collect()
}

fn bits(bits: u32) -> Method {
    let weights = WeightConfig::with_bits(bits).unwrap();
    Method::Static(StaticConfig { weights, ..StaticConfig::default() })
}

/// `fc2` at two bits: what costs most.
fn config() -> PassConfig {
    PassConfig::default().with_rule("fc2", bits(2)).with_rule("fc4", bits(6))
}

fn calibrated(model: &mut Mlp, x: MatRef<'_, f32>, candidates: &[Method]) -> Calibration {
    let config = PassConfig { candidates: candidates.to_vec(), ..config() };
    calibrate_model(model, &config, [x], Mlp::run_batch, |_| {}).unwrap()
}

fn go_on(_: TrialProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn evaluate(model: &Mlp, x: MatRef<'_, f32>) -> Result<ModelOutput, ForwardError> {
    let mut values = vec![0.0; ROWS * WIDTH];
    let out = MatMut::new(&mut values, ROWS, WIDTH)?;
    model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())?;
    Ok(ModelOutput { values, cols: WIDTH })
}

fn methods(model: &Mlp) -> Vec<&'static str> {
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
    assert_eq!(error.unwrap_err().to_string(), "expected 8 output values in rows of 8, got 12");
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

#[test]
fn schemes_are_compared_in_one_table() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let impossible = WeightConfig { scheme: qcore::Scheme::activations_u8(), ..WeightConfig::default() };
    let mut candidates = Method::schemes();
    candidates.push(Method::Dynamic(DynamicConfig { weights: impossible, ..DynamicConfig::default() }));
    let calibration = calibrated(&mut model, x, &candidates);
    let mut seen = Vec::new();
    let progress = |at: TrialProgress| {
        seen.push((at.done, at.expected));
        ControlFlow::Continue(())
    };
    let report = compare_schemes(&mut model, &calibration, |model| evaluate(model, x), progress).unwrap();
    // The f32 model, the plan, and every candidate but the one that no layer can have.
    let runs = candidates.len() + 1;
    assert_eq!(seen, (1..=runs).map(|done| (done, runs + 1)).collect::<Vec<_>>());
    let (planned, rest) = report.schemes.split_first().unwrap();
    assert!(planned.method.is_none() && planned.cost.as_ref().unwrap().quality.sqnr_db < 15.0, "{report}");
    let (last, rest) = rest.split_last().unwrap();
    assert!(last.cost.as_ref().unwrap_err().to_string().contains("fc1"), "{report}");
    for result in rest {
        let cost = result.cost.as_ref().unwrap();
        assert!(cost.quality.sqnr_db > 20.0 && cost.quality.cosine > 0.99 && cost.seconds > 0.0, "{report}");
        assert!(3 * cost.bytes < report.float_bytes, "{report}");
    }
    let text = report.to_string();
    assert_eq!(text.lines().count(), candidates.len() + 3, "{text}");
    let best = report.best().unwrap();
    let line = text.lines().find(|line| line.starts_with(&best.0.unwrap().to_string())).unwrap();
    assert!(line.contains(&format!("{:.2} *", best.1.sqnr_db)), "{text}");
    assert_eq!(methods(&model), ["float"; 4]);
}

/// A better form for all layers, at a quarter of the bytes, goes before f32 for some.
#[test]
fn a_mix_is_proposed_from_all_candidates() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let config = PassConfig { method: bits(4), ..PassConfig::default() };
    let candidates = vec![bits(4), Method::Dynamic(DynamicConfig::default())];
    let target = Some(Target::SqnrDb(25.0));
    let mut bytes = |candidates: &[Method]| {
        let config = PassConfig { candidates: candidates.to_vec(), ..config.clone() };
        let calibration = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
        let report =
            analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), go_on).unwrap();
        let mix = report.mix.as_ref().unwrap();
        assert!(mix.quality.sqnr_db >= 25.0, "{report}");
        (mix.layers_in_float(), mix.stored_bytes, report.to_string())
    };
    let (in_float, most, text) = bytes(&[]);
    assert!(
        in_float > 0 && text.contains("an SQNR of 25 dB is out of reach of the schemes tried: "),
        "{text}"
    );
    let (in_float, least, text) = bytes(&candidates);
    assert!(in_float == 0 && 2 * least < most && text.contains("dynamic u8 per token"), "{text}");
}

#[test]
fn a_target_out_of_reach_is_said_to_be() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x, &[Method::WeightOnly(WeightOnlyConfig::default())]);
    let mut analyze = |db| {
        let target = Some(Target::SqnrDb(db));
        analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), go_on).unwrap()
    };
    let report = analyze(1.0);
    assert!(!report.is_out_of_reach() && !report.to_string().contains("reach"), "{report}");
    let report = analyze(120.0);
    assert!(report.is_out_of_reach(), "{report}");
    assert!(
        report.to_string().contains("an SQNR of 120 dB is out of reach of the schemes tried: 4 of 4"),
        "{report}"
    );
    assert!(report.to_string().contains("the best of them in all layers: weight-only, SQNR "), "{report}");
    let report = analyze(f64::NAN);
    assert!(report.is_out_of_reach(), "nothing keeps it: {report}");
}

#[test]
fn progress_is_told_and_can_cancel() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x, &[bits(8)]);
    let target = Some(Target::SqnrDb(25.0));
    let mut seen = Vec::new();
    let all = |at: TrialProgress| {
        seen.push((at.done, at.expected));
        ControlFlow::Continue(())
    };
    analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), all).unwrap();
    assert!(
        seen.iter().enumerate().all(|(i, &(done, expected))| done == i + 1 && expected >= done),
        "{seen:?}"
    );
    let runs = seen.len();
    for stop in 1..=runs {
        let until = |at: TrialProgress| match at.done == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let error = analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), until);
        assert!(matches!(error, Err(TrialError::Cancelled { done }) if done == stop), "{stop}");
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
        (Method::WeightOnly(WeightOnlyConfig::default()), false),
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
    // The second of four rows has no number, whatever the form of the layers.
    let evaluate = |_: &mut Mlp| {
        let values = vec![1.0, 0.0, f32::NAN, f32::NAN, 0.0, 1.0, 1.0, f32::NAN];
        Ok::<_, ForwardError>(ModelOutput { values, cols: 2 })
    };
    let report = analyze_sensitivity(&mut model, &calibration, None, evaluate, go_on).unwrap();
    assert!(report.layers.iter().all(|layer| layer.quality.agreement == 0.75), "{report}");
}
