//! MLPs as files of layers.

use std::path::Path;

use qkernels::Kernel;

use super::error::{LayerError, LoadError, SaveError};
use super::reader::LayerFile;
use super::tensors::read_file;
use super::writer::{Writer, save_layers, write_file};
use crate::layer::linear::Linear;
use crate::mlp::mixed::Mlp;
use crate::mlp::quant::QuantMlp;
use crate::tree::chain::{ChainError, Link, check_chain};

/// All layers of a file, in their order.
fn take_all(bytes: &[u8], kernel: Kernel) -> Result<Vec<Linear>, LoadError> {
    let mut file = LayerFile::parse(bytes)?;
    let names = file.names().to_vec();
    let layers = names.iter().map(|name| file.take(name, Some(kernel))).collect::<Result<Vec<_>, _>>()?;
    file.finish()?;
    Ok(layers)
}

fn selected(kernel: Option<Kernel>) -> Result<Kernel, LoadError> {
    match kernel {
        Some(kernel) => Ok(kernel),
        None => Ok(Kernel::select()?),
    }
}

impl Mlp {
    /// Reads a model from a file's bytes and packs it for `kernel`, or for [`Kernel::select`]. Bytes of a mapped file do, too.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are not what [`save`](Self::save) writes, or no kernel can be selected.
    pub fn from_bytes(bytes: &[u8], kernel: Option<Kernel>) -> Result<Self, LoadError> {
        Ok(Self::new(take_all(bytes, selected(kernel)?)?)?)
    }

    /// Writes the model to `path`: [`save_layers`].
    ///
    /// # Errors
    /// [`SaveError`] if the names are too long for a safetensors header, or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        save_layers(self, path)
    }
}

impl QuantMlp {
    /// The model as a file's bytes. The same model makes the same bytes, whatever the kernel.
    ///
    /// # Errors
    /// [`SaveError`] if the names are too long for a safetensors header.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SaveError> {
        let mut writer = Writer::default();
        self.layers().iter().try_for_each(|layer| writer.add_static(layer))?;
        writer.finish()
    }

    /// Reads a model from a file's bytes and packs it for `kernel`, or for [`Kernel::select`]. Bytes of a mapped file do, too.
    ///
    /// The bytes are not trusted: whatever they are, the result is a model whose every check has passed, or an error.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are not what [`to_bytes`](Self::to_bytes) makes (any change of a single byte is noticed),
    /// or no kernel can be selected.
    pub fn from_bytes(bytes: &[u8], kernel: Option<Kernel>) -> Result<Self, LoadError> {
        let kernel = selected(kernel)?;
        let layers = take_all(bytes, kernel)?;
        let links: Vec<_> =
            layers.iter().map(|layer| Link { name: layer.name(), n: layer.n(), k: layer.k() }).collect();
        check_chain(&links)?;
        let only_static = |layer| match layer {
            Linear::Static(layer) => Ok(layer),
            other => {
                let (layer, got) = (other.name().to_owned(), other.method());
                Err(LoadError::Form { layer, expected: "static", got })
            }
        };
        let mut layers = layers.into_iter().map(only_static).collect::<Result<Vec<_>, _>>()?;
        let activations = layers.first().ok_or(ChainError::NoLayers)?.input_codes();
        for i in 1..layers.len() {
            let (before, after) = layers.split_at_mut(i);
            let (layer, next) = (&mut before[i - 1], &after[0]);
            if next.input_codes() != activations {
                let (layer, got) = (next.name().to_owned(), next.input_codes().name());
                return Err(LoadError::Form { layer, expected: activations.name(), got });
            }
            let linked = layer.set_output(*next.input()).map_err(LayerError::from);
            linked.map_err(|source| LoadError::Layer { layer: layer.name().to_owned(), source })?;
        }
        Ok(Self::from_layers(layers, activations, kernel))
    }

    /// Writes the model to `path`: to a temporary file beside it, then renamed, so that there is never half a model.
    ///
    /// # Errors
    /// [`SaveError`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        write_file(path.as_ref(), &self.to_bytes()?)
    }

    /// Reads a model from the file `path` and packs it for `kernel`, or for [`Kernel::select`].
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), or if the file cannot be read.
    pub fn load(path: impl AsRef<Path>, kernel: Option<Kernel>) -> Result<Self, LoadError> {
        Self::from_bytes(&read_file(path.as_ref())?, kernel)
    }
}
