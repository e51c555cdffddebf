//! Why codes and scales do not make a [`StaticLinear`](crate::StaticLinear).

use qcore::AccumulatorError;
use qkernels::{PackError, ViewError};

/// Why codes and scales do not make a layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StaticLinearError {
    /// The layer has no inputs or no outputs.
    #[error("n = {n} outputs and k = {k} inputs; both must be at least 1")]
    Empty {
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
    },
    /// A tensor has another number of elements than the layer has channels.
    #[error("expected n = {n} entries in {tensor}, got {len}")]
    Length {
        /// Which tensor.
        tensor: &'static str,
        /// Outputs.
        n: usize,
        /// Elements given.
        len: usize,
    },
    /// The codes of the input, or of the output, are not those of u8 or i8.
    #[error("codes {min}..={max} of the {operand} are neither in u8 nor in i8")]
    Codes {
        /// Input or output.
        operand: &'static str,
        /// Smallest code.
        min: i32,
        /// Largest code.
        max: i32,
    },
    /// The zero point of the output is none of its codes: sums become codes by adding a zero point that is one.
    #[error("the zero point {zero_point} of the output is none of its codes {min}..={max}")]
    OutputZeroPoint {
        /// The zero point.
        zero_point: i32,
        /// Smallest code.
        min: i32,
        /// Largest code.
        max: i32,
    },
    /// A weight scale is 0, negative, infinite or NaN.
    #[error("weight scale {scale:e} of channel {channel} must be finite and greater than 0")]
    WeightScale {
        /// The output channel.
        channel: usize,
        /// Its scale.
        scale: f32,
    },
    /// The unit of a channel's sums is not a normal number.
    #[error(
        "channel {channel}: input scale {input_scale:e} times weight scale {weight_scale:e} is too large or too small for f32"
    )]
    SumScale {
        /// The output channel.
        channel: usize,
        /// Scale of the layer's input.
        input_scale: f32,
        /// Scale of the channel's weights.
        weight_scale: f32,
    },
    /// `input_scale * weight_scale / output_scale` overflows.
    #[error(
        "channel {channel}: the multiplier from sums of unit {sum_scale:e} to codes of scale {output_scale:e} is too large for f32"
    )]
    Multiplier {
        /// The output channel.
        channel: usize,
        /// Input scale times weight scale.
        sum_scale: f32,
        /// Scale of the next layer's input.
        output_scale: f32,
    },
    /// The sums of a channel might exceed int32.
    #[error(transparent)]
    Overflow(#[from] AccumulatorError),
    /// The weights could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The weights have another length than the shape says.
    #[error(transparent)]
    View(#[from] ViewError),
}
