//! The dynamic form (W8A8): floats are quantized by scales found in the values at hand, integers
//! are multiplied, and floats come out.

use qcore::{ActivationFunction, CodeRange, Float, Kind, QParams, first_non_finite};
use qkernels::{
    DequantizeTo, Dynamic, Kernel, MatMut, MatRef, PackedWeights, Scales, StoredFloat, Threads, gemm_dynamic,
};

use super::float::FloatLinear;
use super::forward_error::ForwardError;
use super::head::{Head, head_methods};
use super::layer_error::LayerError;
use super::rows::check_finite;
use super::rows::{check_input, check_output};
use super::static_linear::build::pack;
use super::storage::Storage;
use super::weight_codes::{codes, scheme_params, zero_points};
use super::workspace::LinearWorkspace;
use crate::config::weights::WeightConfig;

/// An int8 layer that needs no calibration: it finds a scale for each token, or one for all, in the
/// values at hand, and quantizes rows while they are packed for the kernel. `y = f32(acc) *
/// (x_scale * w_scale) + bias`.
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
    weights: PackedWeights,
    weight_scales: Vec<f32>,
    bias: Option<Vec<f32>>,
    activations: Dynamic,
}

/// The parts that make a [`DynamicLinear`].
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
    /// [`LayerError`] if lengths disagree, a scale or bias is unusable, or the sums of a channel
    /// could leave int32.
    pub fn new(parts: DynamicParts<'_>, kernel: Kernel) -> Result<Self, LayerError> {
        let DynamicParts { name, weight, weight_scales, weight_zero_points, bias, activations, activation } =
            parts;
        let (n, k) = (weight.rows(), weight.cols());
        if n == 0 || k == 0 {
            return Err(LayerError::Empty { n, k });
        }
        let lengths = [
            ("the weight scales", weight_scales.len()),
            ("the weight zero points", weight_zero_points.as_ref().map_or(n, Vec::len)),
            ("the bias", bias.as_ref().map_or(n, Vec::len)),
        ];
        if let Some((tensor, len)) = lengths.into_iter().find(|&(_, len)| len != n) {
            return Err(LayerError::Length { tensor, n, len });
        }
        let unusable = |scale: &f32| !(*scale > 0.0 && scale.is_finite());
        if let Some(channel) = weight_scales.iter().position(unusable) {
            return Err(LayerError::WeightScale { channel, scale: weight_scales[channel] });
        }
        if let Some((channel, bias)) = bias.as_ref().and_then(|bias| first_non_finite(bias)) {
            return Err(LayerError::Bias { channel, bias });
        }
        let activation = activation.check()?;
        let largest_input = largest_input(&activations)?;
        let weights = pack(weight, weight_zero_points.as_deref(), codes_of(&activations), kernel)?;
        weights.check_accumulators(largest_input, None)?;
        let head = Head { name, n, k, activation };
        Ok(Self { head, weights, weight_scales, bias, activations })
    }

    /// The int8 form of `layer`, packed for `kernel`. `weights` says how weights become codes. The
    /// bias stays as it is.
    ///
    /// # Errors
    /// [`LayerError`] if the scheme's codes are not in i8, or values are so extreme that scales
    /// leave f32.
    pub fn quantize(
        layer: &FloatLinear,
        activations: Dynamic,
        weights: &WeightConfig,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let params = scheme_params(layer, weights)?;
        let codes = codes(layer, &params)?;
        let weight = MatRef::new(&codes, layer.n(), layer.k())?;
        let parts = DynamicParts {
            name: layer.name().to_owned(),
            weight,
            weight_scales: params.iter().map(QParams::scale).collect(),
            weight_zero_points: zero_points(&params),
            bias: layer.bias().map(<[f32]>::to_vec),
            activations,
            activation: layer.activation(),
        };
        Self::new(parts, kernel)
    }

    head_methods!();

    /// The weights, packed; [`PackedWeights::unpack`] gives the codes (n, k) back.
    pub fn weights(&self) -> &PackedWeights {
        &self.weights
    }

    /// The scale of each output channel's weights (n); [`PackedWeights::zero_points`] has their
    /// zero points.
    pub fn weight_scales(&self) -> &[f32] {
        &self.weight_scales
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
    /// do that too.
    pub(crate) fn shares_a_scale(&self) -> bool {
        !matches!(self.activations, Dynamic::PerToken(_))
    }

    /// Bytes in memory: packed weights with their sums, scales and bias.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * (self.weight_scales.len() + self.bias.as_ref().map_or(0, Vec::len))
    }

    /// Bytes that must be stored: weights, scales, zero points (a byte each), bias.
    pub fn storage(&self) -> Storage {
        Storage {
            weights: self.n() * self.k(),
            scales: 4 * self.weight_scales.len(),
            zero_points: self.weights.zero_points().len(),
            bias: 4 * self.bias.as_ref().map_or(0, Vec::len),
        }
    }

    /// Quantizes `x` (m, k), multiplies, applies the activation function, and writes real values
    /// (m, n). Input and output may each be f32, f16 or bf16.
    ///
    /// Per token, a row has the same bits whatever the batch; per tensor, rows share a scale.
    /// Neither depends on the threads or the kernel. With a kept workspace nothing is allocated.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong, a value is NaN or infinite, or the scheme has no scale
    /// for a row; nothing is written then.
    pub fn forward<F: Float, T: StoredFloat>(
        &self,
        x: MatRef<'_, F>,
        out: MatMut<'_, T>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.k())?;
        check_output(&out, x.rows(), self.n())?;
        check_finite(&x, &mut workspace.row)?;
        let (stage, gemm) = (self.stage()?, &mut workspace.gemm);
        Ok(gemm_dynamic(x, self.activations, &self.weights, &stage, out, threads, gemm)?)
    }

    /// The output stage.
    pub(crate) fn stage<T: StoredFloat>(&self) -> Result<DequantizeTo<'_, T>, ForwardError> {
        let mut stage = DequantizeTo::<T>::new(Scales::PerChannel(&self.weight_scales))?;
        if let Some(bias) = &self.bias {
            stage = stage.with_float_bias(bias)?;
        }
        Ok(stage.with_activation(self.activation())?)
    }
}

/// The codes that activations are quantized to.
fn codes_of(activations: &Dynamic) -> CodeRange {
    match activations {
        Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) => scheme.codes,
        // Variants that are added later may need any codes.
        _ => CodeRange::U8,
    }
}

/// How far a code can be from its zero point, whatever the values at hand.
fn largest_input(activations: &Dynamic) -> Result<u32, LayerError> {
    let (Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme)) = activations else {
        return Ok(u32::MAX);
    };
    let codes = scheme.codes;
    if ![CodeRange::U8, CodeRange::I8].iter().any(|range| range.contains_range(codes)) {
        return Err(LayerError::Codes { operand: "activations", min: codes.min(), max: codes.max() });
    }
    Ok(match scheme.kind {
        Kind::Symmetric { .. } => codes.largest_distance(codes.middle()),
        // The zero point may be any code.
        _ => codes.largest_distance(codes.min()),
    })
}
