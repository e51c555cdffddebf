//! MLPs as files of layers.

use std::path::Path;

use qkernels::Kernel;

use super::error::{LoadError, SaveError};
use super::reader::LayerFile;
use super::tensors::read_file;
use super::writer::{layers_to_bytes, save_layers};
use crate::mlp::mixed::Mlp;
use crate::mlp::quant::QuantMlp;

impl Mlp {
    /// Reads a model from a file's bytes and packs it for `kernel`, or for [`Kernel::select`]. The
    /// bytes may be those of a mapped file.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are not what [`save`](Self::save) writes, or no kernel can be
    /// selected.
    pub fn from_bytes(bytes: &[u8], kernel: Option<Kernel>) -> Result<Self, LoadError> {
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => Kernel::select()?,
        };
        let mut file = LayerFile::parse(bytes)?;
        let names = file.names().to_vec();
        let layers = names.iter().map(|name| file.take(name, Some(kernel))).collect::<Result<_, _>>()?;
        file.finish()?;
        Ok(Self::new(layers)?)
    }

    /// Writes the model to `path` by [`save_layers`].
    ///
    /// # Errors
    /// [`SaveError`] if an f32 layer has an unusable activation function, the names are too long
    /// for a safetensors header, or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        save_layers(self, path)
    }

    /// Reads a model from the file `path`, which [`save`](Self::save) wrote, and packs it for
    /// `kernel`, or for [`Kernel::select`].
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), or if the file cannot be read.
    pub fn load(path: impl AsRef<Path>, kernel: Option<Kernel>) -> Result<Self, LoadError> {
        Self::from_bytes(&read_file(path.as_ref())?, kernel)
    }
}

impl QuantMlp {
    /// The model as a file's bytes. The same model makes the same bytes, whatever the kernel.
    ///
    /// # Errors
    /// [`SaveError`] if the names are too long for a safetensors header.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SaveError> {
        layers_to_bytes(self.as_mlp())
    }

    /// Reads a model from a file's bytes and packs it for `kernel`, or for [`Kernel::select`]. The
    /// bytes may be those of a mapped file.
    ///
    /// The bytes are not trusted. The result is a model that passed every check, or an error.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are not what [`to_bytes`](Self::to_bytes) makes (any change of a
    /// single byte is noticed), or no kernel can be selected.
    pub fn from_bytes(bytes: &[u8], kernel: Option<Kernel>) -> Result<Self, LoadError> {
        Ok(Self::try_from(Mlp::from_bytes(bytes, kernel)?)?)
    }

    /// Writes the model to `path`. It is written to a temporary file beside it, which is then
    /// renamed, so there is never half a model.
    ///
    /// # Errors
    /// [`SaveError`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        save_layers(self.as_mlp(), path)
    }

    /// Reads a model from the file `path` and packs it for `kernel`, or for [`Kernel::select`].
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), or if the file cannot be read.
    pub fn load(path: impl AsRef<Path>, kernel: Option<Kernel>) -> Result<Self, LoadError> {
        Self::from_bytes(&read_file(path.as_ref())?, kernel)
    }
}
