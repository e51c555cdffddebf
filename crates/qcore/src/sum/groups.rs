//! Products of weights that have a scale for each group of consecutive k.
//!
//! With `a` and `w` the codes, `za` and `zw` their zero points, `sa` the scale of the activations
//! and `sw` that of the group's weights,
//!
//! ```text
//! sum_g = sum of (a - za) * (w - zw) over the group       exact, in int32
//! t_g = (sa * sw) * f32(sum_g)                            the conversion rounds to nearest, ties to even
//! y = t_0, then y = y + t_g for each following group      0 without a group
//! ```
//!
//! Everything after the sums is f32, with one rounding for each operation that is written here, in
//! this order. So y has the same bits on every CPU. With a single group it is the usual
//! dequantization of a sum. Bias and activation function follow.

/// The term of one group in a product: `(sa * sw) * f32(sum)`.
///
/// ```
/// assert_eq!(qcore::group_term(0.5, -0.25, 100), -12.5);
/// ```
#[inline(always)]
#[must_use]
pub fn group_term(activation_scale: f32, weight_scale: f32, sum: i32) -> f32 {
    (activation_scale * weight_scale) * sum as f32
}

/// The sum of the terms of all groups, in their order; 0 without a group.
///
/// ```
/// // The order counts: the other way round the sum is 0.
/// assert_eq!(qcore::sum_group_terms([1e8, -1e8, 1.0]), 1.0);
/// assert_eq!(qcore::sum_group_terms([]), 0.0);
/// ```
#[must_use]
pub fn sum_group_terms(terms: impl IntoIterator<Item = f32>) -> f32 {
    terms.into_iter().reduce(|sum, term| sum + term).unwrap_or(0.0)
}
