//! The quantize pass: from a calibrated f32 model to an int8 one.

use qcore::{QParams, Scheme, SchemeError};
use qkernels::{Kernel, SelectError};

use super::calibrated::CalibratedMlp;
use super::quant::QuantMlp;
use crate::config::activation_codes::ActivationCodes;
use crate::config::mlp::QuantConfig;
use crate::config::weights::WeightConfig;
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::static_linear::quantize::QuantizeLinearError;

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
    /// A layer has no int8 form.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: QuantizeLinearError,
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
        let weights = WeightConfig { scheme: Scheme::weights_i8(), granularity: config.weights };
        let mut layers = Vec::with_capacity(inputs.len());
        for (index, (layer, input)) in self.model().layers().iter().zip(&inputs).enumerate() {
            let quantize = || {
                let mut quantized = StaticLinear::quantize(layer, *input, &weights, kernel)?;
                if let Some(next) = inputs.get(index + 1) {
                    quantized.set_output(*next)?;
                }
                Ok(quantized)
            };
            let named = |source| QuantizeModelError::Layer { layer: layer.name().to_owned(), source };
            layers.push(quantize().map_err(named)?);
        }
        Ok(QuantMlp::from_layers(layers, config.activations, kernel))
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
