//! Why a GGUF file, or a layer of it, could not be read.

use qcore::BlockError;

use super::tensor_type::GgufType;
use crate::layer::float::FloatLinearError;
use crate::layer::layer_error::LayerError;
use crate::layer::tensor::FloatTensorError;

/// Why a GGUF file, or a layer of it, could not be read. Places are bytes from the file's start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file does not begin as GGUF files do.
    #[error("not a GGUF file: it begins with {got:?}, not with \"GGUF\"")]
    Magic {
        /// The first bytes, up to four.
        got: Vec<u8>,
    },
    /// The numbers of the file are big-endian.
    #[error("a GGUF file of version {version} with big-endian numbers, which are not read")]
    BigEndian {
        /// Its version.
        version: u32,
    },
    /// The file has another version of the format.
    #[error("a GGUF file of version {got}; versions 2 and 3 are read")]
    Version {
        /// Its version.
        got: u32,
    },
    /// The file ends before something does.
    #[error("cut off, or damaged: {what} at byte {at} needs {len} bytes, and {left} are left")]
    Truncated {
        /// What is there.
        what: &'static str,
        /// Where it begins.
        at: usize,
        /// The bytes it needs.
        len: u64,
        /// The bytes that are left.
        left: usize,
    },
    /// A name is no UTF-8.
    #[error("damaged: {what} at byte {at} is no UTF-8")]
    Text {
        /// What is there.
        what: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// A value has a type that the format does not know.
    #[error("damaged: the type of a value at byte {at} is {got}; there are types 0 to 12")]
    ValueType {
        /// Where the type is.
        at: usize,
        /// The number of the type.
        got: u32,
    },
    /// A truth value is neither.
    #[error("damaged: the truth value at byte {at} is {got}, neither 0 nor 1")]
    Bool {
        /// Where it is.
        at: usize,
        /// Its byte.
        got: u8,
    },
    /// Arrays are nested too deeply.
    #[error("the array at byte {at} lies in {limit} others, more than are read")]
    Depth {
        /// Where it begins.
        at: usize,
        /// How deep arrays are read.
        limit: u32,
    },
    /// Two entries of the metadata, or two tensors, have one name.
    #[error("damaged: {what} {name:?} is there twice")]
    Twice {
        /// Key or tensor.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// `general.alignment` is no power of two.
    #[error("damaged: general.alignment is {got}; it must be a power of two in u32")]
    Alignment {
        /// What it is.
        got: String,
    },
    /// A tensor has no dimension, or too many.
    #[error("damaged: tensor {tensor:?} has {got} dimensions; tensors have 1 to 4")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        got: u32,
    },
    /// The elements of a tensor are more than memory has addresses for.
    #[error("damaged: tensor {tensor:?} has dimensions {dimensions:?}, too many elements")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its dimensions, as the file has them: that of rows' elements first.
        dimensions: Vec<u64>,
    },
    /// The rows of a tensor are no whole number of blocks.
    #[error(
        "damaged: tensor {tensor:?} has rows of {len} elements, which are no whole {format} blocks of {block_len}"
    )]
    Row {
        /// The tensor.
        tensor: String,
        /// Its type.
        format: GgufType,
        /// Elements of a row.
        len: usize,
        /// Elements of a block.
        block_len: usize,
    },
    /// The data of a tensor begin where none do.
    #[error(
        "damaged: tensor {tensor:?} begins {offset} bytes into the data, no multiple of the alignment {alignment}"
    )]
    Offset {
        /// The tensor.
        tensor: String,
        /// Where it begins.
        offset: u64,
        /// The file's alignment.
        alignment: u32,
    },
    /// The data of a tensor are not in the file.
    #[error(
        "cut off, or damaged: tensor {tensor:?} has {bytes} bytes, {offset} bytes into the data, of which there are {data}"
    )]
    Data {
        /// The tensor.
        tensor: String,
        /// Where it begins.
        offset: u64,
        /// Its bytes; 0 where its type is not known.
        bytes: usize,
        /// The bytes of all data.
        data: usize,
    },
    /// The data of two tensors overlap.
    #[error("damaged: tensors {first:?} and {second:?} have bytes in common")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The other one.
        second: String,
    },
    /// A tensor is missing.
    #[error("tensor {tensor:?} is missing{}", if *.taken { ": it was taken before" } else { "" })]
    Missing {
        /// The tensor.
        tensor: String,
        /// Whether it was there once.
        taken: bool,
    },
    /// A tensor has another shape than asked for.
    #[error("tensor {tensor:?} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A weight is no matrix.
    #[error("tensor {tensor:?} has shape {got:?}, expected a matrix (n, k)")]
    Matrix {
        /// The tensor.
        tensor: String,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A tensor has a type that is not read.
    #[error("tensor {tensor:?} is {got}, which is not read")]
    Type {
        /// The tensor.
        tensor: String,
        /// Its type.
        got: GgufType,
    },
    /// A weight has no codes.
    #[error("tensor {tensor:?} is {got}, which has no codes: take the layer in f32 and quantize it")]
    NoCodes {
        /// The tensor.
        tensor: String,
        /// Its type.
        got: GgufType,
    },
    /// A tensor is left that nobody took.
    #[error("tensor {tensor:?} was not taken, and {} more", .count - 1)]
    Left {
        /// The first one, in the order of the file.
        tensor: String,
        /// How many are left.
        count: usize,
    },
    /// The tensors of a layer do not make one.
    #[error("layer {layer:?}: {error}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        error: LayerError,
    },
    /// The tensors of a layer do not make one in f32.
    #[error(transparent)]
    FloatLayer(#[from] FloatLinearError),
    /// Values do not make a tensor. This is a defect, since shapes are checked when a file is read.
    #[error(transparent)]
    Tensor(#[from] FloatTensorError),
    /// Bytes do not make blocks. This is a defect, since lengths are checked when a file is read.
    #[error(transparent)]
    Blocks(#[from] BlockError),
}
