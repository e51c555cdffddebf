//! What every layer has, whatever its form.

use qcore::ActivationFunction;
use qkernels::FloatStage;

use super::forward_error::ForwardError;

/// What every layer has, whatever its form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) name: String,
    /// Outputs.
    pub(crate) n: usize,
    /// Inputs.
    pub(crate) k: usize,
    /// What the layer does to its outputs before it stores them.
    pub(crate) activation: ActivationFunction,
}

impl Head {
    /// A layer without a name and without an activation function.
    pub(crate) fn unnamed(n: usize, k: usize) -> Self {
        Self { name: String::new(), n, k, activation: ActivationFunction::Identity }
    }
}

/// The output stage of a layer whose sums are floats.
pub(crate) fn float_stage(
    bias: Option<&[f32]>,
    activation: ActivationFunction,
) -> Result<FloatStage<'_>, ForwardError> {
    let stage = FloatStage::new();
    let stage = match bias {
        None => stage,
        Some(bias) => stage.with_bias(bias)?,
    };
    Ok(stage.with_activation(activation)?)
}

/// The methods that show a layer's `head`.
macro_rules! head_methods {
    () => {
        /// The name, such as `model.layers.0.self_attn.q_proj`, unique in its model.
        pub fn name(&self) -> &str {
            &self.head.name
        }

        /// Outputs.
        pub fn n(&self) -> usize {
            self.head.n
        }

        /// Inputs.
        pub fn k(&self) -> usize {
            self.head.k
        }

        /// The activation function that follows.
        pub fn activation(&self) -> ActivationFunction {
            self.head.activation
        }
    };
}

/// The methods that complete the `head` of a layer made of weights alone.
macro_rules! head_setters {
    () => {
        /// The same layer with a name, unique in its model. A new layer's name is empty.
        #[must_use]
        pub fn with_name(mut self, name: impl Into<String>) -> Self {
            self.head.name = name.into();
            self
        }

        /// The same layer with an activation function after it. If a bound or a slope is unusable
        /// ([`ActivationFunction::check`]), [`forward`](Self::forward) fails.
        #[must_use]
        pub fn with_activation(mut self, activation: ActivationFunction) -> Self {
            self.head.activation = activation;
            self
        }
    };
}

pub(crate) use {head_methods, head_setters};
