//! The values that are quantized: floats, their range, and how they are rounded.

mod finite;
mod float;
mod observer_error;
mod range;
mod rounding;

pub use finite::first_non_finite;
pub use float::Float;
pub use observer_error::ObserverError;
pub(crate) use range::Scan;
pub use range::{Range, RangeError};
pub(crate) use rounding::{
    LIMIT, round_clamped, round_clamped_f64, round_clamped_ties_away, round_f64, round_small,
};
