//! The activation functions, each applied to one value.
//!
//! They consist of f32 additions, multiplications, divisions and selections in the order written.
//! Every CPU therefore gives the same bits, and a loop around a function becomes vector code. Only
//! the bits of a NaN depend on the CPU.

use super::exponential::{LOWEST, exp_of_sum};

/// `max(y, 0)`: values below 0 become 0. All others, including NaN and -0.0, are returned
/// unchanged.
#[inline(always)]
pub(super) fn relu(y: f32) -> f32 {
    if y < 0.0 { 0.0 } else { y }
}

/// Values below `min` become `min`, values above `max` become `max`. All others, including NaN, are
/// returned unchanged.
#[inline(always)]
pub(super) fn clamp(y: f32, min: f32, max: f32) -> f32 {
    let y = if y < min { min } else { y };
    if y > max { max } else { y }
}

/// Values below 0 are multiplied by `slope`. All others, including NaN, are returned unchanged.
///
/// With a slope of 0 this is [`relu`], also for -inf.
#[inline(always)]
pub(super) fn leaky_relu(y: f32, slope: f32) -> f32 {
    // The compiler moves this comparison out of a loop.
    let below = if slope == 0.0 { 0.0 } else { y * slope };
    if y < 0.0 { below } else { y }
}

/// `y * Phi(y)`, where `Phi` is the distribution function of the normal distribution. This is the
/// exact form of GELU, `y * (1 + erf(y / sqrt(2))) / 2`.
///
/// `Phi(-a)` is computed as `exp(-a^2 / 2)` times a polynomial, so small results have small errors.
/// +inf stays +inf, -inf becomes -0.0, NaN stays NaN.
#[inline(always)]
pub(super) fn gelu(y: f32) -> f32 {
    /// Phi(-15) rounds to 0 in f32.
    const FAR: f32 = 15.0;
    let y = if y < -FAR { -FAR } else { y };
    let a = y.abs();
    let a = if a < FAR { a } else { FAR };
    // a = high + low. `high` has twelve significant bits, so its square is exact.
    let high = f32::from_bits(a.to_bits() & 0xffff_f000);
    let exp = exp_of_sum(-0.5 * (high * high), -0.5 * ((a - high) * (a + high)));
    let below = exp * mills(a);
    let phi = if y < 0.0 { below } else { 1.0 - below };
    y * phi
}

/// `Phi(-a) * exp(a^2 / 2)` for a from 0 to 15.
#[inline(always)]
fn mills(a: f32) -> f32 {
    /// The coefficients of the powers of `t = 3 / (3 + a)`, starting with the constant. They were
    /// found by Remez's algorithm in 30 digits, and have the least relative error of any polynomial
    /// of this degree: 1.1e-8 before they are rounded to f32. The constant 3 gave the smallest
    /// error of 2, 3, 4 and 5.
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

/// GELU's approximation by tanh, `y * (1 + tanh(sqrt(2 / pi) * (y + 0.044715 * y^3))) / 2`. It is a
/// function of its own, which differs from [`gelu`] by up to 4.8e-4. It is computed as
/// `y * sigmoid(2 * sqrt(2 / pi) * (y + 0.044715 * y^3))`.
///
/// +inf stays +inf, -inf becomes -0.0, NaN stays NaN.
#[inline(always)]
pub(super) fn gelu_tanh(y: f32) -> f32 {
    /// In f32 the sigmoid rounds to 0 below -11 and to 1 above 11.
    const FAR: f32 = 11.0;
    /// 2 * sqrt(2 / pi), and that times 0.044715.
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
/// +inf stays +inf, -inf becomes -0.0, NaN stays NaN.
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
    // Only the exponential of a negative number is needed. It does not overflow, and small results
    // keep their digits.
    let exp = exp_of_sum(-argument, 0.0);
    let numerator = if y < 0.0 { exp } else { 1.0 };
    y * numerator / (1.0 + exp)
}

/// `y * (min(max(y + 3, 0), 6) / 6)`: hard-swish.
///
/// The result is 0 for y <= -3 and y itself for y >= 3, also for infinities. NaN stays NaN.
#[inline(always)]
pub(super) fn hard_swish(y: f32) -> f32 {
    let y = if y < -3.0 { -3.0 } else { y };
    y * (clamp(y + 3.0, 0.0, 6.0) / 6.0)
}
