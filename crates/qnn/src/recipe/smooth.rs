//! SmoothQuant as a step: the best alpha for layers that share an input, kept where it helps.

use qcore::Observer;

use super::profile::{Divided, divided};
use super::report::{Step, StepGain};
use super::runner::{Batches, RecipeStage};
use super::steps::Steps;
use crate::accuracy::smooth::{largest_weights, smooth_scales};
use crate::config::recipe::SmoothQuant;
use crate::layer::float::FloatLinear;
use crate::layer::watch::Shared;
use crate::pass::calibration::shapes;
use crate::pass::error::{PassError, PassLayerError, Refusal};
use crate::pass::plan::output_sqnr;
use crate::tree::layers::Layers;

/// What was found for layers that share an input.
pub(super) struct Smoothing {
    alpha: f64,
    scales: Vec<f32>,
}

type Observers = Vec<Box<dyn Observer + Send>>;

impl Steps {
    /// For each group of layers, the scales of the alpha that gives them the best outputs on rows
    /// of calibration; `None` if no alpha gives all of them a form.
    pub(super) fn search_scales<M: Layers + ?Sized>(
        &mut self,
        model: &M,
        config: &SmoothQuant,
    ) -> Vec<Option<Smoothing>> {
        let groups = self.groups.clone();
        groups.iter().map(|group| self.search(group, &Self::floats(model, group), config)).collect()
    }

    fn search(&mut self, group: &[usize], floats: &[FloatLinear], config: &SmoothQuant) -> Option<Smoothing> {
        let weights = largest_weights(floats);
        let mut best: Option<(f64, Smoothing)> = None;
        for &alpha in &config.alphas {
            let inputs = &self.profiles[*group.first()?].channels.largest;
            let scales = smooth_scales(inputs, &weights, alpha);
            // An alpha that one of the layers cannot have is none for the others.
            let Ok(db) = self.with_scales(group, floats, &scales) else { continue };
            if best.as_ref().is_none_or(|(most, _)| db > *most) {
                best = Some((db, Smoothing { alpha, scales }));
            }
        }
        best.map(|(_, smoothing)| smoothing)
    }

    /// The mean SQNR of the outputs of a group on the rows of calibration that were kept, from
    /// which ranges are taken here, too.
    fn with_scales(
        &mut self,
        group: &[usize],
        floats: &[FloatLinear],
        scales: &[f32],
    ) -> Result<f64, PassLayerError> {
        let mut sum = 0.0;
        for (&at, float) in group.iter().zip(floats) {
            let (planned, kernel) = (&mut self.seen.planned[at], self.seen.kernel);
            let (x, m) = planned.watch.sample.concat();
            let (values, mut observers) = (divided(&x, scales), planned.observers()?);
            observers.iter_mut().for_each(|observer| observer.observe(&values));
            core::mem::swap(&mut planned.watch.observers, &mut observers);
            planned.refined.input_scale = Some(scales.to_vec());
            let quantized = planned.quantize(float, &planned.method, kernel);
            (planned.watch.observers, planned.refined.input_scale) = (observers, None);
            sum += output_sqnr(float, &quantized?, &x, m)?.sqnr_db();
        }
        Ok(sum / group.len() as f64)
    }

    /// Runs the batches of calibration once more for the ranges of inputs that are divided by the
    /// scales that were `found`: those of each layer, where a method needs them.
    pub(super) fn observe_divided<R: Batches>(
        &self,
        runner: &mut R,
        found: &[Option<Smoothing>],
    ) -> Result<Vec<Observers>, PassError<R::Error>> {
        let planned = &self.seen.planned;
        let mut watches: Vec<_> = planned.iter().map(|_| Shared::new(Divided::default())).collect();
        let mut watched = vec![None; planned.len()];
        for (group, smoothing) in self.groups.iter().zip(found) {
            let Some(Smoothing { scales, .. }) = smoothing else { continue };
            for &at in group.iter().filter(|&&at| planned[at].observes()) {
                let refused = |error| Refusal { layer: planned[at].shape.name.clone(), error };
                let observers = planned[at].observers().map_err(refused)?;
                watches[at] = Shared::new(Divided { observers, scales: scales.clone() });
                watched[at] = Some(watches[at].watch());
            }
        }
        if watched.iter().any(Option::is_some) {
            runner.watch(&shapes(planned), &watched, Some(RecipeStage::DividedInputs), || ())?;
        }
        Ok(watches.iter().map(|watch| watch.take().observers).collect())
    }

    /// Leaves the scales to the groups whose outputs are better with them on the rows that are held
    /// out, on average.
    pub(super) fn keep_scales<M: Layers + ?Sized>(
        &mut self,
        model: &M,
        found: Vec<Option<Smoothing>>,
        mut observed: Vec<Observers>,
    ) {
        for (group, smoothing) in self.groups.clone().iter().zip(found) {
            let Some(Smoothing { alpha, scales }) = smoothing else { continue };
            let floats = Self::floats(model, group);
            let before = self.measure_all(group, &floats);
            for &at in group {
                let planned = &mut self.seen.planned[at];
                core::mem::swap(&mut planned.watch.observers, &mut observed[at]);
                planned.refined.input_scale = Some(scales.clone());
            }
            let after = self.measure_all(group, &floats);
            let gains = match (&before, &after) {
                (Ok(before), Ok(after)) => Some((before, after)),
                // What a layer cannot be without steps is for the pass to say.
                _ => None,
            };
            let is_kept = gains.is_some_and(|(before, after)| mean(after) > mean(before));
            if !is_kept {
                for &at in group {
                    let planned = &mut self.seen.planned[at];
                    core::mem::swap(&mut planned.watch.observers, &mut observed[at]);
                    planned.refined.input_scale = None;
                }
            }
            let Some((before, after)) = gains else { continue };
            for ((&at, &before_db), &after_db) in group.iter().zip(before).zip(after) {
                self.layers[at].add(StepGain {
                    step: Step::SmoothQuant { alpha },
                    before_db,
                    after_db,
                    is_kept,
                });
            }
        }
    }
}

/// The mean of figures in dB.
pub(super) fn mean(db: &[f64]) -> f64 {
    db.iter().sum::<f64>() / db.len() as f64
}
