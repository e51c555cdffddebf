//! Clipped weights and GPTQ as steps: other scales and other codes, kept where they help.

use qkernels::Threads;

use super::report::{Step, StepGain};
use super::steps::Steps;
use crate::accuracy::clip::clipped_params;
use crate::accuracy::gptq::{GptqScales, gptq};
use crate::accuracy::hessian::Hessian;
use crate::config::gptq::{GptqConfig, GptqOrder};
use crate::config::weights::WeightGranularity;
use crate::layer::float::FloatLinear;
use crate::layer::weight_codes::{WeightCodes, group_len};
use crate::pass::error::{PassLayerError, Refusal};
use crate::pass::plan::Refined;

impl Steps {
    /// Clips the weights of each layer of a group where that helps.
    pub(super) fn clip(&mut self, group: &[usize], floats: &[FloatLinear]) -> Result<(), Refusal> {
        self.refine(group, floats, |steps, at, float| {
            let planned = &steps.seen.planned[at];
            let Some(weights) = planned.method.weights() else { return Ok(None) };
            let source = planned.refined.source(float)?;
            let squares = steps.profiles[at].channels.squares.iter();
            let importance: Vec<f64> = match &planned.refined.input_scale {
                Some(scales) => squares.zip(scales).map(|(square, s)| square / f64::from(s * s)).collect(),
                None => squares.copied().collect(),
            };
            let (n, k) = (source.n(), source.k());
            let params = clipped_params(source.weight(), n, k, weights, Some(&importance))?;
            let refined = Refined { params: Some(params), ..planned.refined.clone() };
            Ok(Some((Step::ClipWeights, refined)))
        })
    }

    /// Rounds the weights of each layer of a group by GPTQ where that helps.
    pub(super) fn gptq(
        &mut self,
        group: &[usize],
        floats: &[FloatLinear],
        hessian: &Hessian,
        config: &GptqConfig,
        threads: Threads<'_>,
    ) -> Result<(), Refusal> {
        self.refine(group, floats, |steps, at, float| {
            let planned = &steps.seen.planned[at];
            let Some(weights) = planned.method.weights() else { return Ok(None) };
            let source = planned.refined.source(float)?;
            let input = planned.input(&planned.method)?;
            let params = planned.params(&source, &planned.method, input.as_ref())?;
            let is_clipped = planned.refined.params.is_some();
            let scales = match weights.granularity {
                // Groups of sorted inputs have other weights than those that were clipped.
                WeightGranularity::PerGroup(len) if is_clipped && config.order != GptqOrder::Activations => {
                    GptqScales::StaticGroups { len, params: &params }
                }
                WeightGranularity::PerGroup(len) => {
                    GptqScales::DynamicGroups { len, scheme: &weights.scheme }
                }
                WeightGranularity::PerChannel | WeightGranularity::PerTensor => GptqScales::Channels(&params),
            };
            let rounded = gptq(source.weight(), source.n(), scales, hessian, config, threads)?;
            let codes = WeightCodes {
                codes: rounded.codes,
                params: rounded.params,
                group: group_len(weights),
                order: rounded.input_order,
            };
            let refined = Refined { codes: Some(codes), ..planned.refined.clone() };
            let (rows, k) = (hessian.rows(), source.k());
            Ok(Some((Step::Gptq { damping: rounded.damping, rows, k }, refined)))
        })
    }

    /// Tries what `step` gives each layer of a group, and keeps it where the layer's output is
    /// better with it on the rows that are held out. Layers that cannot be quantized without the
    /// step are left to the pass, which says why.
    fn refine(
        &mut self,
        group: &[usize],
        floats: &[FloatLinear],
        step: impl Fn(&Self, usize, &FloatLinear) -> Result<Option<(Step, Refined)>, PassLayerError>,
    ) -> Result<(), Refusal> {
        for (&at, float) in group.iter().zip(floats) {
            let Ok(before_db) = self.measure(at, float) else { continue };
            let refused = |error| Refusal { layer: float.name().to_owned(), error };
            let Some((step, refined)) = step(self, at, float).map_err(refused)? else { continue };
            let before = core::mem::replace(&mut self.seen.planned[at].refined, refined);
            let after_db = self.measure(at, float).map_err(refused)?;
            let is_kept = after_db > before_db;
            if !is_kept {
                self.seen.planned[at].refined = before;
            }
            self.layers[at].add(StepGain { step, before_db, after_db, is_kept });
        }
        Ok(())
    }
}
