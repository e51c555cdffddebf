//! Scale and zero point: what they are, and how they are chosen.

mod presets;
mod qparams;
mod scheme;

pub use qparams::{ParamError, QParams, Rounding, ZeroPointOrder};
pub use scheme::{AffineRange, Kind, ScaleArithmetic, Scheme, SchemeError, SymmetricDivisor, ZeroScale};
