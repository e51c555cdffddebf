//! One linear layer in each of its forms, how it runs and how an f32 layer becomes one.

pub(crate) mod dynamic;
pub(crate) mod float;
pub(crate) mod forward_error;
pub(crate) mod head;
pub(crate) mod layer_error;
pub(crate) mod linear;
pub(crate) mod rows;
pub(crate) mod static_linear;
pub(crate) mod storage;
pub(crate) mod stored;
pub(crate) mod tensor;
pub(crate) mod watch;
pub(crate) mod weight_codes;
pub(crate) mod weight_only;
pub(crate) mod workspace;
