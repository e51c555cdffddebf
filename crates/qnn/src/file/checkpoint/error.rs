//! Why a layer could not be taken from a checkpoint.

use qcore::{BiasError, ParamError};
use qkernels::GROUP_STEP;
use safetensors::Dtype;

use super::shards::ShardError;
use crate::file::packed::input_groups::InputGroupError;
use crate::file::tensors::TensorFileError;
use crate::layer::float::FloatLinearError;
use crate::layer::layer_error::LayerError;
use crate::layer::tensor::FloatTensorError;
use crate::tree::chain::ChainError;

/// Why a layer could not be taken from a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file, or one of its tensors, is wrong.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// Shards do not make a checkpoint.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// The layer is stored in another layout.
    #[error("layer {layer:?} is in the layout of {layout}, as tensor {tensor:?} says; {advice}")]
    Layout {
        /// The layer.
        layer: String,
        /// Whose layout it is.
        layout: &'static str,
        /// The tensor that only this layout has.
        tensor: String,
        /// What reads it, or that nothing does.
        advice: &'static str,
    },
    /// The layout has other bits than are read.
    #[error("layer {layer:?}: codes of {bits} bits in words of 32; those of 4 and 8 are read")]
    Bits {
        /// The layer.
        layer: String,
        /// The bits stated.
        bits: u32,
    },
    /// The shape of packed weights is not two numbers of elements.
    #[error("tensor {tensor:?} does not have two integers that are the shape of a matrix")]
    WeightShape {
        /// The tensor.
        tensor: String,
    },
    /// Inputs are in groups that are not those of the layer.
    #[error("tensor {tensor:?}: {error}")]
    InputGroups {
        /// The tensor.
        tensor: String,
        /// Why.
        error: InputGroupError,
    },
    /// Scales or zero points are neither one for each channel nor one for all.
    #[error("tensor {tensor:?} has shape {got:?}, expected one value, or n = {n}")]
    Scales {
        /// The tensor.
        tensor: String,
        /// Outputs of the layer.
        n: usize,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// Each output has several scales, and the caller did not say how many weights share one.
    #[error(
        "tensor {tensor:?} has shape {got:?}: {} scales for each output; \
         how many of the k = {k} weights share one must be stated, a file does not say it", got[1]
    )]
    GroupsUnstated {
        /// The tensor.
        tensor: String,
        /// Inputs of the layer.
        k: usize,
        /// The shape it has, (n, groups).
        got: Vec<usize>,
    },
    /// The stated length gives a different number of groups than the file has.
    #[error(
        "tensor {tensor:?} has shape {got:?}, expected {expected:?}: \
         k = {k} in groups of {group} is {} of them", expected[1]
    )]
    Groups {
        /// The tensor.
        tensor: String,
        /// Inputs of the layer.
        k: usize,
        /// The length stated.
        group: usize,
        /// The shape wanted, (n, groups).
        expected: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// No kernel multiplies groups of this length.
    #[error(
        "layer {layer:?}: groups of {group} along k = {k} are not supported; lengths are multiples of {GROUP_STEP} \
         (16, 32, 64, 128 and so on), or k and more for a single group"
    )]
    GroupLength {
        /// The layer.
        layer: String,
        /// Inputs of the layer.
        k: usize,
        /// The length stated.
        group: usize,
    },
    /// A zero point is no code of i8.
    #[error("tensor {tensor:?} has {value} at index {index}; zero points of i8 codes are -128 to 127")]
    ZeroPoint {
        /// The tensor.
        tensor: String,
        /// Its index in the row-major data.
        index: usize,
        /// The zero point.
        value: i128,
    },
    /// A zero point has an unsigned type, so it belongs to codes from 0 up, but these are i8.
    #[error(
        "tensor {tensor:?} is {dtype} and has {value} at index {index}: zero points of unsigned codes, but codes are I8"
    )]
    UnsignedZeroPoint {
        /// The tensor.
        tensor: String,
        /// The type it has.
        dtype: Dtype,
        /// Its index in the row-major data.
        index: usize,
        /// The zero point.
        value: i128,
    },
    /// A bias of integers is not all 0, and nothing says in which unit it is.
    #[error(
        "tensor {tensor:?} is {dtype} and has {value} at index {index}; nothing says in which unit, so only 0 is taken"
    )]
    IntegerBias {
        /// The tensor.
        tensor: String,
        /// The type it has.
        dtype: Dtype,
        /// The output channel.
        index: usize,
        /// The bias.
        value: i128,
    },
    /// Scale or zero point of a layer's input are out of range.
    #[error("input of layer {layer:?}: {error}")]
    Input {
        /// The layer.
        layer: String,
        /// Why.
        error: ParamError,
    },
    /// A layer has as many biases as its weights would have outputs if they were transposed.
    #[error(
        "layer {layer:?}: {bias} biases do not go with weights of shape {weight:?} that are read as {order}; \
         `Checkpoint::stored_kn` says which weights are (k, n)"
    )]
    Transposed {
        /// The layer.
        layer: String,
        /// The shape of its weights in the file.
        weight: Vec<usize>,
        /// How they are read: (n, k) or (k, n).
        order: &'static str,
        /// How many biases there are.
        bias: usize,
    },
    /// A bias has no int32 form.
    #[error("layer {layer:?}, channel {channel}: {error}")]
    Bias {
        /// The layer.
        layer: String,
        /// The output channel.
        channel: usize,
        /// Why.
        error: BiasError,
    },
    /// Tensors are left that nobody took.
    #[error("nobody took {}: {}", count(tensors.len(), "tensor"), tensors.join(", "))]
    Left {
        /// All of them, by name.
        tensors: Vec<String>,
    },
    /// No layer that was taken has a name that this pattern matches.
    #[error(
        "no layer was taken whose name matches {pattern:?}, which says that weights are stored (k, n) \
         (names of layers end before `.weight`)"
    )]
    UnusedPattern {
        /// The pattern.
        pattern: String,
    },
    /// Two tensors would have the same name.
    #[error("tensors {first:?} and {second:?} would both be named {name:?}")]
    SameName {
        /// The name.
        name: String,
        /// The first of them.
        first: String,
        /// The second.
        second: String,
    },
    /// The layers do not fit each other, or there are none.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Floats do not make a tensor.
    #[error(transparent)]
    Tensor(#[from] FloatTensorError),
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

/// How many things there are.
fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

impl CheckpointError {
    pub(crate) fn of_layer(name: &str, error: impl Into<LayerError>) -> Self {
        CheckpointError::Layer { layer: name.to_owned(), error: error.into() }
    }
}
