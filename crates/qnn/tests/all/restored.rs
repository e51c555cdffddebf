//! Models that show wrong layers, and code of the caller's that panics: nothing is replaced, or all
//! is put back.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use qcore::{MinMaxObserver, Observer, ObserverError, Range};
use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    Calibration, DynamicConfig, ForwardError, Layers, Linear, LinearWorkspace, Method, ModelOutput,
    ObserverChoice, PassConfig, PassError, PassReport, Refusal, StaticConfig, Target, TrialProgress,
    analyze_sensitivity, calibrate_model, quantize_model,
};

use crate::small::linear;

const WIDTH: usize = 4;

/// Where a model's own code panics: at so many calls from now on, at the start or in the middle of
/// a walk, once or always.
#[derive(Default)]
struct Fuse {
    calls: Cell<usize>,
    at: usize,
    middle: bool,
    always: bool,
}

impl Fuse {
    fn burns(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.at > 0 && (self.calls.get() == self.at || (self.always && self.calls.get() > self.at))
    }
}

/// A chain of layers that shows those of these indices.
struct Model {
    layers: Vec<Linear>,
    visit: Vec<usize>,
    visit_mut: Vec<usize>,
    fuse: Fuse,
    /// Which layers one `visit` shows instead, and how many come before it.
    once: Option<(usize, Vec<usize>)>,
    visits: Cell<usize>,
}

impl Model {
    fn new() -> Self {
        let layers = ["a", "b", "c"].map(|name| linear(name, WIDTH, WIDTH).into()).into();
        Self {
            layers,
            visit: vec![0, 1, 2],
            visit_mut: vec![0, 1, 2],
            fuse: Fuse::default(),
            once: None,
            visits: Cell::new(0),
        }
    }

    fn showing(visit: &[usize], visit_mut: &[usize]) -> Self {
        Self { visit: visit.to_vec(), visit_mut: visit_mut.to_vec(), ..Self::new() }
    }

    fn run(&self, x: &[f32]) -> Result<Vec<f32>, ForwardError> {
        let (mut x, m) = (x.to_vec(), x.len() / WIDTH);
        for layer in &self.layers {
            let mut y = vec![0.0; m * WIDTH];
            let (rows, out) = (MatRef::new(&x, m, WIDTH)?, MatMut::new(&mut y, m, WIDTH)?);
            layer.forward(rows, out, Threads::Serial, &mut LinearWorkspace::new())?;
            x = y;
        }
        Ok(x)
    }

    fn forms(&self) -> Vec<&'static str> {
        let form = |layer: &Linear| match layer {
            Linear::Float(layer) if layer.is_watched() => "calibrating",
            layer => layer.form().name(),
        };
        self.layers.iter().map(form).collect()
    }

    /// The layers are those of a new model: the same weights in the same places, watched by nobody.
    fn assert_untouched(&self, after: &str) {
        assert_eq!(self.forms(), ["float"; 3], "{after}");
        for (layer, expected) in self.layers.iter().zip(Model::new().layers) {
            let (Linear::Float(layer), Linear::Float(expected)) = (layer, expected) else { unreachable!() };
            assert_eq!(*layer, expected, "{after}");
        }
    }
}

impl Layers for Model {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        let burns = self.fuse.burns();
        let visits = self.visits.replace(self.visits.get() + 1);
        let order = match &self.once {
            Some((before, order)) if *before == visits => order,
            _ => &self.visit,
        };
        for (at, &i) in order.iter().enumerate() {
            assert!(!burns || at != usize::from(self.fuse.middle), "visit");
            visit(&self.layers[i]);
        }
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        let burns = self.fuse.burns();
        for (at, &i) in self.visit_mut.iter().enumerate() {
            assert!(!burns || at != usize::from(self.fuse.middle), "visit_mut");
            visit(&mut self.layers[i]);
        }
    }

    fn replaced(&mut self) {
        assert!(!self.fuse.burns(), "replaced");
    }
}

fn batch(seed: usize) -> Vec<f32> {
    (0..6 * WIDTH).map(|i| ((i * 7 + seed * 13) as f32 * 0.37).sin()).collect()
}

fn dynamic() -> Method {
    Method::Dynamic(DynamicConfig::default())
}

fn quantize(model: &mut Model, config: &PassConfig) -> Result<PassReport, PassError<ForwardError>> {
    quantize_model(model, config, (0..3).map(batch), |model, x| model.run(&x).map(drop), |_| {})
}

fn calibrate(model: &mut Model) -> Result<Calibration, PassError<ForwardError>> {
    let config =
        PassConfig { candidates: vec![dynamic()], ..PassConfig::default() }.with_rule("b", dynamic());
    calibrate_model(model, &config, (0..3).map(batch), |model, x| model.run(&x).map(drop), |_| {})
}

fn evaluate(model: &mut Model) -> Result<ModelOutput, ForwardError> {
    Ok(ModelOutput { values: model.run(&batch(9))?, cols: WIDTH })
}

fn go_on(_: TrialProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The orders of `visit` and `visit_mut` that do not agree, and what is said of them.
const DISAGREE: [(&[usize], &[usize], &str); 5] = [
    (
        &[0, 1, 2],
        &[1, 0, 2],
        "at position 0 the model's visit_mut shows \"b\" (n = 4, k = 4), expected \"a\" (n = 4, k = 4)",
    ),
    (
        &[0, 1, 2],
        &[0, 2],
        "at position 1 the model's visit_mut shows \"c\" (n = 4, k = 4), expected \"b\" (n = 4, k = 4)",
    ),
    (
        &[0, 1, 2],
        &[0, 1],
        "at position 2 the model's visit_mut shows no layer, expected \"c\" (n = 4, k = 4)",
    ),
    (
        &[0, 1],
        &[0, 1, 2],
        "at position 2 the model's visit_mut shows \"c\" (n = 4, k = 4), expected no layer",
    ),
    (
        &[0, 1, 2],
        &[0, 1, 1, 2],
        "at position 2 the model's visit_mut shows \"b\" (n = 4, k = 4), expected \"c\" (n = 4, k = 4)",
    ),
];

#[test]
fn walks_that_differ_are_an_error_before_anything_is_replaced() {
    for method in [Method::default(), dynamic()] {
        let config = PassConfig { method, ..PassConfig::default() };
        for (visit, visit_mut, message) in DISAGREE {
            let mut model = Model::showing(visit, visit_mut);
            let error = quantize(&mut model, &config).unwrap_err();
            assert!(matches!(error, PassError::Layer(_)), "{error:?}");
            assert!(error.to_string().ends_with(message), "{error}");
            model.assert_untouched(message);
        }
    }
    let mut model = Model::showing(&[0, 1, 1, 2], &[0, 1, 1, 2]);
    let error = quantize(&mut model, &PassConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), "layers 1 and 2 are both named \"b\"");
    model.assert_untouched("a layer shown twice");
}

#[test]
fn every_walk_that_is_trusted_is_compared() {
    let orders: [&[usize]; 5] = [&[1, 0, 2], &[0, 0, 1, 2], &[0, 1], &[], &[2, 1, 0]];
    for (before, order) in (0..12).flat_map(|before| orders.map(|order| (before, order))) {
        let model = || {
            let mut model = Model::new();
            let calibration = calibrate(&mut model).unwrap();
            (model.once, model.visits) = (Some((before, order.to_vec())), Cell::new(0));
            (model, calibration)
        };
        let after = format!("{order:?} after {before} walks");
        let (mut quantized, calibration) = model();
        match calibration.quantize(&mut quantized) {
            Ok(report) => {
                let names: Vec<_> = quantized.layers.iter().map(Linear::name).collect();
                assert_eq!((names, report.layers.len()), (vec!["a", "b", "c"], 3), "{after}");
                assert_eq!(quantized.forms(), ["static", "dynamic", "static"], "{after}");
            }
            Err(_) => quantized.assert_untouched(&after),
        }
        let (mut analyzed, calibration) = model();
        let target = Some(Target::SqnrDb(1000.0));
        let _ = analyze_sensitivity(&mut analyzed, &calibration, target, evaluate, go_on);
        analyzed.assert_untouched(&after);
    }
}

#[test]
fn a_calibration_belongs_to_the_layers_that_were_calibrated() {
    let calibration = calibrate(&mut Model::new()).unwrap();
    let fails = |mut model: Model, message: &str| {
        let before = model.forms();
        let error = calibration.quantize(&mut model).unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
        let analysis = analyze_sensitivity(&mut model, &calibration, None, evaluate, go_on);
        let analysis = analysis.unwrap_err().to_string();
        assert_eq!(analysis, error.to_string());
        assert_eq!(model.forms(), before, "{message}");
    };
    for (visit, visit_mut, message) in DISAGREE {
        // What was calibrated is the model's own three layers, so that a walk with two of them
        // differs too.
        match visit.len() {
            2 => fails(
                Model::showing(visit, visit_mut),
                "at position 2 the model's visit shows no layer, expected \"c\" (n = 4, k = 4)",
            ),
            _ => fails(Model::showing(visit, visit_mut), message),
        }
    }
    fails(Model::showing(&[1, 0, 2], &[1, 0, 2]), "expected \"a\" (n = 4, k = 4)");
    let other = |name, n, k| {
        let mut model = Model::new();
        model.layers[1] = linear(name, n, k).into();
        model
    };
    fails(
        other("d", 4, 4),
        "position 1 the model's visit shows \"d\" (n = 4, k = 4), expected \"b\" (n = 4, k = 4)",
    );
    fails(
        other("b", 5, 4),
        "position 1 the model's visit shows \"b\" (n = 5, k = 4), expected \"b\" (n = 4, k = 4)",
    );
    fails(
        other("b", 4, 5),
        "position 1 the model's visit shows \"b\" (n = 4, k = 5), expected \"b\" (n = 4, k = 4)",
    );
    let mut model = Model::new();
    calibration.quantize(&mut model).unwrap();
    assert_eq!(model.forms(), ["static", "dynamic", "static"]);
}

/// An observer that does not survive its second batch.
#[derive(Default)]
struct Brittle(MinMaxObserver);

impl Observer for Brittle {
    fn observe(&mut self, values: &[f32]) {
        assert!(self.0.finite() == 0, "an observer");
        self.0.observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        self.0.range()
    }

    fn finite(&self) -> u64 {
        self.0.finite()
    }

    fn non_finite(&self) -> u64 {
        self.0.non_finite()
    }
}

#[test]
fn a_panic_of_a_closure_leaves_the_layers() {
    let brittle = ObserverChoice::Custom(|_| Box::<Brittle>::default());
    let brittle = StaticConfig { observer: brittle, ..StaticConfig::default() };
    let brittle = PassConfig { method: Method::Static(brittle), ..PassConfig::default() };
    for place in ["the batches", "run", "progress", "an observer"] {
        let panics = |here: &str, when: bool| assert!(!(when && here == place), "{place}");
        let config = if place == "an observer" { brittle.clone() } else { PassConfig::default() };
        let mut model = Model::new();
        let payload = catch_unwind(AssertUnwindSafe(|| {
            let batches = (0..3).map(|i| {
                panics("the batches", i == 1);
                batch(i)
            });
            let run = |model: &mut Model, x: Vec<f32>| {
                let y = model.run(&x);
                panics("run", x == batch(1));
                y.map(drop)
            };
            quantize_model(&mut model, &config, batches, run, |at| panics("progress", at.done == 2))
        }));
        let payload = payload.expect_err(place);
        let message = payload.downcast_ref::<String>().cloned();
        let message = message.or(payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        assert_eq!(message.as_deref(), Some(place), "the panic is the caller's own");
        model.assert_untouched(place);
        // And so the next pass quantizes all of them.
        quantize(&mut model, &PassConfig::default()).unwrap();
        assert_eq!(model.forms(), ["static"; 3], "{place}");
    }
}

#[test]
fn a_panic_of_evaluate_leaves_the_layers() {
    let (mut model, target) = (Model::new(), Some(Target::SqnrDb(1e9)));
    let calibration = calibrate(&mut model).unwrap();
    for panics_at in 1.. {
        let mut runs = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let counted = |model: &mut Model| {
                runs += 1;
                assert!(runs != panics_at, "evaluate");
                evaluate(model)
            };
            analyze_sensitivity(&mut model, &calibration, target, counted, go_on)
        }));
        model.assert_untouched(&format!("run {panics_at}"));
        if let Ok(report) = result {
            assert!(report.is_ok() && panics_at > 10);
            break;
        }
    }
}

/// What is done to a model, and whether it succeeded.
type Act<'a> = (&'static str, &'a dyn Fn(&mut Model) -> bool);

/// Whatever call of the model's own code panics, at the start of a walk or amid it.
#[test]
fn a_panic_of_the_model_leaves_the_layers() {
    let calibration = calibrate(&mut Model::new()).unwrap();
    let acts: [Act<'_>; 4] = [
        ("calibrate", &|model| calibrate(model).is_ok()),
        ("quantize", &|model| calibration.quantize(model).is_ok()),
        ("the pass", &|model| quantize(model, &PassConfig::default()).is_ok()),
        ("analyze", &|model| {
            let target = Some(Target::SqnrDb(1e9));
            analyze_sensitivity(model, &calibration, target, evaluate, go_on).is_ok()
        }),
    ];
    for (name, act) in acts {
        for (middle, always) in [(false, false), (true, false), (false, true), (true, true)] {
            for at in 1.. {
                let mut model = Model::new();
                model.fuse = Fuse { at, middle, always, ..Fuse::default() };
                let result = catch_unwind(AssertUnwindSafe(|| act(&mut model)));
                if let Ok(done) = result {
                    assert!(done && at > 3, "{name}");
                    break;
                }
                model.fuse = Fuse::default();
                if always {
                    // Layers cannot be put back through walks that never work again; what is
                    // watched is no obstacle later.
                    if !model.forms().contains(&"calibrating") {
                        continue;
                    }
                    quantize(&mut model, &PassConfig::default()).unwrap();
                    assert_eq!(model.forms(), ["static"; 3], "{name} {at}");
                } else {
                    model.assert_untouched(&format!("{name}, call {at}, middle {middle}"));
                }
            }
        }
    }
}

#[test]
fn a_clone_made_during_calibration_is_quantized_like_any_model() {
    let mut clones = Vec::new();
    let calibration = calibrate_model(
        &mut Model::new(),
        &PassConfig::default(),
        (0..3).map(batch),
        |model, x| {
            clones.push(Model { layers: model.layers.clone(), ..Model::new() });
            model.run(&x).map(drop)
        },
        |_| {},
    );
    let calibration = calibration.unwrap();
    let [first, second, third] = &mut clones[..] else { unreachable!() };
    assert_eq!(first.forms(), ["calibrating"; 3]);
    first.run(&batch(0)).unwrap();
    let report = quantize(first, &PassConfig::default()).unwrap();
    assert_eq!((first.forms(), report.layers[0].rows), (vec!["static"; 3], 18));
    calibration.quantize(second).unwrap();
    assert_eq!(second.forms(), ["static"; 3]);
    assert_eq!(first.run(&batch(5)).unwrap(), second.run(&batch(5)).unwrap(), "both saw the same batches");
    analyze_sensitivity(third, &calibration, None, evaluate, go_on).unwrap();
    third.assert_untouched("an analysis of a clone");

    // A clone that is restored meanwhile takes nothing from its original.
    let mut model = Model::new();
    let run = |model: &mut Model, x: Vec<f32>| {
        let y = model.run(&x);
        let mut clone = Model { layers: model.layers.clone(), ..Model::new() };
        quantize(&mut clone, &PassConfig { method: dynamic(), ..PassConfig::default() }).unwrap();
        y.map(drop)
    };
    let report = quantize_model(&mut model, &PassConfig::default(), (0..3).map(batch), run, |_| {}).unwrap();
    assert_eq!((model.forms(), report.layers[0].rows), (vec!["static"; 3], 18));
}

#[test]
fn a_layer_that_was_quantized_since_calibration_stays_and_is_called_so() {
    let mut model = Model::new();
    let calibration = calibrate(&mut model).unwrap();
    calibration.quantize(&mut model).unwrap();
    let expected = model.run(&batch(5)).unwrap();
    let again: Result<PassReport, Refusal> = calibration.quantize(&mut model);
    assert!(again.unwrap().layers.iter().all(|layer| layer.decision == qnn::Decision::Already));
    assert_eq!(model.run(&batch(5)).unwrap(), expected);
}
