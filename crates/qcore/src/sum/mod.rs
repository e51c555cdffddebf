//! Sums of products: zero points, biases, and whether int32 is wide enough.

mod bias;
mod bias_scale;
mod compensate;
mod groups;

pub use bias::{
    BiasError, BiasesError, quantize_bias, quantize_bias_clamped, quantize_biases, quantize_biases_clamped,
};
pub use bias_scale::{FittedScale, NoFittingScale, WeightChannel};
pub use compensate::{
    AccumulatorError, CompensateError, FoldError, ZeroPointTerms, check_accumulator, code_abs_sum, code_sum,
    compensate, compensate_wrapping, fold_affine_zero_points, fold_zero_point, fold_zero_points,
};
pub use groups::{group_term, group_term_with_minimum, sum_group_terms};
