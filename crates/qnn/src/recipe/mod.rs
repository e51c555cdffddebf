//! Steps that make quantized layers more accurate: each is tried on each layer, measured on rows
//! that are held out from calibration, and undone where it does not help.

pub(crate) mod bias;
pub(crate) mod equalize;
pub(crate) mod layer_by_layer;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod runner;
pub(crate) mod smooth;
pub(crate) mod steps;
pub(crate) mod weights;
