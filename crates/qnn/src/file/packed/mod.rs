//! Codes of several bits that share bytes or words, whatever holds them: what they are once they
//! are apart, in which order their inputs are, and those of ONNX's `MatMulNBits`.

pub(crate) mod input_groups;
pub(crate) mod nbits;
pub(crate) mod nbits_error;
pub(crate) mod parts;
