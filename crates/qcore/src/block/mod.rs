//! Weights in blocks, as files have them: scales between codes, byte by byte.

mod decode;
mod format;

pub use decode::{BlockError, BlockGroup};
pub use format::BlockFormat;
