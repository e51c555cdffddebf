//! Memory that a layer needs besides its operands, kept from call to call.

use qkernels::Workspace;

/// Scratch memory of a layer's `forward`. It grows to what the largest call so far needed; a call that fits allocates
/// nothing. One workspace serves any layers and shapes, one call at a time.
#[derive(Debug, Default)]
pub struct LinearWorkspace {
    /// A row whose elements were not adjacent.
    pub(crate) row: Vec<f32>,
    /// Codes of the input.
    pub(crate) codes: Vec<u8>,
    pub(crate) gemm: Workspace,
}

impl LinearWorkspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }
}
