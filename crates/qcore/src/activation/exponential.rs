//! The exponential of numbers that are not positive, by f32 additions and multiplications.

use crate::value::round_small;

/// The lowest argument that [`exp_of_sum`] takes. The result is 0 in f32 long before.
pub(super) const LOWEST: f32 = -120.0;

/// ln 2 in two parts. The first has nine significant bits, so its product with an integer of eight
/// bits is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
#[expect(clippy::excessive_precision, reason = "the digits of ln 2 - 355/512")]
const LN_2_LOW: f32 = -2.121_944_400_5e-4;

/// The coefficients of `(exp(r) - 1 - r) / r^2` for `|r| <= ln(2) / 2`, starting with the constant.
///
/// They were found by Remez's algorithm in 40 digits, and give the exponential the least relative
/// error of any polynomial of this degree: 3.1e-9 before they are rounded to f32.
#[expect(clippy::excessive_precision, reason = "as the fit gave them")]
const COEFFICIENTS: [f32; 5] =
    [0.499_999_934_317, 0.166_665_203_972, 0.041_668_390_880_8, 0.008_368_745_283_89, 0.001_381_453_561_4];

/// `exp(high + low)`. The sum must lie between [`LOWEST`] and 0, and `low` must be small beside
/// `high`. NaN stays NaN.
///
/// An absolute error in the argument is a relative error in the result, so two floats as the
/// argument keep digits that one would lose. If `low` is 0, the relative error is below 1.3e-7.
/// Results below 2^-126 are subnormal and have fewer digits.
#[inline(always)]
pub(super) fn exp_of_sum(high: f32, low: f32) -> f32 {
    // exp(x) = 2^n * exp(r), where x = n * ln(2) + r.
    let (n, power) = round_small((high + low) * core::f32::consts::LOG2_E);
    let r = ((high - n * LN_2_HIGH) - n * LN_2_LOW) + low;
    let [c0, c1, c2, c3, c4] = COEFFICIENTS;
    let tail = (((c4 * r + c3) * r + c2) * r + c1) * r + c0;
    let exp_r = 1.0 + (r + r * r * tail);
    // 2^n is applied in two factors, because n reaches -174 and the exponent of a normal f32 only
    // -126. For NaN the factor is arbitrary, and the product stays NaN.
    const SHIFT: i32 = 64;
    const UNSHIFT: f32 = 1.0 / (1_u128 << SHIFT) as f32;
    let scale = f32::from_bits((power.wrapping_add(127 + SHIFT) << 23) as u32);
    exp_r * scale * UNSHIFT
}
