//! The calls that the crate is for.

pub(crate) mod dynamic;
pub(crate) mod elementwise;
#[cfg(feature = "float")]
pub mod float;
pub(crate) mod float_range;
pub(crate) mod gemm;
pub(crate) mod group_scales;
pub(crate) mod quantized_rows;
pub(crate) mod scaled;
pub(crate) mod weight_only;
