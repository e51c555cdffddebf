//! Memory that a product needs besides its operands, kept from call to call.

/// Scratch memory of [`gemm`](crate::gemm). It grows to what the largest product so far needed; a product that fits
/// allocates nothing. One workspace serves any weights and shapes, one call at a time.
#[derive(Debug, Default)]
pub struct Workspace {
    /// For each channel: bias and the terms of the zero point.
    pub(crate) offsets: Vec<i32>,
    /// For each channel: the scale, where the caller gave one for all.
    pub(crate) factors: Vec<f32>,
    /// One for each part that runs on a thread of its own.
    pub(crate) arenas: Vec<Arena>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The scratch memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// A block of rows of `a` in the kernel's form.
    pub(crate) a: Vec<u8>,
    /// Sums of one tile, or of a whole block where k is split.
    pub(crate) acc: Vec<i32>,
}
