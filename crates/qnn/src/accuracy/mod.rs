//! The arithmetic of post-training methods on the weights of one layer, or of those that share an
//! input: scales that balance inputs and weights, codes that make up for each other's errors on the
//! inputs that calibration saw, ranges that are worth clipping.

pub(crate) mod channels;
pub(crate) mod cholesky;
pub(crate) mod clip;
pub(crate) mod equalize;
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
pub(crate) mod smooth;
