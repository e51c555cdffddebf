//! The `Int8Linear` of courses and tutorials.

use qcore::{
    ChannelAxis, ChannelError, Float, QParams, Scheme, channel_params, dequantize_per_channel_into,
    quantize_per_channel,
};
use qkernels::{MatMut, MatRef};

use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::{check_input, check_output};

/// The layer with int8 weights that tutorials write: dequantize the weights, then multiply.
///
/// Weights are codes with a scale for each output channel. The bias and the activations are floats.
/// [`forward`](Self::forward) restores the weights in the type of the activations and multiplies in
/// f64. [`WeightOnlyLinear`](crate::WeightOnlyLinear) is the fast layer of this kind.
///
/// ```
/// use qcore::Scheme;
/// use qkernels::{MatMut, MatRef};
/// use qnn::{FloatLinear, reference::Int8Linear};
/// let float = FloatLinear::new("fc1", 1, 2, vec![1.27, -0.504], vec![0.5])?;
/// let layer = Int8Linear::quantize(&float, &Scheme::weights_i8())?;
/// assert_eq!((layer.weight(), layer.stored_bytes()), (&[127, -50][..], 2 + 4 + 4));
/// let mut y = [0.0];
/// layer.forward(MatRef::new(&[1.0, 2.0], 1, 2)?, MatMut::new(&mut y, 1, 1)?)?;
/// assert_eq!(y, [1.27 - 2.0 * 0.5 + 0.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Linear {
    axis: ChannelAxis,
    weight: Vec<i8>,
    params: Vec<QParams>,
    bias: Option<Vec<f32>>,
}

impl Int8Linear {
    /// Quantizes the weights of `layer` by `scheme`, with a scale for each output channel. The bias
    /// stays as it is.
    ///
    /// # Errors
    /// [`ChannelError`] if the scheme has no parameters for a channel, or codes that are not in i8.
    pub fn quantize(layer: &FloatLinear, scheme: &Scheme) -> Result<Self, ChannelError> {
        // The weights exist, so n * k does not overflow.
        let axis = ChannelAxis::rows(layer.n(), layer.k())
            .map_err(|_| ChannelError::Data { expected: usize::MAX, got: layer.weight().len() })?;
        let params = channel_params(layer.weight(), axis, scheme)?;
        let mut weight = vec![0_i8; layer.weight().len()];
        quantize_per_channel(layer.weight(), axis, &params, &mut weight)?;
        Ok(Self { axis, weight, params, bias: layer.bias().map(<[f32]>::to_vec) })
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.axis.channels()
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.axis.inner()
    }

    /// Codes (n, k), row-major.
    pub fn weight(&self) -> &[i8] {
        &self.weight
    }

    /// The parameters of each output channel's weights (n).
    pub fn params(&self) -> &[QParams] {
        &self.params
    }

    /// Bytes of codes, f32 scales and f32 bias.
    pub fn stored_bytes(&self) -> usize {
        self.weight.len() + 4 * (self.params.len() + self.bias.as_ref().map_or(0, Vec::len))
    }

    /// Computes `out[i][j] = sum_k x[i][k] * w[j][k] + bias[j]`, where w is restored in the type
    /// `T`. Sums are in f64 and rounded to `T` once.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong; nothing is written then.
    pub fn forward<T: Float>(&self, x: MatRef<'_, T>, mut out: MatMut<'_, T>) -> Result<(), ForwardError> {
        check_input(&x, self.k())?;
        check_output(&out, x.rows(), self.n())?;
        let mut restored = vec![T::default(); self.weight.len()];
        dequantize_per_channel_into(&self.weight, self.axis, &self.params, &mut restored)?;
        for i in 0..x.rows() {
            let Some(row) = out.row_mut(i) else { continue };
            for (channel, (y, w)) in row.iter_mut().zip(restored.chunks_exact(self.k())).enumerate() {
                let x = (0..self.k()).filter_map(|p| x.get(i, p));
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[channel]);
                *y = T::narrow((dot(x, w.iter().copied()) + f64::from(bias)) as f32);
            }
        }
        Ok(())
    }
}

/// `sum_k a[k] * b[k]` in f64.
pub(crate) fn dot<T: Float>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a.widen()) * f64::from(b.widen())).sum()
}
