//! One int8 layer: packed weights, their scales, an int32 bias, and the parameters of the input.

use qcore::{AccumulatorError, QParams, check_accumulator, output_multiplier};
use qkernels::{
    Activation, Activations, Dequantize, Kernel, MatMut, MatRef, PackError, PackedWeights, Requantize,
    Scales, Threads, ViewError, Workspace, gemm,
};

use crate::forward::ForwardError;

/// An int8 layer: `acc = sum_k (x[k] - zero_point) * w[k] + bias` in int32, whose unit is `input_scale * weight_scale`.
///
/// Every layer is proven on construction: its int32 sums cannot overflow, whatever the input, and its scales are usable.
#[derive(Clone, Debug)]
pub struct QuantLinear {
    name: String,
    weights: PackedWeights,
    weight_scales: Vec<f32>,
    bias: Vec<i32>,
    input: QParams,
    /// What a sum is multiplied by: to the next layer's codes, or for the last layer to real values.
    factors: Vec<f32>,
}

/// Why codes and scales do not make a layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantLinearError {
    /// A weight scale is 0, negative, infinite or NaN.
    #[error("weight scale {scale:e} of channel {channel} must be finite and greater than 0")]
    WeightScale {
        /// The output channel.
        channel: usize,
        /// Its scale.
        scale: f32,
    },
    /// The unit of a channel's sums is not a normal number.
    #[error(
        "channel {channel}: input scale {input_scale:e} times weight scale {weight_scale:e} is too large or too small for f32"
    )]
    SumScale {
        /// The output channel.
        channel: usize,
        /// Scale of the layer's input.
        input_scale: f32,
        /// Scale of the channel's weights.
        weight_scale: f32,
    },
    /// `input_scale * weight_scale / output_scale` overflows.
    #[error(
        "channel {channel}: the multiplier from sums of unit {sum_scale:e} to codes of scale {output_scale:e} is too large for f32"
    )]
    Multiplier {
        /// The output channel.
        channel: usize,
        /// Input scale times weight scale.
        sum_scale: f32,
        /// Scale of the next layer's input.
        output_scale: f32,
    },
    /// The sums of a channel might exceed int32.
    #[error(transparent)]
    Overflow(#[from] AccumulatorError),
    /// The weights could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The weights have another length than the shape says.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// What a layer is made of. Lengths: weights n * k, scales and bias n, all checked by the maker.
pub(crate) struct Parts<'w> {
    pub(crate) name: String,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Codes (n, k), row-major.
    pub(crate) weights: &'w [i8],
    pub(crate) weight_scales: Vec<f32>,
    pub(crate) bias: Vec<i32>,
    pub(crate) input: QParams,
    /// Scale of the next layer's input; `None` for the last layer.
    pub(crate) output_scale: Option<f32>,
}

impl QuantLinear {
    pub(crate) fn new(parts: Parts<'_>, kernel: Kernel) -> Result<Self, QuantLinearError> {
        let Parts { name, n, k, weights, weight_scales, bias, input, output_scale } = parts;
        let factor = |(channel, &weight_scale): (usize, &f32)| {
            factor(channel, input.scale(), weight_scale, output_scale)
        };
        let factors = weight_scales.iter().enumerate().map(factor).collect::<Result<_, _>>()?;
        let weights = PackedWeights::from_nk(MatRef::new(weights, n, k)?, kernel)?;
        let largest_input = input.codes().largest_distance(input.zero_point());
        for (channel, (&abs_sum, &bias)) in weights.channel_abs_sums().iter().zip(&bias).enumerate() {
            check_accumulator(channel, largest_input, u64::from(abs_sum), bias)?;
        }
        Ok(Self { name, weights, weight_scales, bias, input, factors })
    }

    /// The name, such as `fc1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.weights.n()
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.weights.k()
    }

    /// The weights, packed; [`PackedWeights::unpack`] gives the codes (n, k) back.
    pub fn weights(&self) -> &PackedWeights {
        &self.weights
    }

    /// The scale of each output channel's weights (n); their zero point is 0.
    pub fn weight_scales(&self) -> &[f32] {
        &self.weight_scales
    }

    /// The bias of each output channel (n), in units of `input_scale * weight_scale`.
    pub fn bias(&self) -> &[i32] {
        &self.bias
    }

    /// Scale, zero point and codes of the input.
    pub fn input(&self) -> &QParams {
        &self.input
    }

    /// Bytes in memory: packed weights with their sums, scales, multipliers and bias.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * (self.weight_scales.len() + self.factors.len() + self.bias.len())
    }

    /// Bytes without padding and without what can be computed: weights, scales, bias, scale and zero point of the input.
    pub fn stored_bytes(&self) -> usize {
        self.n() * self.k() + 4 * (self.weight_scales.len() + self.bias.len()) + 8
    }

    /// The factor of each channel: [`output_multiplier`], or `input_scale * weight_scale` for the last layer.
    pub(crate) fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// ReLU, then the codes that the next layer takes, whose parameters are `next`.
    pub(crate) fn forward_codes<C: Activation>(
        &self,
        x: MatRef<'_, C>,
        next: &QParams,
        out: MatMut<'_, C>,
        threads: Threads<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), ForwardError> {
        let stage = Requantize::<C>::new(Scales::PerChannel(&self.factors))?
            .with_bias(&self.bias)
            .with_zero_point(C::from_clamped(next.zero_point()))
            .with_relu();
        Ok(gemm(self.activations(x), &self.weights, &stage, out, threads, workspace)?)
    }

    /// The real values, without ReLU: what the last layer gives.
    pub(crate) fn forward_values<C: Activation>(
        &self,
        x: MatRef<'_, C>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), ForwardError> {
        let stage = Dequantize::new(Scales::PerChannel(&self.factors))?.with_bias(&self.bias);
        Ok(gemm(self.activations(x), &self.weights, &stage, out, threads, workspace)?)
    }

    /// The codes of `x` with this layer's zero point.
    pub(crate) fn activations<'a, C: Activation>(&self, x: MatRef<'a, C>) -> Activations<'a, C> {
        Activations::new(x, self.input.zero_point())
    }
}

fn factor(
    channel: usize,
    input_scale: f32,
    weight_scale: f32,
    output_scale: Option<f32>,
) -> Result<f32, QuantLinearError> {
    if !(weight_scale > 0.0 && weight_scale.is_finite()) {
        return Err(QuantLinearError::WeightScale { channel, scale: weight_scale });
    }
    let sum_scale = input_scale * weight_scale;
    if !sum_scale.is_normal() {
        return Err(QuantLinearError::SumScale { channel, input_scale, weight_scale });
    }
    let Some(output_scale) = output_scale else { return Ok(sum_scale) };
    let multiplier = output_multiplier(input_scale, weight_scale, output_scale);
    if !multiplier.is_finite() {
        return Err(QuantLinearError::Multiplier { channel, sum_scale, output_scale });
    }
    Ok(multiplier)
}
