//! The demonstrations, a file each.

pub(crate) mod mnist;
