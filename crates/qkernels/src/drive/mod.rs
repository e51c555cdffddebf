//! The loops around the kernels, and the threads that run them.

pub(crate) mod blocking;
pub(crate) mod float_nest;
pub(crate) mod nest;
pub(crate) mod scaled_nest;
pub(crate) mod threads;
pub(crate) mod tiny;
