//! Finds out what quantizing each layer alone costs the whole model, and which is the cheapest mix
//! of forms that costs little enough.

use qcore::{SqnrAboutMean, agreement};

use super::calibration::Calibration;
use super::error::{PassLayerError, Refusal};
use super::sensitivity_report::{LayerSensitivity, Mix, SensitivityReport};
use crate::config::method::Method;
use crate::evidence::sizes::analyze_model_sizes;
use crate::evidence::warning::Warning;
use crate::layer::linear::Linear;
use crate::tree::exchange::{exchange, or_undo, put_back};
use crate::tree::layers::Layers;
use crate::tree::shape::{LayerShape, Walk};

/// The model's output for the evaluation set: rows of `cols` values, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOutput {
    /// (rows, cols), row-major.
    pub values: Vec<f32>,
    /// Values of a row.
    pub cols: usize,
}

/// What a mix must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// At least this signal to quantization noise of the model's output, in dB.
    SqnrDb(f64),
    /// At least this [`SqnrAboutMean`] of the model's output, in dB.
    SqnrAboutMeanDb(f64),
    /// At least this share, 0 to 1, of rows whose largest output is the same one as in f32. A row
    /// without a number agrees with nothing ([`agreement`]).
    Agreement(f64),
}

/// How close an output is to that of the f32 model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quality {
    pub(crate) sqnr_db: f64,
    pub(crate) sqnr_about_mean_db: Option<f64>,
    pub(crate) agreement: f64,
}

impl Target {
    fn is_kept(self, quality: Quality) -> bool {
        match self {
            Target::SqnrDb(db) => quality.sqnr_db >= db,
            Target::SqnrAboutMeanDb(db) => quality.sqnr_about_mean_db.is_some_and(|of| of >= db),
            Target::Agreement(share) => quality.agreement >= share,
        }
    }
}

/// Quantizes one layer at a time, as `calibration` planned, and measures the whole model, so that
/// the ranking shows where quantization costs most. With a `target`, it proposes the cheapest mix
/// of forms that keeps the target.
///
/// `evaluate` runs the model on rows of the caller's choice, which must be the same every time. It
/// is called once for each layer and form, and about as often again for the mix.
///
/// The mix is found greedily. All layers start in the first form. The costliest layer moves to the
/// next form (those of `fallbacks` in their order, f32 in the end) until the target is kept. Then
/// each layer that was moved is tried in the first form again. The figures of the mix are measured,
/// not added up.
///
/// A static fallback takes the range that was watched for the plan. It must have the observer of
/// the plan, and its codes if the observer depends on them. Any other static fallback is an error.
///
/// When this returns, the model is in f32 again. That is also so if the caller's code panics
/// (`evaluate`, the model itself): layers are restored before the panic goes on. Layers that the
/// configuration leaves alone stay as they are.
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::{FloatLinear, FloatMlp, ForwardError, LinearWorkspace, Mlp, ModelOutput, PassConfig, Target};
/// use qnn::{analyze_sensitivity, calibrate_model};
/// let mut model = Mlp::from(FloatMlp::new(vec![
///     FloatLinear::new("fc1", 2, 2, vec![1.0, 0.5, -1.0, 0.9], vec![0.0, 0.25])?,
///     FloatLinear::new("fc2", 1, 2, vec![2.0, 1.0], vec![-1.0])?,
/// ])?);
/// let x = [1.0, 2.0, 0.5, 0.1, 0.3, 0.7];
/// let x = MatRef::new(&x, 3, 2)?;
/// let calibration = calibrate_model(&mut model, &PassConfig::default(), [x], Mlp::run_batch, |_| {})?;
/// let evaluate = |model: &Mlp| {
///     let mut values = vec![0.0; 3];
///     model.forward(x, MatMut::new(&mut values, 3, 1)?, Threads::Serial, &mut LinearWorkspace::new())?;
///     Ok::<_, ForwardError>(ModelOutput { values, cols: 1 })
/// };
/// let report = analyze_sensitivity(&mut model, &calibration, &[], Some(Target::SqnrDb(30.0)), evaluate)?;
/// let config = report.mix.as_ref().unwrap().config(PassConfig::default()); // for another pass
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SensitivityError`] if `evaluate` fails or gives a different number of values than before, a
/// layer cannot have the planned form, or the layers are not those that were calibrated.
pub fn analyze_sensitivity<M: Layers + ?Sized, E>(
    model: &mut M,
    calibration: &Calibration,
    fallbacks: &[Method],
    target: Option<Target>,
    evaluate: impl FnMut(&M) -> Result<ModelOutput, E>,
) -> Result<SensitivityReport, SensitivityError<E>> {
    let shapes = calibration.check(model)?;
    let mut trial = Trial { candidates: candidates(model, &shapes, calibration, fallbacks)?, model };
    let mut bench = Bench { reference: None, evaluate };
    or_undo(&mut trial, |trial| trial.analyze(target, &mut bench), Trial::restore)
}

/// Why there is no analysis. The model is in f32 again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SensitivityError<E> {
    /// The model could not be run.
    #[error(transparent)]
    Evaluate(E),
    /// The outputs cannot be compared: they have different numbers of values, or none.
    #[error("expected {expected} output values in rows of {cols}, got {got}")]
    Outputs {
        /// Values of the f32 model.
        expected: usize,
        /// Values of a row.
        cols: usize,
        /// Values now.
        got: usize,
    },
    /// A layer cannot have the planned form, or the layers are not those that were calibrated.
    #[error(transparent)]
    Layer(#[from] Refusal),
}

/// A layer and the forms that it may take, best first. f32 always comes last and is not in the
/// list.
struct Candidate {
    shape: LayerShape,
    /// If one of these forms is in the model, the f32 layer is in its place here.
    forms: Vec<(Method, Linear)>,
}

fn candidates<M: Layers + ?Sized>(
    model: &M,
    shapes: &[LayerShape],
    calibration: &Calibration,
    fallbacks: &[Method],
) -> Result<Vec<Candidate>, Refusal> {
    let (mut candidates, mut refused) = (Vec::new(), None);
    let mut walk = Walk::visit(shapes);
    model.visit(&mut |layer| {
        let Some(at) = walk.next(layer).filter(|_| refused.is_none()) else { return };
        let planned = &calibration.planned[at];
        let (Linear::Float(float), false) = (layer, matches!(planned.method, Method::Float)) else { return };
        let methods = core::iter::once(&planned.method).chain(fallbacks);
        let methods = methods.filter(|method| !matches!(method, Method::Float));
        let form = |method: &Method| {
            let layer = planned.quantize(float, method, calibration.kernel)?;
            Ok::<_, PassLayerError>((*method, layer))
        };
        match methods.map(form).collect() {
            Ok(forms) => {
                candidates.push(Candidate { shape: planned.shape.clone(), forms });
            }
            Err(source) => refused = Some(Refusal { layer: planned.shape.name.clone(), source }),
        }
    });
    if let Some(refusal) = refused {
        return Err(refusal);
    }
    walk.finish()?;
    Ok(candidates)
}

/// The model, and the forms that are tried in it.
struct Trial<'m, M: ?Sized> {
    model: &'m mut M,
    candidates: Vec<Candidate>,
}

impl<M: Layers + ?Sized> Trial<'_, M> {
    /// Puts a form of a layer into the model. The form after the last one is f32.
    fn install(&mut self, candidate: usize, form: usize) -> Result<(), Refusal> {
        let Candidate { shape, forms } = &mut self.candidates[candidate];
        put_back(self.model, forms.iter_mut().map(|(_, layer)| layer));
        let Some((_, layer)) = forms.get_mut(form) else { return Ok(()) };
        exchange(self.model, shape, layer)?;
        self.model.replaced();
        Ok(())
    }

    /// Puts all f32 layers back.
    fn restore(&mut self) {
        let forms = self.candidates.iter_mut().flat_map(|candidate| &mut candidate.forms);
        put_back(self.model, forms.map(|(_, layer)| layer));
    }

    fn analyze<E, F: FnMut(&M) -> Result<ModelOutput, E>>(
        &mut self,
        target: Option<Target>,
        bench: &mut Bench<F>,
    ) -> Result<SensitivityReport, SensitivityError<E>> {
        bench.measure(&*self.model)?;
        let (mut layers, mut costs) = (Vec::new(), Vec::new());
        for candidate in 0..self.candidates.len() {
            let mut alone = Vec::new();
            for form in 0..self.candidates[candidate].forms.len() {
                self.install(candidate, form)?;
                alone.push(bench.measure(&*self.model)?);
            }
            self.restore();
            let Candidate { shape, forms } = &self.candidates[candidate];
            layers.extend(alone.iter().zip(forms).map(|(quality, (method, layer))| LayerSensitivity {
                name: shape.name.clone(),
                form: method.form(),
                sqnr_db: quality.sqnr_db,
                sqnr_about_mean_db: quality.sqnr_about_mean_db,
                agreement: quality.agreement,
                saved_bytes: layer.float_bytes().saturating_sub(layer.storage().total()),
            }));
            costs.push(alone.iter().map(|quality| quality.sqnr_db).collect());
        }
        layers.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        let mix = target.map(|target| self.find_mix(&costs, target, bench)).transpose()?;
        self.restore();
        let warnings = layers.iter().filter_map(|layer| {
            Warning::of_means(&layer.name, layer.form, layer.sqnr_db, layer.sqnr_about_mean_db)
        });
        Ok(SensitivityReport { warnings: warnings.collect(), layers, mix })
    }

    fn find_mix<E, F: FnMut(&M) -> Result<ModelOutput, E>>(
        &mut self,
        costs: &[Vec<f64>],
        target: Target,
        bench: &mut Bench<F>,
    ) -> Result<Mix, SensitivityError<E>> {
        let mut forms = vec![0; self.candidates.len()];
        (0..forms.len()).try_for_each(|candidate| self.install(candidate, 0))?;
        let mut quality = bench.measure(&*self.model)?;
        // The model's SQNR with only this layer quantized, in this form. f32 costs nothing.
        let cost = |layer: usize, form: usize| costs[layer].get(form).copied().unwrap_or(f64::INFINITY);
        let mut moved = Vec::new();
        while !target.is_kept(quality) {
            let movable = (0..forms.len()).filter(|&i| forms[i] < self.candidates[i].forms.len());
            let Some(worst) = movable.min_by(|&a, &b| cost(a, forms[a]).total_cmp(&cost(b, forms[b]))) else {
                break;
            };
            // It moves to the next form that is any better.
            let better = |&form: &usize| cost(worst, form) > cost(worst, forms[worst]);
            let last = self.candidates[worst].forms.len();
            forms[worst] = (forms[worst] + 1..last).find(better).unwrap_or(last);
            self.install(worst, forms[worst])?;
            moved.push(worst);
            quality = bench.measure(&*self.model)?;
        }
        // The layers that moved first cost most. Later ones may have moved only because of those.
        moved.sort_by(|&a, &b| cost(b, 0).total_cmp(&cost(a, 0)));
        moved.dedup();
        for layer in moved {
            self.install(layer, 0)?;
            let tried = bench.measure(&*self.model)?;
            if target.is_kept(tried) {
                (forms[layer], quality) = (0, tried);
            } else {
                self.install(layer, forms[layer])?;
            }
        }
        let sizes = analyze_model_sizes(&*self.model);
        let method = |(candidate, &form): (&Candidate, &usize)| {
            let method = candidate.forms.get(form).map_or(Method::Float, |(method, _)| *method);
            (candidate.shape.name.clone(), method)
        };
        Ok(Mix {
            methods: self.candidates.iter().zip(&forms).map(method).collect(),
            sqnr_db: quality.sqnr_db,
            sqnr_about_mean_db: quality.sqnr_about_mean_db,
            agreement: quality.agreement,
            float_bytes: sizes.float_bytes(),
            stored_bytes: sizes.stored().total(),
        })
    }
}

/// Runs the model and compares its outputs with those of the first run.
struct Bench<F> {
    reference: Option<ModelOutput>,
    evaluate: F,
}

impl<F> Bench<F> {
    fn measure<M: ?Sized, E>(&mut self, model: &M) -> Result<Quality, SensitivityError<E>>
    where
        F: FnMut(&M) -> Result<ModelOutput, E>,
    {
        let output = (self.evaluate)(model).map_err(SensitivityError::Evaluate)?;
        let reference = self.reference.get_or_insert_with(|| output.clone());
        let (expected, cols, got) = (reference.values.len(), reference.cols, output.values.len());
        let not_comparable = |_| SensitivityError::Outputs { expected, cols, got };
        let agreement = agreement(&reference.values, &output.values, cols).map_err(not_comparable)?;
        let mut sqnr = SqnrAboutMean::new(cols);
        sqnr.add(&reference.values, &output.values).map_err(not_comparable)?;
        Ok(Quality { sqnr_db: sqnr.sqnr_db(), sqnr_about_mean_db: sqnr.db(), agreement })
    }
}
