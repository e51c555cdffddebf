//! The walk from layer to layer that clipping, GPTQ and bias correction take. The last two see each
//! layer's inputs as the quantized layers before it give them.

use super::profile::{Behind, Kept, divided};
use super::runner::Batches;
use super::steps::Steps;
use crate::accuracy::error::AccuracyError;
use crate::accuracy::hessian::Hessian;
use crate::config::recipe::Recipe;
use crate::layer::float::FloatLinear;
use crate::layer::linear::Linear;
use crate::layer::watch::{Sample, Shared};
use crate::pass::calibration::shapes;
use crate::pass::error::{PassError, Refusal};
use crate::tree::exchange::{exchange, or_undo, put_back};
use crate::tree::layers::Layers;

/// What layers that share an input saw of it behind quantized layers.
pub(super) struct SeenBehind {
    pub(super) hessian: Option<Hessian>,
    pub(super) behind: Behind,
    /// Rows that are held out from calibration, the same as those of the f32 model.
    pub(super) held_out: Sample,
}

impl Steps {
    /// Takes the steps for one group of layers after the other. All layers are in f32 again when
    /// this returns, also after an error.
    pub(super) fn layer_by_layer<R: Batches>(
        &mut self,
        recipe: &Recipe<'_>,
        runner: &mut R,
    ) -> Result<(), PassError<R::Error>> {
        let sees = recipe.gptq.is_some() || recipe.bias_correction;
        if !sees && !recipe.clip_weights {
            return Ok(());
        }
        or_undo(
            &mut (runner, Vec::new()),
            |(runner, replaced)| {
                let (groups, mut done) = (self.groups.clone(), 0);
                let total = groups.iter().map(Vec::len).sum();
                for group in groups {
                    let floats = Self::floats(runner.model(), &group);
                    if recipe.clip_weights {
                        self.clip(&group, &floats)?;
                    }
                    if sees {
                        let seen = self.see_behind(recipe, &mut **runner, group[0])?;
                        if let (Some(config), Some(hessian)) = (&recipe.gptq, &seen.hessian) {
                            self.gptq(&group, &floats, hessian, config, recipe.threads)?;
                        }
                        if recipe.bias_correction {
                            self.correct_biases(&group, &floats, &seen)?;
                        }
                        self.install(runner.model(), &group, floats, replaced)?;
                    }
                    done += group.len();
                    runner.layers_done(done, total);
                }
                put_back(runner.model(), replaced.iter_mut());
                Ok(())
            },
            |(runner, replaced)| put_back(runner.model(), replaced.iter_mut()),
        )
    }

    /// What layer `at` sees of all batches behind the layers that are quantized by now.
    fn see_behind<R: Batches>(
        &self,
        recipe: &Recipe<'_>,
        runner: &mut R,
        at: usize,
    ) -> Result<SeenBehind, PassError<R::Error>> {
        let (planned, shapes) = (&self.seen.planned[at], shapes(&self.seen.planned));
        let refused = |error: AccuracyError| {
            PassError::Layer(Refusal { layer: planned.shape.name.clone(), error: error.into() })
        };
        let behind = Shared::new(Behind::new(recipe.rows));
        let hessian = recipe.gptq.map(|_| Hessian::new(planned.shape.k));
        let (mut hessian, mut added) = (hessian.transpose().map_err(refused)?, Ok(()));
        let mut watches = vec![None; shapes.len()];
        watches[at] = Some(behind.watch());
        runner.watch(&shapes, &watches, None, || {
            let rows = behind.with(|behind| core::mem::take(&mut behind.rows));
            if let (Some(hessian), Ok(())) = (&mut hessian, &added) {
                let rows = match &planned.refined.input_scale {
                    Some(scales) => divided(&rows, scales),
                    None => rows,
                };
                added = hessian.add(&rows, recipe.threads);
            }
        })?;
        added.map_err(refused)?;
        let mut held_out = Sample::default();
        if recipe.bias_correction {
            let kept = |layer| (layer == at).then(|| Shared::new(Kept::new(recipe.rows)));
            let kept: Vec<_> = (0..shapes.len()).map(kept).collect();
            held_out = runner.watch_held_out(&shapes, &kept, None)?.swap_remove(at).sample;
        }
        Ok(SeenBehind { hessian, behind: behind.take(), held_out })
    }

    /// Puts the layers of a group into the model as they are by now. Those that cannot be quantized
    /// stay in f32; the pass says why.
    fn install<M: Layers + ?Sized>(
        &self,
        model: &mut M,
        group: &[usize],
        floats: Vec<FloatLinear>,
        replaced: &mut Vec<Linear>,
    ) -> Result<(), Refusal> {
        for (&at, float) in group.iter().zip(floats) {
            let planned = &self.seen.planned[at];
            let Ok(quantized) = planned.quantize(&float, &planned.method, self.seen.kernel) else { continue };
            // It is in the list while it is exchanged, so that nothing is lost if that panics.
            replaced.push(quantized);
            if let Some(layer) = replaced.last_mut() {
                exchange(model, &planned.shape, layer)?;
            }
        }
        model.replaced();
        Ok(())
    }
}
