//! The activation functions themselves, each on one value.
//!
//! They are f32 additions, multiplications, divisions and selections in the order written, so every
//! CPU gives the same bits and a loop around one becomes vector code. Which NaN comes of a NaN is
//! the CPU's choice.

use super::exponential::{LOWEST, exp_of_sum};

/// `max(y, 0)`: 0 for values below 0, any other value as it is, NaN and -0.0 too.
#[inline(always)]
pub(super) fn relu(y: f32) -> f32 {
    if y < 0.0 { 0.0 } else { y }
}

/// `min` for values below it, `max` for values above it, any other value as it is, NaN too.
#[inline(always)]
pub(super) fn clamp(y: f32, min: f32, max: f32) -> f32 {
    let y = if y < min { min } else { y };
    if y > max { max } else { y }
}

/// `y * slope` for values below 0, any other value as it is, NaN too.
///
/// A slope of 0 is [`relu`], and gives 0 for -inf as well.
#[inline(always)]
pub(super) fn leaky_relu(y: f32, slope: f32) -> f32 {
    // The comparison of the slope leaves a loop.
    let below = if slope == 0.0 { 0.0 } else { y * slope };
    if y < 0.0 { below } else { y }
}

/// `y * Phi(y)` with the distribution function `Phi` of the normal distribution: GELU in its exact
/// form, `y * (1 + erf(y / sqrt(2))) / 2`.
///
/// `Phi(-a)` is computed as `exp(-a^2 / 2)` times a polynomial, so that small results have small
/// errors. +inf stays, -inf becomes -0.0, NaN stays NaN.
#[inline(always)]
pub(super) fn gelu(y: f32) -> f32 {
    /// Phi(-15) is 0 in f32.
    const FAR: f32 = 15.0;
    let y = if y < -FAR { -FAR } else { y };
    let a = y.abs();
    let a = if a < FAR { a } else { FAR };
    // a = high + low with twelve significant bits in the first, so that its square is exact.
    let high = f32::from_bits(a.to_bits() & 0xffff_f000);
    let exp = exp_of_sum(-0.5 * (high * high), -0.5 * ((a - high) * (a + high)));
    let below = exp * mills(a);
    let phi = if y < 0.0 { below } else { 1.0 - below };
    y * phi
}

/// `Phi(-a) * exp(a^2 / 2)` for a from 0 to 15.
#[inline(always)]
fn mills(a: f32) -> f32 {
    /// In powers of `t = 3 / (3 + a)`, from the constant term up. Found by Remez's algorithm in 30
    /// digits: the least relative error of this degree, 1.1e-8 before rounding to f32. The 3 is the
    /// best of 2, 3, 4 and 5.
    #[expect(clippy::excessive_precision, reason = "as the fit gave them")]
    const COEFFICIENTS: [f32; 10] = [
        4.980_933_68e-6,
        0.132_841_077,
        0.134_676_134,
        0.106_498_628,
        0.139_423_873,
        -0.094_313_824_9,
        0.273_811_733,
        -0.316_652_009,
        0.150_679_766,
        -0.026_970_351_8,
    ];
    let t = 3.0 / (3.0 + a);
    let [rest @ .., last] = COEFFICIENTS;
    rest.iter().rev().fold(last, |sum, c| sum * t + c)
}

/// GELU's approximation by tanh, `y * (1 + tanh(sqrt(2 / pi) * (y + 0.044715 * y^3))) / 2`, which
/// is a function of its own: it differs from [`gelu`] by up to 4.8e-4. Computed as
/// `y * sigmoid(2 * sqrt(2 / pi) * (y + 0.044715 * y^3))`.
///
/// +inf stays, -inf becomes -0.0, NaN stays NaN.
#[inline(always)]
pub(super) fn gelu_tanh(y: f32) -> f32 {
    /// The sigmoid is 0 in f32 below -11, and 1 above.
    const FAR: f32 = 11.0;
    /// 2 * sqrt(2 / pi), and 0.044715 times that.
    #[expect(clippy::excessive_precision, reason = "more digits than f32 has")]
    const LINEAR: f32 = 1.595_769_121_6;
    #[expect(clippy::excessive_precision, reason = "more digits than f32 has")]
    const CUBIC: f32 = 0.071_354_816_27;
    let y = if y < -FAR { -FAR } else { y };
    let a = y.abs();
    let a = if a < FAR { a } else { FAR };
    times_sigmoid(y, a * (LINEAR + CUBIC * (a * a)))
}

/// `y * sigmoid(y) = y / (1 + exp(-y))`: SiLU, also called swish.
///
/// +inf stays, -inf becomes -0.0, NaN stays NaN.
#[inline(always)]
pub(super) fn silu(y: f32) -> f32 {
    let y = if y < LOWEST { LOWEST } else { y };
    let a = y.abs();
    let a = if a < -LOWEST { a } else { -LOWEST };
    times_sigmoid(y, a)
}

/// `y * sigmoid(x)`, where x is `argument` with the sign of y.
#[inline(always)]
fn times_sigmoid(y: f32, argument: f32) -> f32 {
    // Of exp(-x) and exp(x) always the small one: neither overflows, and small results keep their
    // digits.
    let exp = exp_of_sum(-argument, 0.0);
    let numerator = if y < 0.0 { exp } else { 1.0 };
    y * numerator / (1.0 + exp)
}

/// `y * (min(max(y + 3, 0), 6) / 6)`: hard-swish.
///
/// 0 up to -3, y itself from 3 on, also for infinities; NaN stays NaN.
#[inline(always)]
pub(super) fn hard_swish(y: f32) -> f32 {
    let y = if y < -3.0 { -3.0 } else { y };
    y * (clamp(y + 3.0, 0.0, 6.0) / 6.0)
}
