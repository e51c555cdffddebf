//! The left operand: activations on their way into a kernel's form.

pub(crate) mod codes;
pub(crate) mod float_rows;
pub(crate) mod floats;
pub(crate) mod rows;
