//! Layers as files have them: codes and scales, and what only one form has.

use qcore::{ActivationFunction, QParams};
use qkernels::{Dynamic, Kernel};

use super::dynamic::{DynamicLinear, DynamicParts};
use super::layer_error::LayerError;
use super::linear::Linear;
use super::static_linear::build::{StaticLinear, StaticParts};
use super::weight_codes::StoredCodes;
use super::weight_only::WeightOnlyLinear;

/// What a file has of a quantized layer, whatever its form. Values have not been checked.
pub(crate) struct StoredLayer<'w> {
    pub(crate) name: String,
    pub(crate) weight: StoredCodes<'w>,
    /// The scale of each channel (n) or group (n, groups).
    pub(crate) weight_scales: Vec<f32>,
    /// The zero point of each channel or group; `None` if all are 0.
    pub(crate) weight_zero_points: Option<Vec<i8>>,
    pub(crate) activation: ActivationFunction,
}

/// What a file has of a layer of one form only.
pub(crate) enum StoredForm {
    Static { bias: Option<Vec<i32>>, input: QParams },
    Dynamic { bias: Option<Vec<f32>>, activations: Dynamic, group: Option<usize> },
    WeightOnly { bias: Option<Vec<f32>>, group: Option<usize> },
}

impl StoredLayer<'_> {
    /// The layer, packed for `kernel`.
    pub(crate) fn layer(self, form: StoredForm, kernel: Kernel) -> Result<Linear, LayerError> {
        let Self { name, weight, weight_scales, weight_zero_points, activation } = self;
        Ok(match form {
            StoredForm::Static { bias, input } => {
                let parts = StaticParts {
                    name,
                    weight: weight.bytes()?,
                    weight_scales,
                    weight_zero_points,
                    bias,
                    input,
                    activation,
                };
                StaticLinear::new(parts, kernel)?.into()
            }
            StoredForm::Dynamic { bias, activations, group }
                if group.is_some() || matches!(weight, StoredCodes::Nibbles(_)) =>
            {
                let weights = weight.scaled(&weight_scales, weight_zero_points.as_deref(), group, kernel)?;
                let layer = DynamicLinear::from_weights(weights, bias, activations)?;
                layer.with_name(name).with_activation(activation).into()
            }
            StoredForm::Dynamic { bias, activations, .. } => {
                let parts = DynamicParts {
                    name,
                    weight: weight.bytes()?,
                    weight_scales,
                    weight_zero_points,
                    bias,
                    activations,
                    activation,
                };
                DynamicLinear::new(parts, kernel)?.into()
            }
            StoredForm::WeightOnly { bias, group } => {
                let weights = weight.scaled(&weight_scales, weight_zero_points.as_deref(), group, kernel)?;
                let layer = WeightOnlyLinear::from_weights(weights, bias)?;
                layer.with_name(name).with_activation(activation).into()
            }
        })
    }
}
