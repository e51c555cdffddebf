//! The quantize pass over any model: decide, watch, calibrate, replace.

use qcore::{ObserverError, SchemeError, SettingError, clipped_fraction};
use qkernels::{Kernel, MatMut, MatRef, SelectError, Threads};

use crate::calibrating::{CalibratingLinear, Watch};
use crate::chain::{ChainError, check_names};
use crate::float_linear::FloatLinear;
use crate::forward::ForwardError;
use crate::layers::Layers;
use crate::linear::Linear;
use crate::method::Method;
use crate::noise::Noise;
use crate::pass_config::{PassConfig, Rule};
use crate::pass_report::{Decision, PassLayer, PassReport};
use crate::static_linear::StaticLinear;
use crate::static_quantize::QuantizeLinearError;
use crate::workspace::LinearWorkspace;

/// Why a model could not be quantized; its layers are those that it had before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError<E> {
    /// There are no layers, or two have one name.
    #[error(transparent)]
    Layers(ChainError),
    /// A rule matches no layer.
    #[error("the rule for {pattern:?} matches no layer")]
    UnusedRule {
        /// The rule's pattern.
        pattern: String,
    },
    /// Layers are to be calibrated, and there was no batch.
    #[error("layer {layer:?} and perhaps others need calibration, and there is no batch")]
    NoBatches {
        /// The first such layer.
        layer: String,
    },
    /// The model could not be run on a batch.
    #[error("batch {batch}: {source}")]
    Run {
        /// Index of the batch.
        batch: usize,
        /// What the caller's function says.
        source: E,
    },
    /// A layer cannot be quantized as asked, and [`PassConfig::require_integer`] does not let it stay in f32.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: PassLayerError,
    },
    /// No kernel could be selected.
    #[error(transparent)]
    Kernel(SelectError),
}

/// Why a layer cannot be quantized as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PassLayerError {
    /// The observer cannot be set so.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The observer has no range: the layer did not run, or saw nothing finite.
    #[error("its input in {rows} rows of calibration: {source}")]
    Observer {
        /// Rows that the layer saw.
        rows: u64,
        /// Why.
        source: ObserverError,
    },
    /// The observed range has no parameters.
    #[error("its input: {0}")]
    Input(#[from] SchemeError),
    /// Codes and scales do not make a layer.
    #[error(transparent)]
    Quantize(#[from] QuantizeLinearError),
    /// The quantized layer could not be run: a defect.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// How far calibration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalibrationProgress {
    /// Batches that have run.
    pub done: usize,
    /// All batches, where the iterator knows.
    pub total: Option<usize>,
}

/// Quantizes the layers of `model` in place, as `config` says, and reports what became of each and what it cost.
///
/// `run` runs the model on a batch, whatever a batch is; meanwhile the layers' inputs are observed. Batches are taken one at
/// a time and nothing is kept of them but the observers' counts and [`PassConfig::evidence_rows`] rows for each layer, so
/// the memory does not grow with their number. `progress` is called after each.
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::{FloatLinear, Linear, LinearWorkspace, PassConfig, quantize_model};
/// let mut model = vec![Linear::from(FloatLinear::new("fc1", 1, 2, vec![1.0, -0.5], vec![0.25])?)];
/// let batches = [[0.0_f32, 1.0], [2.0, 0.5]];
/// let run = |model: &Vec<Linear>, x: [f32; 2]| {
///     let (x, mut y) = (MatRef::new(&x, 1, 2)?, [0.0]);
///     model[0].forward(x, MatMut::new(&mut y, 1, 1)?, Threads::Serial, &mut LinearWorkspace::new())
/// };
/// let report = quantize_model(&mut model, &PassConfig::default(), batches, run, |at| {
///     println!("{} of {:?} batches", at.done, at.total);
/// })?;
/// assert_eq!((model[0].method(), report.layers[0].input.unwrap().scale()), ("static", 2.0 / 255.0));
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PassError`] if names are not unique, a rule matches nothing, `run` fails, or a layer cannot be quantized. The model's
/// layers are those that it had before then.
pub fn quantize_model<M: Layers + ?Sized, B, E>(
    model: &mut M,
    config: &PassConfig,
    batches: impl IntoIterator<Item = B>,
    run: impl FnMut(&M, B) -> Result<(), E>,
    progress: impl FnMut(CalibrationProgress),
) -> Result<PassReport, PassError<E>> {
    let kernel = match config.kernel {
        Some(kernel) => kernel,
        None => Kernel::select().map_err(PassError::Kernel)?,
    };
    let plan = plan(model, config)?;
    watch(model, &plan, config)?;
    let ran = calibrate(model, batches, run, progress);
    let watches = unwatch(model);
    let batches = ran?;
    if batches == 0
        && let Some(planned) = plan.iter().find(|planned| planned.observes())
    {
        return Err(PassError::NoBatches { layer: planned.name.clone() });
    }

    let (mut layers, mut reports, mut failed) = (Vec::new(), Vec::new(), None);
    let mut planned = plan.into_iter().zip(watches);
    model.visit(&mut |layer| {
        let Some((planned, watch)) = planned.next().filter(|_| failed.is_none()) else { return };
        match planned.carry_out(layer, watch, kernel, config.require_integer) {
            Ok((quantized, report)) => {
                layers.push(quantized);
                reports.push(report);
            }
            Err(source) => failed = Some(PassError::Layer { layer: layer.name().to_owned(), source }),
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let mut layers = layers.into_iter();
    model.visit_mut(&mut |slot| {
        if let Some(Some(layer)) = layers.next() {
            *slot = layer;
        }
    });
    model.replaced();
    Ok(PassReport { layers: reports, batches, kernel: kernel.name() })
}

/// What is to become of a layer.
struct Planned {
    name: String,
    method: Method,
    decision: Decision,
}

fn plan<M: Layers + ?Sized, E>(model: &M, config: &PassConfig) -> Result<Vec<Planned>, PassError<E>> {
    let mut layers: Vec<(String, usize, bool)> = Vec::new();
    model.visit(&mut |layer| {
        layers.push((layer.name().to_owned(), layer.n() * layer.k(), matches!(layer, Linear::Float(_))));
    });
    if layers.is_empty() {
        return Err(PassError::Layers(ChainError::NoLayers));
    }
    check_names(layers.iter().map(|(name, ..)| &name[..])).map_err(PassError::Layers)?;
    let unused = |rule: &&Rule| !layers.iter().any(|(name, ..)| rule.matches(name));
    if let Some(rule) = config.rules.iter().find(unused) {
        return Err(PassError::UnusedRule { pattern: rule.pattern.clone() });
    }
    let last = layers.len() - 1;
    let decide = |(index, (name, weights, is_float)): (usize, (String, usize, bool))| {
        let rule = config.rules.iter().find(|rule| rule.matches(&name));
        let (method, decision) = match rule {
            _ if !is_float => (Method::Float, Decision::Already),
            Some(rule) => (rule.method, Decision::Rule(rule.pattern.clone())),
            None if config.first_in_float && index == 0 => (Method::Float, Decision::First),
            None if config.last_in_float && index == last => (Method::Float, Decision::Last),
            None if weights < config.min_weights => (Method::Float, Decision::TooSmall),
            None => (config.method, Decision::Default),
        };
        Planned { name, method, decision }
    };
    Ok(layers.into_iter().enumerate().map(decide).collect())
}

/// Puts a watch on every layer that will be quantized.
fn watch<M: Layers + ?Sized, E>(
    model: &mut M,
    plan: &[Planned],
    config: &PassConfig,
) -> Result<(), PassError<E>> {
    let mut observers = Vec::new();
    for planned in plan {
        let observer = planned
            .observer()
            .map_err(|source| PassError::Layer { layer: planned.name.clone(), source: source.into() })?;
        observers.push(observer);
    }
    let mut planned = plan.iter().zip(observers);
    model.visit_mut(&mut |slot| {
        let Some((planned, observer)) = planned.next() else { return };
        if matches!(planned.method, Method::Float) {
            return;
        }
        *slot = match core::mem::replace(slot, Linear::Float(FloatLinear::nothing())) {
            Linear::Float(layer) => {
                Linear::Calibrating(CalibratingLinear::new(layer, observer, config.evidence_rows))
            }
            other => other,
        };
    });
    Ok(())
}

/// Takes the watches off again: one for each layer, if it had one.
fn unwatch<M: Layers + ?Sized>(model: &mut M) -> Vec<Option<Watch>> {
    let mut watches = Vec::new();
    model.visit_mut(&mut |slot| {
        *slot = match core::mem::replace(slot, Linear::Float(FloatLinear::nothing())) {
            Linear::Calibrating(layer) => {
                let (float, watch) = layer.finish();
                watches.push(Some(watch));
                Linear::Float(float)
            }
            other => {
                watches.push(None);
                other
            }
        };
    });
    watches
}

/// Runs all batches; their number.
fn calibrate<M: ?Sized, B, E>(
    model: &M,
    batches: impl IntoIterator<Item = B>,
    mut run: impl FnMut(&M, B) -> Result<(), E>,
    mut progress: impl FnMut(CalibrationProgress),
) -> Result<usize, PassError<E>> {
    let batches = batches.into_iter();
    let total = batches.size_hint().1;
    let mut done = 0;
    for batch in batches {
        run(model, batch).map_err(|source| PassError::Run { batch: done, source })?;
        done += 1;
        progress(CalibrationProgress { done, total });
    }
    Ok(done)
}

impl Planned {
    fn observes(&self) -> bool {
        matches!(self.method, Method::Static(_))
    }

    fn observer(&self) -> Result<Option<Box<dyn qcore::Observer + Send>>, SettingError> {
        match &self.method {
            Method::Static(config) => config.observer.observer(&config.activations).map(Some),
            _ => Ok(None),
        }
    }

    /// What replaces `layer`, if anything does, and its entry in the report.
    fn carry_out(
        self,
        layer: &Linear,
        watch: Option<Watch>,
        kernel: Kernel,
        require: bool,
    ) -> Result<(Option<Linear>, PassLayer), PassLayerError> {
        let (Linear::Float(float), Some(watch)) = (layer, watch) else {
            return Ok((None, PassLayer::unchanged(layer, self.decision)));
        };
        let quantized = self.quantize(float, &watch, kernel).and_then(|quantized| {
            let report = measure(float, &quantized, &watch, self.decision)?;
            Ok((Some(quantized), report))
        });
        match quantized {
            Err(error) if !require => Ok((None, PassLayer::unchanged(layer, Decision::Fallback(error)))),
            other => other,
        }
    }

    fn quantize(&self, float: &FloatLinear, watch: &Watch, kernel: Kernel) -> Result<Linear, PassLayerError> {
        match &self.method {
            Method::Float => Ok(float.clone().into()),
            Method::Static(config) => {
                let range = watch.observer.as_ref().map(|observer| observer.range());
                let range = range.unwrap_or(Err(ObserverError::NoData { non_finite: 0 }));
                let range = range.map_err(|source| PassLayerError::Observer { rows: watch.rows, source })?;
                let input = config.activations.choose(range)?;
                Ok(StaticLinear::quantize(float, input, &config.weights, kernel)?.into())
            }
        }
    }
}

/// Both forms of a layer on the rows that were kept.
fn measure(
    float: &FloatLinear,
    quantized: &Linear,
    watch: &Watch,
    decision: Decision,
) -> Result<PassLayer, PassLayerError> {
    let (x, m) = watch.sample.concat();
    let mut report = PassLayer::unchanged(quantized, decision);
    report.rows = watch.rows;
    report.non_finite = watch.observer.as_ref().map_or(0, |observer| observer.non_finite());
    if let Linear::Static(layer) = quantized {
        report.input = Some(*layer.input());
        report.clipped = (m > 0).then(|| clipped_fraction(&x, layer.input()));
    }
    if m > 0 {
        let (n, k) = (float.n(), float.k());
        let (mut expected, mut got, mut noise) = (vec![0.0; m * n], vec![0.0; m * n], Noise::default());
        let view = |values| MatMut::new(values, m, n).map_err(ForwardError::from);
        let x = MatRef::new(&x, m, k).map_err(ForwardError::from)?;
        float.forward(x, view(&mut expected)?, Threads::Serial)?;
        quantized.forward(x, view(&mut got)?, Threads::Serial, &mut LinearWorkspace::new())?;
        noise.add(&expected, &got);
        report.sqnr_db = Some(noise.sqnr_db());
    }
    Ok(report)
}
