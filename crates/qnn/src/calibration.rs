//! Calibration of any model: its layers are watched while batches run through it.

use core::fmt;

use qkernels::Kernel;

use crate::calibrating::{CalibratingLinear, Watch};
use crate::float_linear::FloatLinear;
use crate::layers::Layers;
use crate::linear::Linear;
use crate::method::Method;
use crate::pass_config::PassConfig;
use crate::pass_error::{PassError, Refusal};
use crate::pass_plan::{Planned, plan};
use crate::pass_report::{Decision, PassLayer, PassReport};

/// How far calibration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalibrationProgress {
    /// Batches that have run.
    pub done: usize,
    /// All batches, where the iterator knows.
    pub total: Option<usize>,
}

/// What calibration saw of a model's layers, and what is to become of them: made by [`calibrate_model`], enough to quantize
/// the model ([`quantize`](Self::quantize)) or to find out what that would cost
/// ([`analyze_sensitivity`](crate::analyze_sensitivity)).
pub struct Calibration {
    pub(crate) planned: Vec<Planned>,
    pub(crate) kernel: Kernel,
    batches: usize,
    require_integer: bool,
}

/// Runs `batches` through `model` and observes the input of every layer that `config` quantizes. `run` runs the model on a
/// batch, whatever a batch is; `progress` is called after each. Batches are taken one at a time and nothing is kept of them
/// but the observers' counts and [`PassConfig::evidence_rows`] rows for each layer, so the memory does not grow with their
/// number. The model's layers are those that it had before when this returns.
///
/// ```
/// use qkernels::MatRef;
/// use qnn::{FloatLinear, FloatMlp, Mlp, PassConfig, calibrate_model};
/// let mut model = Mlp::from(FloatMlp::new(vec![FloatLinear::new("fc1", 1, 2, vec![1.0, -0.5], vec![0.25])?])?);
/// let batches = [[0.0, 1.0, 0.5, 0.5], [2.0, 0.5, 1.0, 0.0]];
/// let batches = batches.iter().map(|x| MatRef::new(x, 2, 2)).collect::<Result<Vec<_>, _>>()?;
/// let calibration = calibrate_model(&mut model, &PassConfig::default(), batches, Mlp::run_batch, |at| {
///     println!("{} of {:?} batches", at.done, at.total);
/// })?;
/// println!("{}", calibration.quantize(&mut model)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PassError`] if names are not unique, a rule matches nothing, an observer cannot be set so, `run` fails, or there is no
/// batch though layers need one.
pub fn calibrate_model<M: Layers + ?Sized, B, E>(
    model: &mut M,
    config: &PassConfig,
    batches: impl IntoIterator<Item = B>,
    run: impl FnMut(&M, B) -> Result<(), E>,
    progress: impl FnMut(CalibrationProgress),
) -> Result<Calibration, PassError<E>> {
    let kernel = match config.kernel {
        Some(kernel) => kernel,
        None => Kernel::select().map_err(PassError::Kernel)?,
    };
    let mut planned = plan(model, config)?;
    watch(model, &planned, config)?;
    let ran = run_batches(model, batches, run, progress);
    let watches = unwatch(model);
    let batches = ran?;
    if batches == 0
        && let Some(planned) = planned.iter().find(|planned| planned.observes())
    {
        return Err(PassError::NoBatches { layer: planned.name.clone() });
    }
    planned.iter_mut().zip(watches).for_each(|(planned, watch)| planned.watch = watch);
    Ok(Calibration { planned, kernel, batches, require_integer: config.require_integer })
}

/// Puts a watch on every layer that will be quantized.
fn watch<M: Layers + ?Sized>(model: &mut M, plan: &[Planned], config: &PassConfig) -> Result<(), Refusal> {
    let observer = |planned: &Planned| {
        planned.observer().map_err(|source| Refusal { layer: planned.name.clone(), source: source.into() })
    };
    let observers = plan.iter().map(observer).collect::<Result<Vec<_>, _>>()?;
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

/// Takes the watches off again: one for each layer.
fn unwatch<M: Layers + ?Sized>(model: &mut M) -> Vec<Watch> {
    let mut watches = Vec::new();
    model.visit_mut(&mut |slot| {
        let (layer, watch) = match core::mem::replace(slot, Linear::Float(FloatLinear::nothing())) {
            Linear::Calibrating(layer) => {
                let (float, watch) = layer.finish();
                (Linear::Float(float), watch)
            }
            other => (other, Watch::default()),
        };
        *slot = layer;
        watches.push(watch);
    });
    watches
}

/// Runs all batches; their number.
fn run_batches<M: ?Sized, B, E>(
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

impl Calibration {
    /// Replaces the layers of `model`, the one that was calibrated, and reports what became of each and what it cost.
    ///
    /// # Errors
    /// [`Refusal`] if a layer cannot be quantized as asked and may not stay in f32; nothing is replaced then.
    pub fn quantize<M: Layers + ?Sized>(&self, model: &mut M) -> Result<PassReport, Refusal> {
        let (mut replacements, mut layers, mut refused) = (Vec::new(), Vec::new(), None);
        let mut planned = self.planned.iter();
        model.visit(&mut |layer| {
            let Some(planned) = planned.next().filter(|_| refused.is_none()) else { return };
            match self.replacement(planned, layer) {
                Ok((replacement, report)) => {
                    replacements.push(replacement);
                    layers.push(report);
                }
                Err(refusal) => refused = Some(refusal),
            }
        });
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let mut replacements = replacements.into_iter();
        model.visit_mut(&mut |slot| {
            if let Some(Some(layer)) = replacements.next() {
                *slot = layer;
            }
        });
        model.replaced();
        Ok(PassReport { layers, batches: self.batches, kernel: self.kernel.name() })
    }

    /// What replaces `layer`, if anything does, and its entry in the report.
    fn replacement(&self, planned: &Planned, layer: &Linear) -> Result<(Option<Linear>, PassLayer), Refusal> {
        let (Linear::Float(float), true) = (layer, !matches!(planned.method, Method::Float)) else {
            return Ok((None, PassLayer::unchanged(layer, planned.decision.clone())));
        };
        let quantized = planned.quantize(float, &planned.method, self.kernel);
        let quantized = quantized.and_then(|quantized| {
            let report = planned.measure(float, &quantized)?;
            Ok((Some(quantized), report))
        });
        match quantized {
            Ok(quantized) => Ok(quantized),
            Err(source) if self.require_integer => Err(Refusal { layer: planned.name.clone(), source }),
            Err(source) => Ok((None, PassLayer::unchanged(layer, Decision::Fallback(source)))),
        }
    }
}

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers: Vec<_> = self.planned.iter().map(|planned| &planned.name).collect();
        f.debug_struct("Calibration")
            .field("layers", &layers)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}
