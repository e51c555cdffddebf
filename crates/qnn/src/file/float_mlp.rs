//! f32 models from safetensors files with PyTorch's names: `X.weight` (out, in) and `X.bias` (out)
//! for each layer X.

use std::path::Path;

use super::checkpoint::error::CheckpointError;
use super::checkpoint::layers::Checkpoint;
use super::tensors::read_file;
use crate::mlp::float::FloatMlp;

impl FloatMlp {
    /// Reads a model from the bytes of a safetensors file. Every `X.weight` (2-D) makes a layer,
    /// with `X.bias` (1-D) if there is one. All are F32, F16 or BF16. Layers are in the natural
    /// order of the names X (`fc2` before `fc10`). Any other tensor is an error, because leaving it
    /// out would make another model. For a model in several files, use
    /// [`Checkpoint`](crate::Checkpoint).
    ///
    /// # Errors
    /// [`CheckpointError`] if the bytes are no safetensors file, a tensor is unexpected, of another
    /// type or shape, or not finite, or the layers do not fit each other.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut checkpoint = Checkpoint::parse(bytes)?;
        let names = checkpoint.layers();
        let layers = names.iter().map(|name| checkpoint.take_float(name)).collect::<Result<_, _>>()?;
        checkpoint.finish()?;
        Ok(Self::new(layers)?)
    }

    /// Reads a model from a safetensors file.
    ///
    /// # Errors
    /// As [`from_safetensors`](Self::from_safetensors), or if the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::from_safetensors(&read_file(path.as_ref())?)
    }
}
