//! How an f32 layer becomes a [`StaticLinear`]: weights become codes, the bias becomes int32, and
//! scales are raised where int32 is too narrow.

use qcore::{QParams, WeightChannel, quantize_bias};
use qkernels::{Kernel, MatRef};

use super::build::{StaticLinear, StaticParts};
use crate::config::weights::WeightConfig;
use crate::layer::float::FloatLinear;
use crate::layer::layer_error::LayerError;
use crate::layer::weight_codes::{WeightCodes, scheme_params, zero_points};

impl StaticLinear {
    /// The int8 form of `layer` for inputs with the parameters `input`, packed for `kernel`.
    /// `weights` says how weights become codes. The bias becomes int32, in the unit of the sums.
    ///
    /// If a symmetric weight scale is so small that the bias or the sums would not fit int32, it is
    /// raised just enough ([`WeightChannel::fit_scale`]).
    ///
    /// # Errors
    /// [`LayerError`] if the scheme's codes are not in i8, or values are so extreme that scales
    /// leave f32.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    /// use qnn::{FloatLinear, StaticLinear, WeightConfig};
    /// let float = FloatLinear::new("fc1", 1, 2, vec![1.27, -0.5], vec![0.25])?;
    /// let input = Scheme::activations_u8().choose(Range::new(0.0, 2.55)?)?;
    /// let layer = StaticLinear::quantize(&float, input, &WeightConfig::default(), qkernels::Kernel::select()?)?;
    /// assert_eq!((layer.weights().unpack(), layer.bias()), (vec![127, -50], Some(&[2500][..])));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn quantize(
        layer: &FloatLinear,
        input: QParams,
        weights: &WeightConfig,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let params = static_params(layer, &input, scheme_params(layer, weights)?)?;
        let codes = WeightCodes::nearest(layer.weight(), layer.n(), layer.k(), params, None)?;
        Self::of_codes(layer, input, &codes, kernel)
    }

    /// The int8 form of `layer` with these codes of its weights, whose parameters are
    /// [`static_params`].
    pub(crate) fn of_codes(
        layer: &FloatLinear,
        input: QParams,
        weights: &WeightCodes,
        kernel: Kernel,
    ) -> Result<Self, LayerError> {
        let params = &weights.params;
        let quantized = |(channel, (&bias, params)): (usize, (&f32, &QParams))| {
            quantize_bias(bias, input.scale(), params.scale())
                .map_err(|error| LayerError::Int32Bias { channel, error })
        };
        let quantized = |bias: &[f32]| bias.iter().zip(params).enumerate().map(quantized).collect();
        let parts = StaticParts {
            name: layer.name().to_owned(),
            weight: MatRef::new(&weights.codes, layer.n(), layer.k())?,
            weight_scales: params.iter().map(QParams::scale).collect(),
            weight_zero_points: zero_points(params),
            bias: layer.bias().map(quantized).transpose()?,
            input,
            activation: layer.activation(),
        };
        Self::new(parts, kernel)
    }
}

/// `params` of the layer's channels, with scales raised where a symmetric one is so small that the
/// bias or the sums would not fit int32 ([`WeightChannel::fit_scale`]).
pub(crate) fn static_params(
    layer: &FloatLinear,
    input: &QParams,
    mut params: Vec<QParams>,
) -> Result<Vec<QParams>, LayerError> {
    for (channel, (weights, params)) in layer.weight().chunks_exact(layer.k()).zip(&mut params).enumerate() {
        let bias = layer.bias().map_or(0.0, |bias| bias[channel]);
        if params.zero_point() == 0 {
            let weights = WeightChannel { weights, bias, input, codes: params.codes() };
            *params = fitted(weights, params, channel)?;
        }
    }
    Ok(params)
}

/// Gives `params`, with a larger scale if the channel needs one.
fn fitted(weights: WeightChannel<'_>, params: &QParams, channel: usize) -> Result<QParams, LayerError> {
    let fitted = weights.fit_scale(params.scale());
    let fitted = fitted.map_err(|error| LayerError::NoScale { channel, error })?;
    if fitted.raised_from.is_none() {
        return Ok(*params);
    }
    let raised = QParams::new(fitted.scale, 0, params.codes());
    let raised = raised.map_err(|error| LayerError::Params { channel, error })?;
    Ok(raised.with_order(params.order()).with_rounding(params.rounding()))
}
