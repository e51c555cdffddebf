//! The right operand: weights, packed once in the order in which kernels read them.

pub(crate) mod entries;
pub(crate) mod group_sums;
pub(crate) mod input_order;
pub(crate) mod interleave;
pub(crate) mod nibbles;
pub(crate) mod operand;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod proof;
pub(crate) mod regroup;
pub(crate) mod scaled;
pub(crate) mod scales;
pub(crate) mod sums;
pub(crate) mod transpose;
