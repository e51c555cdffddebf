//! Reads the handwritten digits and the reference logits of `data/mnist`. Errors, no panics: the
//! demos include it too.

#![allow(dead_code, reason = "each program that includes this file uses a part of it")]

use std::error::Error;
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// What can go wrong: the file, its form.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Values of an image.
pub(crate) const PIXELS: usize = 28 * 28;

/// Digits: 0 to 9.
pub(crate) const CLASSES: usize = 10;

/// Images and what they show.
#[derive(Clone, Debug)]
pub(crate) struct Digits {
    /// (images, [`PIXELS`]), row-major, 0 to 1: the stored byte / 255, as the models take them.
    pub(crate) inputs: Vec<f32>,
    /// The digit on each image.
    pub(crate) labels: Vec<u8>,
}

impl Digits {
    /// Reads a file with `images` u8 (m, 28, 28) and `labels` u8 (m).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let named = |what: String| format!("{}: {what}", path.display());
        let bytes = fs::read(path).map_err(|error| named(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| named(error.to_string()))?;
        let tensor = |name| file.tensor(name).map_err(|error| named(error.to_string()));
        let (images, labels) = (tensor("images")?, tensor("labels")?);
        let expected = ([labels.data().len(), 28, 28], [Dtype::U8; 2]);
        if images.shape() != expected.0 || [images.dtype(), labels.dtype()] != expected.1 {
            let got = (images.shape(), images.dtype(), labels.dtype());
            return Err(named(format!("expected images and labels {expected:?}, got {got:?}")).into());
        }
        let inputs = images.data().iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
        Ok(Self { inputs, labels: labels.data().to_vec() })
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// How many of `classes`, one for each image, are right.
    pub(crate) fn correct(&self, classes: impl IntoIterator<Item = Option<usize>>) -> usize {
        let labels = self.labels.iter().map(|&label| Some(usize::from(label)));
        classes.into_iter().zip(labels).filter(|(class, label)| class == label).count()
    }
}

/// Reads the f32 tensor `name` of a safetensors file, row-major.
pub(crate) fn read_f32(path: &Path, name: &str) -> Result<Vec<f32>> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let tensor = file.tensor(name)?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("{}: {name} is {}, expected F32", path.display(), tensor.dtype()).into());
    }
    Ok(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
