//! Whole tensors to codes and back: one scale for all, for each channel, or for each group.

mod channel_error;
mod channels;
mod groups;
mod quantize;

pub use channel_error::{AxisError, ChannelError};
pub(crate) use channels::map_channels;
pub use channels::{
    ChannelAxis, channel_params, channel_ranges, dequantize_per_channel, dequantize_per_channel_into,
    fake_quantize_per_channel, quantize_per_channel, quantize_per_channel_from, quantize_per_channel_in_f16,
    quantize_per_channel_strict,
};
pub use groups::{GroupError, Groups, dequantize_per_group, group_params, quantize_per_group};
pub(crate) use quantize::check_codes;
pub use quantize::{
    LengthError, QuantizeError, TensorError, dequantize_into, dequantize_slice, fake_quantize_slice,
    quantize_from, quantize_slice, quantize_slice_strict, quantize_tensor,
};
