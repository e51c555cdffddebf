//! The form in which only the weights are quantized: floats come in, weights are i8 or 4 bits,
//! floats come out.

use qcore::{
    ActivationFunction, CodeRange, Float, Groups, first_non_finite, group_params, quantize_per_group,
};
use qkernels::{
    FloatStage, Kernel, MatMut, MatRef, PackedNibbles, PackedWeights, ScaledWeights, Threads, WeightScales,
    weight_only,
};

use super::float::FloatLinear;
use super::forward_error::ForwardError;
use super::head::{Head, head_methods};
use super::layer_error::LayerError;
use super::rows::{check_input, check_output};
use super::storage::Storage;
use super::weight_codes::StoredCodes;
use super::workspace::LinearWorkspace;
use crate::config::weights::WeightOnlyConfig;

/// A layer with i8 or 4-bit weights and float activations (W8A32, W8A16, W4A32, W4A16): `y = x *
/// dequantize(w)^T + bias`. Weights are read as they are packed and become f32 in registers. With
/// few rows, reading weights is what takes time.
///
/// ```
/// use half::f16;
/// use qkernels::{Kernel, MatMut, MatRef, Threads};
/// use qnn::{LinearWorkspace, WeightOnlyConfig, WeightOnlyLinear};
///
/// let (w, bias) = ([1.27, -0.5, 0.25, 0.5, 0.0, -1.0], [0.5, -0.5]); // (n, k) = (2, 3), as `nn.Linear` has them
/// let layer = WeightOnlyLinear::new(&w, 2, 3, Some(&bias), &WeightOnlyConfig::default(), Kernel::select()?)?;
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
        config: &WeightOnlyConfig,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        check_shape(n, k)?;
        let groups = Groups::new(n, k, config.group_len.unwrap_or(k))?;
        let params = group_params(weight, groups, &config.scheme)?;
        let mut codes = vec![0i8; weight.len()];
        quantize_per_group(weight, groups, &params, &mut codes)?;
        let scales: Vec<f32> = params.iter().map(|params| params.scale()).collect();
        let zero_points = params.iter().enumerate().map(|(group, params)| {
            let zero_point = params.zero_point();
            i8::try_from(zero_point).map_err(|_| LayerError::GroupZeroPoint { group, zero_point })
        });
        let zero_points = zero_points.collect::<Result<Vec<i8>, _>>()?;
        let bias = bias.map(<[f32]>::to_vec);
        if let Some(least) = least_nibble(config.scheme.codes, &zero_points) {
            let nibble = |&code: &i8| code.wrapping_sub(least);
            let codes: Vec<u8> = codes.iter().map(|code| nibble(code).cast_unsigned()).collect();
            let zero_points: Vec<i8> = zero_points.iter().map(nibble).collect();
            let codes = StoredCodes::Nibbles(MatRef::new(&codes, n, k)?);
            return Self::from_codes(codes, &scales, Some(&zero_points), config.group_len, bias, kernel);
        }
        let affine = zero_points.iter().any(|&zero_point| zero_point != 0);
        let zero_points = affine.then_some(&zero_points[..]);
        let codes = StoredCodes::Bytes(MatRef::new(&codes, n, k)?);
        Self::from_codes(codes, &scales, zero_points, config.group_len, bias, kernel)
    }

    /// Makes a layer of codes (n, k), with a scale and perhaps a zero point for each channel, or
    /// for each group of `group` weights.
    pub(crate) fn from_codes(
        codes: StoredCodes<'_>,
        scales: &[f32],
        zero_points: Option<&[i8]>,
        group: Option<usize>,
        bias: Option<Vec<f32>>,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        // Before packing, which allocates for each row: a matrix without elements may claim any
        // number.
        let (n, k) = codes.shape();
        check_shape(n, k)?;
        let scales = match group {
            None => WeightScales::per_channel(scales),
            Some(group) => WeightScales::per_group(scales, group),
        };
        let scales = match zero_points {
            None => scales,
            Some(zero_points) => scales.with_zero_points(zero_points),
        };
        let weights = match codes {
            StoredCodes::Bytes(codes) => ScaledWeights::new(PackedWeights::from_nk(codes, kernel)?, scales)?,
            StoredCodes::Nibbles(codes) => {
                ScaledWeights::of_nibbles(PackedNibbles::from_nk(codes, kernel)?, scales)?
            }
        };
        Self::from_weights(weights, bias)
    }

    /// Makes a layer of weights that are quantized already.
    ///
    /// # Errors
    /// [`LayerError`] if n or k is 0, or the bias does not have n values, or one is not finite.
    pub fn from_weights(weights: ScaledWeights, bias: Option<Vec<f32>>) -> Result<Self, LayerError> {
        let (n, k) = (weights.n(), weights.k());
        check_shape(n, k)?;
        if let Some(bias) = &bias {
            if bias.len() != n {
                return Err(LayerError::Length { tensor: "the bias", n, len: bias.len() });
            }
            if let Some((channel, bias)) = first_non_finite(bias) {
                return Err(LayerError::Bias { channel, bias });
            }
        }
        let head = Head { name: String::new(), n, k, activation: ActivationFunction::Identity };
        Ok(Self { head, weights, bias })
    }

    /// The int8 form of `layer`, with the same name, activation function and bias.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn quantize(
        layer: &FloatLinear,
        config: &WeightOnlyConfig,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let quantized = Self::new(layer.weight(), layer.n(), layer.k(), layer.bias(), config, kernel)?;
        Ok(quantized.with_name(layer.name()).with_activation(layer.activation()))
    }

    /// The same layer with a name, unique in its model. A new layer's name is empty.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }

    /// The same layer with an activation function after it. If a bound or a slope is unusable
    /// ([`ActivationFunction::check`]), [`forward`](Self::forward) fails.
    #[must_use]
    pub fn with_activation(mut self, activation: ActivationFunction) -> Self {
        self.head.activation = activation;
        self
    }

    head_methods!();

    /// Codes, scales and zero points.
    pub fn weights(&self) -> &ScaledWeights {
        &self.weights
    }

    /// The bias (n).
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The weights (n, k) that the layer multiplies by, row-major.
    pub fn unpack(&self) -> Vec<f32> {
        self.weights.dequantize()
    }

    /// Bytes in memory: packed weights, scales, zero points and bias.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * self.bias.as_ref().map_or(0, Vec::len)
    }

    /// Bytes that must be stored: weights, scales, zero points (a byte each, unless all are 0, or 8
    /// for 4 bits), bias.
    pub fn storage(&self) -> Storage {
        let groups = self.n() * self.weights.groups();
        Storage {
            weights: self.n() * if self.weights.bits() == 4 { self.k().div_ceil(2) } else { self.k() },
            scales: 4 * groups,
            zero_points: if self.stored_zero_points().is_some() { groups } else { 0 },
            bias: 4 * self.bias.as_ref().map_or(0, Vec::len),
        }
    }

    /// The zero points, unless all are what codes of these bits have by themselves.
    pub(crate) fn stored_zero_points(&self) -> Option<Vec<i8>> {
        let usual = if self.weights.bits() == 4 { USUAL_NIBBLE_ZERO } else { 0 };
        let all = self.weights.zero_points();
        let all = all.unwrap_or_else(|| vec![0; self.n() * self.weights.groups()]);
        all.iter().any(|&zero_point| zero_point != usual).then_some(all)
    }

    /// Computes `out` (m, n) of `x` (m, k). [`weight_only`] says how precise it is, and what the
    /// bits depend on.
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
        let stage = match &self.bias {
            None => FloatStage::new(),
            Some(bias) => FloatStage::new().with_bias(bias)?,
        };
        let stage = stage.with_activation(self.activation())?;
        Ok(weight_only(x, &self.weights, &stage, out, threads, &mut workspace.gemm)?)
    }
}

/// The zero point of signed codes of 4 bits that are packed as 0 to 15.
pub(crate) const USUAL_NIBBLE_ZERO: i8 = 8;

/// The code that is packed as 0, if codes and zero points fit 4 bits.
fn least_nibble(codes: CodeRange, zero_points: &[i8]) -> Option<i8> {
    let fits = |least: i32| {
        let range = least..least + 16;
        let all = zero_points.iter().all(|&zero_point| range.contains(&zero_point.into()));
        range.contains(&codes.min()) && range.contains(&codes.max()) && all
    };
    [-8_i8, 0].into_iter().find(|&least| fits(least.into()))
}

/// Checks that a layer has an output and an input.
fn check_shape(n: usize, k: usize) -> Result<(), LayerError> {
    if n == 0 || k == 0 { Err(LayerError::Empty { n, k }) } else { Ok(()) }
}
