//! The quantize pass: from a calibrated f32 model to an int8 one.

use qcore::{
    BiasError, ChannelError, CodeRange, NoFittingScale, QParams, SchemeError, WeightChannel, quantize_bias,
    quantize_per_channel,
};
use qkernels::{Kernel, SelectError};

use crate::calibrate::CalibratedMlp;
use crate::config::{ActivationCodes, QuantConfig, WeightGranularity};
use crate::float_linear::FloatLinear;
use crate::quant_linear::{Parts, QuantLinear, QuantLinearError};
use crate::quant_mlp::QuantMlp;
use crate::weight_scales::{channel_axis, scheme_scales};

/// Why a calibrated model could not be quantized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeModelError {
    /// No kernel could be selected.
    #[error(transparent)]
    Kernel(#[from] SelectError),
    /// The range of a layer's input has no parameters.
    #[error("input of layer {layer:?}: {source}")]
    Input {
        /// The layer.
        layer: String,
        /// Why.
        source: SchemeError,
    },
    /// The weights of a layer have no scales.
    #[error("weights of layer {layer:?}: {source}")]
    Weights {
        /// The layer.
        layer: String,
        /// Why.
        source: ChannelError,
    },
    /// No weight scale, however large, makes the bias and the sums of a channel fit int32.
    #[error("layer {layer:?}, channel {channel}: {source}")]
    NoScale {
        /// The layer.
        layer: String,
        /// The output channel.
        channel: usize,
        /// The scale that the weights ask for, and the bias.
        source: NoFittingScale,
    },
    /// A bias has no int32 form.
    #[error("layer {layer:?}, channel {channel}: {source}")]
    Bias {
        /// The layer.
        layer: String,
        /// The output channel.
        channel: usize,
        /// Why.
        source: BiasError,
    },
    /// Codes and scales do not make a layer.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: QuantLinearError,
    },
}

impl CalibratedMlp<'_> {
    /// The int8 model: weights as symmetric i8, biases as int32 in the unit of the sums, the input of every layer as u8 or
    /// i8 with the parameters that the calibrated range gives.
    ///
    /// Where a weight scale is so small that bias or sums would not fit int32 it is raised, just enough;
    /// [`QuantMlp::report`] says where.
    ///
    /// # Errors
    /// [`QuantizeModelError`] if no kernel can be selected, or ranges are so extreme that their scales leave f32.
    pub fn quantize(&self, config: &QuantConfig) -> Result<QuantMlp, QuantizeModelError> {
        let kernel = match config.kernel {
            Some(kernel) => kernel,
            None => Kernel::select()?,
        };
        let inputs = self.input_params(config.activations)?;
        let mut layers = Vec::with_capacity(inputs.len());
        for (index, (layer, input)) in self.model().layers().iter().zip(&inputs).enumerate() {
            let output_scale = inputs.get(index + 1).map(QParams::scale);
            layers.push(quantize_linear(layer, config.weights, *input, output_scale, kernel)?);
        }
        Ok(QuantMlp::from_layers(layers, config.activations, config.weights, kernel))
    }

    /// Parameters of the input of each layer.
    fn input_params(&self, activations: ActivationCodes) -> Result<Vec<QParams>, QuantizeModelError> {
        let params = self.model().layers().iter().zip(self.input_ranges()).map(|(layer, &range)| {
            let named = |source| QuantizeModelError::Input { layer: layer.name().to_owned(), source };
            activations.scheme().choose(range).map_err(named)
        });
        params.collect()
    }
}

fn quantize_linear(
    layer: &FloatLinear,
    granularity: WeightGranularity,
    input: QParams,
    output_scale: Option<f32>,
    kernel: Kernel,
) -> Result<QuantLinear, QuantizeModelError> {
    let name = || layer.name().to_owned();
    let unscaled = |source| QuantizeModelError::Weights { layer: name(), source };
    let mut scales = scheme_scales(layer, granularity).map_err(unscaled)?;
    let mut params = Vec::with_capacity(scales.len());
    let mut biases = Vec::with_capacity(scales.len());
    let channels = layer.weight().chunks_exact(layer.k()).zip(layer.bias()).zip(&mut scales).enumerate();
    for (channel, ((weights, &bias), scale)) in channels {
        let fitted = WeightChannel { weights, bias, input: &input, codes: CodeRange::I8 }.fit_scale(*scale);
        let no_scale = |source| QuantizeModelError::NoScale { layer: name(), channel, source };
        *scale = fitted.map_err(no_scale)?.scale;
        let no_bias = |source| QuantizeModelError::Bias { layer: name(), channel, source };
        biases.push(quantize_bias(bias, input.scale(), *scale).map_err(no_bias)?);
        let no_params = |_| QuantLinearError::WeightScale { channel, scale: *scale };
        let of_layer = |source| QuantizeModelError::Layer { layer: name(), source };
        params.push(QParams::new(*scale, 0, CodeRange::I8).map_err(no_params).map_err(of_layer)?);
    }
    let mut codes = vec![0_i8; layer.weight().len()];
    let axis = channel_axis(layer).map_err(unscaled)?;
    quantize_per_channel(layer.weight(), axis, &params, &mut codes).map_err(unscaled)?;
    let parts = Parts {
        name: name(),
        n: layer.n(),
        k: layer.k(),
        weights: &codes,
        weight_scales: scales,
        bias: biases,
        input,
        output_scale,
    };
    QuantLinear::new(parts, kernel).map_err(|source| QuantizeModelError::Layer { layer: name(), source })
}
