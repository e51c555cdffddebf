//! Reads tensors from safetensors files: trained weights, and the reference numbers of qcore's
//! tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The folder of the reference numbers.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/qcore/tests/fixtures");

/// The bytes of a file that has been checked to be safetensors.
pub(crate) struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<T>,
}

impl TensorFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        SafeTensors::deserialize(&bytes)
            .with_context(|| format!("{} is not a safetensors file", path.display()))?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// One of the files with reference numbers, such as `04_linear_nbit`.
    pub(crate) fn fixture(stem: &str) -> Result<Self> {
        Self::open(&Path::new(FIXTURES).join(format!("{stem}.safetensors")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names and shapes of the floating-point tensors with at least two axes, with conv2 before
    /// conv10.
    pub(crate) fn weights(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let mut weights: Vec<(String, Vec<usize>)> = file
            .iter()
            .filter(|(_, tensor)| tensor.shape().len() >= 2 && tensor.shape().iter().all(|&len| len > 0))
            .filter(|(_, tensor)| matches!(tensor.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16))
            .map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec()))
            .collect();
        weights.sort_by_key(|(name, _)| natural(name));
        Ok(weights)
    }

    /// A tensor of f32, f16 or bf16.
    pub(crate) fn real(&self, name: &str) -> Result<Tensor<f32>> {
        self.read(name, |tensor| {
            let data = tensor.data();
            let halves = || data.as_chunks().0.iter().copied();
            match tensor.dtype() {
                Dtype::F32 => Some(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
                Dtype::F16 => Some(halves().map(|b| f16::from_le_bytes(b).to_f32()).collect()),
                Dtype::BF16 => Some(halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
                _ => None,
            }
        })
    }

    /// A tensor of integers.
    pub(crate) fn integer(&self, name: &str) -> Result<Tensor<i64>> {
        self.read(name, |tensor| {
            let data = tensor.data();
            match tensor.dtype() {
                Dtype::I8 => Some(data.iter().map(|b| i64::from(*b as i8)).collect()),
                Dtype::U8 => Some(data.iter().map(|b| i64::from(*b)).collect()),
                Dtype::I32 => {
                    Some(data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect())
                }
                Dtype::I64 => Some(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
                _ => None,
            }
        })
    }

    fn read<T>(
        &self,
        name: &str,
        values: impl FnOnce(&TensorView<'_>) -> Option<Vec<T>>,
    ) -> Result<Tensor<T>> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let tensor = file.tensor(name).with_context(|| self.path.display().to_string())?;
        let Some(values) = values(&tensor) else {
            bail!("{}: {name} is of type {}, which is not read here", self.path.display(), tensor.dtype());
        };
        Ok(Tensor { shape: tensor.shape().to_vec(), values })
    }
}

/// A sort key that orders runs of digits as numbers.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0_u64)];
    let mut in_number = false;
    for c in name.chars() {
        let Some(part) = parts.last_mut() else { break };
        match c.to_digit(10) {
            Some(digit) => part.1 = part.1.saturating_mul(10).saturating_add(digit.into()),
            None if in_number => parts.push((c.into(), 0)),
            None => part.0.push(c),
        }
        in_number = c.is_ascii_digit();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["conv10.weight", "conv2.weight", "classifier.weight", "conv2.bias"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["classifier.weight", "conv2.bias", "conv2.weight", "conv10.weight"]);
    }

    #[test]
    fn what_is_no_safetensors_file_is_an_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = TensorFile::open(&path).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.ends_with("Cargo.toml is not a safetensors file"), "{error}");
    }

    #[test]
    fn types_are_checked() {
        let file = TensorFile::fixture("04_linear_nbit").unwrap();
        assert_eq!(file.real("lab2_toy_2bit/x").unwrap().shape, [5, 5]);
        assert_eq!(file.integer("lab2_toy_2bit/zero_point").unwrap().values, [-1]);
        assert!(file.real("lab2_toy_2bit/q").unwrap_err().to_string().contains("is of type I8"));
        assert!(file.real("lab2_toy_2bit/nothing").is_err());
    }
}
