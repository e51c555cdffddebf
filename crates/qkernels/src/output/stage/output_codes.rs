//! The codes that a requantization may store.

use qcore::Code;

use super::StageError;
use crate::output::operands::Codes;

/// The zero point and the bounds of requantized output.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputCodes<C> {
    zero_point: C,
    low: C,
    high: C,
    relu: bool,
}

impl<C: Code> OutputCodes<C> {
    /// Zero point 0, the whole range of `C`.
    pub(super) fn all() -> Self {
        let low = C::from_clamped(C::RANGE.min());
        let high = C::from_clamped(C::RANGE.max());
        Self { zero_point: C::from_clamped(0), low, high, relu: false }
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
        Self { relu: true, ..self }
    }

    /// As integers, with ReLU as part of the lower bound.
    pub(super) fn bounds(&self) -> Codes {
        let (zero_point, high) = (self.zero_point.widen(), self.high.widen());
        // A clamp above the zero point leaves nothing for ReLU to do, one below it leaves nothing else.
        let low = if self.relu { self.low.widen().max(zero_point).min(high) } else { self.low.widen() };
        Codes { zero_point, low, high }
    }
}
