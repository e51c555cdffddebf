//! The MLP in f32, in mixed forms and with integers only, and a report of what quantizing it cost.

pub(crate) mod calibrated;
pub(crate) mod compare;
pub(crate) mod float;
pub(crate) mod mixed;
pub(crate) mod quant;
pub(crate) mod report;
