//! The CPU at hand: its features, its caches and stores past them, and plain loops compiled for
//! its vectors.

pub(crate) mod caches;
pub(crate) mod detect;
pub(crate) mod stream;
pub(crate) mod threads;
pub(crate) mod vectorize;
