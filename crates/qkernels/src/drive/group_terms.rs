//! The arithmetic between the int32 sums of a group's products and its term in the f32 results, for
//! kernels that have no body for both.

use qcore::{group_term, group_term_with_minimum};

use crate::cpu::vectorize::Task;
use crate::kernel::part_sums::{PartPair, PartSums};
use crate::weights::entries::Entries;

/// Turns the sums of one group into a term of `y`.
pub(crate) struct AddTerm<'t, O> {
    pub(crate) is_first: bool,
    pub(crate) columns: usize,
    pub(crate) scales: &'t [f32],
    /// Empty if there are none.
    pub(crate) zero_points: &'t [i8],
    /// The sums of the weights less their zero points; empty if no row has an origin.
    pub(crate) column_terms: &'t [i32],
    /// The sums of the rows in the kernel's form; empty if there are no zero points.
    pub(crate) row_sums: &'t [i32],
    /// Empty if there are none.
    pub(crate) minimums: &'t [f32],
    /// What minimums multiply, for each row and column.
    pub(crate) activation_sums: &'t mut [i32],
    /// Scales of all rows in the group, or the one that they share.
    pub(crate) factors: &'t [f32],
    /// The tile's first row among them.
    pub(crate) first_token: usize,
    /// What row i has more than the values that it stands for: its shift and its zero point.
    pub(crate) origin: O,
    pub(crate) acc: &'t mut [i32],
    pub(crate) y: &'t mut [f32],
}

impl<O: Fn(usize) -> i32> Task for AddTerm<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let columns = self.columns;
        for i in 0..self.y.len() / columns {
            let acc = &mut self.acc[i * columns..][..columns];
            let y = &mut self.y[i * columns..][..columns];
            let origin = (self.origin)(i);
            // x * w - x * zero_point - origin * (w - zero_point), each summed by itself. The sum
            // fits i32, though not all of these do.
            if let Some(terms) = self.column_terms.get(..columns) {
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(origin.wrapping_mul(terms[j]));
                }
            }
            if let (Some(zero_points), Some(row_sum)) =
                (self.zero_points.get(..columns), self.row_sums.get(i))
            {
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(row_sum.wrapping_mul(zero_points[j].into()));
                }
            }
            let factors = self.factors;
            let Some(&factor) = factors.get(self.first_token + i).or(factors.first()) else { return };
            let scales = &self.scales[..columns];
            match self.minimums.get(..columns) {
                None => add(self.is_first, y, |j| group_term(factor, scales[j], acc[j])),
                Some(minimums) => {
                    let of_row = &self.activation_sums[i * columns..][..columns];
                    add(self.is_first, y, |j| {
                        group_term_with_minimum(factor, scales[j], acc[j], minimums[j], of_row[j])
                    });
                }
            }
        }
    }
}

/// Adds a term to each result.
#[inline(always)]
fn add(is_first: bool, y: &mut [f32], term: impl Fn(usize) -> f32) {
    for (j, y) in y.iter_mut().enumerate() {
        *y = if is_first { term(j) } else { *y + term(j) };
    }
}

/// Adds the sums of a part, times its integers, to those of its group. A group without parts is a
/// part of itself.
pub(crate) struct AddPart<'t> {
    pub(crate) columns: usize,
    /// Empty if groups have no parts.
    pub(crate) part_scales: &'t [i8],
    /// Empty if all are 1.
    pub(crate) part_minimums: &'t [i8],
    /// Empty if there are none.
    pub(crate) zero_points: &'t [i8],
    /// The sums of the rows in the kernel's form; empty if no zero points need them.
    pub(crate) row_sums: &'t [i32],
    /// The sums of the values that the rows stand for; empty if no minimums need them.
    pub(crate) value_sums: &'t [i32],
    /// The products of the part.
    pub(crate) acc: &'t mut [i32],
    /// Those of the group, without the origins taken off.
    pub(crate) sums: &'t mut [i32],
    /// The activations of the group, times the minimums of its parts.
    pub(crate) activation_sums: &'t mut [i32],
}

impl Task for AddPart<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let columns = self.columns;
        let rows = self.acc.chunks_exact_mut(columns).zip(self.sums.chunks_exact_mut(columns));
        for (i, (acc, sums)) in rows.enumerate() {
            // All of these wrap. The sums of the group fit.
            let row_sum = self.row_sums.get(i).copied().unwrap_or(0);
            if let Some(zero_points) = self.zero_points.get(..columns) {
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(row_sum.wrapping_mul(zero_points[j].into()));
                }
            }
            match self.part_scales.get(..columns) {
                None => sums.iter_mut().zip(acc).for_each(|(sum, acc)| *sum = sum.wrapping_add(*acc)),
                Some(scales) => {
                    for j in 0..columns {
                        sums[j] = sums[j].wrapping_add(acc[j].wrapping_mul(scales[j].into()));
                    }
                }
            }
            let Some(&sum) = self.value_sums.get(i) else { continue };
            let of_row = &mut self.activation_sums[i * columns..][..columns];
            match self.part_minimums.get(..columns) {
                None => of_row.iter_mut().for_each(|of_row| *of_row = of_row.wrapping_add(sum)),
                Some(minimums) => {
                    for j in 0..columns {
                        of_row[j] = of_row[j].wrapping_add(sum.wrapping_mul(minimums[j].into()));
                    }
                }
            }
        }
    }
}

/// What minimums multiply: `sums`, `rows` entries for each part, and the same as `pairs` where
/// minimums of parts multiply them and words hold them. No value is farther from 0 than
/// `largest_value`, which zero points far away may make more than a byte.
pub(crate) fn part_sums<'t>(
    sums: &'t [i32],
    rows: usize,
    entries: &Entries,
    largest_value: u32,
    pairs: &'t mut Vec<PartPair>,
) -> PartSums<'t> {
    pairs.clear();
    let largest_sum = u64::from(largest_value).saturating_mul(entries.part_len as u64);
    if entries.has_part_minimums() && largest_sum <= i16::MAX as u64 {
        for parts in (0..entries.groups).map(|g| entries.parts_of(g)) {
            for part in parts.clone().step_by(2) {
                let first = &sums[part * rows..][..rows];
                if part + 1 == parts.end {
                    pairs.extend(first.iter().map(|&sum| [sum as i16, 0]));
                    continue;
                }
                let second = &sums[(part + 1) * rows..][..rows];
                pairs.extend(first.iter().zip(second).map(|(&first, &second)| [first as i16, second as i16]));
            }
        }
    }
    let group_pairs = entries.parts_of(0).len().div_ceil(2);
    PartSums { of_parts: sums, pairs, group_pairs, stride: rows }
}
