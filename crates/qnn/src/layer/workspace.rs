//! Memory that a forward pass needs besides its operands, kept from call to call.

use qkernels::{QuantizedRows, Workspace};

/// Scratch memory of a forward pass, through one layer or through a whole model. It grows to what
/// the largest call so far needed; a call that fits allocates nothing. One workspace serves any
/// layers, models and shapes, one call at a time.
///
/// A model needs as much as its widest layer does for a block of rows, whatever the batch; for the
/// whole batch where [`Mlp::forward`](crate::Mlp::forward) needs all rows at once.
#[derive(Debug, Default)]
pub struct LinearWorkspace {
    /// A row whose elements were not adjacent.
    pub(crate) row: Vec<f32>,
    /// Codes of a layer's input.
    pub(crate) codes: Vec<u8>,
    /// Codes of its output, while those of its input are in `codes`.
    pub(crate) next_codes: Vec<u8>,
    /// Codes of an input that several layers share.
    pub(crate) rows: QuantizedRows,
    /// Real values between two layers of a model.
    pub(crate) between: Between,
    pub(crate) gemm: Workspace,
}

/// Real values between two layers: those that a layer reads, and those that it writes.
#[derive(Debug, Default)]
pub(crate) struct Between {
    pub(crate) current: Vec<f32>,
    pub(crate) next: Vec<f32>,
}

impl LinearWorkspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }
}
