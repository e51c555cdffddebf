//! Evidence before and after: bytes counted, layers ranked by what they cost, mixes that keep what they promise.

mod small;

use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    Calibration, DynamicConfig, FloatMlp, ForwardError, Layers, Linear, Method, Mlp, ModelOutput, PassConfig,
    QuantWorkspace, SensitivityError, StaticConfig, Target, WeightConfig, analyze_model_sizes,
    analyze_sensitivity, calibrate_model, quantize_model,
};

use small::{linear, rows};

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

fn calibrated(model: &mut Mlp, x: MatRef<'_, f32>) -> Calibration {
    calibrate_model(model, &config(), [x], Mlp::run_batch, |_| {}).unwrap()
}

fn evaluate(model: &Mlp, x: MatRef<'_, f32>) -> Result<ModelOutput, ForwardError> {
    let mut values = vec![0.0; ROWS * WIDTH];
    let out = MatMut::new(&mut values, ROWS, WIDTH)?;
    model.forward(x, out, Threads::Serial, &mut QuantWorkspace::new())?;
    Ok(ModelOutput { values, cols: WIDTH })
}

fn methods(model: &Mlp) -> Vec<&'static str> {
    model.layers().iter().map(Linear::method).collect()
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
    let calibration = calibrated(&mut model, x);
    let report =
        analyze_sensitivity(&mut model, &calibration, &[], None, |model| evaluate(model, x)).unwrap();
    let names: Vec<_> = report.layers.iter().map(|layer| &layer.name[..]).collect();
    assert_eq!(names[..2], ["fc2", "fc4"], "{report}");
    assert!(report.layers.is_sorted_by(|a, b| a.sqnr_db <= b.sqnr_db) && report.mix.is_none());
    assert!(report.layers[0].sqnr_db < 15.0 && report.layers[3].sqnr_db > 35.0, "{report}");
    assert_eq!(methods(&model), ["float"; 4]);
    assert_eq!(evaluate(&model, x).unwrap(), before, "the model is as it was");
}

#[test]
fn a_mix_keeps_what_it_promises_at_the_least_bytes() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x);
    for (target, fallbacks, expected) in [
        (Target::SqnrDb(1.0), vec![], ["static"; 4]),
        (Target::SqnrDb(25.0), vec![], ["static", "float", "static", "static"]),
        (Target::SqnrDb(25.0), vec![bits(8)], ["static"; 4]),
        (Target::SqnrDb(f64::INFINITY), vec![], ["float"; 4]),
    ] {
        let report = analyze_sensitivity(&mut model, &calibration, &fallbacks, Some(target), |model| {
            evaluate(model, x)
        });
        let report = report.unwrap();
        assert_eq!(methods(&model), ["float"; 4]);
        let mix = report.mix.as_ref().unwrap();
        let found: Vec<_> = mix.methods.iter().map(|(_, method)| method.name()).collect();
        assert_eq!(found, expected, "{target:?}\n{report}");
        let Target::SqnrDb(db) = target else { unreachable!() };
        assert!(mix.sqnr_db >= db, "{report}");
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
        assert!((sqnr - mix.sqnr_db).abs() < 1e-9 || sqnr == mix.sqnr_db, "{sqnr} {report}");
        assert_eq!(mix.stored_bytes, analyze_model_sizes(&mixed).stored().total());
    }
    let target = Some(Target::Agreement(0.99));
    let report =
        analyze_sensitivity(&mut model, &calibration, &[], target, |model| evaluate(model, x)).unwrap();
    assert!(report.mix.as_ref().unwrap().agreement >= 0.99, "{report}");
    assert!(report.to_string().contains("mix: SQNR"), "{report}");
}

#[test]
fn what_cannot_be_measured_is_an_error_and_changes_nothing() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x);
    let mut runs = 0;
    let error = analyze_sensitivity(&mut model, &calibration, &[], Some(Target::SqnrDb(99.0)), |model| {
        runs += 1;
        if runs == 7 { Err("the seventh run") } else { evaluate(model, x).map_err(|_| "no") }
    });
    assert!(matches!(error, Err(SensitivityError::Evaluate("the seventh run"))));
    assert_eq!(methods(&model), ["float"; 4]);
    let mut cols = 4;
    let error = analyze_sensitivity(&mut model, &calibration, &[], None, |_| {
        cols += 4;
        Ok::<_, ForwardError>(ModelOutput { values: vec![1.0; cols], cols: 8 })
    });
    assert_eq!(error.unwrap_err().to_string(), "expected 8 output values in rows of 8, got 12");
    assert_eq!(methods(&model), ["float"; 4]);
    let mut count = 0;
    model.visit(&mut |_| count += 1);
    assert_eq!(count, 4);
}
