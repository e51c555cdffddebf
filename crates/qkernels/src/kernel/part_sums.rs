//! What minimums of weights multiply: the sums of rows in each part of a group.

use core::ops::Range;

/// What a row has in two neighbouring parts of a group, for instructions that multiply pairs of
/// words. A part without a neighbour has 0 beside it.
pub(crate) type PartPair = [i16; 2];

/// The sums of the values that the codes of some rows stand for; empty without minimums. A group
/// without parts is its only part.
#[derive(Clone, Copy, Debug, Default)]
#[allow(dead_code, reason = "targets without a kernel that multiplies pairs read the sums alone")]
pub(crate) struct PartSums<'t> {
    /// For each part, `stride` entries apart, those of the rows.
    pub(crate) of_parts: &'t [i32],
    /// For each pair of a group's parts, `stride` entries apart, the same as words; empty if parts
    /// have no minimums, or if words do not hold the sums.
    pub(crate) pairs: &'t [PartPair],
    /// Pairs of a whole group.
    pub(crate) group_pairs: usize,
    /// Rows of the block that these belong to.
    pub(crate) stride: usize,
}

impl<'t> PartSums<'t> {
    /// Those of the rows from row `first` on.
    pub(crate) fn skip_rows(self, first: usize) -> Self {
        Self {
            of_parts: self.of_parts.get(first..).unwrap_or_default(),
            pairs: self.pairs.get(first..).unwrap_or_default(),
            ..self
        }
    }

    /// Those of the first `rows` rows in a part; empty if there are none.
    pub(crate) fn of_part(&self, part: usize, rows: usize) -> &'t [i32] {
        self.of_parts.get(part * self.stride..).and_then(|sums| sums.get(..rows)).unwrap_or_default()
    }

    /// The sum of row `i` over some parts, wrapping.
    #[allow(dead_code, reason = "bodies of x86-64 use it")]
    #[inline(always)]
    pub(crate) fn of_row(&self, i: usize, parts: Range<usize>) -> i32 {
        parts.fold(0i32, |sum, part| sum.wrapping_add(self.of_parts[part * self.stride + i]))
    }
}
