//! Models as files: ours, PyTorch's, compressed-tensors' and llama.cpp's; weights of ONNX files.

pub(crate) mod checkpoint;
pub(crate) mod checksum;
pub(crate) mod codes_form;
pub(crate) mod description;
pub(crate) mod error;
pub(crate) mod float_mlp;
pub(crate) mod gguf;
pub(crate) mod json_keys;
pub(crate) mod mlp;
pub(crate) mod packed;
pub(crate) mod reader;
pub(crate) mod scheme;
pub(crate) mod source;
pub(crate) mod tensors;
pub(crate) mod writer;
