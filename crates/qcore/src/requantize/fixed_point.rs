//! Requantization in integers: a real multiplier is a 32-bit fraction and a shift. Libraries round
//! its product differently.
//!
//! They agree on the multiplier and disagree on the rounding, so each rounding has its name here:
//!
//! ```text
//! acc * real = acc * multiplier * 2^(shift - 31),  2^30 <= multiplier < 2^31
//! double rounding: round(acc * multiplier / 2^31), ties up; then round(that * 2^shift), ties away from zero
//! single rounding: round(acc * multiplier * 2^(shift - 31)), ties up
//! ```
//!
//! Where the C code overflows, these functions saturate. They are free of branches, so a loop
//! around one becomes vector code.

use thiserror::Error;

/// The smallest shift: below it, every product would round to 0.
const SHIFT_MIN: i32 = -31;

/// The largest shift that leaves single rounding a bit to round.
const SHIFT_MAX: i32 = 30;

/// `round(a * b / 2^31)`, ties up, saturated: `i32::MIN * i32::MIN` gives `i32::MAX`. This is
/// gemmlowp's `SaturatingRoundingDoublingHighMul`, NEON's `sqrdmulh`, and the first step of
/// [`requantize_double_rounding`].
///
/// gemmlowp writes it with a nudge that depends on the sign and a division that truncates, which is
/// the same as `floor(v + 1/2)`.
///
/// ```
/// use qcore::saturating_rounding_doubling_high_mul;
///
/// assert_eq!(saturating_rounding_doubling_high_mul(3, 1 << 30), 2); // 1.5
/// assert_eq!(saturating_rounding_doubling_high_mul(-3, 1 << 30), -1); // -1.5, up
/// assert_eq!(saturating_rounding_doubling_high_mul(i32::MIN, i32::MIN), i32::MAX);
/// ```
#[inline(always)]
#[must_use]
pub fn saturating_rounding_doubling_high_mul(a: i32, b: i32) -> i32 {
    // The sum is at most 2^62 + 2^30, which fits i64. Only the product of the two minima exceeds
    // i32.
    saturate((i64::from(a) * i64::from(b) + (1 << 30)) >> 31)
}

/// `round(x / 2^exponent)`, ties away from zero. This is gemmlowp's `RoundingDivideByPOT`, and the
/// second step of [`requantize_double_rounding`]. gemmlowp defines it for exponents up to 31; here
/// every exponent has its mathematical result.
///
/// ```
/// use qcore::rounding_divide_by_pot;
///
/// assert_eq!([5, 6, 7].map(|x| rounding_divide_by_pot(x, 2)), [1, 2, 2]); // 1.25, 1.5, 1.75
/// assert_eq!([-5, -6, -7].map(|x| rounding_divide_by_pot(x, 2)), [-1, -2, -2]);
/// ```
#[inline(always)]
#[must_use]
pub fn rounding_divide_by_pot(x: i32, exponent: u32) -> i32 {
    let exponent = exponent.min(62);
    let half = (1_i64 << exponent) >> 1;
    // Adding a half rounds ties up. For negative numbers, one less rounds their ties down and
    // changes nothing else.
    let below_zero = i64::from(x < 0) & half.min(1);
    saturate((i64::from(x) + half - below_zero) >> exponent)
}

/// `x * 2^shift`, saturated. TensorFlow Lite multiplies by `1 << shift` and overflows.
#[inline(always)]
fn saturating_left_shift(x: i32, shift: u32) -> i32 {
    saturate(i64::from(x) << shift.min(31))
}

#[inline(always)]
fn saturate(v: i64) -> i32 {
    v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// A real multiplier in fixed point: `multiplier * 2^(shift - 31)`. TensorFlow Lite stores it as
/// `(quantized_multiplier, shift)`.
///
/// ```
/// use qcore::Q31Multiplier;
///
/// let half = Q31Multiplier::from_real(0.5)?;
/// assert_eq!((half.multiplier(), half.shift()), (1 << 30, 0));
///
/// // The figures that tell the roundings apart.
/// let m = Q31Multiplier::new(1_583_594_044, -9)?;
/// assert_eq!((m.multiply_double_rounding(7984), m.multiply_single_rounding(7984)), (12, 11)); // 11.4991
/// let m = Q31Multiplier::new(i32::MAX, -4)?;
/// assert_eq!((m.multiply_double_rounding(-1000), m.multiply_single_rounding(-1000)), (-63, -62));
/// let m = Q31Multiplier::new(1_527_099_593, -6)?;
/// assert_eq!((m.multiply_double_rounding(585), m.multiply_single_rounding(585)), (7, 7)); // 6.5000005
/// # Ok::<(), qcore::MultiplierError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Q31Multiplier {
    multiplier: i32,
    shift: i32,
}

impl Q31Multiplier {
    /// A multiplier and a shift as a file states them.
    ///
    /// # Errors
    /// Unless `multiplier` is at least 0 and `shift` is -31 to 30.
    ///
    /// ```
    /// assert_eq!(qcore::Q31Multiplier::new(1 << 30, -1)?.to_f64(), 0.25);
    /// assert!(qcore::Q31Multiplier::new(-1, 0).is_err() && qcore::Q31Multiplier::new(1, 31).is_err());
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    pub const fn new(multiplier: i32, shift: i32) -> Result<Q31Multiplier, MultiplierError> {
        match multiplier >= 0 && SHIFT_MIN <= shift && shift <= SHIFT_MAX {
            true => Ok(Q31Multiplier { multiplier, shift }),
            false => Err(MultiplierError::Q31 { multiplier, shift }),
        }
    }

    /// TensorFlow Lite's `QuantizeMultiplier`: `real = fraction * 2^shift` with a fraction in [1/2,
    /// 1), then `multiplier = round(fraction * 2^31)`, ties away from zero. A real multiplier below
    /// 2^-32 (a shift under -31) becomes 0.
    ///
    /// # Errors
    /// When `real` is NaN, negative, or at least 2^30. TensorFlow Lite rejects the first two and
    /// clamps the third.
    ///
    /// ```
    /// use qcore::Q31Multiplier;
    ///
    /// let third = Q31Multiplier::from_real(1.0 / 3.0)?;
    /// assert_eq!((third.multiplier(), third.shift()), (1_431_655_765, -1));
    /// assert_eq!(Q31Multiplier::from_real(1e-12)?.multiplier(), 0);
    /// assert!(Q31Multiplier::from_real(-1.0).is_err());
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    pub fn from_real(real: f64) -> Result<Q31Multiplier, MultiplierError> {
        if !(0.0..f64::from(1_u32 << 30)).contains(&real) {
            return Err(MultiplierError::Real { real });
        }
        // The exponent field of a subnormal is 0, far below what is kept. -0.0 has a sign bit.
        let exponent = (real.to_bits() >> 52 & 0x7ff) as i32;
        let shift = exponent - 1022;
        // One more than the limit, because rounding may carry into the next power of two.
        if shift < SHIFT_MIN - 1 {
            return Ok(Q31Multiplier::default());
        }
        // `real / 2^shift * 2^31` is exact, because only the exponent changes. `round` takes ties
        // away from zero.
        let fraction = f64::from_bits((real.to_bits() & ((1 << 52) - 1)) | (1022 << 52));
        let scaled = (fraction * f64::from(1_u32 << 31)).round() as i64;
        let (scaled, shift) = if scaled == 1 << 31 { (1 << 30, shift + 1) } else { (scaled, shift) };
        match (shift < SHIFT_MIN, shift > SHIFT_MAX) {
            (true, _) => Ok(Q31Multiplier::default()),
            (_, true) => Err(MultiplierError::Real { real }),
            _ => Ok(Q31Multiplier { multiplier: scaled as i32, shift }),
        }
    }

    /// The fraction, in units of 2^-31.
    ///
    /// ```
    /// assert_eq!(qcore::Q31Multiplier::from_real(0.75)?.multiplier(), 3 << 29);
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    #[must_use]
    pub const fn multiplier(self) -> i32 {
        self.multiplier
    }

    /// The power of two; a negative one shifts right.
    ///
    /// ```
    /// assert_eq!(qcore::Q31Multiplier::from_real(0.125)?.shift(), -2); // 1/2 * 2^-2
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    #[must_use]
    pub const fn shift(self) -> i32 {
        self.shift
    }

    /// The exact real number that it stands for.
    ///
    /// ```
    /// assert_eq!(qcore::Q31Multiplier::from_real(0.75)?.to_f64(), 0.75);
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    #[must_use]
    pub fn to_f64(self) -> f64 {
        f64::from(self.multiplier) * f64::from(self.shift - 31).exp2()
    }

    /// `round(round(x * 2^max(shift, 0) * multiplier / 2^31) / 2^max(-shift, 0))`, computed by
    /// [`saturating_rounding_doubling_high_mul`] and [`rounding_divide_by_pot`]. This is
    /// `MultiplyByQuantizedMultiplier` of gemmlowp, of TensorFlow Lite's reference kernels and, by
    /// default, of CMSIS-NN.
    ///
    /// The result is one off from the nearest integer if the first rounding makes a tie. A left
    /// shift that exceeds i32 saturates.
    ///
    /// ```
    /// let quarter = qcore::Q31Multiplier::from_real(0.25)?;
    /// assert_eq!([9, 10, -10].map(|x| quarter.multiply_double_rounding(x)), [3, 3, -3]); // 9 by way of 4.5, 5 and 2.5
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn multiply_double_rounding(self, x: i32) -> i32 {
        let (left, right) = (self.shift.max(0).unsigned_abs(), self.shift.min(0).unsigned_abs());
        let high = saturating_rounding_doubling_high_mul(saturating_left_shift(x, left), self.multiplier);
        rounding_divide_by_pot(high, right)
    }

    /// `floor((x * multiplier + 2^(30 - shift)) / 2^(31 - shift))`, the nearest integer with ties
    /// up. ruy and TOSA use it, TensorFlow Lite with `TFLITE_SINGLE_ROUNDING`, and CMSIS-NN with
    /// `CMSIS_NN_USE_SINGLE_ROUNDING`.
    ///
    /// A result that exceeds i32 saturates.
    ///
    /// ```
    /// let quarter = qcore::Q31Multiplier::from_real(0.25)?;
    /// assert_eq!([9, 10, -10].map(|x| quarter.multiply_single_rounding(x)), [2, 3, -2]); // ties up
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn multiply_single_rounding(self, x: i32) -> i32 {
        // The shift is 1 to 62 by construction. The mask tells the compiler. The sum is below
        // 2^62 + 2^61.
        let total = (31 - self.shift) as u32 & 63;
        saturate((i64::from(x) * i64::from(self.multiplier) + ((1_i64 << total) >> 1)) >> total)
    }
}

/// `clamp(multiply_double_rounding(acc) + zero_point, min, max)`, as in gemmlowp and TensorFlow
/// Lite. See [`Q31Multiplier::multiply_double_rounding`].
///
/// ```
/// use qcore::{Q31Multiplier, requantize_double_rounding};
///
/// let half = Q31Multiplier::from_real(0.5)?;
/// // 2.5 and -2.5: a shift of 0 leaves the first rounding alone, ties up.
/// assert_eq!([5, -5].map(|acc| requantize_double_rounding(acc, half, 3, -128, 127)), [6, 1]);
/// let quarter = Q31Multiplier::from_real(0.25)?;
/// assert_eq!([10, -10].map(|acc| requantize_double_rounding(acc, quarter, 3, -128, 127)), [6, 0]);
/// let m = Q31Multiplier::new(1_527_099_593, -6)?;
/// assert_eq!(requantize_double_rounding(585, m, -127, -128, 127), -120); // 6.5000005, so 7 - 127
/// # Ok::<(), qcore::MultiplierError>(())
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_double_rounding(acc: i32, m: Q31Multiplier, zero_point: i32, min: i32, max: i32) -> i32 {
    m.multiply_double_rounding(acc).saturating_add(zero_point).min(max).max(min)
}

/// `clamp(multiply_single_rounding(acc) + zero_point, min, max)`, as in ruy and TOSA. See
/// [`Q31Multiplier::multiply_single_rounding`].
///
/// ```
/// use qcore::{Q31Multiplier, requantize_single_rounding};
///
/// let quarter = Q31Multiplier::from_real(0.25)?;
/// assert_eq!([10, -10].map(|acc| requantize_single_rounding(acc, quarter, 3, -128, 127)), [6, 1]); // ties up
/// # Ok::<(), qcore::MultiplierError>(())
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_single_rounding(acc: i32, m: Q31Multiplier, zero_point: i32, min: i32, max: i32) -> i32 {
    m.multiply_single_rounding(acc).saturating_add(zero_point).min(max).max(min)
}

/// `clamp(floor((acc + 2^(shift - 1)) / 2^shift) + zero_point, min, max)`: a multiplier of
/// `2^-shift`, with ties up. CMSIS-NN's older `q7` kernels and FPGA designs use such a shift
/// instead of a multiplier.
///
/// ```
/// use qcore::requantize_power_of_two;
///
/// assert_eq!([5, 6, 7, -6].map(|acc| requantize_power_of_two(acc, 2, 0, -128, 127)), [1, 2, 2, -1]);
/// assert_eq!(requantize_power_of_two(i32::MIN, 0, 0, -128, 127), -128);
/// ```
#[inline(always)]
#[must_use]
pub fn requantize_power_of_two(acc: i32, shift: u32, zero_point: i32, min: i32, max: i32) -> i32 {
    let shift = shift.min(62);
    let rounded = (i64::from(acc) + ((1_i64 << shift) >> 1)) >> shift;
    saturate(rounded).saturating_add(zero_point).min(max).max(min)
}

/// Why numbers are not a fixed-point multiplier.
///
/// ```
/// let error = qcore::Q31Multiplier::from_real(-1.0).unwrap_err();
/// assert_eq!(error.to_string(), "a multiplier must be at least 0 and less than 2^30, got -1e0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum MultiplierError {
    /// The real multiplier has no fixed-point form.
    #[error("a multiplier must be at least 0 and less than 2^30, got {real:e}")]
    Real {
        /// What was given.
        real: f64,
    },
    /// The fixed-point multiplier or its shift is out of range.
    #[error(
        "a multiplier must be at least 0 and its shift {SHIFT_MIN} to {SHIFT_MAX}, got {multiplier} and {shift}"
    )]
    Q31 {
        /// The multiplier given.
        multiplier: i32,
        /// The shift given.
        shift: i32,
    },
    /// The multiplier is not a power of two from 2^-62 to 1.
    #[error("a multiplier applied as a shift must be a power of two from 2^-62 to 1, got {real:e}")]
    NotPowerOfTwo {
        /// What was given.
        real: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_product_is_gemmlowps() {
        let values = [i32::MIN, i32::MIN + 1, -3, -1, 0, 1, 3, 1 << 30, i32::MAX];
        for a in values {
            for b in values {
                let ab = i64::from(a) * i64::from(b);
                let nudge = if ab >= 0 { 1 << 30 } else { 1 - (1 << 30) };
                let expected =
                    if a == i32::MIN && b == a { i32::MAX } else { ((ab + nudge) / (1 << 31)) as i32 };
                assert_eq!(saturating_rounding_doubling_high_mul(a, b), expected, "{a} {b}");
            }
        }
    }

    #[test]
    fn dividing_rounds_ties_away_from_zero_at_every_exponent() {
        for x in [i32::MIN, i32::MIN + 1, -7, -6, -5, -2, -1, 0, 1, 2, 5, 6, 7, i32::MAX - 1, i32::MAX] {
            for exponent in 0..=40 {
                // This is exact in f64, and `round` takes ties away from zero.
                let expected = (f64::from(x) / f64::from(exponent).exp2()).round() as i32;
                assert_eq!(rounding_divide_by_pot(x, exponent), expected, "{x} {exponent}");
            }
            assert_eq!(rounding_divide_by_pot(x, u32::MAX), 0);
        }
    }

    #[test]
    fn real_multipliers_at_the_edges() {
        let q31 = |real| Q31Multiplier::from_real(real).map(|m| (m.multiplier(), m.shift()));
        assert_eq!(q31(0.0), Ok((0, 0)));
        assert_eq!(q31(-0.0), Ok((0, 0)));
        assert_eq!(q31(f64::from_bits(1)), Ok((0, 0)));
        assert_eq!(q31((-32_f64).exp2()), Ok((1 << 30, -31)));
        assert_eq!(q31((-32_f64).exp2().next_down()), Ok((1 << 30, -31)), "rounding carries");
        assert_eq!(q31((-33_f64).exp2()), Ok((0, 0)));
        assert_eq!(q31(1.0_f64.next_down()), Ok((1 << 30, 1)), "rounding carries");
        let below = f64::from((1 << 30) - 1);
        assert_eq!(q31(below), Ok((((1_i64 << 31) - 2) as i32, 30)));
        for bad in [f64::NAN, f64::INFINITY, -1e-300, f64::from(1 << 30), f64::from(1 << 30).next_down()] {
            assert!(q31(bad).is_err(), "{bad}");
        }
        for (multiplier, shift) in [(-1, 0), (0, 31), (0, -32), (i32::MIN, i32::MIN)] {
            let error = Q31Multiplier::new(multiplier, shift).unwrap_err();
            assert_eq!(error, MultiplierError::Q31 { multiplier, shift });
        }
    }

    #[test]
    fn nothing_overflows() {
        for x in [i32::MIN, -1, 0, 1, i32::MAX] {
            for multiplier in [0, 1, 1 << 30, i32::MAX] {
                for shift in SHIFT_MIN..=SHIFT_MAX {
                    let m = Q31Multiplier::new(multiplier, shift).unwrap();
                    let exact = f64::from(x) * m.to_f64();
                    let limits = (f64::from(i32::MIN), f64::from(i32::MAX));
                    let single = f64::from(m.multiply_single_rounding(x));
                    // One f64 rounding of a product of up to 62 bits, plus the half of the final
                    // rounding.
                    assert!((single - exact.clamp(limits.0, limits.1)).abs() <= 0.500_001, "{x} {m:?}");
                    if shift <= 0 {
                        let double = f64::from(m.multiply_double_rounding(x));
                        assert!((double - exact).abs() <= 1.0, "{x} {m:?}");
                    }
                    for z in [i32::MIN, i32::MAX] {
                        assert_eq!(requantize_double_rounding(x, m, z, -5, -5), -5);
                        assert_eq!(requantize_single_rounding(x, m, z, -5, -5), -5);
                    }
                }
            }
            assert_eq!(requantize_power_of_two(x, u32::MAX, 7, 0, 255), 7);
        }
    }

    #[test]
    fn zero_points_saturate_at_both_ends_of_i32() {
        let half = Q31Multiplier::from_real(0.5).unwrap();
        let (min, max) = (i32::MIN, i32::MAX);
        // Halves of these accumulators are 2^30, 1 and -2^30.
        for (acc, zero_point, expected) in [
            (max, max, max),
            (max, 1 << 30, max),
            (2, max, max),
            (min, min, min),
            (min, -(1 << 30) - 1, min),
            (max, min, -(1 << 30)),
        ] {
            let results = [
                requantize_double_rounding(acc, half, zero_point, min, max),
                requantize_single_rounding(acc, half, zero_point, min, max),
                requantize_power_of_two(acc, 1, zero_point, min, max),
            ];
            assert_eq!(results, [expected; 3], "half of {acc}, and {zero_point}");
        }
    }
}
