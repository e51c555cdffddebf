//! How a [`StaticLinear`] runs: it takes floats or codes, gives floats, codes or sums, and computes
//! all columns or some.

use core::ops::Range;

use qcore::{Float, OnCodes};
use qkernels::{
    Activation, Activations, DequantizeTo, FloatActivations, Int32, Left, MatMut, MatRef, Requantize, Scales,
    StoredFloat, Threads, Workspace, gemm, gemm_columns,
};

use super::build::StaticLinear;
use crate::config::activation_codes::ActivationCodes;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::{check_finite, check_input, check_output, divided};
use crate::layer::workspace::LinearWorkspace;

impl StaticLinear {
    /// Divides `x` (m, k) by the input scale if there is one, quantizes it, multiplies, applies the
    /// activation function, and writes real values (m, n). Rows are quantized while they are packed
    /// for the kernel. Input and output may each be f32, f16 or bf16.
    ///
    /// A row has the same bits whatever the batch, the threads and the kernel. With a kept
    /// workspace nothing is allocated.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong or a value (or its quotient) is NaN or infinite;
    /// nothing is written then.
    pub fn forward<F: Float, T: StoredFloat>(
        &self,
        x: MatRef<'_, F>,
        out: MatMut<'_, T>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.k())?;
        check_output(&out, x.rows(), self.n())?;
        self.check_finite(x)?;
        self.values(self.quantized(x)?, out, threads, &mut workspace.gemm)
    }

    /// Like [`forward`](Self::forward), for some output channels and on the calling thread. Engines
    /// use it to spread a layer over threads of their own. `columns` is best taken from
    /// [`PackedWeights::column_ranges`](qkernels::PackedWeights::column_ranges) of
    /// [`weights`](Self::weights); `out` is (m, `columns.len()`). (To spread rows, call `forward`
    /// on some rows of `x` and of the output.)
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if `columns` are not whole panels of the packed weights.
    pub fn forward_columns<F: Float, T: StoredFloat>(
        &self,
        x: MatRef<'_, F>,
        columns: Range<usize>,
        out: MatMut<'_, T>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.k())?;
        check_output(&out, x.rows(), columns.len())?;
        // An output without columns fits any number of rows, and an input with a stride of 0 may
        // claim any number: too many to look at.
        if !columns.is_empty() {
            self.check_finite(x)?;
        }
        let stage = self.value_stage::<T>()?;
        let x = self.quantized(x)?;
        Ok(gemm_columns(x, self.weights(), columns, &stage, out, &mut workspace.gemm)?)
    }

    /// Checks that every value of `x` is finite, after it was divided by the input scale if there
    /// is one.
    pub(crate) fn check_finite<F: Float>(&self, x: MatRef<'_, F>) -> Result<(), ForwardError> {
        check_finite(divided(x, self.input_scale())?, self.weights().kernel())
    }

    /// The left operand that the real values `x` are. They are divided by the input scale, and
    /// their codes are made, while the product reads them.
    pub(crate) fn quantized<'a, F: Float>(
        &'a self,
        x: MatRef<'a, F>,
    ) -> Result<FloatActivations<'a, F>, ForwardError> {
        Ok(FloatActivations::new(divided(x, self.input_scale())?, *self.input())?)
    }

    /// Multiplies codes (m, k), applies the activation function, and writes codes (m, n) with the
    /// parameters [`output`](Self::output). Where the layer has an
    /// [input scale](Self::input_scale), the codes are those of `x / s` and taken as they are.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong, the layer has no output parameters, `C` or `D` is not
    /// the type of the input's or the output's codes, or a code is none of the
    /// [`input`](Self::input)'s.
    pub fn forward_codes<C: Activation, D: Activation>(
        &self,
        x: MatRef<'_, C>,
        out: MatMut<'_, D>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        self.codes(self.activations(x)?, out, threads, &mut workspace.gemm)
    }

    /// Multiplies codes (m, k), applies the activation function, and writes real values (m, n). The
    /// codes are as those of [`forward_codes`](Self::forward_codes).
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong, `C` is not the type of the input's codes, or a code is
    /// none of the [`input`](Self::input)'s.
    pub fn forward_values<C: Activation, T: StoredFloat>(
        &self,
        x: MatRef<'_, C>,
        out: MatMut<'_, T>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        self.values(self.activations(x)?, out, threads, &mut workspace.gemm)
    }

    /// Multiplies codes (m, k) and writes the int32 sums (m, n) with the bias, before any scale.
    /// This is for tests, and for callers that have output stages of their own. The codes are as
    /// those of [`forward_codes`](Self::forward_codes).
    ///
    /// # Errors
    /// As [`forward_values`](Self::forward_values).
    pub fn forward_sums<C: Activation>(
        &self,
        x: MatRef<'_, C>,
        out: MatMut<'_, i32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        let stage = match self.bias() {
            Some(bias) => Int32::new().with_bias(bias),
            None => Int32::new(),
        };
        Ok(gemm(self.activations(x)?, self.weights(), &stage, out, threads, &mut workspace.gemm)?)
    }

    /// Multiplies any left operand and writes codes.
    pub(crate) fn codes<D: Activation>(
        &self,
        x: impl Left,
        out: MatMut<'_, D>,
        threads: Threads<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), ForwardError> {
        let (output, codes) = self.output_codes().ok_or(ForwardError::NoOutputScale)?;
        check_codes::<D>("output", codes)?;
        let [low, high, zero_point] =
            [output.codes().min(), output.codes().max(), output.zero_point()].map(D::from_clamped);
        let function = self.activation();
        let stage = match function.on_codes() {
            OnCodes::RealValues => {
                Requantize::<D>::real(Scales::PerChannel(self.factors()), function, output.scale())?
            }
            _ => Requantize::<D>::new(Scales::PerChannel(self.multipliers()))?
                .with_activation(function, output.scale())?,
        };
        let mut stage = stage.with_zero_point(zero_point).with_clamp(low, high)?;
        if let Some(bias) = self.bias() {
            stage = stage.with_bias(bias);
        }
        Ok(gemm(x, self.weights(), &stage, out, threads, workspace)?)
    }

    /// Multiplies any left operand and writes real values.
    pub(crate) fn values<T: StoredFloat>(
        &self,
        x: impl Left,
        out: MatMut<'_, T>,
        threads: Threads<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), ForwardError> {
        Ok(gemm(x, self.weights(), &self.value_stage::<T>()?, out, threads, workspace)?)
    }

    fn value_stage<T: Float>(&self) -> Result<DequantizeTo<'_, T>, ForwardError> {
        let mut stage = DequantizeTo::<T>::new(Scales::PerChannel(self.factors()))?;
        if let Some(bias) = self.bias() {
            stage = stage.with_bias(bias);
        }
        Ok(stage.with_activation(self.activation())?)
    }

    /// The left operand that the codes `x` are. Where the input's codes are not all of `C`, each
    /// code is looked at: the weights are packed, and their sums proven, for those of the input.
    pub(crate) fn activations<'a, C: Activation>(
        &self,
        x: MatRef<'a, C>,
    ) -> Result<Activations<'a, C>, ForwardError> {
        check_codes::<C>("input", self.input_codes())?;
        let (codes, zero_point) = (self.input().codes(), self.input().zero_point());
        match codes == C::RANGE {
            true => Ok(Activations::new(x, zero_point)),
            false => Ok(Activations::within(x, zero_point, codes)?),
        }
    }
}

/// Checks that `C` is the type of `codes`.
fn check_codes<C: Activation>(operand: &'static str, codes: ActivationCodes) -> Result<(), ForwardError> {
    if codes.range() == C::RANGE { Ok(()) } else { Err(ForwardError::CodeType { operand, expected: codes }) }
}
