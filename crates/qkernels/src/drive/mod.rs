//! The loops around the kernels, and the threads that run them.

pub(crate) mod blocking;
pub(crate) mod float_tiles;
pub(crate) mod nest;
pub(crate) mod nibble_tiles;
pub(crate) mod panel_walk;
pub(crate) mod parts;
pub(crate) mod part_sums;
pub(crate) mod scaled_tiles;
pub(crate) mod tiny;
