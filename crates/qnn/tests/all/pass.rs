//! The quantize pass on trees of layers: what decides, what is replaced, what is reported, and that
//! errors leave a model as it was.

use qcore::{CodeRange, Scheme};
use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, CalibrationProgress, Decision, FloatLinear, FloatMlp, ForwardError, Layers, Linear,
    LinearWorkspace, Method, Mlp, ObserverChoice, PassConfig, PassError, PassLayerError, PassReport,
    QuantConfig, StaticConfig, WeightConfig, quantize_model,
};

use crate::small::{linear, rows};

/// An engine's model: two blocks with a residual around each, a gate that only some inputs reach, a
/// head.
struct Engine {
    blocks: Vec<Block>,
    gate: Linear,
    head: Linear,
}

struct Block {
    up: Linear,
    down: Linear,
}

impl Layers for Block {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        [&self.up, &self.down].into_iter().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        [&mut self.up, &mut self.down].into_iter().for_each(visit);
    }
}

impl Layers for Engine {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        self.blocks.visit(visit);
        [&self.gate, &self.head].into_iter().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        self.blocks.visit_mut(visit);
        [&mut self.gate, &mut self.head].into_iter().for_each(visit);
    }
}

const WIDTH: usize = 6;

impl Engine {
    fn new() -> Self {
        let block = |i| Block {
            up: linear(&format!("blocks.{i}.up"), 9, WIDTH).into(),
            down: linear(&format!("blocks.{i}.down"), WIDTH, 9).into(),
        };
        let head = FloatLinear::without_bias("lm_head", 3, WIDTH, vec![0.25; 3 * WIDTH]).unwrap();
        Self { blocks: vec![block(0), block(1)], gate: linear("gate", 1, WIDTH).into(), head: head.into() }
    }

    fn run(&self, x: &[f32]) -> Result<Vec<f32>, ForwardError> {
        let m = x.len() / WIDTH;
        let mut workspace = LinearWorkspace::new();
        let mut apply = |layer: &Linear, x: &[f32]| {
            let mut y = vec![0.0; m * layer.n()];
            let (x, out) = (MatRef::new(x, m, layer.k())?, MatMut::new(&mut y, m, layer.n())?);
            layer.forward(x, out, Threads::Serial, &mut workspace)?;
            Ok::<_, ForwardError>(y)
        };
        let mut hidden = x.to_vec();
        for block in &self.blocks {
            let up = apply(&block.up, &hidden)?;
            let down = apply(&block.down, &up)?;
            hidden.iter_mut().zip(down).for_each(|(h, d)| *h += d.max(0.0));
        }
        if hidden.first().is_some_and(|&h| h > 1e6) {
            apply(&self.gate, &hidden)?;
        }
        apply(&self.head, &hidden)
    }

    fn methods(&self) -> Vec<&'static str> {
        let mut methods = Vec::new();
        self.visit(&mut |layer| methods.push(layer.form().name()));
        methods
    }
}

fn batch(seed: usize) -> Vec<f32> {
    (0..5 * WIDTH).map(|i| ((i * 7 + seed * 13) as f32 * 0.37).sin()).collect()
}

fn pass(engine: &mut Engine, config: &PassConfig) -> Result<PassReport, PassError<ForwardError>> {
    quantize_model(engine, config, (0..4).map(batch), |engine, x| engine.run(&x).map(drop), |_| {})
}

/// All layers but the gate, which calibration does not reach.
fn config() -> PassConfig {
    PassConfig::default().with_rule("gate", Method::Float)
}

#[test]
fn the_pass_replaces_what_it_is_shown() {
    let mut engine = Engine::new();
    let before = engine.run(&batch(1)).unwrap();
    let mut seen = Vec::new();
    let run = |engine: &mut Engine, x: Vec<f32>| engine.run(&x).map(drop);
    let report = quantize_model(&mut engine, &config(), (0..4).map(batch), run, |at| seen.push(at)).unwrap();
    assert_eq!(engine.methods(), ["static", "static", "static", "static", "float", "static"]);
    let done: Vec<_> = seen.iter().map(|at: &CalibrationProgress| (at.done, at.total)).collect();
    assert_eq!(done, [(1, Some(4)), (2, Some(4)), (3, Some(4)), (4, Some(4))]);
    assert_eq!(report.batches, 4);
    let sqnr = qcore::sqnr_db(&before, &engine.run(&batch(1)).unwrap()).unwrap();
    assert!(sqnr > 25.0, "{sqnr} dB");
    for layer in &report.layers {
        let is_gate = layer.name == "gate";
        assert_eq!(layer.decision == Decision::Default, !is_gate, "{}", layer.name);
        assert_eq!(layer.rows, if is_gate { 0 } else { 20 }, "{}", layer.name);
        assert_eq!(layer.sqnr_db.is_some_and(|db| db > 20.0), !is_gate, "{}", layer.name);
        assert_eq!(layer.clipped, if is_gate { None } else { Some(0.0) }, "{}", layer.name);
    }
    let text = report.to_string();
    assert!(text.contains("blocks.1.down") && text.contains("rule gate"), "{text}");
    // What is quantized is quantized: a second pass finds it so.
    let report = pass(&mut engine, &config()).unwrap();
    assert!(report.layers.iter().filter(|layer| layer.decision == Decision::Already).count() == 5);
}

#[test]
fn layers_are_chosen_by_name_place_and_size() {
    let decide = |config: PassConfig| {
        let mut engine = Engine::new();
        let report = pass(&mut engine, &config).unwrap();
        let decisions = report.layers.iter().map(|layer| layer.decision.clone()).collect::<Vec<_>>();
        (engine.methods(), decisions)
    };
    let ends = PassConfig { first_in_float: true, last_in_float: true, ..config() };
    let (methods, decisions) = decide(ends.clone());
    assert_eq!(methods, ["float", "static", "static", "static", "float", "float"]);
    assert_eq!((&decisions[0], &decisions[5]), (&Decision::First, &Decision::Last));
    // A rule comes before place and size; of two rules the first that matches.
    let config = PassConfig { min_weights: 20, ..ends }
        .with_rule("blocks.0.*", Method::default())
        .with_rule("*.up", Method::Float);
    let (methods, decisions) = decide(config);
    assert_eq!(methods, ["static", "static", "float", "static", "float", "float"]);
    assert_eq!(decisions[2], Decision::Rule("*.up".to_owned()));
    let (methods, decisions) = decide(PassConfig { min_weights: 20, ..self::config() });
    assert_eq!((methods[5], &decisions[5]), ("float", &Decision::TooSmall)); // 18 weights
}

#[test]
fn bits_and_scheme_are_those_of_the_layer() {
    let mut engine = Engine::new();
    let four = StaticConfig {
        activations: Scheme::activations_i8(),
        weights: WeightConfig::with_bits(4).unwrap(),
        ..StaticConfig::default()
    };
    let report = pass(&mut engine, &config().with_rule("*.up", Method::Static(four))).unwrap();
    engine.visit(&mut |layer| {
        if let Linear::Static(layer) = layer {
            let largest = layer.weights().unpack().iter().map(|w| w.unsigned_abs()).max().unwrap();
            let four_bits = layer.name().ends_with(".up");
            assert_eq!(largest, if four_bits { 7 } else { 127 }, "{}", layer.name());
            let codes = if four_bits { ActivationCodes::I8 } else { ActivationCodes::U8 };
            assert_eq!(layer.input_codes(), codes, "{}", layer.name());
        }
    });
    let db = |name: &str| report.layers.iter().find(|layer| layer.name == name).unwrap().sqnr_db.unwrap();
    assert!(db("blocks.0.up") < db("blocks.0.down"), "{report}");
}

#[test]
fn every_observer_calibrates() {
    for observer in [
        ObserverChoice::MinMax,
        ObserverChoice::MovingAverage(0.5),
        ObserverChoice::Percentile(90.0),
        ObserverChoice::Histogram,
        ObserverChoice::Mse,
        ObserverChoice::Entropy,
        ObserverChoice::Custom(|scheme| ObserverChoice::Mse.observer(scheme).unwrap()),
    ] {
        for activations in
            [Scheme::activations_u8(), Scheme::activations_i8(), Scheme::pytorch_symmetric(CodeRange::I8)]
        {
            let method = Method::Static(StaticConfig { observer, activations, ..StaticConfig::default() });
            let mut engine = Engine::new();
            let report = pass(&mut engine, &PassConfig { method, ..config() }).unwrap();
            let layer = &report.layers[1];
            assert!(layer.sqnr_db.unwrap() > 5.0, "{observer:?} {layer:?}");
            let clips = matches!(observer, ObserverChoice::Percentile(_));
            assert!(layer.clipped.unwrap() > 0.05 || !clips, "{observer:?} {layer:?}");
        }
    }
}

#[test]
fn a_fallback_to_float_is_an_error_unless_allowed() {
    // The gate never runs.
    let mut engine = Engine::new();
    let error = pass(&mut engine, &PassConfig::default()).unwrap_err();
    let refusal = PassLayerError::DidNotRun;
    assert!(matches!(&error, PassError::Layer(r) if r.layer == "gate" && r.error == refusal), "{error}");
    assert_eq!(engine.methods(), ["float"; 6], "an error leaves the model as it was");
    let report = pass(&mut engine, &PassConfig { require_integer: false, ..PassConfig::default() }).unwrap();
    assert_eq!(engine.methods(), ["static", "static", "static", "static", "float", "static"]);
    assert_eq!(report.layers[4].decision, Decision::Fallback(refusal));
    assert!(
        report.to_string().contains("note: gate stays in f32: the layer did not run during calibration"),
        "{report}"
    );
}

#[test]
fn mistakes_are_named_and_leave_the_model_as_it_was() {
    let fails = |config: &PassConfig, message: &str| {
        let mut engine = Engine::new();
        let before = engine.run(&batch(1)).unwrap();
        assert_eq!(pass(&mut engine, config).unwrap_err().to_string(), message);
        assert_eq!((engine.methods(), engine.run(&batch(1)).unwrap()), (vec!["float"; 6], before));
    };
    fails(&config().with_rule("lm_haed", Method::Float), "the rule for \"lm_haed\" matches no layer");
    let bad = StaticConfig { observer: ObserverChoice::Percentile(20.0), ..StaticConfig::default() };
    fails(
        &PassConfig { method: Method::Static(bad), ..config() },
        "layer \"blocks.0.up\": static u8, percentile 20: the percentile must be 50 to 100, got 20",
    );
    let wide = Scheme { codes: CodeRange::U8, ..Scheme::weights_i8() };
    let wide = WeightConfig { scheme: wide, ..WeightConfig::default() };
    fails(
        &PassConfig {
            method: Method::Static(StaticConfig { weights: wide, ..StaticConfig::default() }),
            ..config()
        },
        "layer \"blocks.0.up\": weights need codes in i8, got 0..=255",
    );

    let mut engine = Engine::new();
    let no_batches: [Vec<f32>; 0] = [];
    let run = |engine: &mut Engine, x: Vec<f32>| engine.run(&x).map(drop);
    let error = quantize_model(&mut engine, &config(), no_batches, run, |_| {}).unwrap_err();
    assert!(matches!(error, PassError::NoBatches { layer } if layer == "blocks.0.up"));
    let error = quantize_model(
        &mut engine,
        &config(),
        [batch(0), vec![0.0; 5], batch(1)],
        |_, x| {
            if x.len() == 5 { Err("too short") } else { Ok(()) }
        },
        |_| {},
    );
    assert!(matches!(error, Err(PassError::Run { batch: 1, error: "too short" })));
    assert_eq!(engine.methods(), ["float"; 6]);
    let mut twins = vec![Linear::from(linear("a", 1, 1)), Linear::from(linear("a", 1, 1))];
    let error = quantize_model(&mut twins, &config(), [()], |_, ()| Ok::<_, ForwardError>(()), |_| {});
    assert_eq!(error.unwrap_err().to_string(), "layers 0 and 1 are both named \"a\"");
    let mut none: Vec<Linear> = Vec::new();
    let error = quantize_model(&mut none, &config(), [()], |_, ()| Ok::<_, ForwardError>(()), |_| {});
    assert_eq!(error.unwrap_err().to_string(), "a model needs at least one layer, got none");
}

#[test]
fn values_that_are_not_finite_are_skipped_and_counted() {
    let mut model = Mlp::new(vec![linear("fc1", 3, 2).into()]).unwrap();
    let x = [0.0, f32::NAN, 1.0, 2.0, f32::INFINITY, 0.5];
    let report = quantize_model(&mut model, &PassConfig::default(), [rows(&x, 2)], Mlp::run_batch, |_| {});
    let report = report.unwrap();
    assert_eq!((report.layers[0].rows, report.layers[0].non_finite), (3, 2));
    assert_eq!(report.layers[0].input.unwrap().scale(), 2.0 / 255.0);
    assert!(report.to_string().contains("note: fc1: 2 input values are not finite"), "{report}");
}

/// The MLP is one tree among others: the pass gives it the bits that the short way gives.
#[test]
fn the_pass_and_the_mlp_s_own_way_agree_bit_for_bit() {
    let float =
        FloatMlp::new(vec![linear("fc1", 33, 20), linear("fc2", 17, 33), linear("fc3", 5, 17)]).unwrap();
    let x: Vec<f32> = (0..700 * 20).map(|i| (i as f32 * 0.61).sin()).collect();
    let x = rows(&x, 20);
    for activations in ActivationCodes::ALL {
        for kernel in Kernel::available() {
            let config = QuantConfig { activations, kernel: Some(kernel), ..QuantConfig::default() };
            let expected = float.calibrate([x]).unwrap().quantize(&config).unwrap();
            let scheme = match activations {
                ActivationCodes::U8 => Scheme::activations_u8(),
                _ => Scheme::activations_i8(),
            };
            let method = Method::Static(StaticConfig { activations: scheme, ..StaticConfig::default() });
            let config = PassConfig { method, kernel: Some(kernel), ..PassConfig::default() };
            let mut model = Mlp::from(float.clone());
            quantize_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
            let (mut a, mut b) = (vec![0.0; 700 * 5], vec![0.0; 700 * 5]);
            let mut workspace = LinearWorkspace::new();
            let out = MatMut::new(&mut a, 700, 5).unwrap();
            expected.forward(x, out, Threads::Serial, &mut workspace).unwrap();
            let out = MatMut::new(&mut b, 700, 5).unwrap();
            model.forward(x, out, Threads::Serial, &mut workspace).unwrap();
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{activations}");
        }
    }
}

/// Layers of different forms and codes beside each other.
#[test]
fn a_mixed_mlp_runs() {
    let float = FloatMlp::new((0..5).map(|i| linear(&format!("fc{i}"), 12, 12)).collect()).unwrap();
    let x: Vec<f32> = (0..300 * 12).map(|i| (i as f32 * 0.61).sin()).collect();
    let x = rows(&x, 12);
    let i8_codes = StaticConfig { activations: Scheme::activations_i8(), ..StaticConfig::default() };
    let config = PassConfig::default().with_rule("fc2", Method::Float).with_rule("fc[4]", Method::Float);
    assert!(quantize_model(&mut Mlp::from(float.clone()), &config, [x], Mlp::run_batch, |_| {}).is_err());
    let config =
        PassConfig::default().with_rule("fc1", Method::Static(i8_codes)).with_rule("fc2", Method::Float);
    let mut model = Mlp::from(float.clone());
    quantize_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
    let (mut expected, mut got) = (vec![0.0; 300 * 12], vec![0.0; 300 * 12]);
    let out = MatMut::new(&mut expected, 300, 12).unwrap();
    float.forward(x, out, Threads::Serial, &mut qnn::LinearWorkspace::new()).unwrap();
    let out = MatMut::new(&mut got, 300, 12).unwrap();
    model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    let sqnr = qcore::sqnr_db(&expected, &got).unwrap();
    assert!(sqnr > 30.0, "{sqnr} dB");
}
