//! Memory that a product needs besides its operands, kept from call to call.

use qcore::{GgmlQ8_0, Q31Multiplier, QParams, Range};

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
    /// Of each row, or the same for all of them; or of the groups of each row, row by row.
    pub(crate) params: Vec<QParams>,
    /// In place of `params`: the groups of each row, row by row.
    pub(crate) blocks: Vec<GgmlQ8_0>,
    /// Of each row, or the one that all of them have; empty if that is 0.
    pub(crate) zero_points: Vec<i32>,
    /// The scales; those of groups are group by group, of all rows.
    pub(crate) factors: Vec<f32>,
    /// Consecutive k with a scale of their own; 0 if rows have no groups.
    pub(crate) group_len: usize,
    /// From the scales of a group to those of the next one: all rows, or 0 if rows have no groups.
    pub(crate) factor_stride: usize,
    /// The ranges of one row's groups.
    pub(crate) ranges: Vec<Option<Range>>,
}

/// The most rows of any kernel's tile.
pub(crate) const MOST_ROWS: usize = 12;

impl Tokens {
    /// The scales of some rows, and how far those of a group are from those of the next one (0
    /// without groups). `same` is for the one that all rows may share.
    pub(crate) fn factors_of<'f>(
        &'f self,
        rows: core::ops::Range<usize>,
        same: &'f mut [f32; MOST_ROWS],
    ) -> (&'f [f32], usize) {
        let factors = match (&self.factors[..], same.get_mut(..rows.len())) {
            (&[factor], Some(same)) => {
                same.fill(factor);
                same
            }
            (factors, _) if self.factor_stride > 0 => factors.get(rows.start..).unwrap_or_default(),
            (factors, _) => factors.get(rows).unwrap_or_default(),
        };
        (factors, self.factor_stride)
    }

    /// What row `i` has more than the values that it stands for, in a form of rows that adds
    /// `shift` to codes.
    #[inline(always)]
    pub(crate) fn origin(&self, shift: i32, i: usize) -> i32 {
        shift + self.zero_points.get(i).or(self.zero_points.first()).copied().unwrap_or(0)
    }

    /// Whether that may be other than 0.
    pub(crate) fn has_origins(&self, shift: i32) -> bool {
        shift != 0 || !self.zero_points.is_empty()
    }
}

/// The scratch memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pub(crate) rows: RowScratch,
    pub(crate) panel: PanelScratch,
    /// Sums of one tile, or of a whole block where k is split.
    pub(crate) acc: Vec<i32>,
    /// Sums of one tile in f32.
    pub(crate) float_sums: Vec<f32>,
}

/// A block of rows.
#[derive(Debug, Default)]
pub(crate) struct RowScratch {
    /// The rows in the kernel's form.
    pub(crate) bytes: Vec<u8>,
    /// The same in f32.
    pub(crate) floats: Vec<f32>,
    /// The sums of the rows, or of the groups of each.
    pub(crate) sums: Vec<i32>,
    /// The sums of the values that the codes of each part of a group stand for.
    pub(crate) value_sums: Vec<i32>,
    /// The same as words, those of two parts side by side.
    pub(crate) pairs: Vec<[i16; 2]>,
    /// The sums of each part in f32.
    pub(crate) float_sums: Vec<f32>,
}

/// Floats of a cache line.
const LINE: usize = 64 / size_of::<f32>();

/// `len` floats that begin with a cache line, whatever they are, in `buffer`, which grows where it
/// is too short. (Vectors that cross lines take two loads or stores.)
pub(crate) fn lines_of(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(buffer.len().max(len + LINE), 0.0);
    let start = buffer.as_ptr().align_offset(64).min(LINE);
    &mut buffer[start..start + len]
}

/// A panel of weights.
#[derive(Debug, Default)]
pub(crate) struct PanelScratch {
    /// The codes of 4-bit weights in the order of the kernel.
    pub(crate) codes: Vec<i8>,
    /// The weights in f32, where many rows read them.
    pub(crate) floats: Vec<f32>,
    /// The sums of the columns, for each group of a scale.
    pub(crate) sums: Vec<i32>,
    /// The scales of groups or parts in f32.
    pub(crate) scales: Vec<f32>,
    /// The minimums of groups or parts in f32.
    pub(crate) minimums: Vec<f32>,
    /// The scales, or the minimums, of groups in f32, where those of parts are made of them.
    pub(crate) group_floats: Vec<f32>,
    /// The zero points of groups, for each of their parts.
    pub(crate) zero_points: Vec<i8>,
}
