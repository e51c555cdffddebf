//! Why weights have no codes that fit a layer's inputs.

use qcore::{ChannelError, GroupError, SchemeError};

/// Why there are no sums of products, no factor of them, or no codes and parameters of weights.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AccuracyError {
    /// The layer has no inputs or no outputs.
    #[error("n = {n} outputs and k = {k} inputs; both must be at least 1")]
    Empty {
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
    },
    /// There is no memory for a triangle of k columns.
    #[error("no memory for the sums of products of k = {k} inputs")]
    Memory {
        /// Inputs.
        k: usize,
    },
    /// The values are no whole number of rows.
    #[error("{len} values are no whole number of rows of k = {k} inputs")]
    Rows {
        /// Inputs.
        k: usize,
        /// Values given.
        len: usize,
    },
    /// A sum of products is infinite or NaN, because an input was.
    #[error("the sum of products of inputs {row} and {col} is not finite")]
    NotFinite {
        /// One of the inputs.
        row: usize,
        /// The other one, or the same.
        col: usize,
    },
    /// The damping is negative, infinite or NaN.
    #[error("the damping must be finite and at least 0, got {damping}")]
    Damping {
        /// What was given.
        damping: f64,
    },
    /// The sums of products have no factor, however much is added to their diagonal.
    #[error("the sums of products are not positive definite even with damping {damping:e}")]
    NotPositive {
        /// The largest that was tried.
        damping: f64,
    },
    /// There are not as many weights as the shape says.
    #[error("n = {n} outputs of k = {k} inputs need as many weights, got {len}")]
    Weights {
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
        /// Weights given.
        len: usize,
    },
    /// The sums of products are those of another number of inputs.
    #[error("the sums of products are of {sums} inputs, the weights of k = {k}")]
    Inputs {
        /// Inputs of the weights.
        k: usize,
        /// Inputs of the sums.
        sums: usize,
    },
    /// A weight is infinite or NaN.
    #[error("weight {value} of channel {channel} for input {input} is not finite")]
    Weight {
        /// The output channel.
        channel: usize,
        /// The input.
        input: usize,
        /// The weight.
        value: f32,
    },
    /// There are too few or too many parameters.
    #[error("expected {expected} parameters of channels or groups, got {got}")]
    Params {
        /// One for each channel, or one for each group of each channel.
        expected: usize,
        /// Given.
        got: usize,
    },
    /// Codes are not in i8.
    #[error("weights need codes in i8, got {min}..={max}")]
    Codes {
        /// Smallest code.
        min: i32,
        /// Largest code.
        max: i32,
    },
    /// Parameters were given for groups of inputs as they are, but the groups are to be of sorted
    /// inputs.
    #[error("parameters of groups chosen beforehand do not fit groups of sorted inputs")]
    SortedGroups,
    /// The order of the inputs has numbers of 32 bits.
    #[error("k = {k} inputs are too many to be sorted")]
    Order {
        /// Inputs.
        k: usize,
    },
    /// The weights of a group were moved out of f32 to make up for the errors of others.
    #[error("the updated weights of group {group} of channel {channel} are not finite")]
    Updated {
        /// The output channel.
        channel: usize,
        /// Its group.
        group: usize,
    },
    /// The scheme has no parameters for the updated weights of a group.
    #[error("group {group} of channel {channel}: {error}")]
    Scheme {
        /// The output channel.
        channel: usize,
        /// Its group.
        group: usize,
        /// Why.
        error: SchemeError,
    },
    /// A channel has no parameters.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A group has no parameters.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Checks that there are n * k weights, at least one of them, and that all of them are finite.
pub(crate) fn check_weights(weight: &[f32], n: usize, k: usize) -> Result<(), AccuracyError> {
    if n == 0 || k == 0 {
        return Err(AccuracyError::Empty { n, k });
    }
    if n.checked_mul(k) != Some(weight.len()) {
        return Err(AccuracyError::Weights { n, k, len: weight.len() });
    }
    match qcore::first_non_finite(weight) {
        Some((at, value)) => Err(AccuracyError::Weight { channel: at / k, input: at % k, value }),
        None => Ok(()),
    }
}
