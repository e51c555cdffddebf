//! Weight scales that leave room for the bias.
//!
//! A bias in int32 has the units of the accumulator, `input_scale * weight_scale`. A neuron that
//! hardly looks at its input has a tiny weight scale, and an ordinary bias then exceeds int32.
//! Clamping the bias, as some exporters do, silently changes the model. A larger weight scale only
//! makes tiny weights coarser. The alternative is to keep the bias in f32
//! ([`dequantize_acc_bias`](crate::dequantize_acc_bias)).

use std::fmt::{self, Display, Formatter};

use thiserror::Error;

use super::bias::quantize_bias;
use super::compensate::check_accumulator;
use crate::code::CodeRange;
use crate::params::QParams;

/// One output channel that needs a weight scale: its weights, its bias, and the parameters of its
/// input.
///
/// ```
/// use qcore::{CodeRange, QParams, WeightChannel};
///
/// let input = QParams::new(0.01, 0, CodeRange::U8)?;
/// let channel = WeightChannel { weights: &[1e-9, -1e-9], bias: 0.5, input: &input, codes: CodeRange::I8 };
/// let fitted = channel.fit_scale(1e-9 / 127.0)?; // 0.5 / (0.01 * 1e-9 / 127) is far beyond int32
/// assert!(fitted.raised_from.is_some() && fitted.scale < 1e-7);
/// assert!(fitted.to_string().starts_with("weight scale raised from 7.874016e-12 to 2.3"));
///
/// let channel = WeightChannel { weights: &[0.5, -1.27], ..channel };
/// assert_eq!(channel.fit_scale(0.01)?.raised_from, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightChannel<'w> {
    /// The channel's weights.
    pub weights: &'w [f32],
    /// Its bias.
    pub bias: f32,
    /// The parameters of the layer's input.
    pub input: &'w QParams,
    /// The codes of the weights. Their zero point is 0.
    pub codes: CodeRange,
}

impl WeightChannel<'_> {
    /// `scale` if it suits the channel, otherwise the smallest larger scale that does.
    ///
    /// A scale suits if `input_scale * scale` is a normal number, the bias fits int32 in that unit
    /// ([`quantize_bias`]), and bias and sums together cannot overflow int32 for any input
    /// ([`check_accumulator`]).
    ///
    /// # Errors
    /// When no scale suits. Keep the bias in f32 then, or split the layer along k.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams, WeightChannel};
    ///
    /// let input = QParams::new(0.01, 0, CodeRange::U8)?;
    /// let channel = WeightChannel { weights: &[0.5, -1.27], bias: 0.5, input: &input, codes: CodeRange::I8 };
    /// assert_eq!(channel.fit_scale(0.01)?.scale, 0.01);
    /// assert!(channel.fit_scale(f32::NAN).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fit_scale(&self, scale: f32) -> Result<FittedScale, NoFittingScale> {
        if self.suits(scale) {
            return Ok(FittedScale { scale, raised_from: None });
        }
        let none = NoFittingScale { scale, bias: self.bias, input_scale: self.input.scale() };
        // Everything that has to fit becomes smaller as the scale grows, so a bisection finds the
        // limit. It runs over the bits of the scale, because positive floats are in the order of
        // their bits.
        let mut suiting = (f32::MAX / 2.0 / self.input.scale()).min(f32::MAX / 2.0);
        let mut too_small = scale;
        // This also refuses NaN.
        if !(too_small > 0.0 && suiting > too_small && self.suits(suiting)) {
            return Err(none);
        }
        while suiting.to_bits() - too_small.to_bits() > 1 {
            let middle = f32::from_bits(too_small.to_bits().midpoint(suiting.to_bits()));
            *if self.suits(middle) { &mut suiting } else { &mut too_small } = middle;
        }
        Ok(FittedScale { scale: suiting, raised_from: Some(scale) })
    }

    fn suits(&self, scale: f32) -> bool {
        let input_scale = self.input.scale();
        let Ok(params) = QParams::new(scale, 0, self.codes) else { return false };
        let Ok(bias) = quantize_bias(self.bias, input_scale, scale) else { return false };
        let abs_sum = self.weights.iter().map(|&w| u64::from(params.quantize(w).unsigned_abs())).sum();
        let largest_input = self.input.codes().largest_distance(self.input.zero_point());
        (input_scale * scale).is_normal() && check_accumulator(0, largest_input, abs_sum, bias).is_ok()
    }
}

/// A scale that suits its channel, and the scale it replaces, if any. `Display` gives a note for a
/// report.
///
/// ```
/// let fitted = qcore::FittedScale { scale: 0.5, raised_from: Some(0.25) };
/// assert_eq!(fitted.to_string(), "weight scale raised from 2.5e-1 to 5e-1, so that the int32 bias fits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FittedScale {
    /// The scale to use.
    pub scale: f32,
    /// The original scale, if it was too small for the bias.
    pub raised_from: Option<f32>,
}

impl Display for FittedScale {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.raised_from {
            None => write!(f, "weight scale {:e}", self.scale),
            Some(from) => {
                write!(
                    f,
                    "weight scale raised from {from:e} to {:e}, so that the int32 bias fits",
                    self.scale
                )
            }
        }
    }
}

/// The error for a channel that no scale suits.
///
/// ```
/// use qcore::{CodeRange, QParams, WeightChannel};
///
/// let input = QParams::new(0.5, 0, CodeRange::U8)?;
/// let channel = WeightChannel { weights: &[1.0], bias: f32::INFINITY, input: &input, codes: CodeRange::I8 };
/// let error = channel.fit_scale(0.5).unwrap_err();
/// assert_eq!(error.to_string(), "no weight scale from 5e-1 up leaves room for bias inf at input scale 5e-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error("no weight scale from {scale:e} up leaves room for bias {bias} at input scale {input_scale:e}")]
#[non_exhaustive]
pub struct NoFittingScale {
    /// The original scale.
    pub scale: f32,
    /// The bias.
    pub bias: f32,
    /// The scale of the input.
    pub input_scale: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Scheme;
    use crate::value::Range;

    fn input(scale: f32) -> QParams {
        QParams::new(scale, 0, CodeRange::U8).unwrap()
    }

    #[test]
    fn a_raised_scale_is_the_smallest_that_suits() {
        for (weight, bias, input_scale) in [
            (1e-9, 0.5, 0.004),
            (-1e-30, 1e9, 1.0),
            (1e-38, 0.0, 1e-5),
            (0.0, -7.0, 1e-20),
            (1e30, 1.0, 1e-38),
        ] {
            let input = input(input_scale);
            let channel = WeightChannel { weights: &[weight; 3], bias, input: &input, codes: CodeRange::I8 };
            let range = Range::of(channel.weights).unwrap();
            let scale = Scheme::weights_i8().choose(range).unwrap().scale().min(1e-12);
            let fitted = channel.fit_scale(scale).unwrap();
            assert!(fitted.scale >= scale && channel.suits(fitted.scale));
            assert!(fitted.scale == scale || !channel.suits(fitted.scale.next_down()), "{channel:?}");
        }
    }

    #[test]
    fn no_scale_may_suit() {
        let codes = CodeRange::I8;
        let channel = WeightChannel { weights: &[f32::MAX; 9], bias: 0.0, input: &input(3e38), codes };
        assert!(channel.fit_scale(1e38).is_err());
        let channel = WeightChannel { weights: &[1.0], bias: f32::NAN, input: &input(1.0), codes };
        for scale in [1.0, 0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(channel.fit_scale(scale).is_err());
        }
        // So many weights that every scale that tells them apart overflows, until they round to 0.
        let long = vec![1.0; 70_000];
        let channel = WeightChannel { weights: &long, bias: 0.0, input: &input(1.0), codes };
        assert!(channel.fit_scale(1.0 / 127.0).unwrap().scale < 1.0 / 64.0);
    }
}
