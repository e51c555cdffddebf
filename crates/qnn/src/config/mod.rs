//! What a caller chooses: forms, codes, schemes, observers, and which layer becomes what.

pub(crate) mod activation_codes;
pub(crate) mod form;
pub(crate) mod gptq;
pub(crate) mod method;
pub(crate) mod mlp;
pub(crate) mod observer;
pub(crate) mod pass;
pub(crate) mod pattern;
pub(crate) mod recipe;
pub(crate) mod schemes;
pub(crate) mod weights;
