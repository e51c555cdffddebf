//! A recipe's steps, one after the other, and the pass at their end.

use super::equalize::{equalized, named};
use super::profile::{Kept, Profile};
use super::report::{RecipeReport, Step, StepGain};
use super::runner::{Batches, RecipeProgress, RecipeStage, Runner};
use super::smooth::mean;
use super::steps::Steps;
use crate::config::pass::PassConfig;
use crate::config::recipe::Recipe;
use crate::layer::linear::Linear;
use crate::layer::watch::Shared;
use crate::pass::calibration::shapes;
use crate::pass::error::{PassError, Refusal};
use crate::pass::plan::Planned;
use crate::tree::exchange::{exchange, or_undo, put_back};
use crate::tree::layers::Layers;
use crate::tree::shape::LayerShape;

impl Recipe<'_> {
    /// Quantizes the layers of `model` in place, as [`quantize_model`](crate::quantize_model) does
    /// with `config`, and takes the steps of the recipe for every layer that is quantized.
    ///
    /// Ranges and steps are found with the batches of `calibration`; what a step gains is measured
    /// on those of `held_out`, of which an eighth as many are enough. Batches are taken more than
    /// once, so the iterators are cloned (those of slices and arrays are cheap). `run` is that of
    /// [`quantize_model`](crate::quantize_model).
    ///
    /// GPTQ and bias correction run the batches once for each group of layers that share an input,
    /// and keep the sums of products of one such input in memory (k * k / 2 * 8 bytes).
    ///
    /// Without steps ([`Recipe::none`]) the model becomes what `quantize_model` makes of it, bit
    /// for bit.
    ///
    /// # Errors
    /// As [`quantize_model`](crate::quantize_model); and if a layer that runs sees fewer finite
    /// rows than [`min_rows`](Self::min_rows), a pair of layers cannot be balanced, a setting of
    /// the recipe is out of range, or a layer cannot have what a step gives it. The model then has
    /// the layers that it had before. That is also so if the caller's code panics.
    pub fn quantize<M: Layers + ?Sized, B, E>(
        &self,
        model: &mut M,
        config: &PassConfig,
        calibration: impl IntoIterator<Item = B> + Clone,
        held_out: impl IntoIterator<Item = B> + Clone,
        run: impl FnMut(&mut M, B) -> Result<(), E>,
        progress: impl FnMut(RecipeProgress),
    ) -> Result<RecipeReport, PassError<E>> {
        self.check()?;
        // Layers in f32 as they were, in whose places others may be.
        let originals = Vec::new();
        or_undo(
            &mut (Runner { model, calibration, held_out, run, progress }, originals),
            |(runner, originals)| {
                let mut steps = self.profile(runner, config)?;
                if !self.equalize.is_empty() {
                    steps = self.balance(runner, config, steps, originals)?;
                }
                if let Some(config) = &self.smooth_quant {
                    let found = steps.search_scales(runner.model, config);
                    let observed = steps.observe_divided(runner, &found)?;
                    steps.keep_scales(runner.model, found, observed);
                }
                steps.layer_by_layer(self, runner)?;
                Ok(steps.finish(runner.model)?)
            },
            |(runner, originals)| put_back(runner.model, originals.iter_mut()),
        )
    }

    fn check<E>(&self) -> Result<(), PassError<E>> {
        let refused = |setting, value, reason| Err(PassError::Recipe { setting, value, reason });
        let alphas = self.smooth_quant.iter().flat_map(|smooth| &smooth.alphas);
        if let Some(alpha) = alphas.copied().find(|alpha| !(0.0..=1.0).contains(alpha)) {
            return refused("alpha", alpha, "is not from 0 to 1");
        }
        match self.gptq {
            Some(config) if !(config.damping >= 0.0 && config.damping.is_finite()) => {
                refused("damping", config.damping, "must be finite and at least 0")
            }
            _ if self.rows == 0 => refused("rows", 0.0, "leaves nothing to measure on"),
            _ => Ok(()),
        }
    }

    /// What the layers see of all batches while they are in f32.
    fn profile<R: Batches>(&self, runner: &mut R, config: &PassConfig) -> Result<Steps, PassError<R::Error>> {
        let watch = |planned: &Planned| Ok(Profile::new(planned.observers()?, self.rows));
        let (mut seen, mut profiles) = runner.calibrate(config, watch)?;
        for (planned, profile) in seen.planned.iter_mut().zip(&mut profiles) {
            planned.watch = core::mem::take(&mut profile.watch);
        }
        let kept = |planned: &Planned| planned.is_watched().then(|| Shared::new(Kept::new(self.rows)));
        let kept: Vec<_> = seen.planned.iter().map(kept).collect();
        let held_out = runner.watch_held_out(&shapes(&seen.planned), &kept, Some(RecipeStage::HeldOut))?;
        Steps::new(seen, profiles, held_out, self.min_rows as u64)
    }

    /// Balances the pairs that the caller names, and leaves them so if their layers are better on
    /// average.
    fn balance<R: Batches>(
        &self,
        runner: &mut R,
        config: &PassConfig,
        plain: Steps,
        originals: &mut Vec<Linear>,
    ) -> Result<Steps, PassError<R::Error>> {
        let before = named(runner.model(), &self.equalize);
        originals.extend(before.iter().cloned().map(Linear::from));
        let is_named = |at: &usize| before.iter().any(|layer| layer.name() == plain.layers[*at].name);
        let mut group: Vec<usize> = plain.groups.iter().flatten().copied().filter(is_named).collect();
        group.sort_unstable(); // as the model shows them
        let layers = equalized(before, &self.equalize)?;
        let before = plain.measure_all(&group, &Steps::floats(runner.model(), &group));
        for layer in layers {
            let mut layer = Linear::from(layer);
            exchange(runner.model(), &LayerShape::of(&layer), &mut layer).map_err(Refusal::from)?;
        }
        let mut steps = self.profile(runner, config)?;
        let after = steps.measure_all(&group, &Steps::floats(runner.model(), &group));
        // What a layer cannot be without steps is for the pass to say.
        let (Ok(before), Ok(after)) = (before, after) else { return Ok(steps) };
        let is_kept = mean(&after) > mean(&before);
        if !is_kept {
            put_back(runner.model(), originals.iter_mut());
            originals.clear();
            steps = plain;
        }
        for ((&at, &before_db), &after_db) in group.iter().zip(&before).zip(&after) {
            steps.layers[at].add(StepGain { step: Step::Equalize, before_db, after_db, is_kept });
        }
        Ok(steps)
    }
}
