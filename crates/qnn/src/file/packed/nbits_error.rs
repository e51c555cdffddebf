//! Why operands of `MatMulNBits` do not make a layer.

use super::input_groups::InputGroupError;
use crate::layer::float::FloatLinearError;
use crate::layer::layer_error::LayerError;

/// Why operands of `MatMulNBits` do not make a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NBitsError {
    /// Codes have other bits than are read.
    #[error("layer {layer:?}: codes of {bits} bits; those of 4 and 8 are read")]
    Bits {
        /// The layer.
        layer: String,
        /// The bits stated.
        bits: u32,
    },
    /// Blocks cannot be this long.
    #[error("layer {layer:?}: blocks of {block_size}; their length must be a power of two, and 16 at least")]
    BlockSize {
        /// The layer.
        layer: String,
        /// The length stated.
        block_size: usize,
    },
    /// An operand has another length than the shape says.
    #[error("layer {layer:?}: {operand} has {got} elements, expected {expected}")]
    Length {
        /// The layer.
        layer: String,
        /// `"B"`, `"scales"`, `"zero_points"`, `"g_idx"` or `"bias"`, as ONNX Runtime names them.
        operand: &'static str,
        /// Elements that the shape asks for, which `usize` may not count.
        expected: u128,
        /// Elements given.
        got: usize,
    },
    /// A zero point is a float that is not finite.
    #[error(
        "layer {layer:?}: the zero point of block {block} of channel {channel} is {zero_point}; it must be finite"
    )]
    ZeroPoint {
        /// The layer.
        layer: String,
        /// The output channel.
        channel: usize,
        /// Its block.
        block: usize,
        /// The zero point.
        zero_point: f32,
    },
    /// Inputs are in groups that are not the blocks.
    #[error("layer {layer:?}: g_idx: {error}")]
    InputGroups {
        /// The layer.
        layer: String,
        /// Why.
        error: InputGroupError,
    },
    /// Floats do not make a layer.
    #[error(transparent)]
    Float(#[from] FloatLinearError),
    /// Codes and scales do not make a layer.
    #[error("layer {layer:?}: {error}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        error: LayerError,
    },
}
