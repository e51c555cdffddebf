//! The forms that a layer of a file's own codes can have.

use qcore::ActivationFunction;
use qkernels::{Dynamic, ScaledWeights};

use crate::layer::dynamic::DynamicLinear;
use crate::layer::float::{FloatLinear, FloatLinearError};
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::weight_only::WeightOnlyLinear;

/// The form that a layer will have whose weights are codes in a file of others.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CodesForm {
    /// f32: the values that the codes stand for.
    Float,
    /// Integer products with the file's codes, and activations quantized as this says. Symmetric i8
    /// for each token is the usual choice.
    Dynamic(Dynamic),
    /// The file's codes and float activations.
    WeightOnly,
}

impl CodesForm {
    /// The layer in this form. `of_layer` names it in errors.
    pub(crate) fn layer<E: From<FloatLinearError>>(
        self,
        name: &str,
        weights: ScaledWeights,
        bias: Option<Vec<f32>>,
        activation: ActivationFunction,
        of_layer: impl Fn(LayerError) -> E,
    ) -> Result<Linear, E> {
        Ok(match self {
            CodesForm::Float => {
                let (n, k) = (weights.n(), weights.k());
                let layer = FloatLinear::from_parts(name.to_owned(), n, k, weights.dequantize(), bias)?;
                layer.with_activation(activation).into()
            }
            CodesForm::Dynamic(activations) => {
                let layer = DynamicLinear::from_weights(weights, bias, activations).map_err(of_layer)?;
                layer.with_name(name).with_activation(activation).into()
            }
            CodesForm::WeightOnly => {
                let layer = WeightOnlyLinear::from_weights(weights, bias).map_err(of_layer)?;
                layer.with_name(name).with_activation(activation).into()
            }
        })
    }
}
