//! Products with a scale for each group of k: how a kernel sees one tile.

use crate::kernel::group_floats::GroupFloats;
use crate::kernel::part_sums::PartSums;
use crate::matrix::workspace::MOST_ROWS;

/// One tile: `y[i][j]` is the sum over the groups g, in their order, of [`qcore::group_term`] of
/// `factors[g][i]`, `scales[g][j]` and the products of the group, less
/// `row_terms[g][i] * zero_points[g][j]` and `origins[i] * column_terms[g][j]`, if there are any.
///
/// With parts of groups, the products of each part, less those of the part's row terms and the zero
/// points of its group, are multiplied by `part_scales[p][j]`. With
/// minimums the term is [`qcore::group_term_with_minimum`] of `minimums[g][j]` and the sum of
/// `part_sums` (p, i) over the parts, each times `part_minimums[p][j]`, if there are any. Without
/// parts, a group is its only part.
#[derive(Debug)]
pub(crate) struct ScaledTile<'t> {
    /// Rows in the form of the body. Row i starts at byte `i * a_stride`.
    pub(crate) a: &'t [u8],
    /// Bytes between the starts of two rows.
    pub(crate) a_stride: usize,
    /// A packed panel, as for [`Tile`](crate::kernel::strip::Tile).
    pub(crate) b: &'t [i8],
    /// Columns of the panel.
    pub(crate) columns: usize,
    /// Steps of `kr` consecutive k.
    pub(crate) steps: usize,
    /// Steps that share a scale. The last scale covers those that remain.
    pub(crate) group_steps: usize,
    /// `nr` entries for each group; `columns` of them belong to this panel.
    pub(crate) scales: GroupFloats<'t>,
    /// The kernel's `nr`.
    pub(crate) nr: usize,
    /// As `scales`, if there are any.
    pub(crate) zero_points: &'t [i8],
    /// For each part, `term_stride` entries apart, the sum of each row's codes if there are zero
    /// points; else, for bodies that shift weights, what the sums of its products start with. Empty
    /// for others.
    pub(crate) row_terms: &'t [i32],
    /// Rows of the block, to which this tile belongs.
    pub(crate) term_stride: usize,
    /// What each row has more than the values that it stands for.
    pub(crate) origins: [i32; MOST_ROWS],
    /// As `scales`: the sums of the weights; empty if all origins are 0.
    pub(crate) column_terms: &'t [i32],
    /// Steps of a part. Groups are whole parts, but for the last one.
    pub(crate) part_steps: usize,
    /// `nr` entries for each part; empty without parts.
    pub(crate) part_scales: &'t [i8],
    /// As `scales`, if there are any.
    pub(crate) minimums: GroupFloats<'t>,
    /// As `part_scales`; empty if all are 1.
    pub(crate) part_minimums: &'t [i8],
    /// What minimums multiply.
    pub(crate) part_sums: PartSums<'t>,
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// For each group, `factor_stride` entries apart, the scale of each row.
    pub(crate) factors: &'t [f32],
    /// 0 if the scale of a row is that of all groups.
    pub(crate) factor_stride: usize,
    /// A result for each row and column, row by row.
    pub(crate) y: &'t mut [f32],
}
