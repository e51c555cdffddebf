//! Memory that a product needs besides its operands, kept from call to call.

use qcore::{Q31Multiplier, QParams};

/// Scratch memory of [`gemm`](crate::gemm). It grows to what the largest product so far needed; a
/// product that fits allocates nothing. One workspace serves any weights and shapes, one call at a
/// time.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) operands: Operands,
    pub(crate) tokens: Tokens,
    /// One arena for each part that runs on a thread of its own.
    pub(crate) arenas: Vec<Arena>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// An arena for each of `parts` parts.
    pub(crate) fn arenas(&mut self, parts: usize) -> &mut [Arena] {
        if self.arenas.len() < parts {
            self.arenas.resize_with(parts, Arena::default);
        }
        &mut self.arenas[..parts]
    }
}

/// The per-channel operands of an output stage, where the caller's own arrays cannot be used as
/// they are.
#[derive(Debug, Default)]
pub(crate) struct Operands {
    /// Bias and the terms of the zero point.
    pub(crate) offsets: Vec<i32>,
    /// Scales, where the caller gave one for all channels, or where all rows have a common factor
    /// besides.
    pub(crate) factors: Vec<f32>,
    /// Fixed-point multipliers, where the caller gave one for all channels.
    pub(crate) multipliers: Vec<Q31Multiplier>,
    /// Results of one row of large floats, computed beforehand.
    pub(crate) results: Vec<f32>,
}

/// How each row of floats is quantized, and the row's terms in the sums.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) params: Vec<QParams>,
    pub(crate) zero_points: Vec<i32>,
    pub(crate) factors: Vec<f32>,
}

/// The scratch memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// A block of rows of `a` in the kernel's form.
    pub(crate) a: Vec<u8>,
    /// The sums of those rows.
    pub(crate) row_sums: Vec<i32>,
    /// Sums of one tile, or of a whole block where k is split.
    pub(crate) acc: Vec<i32>,
    /// A block of rows of a weight-only product.
    pub(crate) float_rows: Vec<f32>,
    /// One tile of its sums.
    pub(crate) float_sums: Vec<f32>,
    /// The sums of a panel's weights, for each group of a scale.
    pub(crate) group_sums: Vec<i32>,
}
