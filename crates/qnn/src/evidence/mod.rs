//! Figures that need no pass: bytes, warnings, and the text of tables.

pub(crate) mod sizes;
pub(crate) mod table;
pub(crate) mod warning;
