//! How a layer whose output is codes applies an activation function.

use super::scalar::{dequantize_acc, requantize_real};
use crate::activation::ActivationFunction;

/// At which point a layer whose output is codes applies an [`ActivationFunction`].
///
/// ```
/// use qcore::{ActivationFunction, OnCodes};
///
/// assert_eq!(ActivationFunction::Relu.on_codes(), OnCodes::Bounds);
/// assert_eq!(ActivationFunction::LeakyRelu { slope: 0.1 }.on_codes(), OnCodes::AfterMultiplier);
/// assert_eq!(ActivationFunction::Gelu.on_codes(), OnCodes::RealValues);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCodes {
    /// The function only limits the codes: see [`ActivationFunction::as_code_bounds`].
    Bounds,
    /// The function is applied to the scaled sum just before rounding: see
    /// [`ActivationFunction::after_multiplier`].
    AfterMultiplier,
    /// The function needs the real value: see
    /// [`requantize_activation`](crate::requantize_activation).
    RealValues,
}

impl ActivationFunction {
    /// At which point a layer whose output is codes applies this function.
    ///
    /// ```
    /// use qcore::{ActivationFunction, OnCodes};
    ///
    /// assert_eq!(ActivationFunction::RELU6.on_codes(), OnCodes::Bounds);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn on_codes(self) -> OnCodes {
        match self {
            ActivationFunction::Identity | ActivationFunction::Relu | ActivationFunction::Clamp { .. } => {
                OnCodes::Bounds
            }
            ActivationFunction::LeakyRelu { .. } => OnCodes::AfterMultiplier,
            ActivationFunction::Gelu
            | ActivationFunction::GeluTanh
            | ActivationFunction::Silu
            | ActivationFunction::HardSwish => OnCodes::RealValues,
        }
    }

    /// The lowest and the highest code that identity, ReLU or a clamp leaves of the codes
    /// `low..=high`, for an output of this scale and zero point. `None` for the other functions.
    ///
    /// The bounds of a clamp are quantized like any value. The lower bound of ReLU is the zero
    /// point, whatever the scale. The result always lies within `low..=high`: if all these codes
    /// are below the zero point, ReLU leaves `high` alone.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// assert_eq!(ActivationFunction::Identity.as_code_bounds(0.05, 10, 0, 255), Some((0, 255)));
    /// assert_eq!(ActivationFunction::Relu.as_code_bounds(0.05, 10, 0, 255), Some((10, 255)));
    /// assert_eq!(ActivationFunction::RELU6.as_code_bounds(0.05, 10, 0, 255), Some((10, 130)));
    /// assert_eq!(ActivationFunction::Gelu.as_code_bounds(0.05, 10, 0, 255), None);
    /// ```
    #[must_use]
    pub fn as_code_bounds(self, scale: f32, zero_point: i32, low: i32, high: i32) -> Option<(i32, i32)> {
        let code = |y| requantize_real(y, scale, zero_point, low, high);
        match self {
            ActivationFunction::Identity => Some((low, high)),
            ActivationFunction::Relu => Some((low.max(zero_point).min(high), high)),
            ActivationFunction::Clamp { min, max } => Some((code(min), code(max))),
            _ => None,
        }
    }

    /// Applies the function to a scaled sum `v`, in steps of the output, before it is rounded to a
    /// code.
    ///
    /// Only leaky ReLU changes `v`. Multiplying by a positive scale before or after leaky ReLU
    /// gives the same value, so it may act here. The functions that are bounds take effect when the
    /// code is clamped, and the functions of real values are applied elsewhere.
    ///
    /// ```
    /// use qcore::{ActivationFunction, requantize_scaled};
    ///
    /// let leaky = ActivationFunction::LeakyRelu { slope: 0.25 };
    /// let v = -24_i32 as f32 * 0.5;
    /// assert_eq!(requantize_scaled(leaky.after_multiplier(v), 10, 0, 255), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn after_multiplier(self, v: f32) -> f32 {
        match self {
            ActivationFunction::LeakyRelu { .. } => self.apply(v),
            _ => v,
        }
    }
}

/// `clamp(round_ties_even(f(f32(acc) * scale) / output_scale) + zero_point, min, max)` with
/// `scale = s_x * s_w`: a layer that applies a function to its real output and then quantizes it.
///
/// Each step is done in f32, in this order: [`dequantize_acc`] (with a residual,
/// [`dequantize_acc_residual`](crate::dequantize_acc_residual)), the function, [`requantize_real`].
/// Identity, ReLU and clamps work here too. [`requantize`](crate::requantize) with their
/// [bounds](crate::ActivationFunction::as_code_bounds) divides the scales first instead, so the two
/// can differ by one code at ties and next to them.
///
/// ```
/// use qcore::{ActivationFunction, requantize_activation};
///
/// let code = |acc| requantize_activation(acc, 0.125, ActivationFunction::Silu, 0.05, 10, 0, 255);
/// assert_eq!([-100, -8, 0, 8, i32::MAX].map(code), [10, 5, 10, 25, 255]);
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_activation(
    acc: i32,
    scale: f32,
    function: ActivationFunction,
    output_scale: f32,
    zero_point: i32,
    min: i32,
    max: i32,
) -> i32 {
    requantize_real(function.apply(dequantize_acc(acc, scale)), output_scale, zero_point, min, max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeRange;
    use crate::params::QParams;
    use crate::requantize::scalar::{requantize, requantize_scaled};

    const SCALES: [f32; 5] = [0.05, 0.1, 1.0 / 3.0, 1.0, 1e-30];

    #[test]
    fn a_relu_is_a_bound_at_the_zero_point() {
        for (zero_point, low, high) in [(10, 0, 255), (10, 20, 255), (10, 0, 5), (-128, -128, 127), (3, 3, 3)]
        {
            let bounds = ActivationFunction::Relu.as_code_bounds(f32::NAN, zero_point, low, high);
            assert_eq!(bounds, Some((low.max(zero_point).min(high), high)));
        }
    }

    #[test]
    fn a_clamp_is_bounds_at_the_codes_of_its_bounds() {
        for scale in SCALES {
            for (codes, zero_point) in [(CodeRange::U8, 10), (CodeRange::I8, -7), (CodeRange::I8, 127)] {
                let p = QParams::new(scale, zero_point, codes).unwrap();
                for (min, max) in
                    [(0.0, 6.0), (-1.0, 1.0), (0.0, f32::INFINITY), (f32::NEG_INFINITY, 0.3), (9.0, 1e30)]
                {
                    let clamp = ActivationFunction::Clamp { min, max };
                    let bounds = clamp.as_code_bounds(scale, zero_point, codes.min(), codes.max());
                    assert_eq!(bounds, Some((p.quantize(min), p.quantize(max))), "{clamp} {p:?}");
                }
                let relu =
                    ActivationFunction::Relu.as_code_bounds(scale, zero_point, codes.min(), codes.max());
                let half = ActivationFunction::Clamp { min: 0.0, max: f32::INFINITY };
                assert_eq!(half.as_code_bounds(scale, zero_point, codes.min(), codes.max()), relu);
            }
        }
    }

    /// Clamping real values and then quantizing them gives the same codes as clamping the codes.
    #[test]
    fn bounds_are_the_function_of_real_values() {
        for scale in SCALES {
            for function in [ActivationFunction::Relu, ActivationFunction::Clamp { min: -0.7, max: 3.3 }] {
                let (low, high) = function.as_code_bounds(scale, 10, 0, 255).unwrap();
                for step in -4000..4000 {
                    let y = step as f32 / 8.0 * scale;
                    let expected = requantize_real(function.apply(y), scale, 10, 0, 255);
                    assert_eq!(requantize_real(y, scale, 10, low, high), expected, "{function} {y}");
                }
            }
        }
    }

    #[test]
    fn only_leaky_relu_acts_after_the_multiplier() {
        for acc in -3000..3000 {
            for function in [ActivationFunction::Identity, ActivationFunction::Relu, ActivationFunction::Gelu]
            {
                let v = function.after_multiplier(acc as f32 * 0.03);
                assert_eq!(requantize_scaled(v, 5, -128, 127), requantize(acc, 0.03, 5, -128, 127));
            }
            let leaky = ActivationFunction::LeakyRelu { slope: 0.1 };
            let v = acc as f32 * 0.03;
            let expected = if acc < 0 { v * 0.1 } else { v };
            let expected = (expected.round_ties_even() + 5.0).clamp(-128.0, 127.0) as i32;
            assert_eq!(requantize_scaled(leaky.after_multiplier(v), 5, -128, 127), expected);
        }
    }
}
