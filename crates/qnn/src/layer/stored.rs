//! Layers as files have them: codes and scales, and what only one form has.

use qcore::{ActivationFunction, QParams};
use qkernels::{Dynamic, KOrders, Kernel, ScaledWeights, WeightScales};

use super::dynamic::{DynamicLinear, DynamicParts};
use super::layer_error::LayerError;
use super::linear::Linear;
use super::static_linear::build::{StaticLinear, StaticParts};
use super::weight_codes::{StoredCodes, scales_of};
use super::weight_only::WeightOnlyLinear;

/// What a file has of a quantized layer, whatever its form. Values have not been checked.
pub(crate) struct StoredLayer<'w> {
    pub(crate) name: String,
    pub(crate) weight: StoredCodes<'w>,
    /// The scale of each channel (n) or group (n, groups).
    pub(crate) weight_scales: Vec<f32>,
    /// The zero point of each channel or group; `None` if all are 0.
    pub(crate) weight_zero_points: Option<Vec<i8>>,
    /// The orders of k of the weights, if they are known. Only weights of 8 bits with nothing but
    /// channels have them.
    pub(crate) orders: Option<KOrders>,
    /// What each input is divided by (k), if there is anything.
    pub(crate) input_scale: Option<Vec<f32>>,
    pub(crate) activation: ActivationFunction,
}

/// What a file has of a layer of one form only.
pub(crate) enum StoredForm {
    Static { bias: Option<Vec<i32>>, input: QParams },
    Dynamic { bias: Option<Vec<f32>>, activations: Dynamic, groups: StoredGroups },
    WeightOnly { bias: Option<Vec<f32>>, groups: StoredGroups },
}

/// Groups of weights along k, and what they have besides scales and zero points.
#[derive(Default)]
pub(crate) struct StoredGroups {
    /// Consecutive k of a group; `None` where a channel is one.
    pub(crate) len: Option<usize>,
    /// What is added to each value of a group (n, groups).
    pub(crate) minimums: Option<Vec<f32>>,
    pub(crate) parts: Option<StoredParts>,
    /// The input of each column, if it is not the column's own.
    pub(crate) order: Option<Vec<u32>>,
}

/// Parts of groups, whose scales are those of the group times integers.
pub(crate) struct StoredParts {
    /// Consecutive k of a part.
    pub(crate) len: usize,
    /// The integers for scales (n, parts).
    pub(crate) scales: Vec<i8>,
    /// The integers for minimums (n, parts).
    pub(crate) minimums: Option<Vec<i8>>,
}

impl StoredGroups {
    /// Groups of `len` weights, or channels, with nothing else.
    pub(crate) fn plain(len: Option<usize>) -> Self {
        Self { len, ..Self::default() }
    }

    /// All that stands beside the codes of a matrix with these scales and zero points.
    pub(crate) fn scales<'a>(&'a self, scales: &'a [f32], zero_points: Option<&'a [i8]>) -> WeightScales<'a> {
        let mut scales = scales_of(scales, zero_points, self.len);
        if let Some(minimums) = &self.minimums {
            scales = scales.with_minimums(minimums);
        }
        if let Some(parts) = &self.parts {
            scales = scales.with_parts(parts.len, &parts.scales);
            if let Some(minimums) = &parts.minimums {
                scales = scales.with_part_minimums(minimums);
            }
        }
        scales
    }

    /// Codes packed with all that stands beside them.
    pub(crate) fn pack(
        &self,
        codes: StoredCodes<'_>,
        scales: &[f32],
        zero_points: Option<&[i8]>,
        kernel: Kernel,
    ) -> Result<ScaledWeights, LayerError> {
        let weights = codes.scaled_by(self.scales(scales, zero_points), kernel)?;
        Ok(match &self.order {
            Some(order) => weights.with_input_order(order)?,
            None => weights,
        })
    }

    /// Whether there are only channels, with scales and zero points.
    fn is_plain(&self) -> bool {
        self.len.is_none() && self.minimums.is_none() && self.parts.is_none() && self.order.is_none()
    }
}

impl StoredLayer<'_> {
    /// The layer, packed for `kernel`.
    pub(crate) fn layer(self, form: StoredForm, kernel: Kernel) -> Result<Linear, LayerError> {
        let Self { name, weight, weight_scales, weight_zero_points, orders, input_scale, activation } = self;
        let layer: Linear = match form {
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
                StaticLinear::with_orders(parts, orders.as_ref(), kernel)?.into()
            }
            StoredForm::Dynamic { bias, activations, groups }
                if !groups.is_plain() || matches!(weight, StoredCodes::Nibbles(_)) =>
            {
                let weights = groups.pack(weight, &weight_scales, weight_zero_points.as_deref(), kernel)?;
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
                DynamicLinear::with_orders(parts, orders.as_ref(), kernel)?.into()
            }
            StoredForm::WeightOnly { bias, groups } => {
                let weights = groups.pack(weight, &weight_scales, weight_zero_points.as_deref(), kernel)?;
                let layer = WeightOnlyLinear::from_weights(weights, bias)?;
                layer.with_name(name).with_activation(activation).into()
            }
        };
        let Some(scale) = input_scale else { return Ok(layer) };
        Ok(match layer {
            Linear::Static(layer) => layer.with_input_scale(scale)?.into(),
            Linear::Dynamic(layer) => layer.with_input_scale(scale)?.into(),
            Linear::WeightOnly(layer) => layer.with_input_scale(scale)?.into(),
            // No such layer is made above.
            Linear::Float(layer) => layer.into(),
        })
    }
}
