//! From the int32 accumulator to the codes of the next layer, or to f32.
//!
//! `y = clamp(round(acc * multiplier) + zero_point, min, max)` with `multiplier = s_x * s_w / s_y`.
//! The order of float operations is part of each definition. They are in f32 unless a name says
//! otherwise, and nothing is fused or reassociated. The per-value functions are free of branches
//! and always inlined, so a kernel that calls them in a loop compiles this very definition to its
//! own vector instructions.

use crate::value::{LIMIT, round_clamped, round_clamped_f64};

/// `(s_x * s_w) / s_y`, each step in f32: input scale, weight scale of the channel, output scale.
///
/// ```
/// assert_eq!(qcore::output_multiplier(0.5, 0.25, 2.0), 0.0625);
/// ```
#[inline(always)]
#[must_use]
pub fn output_multiplier(s_x: f32, s_w: f32, s_y: f32) -> f32 {
    (s_x * s_w) / s_y
}

/// [`output_multiplier`] in f64, for [`requantize_f64`].
///
/// ```
/// assert_eq!(qcore::output_multiplier_f64(0.5, 0.25, 2.0), 0.0625);
/// ```
#[inline(always)]
#[must_use]
pub fn output_multiplier_f64(s_x: f64, s_w: f64, s_y: f64) -> f64 {
    (s_x * s_w) / s_y
}

/// `clamp(round_ties_even(f32(acc) * multiplier) + zero_point, min, max)`. This is the default, and
/// the order of FBGEMM, ONNX Runtime and XNNPACK.
///
/// Every `acc` has a result, including i32::MIN and MAX, and so does every multiplier (a product
/// that is NaN gives `min`). The bounds may be those of any integer output of up to 22 bits. A
/// bound further than 2^22 from the zero point acts as if it were 2^22 away.
///
/// ```
/// use qcore::requantize;
///
/// assert_eq!(requantize(5, 0.5, 3, -128, 127), 5); // 2.5 goes to 2
/// assert_eq!(requantize(7, 0.5, 3, -128, 127), 7); // 3.5 goes to 4
/// assert_eq!(requantize(i32::MIN, 1.0, 3, -128, 127), -128);
/// ```
#[inline(always)]
#[must_use]
pub fn requantize(acc: i32, multiplier: f32, zero_point: i32, min: i32, max: i32) -> i32 {
    requantize_scaled(acc as f32 * multiplier, zero_point, min, max)
}

/// `clamp(round_ties_even(v) + zero_point, min, max)`: the last step of [`requantize`], for a sum
/// `v` that is already scaled to steps of the output.
///
/// Every input has a result, as in [`requantize`]: NaN gives `min`, and a bound further than 2^22
/// from the zero point acts as if it were 2^22 away.
///
/// ```
/// use qcore::requantize_scaled;
///
/// assert_eq!([2.5, 3.5, f32::NAN, f32::INFINITY].map(|v| requantize_scaled(v, 3, -128, 127)), [5, 7, -128, 127]);
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_scaled(v: f32, zero_point: i32, min: i32, max: i32) -> i32 {
    // Clamping to min - z and max - z before rounding gives the same result as clamping after it,
    // because both bounds are integers. It also makes the value small enough to be rounded by one
    // addition. The bounds are the same for a whole channel, so the compiler moves them out of a
    // loop.
    let lo = min.saturating_sub(zero_point).clamp(-LIMIT, LIMIT) as f32;
    let hi = max.saturating_sub(zero_point).clamp(-LIMIT, LIMIT) as f32;
    round_clamped(v, lo, hi).wrapping_add(zero_point)
}

/// `clamp(round_ties_even(y / scale) + zero_point, min, max)`: the code of a real output. It is the
/// last step of a layer whose [`ActivationFunction`](crate::ActivationFunction) needs real values.
///
/// NaN gives `min`, as everywhere in requantization;
/// [`QParams::quantize`](crate::QParams::quantize) gives the zero point.
///
/// ```
/// use qcore::{ActivationFunction, dequantize_acc_residual, requantize_real};
///
/// // A sum of scale 1/8, a residual of scale 1/2, hard-swish, an output of scale 1/4.
/// let y = dequantize_acc_residual(-6, 0.125, 3, 0.5); // 0.75
/// assert_eq!(requantize_real(ActivationFunction::HardSwish.apply(y), 0.25, 10, 0, 255), 12); // 0.46875
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_real(y: f32, scale: f32, zero_point: i32, min: i32, max: i32) -> i32 {
    requantize_scaled(y / scale, zero_point, min, max)
}

/// `clamp(round_ties_even(f32(acc) * multiplier + f32(zero_point)), min, max)`, as in MIT 6.5940
/// lab 2. If the zero point is odd, ties go the other way than in [`requantize`].
///
/// Every input has a result, as in [`requantize`]. A bound beyond ±2^22 acts as if it were ±2^22.
///
/// ```
/// assert_eq!(qcore::requantize_add_then_round(5, 0.5, 3, -128, 127), 6); // 5.5 goes to 6
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_add_then_round(acc: i32, multiplier: f32, zero_point: i32, min: i32, max: i32) -> i32 {
    let (lo, hi) = (min.clamp(-LIMIT, LIMIT) as f32, max.clamp(-LIMIT, LIMIT) as f32);
    round_clamped(acc as f32 * multiplier + zero_point as f32, lo, hi)
}

/// `clamp(round_ties_even(f64(acc) * multiplier) + zero_point, min, max)` in f64: the most exact
/// form, for reference. Every `acc`, zero point and bound is exact in f64. A product that is NaN
/// gives `min`.
///
/// ```
/// assert_eq!(qcore::requantize_f64(16_777_217, 1.0, 0, i32::MIN, i32::MAX), 16_777_217); // not an f32
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_f64(acc: i32, multiplier: f64, zero_point: i32, min: i32, max: i32) -> i32 {
    let z = f64::from(zero_point);
    // Modulo 2^32 is enough, because the sum lies in min..=max.
    round_clamped_f64(f64::from(acc) * multiplier, f64::from(min) - z, f64::from(max) - z)
        .wrapping_add(zero_point)
}

/// `clamp(round_ties_even(f64(acc) * multiplier + zero_point), min, max)` in f64: ONNX's reference
/// implementation of QLinearMatMul, where numpy widens int32 times f32 to f64. The multiplier is
/// that of [`output_multiplier`], widened.
///
/// Every `acc`, zero point and bound is exact in f64. A product that is NaN gives `min`.
///
/// ```
/// assert_eq!(qcore::requantize_add_then_round_f64(5, 0.5, 3, -128, 127), 6); // 5.5 goes to 6
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_add_then_round_f64(acc: i32, multiplier: f64, zero_point: i32, min: i32, max: i32) -> i32 {
    round_clamped_f64(f64::from(acc) * multiplier + f64::from(zero_point), min.into(), max.into())
}

/// `clamp(round_ties_even(f32(acc) * multiplier + f32(residual) * step) + zero_point, min, max)`: a
/// layer whose output is added to another tensor before it is rounded. `residual` is the distance
/// of that tensor's code from its zero point, and `step` is its scale divided by the output's.
///
/// There is one rounding, where a layer followed by an addition has two. Each step is done in f32
/// and not fused. Every input has a result, as in [`requantize`]: a sum that is NaN gives `min`.
///
/// ```
/// use qcore::requantize_residual;
///
/// assert_eq!(requantize_residual(5, 0.25, 3, 0.25, 1, -128, 127), 3); // 1.25 + 0.75 is 2
/// assert_eq!(requantize_residual(5, 0.25, 1, 0.25, 1, -128, 127), 3); // 1.5 goes to 2; rounded apart it is 1 + 0
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_residual(
    acc: i32,
    multiplier: f32,
    residual: i32,
    step: f32,
    zero_point: i32,
    min: i32,
    max: i32,
) -> i32 {
    requantize_scaled(acc as f32 * multiplier + residual as f32 * step, zero_point, min, max)
}

/// `f32(acc) * scale` with `scale = s_x * s_w`: the real value of an accumulator.
///
/// ```
/// assert_eq!(qcore::dequantize_acc(-6, 0.125), -0.75);
/// ```
#[inline(always)]
#[must_use]
pub fn dequantize_acc(acc: i32, scale: f32) -> f32 {
    acc as f32 * scale
}

/// `f32(acc) * scale + bias` in that order, each step in f32 and not fused: a layer with its bias
/// in f32.
///
/// ```
/// assert_eq!(qcore::dequantize_acc_bias(-6, 0.125, 1.0), 0.25);
/// ```
#[inline(always)]
#[must_use]
pub fn dequantize_acc_bias(acc: i32, scale: f32, bias: f32) -> f32 {
    dequantize_acc(acc, scale) + bias
}

/// `f32(acc) * scale + f32(residual) * residual_scale`, each step in f32 and not fused: the real
/// output of a layer plus the tensor that is added to it. `residual` is the distance of that
/// tensor's code from its zero point.
///
/// ```
/// assert_eq!(qcore::dequantize_acc_residual(-6, 0.125, 3, 0.5), 0.75);
/// ```
#[inline(always)]
#[must_use]
pub fn dequantize_acc_residual(acc: i32, scale: f32, residual: i32, residual_scale: f32) -> f32 {
    dequantize_acc(acc, scale) + dequantize_acc(residual, residual_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCUMULATORS: [i32; 15] = [
        i32::MIN,
        i32::MIN + 1,
        -16_777_217,
        -65_536,
        -129,
        -128,
        -1,
        0,
        1,
        127,
        128,
        65_535,
        16_777_217,
        i32::MAX - 1,
        i32::MAX,
    ];
    const BOUNDS: [(i32, i32); 7] =
        [(-128, 127), (0, 255), (-127, 127), (-8, 7), (3, 255), (-5, -5), (0, 1 << 16)];

    /// The definition with the clamp where the formula has it, after rounding, and every step in
    /// f64.
    fn clamp_last(product: f64, zero_point: i32, min: i32, max: i32) -> i32 {
        (product.round_ties_even() + f64::from(zero_point)).clamp(min.into(), max.into()) as i32
    }

    #[test]
    fn clamping_before_rounding_equals_clamping_after_around_every_tie() {
        for (min, max) in BOUNDS {
            for zero_point in [-128, -37, -1, 0, 1, 3, 127, 255] {
                // Multiples of a quarter, which hit every tie in reach and the neighbours on both
                // sides.
                for acc in -4096..=4096 {
                    for m in [0.25_f32, 0.125, 0.25_f32.next_up(), 0.25_f32.next_down()] {
                        let product = acc as f32 * m;
                        let expected = clamp_last(product.into(), zero_point, min, max);
                        assert_eq!(
                            requantize(acc, m, zero_point, min, max),
                            expected,
                            "{acc} {m} {zero_point}"
                        );
                        let sum = product + zero_point as f32;
                        let expected = clamp_last(sum.into(), 0, min, max);
                        assert_eq!(
                            requantize_add_then_round(acc, m, zero_point, min, max),
                            expected,
                            "{acc} {m}"
                        );
                        let expected = clamp_last(f64::from(acc) * f64::from(m), zero_point, min, max);
                        assert_eq!(
                            requantize_f64(acc, m.into(), zero_point, min, max),
                            expected,
                            "{acc} {m}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_residual_is_added_in_f32_before_the_only_rounding() {
        let mut fused_differs = 0;
        for (multiplier, step) in
            [0.25, 0.1, 1.0 / 3.0_f32].into_iter().flat_map(|m| [0.25, 0.1, -0.3].map(|s| (m, s)))
        {
            for (acc, residual) in
                (-300..=300).flat_map(|acc| (-128..=127).map(move |residual| (acc, residual)))
            {
                let (product, term) = (acc as f32 * multiplier, residual as f32 * step);
                let sum = f64::from(product) + f64::from(term);
                let expected = clamp_last(f64::from(sum as f32), 3, -128, 127);
                let got = requantize_residual(acc, multiplier, residual, step, 3, -128, 127);
                assert_eq!(got, expected, "{acc} {multiplier} {residual} {step}");
                let fused = (acc as f32).mul_add(multiplier, term);
                fused_differs += i32::from(clamp_last(fused.into(), 3, -128, 127) != expected);
            }
        }
        assert!(fused_differs > 0);
        // With a residual of 0 it equals `requantize`.
        for acc in ACCUMULATORS {
            assert_eq!(
                requantize_residual(acc, 0.3, 0, 9.0, 3, -128, 127),
                requantize(acc, 0.3, 3, -128, 127)
            );
        }
        // Infinities of opposite signs make NaN.
        assert_eq!(requantize_residual(i32::MAX, f32::MAX, i32::MIN, f32::MAX, 3, -128, 127), -128);
    }

    #[test]
    fn every_accumulator_and_multiplier_has_a_result() {
        let multipliers = [
            0.0,
            f32::from_bits(1),
            1e-30,
            1e-9,
            1.0 / 3.0,
            0.999_999_9,
            1.0,
            1.5,
            1e9,
            1e30,
            f32::MAX,
            -0.5,
        ];
        for acc in ACCUMULATORS {
            for m in multipliers {
                for (min, max) in BOUNDS {
                    for z in [min, 0, max] {
                        let expected = clamp_last((acc as f32 * m).into(), z, min, max);
                        assert_eq!(requantize(acc, m, z, min, max), expected, "{acc} {m} {z}");
                        let expected = clamp_last((acc as f32 * m + z as f32).into(), 0, min, max);
                        assert_eq!(requantize_add_then_round(acc, m, z, min, max), expected, "{acc} {m} {z}");
                        let expected = clamp_last(f64::from(acc) * f64::from(m), z, min, max);
                        assert_eq!(requantize_f64(acc, m.into(), z, min, max), expected, "{acc} {m} {z}");
                        let sum = f64::from(acc) * f64::from(m) + f64::from(z);
                        let expected = clamp_last(sum, 0, min, max);
                        assert_eq!(requantize_add_then_round_f64(acc, m.into(), z, min, max), expected);
                    }
                }
            }
        }
        assert_eq!(requantize(0, f32::INFINITY, 5, -128, 127), -128); // 0 * inf is NaN
    }

    #[test]
    fn f64_takes_all_of_i32() {
        for acc in ACCUMULATORS {
            assert_eq!(requantize_f64(acc, 1.0, 0, i32::MIN, i32::MAX), acc);
            for z in [i32::MIN, -1, 1, i32::MAX] {
                let exact = (i64::from(acc) + i64::from(z)).clamp(i32::MIN.into(), i32::MAX.into());
                assert_eq!(i64::from(requantize_f64(acc, 1.0, z, i32::MIN, i32::MAX)), exact);
            }
        }
    }

    #[test]
    fn impossible_bounds_do_not_panic() {
        for (z, min, max) in [(i32::MIN, i32::MAX, i32::MIN), (i32::MAX, i32::MIN, i32::MAX), (0, 1, -1)] {
            let _ = requantize(1, f32::NAN, z, min, max);
            let _ = requantize_add_then_round(1, f32::NAN, z, min, max);
            let _ = requantize_f64(1, f64::NAN, z, min, max);
        }
    }
}
