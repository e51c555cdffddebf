//! The contract between the loops and the kernels: what a kernel is, and which arguments it gets.

pub(crate) mod desc;
pub(crate) mod float_tile;
pub(crate) mod group_floats;
pub(crate) mod nibble_tile;
pub(crate) mod panel_order;
pub(crate) mod part_sums;
pub(crate) mod plain_scaled;
pub(crate) mod scaled_tile;
pub(crate) mod strip;
pub(crate) mod token;
