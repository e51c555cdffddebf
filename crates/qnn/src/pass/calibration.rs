//! Calibration of any model: batches run through it while its layers are watched.

use core::fmt;

use qkernels::Kernel;

use super::error::{PassError, PassLayerError, Refusal};
use super::plan::{Planned, plan};
use super::report::{Decision, PassLayer, PassReport};
use super::sensitivity_report::Mix;
use crate::config::method::Method;
use crate::config::pass::PassConfig;
use crate::evidence::warning::Warning;
use crate::layer::linear::Linear;
use crate::layer::watch::{See, Shared, SharedWatch, Watch};
use crate::tree::exchange::{or_undo, put_back, put_in};
use crate::tree::layers::Layers;
use crate::tree::shape::{LayerShape, Walk, check_layers};

/// How far calibration has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalibrationProgress {
    /// Batches that have run.
    pub done: usize,
    /// How many batches there are, if the iterator knows.
    pub total: Option<usize>,
}

/// What calibration saw of a model's layers, and what will become of them. [`calibrate_model`]
/// makes it. With it the model can be quantized ([`quantize`](Self::quantize)), and the cost of
/// that can be found out ([`analyze_sensitivity`](crate::analyze_sensitivity)).
pub struct Calibration {
    pub(crate) planned: Vec<Planned>,
    pub(crate) kernel: Kernel,
    /// [`PassConfig::candidates`].
    pub(crate) candidates: Vec<Method>,
    batches: usize,
    require_integer: bool,
}

/// Runs `batches` through `model` and observes the input of every layer that `config` quantizes.
/// `run` runs the model on a batch, which may be anything, and `progress` is called after each
/// batch. Batches are taken one at a time. Only the observers' counts and
/// [`PassConfig::evidence_rows`] rows for each layer are kept, so memory does not grow with the
/// number of batches.
///
/// When this returns, the model has the layers that it had before and nothing watches them. That is
/// also so if the caller's code panics (the batches, `run`, `progress`, an observer, the model
/// itself): layers are restored before the panic goes on. A watch that another calibration left on
/// a layer, as on a clone made meanwhile, is taken off.
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
/// [`PassError`] if names are not unique, the model's [`visit`](Layers::visit) and
/// [`visit_mut`](Layers::visit_mut) show different layers or a different order, a rule matches
/// nothing, an observer's setting is out of range, `run` fails, or layers need a batch and there is
/// none.
pub fn calibrate_model<M: Layers + ?Sized, B, E>(
    model: &mut M,
    config: &PassConfig,
    batches: impl IntoIterator<Item = B>,
    run: impl FnMut(&mut M, B) -> Result<(), E>,
    progress: impl FnMut(CalibrationProgress),
) -> Result<Calibration, PassError<E>> {
    let watch = |planned: &Planned| Ok(Watch::new(planned.observers()?, config.evidence_rows));
    let (mut calibration, watches) = calibrate_with(model, config, watch, batches, run, progress)?;
    calibration.planned.iter_mut().zip(watches).for_each(|(planned, watch)| planned.watch = watch);
    Ok(calibration)
}

/// As [`calibrate_model`], but what `watch` makes looks at the inputs of each layer, and is given
/// back.
pub(crate) fn calibrate_with<M: Layers + ?Sized, S: See + Default + 'static, B, E>(
    model: &mut M,
    config: &PassConfig,
    watch: impl Fn(&Planned) -> Result<S, PassLayerError>,
    batches: impl IntoIterator<Item = B>,
    run: impl FnMut(&mut M, B) -> Result<(), E>,
    progress: impl FnMut(CalibrationProgress),
) -> Result<(Calibration, Vec<S>), PassError<E>> {
    let kernel = match config.kernel {
        Some(kernel) => kernel,
        None => Kernel::select().map_err(PassError::Kernel)?,
    };
    let planned = plan(model, config)?;
    let watch = |planned: &Planned| {
        let refused = |error| Refusal { layer: planned.shape.name.clone(), error };
        Ok::<_, Refusal>(Shared::new(watch(planned).map_err(refused)?))
    };
    let watches = planned.iter().map(watch).collect::<Result<Vec<_>, _>>()?;
    let watched = planned.iter().zip(&watches);
    let watched: Vec<_> =
        watched.map(|(planned, watch)| planned.is_watched().then(|| watch.watch())).collect();
    let batches = run_watched(model, &shapes(&planned), &watched, batches, run, progress)?;
    if batches == 0
        && let Some(planned) = planned.iter().find(|planned| planned.observes())
    {
        return Err(PassError::NoBatches { layer: planned.shape.name.clone() });
    }
    let (candidates, require_integer) = (distinct(&config.candidates), config.require_integer);
    let watches = watches.iter().map(Shared::take).collect();
    Ok((Calibration { planned, kernel, candidates, batches, require_integer }, watches))
}

/// Each candidate once. f32 is none: every comparison begins with it.
fn distinct(candidates: &[Method]) -> Vec<Method> {
    let mut distinct: Vec<Method> = Vec::new();
    for method in candidates {
        if !matches!(method, Method::Float) && !distinct.iter().any(|other| other.is(method)) {
            distinct.push(*method);
        }
    }
    distinct
}

pub(crate) fn shapes(planned: &[Planned]) -> Vec<LayerShape> {
    planned.iter().map(|planned| planned.shape.clone()).collect()
}

/// Runs all batches through `model`, which must show the layers `shapes`, while each f32 layer
/// shows its inputs to the watch that there is for it, and counts the batches. Nothing watches the
/// layers afterwards, also after an error or a panic of the caller's code.
pub(crate) fn run_watched<M: Layers + ?Sized, B, E>(
    model: &mut M,
    shapes: &[LayerShape],
    watches: &[Option<SharedWatch>],
    batches: impl IntoIterator<Item = B>,
    run: impl FnMut(&mut M, B) -> Result<(), E>,
    progress: impl FnMut(CalibrationProgress),
) -> Result<usize, PassError<E>> {
    check_layers(model, shapes).map_err(Refusal::from)?;
    or_undo(
        &mut { model },
        |model| {
            watch(*model, shapes, watches)?;
            let batches = run_batches(*model, batches, run, progress)?;
            unwatch(*model);
            Ok::<_, PassError<E>>(batches)
        },
        |model| unwatch(*model),
    )
}

/// Takes off all watches that another calibration left, and puts its watch on every layer that has
/// one.
fn watch<M: Layers + ?Sized>(
    model: &mut M,
    shapes: &[LayerShape],
    watches: &[Option<SharedWatch>],
) -> Result<(), Refusal> {
    unwatch(model);
    let mut walk = Walk::visit_mut(shapes);
    model.visit_mut(&mut |slot| {
        let Some(at) = walk.next(slot) else { return };
        if let (Linear::Float(layer), Some(Some(watch))) = (slot, watches.get(at)) {
            layer.set_watch(Some(watch.clone()));
        }
    });
    Ok(walk.finish()?)
}

/// Takes the watches off all layers of `model`.
fn unwatch<M: Layers + ?Sized>(model: &mut M) {
    model.visit_mut(&mut |slot| {
        if let Linear::Float(layer) = slot {
            layer.set_watch(None);
        }
    });
}

/// Runs all batches and counts them.
fn run_batches<M: ?Sized, B, E>(
    model: &mut M,
    batches: impl IntoIterator<Item = B>,
    mut run: impl FnMut(&mut M, B) -> Result<(), E>,
    mut progress: impl FnMut(CalibrationProgress),
) -> Result<usize, PassError<E>> {
    let batches = batches.into_iter();
    let total = batches.size_hint().1;
    let mut done = 0;
    for batch in batches {
        run(model, batch).map_err(|error| PassError::Run { batch: done, error })?;
        done += 1;
        progress(CalibrationProgress { done, total });
    }
    Ok(done)
}

impl Calibration {
    /// Replaces the layers of `model`, which must be the one that was calibrated, and reports what
    /// became of each layer and what that cost.
    ///
    /// # Errors
    /// [`Refusal`] if a layer cannot be quantized as asked and may not stay in f32, or the model
    /// shows layers with other names or shapes, or in another order, than those that were
    /// calibrated. The model then has the layers that it had before. That is also so if the model's
    /// code panics.
    pub fn quantize<M: Layers + ?Sized>(&self, model: &mut M) -> Result<PassReport, Refusal> {
        self.quantize_by(model, |planned| (planned.method, planned.decision.clone()))
    }

    /// As [`quantize`](Self::quantize), but every layer that is to be quantized becomes `method`,
    /// whatever was planned for it: the best scheme that
    /// [`compare_schemes`](crate::compare_schemes) found. A static one must be among
    /// [`PassConfig::candidates`], because calibration watched for no other.
    ///
    /// ```
    /// use qkernels::MatRef;
    /// use qnn::{DynamicConfig, FloatLinear, FloatMlp, Form, Method, Mlp, PassConfig, calibrate_model};
    /// let fc1 = FloatLinear::new("fc1", 1, 2, vec![1.0, -0.5], vec![0.25])?;
    /// let mut model = Mlp::from(FloatMlp::new(vec![fc1])?);
    /// let x = MatRef::new(&[0.0, 1.0, 0.5, 0.5], 2, 2)?;
    /// let calibration = calibrate_model(&mut model, &PassConfig::default(), [x], Mlp::run_batch, |_| {})?;
    /// let report = calibration.quantize_as(&mut model, &Method::Dynamic(DynamicConfig::default()))?;
    /// assert_eq!(report.layers[0].form, Form::Dynamic);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize), and if such a layer has been quantized since.
    pub fn quantize_as<M: Layers + ?Sized>(
        &self,
        model: &mut M,
        method: &Method,
    ) -> Result<PassReport, Refusal> {
        self.quantize_by(model, |planned| match planned.method {
            Method::Float => (Method::Float, planned.decision.clone()),
            _ => (*method, Decision::Scheme),
        })
    }

    /// As [`quantize`](Self::quantize), but layers become what `mix` says: the one that
    /// [`analyze_sensitivity`](crate::analyze_sensitivity) found with this calibration. Layers that
    /// it does not name become what was planned.
    ///
    /// # Errors
    /// As [`quantize_as`](Self::quantize_as), and if the mix names a layer that was not calibrated.
    pub fn quantize_mix<M: Layers + ?Sized>(&self, model: &mut M, mix: &Mix) -> Result<PassReport, Refusal> {
        let calibrated = |name: &String| self.planned.iter().any(|planned| planned.shape.name == *name);
        if let Some((name, _)) = mix.methods.iter().find(|(name, _)| !calibrated(name)) {
            return Err(Refusal { layer: name.clone(), error: PassLayerError::NotCalibrated });
        }
        self.quantize_by(model, |planned| {
            match mix.methods.iter().find(|(name, _)| *name == planned.shape.name) {
                Some((_, method)) => (*method, Decision::Mix),
                None => (planned.method, planned.decision.clone()),
            }
        })
    }

    /// Replaces each layer as `decide` says.
    fn quantize_by<M: Layers + ?Sized>(
        &self,
        model: &mut M,
        decide: impl Fn(&Planned) -> (Method, Decision),
    ) -> Result<PassReport, Refusal> {
        let shapes = self.check(model)?;
        let (mut replacements, mut layers, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        let (mut walk, mut refused) = (Walk::visit(&shapes), None);
        model.visit(&mut |layer| {
            let Some(at) = walk.next(layer).filter(|_| refused.is_none()) else { return };
            let planned = &self.planned[at];
            match self.replacement(planned, layer, decide(planned)) {
                Ok((replacement, report, of_layer)) => {
                    replacements.push(replacement);
                    layers.push(report);
                    warnings.extend(of_layer);
                }
                Err(refusal) => refused = Some(refusal),
            }
        });
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        walk.finish()?;
        or_undo(
            &mut (model, replacements),
            |(model, replacements)| {
                put_in(*model, &shapes, replacements)?;
                model.replaced();
                Ok::<_, Refusal>(())
            },
            |(model, replacements)| put_back(*model, replacements.iter_mut().flatten()),
        )?;
        Ok(PassReport { layers, batches: self.batches, kernel: self.kernel.name(), warnings })
    }

    /// Takes off all watches, checks that `model` shows exactly the layers that were calibrated,
    /// and gives their shapes.
    pub(crate) fn check<M: Layers + ?Sized>(&self, model: &mut M) -> Result<Vec<LayerShape>, Refusal> {
        let shapes = shapes(&self.planned);
        unwatch(model);
        check_layers(model, &shapes)?;
        Ok(shapes)
    }

    /// The layer that replaces `layer`, if one does, its entry in the report, and its warnings.
    fn replacement(
        &self,
        planned: &Planned,
        layer: &Linear,
        (method, decision): (Method, Decision),
    ) -> Result<Replacement, Refusal> {
        let unchanged = |decision| (None, PassLayer::unchanged(layer, decision), Vec::new());
        let float = match layer {
            Linear::Float(float) => float,
            // What was asked for by name of a scheme cannot be had any more.
            quantized if matches!(decision, Decision::Scheme | Decision::Mix) => {
                let (layer, form) = (planned.shape.name.clone(), quantized.form());
                return Err(Refusal { layer, error: PassLayerError::Quantized { form } });
            }
            _ => return Ok(unchanged(Decision::Already)),
        };
        if matches!(method, Method::Float) {
            return Ok(unchanged(decision));
        }
        let quantized = planned.quantize(float, &method, self.kernel);
        let quantized = quantized.and_then(|quantized| {
            let (report, warnings) = planned.measure(float, &quantized, decision)?;
            Ok((Some(quantized), report, warnings))
        });
        match quantized {
            Ok(quantized) => Ok(quantized),
            Err(error) if self.require_integer => Err(Refusal { layer: planned.shape.name.clone(), error }),
            Err(error) => Ok(unchanged(Decision::Fallback(error))),
        }
    }
}

type Replacement = (Option<Linear>, PassLayer, Vec<Warning>);

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers: Vec<_> = self.planned.iter().map(|planned| &planned.shape.name).collect();
        f.debug_struct("Calibration")
            .field("layers", &layers)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}
