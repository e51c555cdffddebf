//! What a `StaticLinear` is made of, and how it is checked.

use qcore::{ActivationFunction, CodeRange, QParams, output_multiplier};
use qkernels::{KOrders, Kernel, MatRef, PackError, PackedWeights, Weights, ZeroPoints};

use crate::config::activation_codes::ActivationCodes;
use crate::layer::head::{Head, checked_input_scale, head_methods, input_scale_methods};
use crate::layer::layer_error::LayerError;
use crate::layer::storage::Storage;

/// An int8 layer with calibrated scales: `acc = sum_k (x[k] - zero_point) * (w[k] - w_zero_point) +
/// bias` in int32, whose unit is `input_scale * weight_scale`.
///
/// Construction proves that the int32 sums cannot overflow, whatever the input, and that the scales
/// are usable. The layer takes codes ([`forward_codes`](Self::forward_codes),
/// [`forward_values`](Self::forward_values)), so that layers can follow each other without a float
/// between them. It also takes f32 and quantizes it itself ([`forward`](Self::forward)).
///
/// Where a layer has an input scale ([`with_input_scale`](Self::with_input_scale)), its codes are
/// those of `x / s`. No other layer gives these, so models hand real values to such a layer.
///
/// ```
/// use qcore::{CodeRange, QParams};
/// use qkernels::{Kernel, MatMut, MatRef, Threads};
/// use qcore::ActivationFunction;
/// use qnn::{LinearWorkspace, StaticLinear, StaticParts};
/// let layer = StaticLinear::new(
///     StaticParts {
///         name: "fc1".to_owned(),
///         weight: MatRef::new(&[4_i8, -2, 1, 0], 2, 2)?,
///         weight_scales: vec![0.25, 0.5],
///         weight_zero_points: None,
///         bias: Some(vec![0, 40]), // in units of 0.5 * 0.5
///         input: QParams::new(0.5, 10, CodeRange::U8)?,
///         activation: ActivationFunction::Identity,
///     },
///     Kernel::select()?,
/// )?;
/// let mut y = [0.0; 2];
/// let x = MatRef::new(&[2.0, 1.0], 1, 2)?;
/// layer.forward(x, MatMut::new(&mut y, 1, 2)?, Threads::Serial, &mut LinearWorkspace::new())?;
/// assert_eq!(y, [2.0 * 1.0 - 1.0 * 0.5, 2.0 * 0.5 + 10.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticLinear {
    pub(crate) head: Head,
    weights: PackedWeights,
    weight_scales: Vec<f32>,
    bias: Option<Vec<i32>>,
    input: QParams,
    input_codes: ActivationCodes,
    output: Option<(QParams, ActivationCodes)>,
    /// What each input is divided by before it becomes a code.
    input_scale: Option<Vec<f32>>,
    /// The number that turns a channel's sum into a real value.
    factors: Vec<f32>,
    /// The number that turns a channel's sum into a code. Empty without `output`.
    multipliers: Vec<f32>,
}

/// The parts that make a [`StaticLinear`].
#[derive(Clone, Debug)]
pub struct StaticParts<'w> {
    /// The layer's name, unique in its model.
    pub name: String,
    /// Codes (n, k).
    pub weight: MatRef<'w, i8>,
    /// The scale of each output channel's weights (n).
    pub weight_scales: Vec<f32>,
    /// The zero point of each output channel's weights (n); `None` where all are 0.
    pub weight_zero_points: Option<Vec<i8>>,
    /// The bias of each output channel (n), in units of `input_scale * weight_scale`.
    pub bias: Option<Vec<i32>>,
    /// Scale, zero point and codes of the input. The codes are in u8 or in i8. Weights are packed
    /// for them: if they are of 7 bits, more weights run on the faster form of `avx2`.
    pub input: QParams,
    /// The activation function that follows.
    pub activation: ActivationFunction,
}

impl StaticLinear {
    /// Makes a layer of `parts`, packed for `kernel`. It gives real values until
    /// [`set_output`](Self::set_output).
    ///
    /// # Errors
    /// [`LayerError`] if lengths disagree, a scale is unusable, or the sums of a channel could
    /// leave int32.
    pub fn new(parts: StaticParts<'_>, kernel: Kernel) -> Result<Self, LayerError> {
        Self::with_orders(parts, None, kernel)
    }

    /// [`new`](Self::new), with the orders of k of the weights, if they are known.
    pub(crate) fn with_orders(
        parts: StaticParts<'_>,
        orders: Option<&KOrders>,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let StaticParts { name, weight, weight_scales, weight_zero_points, bias, input, activation } = parts;
        let (n, k) = (weight.rows(), weight.cols());
        if n == 0 || k == 0 {
            return Err(LayerError::Empty { n, k });
        }
        check_len("the weight scales", n, weight_scales.len())?;
        check_len("the bias", n, bias.as_ref().map_or(n, Vec::len))?;
        let activation = activation.check()?;
        let input_codes = codes_of("input", &input)?;
        let factor = |(channel, &scale): (usize, &f32)| sum_scale(channel, input.scale(), scale);
        let factors = weight_scales.iter().enumerate().map(factor).collect::<Result<_, _>>()?;
        let weights = pack(weight, weight_zero_points.as_deref(), input.codes(), orders, kernel)?;
        let largest_input = input.codes().largest_distance(input.zero_point());
        weights.check_accumulators(largest_input, bias.as_deref())?;
        let head = Head { name, n, k, activation };
        Ok(Self {
            head,
            weights,
            weight_scales,
            bias,
            input,
            input_codes,
            output: None,
            input_scale: None,
            factors,
            multipliers: Vec::new(),
        })
    }

    /// Makes the layer able to give codes with the parameters `output`, which are those of the next
    /// layer's input. (A next layer with an [input scale](Self::input_scale) takes no codes of this
    /// one, whatever their parameters: its codes are those of quotients.)
    ///
    /// # Errors
    /// [`LayerError`] if the codes are neither in u8 nor in i8, the zero point is none of them, or
    /// a multiplier leaves f32; nothing is changed then.
    pub fn set_output(&mut self, output: QParams) -> Result<(), LayerError> {
        let codes = codes_of("output", &output)?;
        let (zero_point, min, max) = (output.zero_point(), output.codes().min(), output.codes().max());
        if !output.codes().contains(zero_point) {
            return Err(LayerError::OutputZeroPoint { zero_point, min, max });
        }
        let multiplier = |(channel, (&weight_scale, &sum_scale)): (usize, (&f32, &f32))| {
            let multiplier = output_multiplier(self.input.scale(), weight_scale, output.scale());
            let error = LayerError::Multiplier { channel, sum_scale, output_scale: output.scale() };
            if multiplier.is_finite() { Ok(multiplier) } else { Err(error) }
        };
        let channels = self.weight_scales.iter().zip(&self.factors).enumerate();
        self.multipliers = channels.map(multiplier).collect::<Result<_, _>>()?;
        self.output = Some((output, codes));
        Ok(())
    }

    head_methods!();
    input_scale_methods!();

    /// The weights, packed; [`PackedWeights::unpack`] gives the codes (n, k) back.
    pub fn weights(&self) -> &PackedWeights {
        &self.weights
    }

    /// The scale of each output channel's weights (n); [`PackedWeights::zero_points`] has their
    /// zero points.
    pub fn weight_scales(&self) -> &[f32] {
        &self.weight_scales
    }

    /// The bias of each output channel (n), in units of `input_scale * weight_scale`, if there is
    /// one.
    pub fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    /// Scale, zero point and codes of the input, after it was divided by the
    /// [input scale](Self::input_scale) if there is one.
    pub fn input(&self) -> &QParams {
        &self.input
    }

    /// The type of the input's codes.
    pub fn input_codes(&self) -> ActivationCodes {
        self.input_codes
    }

    /// Scale, zero point and codes of the output, if the layer can give codes.
    pub fn output(&self) -> Option<&QParams> {
        self.output.as_ref().map(|(params, _)| params)
    }

    /// Bytes in memory: packed weights with their sums, scales, also those of inputs, multipliers
    /// and bias.
    pub fn bytes(&self) -> usize {
        let floats = self.weight_scales.len() + self.factors.len() + self.multipliers.len();
        let floats = floats + self.bias.as_ref().map_or(0, Vec::len);
        self.weights.bytes() + 4 * floats + self.input_scale_bytes()
    }

    /// Bytes that must be stored: weights, scales, zero points of weights (a byte each), bias,
    /// scale and zero point of the input (four each), and its scales by channel if it has any.
    pub fn storage(&self) -> Storage {
        let storage = Storage {
            weights: self.n() * self.k(),
            scales: 4 * self.weight_scales.len() + 4,
            zero_points: self.weights.zero_points().len() + 4,
            bias: 4 * self.bias.as_ref().map_or(0, Vec::len),
        };
        storage.with_input_scale(self.input_scale_bytes())
    }

    /// Scale, zero point and codes of the output, and the type of those codes.
    pub(crate) fn output_codes(&self) -> Option<(QParams, ActivationCodes)> {
        self.output
    }

    /// `input_scale * weight_scale` of each channel, which is the unit of its sums.
    pub(crate) fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// [`output_multiplier`] of each channel, if there is an output scale.
    pub(crate) fn multipliers(&self) -> &[f32] {
        &self.multipliers
    }
}

/// Packs codes (n, k) and their zero points for activations whose codes are in `activations`, with
/// their orders of k if they are known.
pub(crate) fn pack(
    weight: MatRef<'_, i8>,
    zero_points: Option<&[i8]>,
    activations: CodeRange,
    orders: Option<&KOrders>,
    kernel: Kernel,
) -> Result<PackedWeights, PackError> {
    let zero_points = zero_points.map(|codes| codes.iter().map(|&code| code.into()).collect::<Vec<_>>());
    let zero_points = zero_points.as_deref().map_or(ZeroPoints::PerTensor(0), ZeroPoints::PerChannel);
    let weights = Weights::new(weight, zero_points).for_activations(activations);
    PackedWeights::from_nk(orders.into_iter().fold(weights, Weights::with_orders), kernel)
}

fn check_len(tensor: &'static str, n: usize, len: usize) -> Result<(), LayerError> {
    if len == n { Ok(()) } else { Err(LayerError::Length { tensor, n, len }) }
}

/// The type that holds the codes of `params`.
fn codes_of(operand: &'static str, params: &QParams) -> Result<ActivationCodes, LayerError> {
    let (min, max) = (params.codes().min(), params.codes().max());
    let holds = |codes: &ActivationCodes| codes.range().contains_range(params.codes());
    ActivationCodes::ALL.into_iter().find(holds).ok_or(LayerError::Codes { operand, min, max })
}

fn sum_scale(channel: usize, input_scale: f32, weight_scale: f32) -> Result<f32, LayerError> {
    if !(weight_scale > 0.0 && weight_scale.is_finite()) {
        return Err(LayerError::WeightScale { channel, scale: weight_scale });
    }
    let sum_scale = input_scale * weight_scale;
    if !sum_scale.is_normal() {
        return Err(LayerError::SumScale { channel, input_scale, weight_scale });
    }
    Ok(sum_scale)
}
