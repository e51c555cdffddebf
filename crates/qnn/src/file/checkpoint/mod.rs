//! Checkpoints of other programs, in one file or several: layers of floats, of int8 weights, and of
//! packed ones.

pub(crate) mod error;
pub(crate) mod int8_layout;
pub(crate) mod layers;
pub(crate) mod names;
pub(crate) mod packed_layout;
pub(crate) mod shards;
pub(crate) mod tensors;
