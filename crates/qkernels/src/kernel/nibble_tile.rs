//! Products of 4-bit weights with a scale for each group of k: how a kernel sees one tile, and the
//! body for kernels that have none of their own.
//!
//! A code is unsigned, which makes it the u8 operand of the instructions that multiply bytes, and
//! the activations are the i8 one. Its zero point is taken off the sums, where it multiplies the
//! sum of the row's codes.

use qcore::{group_term, group_term_with_minimum};

use crate::cpu::vectorize::Task;
use crate::kernel::group_floats::GroupFloats;
use crate::kernel::part_sums::PartSums;

/// Columns of a panel.
pub(crate) const NIBBLE_COLUMNS: usize = 16;

/// k of a step.
pub(crate) const NIBBLE_STEP: usize = 8;

/// A step of all columns, as `weights/nibbles.rs` lays it out.
pub(crate) type NibbleLine = [u8; NIBBLE_COLUMNS * NIBBLE_STEP / 2];

/// The largest code of 4 bits.
pub(crate) const LARGEST_NIBBLE: u8 = 15;

/// One tile of 16 columns: `y[i][j]` is the sum over the groups g, in their order, of
/// [`qcore::group_term`] of `factors[g][i]`, `scales[g][j]` and the int32 sum
///
/// ```text
/// sum over k of the group: a[i][k] * b[k][j]
///   - row_terms[g][i] (times zero_points[g][j] if there are any)
///   - origins[i] * column_terms[g][j], if there are any
/// ```
///
/// With parts of groups, the products of each part, less its row term, are multiplied by
/// `part_scales[p][j]`. With minimums the term is [`qcore::group_term_with_minimum`] of
/// `minimums[g][j]` and the sum of `part_sums` (p, i) over the parts, each times
/// `part_minimums[p][j]`, if there are any. Without parts, a group is its only part.
#[derive(Debug)]
pub(crate) struct NibbleTile<'t> {
    /// Rows of i8, with zeros behind k. Row i starts at byte `i * a_stride`.
    pub(crate) a: &'t [u8],
    /// Bytes between the starts of two rows.
    pub(crate) a_stride: usize,
    /// A packed panel.
    pub(crate) b: &'t [NibbleLine],
    /// Lines that share a scale. The last scale covers those that remain.
    pub(crate) group_steps: usize,
    /// For each group.
    pub(crate) scales: GroupFloats<'t>,
    /// For each group, if not all of them are the same.
    pub(crate) zero_points: &'t [[i8; NIBBLE_COLUMNS]],
    /// For each part, `term_stride` entries apart, the sum of each row's codes; times the zero
    /// point, if that is the same for all columns.
    pub(crate) row_terms: &'t [i32],
    /// Whether one of them may be other than 0.
    pub(crate) has_row_terms: bool,
    /// Rows of the block, to which this tile belongs.
    pub(crate) term_stride: usize,
    /// What each row has more than the values that it stands for; empty if that is nothing.
    pub(crate) origins: &'t [i32],
    /// For each group the sums of the weights less their zero points; empty like `origins`.
    pub(crate) column_terms: &'t [[i32; NIBBLE_COLUMNS]],
    /// Lines of a part. Groups are whole parts, but for the last one.
    pub(crate) part_steps: usize,
    /// For each part; empty without parts.
    pub(crate) part_scales: &'t [[i8; NIBBLE_COLUMNS]],
    /// For each group, if there are any.
    pub(crate) minimums: GroupFloats<'t>,
    /// For each part; empty if all are 1.
    pub(crate) part_minimums: &'t [[i8; NIBBLE_COLUMNS]],
    /// What minimums multiply.
    pub(crate) part_sums: PartSums<'t>,
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// For each group, `factor_stride` entries apart, the scale of each row.
    pub(crate) factors: &'t [f32],
    /// 0 if the scale of a row is that of all groups.
    pub(crate) factor_stride: usize,
    /// A result for each row and column.
    pub(crate) y: &'t mut [[f32; NIBBLE_COLUMNS]],
}

impl NibbleTile<'_> {
    /// How many there are.
    pub(crate) fn groups(&self) -> usize {
        self.scales.len() / NIBBLE_COLUMNS
    }

    /// Whether it has neither minimums nor parts.
    pub(crate) fn is_plain(&self) -> bool {
        self.minimums.is_empty() && self.part_scales.is_empty()
    }
}

/// Rows of a tile of the plain body.
pub(crate) const PLAIN_NIBBLE_ROWS: usize = 4;

/// The plain body.
pub(crate) struct PlainNibbles<'p, 't>(pub(crate) &'p mut NibbleTile<'t>);

impl Task for PlainNibbles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let tile = self.0;
        let groups = tile.groups();
        for i in 0..tile.rows {
            let (row, _) = tile.a[i * tile.a_stride..].as_chunks::<NIBBLE_STEP>();
            let mut part = 0;
            for g in 0..groups {
                let start = g * tile.group_steps;
                let end = tile.b.len().min(start.saturating_add(tile.group_steps));
                let zero_points = tile.zero_points.get(g).map_or([1; NIBBLE_COLUMNS], |of| of.map(i32::from));
                let (mut sums, mut activation_sums) = ([0i32; NIBBLE_COLUMNS], [0i32; NIBBLE_COLUMNS]);
                for first in (start..end).step_by(tile.part_steps) {
                    let mut of_part = [0i32; NIBBLE_COLUMNS];
                    let steps = first..end.min(first.saturating_add(tile.part_steps));
                    for (a, b) in row[steps.clone()].iter().zip(&tile.b[steps]) {
                        add_products(&mut of_part, a, b);
                    }
                    let of_row =
                        if tile.has_row_terms { tile.row_terms[part * tile.term_stride + i] } else { 0 };
                    let scales =
                        tile.part_scales.get(part).map_or([1; NIBBLE_COLUMNS], |of| of.map(i32::from));
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let products = of_part[j].wrapping_sub(of_row.wrapping_mul(zero_points[j]));
                        *sum = sum.wrapping_add(products.wrapping_mul(scales[j]));
                    }
                    if let Some(of_row) = tile.part_sums.of_part(part, i + 1).last() {
                        let of_part = tile.part_minimums.get(part);
                        let minimums = of_part.map_or([1; NIBBLE_COLUMNS], |of| of.map(i32::from));
                        for (sum, minimum) in activation_sums.iter_mut().zip(minimums) {
                            *sum = sum.wrapping_add(of_row.wrapping_mul(minimum));
                        }
                    }
                    part += 1;
                }
                if let (Some(&origin), Some(of_columns)) = (tile.origins.get(i), tile.column_terms.get(g)) {
                    for (sum, of_column) in sums.iter_mut().zip(of_columns) {
                        *sum = sum.wrapping_sub(origin.wrapping_mul(*of_column));
                    }
                }
                let factor = tile.factors[g * tile.factor_stride + i];
                let of_group = g * NIBBLE_COLUMNS..(g + 1) * NIBBLE_COLUMNS;
                let (scales, minimums) = (tile.scales.range(of_group.clone()), tile.minimums.range(of_group));
                for (j, y) in tile.y[i].iter_mut().enumerate() {
                    let (scale, sum) = (scales.at(j), sums[j]);
                    let term = if minimums.is_empty() {
                        group_term(factor, scale, sum)
                    } else {
                        group_term_with_minimum(factor, scale, sum, minimums.at(j), activation_sums[j])
                    };
                    *y = if g == 0 { term } else { *y + term };
                }
            }
        }
    }
}

/// Adds the products of a step.
#[inline(always)]
fn add_products(sums: &mut [i32; NIBBLE_COLUMNS], a: &[u8; NIBBLE_STEP], b: &NibbleLine) {
    let (quads, _) = b.as_chunks::<4>();
    for t in 0..4 {
        let (low, high) = (i32::from(a[t].cast_signed()), i32::from(a[4 + t].cast_signed()));
        for j in 0..NIBBLE_COLUMNS {
            let pair = quads[j][t];
            sums[j] += i32::from(pair & LARGEST_NIBBLE) * low + i32::from(pair >> 4) * high;
        }
    }
}
