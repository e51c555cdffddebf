//! What weights become beyond rounding each of them to the nearest code: codes that make up for
//! each other's errors on the inputs that calibration saw, and ranges that are worth clipping.

pub(crate) mod cholesky;
pub(crate) mod clip;
pub(crate) mod error;
pub(crate) mod gptq;
pub(crate) mod hessian;
pub(crate) mod lanes;
pub(crate) mod nearest;
#[cfg(test)]
mod paper;
pub(crate) mod parts;
#[cfg(test)]
mod random;
