//! Scale and zero point: what they are, and how they are chosen.

mod order;
mod presets;
mod qparams;
mod scheme;

pub use order::{Rounding, ZeroPointOrder};
pub use qparams::{ParamError, QParams};
pub use scheme::{AffineRange, Kind, ScaleArithmetic, Scheme, SchemeError, SymmetricDivisor, ZeroScale};
