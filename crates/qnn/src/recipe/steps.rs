//! What the steps of a recipe work on, and what they have come to.

use super::profile::{Kept, Profile, sharing};
use super::report::{RecipeLayer, RecipeReport};
use crate::layer::float::FloatLinear;
use crate::layer::linear::Linear;
use crate::layer::watch::Sample;
use crate::pass::calibration::Calibration;
use crate::pass::error::{PassError, PassLayerError, Refusal};
use crate::pass::plan::output_sqnr;
use crate::tree::layers::Layers;

pub(super) struct Steps {
    pub(super) seen: Calibration,
    pub(super) profiles: Vec<Profile>,
    /// Of each layer, rows that are held out from calibration.
    pub(super) held_out: Vec<Sample>,
    /// The layers that are quantized and ran, together where they share an input.
    pub(super) groups: Vec<Vec<usize>>,
    /// Of all layers.
    pub(super) layers: Vec<RecipeLayer>,
}

impl Steps {
    /// # Errors
    /// [`PassError::FewRows`] if a layer that ran saw fewer rows than `needed`, or of those held
    /// out less than an eighth of that.
    pub(super) fn new<E>(
        seen: Calibration,
        profiles: Vec<Profile>,
        held_out: Vec<Kept>,
        needed: u64,
    ) -> Result<Self, PassError<E>> {
        let groups = sharing(&seen.planned, &profiles);
        let name = |at: usize| seen.planned[at].shape.name.clone();
        for &at in groups.iter().flatten() {
            let of_calibration = ("of calibration", profiles[at].channels.rows, needed);
            let of_held_out = ("that are held out", held_out[at].rows, needed.div_ceil(8).max(1));
            for (of, rows, needed) in [of_calibration, of_held_out] {
                if rows < needed {
                    return Err(PassError::FewRows { layer: name(at), of, rows, needed });
                }
            }
        }
        let held_out = held_out.into_iter().map(|kept| kept.sample).collect();
        let layers = (0..seen.planned.len()).map(|at| RecipeLayer::new(name(at))).collect();
        Ok(Self { seen, profiles, held_out, groups, layers })
    }

    /// The f32 layers of a group. They are cloned one group after the other, so that the model is
    /// never in memory twice.
    pub(super) fn floats<M: Layers + ?Sized>(model: &M, group: &[usize]) -> Vec<FloatLinear> {
        let (mut at, mut floats) = (0, Vec::with_capacity(group.len()));
        model.visit(&mut |layer| {
            if let (Linear::Float(layer), true) = (layer, group.contains(&at)) {
                floats.push(layer.clone());
            }
            at += 1;
        });
        floats
    }

    /// The SQNR of the output of layer `at` as it is planned and refined now, on the rows that are
    /// held out.
    pub(super) fn measure(&self, at: usize, float: &FloatLinear) -> Result<f64, PassLayerError> {
        let planned = &self.seen.planned[at];
        let quantized = planned.quantize(float, &planned.method, self.seen.kernel)?;
        let (x, m) = self.held_out[at].concat();
        Ok(output_sqnr(float, &quantized, &x, m)?.sqnr_db())
    }

    /// [`measure`](Self::measure) of all layers of a group.
    pub(super) fn measure_all(
        &self,
        group: &[usize],
        floats: &[FloatLinear],
    ) -> Result<Vec<f64>, PassLayerError> {
        group.iter().zip(floats).map(|(&at, float)| self.measure(at, float)).collect()
    }

    /// Quantizes the model with what was found. Its report measures on the rows that are held out.
    pub(super) fn finish<M: Layers + ?Sized>(mut self, model: &mut M) -> Result<RecipeReport, Refusal> {
        let sampled = self.seen.planned.iter_mut().zip(self.held_out);
        sampled.for_each(|(planned, held_out)| planned.watch.sample = held_out);
        let pass = self.seen.quantize(model)?;
        let mut layers = self.layers;
        layers.retain(|layer| !layer.steps.is_empty());
        Ok(RecipeReport { layers, pass })
    }
}
