//! What a model has besides linear layers: norms, embeddings and other tensors of floats.

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
}
