//! The CPU at hand: its features, its caches, and plain loops compiled for its vectors.

pub(crate) mod caches;
pub(crate) mod detect;
pub(crate) mod threads;
pub(crate) mod vectorize;
