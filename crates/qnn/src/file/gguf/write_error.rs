//! Why a GGUF file could not be written.

use qcore::BlockError;

use super::error::GgufError;
use super::tensor_type::GgufType;
use crate::config::form::Form;

/// Why a GGUF file could not be written, or a tensor of it not replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufWriteError {
    /// The source has no tensor of this name.
    #[error("tensor {tensor:?} is not in the source")]
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor was replaced before.
    #[error("tensor {tensor:?} was replaced before")]
    Twice {
        /// The tensor.
        tensor: String,
    },
    /// The source's tensor has another shape.
    #[error("tensor {tensor:?} has shape {expected:?} in the source, its replacement ({n}, {k})")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape of the source's.
        expected: Vec<usize>,
        /// Output channels of the replacement.
        n: usize,
        /// Its inputs.
        k: usize,
    },
    /// The layer has no codes, or an input of fixed scale.
    #[error("layer {layer:?} is {form}; dynamic and weight-only layers can be written")]
    Form {
        /// The layer.
        layer: String,
        /// Its form.
        form: Form,
    },
    /// The layer has a bias and the source has none, or the other way round.
    #[error("tensor {tensor:?} is {} in the source, and the layer has {} bias",
        if *.in_source { "there" } else { "not" }, if *.in_source { "no" } else { "a" })]
    Bias {
        /// The tensor of the bias.
        tensor: String,
        /// Whether the source has it.
        in_source: bool,
    },
    /// The source's bias has another length.
    #[error("tensor {tensor:?} has shape {got:?}, the layer {n} outputs")]
    BiasShape {
        /// The tensor of the bias.
        tensor: String,
        /// Output channels of the layer.
        n: usize,
        /// The shape of the source's.
        got: Vec<usize>,
    },
    /// The source's bias has another value, which the layer would lose.
    #[error("tensor {tensor:?} has {expected:?} for channel {channel}, the layer has {got:?}")]
    BiasValue {
        /// The tensor of the bias.
        tensor: String,
        /// The output channel.
        channel: usize,
        /// The value in the source.
        expected: f32,
        /// The layer's.
        got: f32,
    },
    /// The layer divides its input by scales of channels, for which files have no place.
    #[error("layer {layer:?} divides its k = {k} inputs by scales, which GGUF does not have")]
    InputScale {
        /// The layer.
        layer: String,
        /// Its inputs.
        k: usize,
    },
    /// Rows are no whole number of blocks.
    #[error("tensor {tensor:?} has rows of {k} weights, which are no whole blocks of {block_len}")]
    Row {
        /// The tensor.
        tensor: String,
        /// Weights of a row.
        k: usize,
        /// Weights of a block.
        block_len: usize,
    },
    /// Groups are no blocks.
    #[error("tensor {tensor:?} has groups of {group_len}, blocks have {block_len}")]
    GroupLength {
        /// The tensor.
        tensor: String,
        /// Weights of a group.
        group_len: usize,
        /// Weights of a block.
        block_len: usize,
    },
    /// The inputs of groups lie in another order than a row's values, for which files have no
    /// place.
    #[error("tensor {tensor:?} has inputs in an order of its own (act-order), which GGUF does not have")]
    InputOrder {
        /// The tensor.
        tensor: String,
    },
    /// Groups have parts, for which blocks have no place.
    #[error("tensor {tensor:?} has groups in parts of {part_len}, and Q8_0 and Q4_0 have no parts")]
    Parts {
        /// The tensor.
        tensor: String,
        /// Weights of a part.
        part_len: usize,
    },
    /// Groups have minimums, for which blocks have no place.
    #[error("tensor {tensor:?} has {count} minimums, and Q8_0 and Q4_0 have none")]
    Minimums {
        /// The tensor.
        tensor: String,
        /// How many there are.
        count: usize,
    },
    /// A group has another zero point than blocks have.
    #[error(
        "tensor {tensor:?}: the zero point of group {group} of channel {channel} is {got}; \
         codes of {bits} bits have {expected}"
    )]
    ZeroPoint {
        /// The tensor.
        tensor: String,
        /// The output channel.
        channel: usize,
        /// The group of the channel.
        group: usize,
        /// Bits of a code.
        bits: u32,
        /// The zero point of blocks.
        expected: i8,
        /// The zero point it has.
        got: i8,
    },
    /// A scale would be rounded.
    #[error(
        "tensor {tensor:?}: the scale of group {group} of channel {channel} is {scale:?}, not exact in f16"
    )]
    Scale {
        /// The tensor.
        tensor: String,
        /// The output channel.
        channel: usize,
        /// The group of the channel.
        group: usize,
        /// The scale.
        scale: f32,
    },
    /// The source has a tensor whose type, and so whose length, is not known, and it shares its
    /// bytes with another one.
    #[error(
        "damaged source: tensor {tensor:?} ({element}) begins {offset} bytes into the data, \
         among the bytes of {other:?}"
    )]
    Overlap {
        /// The tensor that begins later, or at the same place.
        tensor: String,
        /// Its type.
        element: GgufType,
        /// Where it begins.
        offset: usize,
        /// The other one.
        other: String,
    },
    /// The source has a tensor whose type is not known, and none of its bytes.
    #[error(
        "damaged source: tensor {tensor:?} ({element}) begins {offset} bytes into the data, where they end"
    )]
    NoBytes {
        /// The tensor.
        tensor: String,
        /// Its type.
        element: GgufType,
        /// Where it begins.
        offset: usize,
    },
    /// The source's bias could not be read.
    #[error(transparent)]
    Source(#[from] GgufError),
    /// Codes and scales do not make blocks. This is a defect, since they are checked before.
    #[error(transparent)]
    Blocks(#[from] BlockError),
    /// The bytes could not be written.
    #[error("writing a GGUF file: {0}")]
    Write(#[from] std::io::Error),
}
