//! Codes: the integers that stand for values, their ranges, and how they are packed.

mod codes;
mod memory;
mod pack_bits;

pub use codes::{Code, CodeRange, CodeRangeError};
pub use memory::{WeightStorage, packed_bytes};
pub use pack_bits::{PackError, pack_codes, unpack_codes};
