//! The f32 form of a layer: `y = x * w^T + bias`.

use qcore::ActivationFunction;
use qkernels::{MatMut, MatRef, StageError, Threads, float};

use super::forward_error::ForwardError;
use super::head::{Head, head_methods};
use super::rows::blocks;
use super::rows::{check_input, check_output};
use super::storage::Storage;
use super::watch::SharedWatch;

/// An f32 layer like PyTorch's `nn.Linear`, with weights (n, k) row-major and perhaps a bias (n),
/// all finite. An activation function may follow.
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::FloatLinear;
/// let layer = FloatLinear::new("fc1", 2, 3, vec![1.0, 2.0, 3.0, 0.5, 0.0, -1.0], vec![0.25, 0.0])?;
/// let mut y = [0.0; 2];
/// layer.forward(MatRef::new(&[1.0, 0.0, 2.0], 1, 3)?, MatMut::new(&mut y, 1, 2)?, Threads::Serial)?;
/// assert_eq!(y, [7.25, -1.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FloatLinear {
    pub(crate) head: Head,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// Looks at the layer's inputs while a model is calibrated.
    watch: Option<SharedWatch>,
}

/// Two layers are equal if their names, weights, biases and activation functions are. Who watches
/// them does not matter.
impl PartialEq for FloatLinear {
    fn eq(&self, other: &Self) -> bool {
        (&self.head, &self.weight, &self.bias) == (&other.head, &other.weight, &other.bias)
    }
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
    /// A tensor has a different number of elements than its shape says.
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
    /// Makes a layer of `weight` (n, k) and `bias` (n), with no activation function.
    ///
    /// # Errors
    /// [`FloatLinearError`] if n or k is 0, a length is not what the shape says, or a value is not
    /// finite.
    pub fn new(
        name: impl Into<String>,
        n: usize,
        k: usize,
        weight: Vec<f32>,
        bias: Vec<f32>,
    ) -> Result<Self, FloatLinearError> {
        Self::from_parts(name.into(), n, k, weight, Some(bias))
    }

    /// Makes a layer of `weight` (n, k) alone. Most layers of language models have no bias.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn without_bias(
        name: impl Into<String>,
        n: usize,
        k: usize,
        weight: Vec<f32>,
    ) -> Result<Self, FloatLinearError> {
        Self::from_parts(name.into(), n, k, weight, None)
    }

    pub(crate) fn from_parts(
        name: String,
        n: usize,
        k: usize,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    ) -> Result<Self, FloatLinearError> {
        if n == 0 || k == 0 {
            return Err(FloatLinearError::Empty { layer: name, n, k });
        }
        let weight_tensor = Some(("weight", &weight[..], vec![n, k], n.checked_mul(k)));
        let bias_tensor = bias.as_ref().map(|bias| ("bias", &bias[..], vec![n], Some(n)));
        for (kind, values, shape, len) in weight_tensor.into_iter().chain(bias_tensor) {
            let tensor = || format!("{name}.{kind}");
            if len != Some(values.len()) {
                return Err(FloatLinearError::Length { tensor: tensor(), shape, len: values.len() });
            }
            if let Some((index, value)) = qcore::first_non_finite(values) {
                return Err(FloatLinearError::NonFinite { tensor: tensor(), index, value });
            }
        }
        let head = Head { name, n, k, activation: ActivationFunction::Identity };
        Ok(Self { head, weight, bias, watch: None })
    }

    /// The same layer with other weights (n, k).
    ///
    /// # Errors
    /// [`FloatLinearError`] if there are more or fewer, or one is not finite.
    pub fn with_weight(&self, weight: Vec<f32>) -> Result<Self, FloatLinearError> {
        let layer = Self::from_parts(self.name().to_owned(), self.n(), self.k(), weight, self.bias.clone())?;
        Ok(layer.with_activation(self.activation()))
    }

    /// The same layer with this bias (n).
    ///
    /// # Errors
    /// [`FloatLinearError`] if there are more or fewer values, or one is not finite.
    pub fn with_bias(&self, bias: Vec<f32>) -> Result<Self, FloatLinearError> {
        let weight = self.weight.clone();
        let layer = Self::from_parts(self.name().to_owned(), self.n(), self.k(), weight, Some(bias))?;
        Ok(layer.with_activation(self.activation()))
    }

    /// The same layer with an activation function after it. If a bound or a slope is unusable
    /// ([`ActivationFunction::check`]), the layer cannot be run, quantized or saved.
    #[must_use]
    pub fn with_activation(mut self, activation: ActivationFunction) -> Self {
        self.head.activation = activation;
        self
    }

    head_methods!();

    /// Weights (n, k), row-major.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// Bias (n), if there is one.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Bytes of weights and bias.
    pub fn bytes(&self) -> usize {
        4 * (self.weight.len() + self.bias.as_ref().map_or(0, Vec::len))
    }

    pub(crate) fn storage(&self) -> Storage {
        let bias = self.bias.as_ref().map_or(0, Vec::len);
        Storage { weights: 4 * self.weight.len(), bias: 4 * bias, ..Storage::default() }
    }

    /// Whether calibration is watching the layer's inputs. That is so while
    /// [`calibrate_model`](crate::calibrate_model) runs its batches, and in clones that were made
    /// meanwhile. A watched layer gives the same outputs as ever.
    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// From now on `watch` looks at the inputs of this layer and of its later clones. `None` ends
    /// the watch on this layer.
    pub(crate) fn set_watch(&mut self, watch: Option<SharedWatch>) {
        self.watch = watch;
    }

    /// `out[i][j] = sum_k x[i][k] * weight[j][k] + bias[j]`, then the activation function, for `x`
    /// (m, k) and `out` (m, n). The last bits depend on the CPU and the batch.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong, or the activation function is unusable; nothing is
    /// written then.
    pub fn forward(
        &self,
        x: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.head.k)?;
        // The output's shape is checked before the input is read: an input with a stride of 0 may
        // claim any number of rows.
        check_output(&out, x.rows(), self.head.n)?;
        self.forward_blocks(x, out, x.rows(), threads)
    }

    /// Like [`forward`](Self::forward), but multiplies blocks of at most `size` rows, so that each
    /// block has the bits that it has alone. The caller has checked the shapes. A watch sees all
    /// rows at once.
    pub(crate) fn forward_blocks(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        size: usize,
        threads: Threads<'_>,
    ) -> Result<(), ForwardError> {
        let function = self.activation();
        function.check().map_err(|_| StageError::Activation { function })?;
        if let Some(watch) = &self.watch {
            watch.see(&x)?;
        }
        for rows in blocks(x.rows(), size) {
            if let (Some(x), Some(out)) = (x.row_range(rows.clone()), out.block(rows, 0..self.head.n)) {
                self.multiply(x, out, threads)?;
            }
        }
        Ok(())
    }

    fn multiply(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        threads: Threads<'_>,
    ) -> Result<(), ForwardError> {
        let weight = MatRef::new(&self.weight, self.head.n, self.head.k)?;
        float::matmul(x, weight, out.reborrow(), threads)?;
        for i in 0..x.rows() {
            let Some(row) = out.row_mut(i) else { continue };
            if let Some(bias) = &self.bias {
                row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
            self.head.activation.apply_slice(row);
        }
        Ok(())
    }
}
