//! The dynamic form (W8A8, W4A8): floats are quantized by scales found in the values at hand,
//! integers are multiplied, and floats come out.

pub(crate) mod weights;

use qcore::{ActivationFunction, CodeRange, Float, Kind, QParams};
use qkernels::{
    DequantizeTo, Dynamic, DynamicError, KOrders, Kernel, MatMut, MatRef, QuantizedRows, ScaledWeights,
    Scales, StoredFloat, Threads, gemm_dynamic, gemm_rows, gemm_scaled, gemm_scaled_rows,
};

use self::weights::DynamicWeights;
use crate::config::weights::WeightConfig;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::head::{
    Head, checked_input_scale, float_stage, head_methods, head_setters, input_scale_methods,
};
use crate::layer::layer_error::LayerError;
use crate::layer::rows::{check_finite, check_input, check_output, divided};
use crate::layer::static_linear::build::pack;
use crate::layer::storage::Storage;
use crate::layer::weight_codes::{
    WeightCodes, check_bias, check_shape, dynamic_params, group_len, zero_points,
};
use crate::layer::workspace::LinearWorkspace;

/// An integer layer that needs no calibration: it finds a scale for each token, for each group of k
/// of it, or one for all, in the values at hand, and quantizes rows while they are packed for the
/// kernel. `y = f32(acc) * (x_scale * w_scale) + bias`. Weights have 8 or 4 bits and a scale for
/// each channel, or for each group of k; then y is the sum of such terms
/// ([`qkernels::gemm_scaled`]).
///
/// Construction proves that the int32 sums cannot overflow, whatever the input.
///
/// ```
/// use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
/// use qnn::{DynamicLinear, FloatLinear, LinearWorkspace, WeightConfig};
/// let float = FloatLinear::new("q_proj", 1, 2, vec![1.27, -0.64], vec![0.5])?;
/// let (weights, kernel) = (WeightConfig::default(), Kernel::select()?);
/// let layer = DynamicLinear::quantize(&float, Dynamic::default(), &weights, kernel)?;
/// let mut y = [0.0];
/// let (x, out) = (MatRef::new(&[255.0, 64.0], 1, 2)?, MatMut::new(&mut y, 1, 1)?);
/// layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())?;
/// assert!((y[0] - (255.0 * 1.27 - 64.0 * 0.64 + 0.5_f32)).abs() < 1e-4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DynamicLinear {
    pub(crate) head: Head,
    weights: DynamicWeights,
    bias: Option<Vec<f32>>,
    activations: Dynamic,
    input_scale: Option<Vec<f32>>,
}

/// The parts that make a [`DynamicLinear`] with weights of 8 bits and a scale for each channel.
#[derive(Clone, Debug)]
pub struct DynamicParts<'w> {
    /// The layer's name, unique in its model.
    pub name: String,
    /// Codes (n, k).
    pub weight: MatRef<'w, i8>,
    /// The scale of each output channel's weights (n).
    pub weight_scales: Vec<f32>,
    /// The zero point of each output channel's weights (n); `None` where all are 0.
    pub weight_zero_points: Option<Vec<i8>>,
    /// The bias of each output channel (n).
    pub bias: Option<Vec<f32>>,
    /// How the values at hand become codes. On CPUs with no more than AVX2, codes of 7 bits
    /// (`CodeRange::unsigned(7)`, as PyTorch's `reduce_range` has them) are multiplied 1.3 times as
    /// fast as those of 8.
    pub activations: Dynamic,
    /// The activation function that follows.
    pub activation: ActivationFunction,
}

impl DynamicLinear {
    /// Makes a layer of `parts`, packed for `kernel`.
    ///
    /// # Errors
    /// [`LayerError`] if lengths disagree, a scale or bias is unusable, activations have a scale
    /// for each group, or the sums of a channel could leave int32.
    pub fn new(parts: DynamicParts<'_>, kernel: Kernel) -> Result<Self, LayerError> {
        Self::with_orders(parts, None, kernel)
    }

    /// [`new`](Self::new), with the orders of k of the weights, if they are known.
    pub(crate) fn with_orders(
        parts: DynamicParts<'_>,
        orders: Option<&KOrders>,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let DynamicParts { name, weight, weight_scales, weight_zero_points, bias, activations, activation } =
            parts;
        let (n, k) = (weight.rows(), weight.cols());
        check_shape(n, k)?;
        let lengths = [
            ("the weight scales", weight_scales.len()),
            ("the weight zero points", weight_zero_points.as_ref().map_or(n, Vec::len)),
        ];
        if let Some((tensor, len)) = lengths.into_iter().find(|&(_, len)| len != n) {
            return Err(LayerError::Length { tensor, n, len });
        }
        let unusable = |scale: &f32| !(*scale > 0.0 && scale.is_finite());
        if let Some(channel) = weight_scales.iter().position(unusable) {
            return Err(LayerError::WeightScale { channel, scale: weight_scales[channel] });
        }
        check_bias(bias.as_deref(), n)?;
        let activation = activation.check()?;
        if let Some(group_len) = activations.group_len() {
            return Err(DynamicError::Groups { group_len }.into());
        }
        let largest_input = largest_input(&activations)?;
        let codes = pack(weight, weight_zero_points.as_deref(), activations.codes(), orders, kernel)?;
        codes.check_accumulators(largest_input, None)?;
        let head = Head { name, n, k, activation };
        let weights = DynamicWeights::PerChannel { codes, scales: weight_scales };
        Ok(Self { head, weights, bias, activations, input_scale: None })
    }

    /// Makes a layer of weights of 4 bits, or with a scale for each group of k. Symmetric i8
    /// activations are the usual ones: others need the sums of each group's weights, which are kept
    /// then ([`ScaledWeights::for_activations`]).
    ///
    /// # Errors
    /// [`LayerError`] if n or k is 0, the bias does not have n values, or one is not finite, the
    /// groups of activations are not those of the weights ([`ScaledWeights::check_activations`]),
    /// or the sums of a group could leave int32.
    pub fn from_weights(
        weights: ScaledWeights,
        bias: Option<Vec<f32>>,
        activations: Dynamic,
    ) -> Result<Self, LayerError> {
        let (n, k) = (weights.n(), weights.k());
        check_shape(n, k)?;
        check_bias(bias.as_deref(), n)?;
        weights.check_activations(activations)?;
        weights.check_accumulators(largest_input(&activations)?)?;
        let weights = DynamicWeights::Scaled(weights.for_activations(activations));
        Ok(Self { head: Head::unnamed(n, k), weights, bias, activations, input_scale: None })
    }

    /// The integer form of `layer`, packed for `kernel`. `weights` says how weights become codes;
    /// those of at most 4 bits are packed two to a byte. The bias stays as it is.
    ///
    /// # Errors
    /// [`LayerError`] if the scheme's codes are not in i8, the groups of activations are not those
    /// of the weights, or values are so extreme that scales leave f32.
    pub fn quantize(
        layer: &FloatLinear,
        activations: Dynamic,
        weights: &WeightConfig,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let params = dynamic_params(layer, weights)?;
        let codes = WeightCodes::nearest(layer.weight(), layer.n(), layer.k(), params, group_len(weights))?;
        Self::of_codes(layer, activations, &codes, kernel)
    }

    /// The integer form of `layer` with these codes of its weights.
    pub(crate) fn of_codes(
        layer: &FloatLinear,
        activations: Dynamic,
        weights: &WeightCodes,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let (n, k, bias) = (layer.n(), layer.k(), layer.bias().map(<[f32]>::to_vec));
        if weights.is_scaled() {
            let quantized = Self::from_weights(weights.scaled(n, k, kernel)?, bias, activations)?;
            return Ok(quantized.with_name(layer.name()).with_activation(layer.activation()));
        }
        let parts = DynamicParts {
            name: layer.name().to_owned(),
            weight: MatRef::new(&weights.codes, n, k)?,
            weight_scales: weights.params.iter().map(QParams::scale).collect(),
            weight_zero_points: zero_points(&weights.params),
            bias,
            activations,
            activation: layer.activation(),
        };
        Self::new(parts, kernel)
    }

    head_methods!();
    head_setters!();
    input_scale_methods!();

    /// Codes, scales and zero points, and minimums and parts where there are any.
    pub fn weights(&self) -> &DynamicWeights {
        &self.weights
    }

    /// The bias of each output channel (n), if there is one.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// How the values at hand become codes.
    pub fn activations(&self) -> &Dynamic {
        &self.activations
    }

    /// Whether all rows of the input share a scale. Variants of `Dynamic` that are added later may
    /// do that, too.
    pub(crate) fn shares_a_scale(&self) -> bool {
        !matches!(self.activations, Dynamic::PerToken(_) | Dynamic::PerGroup { .. } | Dynamic::GgmlQ8_0)
    }

    /// Bytes in memory: packed weights with their sums, scales, also those of inputs, and bias.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * self.bias.as_ref().map_or(0, Vec::len) + self.input_scale_bytes()
    }

    /// Bytes that must be stored: weights, scales, also those of inputs, zero points (a byte each),
    /// bias.
    pub fn storage(&self) -> Storage {
        self.weights.storage(self.bias()).with_input_scale(self.input_scale_bytes())
    }

    /// Divides `x` (m, k) by the input scale if there is one, quantizes it, multiplies, applies the
    /// activation function, and writes real values (m, n). Input and output may each be f32, f16 or
    /// bf16.
    ///
    /// Per token and per group, a row has the same bits whatever the batch; per tensor, rows share
    /// a scale. Neither depends on the threads or the kernel. With a kept workspace nothing is
    /// allocated.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong, a value (or its quotient) is NaN or infinite, or the
    /// scheme has no scale for a row; nothing is written then.
    pub fn forward<F: Float, T: StoredFloat>(
        &self,
        x: MatRef<'_, F>,
        out: MatMut<'_, T>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.k())?;
        check_output(&out, x.rows(), self.n())?;
        let x = divided(x, self.input_scale())?;
        check_finite(x, self.weights.kernel())?;
        let gemm = &mut workspace.gemm;
        match &self.weights {
            DynamicWeights::PerChannel { codes, scales } => {
                gemm_dynamic(x, self.activations, codes, &self.stage(scales)?, out, threads, gemm)?;
            }
            DynamicWeights::Scaled(weights) => {
                let stage = float_stage(self.bias(), self.activation())?;
                gemm_scaled(x, self.activations, weights, &stage, out, threads, gemm)?;
            }
        }
        Ok(())
    }

    /// As [`forward`](Self::forward) of rows that were quantized as this layer quantizes its input.
    pub(crate) fn forward_rows<T: StoredFloat>(
        &self,
        x: &QuantizedRows,
        out: MatMut<'_, T>,
        threads: Threads<'_>,
        workspace: &mut qkernels::Workspace,
    ) -> Result<(), ForwardError> {
        match &self.weights {
            DynamicWeights::PerChannel { codes, scales } => {
                gemm_rows(x, codes, &self.stage(scales)?, out, threads, workspace)?;
            }
            DynamicWeights::Scaled(weights) => {
                let stage = float_stage(self.bias(), self.activation())?;
                gemm_scaled_rows(x, weights, &stage, out, threads, workspace)?;
            }
        }
        Ok(())
    }

    /// The output stage of weights with a scale for each channel.
    fn stage<'a, T: StoredFloat>(&'a self, scales: &'a [f32]) -> Result<DequantizeTo<'a, T>, ForwardError> {
        let mut stage = DequantizeTo::<T>::new(Scales::PerChannel(scales))?;
        if let Some(bias) = &self.bias {
            stage = stage.with_float_bias(bias)?;
        }
        Ok(stage.with_activation(self.activation())?)
    }
}

/// How far a code can be from its zero point, whatever the values at hand.
fn largest_input(activations: &Dynamic) -> Result<u32, LayerError> {
    let codes = activations.codes();
    if ![CodeRange::U8, CodeRange::I8].iter().any(|range| range.contains_range(codes)) {
        return Err(LayerError::Codes { operand: "activations", min: codes.min(), max: codes.max() });
    }
    let symmetric = match activations {
        Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) | Dynamic::PerGroup { scheme, .. } => {
            matches!(scheme.kind, Kind::Symmetric { .. })
        }
        Dynamic::GgmlQ8_0 => true,
        _ => false,
    };
    // Else the zero point may be any code.
    Ok(codes.largest_distance(if symmetric { codes.middle() } else { codes.min() }))
}
