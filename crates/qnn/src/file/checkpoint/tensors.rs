//! What a checkpoint has besides layers, how its names and layouts may differ, and what is left in
//! the end.

use std::collections::BTreeMap;

use super::error::CheckpointError;
use super::layers::Checkpoint;
use crate::config::pattern::matches;
use crate::file::tensors::TensorFileError;
use crate::layer::tensor::FloatTensor;

impl Checkpoint<'_> {
    /// Takes any tensor of floats out, such as a norm's weights or an embedding: F32, F16 or BF16,
    /// widened to f32. Values that are not finite stay as they are.
    ///
    /// ```
    /// use safetensors::{Dtype, tensor::TensorView};
    /// let weight = [0x80, 0x3f, 0x00, 0xc0]; // 1.0 and -2.0 in bf16
    /// let weight = TensorView::new(Dtype::BF16, vec![2], &weight)?;
    /// let bytes = safetensors::serialize([("norm.weight", weight)], None)?;
    /// let mut checkpoint = qnn::Checkpoint::parse(&bytes)?;
    /// let norm = checkpoint.take_tensor("norm.weight", Some(&[2]))?;
    /// assert_eq!(norm.values(), [1.0, -2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError`] if there is no such tensor (any more), it has no floats, or another
    /// shape than `shape`, if that is given.
    pub fn take_tensor(
        &mut self,
        name: &str,
        shape: Option<&[usize]>,
    ) -> Result<FloatTensor, CheckpointError> {
        let tensor = self.read_tensor(name, shape);
        self.file.settle(tensor)
    }

    fn read_tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, CheckpointError> {
        let found = self.file.take_any(name)?;
        let tensor = name.to_owned();
        let Some(values) = found.floats() else {
            return Err(TensorFileError::NotFloat { tensor, got: found.dtype }.into());
        };
        if let Some(expected) = shape
            && expected != found.shape
        {
            let expected = expected.to_vec();
            return Err(TensorFileError::Shape { tensor, expected, got: found.shape }.into());
        }
        Ok(FloatTensor::new(tensor, found.shape, values)?)
    }

    /// Says that the weights of all layers whose names match `pattern` are stored (k, n), inputs
    /// first, as GPT-2's `Conv1D` stores them. [`take_float`](Self::take_float) transposes them.
    /// (Shapes do not tell: a square matrix fits either way.) In a pattern `*` stands for any
    /// characters and `?` for one.
    ///
    /// ```
    /// use safetensors::{Dtype, tensor::TensorView};
    /// let weight = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat(); // one row for each input
    /// let weight = TensorView::new(Dtype::F32, vec![2, 2], &weight)?;
    /// let bytes = safetensors::serialize([("h.0.attn.c_attn.weight", weight)], None)?;
    /// let mut checkpoint = qnn::Checkpoint::parse(&bytes)?;
    /// checkpoint.stored_kn("h.*.c_*");
    /// let layer = checkpoint.take_float("h.0.attn.c_attn")?;
    /// assert_eq!(layer.weight(), [1.0, 3.0, 2.0, 4.0]); // one row for each output
    /// checkpoint.finish()?; // fails if no layer matched
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stored_kn(&mut self, pattern: impl Into<String>) {
        self.stored_kn.push((pattern.into(), false));
    }

    /// Lets a tensor be taken more than once, because several places of the model share it: an
    /// embedding that is also the output layer ([`take_tied`](Self::take_tied)). Any other tensor
    /// can be taken once.
    ///
    /// # Errors
    /// [`CheckpointError`] if there is no such tensor, or it was taken before.
    pub fn tie(&mut self, tensor: &str) -> Result<(), CheckpointError> {
        Ok(self.file.tie(tensor)?)
    }

    /// Renames all tensors that are left. A name for which `rename` gives `None` stays.
    ///
    /// ```
    /// use safetensors::{Dtype, tensor::TensorView};
    /// let weight = TensorView::new(Dtype::F16, vec![1, 1], &[0x00, 0x3c])?;
    /// let bytes = safetensors::serialize([("bert.pooler.dense.weight", weight)], None)?;
    /// let mut checkpoint = qnn::Checkpoint::parse(&bytes)?;
    /// checkpoint.rename(|name| Some(name.strip_prefix("bert.")?.to_owned()))?;
    /// assert_eq!(checkpoint.layers(), ["pooler.dense"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError::SameName`] if two tensors would have the same name. Nothing is renamed
    /// then.
    pub fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) -> Result<(), CheckpointError> {
        let mut old_names: BTreeMap<String, String> = BTreeMap::new();
        for old in self.file.tensors.keys() {
            let new = rename(old).unwrap_or_else(|| old.clone());
            if let Some(first) = old_names.insert(new.clone(), old.clone()) {
                return Err(CheckpointError::SameName { name: new, first, second: old.clone() });
            }
        }
        self.file.rename(old_names);
        Ok(())
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`CheckpointError::Left`] with the names of all tensors left, and
    /// [`CheckpointError::UnusedPattern`] if a pattern of [`stored_kn`](Self::stored_kn) matched no
    /// layer.
    pub fn finish(&self) -> Result<(), CheckpointError> {
        self.finish_except(&[])
    }

    /// As [`finish`](Self::finish), but tensors may be left whose names match one of the patterns,
    /// such as `*.position_ids`. A pattern may match nothing: not all files of a model have what
    /// may be left.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_except(&self, ignored: &[&str]) -> Result<(), CheckpointError> {
        let is_ignored = |name: &str| ignored.iter().any(|pattern| matches(pattern, name));
        let left = self.tensors().filter(|name| !is_ignored(name));
        let tensors: Vec<String> = left.map(str::to_owned).collect();
        if !tensors.is_empty() {
            return Err(CheckpointError::Left { tensors });
        }
        match self.stored_kn.iter().find(|(_, used)| !used) {
            None => Ok(()),
            Some((pattern, _)) => Err(CheckpointError::UnusedPattern { pattern: pattern.clone() }),
        }
    }
}
