//! What minimums of weights multiply, as kernels read it.

use crate::kernel::part_sums::{PartPair, PartSums};
use crate::weights::entries::Entries;

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
