//! Output stages: from int32 sums to what the caller stores.

pub(crate) mod channels;
pub(crate) mod curve;
pub(crate) mod operands;
pub(crate) mod stage;
pub(crate) mod store;
pub(crate) mod target;
pub(crate) mod tile;
