//! What minimums multiply, on 256-bit registers.

use core::arch::x86_64::*;
use core::ops::Range;

use super::super::simd::{load_i8x8_as_i32, load_two_i8x8_as_i16_pairs};
use super::super::vec256::{self, LANES};
use crate::kernel::part_sums::PartSums;

/// Columns of a panel.
const NR: usize = 16;

/// The values of M rows in the parts of group `g`, summed and times the minimums of the parts, of
/// which there are `NR` for each. V vectors of columns.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn activation_sums<const M: usize, const V: usize>(
    rows: &PartSums<'_>,
    minimums: &[i8],
    g: usize,
    parts: Range<usize>,
) -> [[__m256i; V]; M] {
    let mut sums = [[_mm256_setzero_si256(); V]; M];
    let of_part = |part: usize| minimums.get(part * NR..).unwrap_or_default().as_chunks::<LANES>().0;
    if rows.pairs.is_empty() {
        for part in parts {
            let (of_rows, of_columns) = (&rows.of_part(part, M)[..M], of_part(part));
            for v in 0..V {
                let times = load_i8x8_as_i32(&of_columns[v]);
                for i in 0..M {
                    sums[i][v] = vec256::add_product(sums[i][v], _mm256_set1_epi32(of_rows[i]), times);
                }
            }
        }
        return sums;
    }
    for (pair, part) in (g * rows.group_pairs..).zip(parts.clone().step_by(2)) {
        let of_rows = &rows.pairs[pair * rows.stride..][..M];
        // The sum beside that of a single part is 0, whatever multiplies it.
        let of_columns = [of_part(part), of_part((part + 1).min(parts.end - 1))];
        let mut times = [_mm256_setzero_si256(); V];
        for v in 0..V {
            times[v] = load_two_i8x8_as_i16_pairs(&of_columns[0][v], &of_columns[1][v]);
        }
        for i in 0..M {
            let of_row = _mm256_set1_epi32(bytemuck::must_cast(of_rows[i]));
            for v in 0..V {
                sums[i][v] = vec256::add(sums[i][v], _mm256_madd_epi16(times[v], of_row));
            }
        }
    }
    sums
}
