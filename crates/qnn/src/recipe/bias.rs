//! Bias correction as a step: the mean error of each output goes to the bias.

use qcore::{ActivationFunction, Sqnr};

use super::layer_by_layer::SeenBehind;
use super::report::{Step, StepGain};
use super::steps::Steps;
use crate::accuracy::channels::ChannelStats;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::pass::error::{PassLayerError, Refusal};
use crate::pass::plan::{float_output, output};

impl Steps {
    /// Corrects the bias of each layer of a group where that helps.
    pub(super) fn correct_biases(
        &mut self,
        group: &[usize],
        floats: &[FloatLinear],
        seen: &SeenBehind,
    ) -> Result<(), Refusal> {
        for (&at, float) in group.iter().zip(floats) {
            let refused = |error| Refusal { layer: float.name().to_owned(), error };
            let Ok(before_db) = self.measure_behind(at, float, seen) else { continue };
            let bias = self.corrected_bias(at, float, seen).map_err(refused)?;
            let before = self.seen.planned[at].refined.bias.replace(bias);
            // A bias may be more than int32 or f32 holds in the unit of the sums.
            let after = self.measure_behind(at, float, seen);
            let is_kept = after.as_ref().is_ok_and(|after_db| *after_db > before_db);
            if !is_kept {
                self.seen.planned[at].refined.bias = before;
            }
            if let Ok(after_db) = after {
                self.layers[at].add(StepGain { step: Step::BiasCorrection, before_db, after_db, is_kept });
            }
        }
        Ok(())
    }

    /// The bias with the mean error of each output, before the activation function: that of the
    /// inputs, whose means over all rows are known, and that of the layer itself on the rows that
    /// were kept.
    fn corrected_bias(
        &self,
        at: usize,
        float: &FloatLinear,
        seen: &SeenBehind,
    ) -> Result<Vec<f32>, PassLayerError> {
        let shift: Vec<f64> = means(&self.profiles[at].channels)
            .zip(means(&seen.behind.channels))
            .map(|(x, y)| x - y)
            .collect();
        let linear = float.clone().with_activation(ActivationFunction::Identity);
        let planned = &self.seen.planned[at];
        let quantized = planned.quantize(&linear, &planned.method, self.seen.kernel)?;
        let (x, m) = seen.behind.sample.concat();
        let (expected, got) = (float_output(&linear, &x, m)?, output(&quantized, &x, m)?);
        let n = float.n();
        let mut errors = vec![0.0; n];
        for (expected, got) in expected.chunks_exact(n).zip(got.chunks_exact(n)) {
            for (error, (expected, got)) in errors.iter_mut().zip(expected.iter().zip(got)) {
                *error += (f64::from(*expected) - f64::from(*got)) / m as f64;
            }
        }
        let corrected = |(channel, (weights, error)): (usize, (&[f32], f64))| {
            let of_inputs: f64 = weights.iter().zip(&shift).map(|(w, shift)| f64::from(*w) * shift).sum();
            (float.bias().map_or(0.0, |bias| f64::from(bias[channel])) + of_inputs + error) as f32
        };
        Ok(float.weight().chunks_exact(float.k()).zip(errors).enumerate().map(corrected).collect())
    }

    /// The SQNR of the output of layer `at` behind quantized layers, compared with the f32 model,
    /// on the rows that are held out.
    fn measure_behind(
        &self,
        at: usize,
        float: &FloatLinear,
        seen: &SeenBehind,
    ) -> Result<f64, PassLayerError> {
        let planned = &self.seen.planned[at];
        let quantized = planned.quantize(float, &planned.method, self.seen.kernel)?;
        let (x, m) = self.held_out[at].concat();
        let (behind, rows) = seen.held_out.concat();
        let mut sqnr = Sqnr::default();
        sqnr.add(&float_output(float, &x, m)?, &output(&quantized, &behind, rows)?)
            .map_err(ForwardError::from)?;
        Ok(sqnr.db())
    }
}

/// The mean of each channel.
fn means(channels: &ChannelStats) -> impl Iterator<Item = f64> {
    channels.sums.iter().map(|sum| sum / channels.rows as f64)
}
