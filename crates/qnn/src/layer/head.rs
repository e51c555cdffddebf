//! What every layer has, whatever its form.

use qcore::ActivationFunction;
use qkernels::{FloatRows, FloatStage, MatRef};

use super::forward_error::ForwardError;
use super::layer_error::LayerError;

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

/// `scale`, if it can divide rows of k values.
pub(crate) fn checked_input_scale(k: usize, scale: Vec<f32>) -> Result<Option<Vec<f32>>, LayerError> {
    let no_rows = MatRef::<f32>::new(&[], 0, k)?;
    FloatRows::divided_by(no_rows, &scale)?;
    Ok(Some(scale))
}

/// The methods about the `input_scale` of a quantized layer.
macro_rules! input_scale_methods {
    () => {
        /// What each input channel is divided by (k), if there is anything
        /// ([`with_input_scale`](Self::with_input_scale)).
        pub fn input_scale(&self) -> Option<&[f32]> {
            self.input_scale.as_deref()
        }

        /// The same layer, which divides each value of its input by the scale of its channel, `x /
        /// s` in f32, before anything else is done with it ([`qkernels::FloatRows`]). No matrix of
        /// quotients is in memory. Scales have no unit. A scale that the layer had is replaced.
        ///
        /// That is one side of SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant",
        /// 2022, equation 3): `Y = (X diag(s)^-1) (diag(s) W)`. The other side is the caller's: the
        /// weights of channel k were multiplied by `s[k]` **before** they were quantized, and what
        /// is said about the layer's input, its range or its codes, is said about `x / s`.
        ///
        /// ```
        /// use qkernels::{Kernel, MatRef, Threads};
        /// use qnn::{FloatLinear, Linear, LinearWorkspace, WeightConfig, WeightOnlyLinear};
        /// let smoothed = FloatLinear::without_bias("fc1", 1, 2, vec![0.5, 0.01 * 100.0])?; // diag(s) W
        /// let layer = WeightOnlyLinear::quantize(&smoothed, &WeightConfig::default(), Kernel::select()?)?;
        /// let layer = Linear::from(layer.with_input_scale(vec![1.0, 100.0])?);
        /// let x = MatRef::new(&[1.0, 250.0], 1, 2)?;
        /// let y = layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new())?;
        /// assert!((y[0] - (1.0 * 0.5 + 250.0 * 0.01_f32)).abs() < 0.02);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        /// [`LayerError::InputScale`] if there is not one scale for each input, or one is not
        /// finite and greater than 0.
        pub fn with_input_scale(mut self, scale: Vec<f32>) -> Result<Self, LayerError> {
            self.input_scale = checked_input_scale(self.k(), scale)?;
            Ok(self)
        }

        /// The bytes of the input scale.
        fn input_scale_bytes(&self) -> usize {
            4 * self.input_scale.as_ref().map_or(0, Vec::len)
        }
    };
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

pub(crate) use {head_methods, head_setters, input_scale_methods};
