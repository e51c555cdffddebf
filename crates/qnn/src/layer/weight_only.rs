//! The form in which only the weights are quantized: floats come in, weights are i8 or 4 bits,
//! floats come out.

use qcore::{ActivationFunction, Float};
use qkernels::{Kernel, MatMut, MatRef, ScaledWeights, Threads, weight_only};

use super::float::FloatLinear;
use super::forward_error::ForwardError;
use super::head::{Head, checked_input_scale, float_stage, head_methods, head_setters, input_scale_methods};
use super::layer_error::LayerError;
use super::rows::{check_input, check_output, divided};
use super::storage::Storage;
use super::weight_codes::{
    WeightCodes, check_bias, check_shape, group_len, scaled_params, scaled_storage, scaled_weights,
};
use super::workspace::LinearWorkspace;
use crate::config::weights::WeightConfig;

/// A layer with i8 or 4-bit weights and float activations (W8A32, W8A16, W4A32, W4A16): `y = x *
/// dequantize(w)^T + bias`. Weights are read as they are packed and become f32 in registers. With
/// few rows, reading weights is what takes time.
///
/// ```
/// use half::f16;
/// use qkernels::{Kernel, MatMut, MatRef, Threads};
/// use qnn::{LinearWorkspace, WeightConfig, WeightOnlyLinear};
///
/// let (w, bias) = ([1.27, -0.5, 0.25, 0.5, 0.0, -1.0], [0.5, -0.5]); // (n, k) = (2, 3), as `nn.Linear` has them
/// let layer = WeightOnlyLinear::new(&w, 2, 3, Some(&bias), &WeightConfig::default(), Kernel::select()?)?;
/// let x = [1.0f32, 2.0, -1.0];
/// let mut y = [0.0f32; 2];
/// let mut workspace = LinearWorkspace::new();
/// layer.forward(MatRef::new(&x, 1, 3)?, MatMut::new(&mut y, 1, 2)?, Threads::Serial, &mut workspace)?;
/// assert!((y[0] - 0.52).abs() < 0.02 && (y[1] - 1.0).abs() < 0.02);
///
/// let x = x.map(f16::from_f32); // halves in, halves out
/// let mut y = [f16::ZERO; 2];
/// layer.forward(MatRef::new(&x, 1, 3)?, MatMut::new(&mut y, 1, 2)?, Threads::Serial, &mut workspace)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct WeightOnlyLinear {
    pub(crate) head: Head,
    weights: ScaledWeights,
    bias: Option<Vec<f32>>,
    input_scale: Option<Vec<f32>>,
}

impl WeightOnlyLinear {
    /// Quantizes `weight` (n, k), row-major, for products on `kernel`. Codes of at most 4 bits, -8
    /// to 7 or 0 to 15, are packed two to a byte.
    ///
    /// # Errors
    /// [`LayerError`] if n or k is 0, a length is not what the shape says, a value is not finite,
    /// or the scheme has no parameters for a channel or group.
    pub fn new(
        weight: &[f32],
        n: usize,
        k: usize,
        bias: Option<&[f32]>,
        config: &WeightConfig,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        Self::from_weights(scaled_weights(weight, n, k, config, kernel)?, bias.map(<[f32]>::to_vec))
    }

    /// Makes a layer of weights that are quantized already.
    ///
    /// # Errors
    /// [`LayerError`] if n or k is 0, or the bias does not have n values, or one is not finite.
    pub fn from_weights(weights: ScaledWeights, bias: Option<Vec<f32>>) -> Result<Self, LayerError> {
        let (n, k) = (weights.n(), weights.k());
        check_shape(n, k)?;
        check_bias(bias.as_deref(), n)?;
        Ok(Self { head: Head::unnamed(n, k), weights, bias, input_scale: None })
    }

    /// The int8 form of `layer`, with the same name, activation function and bias.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn quantize(layer: &FloatLinear, config: &WeightConfig, kernel: Kernel) -> Result<Self, LayerError> {
        let (n, k) = (layer.n(), layer.k());
        let params = scaled_params(layer.weight(), n, k, config)?;
        let codes = WeightCodes::nearest(layer.weight(), n, k, params, group_len(config))?;
        Self::of_codes(layer, &codes, kernel)
    }

    /// `layer` with these codes of its weights.
    pub(crate) fn of_codes(
        layer: &FloatLinear,
        weights: &WeightCodes,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let weights = weights.scaled(layer.n(), layer.k(), kernel)?;
        let quantized = Self::from_weights(weights, layer.bias().map(<[f32]>::to_vec))?;
        Ok(quantized.with_name(layer.name()).with_activation(layer.activation()))
    }

    head_methods!();
    head_setters!();
    input_scale_methods!();

    /// Codes, scales and zero points, and minimums and parts where there are any.
    pub fn weights(&self) -> &ScaledWeights {
        &self.weights
    }

    /// The bias (n).
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The weights (n, k) that the layer multiplies by, row-major. Where there is an input scale,
    /// they multiply `x / s`.
    pub fn unpack(&self) -> Vec<f32> {
        self.weights.dequantize()
    }

    /// Bytes in memory: packed weights, scales, also those of inputs, zero points and bias.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * self.bias.as_ref().map_or(0, Vec::len) + self.input_scale_bytes()
    }

    /// Bytes that must be stored: weights, scales, also those of inputs, zero points (a byte each,
    /// unless all are 0, or 8 for 4 bits), minimums, bias.
    pub fn storage(&self) -> Storage {
        scaled_storage(&self.weights, self.bias.as_deref()).with_input_scale(self.input_scale_bytes())
    }

    /// Computes `out` (m, n) of `x` (m, k), divided by the input scale if there is one.
    /// [`weight_only`] says how precise it is, and what the bits depend on.
    ///
    /// # Errors
    /// [`ForwardError`] if the shapes of `x` and `out` do not fit the layer, or sums may leave f32;
    /// nothing is written then.
    pub fn forward<A: Float, Y: Float>(
        &self,
        x: MatRef<'_, A>,
        out: MatMut<'_, Y>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.k())?;
        check_output(&out, x.rows(), self.n())?;
        let stage = float_stage(self.bias(), self.activation())?;
        let x = divided(x, self.input_scale())?;
        Ok(weight_only(x, &self.weights, &stage, out, threads, &mut workspace.gemm)?)
    }
}
