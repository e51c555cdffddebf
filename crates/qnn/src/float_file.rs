//! f32 models from safetensors files with PyTorch's names: `X.weight` (out, in) and `X.bias` (out) for each layer X.

use std::path::Path;

use safetensors::Dtype;

use crate::chain::ChainError;
use crate::float_linear::{FloatLinear, FloatLinearError};
use crate::float_mlp::FloatMlp;
use crate::names::natural_order;
use crate::tensors::{TensorFile, TensorFileError, read_file};

/// Why a file does not hold an f32 model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadFloatError {
    /// The file, or one of its tensors, is not as it should be.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A layer's tensors do not fit each other, or are not finite.
    #[error(transparent)]
    Layer(#[from] FloatLinearError),
    /// The layers do not fit each other, or there are none.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl FloatMlp {
    /// Reads a model from the bytes of a safetensors file: a layer for every `X.weight` (2-D, f32) with its `X.bias` (1-D,
    /// f32), in the natural order of the names X (`fc2` before `fc10`). Any other tensor is an error, since leaving it out
    /// would make another model.
    ///
    /// # Errors
    /// [`LoadFloatError`] if the bytes are no safetensors file, a tensor is missing, unexpected, of another type or shape,
    /// or not finite, or the layers do not fit each other.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, LoadFloatError> {
        let mut file = TensorFile::parse(bytes)?;
        let layer_of = |tensor: &str| {
            let layer = tensor.strip_suffix(".weight").or_else(|| tensor.strip_suffix(".bias"));
            layer.map(str::to_owned)
        };
        let mut names: Vec<String> = file.tensors.keys().filter_map(|tensor| layer_of(tensor)).collect();
        names.sort_by(|a, b| natural_order(a, b));
        names.dedup();
        let layers = names.into_iter().map(|name| take_layer(&mut file, name)).collect::<Result<_, _>>()?;
        file.check_empty()?;
        Ok(Self::new(layers)?)
    }

    /// Reads a model from a safetensors file.
    ///
    /// # Errors
    /// As [`from_safetensors`](Self::from_safetensors), or if the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadFloatError> {
        Self::from_safetensors(&read_file(path.as_ref())?)
    }
}

fn take_layer(file: &mut TensorFile<'_>, name: String) -> Result<FloatLinear, LoadFloatError> {
    let (weight, n, k) = file.take_matrix(&format!("{name}.weight"), Dtype::F32)?;
    let bias = file.take_shaped(&format!("{name}.bias"), Dtype::F32, &[n])?;
    Ok(FloatLinear::new(name, n, k, weight.to_f32(), bias.to_f32())?)
}
