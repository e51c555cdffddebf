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
//! Where a real value `mw`, the minimum of ggml's formats, is added to each scaled weight of a
//! group,
//!
//! ```text
//! t_g = (sa * sw) * f32(sum_g) + (sa * mw) * f32(sum of (a - za) over the group)
//! ```
//!
//! A group in parts, each with an integer that multiplies the scale and perhaps one that multiplies
//! the minimum, has one term as well: both of its sums are those of the parts times these integers,
//! exact in int32.
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

/// The term of a group whose weights have a minimum besides their scale: [`group_term`] and
/// `(sa * mw) * f32(activation_sum)`.
///
/// ```
/// // Activations 100 and 50, weights 0.25 * 2 - 1 and 0.25 * 4 - 1.
/// assert_eq!(qcore::group_term_with_minimum(0.5, 0.25, 100 * 2 + 50 * 4, -1.0, 100 + 50), -25.0);
/// ```
#[inline(always)]
#[must_use]
pub fn group_term_with_minimum(
    activation_scale: f32,
    weight_scale: f32,
    sum: i32,
    minimum: f32,
    activation_sum: i32,
) -> f32 {
    group_term(activation_scale, weight_scale, sum) + (activation_scale * minimum) * activation_sum as f32
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
