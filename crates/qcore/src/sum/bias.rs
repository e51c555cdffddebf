//! Biases as int32 in the units of the accumulator: `q = bias / (input_scale * weight_scale)`, with
//! zero point 0.

use thiserror::Error;

/// `round_ties_even(bias / (weight_scale * input_scale))`, each step in f32.
///
/// # Errors
/// When the result does not fit i32, the bias is not finite, or the product of the scales is not
/// finite and greater than 0. An ordinary bias does not fit if the weight scale is tiny: keep the
/// bias in f32 then, or raise the scale.
///
/// ```
/// use qcore::{BiasError, quantize_bias};
///
/// assert_eq!(quantize_bias(-0.75, 0.5, 0.25), Ok(-6));
/// assert!(matches!(quantize_bias(1.0, 1e-5, 1e-6), Err(BiasError::DoesNotFit { .. })));
/// ```
pub fn quantize_bias(bias: f32, input_scale: f32, weight_scale: f32) -> Result<i32, BiasError> {
    let (scale, quotient) = bias_quotient(bias, input_scale, weight_scale)?;
    // -2^31 is an f32 but 2^31 - 1 is not. The first f32 that does not fit is 2^31.
    if (-2_147_483_648.0..2_147_483_648.0).contains(&quotient) {
        Ok(quotient as i32)
    } else {
        Err(BiasError::DoesNotFit { bias, scale })
    }
}

/// [`quantize_bias`] that clamps to i32 instead of failing, as MIT 6.5940 lab 2 does. A clamped
/// bias is wrong, and nothing reports it.
///
/// # Errors
/// When the bias is not finite, or the product of the scales is not finite and greater than 0.
///
/// ```
/// assert_eq!(qcore::quantize_bias_clamped(-1.0, 1e-5, 1e-6), Ok(i32::MIN));
/// ```
pub fn quantize_bias_clamped(bias: f32, input_scale: f32, weight_scale: f32) -> Result<i32, BiasError> {
    let (_, quotient) = bias_quotient(bias, input_scale, weight_scale)?;
    // A cast from f32 to i32 saturates, and the quotient is not NaN.
    Ok(quotient as i32)
}

/// [`quantize_bias`] for each output channel.
///
/// # Errors
/// When the lengths differ, or the bias of a channel cannot be quantized. The error names the
/// channel.
///
/// ```
/// let q = qcore::quantize_biases(&[1.0, -1.0], 0.5, &[0.5, 0.25])?;
/// assert_eq!(q, [4, -8]);
/// # Ok::<(), qcore::BiasesError>(())
/// ```
pub fn quantize_biases(
    bias: &[f32],
    input_scale: f32,
    weight_scales: &[f32],
) -> Result<Vec<i32>, BiasesError> {
    each_channel(bias, weight_scales, |b, s| quantize_bias(b, input_scale, s))
}

/// [`quantize_bias_clamped`] for each output channel.
///
/// # Errors
/// As [`quantize_biases`], except that no bias is too large.
///
/// ```
/// assert_eq!(qcore::quantize_biases_clamped(&[1.0, -1.0], 1e-6, &[0.5, 1e-6])?, [2_000_000, i32::MIN]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn quantize_biases_clamped(
    bias: &[f32],
    input_scale: f32,
    weight_scales: &[f32],
) -> Result<Vec<i32>, BiasesError> {
    each_channel(bias, weight_scales, |b, s| quantize_bias_clamped(b, input_scale, s))
}

/// Returns the scale of the accumulator, and the bias in that unit, rounded.
fn bias_quotient(bias: f32, input_scale: f32, weight_scale: f32) -> Result<(f32, f32), BiasError> {
    if !bias.is_finite() {
        return Err(BiasError::NonFinite { bias });
    }
    let scale = weight_scale * input_scale;
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(BiasError::Scale { input_scale, weight_scale });
    }
    Ok((scale, (bias / scale).round_ties_even()))
}

fn each_channel(
    bias: &[f32],
    weight_scales: &[f32],
    quantize: impl Fn(f32, f32) -> Result<i32, BiasError>,
) -> Result<Vec<i32>, BiasesError> {
    if bias.len() != weight_scales.len() {
        return Err(BiasesError::Length { bias: bias.len(), weight_scales: weight_scales.len() });
    }
    let named = |(channel, (&b, &s))| quantize(b, s).map_err(|error| BiasesError::Channel { channel, error });
    bias.iter().zip(weight_scales).enumerate().map(named).collect()
}

/// Why a bias has no int32 form.
///
/// ```
/// let error = qcore::quantize_bias(1.0, 1e-5, 1e-6).unwrap_err();
/// assert_eq!(error.to_string(), "bias 1.0 at scale 1e-11 does not fit 32 bits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BiasError {
    /// The bias is too large for the scale.
    #[error("bias {bias:?} at scale {scale:e} does not fit 32 bits")]
    DoesNotFit {
        /// The bias.
        bias: f32,
        /// `weight_scale * input_scale`.
        scale: f32,
    },
    /// The bias is NaN or infinite.
    #[error("bias {bias} is not finite")]
    NonFinite {
        /// The bias.
        bias: f32,
    },
    /// The product of the scales is 0, negative, infinite or NaN.
    #[error(
        "input scale {input_scale:e} times weight scale {weight_scale:e} must be finite and greater than 0"
    )]
    Scale {
        /// The scale of the activations.
        input_scale: f32,
        /// The scale of the channel's weights.
        weight_scale: f32,
    },
}

/// Why the biases of a layer have no int32 form.
///
/// ```
/// let error = qcore::quantize_biases(&[0.0, 1.0], 1e-5, &[1.0, 1e-6]).unwrap_err();
/// assert_eq!(error.to_string(), "channel 1: bias 1.0 at scale 1e-11 does not fit 32 bits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BiasesError {
    /// There are more or fewer scales than biases.
    #[error("{bias} biases need as many weight scales, got {weight_scales}")]
    Length {
        /// The number of biases.
        bias: usize,
        /// The number of scales.
        weight_scales: usize,
    },
    /// The bias of one channel has no int32 form.
    #[error("channel {channel}: {error}")]
    Channel {
        /// Which.
        channel: usize,
        /// Why.
        error: BiasError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_of_i32() {
        let below = 2_147_483_648.0_f32.next_down();
        assert_eq!(quantize_bias(below, 1.0, 1.0), Ok(2_147_483_520));
        assert_eq!(quantize_bias(-2_147_483_648.0, 1.0, 1.0), Ok(i32::MIN));
        assert!(quantize_bias(2_147_483_648.0, 1.0, 1.0).is_err());
        assert!(quantize_bias((-2_147_483_648.0_f32).next_down(), 1.0, 1.0).is_err());
        assert_eq!(quantize_bias_clamped(2_147_483_648.0, 1.0, 1.0), Ok(i32::MAX));
        assert_eq!(quantize_bias_clamped(-f32::MAX, 0.1, 0.1), Ok(i32::MIN));
    }

    #[test]
    fn errors_name_the_channel_and_the_numbers() {
        let error = quantize_biases(&[0.0, 3.0], 1e-6, &[1.0, 1e-6]).unwrap_err();
        assert_eq!(error.to_string(), "channel 1: bias 3.0 at scale 1e-12 does not fit 32 bits");
        assert_eq!(quantize_biases_clamped(&[0.0, 3.0], 1e-6, &[1.0, 1e-6]), Ok(vec![0, i32::MAX]));
        assert!(matches!(quantize_biases(&[0.0], 1.0, &[]), Err(BiasesError::Length { .. })));
        for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0, 1e-45] {
            assert!(quantize_bias(0.0, bad, 1e-3).is_err(), "{bad}");
        }
        assert!(quantize_bias_clamped(f32::NAN, 1.0, 1.0).is_err());
        assert!(quantize_bias(f32::INFINITY, 1.0, 1.0).is_err());
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(
            [0.5, 1.5, 2.5, -0.5, -1.5].map(|b| quantize_bias(b, 1.0, 1.0).unwrap()),
            [0, 2, 2, 0, -2]
        );
    }
}
