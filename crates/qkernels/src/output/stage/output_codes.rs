//! The codes that a requantization may store.

use qcore::{ActivationFunction, Code, OnCodes};

use super::{StageError, check_function};
use crate::output::operands::Codes;

/// The zero point and the bounds of requantized output, and its activation function.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputCodes<C> {
    zero_point: C,
    low: C,
    high: C,
    function: ActivationFunction,
    /// The size of a step in real values, if the function asks for it.
    scale: f32,
}

impl<C: Code> OutputCodes<C> {
    /// Zero point 0 and the whole range of `C`.
    pub(super) fn all() -> Self {
        let low = C::from_clamped(C::RANGE.min());
        let high = C::from_clamped(C::RANGE.max());
        let function = ActivationFunction::Identity;
        Self { zero_point: C::from_clamped(0), low, high, function, scale: 1.0 }
    }

    pub(super) fn with_zero_point(self, zero_point: C) -> Self {
        Self { zero_point, ..self }
    }

    pub(super) fn with_clamp(self, low: C, high: C) -> Result<Self, StageError> {
        if low.widen() > high.widen() {
            return Err(StageError::EmptyClamp { low: low.widen(), high: high.widen() });
        }
        Ok(Self { low, high, ..self })
    }

    pub(super) fn with_relu(self) -> Self {
        Self { function: ActivationFunction::Relu, ..self }
    }

    pub(super) fn with_activation(
        self,
        function: ActivationFunction,
        scale: f32,
    ) -> Result<Self, StageError> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(StageError::OutputScale { scale });
        }
        Ok(Self { function: check_function(function)?, scale, ..self })
    }

    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// The function itself.
    pub(super) fn whole_function(&self) -> ActivationFunction {
        self.function
    }

    /// The part of the function that is more than bounds.
    pub(super) fn function(&self) -> ActivationFunction {
        match self.function.on_codes() {
            OnCodes::Bounds => ActivationFunction::Identity,
            _ => self.function,
        }
    }

    /// The codes as integers, with ReLU and clamps among the bounds.
    pub(super) fn bounds(&self) -> Codes {
        let (zero_point, low, high) = (self.zero_point.widen(), self.low.widen(), self.high.widen());
        let bounds = self.function.as_code_bounds(self.scale, zero_point, low, high);
        let (low, high) = bounds.unwrap_or((low, high));
        Codes { zero_point, low, high }
    }
}
