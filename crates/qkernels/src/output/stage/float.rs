//! From the sums of weight-only products to real values.

use qcore::ActivationFunction;

use super::{StageError, check_finite, check_function};

/// The output stage of a weight-only product: `y = sum + bias`, then the activation function, in
/// f32.
///
/// ```
/// use qkernels::FloatStage;
/// let stage = FloatStage::new().with_bias(&[0.5, -1.0])?.with_relu();
/// # Ok::<(), qkernels::StageError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FloatStage<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) function: ActivationFunction,
}

impl<'a> FloatStage<'a> {
    /// `y = sum`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bias, one entry for each channel.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if an entry is NaN or infinite.
    pub fn with_bias(self, bias: &'a [f32]) -> Result<Self, StageError> {
        check_finite("bias", bias)?;
        Ok(Self { bias: Some(bias), ..self })
    }

    /// Replaces negative results by 0.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { function: ActivationFunction::Relu, ..self }
    }

    /// Applies `function` to each result, after the bias. It replaces an earlier one.
    ///
    /// # Errors
    /// [`StageError::Activation`] if a bound or slope of the function is unusable.
    pub fn with_activation(self, function: ActivationFunction) -> Result<Self, StageError> {
        Ok(Self { function: check_function(function)?, ..self })
    }
}
