//! Why a model's file could not be read or written.

use std::path::PathBuf;

use qcore::{ActivationError, ParamError};
use qkernels::{KOrdersError, PackError, SelectError};
use safetensors::SafeTensorError;

use super::tensors::TensorFileError;
use crate::config::form::Form;
use crate::layer::float::FloatLinearError;
use crate::layer::layer_error::LayerError;
use crate::layer::tensor::FloatTensorError;
use crate::mlp::quant::QuantizeModelError;
use crate::tree::chain::ChainError;

/// The key of the metadata under which a model's description stands.
pub(crate) const KEY: &str = "qnn";

/// Why a model's file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file, or one of its tensors, is wrong.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The header has white space where no writer of this format puts any.
    #[error("the header has byte {byte:#04x} at {at}, which is never written there")]
    HeaderByte {
        /// Its place in the file.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// The metadata have no key `qnn`, so another program wrote the file.
    #[error("not a model of this format: the metadata have no key {KEY:?}")]
    NoDescription,
    /// The metadata have another key besides `qnn`.
    #[error("unexpected metadata {key:?}")]
    UnexpectedMetadata {
        /// The first such key.
        key: String,
    },
    /// The description is not valid JSON, or has wrong fields.
    #[error("metadata {KEY:?}: {0}")]
    Description(serde_json::Error),
    /// Weights of 4 bits have a code behind an odd number of inputs.
    #[error("tensor {tensor:?} has a code of 4 bits behind the last one of a row")]
    Padding {
        /// The tensor.
        tensor: String,
    },
    /// The description names a format or a choice that this version does not know.
    #[error("{field} is {got:?}, expected {expected}")]
    Unknown {
        /// The field of the description.
        field: &'static str,
        /// The names that are known.
        expected: String,
        /// What it says.
        got: String,
    },
    /// The format has another version.
    #[error("version {got} of the format, expected {expected}")]
    Version {
        /// The version that is understood.
        expected: u32,
        /// The file's.
        got: u32,
    },
    /// The contents are not those that were saved.
    #[error("checksum mismatch: expected {expected:?}, got {got:?}")]
    Checksum {
        /// By the description.
        expected: String,
        /// Of the contents.
        got: String,
    },
    /// The file has no such layer, or it was taken before.
    #[error("there is no layer {layer:?}")]
    NoLayer {
        /// The layer.
        layer: String,
    },
    /// The description names a tensor that is not there, or names it twice.
    #[error("tensor {tensor:?} is named in the description, but it is not there, or named twice")]
    Described {
        /// The tensor.
        tensor: String,
    },
    /// The file has a layer that the model did not take.
    #[error("layer {layer:?} was not taken")]
    NotTaken {
        /// The first such layer by name.
        layer: String,
    },
    /// The description of a layer has a field that layers of its form do not have, or lacks one
    /// that they have.
    #[error("layer {layer:?} is {form}: {field:?} must {}be there", if *.expected { "" } else { "not " })]
    Field {
        /// The layer.
        layer: String,
        /// Its form.
        form: Form,
        /// The field of the description.
        field: &'static str,
        /// Whether it should be there.
        expected: bool,
    },
    /// The layers do not make the model that was asked for: one has another form, or cannot give
    /// the codes that the next one takes.
    #[error(transparent)]
    Model(Box<QuantizeModelError>),
    /// Scale or zero point of a layer's input are out of range.
    #[error("input of layer {layer:?}: {error}")]
    Input {
        /// The layer.
        layer: String,
        /// Why.
        error: ParamError,
    },
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
    /// A tensor has no orders of k.
    #[error("layer {layer:?}: {error}")]
    KOrders {
        /// The layer.
        layer: String,
        /// Why.
        error: KOrdersError,
    },
    /// The layers do not fit each other, or there are none.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No kernel could be selected.
    #[error(transparent)]
    Kernel(#[from] SelectError),
}

impl From<QuantizeModelError> for LoadError {
    fn from(error: QuantizeModelError) -> Self {
        LoadError::Model(Box::new(error))
    }
}

/// Why a model could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The layers do not make a model.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The activation function of an f32 layer is unusable, so the layer could not be read back.
    #[error("layer {layer:?}: {error}")]
    Activation {
        /// The layer.
        layer: String,
        /// Why.
        error: ActivationError,
    },
    /// There is no memory for a layer's orders of k.
    #[error("layer {layer:?}: {error}")]
    KOrders {
        /// The layer.
        layer: String,
        /// Why.
        error: PackError,
    },
    /// Two tensors have the same name: two that are no part of a layer, or one of them and one of a
    /// layer's.
    #[error("the model has two tensors {tensor:?}")]
    SameTensor {
        /// The name.
        tensor: String,
    },
    /// A tensor has the name under which safetensors keeps its metadata.
    #[error("no tensor can be named {tensor:?} in safetensors")]
    ReservedName {
        /// The name.
        tensor: String,
    },
    /// The format has no name for a choice, because the choice is younger than the format. All
    /// choices of today have names.
    #[error("layer {layer:?}: the format has no name for {what}")]
    Unnamed {
        /// The layer.
        layer: String,
        /// The choice.
        what: String,
    },
    /// The model has no safetensors form, for example because its names take more than 100 MB.
    #[error("no safetensors form: {0}")]
    Safetensors(SafeTensorError),
    /// The description has no JSON form.
    #[error("no JSON form: {0}")]
    Json(serde_json::Error),
    /// The file could not be written. What was there before is still there.
    #[error("could not write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}
