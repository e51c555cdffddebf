//! Weights in blocks, as files have them: scales between codes, byte by byte.

mod bits;
mod decode;
mod encode;
mod format;
mod ggml_q8_0;

pub use decode::{BlockError, BlockGroup, BlockPart};
pub use format::BlockFormat;
pub use ggml_q8_0::GgmlQ8_0;
