//! Why a layer has no quantized form, whatever the form.

use qcore::{
    AccumulatorError, ActivationError, BiasError, ChannelError, GroupError, NoFittingScale, ParamError,
};
use qkernels::{DynamicError, InputScaleError, PackError, ScaleError, ViewError};

/// Why codes and scales do not make a layer, or an f32 layer has no codes and scales.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
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
    /// The codes of the input, the activations or the output fit neither u8 nor i8.
    #[error("codes {min}..={max} of the {operand} are neither in u8 nor in i8")]
    Codes {
        /// Input, activations or output.
        operand: &'static str,
        /// Smallest code.
        min: i32,
        /// Largest code.
        max: i32,
    },
    /// The scheme's codes of weights are not in i8.
    #[error("weights need codes in i8, got {min}..={max}")]
    WeightCodes {
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
    /// The scale of a group of weights is 0, negative, infinite or NaN.
    #[error("weight scale {scale:e} of group {group} of channel {channel} must be finite and greater than 0")]
    GroupScale {
        /// The output channel.
        channel: usize,
        /// Its group.
        group: usize,
        /// The group's scale.
        scale: f32,
    },
    /// The scheme puts a zero point where no code is, as `AffineRange::AsObservedDistantZero` may.
    #[error("weights: the zero point {zero_point} of channel {channel} is no i8")]
    ZeroPoint {
        /// The output channel.
        channel: usize,
        /// Its zero point.
        zero_point: i32,
    },
    /// The scheme puts the zero point of a group where no code is.
    #[error("weights: the zero point {zero_point} of group {group} of channel {channel} is no i8")]
    GroupZeroPoint {
        /// The output channel.
        channel: usize,
        /// Its group.
        group: usize,
        /// Its zero point.
        zero_point: i32,
    },
    /// The zero point of the output is none of its codes: sums become codes by adding a zero point
    /// that is one.
    #[error("the zero point {zero_point} of the output is none of its codes {min}..={max}")]
    OutputZeroPoint {
        /// The zero point.
        zero_point: i32,
        /// Smallest code.
        min: i32,
        /// Largest code.
        max: i32,
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
    /// A bound or the slope of the activation function is unusable.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// A bias is infinite or NaN.
    #[error("the bias of channel {channel} is {bias}; it must be finite")]
    Bias {
        /// The output channel.
        channel: usize,
        /// Its bias.
        bias: f32,
    },
    /// A bias has no int32 form.
    #[error("channel {channel}: {error}")]
    Int32Bias {
        /// The output channel.
        channel: usize,
        /// Why.
        error: BiasError,
    },
    /// No weight scale, however large, makes the bias and the sums of a channel fit int32.
    #[error("channel {channel}: {error}")]
    NoScale {
        /// The output channel.
        channel: usize,
        /// The scale that the weights ask for, and the bias.
        error: NoFittingScale,
    },
    /// A raised weight scale has no parameters.
    #[error("channel {channel}: {error}")]
    Params {
        /// The output channel.
        channel: usize,
        /// Why.
        error: ParamError,
    },
    /// Weights of 4 bits in a static layer.
    #[error("weights of 4 bits are for dynamic and weight-only layers")]
    FourBits,
    /// Weights in groups in a static layer.
    #[error(
        "groups of {group_len} along k are for dynamic and weight-only layers; static ones have a scale for each channel"
    )]
    Groups {
        /// The length of the groups.
        group_len: usize,
    },
    /// The weights of a channel have no codes.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The weights of a group have no codes.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// No kernel multiplies groups of this length, or a scale is not finite.
    #[error(transparent)]
    Scale(#[from] ScaleError),
    /// An input scale has not one value for each input, or one of them is not finite and greater
    /// than 0.
    #[error(transparent)]
    InputScale(#[from] InputScaleError),
    /// The weights have not the groups that activations have, or these can have no such groups.
    #[error(transparent)]
    Activations(#[from] DynamicError),
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
