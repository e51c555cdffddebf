//! GGUF, the files of llama.cpp and its relatives: metadata, and tensors in ggml's types.

mod codes;
pub(crate) mod container;
mod cursor;
pub(crate) mod error;
pub(crate) mod layers;
pub(crate) mod tensor_type;
pub(crate) mod value;
pub(crate) mod write_error;
pub(crate) mod writer;
