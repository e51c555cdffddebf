//! From sums to the codes of the next layer, by an f32 multiplier.

use qcore::{ActivationFunction, Code, OnCodes};

use super::output_codes::OutputCodes;
use super::{OutputStage, Residual, Scales, StageError, StoredCode, sealed};
use crate::output::operands::{Codes, ResidualRef};

/// Codes for the next layer:
/// `q = clamp(round_ties_even(f32(acc + bias) * multiplier) + zero_point)`, i8 or u8
/// ([`qcore::requantize`]).
///
/// The multiplier of a layer is `input_scale * weight_scale[channel] / output_scale`
/// ([`qcore::output_multiplier`]).
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
    /// Whether the multiplier is a scale that leads to real values.
    real: bool,
}

impl<'a, C: Code> Requantize<'a, C> {
    /// A stage with zero point 0 and the whole range of `C`.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if a multiplier is NaN or infinite.
    pub fn new(multiplier: Scales<'a>) -> Result<Self, StageError> {
        multiplier.check_finite("multiplier")?;
        Ok(Self { multiplier, bias: None, codes: OutputCodes::all(), residual: None, real: false })
    }

    /// Codes by way of real values, which GELU, SiLU and hard-swish need:
    /// `q = clamp(round_ties_even(function(f32(acc + bias) * scale) / output_scale) + zero_point)`
    /// ([`qcore::requantize_activation`]). Each step is in f32.
    ///
    /// The scale of a layer is `input_scale * weight_scale[channel]`, as for
    /// [`Dequantize`](crate::Dequantize). A [residual](Self::with_residual) is added before the
    /// function, and its multiplier is its own scale.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    /// use qkernels::{
    ///     Kernel, MatMut, MatRef, PackedWeights, Requantize, Scales, Threads, Workspace, gemm,
    /// };
    /// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3], 1, 3)?, Kernel::select()?)?;
    /// let (x, mut y) = ([1u8, 4, 1], [0u8]);
    /// let stage = Requantize::real(Scales::PerTensor(0.125), ActivationFunction::Silu, 0.05)?;
    /// let stage = stage.with_zero_point(10);
    /// let out = MatMut::new(&mut y, 1, 1)?;
    /// gemm(MatRef::new(&x, 1, 3)?, &w, &stage, out, Threads::Serial, &mut Workspace::new())?;
    /// assert_eq!(y, [6]); // silu(-4 * 0.125) = -0.189 is -4 steps
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StageError`] if a scale is NaN or infinite, `output_scale` is not positive and finite, or
    /// a bound or slope of `function` is unusable.
    pub fn real(
        scale: Scales<'a>,
        function: ActivationFunction,
        output_scale: f32,
    ) -> Result<Self, StageError> {
        scale.check_finite("scale")?;
        let codes = OutputCodes::all().with_activation(function, output_scale)?;
        Ok(Self { multiplier: scale, bias: None, codes, residual: None, real: true })
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

    /// Applies an activation function to the scaled sums and their residual, for an output with the
    /// scale `output_scale`. It replaces an earlier one. ReLU and clamps become bounds on the
    /// codes; leaky ReLU is applied before rounding ([`qcore::OnCodes`] says which is which).
    ///
    /// # Errors
    /// [`StageError::NeedsRealValues`] for a function that must see real values: see
    /// [`real`](Self::real). [`StageError`] if `output_scale` is not positive and finite, or a
    /// bound or slope of `function` is unusable.
    pub fn with_activation(
        self,
        function: ActivationFunction,
        output_scale: f32,
    ) -> Result<Self, StageError> {
        if !self.real && function.on_codes() == OnCodes::RealValues {
            let (stage, instead) = ("Requantize::new", "Requantize::real");
            return Err(StageError::NeedsRealValues { function, stage, instead });
        }
        Ok(Self { codes: self.codes.with_activation(function, output_scale)?, ..self })
    }

    /// Adds a quantized tensor before rounding: `q = clamp(round_ties_even(f32(acc + bias) *
    /// multiplier + f32(r - zero_point) * step) + output_zero_point)`
    /// ([`qcore::requantize_residual`]). A product is refused ([`StageError::ResidualRange`]) if
    /// both terms might be infinite.
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
        if self.real { "scale" } else { "multiplier" }
    }

    fn function(&self) -> ActivationFunction {
        if self.real { self.codes.whole_function() } else { self.codes.function() }
    }

    fn output_scale(&self) -> Option<f32> {
        self.real.then(|| self.codes.scale())
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
