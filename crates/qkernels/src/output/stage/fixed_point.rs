//! From sums to the codes of the next layer, in integers throughout.

use qcore::{ActivationFunction, Code, OnCodes, Q31Multiplier};

use super::output_codes::OutputCodes;
use super::{OutputStage, StageError, StoredCode, sealed};
use crate::output::operands::{Codes, FixedPointRounding};

/// Codes for the next layer without any float: `q = clamp(multiply(acc + bias) + zero_point)`.
/// Multipliers are in fixed point, one for each channel or one for all. Products are rounded as
/// TensorFlow Lite ([`qcore::requantize_double_rounding`]) or ruy and TOSA
/// ([`qcore::requantize_single_rounding`]) do.
///
/// ```
/// use qcore::Q31Multiplier;
/// use qkernels::{FixedPointRounding, RequantizeFixedPoint};
/// let multipliers = [Q31Multiplier::from_real(0.02)?, Q31Multiplier::from_real(0.01)?];
/// let stage = RequantizeFixedPoint::<u8>::new(&multipliers, FixedPointRounding::Single).with_zero_point(10).with_relu();
/// # Ok::<(), qcore::MultiplierError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RequantizeFixedPoint<'a, C> {
    multipliers: &'a [Q31Multiplier],
    rounding: FixedPointRounding,
    bias: Option<&'a [i32]>,
    codes: OutputCodes<C>,
}

impl<'a, C: Code> RequantizeFixedPoint<'a, C> {
    /// A stage with zero point 0 and the whole range of `C`. There is one multiplier for all
    /// channels, or one for each.
    pub fn new(multipliers: &'a [Q31Multiplier], rounding: FixedPointRounding) -> Self {
        Self { multipliers, rounding, bias: None, codes: OutputCodes::all() }
    }

    /// Adds an int32 bias to the sums, one entry for each channel.
    #[must_use]
    pub fn with_bias(self, bias: &'a [i32]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The code that stands for 0.
    #[must_use]
    pub fn with_zero_point(self, zero_point: C) -> Self {
        Self { codes: self.codes.with_zero_point(zero_point), ..self }
    }

    /// Limits the codes to `low..=high`.
    ///
    /// # Errors
    /// [`StageError::EmptyClamp`] if `low > high`.
    pub fn with_clamp(self, low: C, high: C) -> Result<Self, StageError> {
        Ok(Self { codes: self.codes.with_clamp(low, high)?, ..self })
    }

    /// Replaces codes that stand for negative values by the zero point.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { codes: self.codes.with_relu(), ..self }
    }

    /// Applies a ReLU or a clamp to an output with the scale `output_scale`, as bounds on the
    /// codes.
    ///
    /// # Errors
    /// [`StageError::NeedsRealValues`] for any other function. [`StageError`] if `output_scale` is
    /// not positive and finite, or a bound of `function` is unusable.
    pub fn with_activation(
        self,
        function: ActivationFunction,
        output_scale: f32,
    ) -> Result<Self, StageError> {
        let stage = "RequantizeFixedPoint";
        let instead = match function.on_codes() {
            OnCodes::Bounds => None,
            OnCodes::RealValues => Some("Requantize::real"),
            OnCodes::AfterMultiplier => Some("Requantize"),
        };
        if let Some(instead) = instead {
            return Err(StageError::NeedsRealValues { function, stage, instead });
        }
        Ok(Self { codes: self.codes.with_activation(function, output_scale)?, ..self })
    }
}

impl<C: StoredCode> OutputStage for RequantizeFixedPoint<'_, C> {
    type Out = C;
}

impl<C: StoredCode> sealed::Stage for RequantizeFixedPoint<'_, C> {
    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor_name(&self) -> &'static str {
        "fixed-point multiplier"
    }

    fn fixed_point(&self) -> Option<(&[Q31Multiplier], FixedPointRounding)> {
        Some((self.multipliers, self.rounding))
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn codes(&self) -> Option<Codes> {
        Some(self.codes.bounds())
    }
}
