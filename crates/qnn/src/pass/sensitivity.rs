//! Finds out what quantizing each layer alone costs the whole model, and which is the cheapest mix
//! of forms that costs little enough.

use core::ops::ControlFlow;

use super::calibration::Calibration;
use super::quality::{ModelOutput, Quality, Target};
use super::sensitivity_report::{LayerSensitivity, Mix, SensitivityReport, UniformScheme};
use super::trial::{Bench, Trial, TrialError, TrialProgress};
use crate::config::method::Method;
use crate::evidence::sizes::analyze_model_sizes;
use crate::evidence::warning::Warning;
use crate::tree::exchange::or_undo;
use crate::tree::layers::Layers;

/// Quantizes one layer at a time, as `calibration` planned and by each of
/// [`PassConfig::candidates`](crate::PassConfig::candidates), and measures the whole model, so that
/// the ranking shows where quantization costs most. With a `target`, it proposes the cheapest mix
/// of forms that keeps the target.
///
/// `evaluate` runs the model on rows of the caller's choice, which must be the same every time. It
/// is called once for each layer and form, and about as often again for the mix. `progress` is
/// called after each run; if it breaks off, that is [`TrialError::Cancelled`].
///
/// The mix is found greedily, twice: from the plan, and from the candidate of fewest bytes that
/// keeps the target in all layers (or comes closest to it). The costliest layer moves to the first
/// candidate that costs less, to f32 in the end, until the target is kept. Then each layer that was
/// moved is tried in its first form again. The mix of fewer bytes is proposed, and if they have the
/// same, the one from the plan. Its figures are measured, not added up.
///
/// A candidate that a layer cannot have is not tried on it. (The planned form is an error then.)
///
/// When this returns, the model is in f32 again. That is also so if the caller's code panics
/// (`evaluate`, the model itself): layers are restored before the panic goes on. Layers that the
/// configuration leaves alone stay as they are.
///
/// ```
/// use std::ops::ControlFlow;
/// use qkernels::{MatRef, Threads};
/// use qnn::{FloatLinear, FloatMlp, ForwardError, LinearWorkspace, Mlp, ModelOutput, PassConfig, Target};
/// use qnn::{analyze_sensitivity, calibrate_model};
/// let mut model = Mlp::from(FloatMlp::new(vec![
///     FloatLinear::new("fc1", 2, 2, vec![1.0, 0.5, -1.0, 0.9], vec![0.0, 0.25])?,
///     FloatLinear::new("fc2", 1, 2, vec![2.0, 1.0], vec![-1.0])?,
/// ])?);
/// let x = [1.0, 2.0, 0.5, 0.1, 0.3, 0.7];
/// let x = MatRef::new(&x, 3, 2)?;
/// let calibration = calibrate_model(&mut model, &PassConfig::default(), [x], Mlp::run_batch, |_| {})?;
/// let evaluate = |model: &mut Mlp| {
///     let values = model.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new())?;
///     Ok::<_, ForwardError>(ModelOutput { values, cols: 1 })
/// };
/// let report = analyze_sensitivity(&mut model, &calibration, Some(Target::SqnrDb(30.0)), evaluate, |at| {
///     println!("{} of about {}", at.done, at.expected);
///     ControlFlow::Continue(())
/// })?;
/// println!("{report}");
/// if let Some(mix) = &report.mix {
///     println!("{}", calibration.quantize_mix(&mut model, mix)?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TrialError`] if `evaluate` fails, gives outputs of another shape than before, or in f32 values
/// that are not finite; if `progress` breaks off, the target cannot be measured, no layer is to be
/// quantized, one cannot have the planned form, or the layers are not those that were calibrated.
pub fn analyze_sensitivity<M: Layers + ?Sized, E>(
    model: &mut M,
    calibration: &Calibration,
    target: Option<Target>,
    evaluate: impl FnMut(&mut M) -> Result<ModelOutput, E>,
    progress: impl FnMut(TrialProgress) -> ControlFlow<()>,
) -> Result<SensitivityReport, TrialError<E>> {
    let trial = Trial::new(model, calibration)?;
    let (layers, candidates) = (trial.len(), &calibration.candidates);
    let mut bench = Bench::new(evaluate, progress);
    // Each layer alone, all of them in each form, and about one step for each layer of the mix.
    bench.expected = 1 + layers * (1 + candidates.len());
    if target.is_some() {
        bench.expected += candidates.len() + layers + 1;
    }
    let mut analysis = Analysis { forms: Vec::with_capacity(layers), trial, bench };
    or_undo(&mut analysis, |analysis| analysis.run(candidates, target), |analysis| analysis.trial.restore())
}

/// What a layer may become, and the model's quality with this layer alone in that form. The planned
/// form comes first. f32, which is in no list, comes last and costs nothing.
type Forms = Vec<(Method, Quality)>;

struct Analysis<'t, M: ?Sized, F, P> {
    trial: Trial<'t, M>,
    bench: Bench<F, P>,
    /// For each layer.
    forms: Vec<Forms>,
}

impl<M, E, F, P> Analysis<'_, M, F, P>
where
    M: Layers + ?Sized,
    F: FnMut(&mut M) -> Result<ModelOutput, E>,
    P: FnMut(TrialProgress) -> ControlFlow<()>,
{
    fn run(
        &mut self,
        candidates: &[Method],
        target: Option<Target>,
    ) -> Result<SensitivityReport, TrialError<E>> {
        self.measure()?;
        if let Some(target) = target {
            self.bench.check(target)?;
        }
        let mut layers = Vec::new();
        for layer in 0..self.trial.len() {
            self.try_alone(layer, candidates, &mut layers)?;
        }
        layers.sort_by(|a, b| a.quality.rank().total_cmp(&b.quality.rank()));
        let (mut uniform, mut mix) = (Vec::new(), None);
        if let Some(target) = target {
            uniform = self.uniform(candidates)?;
            mix = Some(self.cheapest_mix(&uniform, target)?);
        }
        self.trial.restore();
        let warnings = layers.iter().filter_map(|layer| {
            let Quality { sqnr_db, sqnr_about_mean_db, .. } = layer.quality;
            Warning::of_means(&layer.name, layer.method.form(), sqnr_db, sqnr_about_mean_db)
        });
        Ok(SensitivityReport { warnings: warnings.collect(), layers, target, uniform, mix })
    }

    fn measure(&mut self) -> Result<Quality, TrialError<E>> {
        self.bench.measure(self.trial.model)
    }

    /// Measures the model with one layer alone in each form.
    fn try_alone(
        &mut self,
        layer: usize,
        candidates: &[Method],
        found: &mut Vec<LayerSensitivity>,
    ) -> Result<(), TrialError<E>> {
        let planned = self.trial.planned(layer);
        let float_bytes = analyze_model_sizes(&*self.trial.model).stored().total();
        let mut forms = Forms::new();
        for method in core::iter::once(&planned).chain(candidates) {
            if forms.iter().any(|(tried, _)| tried.is(method)) {
                self.bench.advance()?;
                continue;
            }
            match self.trial.install(layer, method) {
                Ok(()) => {}
                Err(refusal) if forms.is_empty() || refusal.is_mismatch() => return Err(refusal.into()),
                Err(_) => {
                    self.bench.advance()?;
                    continue;
                }
            }
            let quality = self.measure()?;
            let bytes = analyze_model_sizes(&*self.trial.model).stored().total();
            found.push(LayerSensitivity {
                name: self.trial.name(layer).to_owned(),
                method: *method,
                quality,
                saved_bytes: float_bytes.saturating_sub(bytes),
            });
            forms.push((*method, quality));
        }
        self.trial.restore();
        self.forms.push(forms);
        Ok(())
    }

    /// Measures the model with all layers in each candidate that all of them can have.
    fn uniform(&mut self, candidates: &[Method]) -> Result<Vec<UniformScheme>, TrialError<E>> {
        let mut uniform = Vec::new();
        for method in candidates {
            let all_can = self.forms.iter().all(|forms| forms.iter().any(|(form, _)| form.is(method)));
            if !all_can {
                self.bench.advance()?;
                continue;
            }
            self.trial.install_all(method)?;
            let (quality, sizes) = (self.measure()?, analyze_model_sizes(&*self.trial.model));
            uniform.push(UniformScheme { method: *method, quality, bytes: sizes.stored().total() });
        }
        Ok(uniform)
    }

    fn cheapest_mix(&mut self, uniform: &[UniformScheme], target: Target) -> Result<Mix, TrialError<E>> {
        let planned = self.mix_from(&vec![0; self.forms.len()], target)?;
        let keeps = uniform.iter().filter(|scheme| target.is_kept(&scheme.quality));
        let keeps = keeps.min_by_key(|scheme| scheme.bytes);
        let best = || UniformScheme::best(uniform, target);
        let Some(scheme) = keeps.or_else(best) else { return Ok(planned) };
        let place = |forms: &Forms| forms.iter().position(|(form, _)| form.is(&scheme.method)).unwrap_or(0);
        let start: Vec<usize> = self.forms.iter().map(place).collect();
        let other = self.mix_from(&start, target)?;
        Ok(if other.stored_bytes < planned.stored_bytes { other } else { planned })
    }

    /// Puts a layer into the model in one of its forms. The form after the last one is f32.
    fn install(&mut self, layer: usize, form: usize) -> Result<(), TrialError<E>> {
        let method = self.forms[layer].get(form).map_or(Method::Float, |(method, _)| *method);
        Ok(self.trial.install(layer, &method)?)
    }

    /// The cheapest mix that keeps the target, found greedily from the forms `start`.
    fn mix_from(&mut self, start: &[usize], target: Target) -> Result<Mix, TrialError<E>> {
        let mut forms = start.to_vec();
        for (layer, &form) in start.iter().enumerate() {
            self.install(layer, form)?;
        }
        let mut quality = self.measure()?;
        let mut moved = Vec::new();
        while !target.is_kept(&quality) {
            let movable = (0..forms.len()).filter(|&layer| forms[layer] < self.forms[layer].len());
            let cost = |layer: usize| self.cost(layer, forms[layer]);
            let Some(worst) = movable.min_by(|&a, &b| cost(a).total_cmp(&cost(b))) else { break };
            let better = |&form: &usize| self.cost(worst, form) > cost(worst);
            let last = self.forms[worst].len();
            forms[worst] = (0..last).find(better).unwrap_or(last);
            self.install(worst, forms[worst])?;
            moved.push(worst);
            quality = self.measure()?;
        }
        // The layers that moved first cost most. Later ones may have moved only because of those.
        let cost = |layer: usize| self.cost(layer, start[layer]);
        moved.sort_by(|&a, &b| cost(b).total_cmp(&cost(a)));
        moved.dedup();
        for layer in moved {
            self.install(layer, start[layer])?;
            let tried = self.measure()?;
            if target.is_kept(&tried) {
                (forms[layer], quality) = (start[layer], tried);
            } else {
                self.install(layer, forms[layer])?;
            }
        }
        let sizes = analyze_model_sizes(&*self.trial.model);
        let method = |(layer, &form): (usize, &usize)| {
            let method = self.forms[layer].get(form).map_or(Method::Float, |(method, _)| *method);
            (self.trial.name(layer).to_owned(), method)
        };
        Ok(Mix {
            methods: forms.iter().enumerate().map(method).collect(),
            quality,
            float_bytes: sizes.float_bytes(),
            stored_bytes: sizes.stored().total(),
        })
    }

    /// The model's SQNR with only this layer quantized, in this form. f32 costs nothing.
    fn cost(&self, layer: usize, form: usize) -> f64 {
        self.forms[layer].get(form).map_or(f64::INFINITY, |(_, quality)| quality.rank())
    }
}
