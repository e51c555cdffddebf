//! Memory: the caller's matrices, and our own.

pub(crate) mod pages;
pub(crate) mod signs;
pub(crate) mod view;
pub(crate) mod workspace;
