//! From sums to the codes of the next layer, by an f32 multiplier.

use qcore::Code;

use super::output_codes::OutputCodes;
use super::{OutputStage, Residual, Scales, StageError, StoredCode, sealed};
use crate::output::operands::{Codes, ResidualRef};

/// Codes for the next layer: `q = clamp(round_ties_even(f32(acc + bias) * multiplier) + zero_point)`, i8 or u8
/// ([`qcore::requantize`]).
///
/// The multiplier of a layer is `input_scale * weight_scale[channel] / output_scale` ([`qcore::output_multiplier`]).
///
/// ```
/// use qkernels::{Requantize, Scales};
/// let stage = Requantize::<u8>::new(Scales::PerTensor(0.02))?.with_zero_point(10).with_relu();
/// # Ok::<(), qkernels::StageError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a, C> {
    multiplier: Scales<'a>,
    bias: Option<&'a [i32]>,
    codes: OutputCodes<C>,
    residual: Option<Residual<'a>>,
}

impl<'a, C: Code> Requantize<'a, C> {
    /// Zero point 0, the whole range of `C`.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if a multiplier is NaN or infinite.
    pub fn new(multiplier: Scales<'a>) -> Result<Self, StageError> {
        multiplier.check_finite("multiplier")?;
        Ok(Self { multiplier, bias: None, codes: OutputCodes::all(), residual: None })
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

    /// Adds a quantized tensor before rounding: `q = clamp(round_ties_even(f32(acc + bias) * multiplier + f32(r - zero_point)
    /// * step) + output_zero_point)` ([`qcore::requantize_residual`]). A product is refused
    /// ([`StageError::ResidualRange`]) where both terms might be infinite.
    #[must_use]
    pub fn with_residual(self, residual: Residual<'a>) -> Self {
        Self { residual: Some(residual), ..self }
    }
}

impl<C: StoredCode> OutputStage for Requantize<'_, C> {
    type Out = C;
}

impl<C: StoredCode> sealed::Stage for Requantize<'_, C> {
    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor(&self) -> Option<Scales<'_>> {
        Some(self.multiplier)
    }

    fn factor_name(&self) -> &'static str {
        "multiplier"
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn codes(&self) -> Option<Codes> {
        Some(self.codes.bounds())
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn residual(&self) -> Option<ResidualRef<'_>> {
        self.residual.map(|residual| residual.0)
    }
}
