//! One f32 layer: `y = x * w^T + bias`.

use qkernels::{MatMut, MatRef, Threads, float};

use crate::forward::ForwardError;

/// An f32 layer as PyTorch's `nn.Linear` has it: weights (n, k) row-major, bias (n), all finite.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatLinear {
    name: String,
    n: usize,
    k: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Why tensors do not make a layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FloatLinearError {
    /// The layer has no inputs or no outputs.
    #[error("layer {layer:?} has n = {n} outputs and k = {k} inputs; both must be at least 1")]
    Empty {
        /// The layer.
        layer: String,
        /// Its outputs.
        n: usize,
        /// Its inputs.
        k: usize,
    },
    /// A tensor has another number of elements than its shape says.
    #[error("{tensor} of shape {shape:?} needs {} elements, got {len}", .shape.iter().map(|&d| d as u128).product::<u128>())]
    Length {
        /// The tensor, such as `fc1.weight`.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Elements given.
        len: usize,
    },
    /// A weight or bias is NaN or infinite.
    #[error("{tensor} is {value} at index {index}; weights and biases must be finite")]
    NonFinite {
        /// The tensor, such as `fc1.weight`.
        tensor: String,
        /// The first such index of the row-major data.
        index: usize,
        /// The value there.
        value: f32,
    },
}

impl FloatLinear {
    /// A layer of `weight` (n, k) and `bias` (n).
    ///
    /// # Errors
    /// [`FloatLinearError`] if n or k is 0, a length is not what the shape says, or a value is not finite.
    pub fn new(
        name: impl Into<String>,
        n: usize,
        k: usize,
        weight: Vec<f32>,
        bias: Vec<f32>,
    ) -> Result<Self, FloatLinearError> {
        let name = name.into();
        if n == 0 || k == 0 {
            return Err(FloatLinearError::Empty { layer: name, n, k });
        }
        let tensors = [("weight", &weight, vec![n, k], n.checked_mul(k)), ("bias", &bias, vec![n], Some(n))];
        for (kind, values, shape, len) in tensors {
            let tensor = || format!("{name}.{kind}");
            if len != Some(values.len()) {
                return Err(FloatLinearError::Length { tensor: tensor(), shape, len: values.len() });
            }
            if let Some((index, value)) = crate::rows::first_non_finite(values) {
                return Err(FloatLinearError::NonFinite { tensor: tensor(), index, value });
            }
        }
        Ok(Self { name, n, k, weight, bias })
    }

    /// The name, such as `fc1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Weights (n, k), row-major.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// Bias (n).
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Bytes of weights and bias.
    pub fn bytes(&self) -> usize {
        4 * (self.weight.len() + self.bias.len())
    }

    /// `out[i][j] = sum_k x[i][k] * weight[j][k] + bias[j]`, then ReLU if asked, for `x` (m, k) and `out` (m, n).
    pub(crate) fn forward(
        &self,
        x: MatRef<'_, f32>,
        relu: bool,
        out: &mut [f32],
        threads: Threads<'_>,
    ) -> Result<(), ForwardError> {
        let weight = MatRef::new(&self.weight, self.n, self.k)?;
        float::matmul(x, weight, MatMut::new(out, x.rows(), self.n)?, threads)?;
        for row in out.chunks_exact_mut(self.n) {
            for (y, bias) in row.iter_mut().zip(&self.bias) {
                let sum = *y + bias;
                *y = if relu && sum < 0.0 { 0.0 } else { sum };
            }
        }
        Ok(())
    }
}
