//! What a model has besides linear layers: norms, embeddings and other tensors of floats.

use super::forward_error::ForwardError;

/// A tensor of a model that is no linear layer: the weights of a norm, an embedding, a table of
/// positions. It has a name that is unique in its model and values in f32, row-major.
///
/// A tensor is part of a model's tree ([`Layers`](crate::Layers)), so that
/// [`save_layers`](crate::save_layers) takes it along and one file holds the whole model.
///
/// ```
/// use qnn::FloatTensor;
/// let words = FloatTensor::new("embeddings.words", [3, 2], vec![0.0, 0.1, 1.0, 1.1, 2.0, 2.1])?;
/// assert_eq!(words.row(2), Some(&[2.0, 2.1][..])); // of the third word
/// # Ok::<(), qnn::FloatTensorError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FloatTensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Values are not as many as a shape says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tensor:?} of shape {shape:?} needs {} values, got {len}", .shape.iter().fold(1_u128, |len, &d| len.saturating_mul(d as u128)))]
#[non_exhaustive]
pub struct FloatTensorError {
    /// The tensor.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Values given.
    pub len: usize,
}

impl FloatTensor {
    /// Makes a tensor of values in row-major order. They may be anything, NaN included.
    ///
    /// # Errors
    /// [`FloatTensorError`] if there are not as many values as `shape` says.
    pub fn new(
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        values: Vec<f32>,
    ) -> Result<Self, FloatTensorError> {
        let (name, shape) = (name.into(), shape.into());
        let elements = shape.iter().try_fold(1_usize, |elements, &d| elements.checked_mul(d));
        // A dimension of 0 makes it empty, however large the others are.
        let elements = if shape.contains(&0) { Some(0) } else { elements };
        match elements == Some(values.len()) {
            true => Ok(Self { name, shape, values }),
            false => Err(FloatTensorError { tensor: name, shape, len: values.len() }),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape; empty for a single value.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values with this index of the first dimension, such as the embedding of a token. `None`
    /// outside of the tensor, and for a single value.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let rows = *self.shape.first()?;
        let len = self.values.len().checked_div(rows)?;
        (index < rows).then(|| &self.values[index * len..(index + 1) * len])
    }

    /// The rows with these indices, one after the other: the embeddings of a sentence's tokens.
    /// (`Gather` of ONNX along axis 0, `index_select` of PyTorch along dimension 0.)
    ///
    /// ```
    /// use qnn::FloatTensor;
    /// let words = FloatTensor::new("embeddings.words", [3, 2], vec![0.0, 0.1, 1.0, 1.1, 2.0, 2.1])?;
    /// assert_eq!(words.gather(&[2, 0])?, [2.0, 2.1, 0.0, 0.1]);
    /// let error = words.gather(&[2, 3]).unwrap_err();
    /// assert_eq!(error.to_string(), "there is no row 3, which is index 1: the tensor has 3 rows");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ForwardError::NoRow`] if the tensor has no row of an index. [`ForwardError::Memory`] if
    /// there is none for so many rows.
    pub fn gather(&self, indices: &[usize]) -> Result<Vec<f32>, ForwardError> {
        let rows = self.shape.first().copied().unwrap_or(0);
        let cols = self.values.len().checked_div(rows).unwrap_or(0);
        let memory = ForwardError::Memory { rows: indices.len(), cols };
        let len = indices.len().checked_mul(cols).ok_or(memory)?;
        let mut values = Vec::new();
        values.try_reserve_exact(len).map_err(|_| memory)?;
        for (at, &row) in indices.iter().enumerate() {
            values.extend_from_slice(self.row(row).ok_or(ForwardError::NoRow { at, row, rows })?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_values_agree() {
        let tensor = |shape: &[usize], len| FloatTensor::new("t", shape, vec![1.0; len]);
        for (shape, len, fits) in [
            (&[][..], 1, true),
            (&[], 0, false),
            (&[3], 3, true),
            (&[3, 2], 6, true),
            (&[3, 2], 5, false),
            (&[0, usize::MAX, usize::MAX], 0, true),
            (&[usize::MAX, 2], 0, false),
        ] {
            assert_eq!(tensor(shape, len).is_ok(), fits, "{shape:?} {len}");
        }
        let error = tensor(&[2, 3], 4).unwrap_err();
        assert_eq!(error.to_string(), r#""t" of shape [2, 3] needs 6 values, got 4"#);
    }

    #[test]
    fn rows_are_those_of_the_first_dimension() {
        let tensor = FloatTensor::new("t", [2, 1, 2], vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((tensor.row(0), tensor.row(1)), (Some(&[0.0, 1.0][..]), Some(&[2.0, 3.0][..])));
        assert_eq!(tensor.row(2), None);
        assert_eq!(FloatTensor::new("t", [], vec![1.0]).unwrap().row(0), None);
        assert_eq!(FloatTensor::new("t", [0, 3], vec![]).unwrap().row(0), None);
        assert_eq!(FloatTensor::new("t", [3, 0], vec![]).unwrap().row(2), Some(&[][..]));
    }

    #[test]
    fn rows_are_gathered_or_the_first_that_is_missing_is_named() {
        let tensor = FloatTensor::new("t", [3, 2], (0..6).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        assert_eq!(tensor.gather(&[]), Ok(vec![]));
        assert_eq!(tensor.gather(&[1, 1, 0]), Ok(vec![2.0, 3.0, 2.0, 3.0, 0.0, 1.0]));
        assert_eq!(tensor.gather(&[0, 3, 4]), Err(ForwardError::NoRow { at: 1, row: 3, rows: 3 }));
        assert_eq!(
            tensor.gather(&[usize::MAX]),
            Err(ForwardError::NoRow { at: 0, row: usize::MAX, rows: 3 })
        );
        let (single, empty) = (FloatTensor::new("t", [], vec![1.0]), FloatTensor::new("t", [3, 0], vec![]));
        assert_eq!(single.unwrap().gather(&[0]), Err(ForwardError::NoRow { at: 0, row: 0, rows: 0 }));
        assert_eq!(empty.unwrap().gather(&[2, 2]), Ok(vec![]));
    }
}
