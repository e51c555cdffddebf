//! What every layer has, whatever its form.

use qcore::ActivationFunction;

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

pub(crate) use head_methods;
