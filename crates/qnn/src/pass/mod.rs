//! The quantize pass over any tree of layers: plan, calibrate, replace, report, and find out what
//! each layer costs.

pub(crate) mod calibration;
pub(crate) mod compare;
pub(crate) mod error;
pub(crate) mod plan;
pub(crate) mod quality;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sensitivity;
pub(crate) mod sensitivity_report;
pub(crate) mod trial;
