//! Compensation of zero points in integers, and the proof that an int32 accumulator does not
//! overflow.
//!
//! With `za` the zero point of the activations and `zb` that of the weights,
//!
//! ```text
//! sum_k (a[k] - za) * (b[k] - zb) = sum_k a[k] * b[k] - za * sum_k b[k] - zb * sum_k a[k] + K * za * zb
//! ```
//!
//! A kernel therefore multiplies the codes as they are, and the sums of rows and columns supply the
//! rest. If the weights are symmetric (`zb = 0`), `za * sum_k b[k]` is folded into the bias once,
//! ahead of time.

use thiserror::Error;

use crate::code::Code;

/// The sum of codes: `sum_k b[k]`, exact for any length that fits in memory.
///
/// ```
/// assert_eq!(qcore::code_sum(&[-128_i8, -128, 1]), -255);
/// ```
#[must_use]
pub fn code_sum<C: Code>(codes: &[C]) -> i64 {
    // Partial sums of at most 2^16 codes fit i32, so their loop is vectorized. The total needs i64.
    codes.chunks(1 << 16).map(|chunk| i64::from(chunk.iter().map(|c| c.widen()).sum::<i32>())).sum()
}

/// The sum of magnitudes: `sum_k |b[k] - zero_point|`, for [`check_accumulator`].
///
/// ```
/// assert_eq!(qcore::code_abs_sum(&[-128_i8, 127, 0], 0), 255);
/// ```
#[must_use]
pub fn code_abs_sum<C: Code>(codes: &[C], zero_point: i32) -> u64 {
    codes.iter().map(|c| u64::from(c.widen().abs_diff(zero_point))).sum()
}

/// `bias - za * sum_w`: the bias that includes the correction for the zero point of the
/// activations.
///
/// # Errors
/// When the result does not fit i32.
///
/// ```
/// assert_eq!(qcore::fold_zero_point(10, -3, 100), Ok(310));
/// assert!(qcore::fold_zero_point(i32::MAX, -1, 1).is_err());
/// ```
pub fn fold_zero_point(bias: i32, za: i32, sum_w: i64) -> Result<i32, CompensateError> {
    let exact = i128::from(bias) - i128::from(za) * i128::from(sum_w);
    i32::try_from(exact).map_err(|_| CompensateError { value: exact })
}

/// [`fold_zero_point`] for each output channel.
///
/// # Errors
/// When the lengths differ, or one channel's result does not fit i32: the error names the channel.
///
/// ```
/// assert_eq!(qcore::fold_zero_points(&[0, 5], 2, &[1, -1])?, [-2, 7]);
/// # Ok::<(), qcore::FoldError>(())
/// ```
pub fn fold_zero_points(bias: &[i32], za: i32, sum_w: &[i64]) -> Result<Vec<i32>, FoldError> {
    if bias.len() != sum_w.len() {
        return Err(FoldError::Length { bias: bias.len(), sums: sum_w.len() });
    }
    let fold = |(channel, (&b, &s)): (usize, (&i32, &i64))| {
        fold_zero_point(b, za, s).map_err(|error| FoldError::Channel { channel, error })
    };
    bias.iter().zip(sum_w).enumerate().map(fold).collect()
}

/// [`fold_zero_points`] for weights that have zero points too: `bias - za * sum_w + k * za * zb`.
/// The remaining term of each row is `-zb * sum_a`, where `sum_a` is the sum of the row's
/// activation codes.
///
/// # Errors
/// When the lengths differ, or one channel's result does not fit i32: the error names the channel.
///
/// ```
/// // a = [1, 2], za = 1, b = [3, 5], zb = 2: (0 * 1) + (1 * 3)
/// let folded = qcore::fold_affine_zero_points(&[0], 1, 2, &[2], &[3 + 5])?;
/// assert_eq!(folded[0] + (1 * 3 + 2 * 5) - 2 * (1 + 2), 3);
/// # Ok::<(), qcore::FoldError>(())
/// ```
pub fn fold_affine_zero_points(
    bias: &[i32],
    za: i32,
    k: usize,
    zb: &[i32],
    sum_w: &[i64],
) -> Result<Vec<i32>, FoldError> {
    for sums in [sum_w.len(), zb.len()] {
        if bias.len() != sums {
            return Err(FoldError::Length { bias: bias.len(), sums });
        }
    }
    let fold = |(channel, ((&bias, &zb), &sum_w)): (usize, ((&i32, &i32), &i64))| {
        let [bias, za, zb, sum_w] = [bias.into(), za.into(), zb.into(), i128::from(sum_w)];
        // `k` fits 64 bits and each zero point fits 32, so the product needs at most 126.
        let exact = bias - za * sum_w + k as i128 * za * zb;
        let fitting = i32::try_from(exact).map_err(|_| CompensateError { value: exact });
        fitting.map_err(|error| FoldError::Channel { channel, error })
    };
    bias.iter().zip(zb).zip(sum_w).enumerate().map(fold).collect()
}

/// What [`compensate`] needs to know of the two operands of an accumulator.
///
/// `zb` and `sum_b` belong to one output channel (per tensor, they are the same for all channels),
/// and `sum_a` to one row of activations.
///
/// ```
/// use qcore::{ZeroPointTerms, compensate};
///
/// // Symmetric weights need no sum of the activations: 13 - 1 * 8.
/// let terms = ZeroPointTerms { k: 2, za: 1, sum_b: 8, ..ZeroPointTerms::default() };
/// assert_eq!(compensate(13, terms), Ok(5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroPointTerms {
    /// The number of products summed.
    pub k: usize,
    /// The zero point of the activations.
    pub za: i32,
    /// The zero point of the weights.
    pub zb: i32,
    /// The sum of the row of activation codes.
    pub sum_a: i32,
    /// The sum of the channel of weight codes.
    pub sum_b: i32,
}

/// `sum_ab - za * sum_b - zb * sum_a + k * za * zb`, which is `sum_k (a[k] - za) * (b[k] - zb)`.
///
/// # Errors
/// When the result does not fit i32. Intermediate steps cannot overflow.
///
/// ```
/// use qcore::{ZeroPointTerms, compensate};
///
/// // a = [1, 2], za = 1, b = [3, 5], zb = 2: (0 * 1) + (1 * 3)
/// let terms = ZeroPointTerms { k: 2, za: 1, zb: 2, sum_a: 3, sum_b: 8 };
/// assert_eq!(compensate(1 * 3 + 2 * 5, terms), Ok(3));
/// ```
pub fn compensate(sum_ab: i32, terms: ZeroPointTerms) -> Result<i32, CompensateError> {
    let ZeroPointTerms { k, za, zb, sum_a, sum_b } = terms;
    let [k, za, zb, sum_a, sum_b] = [k as i128, za.into(), zb.into(), sum_a.into(), sum_b.into()];
    let exact = i128::from(sum_ab) - za * sum_b - zb * sum_a + k * za * zb;
    i32::try_from(exact).map_err(|_| CompensateError { value: exact })
}

/// [`compensate`] modulo 2^32, for inner loops. It equals `compensate` whenever that succeeds,
/// because sums and products modulo 2^32 are exact modulo 2^32. [`check_accumulator`] proves that
/// it succeeds.
///
/// ```
/// use qcore::{ZeroPointTerms, compensate, compensate_wrapping};
///
/// let terms = ZeroPointTerms { k: 2, za: 1, zb: 2, sum_a: 3, sum_b: 8 };
/// assert_eq!(Ok(compensate_wrapping(13, terms)), compensate(13, terms));
/// ```
#[inline(always)]
#[must_use]
pub fn compensate_wrapping(sum_ab: i32, terms: ZeroPointTerms) -> i32 {
    let ZeroPointTerms { k, za, zb, sum_a, sum_b } = terms;
    let correction = za.wrapping_mul(sum_b).wrapping_add(zb.wrapping_mul(sum_a));
    sum_ab.wrapping_sub(correction).wrapping_add((k as i32).wrapping_mul(za).wrapping_mul(zb))
}

/// Proves that the accumulator of a channel fits i32 for any activations:
/// `largest_a * sum_abs_w + |bias| <= i32::MAX`.
///
/// `largest_a` is the largest `|a - za|` (see
/// [`CodeRange::largest_distance`](crate::CodeRange::largest_distance)), `sum_abs_w` is the sum of
/// `|w - zb|` (see [`code_abs_sum`]), and `bias` is the bias before the zero point is folded in.
/// The mathematical result then fits; partial sums of uncorrected products may wrap on the way and
/// wrap back.
///
/// # Errors
/// When the bound exceeds `i32::MAX`. The error has the channel and the bound.
///
/// ```
/// assert!(qcore::check_accumulator(0, 255, 784 * 127, 1000).is_ok());
/// let error = qcore::check_accumulator(7, 255, 65_794 * 128, 0).unwrap_err();
/// assert_eq!(error.to_string(), "channel 7: the accumulator can reach 2147516160, more than 2147483647");
/// ```
pub fn check_accumulator(
    channel: usize,
    largest_a: u32,
    sum_abs_w: u64,
    bias: i32,
) -> Result<(), AccumulatorError> {
    let bound = u128::from(largest_a) * u128::from(sum_abs_w) + u128::from(bias.unsigned_abs());
    match bound <= u128::from(i32::MAX.unsigned_abs()) {
        true => Ok(()),
        false => Err(AccumulatorError { channel, bound }),
    }
}

/// A compensated sum that does not fit 32 bits.
///
/// ```
/// let error = qcore::fold_zero_point(i32::MAX, -1, 1).unwrap_err();
/// assert_eq!(error.to_string(), "the compensated sum 2147483648 does not fit 32 bits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the compensated sum {value} does not fit 32 bits")]
#[non_exhaustive]
pub struct CompensateError {
    /// The sum that does not fit.
    pub value: i128,
}

/// Why zero points cannot be folded into the biases of a layer.
///
/// ```
/// let error = qcore::fold_zero_points(&[0, i32::MAX], -1, &[0, 1]).unwrap_err();
/// assert_eq!(error.to_string(), "channel 1: the compensated sum 2147483648 does not fit 32 bits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FoldError {
    /// There are more or fewer sums than biases.
    #[error("{bias} biases need as many sums of weights, got {sums}")]
    Length {
        /// The number of biases.
        bias: usize,
        /// The number of sums.
        sums: usize,
    },
    /// One channel's result does not fit.
    #[error("channel {channel}: {error}")]
    Channel {
        /// Which.
        channel: usize,
        /// Why.
        error: CompensateError,
    },
}

/// The error for an accumulator that could overflow.
///
/// ```
/// let error = qcore::check_accumulator(3, 255, 1 << 24, 0).unwrap_err();
/// assert_eq!((error.channel, error.bound), (3, 255 << 24));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("channel {channel}: the accumulator can reach {bound}, more than {}", i32::MAX)]
#[non_exhaustive]
pub struct AccumulatorError {
    /// The output channel.
    pub channel: usize,
    /// The largest magnitude that the accumulator can reach.
    pub bound: u128,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeRange;

    #[test]
    fn sums_do_not_overflow() {
        assert_eq!(code_sum(&vec![-128_i8; 20_000_000]), -2_560_000_000);
        assert_eq!(code_abs_sum(&vec![255_u8; 20_000_000], 0), 5_100_000_000);
        assert_eq!(code_abs_sum(&[0_u8, 255], i32::MIN), 2 * (1 << 31) + 255);
    }

    #[test]
    fn folding_is_exact_to_the_edge_of_i32() {
        assert_eq!(fold_zero_point(i32::MAX, 1, 0), Ok(i32::MAX));
        assert_eq!(fold_zero_point(-1, 1, i64::from(i32::MAX)), Ok(i32::MIN));
        assert_eq!(fold_zero_point(-2, 1, i64::from(i32::MAX)).unwrap_err().value, -2_147_483_649);
        assert!(fold_zero_point(0, i32::MIN, i64::MIN).is_err());
        assert!(matches!(fold_zero_points(&[1], 0, &[]), Err(FoldError::Length { .. })));
        let error = fold_zero_points(&[0, i32::MIN], 1, &[0, 1]).unwrap_err();
        assert_eq!(error.to_string(), "channel 1: the compensated sum -2147483649 does not fit 32 bits");
    }

    #[test]
    fn folding_both_zero_points_leaves_the_row_sums() {
        let (a, b) = ([3_i8, -128, 77], [-128_i8, 127, 5]);
        for za in [-128, 0, 127] {
            for zb in [-128, 0, 9] {
                let sum_ab: i32 = a.iter().zip(&b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
                let (sum_a, sum_b) = (code_sum(&a) as i32, code_sum(&b));
                let folded = fold_affine_zero_points(&[7], za, 3, &[zb], &[sum_b]).unwrap()[0];
                let terms = ZeroPointTerms { k: 3, za, zb, sum_a, sum_b: sum_b as i32 };
                assert_eq!(folded + sum_ab - zb * sum_a, compensate(sum_ab, terms).unwrap() + 7);
            }
        }
        let min = i32::MIN;
        assert!(fold_affine_zero_points(&[0], min, usize::MAX, &[min], &[i64::MIN]).is_err());
        assert!(fold_affine_zero_points(&[0], 0, 0, &[], &[0]).is_err());
    }

    #[test]
    fn compensation_has_no_overflow_on_the_way() {
        let terms =
            ZeroPointTerms { k: usize::MAX, za: i32::MIN, zb: i32::MIN, sum_a: i32::MIN, sum_b: i32::MIN };
        assert!(compensate(i32::MIN, terms).is_err());
        let _ = compensate_wrapping(i32::MIN, terms);
        // Terms beyond i32 that cancel.
        let terms = ZeroPointTerms { k: 1 << 20, za: -128, zb: -128, sum_a: -128 << 20, sum_b: -128 << 20 };
        let sum_ab = ((128_i64 * 128) << 20) as i32; // what a wrapping accumulator holds
        assert_eq!(compensate_wrapping(sum_ab, terms), 0);
    }

    #[test]
    fn documented_limits_of_k() {
        let largest = |codes: CodeRange| codes.largest_distance(0);
        let bound = |a, k: u64| check_accumulator(0, a, k * 128, 0);
        assert!(
            bound(largest(CodeRange::I8), 131_071).is_ok() && bound(largest(CodeRange::I8), 131_072).is_err()
        );
        assert!(
            bound(largest(CodeRange::U8), 65_793).is_ok() && bound(largest(CodeRange::U8), 65_794).is_err()
        );
        assert!(check_accumulator(0, 0, 0, i32::MAX).is_ok());
        assert!(check_accumulator(0, 0, 0, i32::MIN).is_err());
        assert!(check_accumulator(0, u32::MAX, u64::MAX, i32::MIN).is_err());
    }
}
