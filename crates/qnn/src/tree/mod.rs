//! A model as a tree of layers: how it shows its layers, and how they are exchanged.

pub(crate) mod chain;
pub(crate) mod exchange;
pub(crate) mod layers;
pub(crate) mod shape;
