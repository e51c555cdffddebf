//! The static form: every scale is known before the first input.

pub(crate) mod build;
pub(crate) mod forward;
pub(crate) mod quantize;
pub(crate) mod sequence;
