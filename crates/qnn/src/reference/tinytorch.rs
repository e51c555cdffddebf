//! TinyTorch's `QuantizedLinear`.

use qcore::{QParams, Scheme, TensorError, dequantize_slice, quantize_tensor};
use qkernels::{MatMut, MatRef};

use super::tutorial::dot;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::{check_input, check_output};

/// TinyTorch's layer. Weights and bias are affine int8 tensors with one scale and zero point each
/// ([`Scheme::tinytorch`]). They are dequantized, then multiplied in float.
///
/// ```
/// use qkernels::{MatMut, MatRef};
/// use qnn::{FloatLinear, reference::QuantizedLinear};
/// let float = FloatLinear::new("fc1", 1, 3, vec![0.0, 1.0, -1.55], vec![0.5])?;
/// let layer = QuantizedLinear::quantize(&float)?;
/// assert_eq!((layer.weight(), layer.weight_params().zero_point()), (&[27, 127, -128][..], 27));
/// let mut y = [0.0];
/// layer.forward(MatRef::new(&[0.0, 1.0, 0.0], 1, 3)?, MatMut::new(&mut y, 1, 1)?)?;
/// assert_eq!(y, [1.0]); // a single bias is a constant tensor, which this scheme loses
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLinear {
    n: usize,
    k: usize,
    weight: Vec<i8>,
    weight_params: QParams,
    bias: Option<(Vec<i8>, QParams)>,
}

impl QuantizedLinear {
    /// Quantizes the weights and the bias of `layer`, each as one tensor.
    ///
    /// # Errors
    /// [`TensorError`] if a tensor's range overflows f32.
    pub fn quantize(layer: &FloatLinear) -> Result<Self, TensorError> {
        let (weight, weight_params) = quantize_tensor(layer.weight(), &Scheme::tinytorch())?;
        let bias = layer.bias().map(|bias| quantize_tensor(bias, &Scheme::tinytorch())).transpose()?;
        Ok(Self { n: layer.n(), k: layer.k(), weight, weight_params, bias })
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Codes (n, k), row-major. (TinyTorch keeps them transposed.)
    pub fn weight(&self) -> &[i8] {
        &self.weight
    }

    /// Scale and zero point of the weights.
    pub fn weight_params(&self) -> &QParams {
        &self.weight_params
    }

    /// Codes of the bias (n) and their parameters, if there is one.
    pub fn bias(&self) -> Option<(&[i8], &QParams)> {
        self.bias.as_ref().map(|(codes, params)| (&codes[..], params))
    }

    /// Bytes of all codes, and eight bytes for each tensor's scale and zero point.
    pub fn stored_bytes(&self) -> usize {
        self.weight.len() + 8 + self.bias.as_ref().map_or(0, |(codes, _)| codes.len() + 8)
    }

    /// Computes `out[i][j] = sum_k x[i][k] * w[j][k] + bias[j]` with the restored weights and bias.
    /// Sums are in f64 and rounded once.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong; nothing is written then.
    pub fn forward(&self, x: MatRef<'_, f32>, mut out: MatMut<'_, f32>) -> Result<(), ForwardError> {
        check_input(&x, self.k)?;
        check_output(&out, x.rows(), self.n)?;
        let (mut weight, mut bias) = (vec![0.0; self.weight.len()], vec![0.0; self.n]);
        // Lengths are equal by construction, so neither can fail.
        dequantize_slice(&self.weight, &self.weight_params, &mut weight).unwrap_or_default();
        if let Some((codes, params)) = &self.bias {
            dequantize_slice(codes, params, &mut bias).unwrap_or_default();
        }
        for i in 0..x.rows() {
            let Some(row) = out.row_mut(i) else { continue };
            for ((y, w), bias) in row.iter_mut().zip(weight.chunks_exact(self.k)).zip(&bias) {
                let x = (0..self.k).filter_map(|p| x.get(i, p));
                *y = (dot(x, w.iter().copied()) + f64::from(*bias)) as f32;
            }
        }
        Ok(())
    }
}
