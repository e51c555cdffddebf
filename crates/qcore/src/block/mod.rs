//! Weights in blocks, as files have them: scales between codes, byte by byte.

mod bits;
mod decode;
mod encode;
mod format;

pub use decode::{BlockError, BlockGroup, BlockPart};
pub use format::BlockFormat;
