//! 4-bit weights with minimums, or with groups in parts, on AVX-512 VNNI: `nibbles` with one
//! multiplication in int32 for each part between its products and the sums of its group.
//!
//! The tile is 8 rows by one vector: the sums of a part, those of its group and the results of all
//! rows stay in registers.

use core::arch::x86_64::*;
use core::ops::Range;

use super::super::simd::{load_i8x16_as_i32, load_i32x16, load_two_i8x16_as_i16_pairs, prefetch};
use super::super::tile::rows_of_steps;
use super::super::vec512;
use super::steps::{self, AHEAD, LANES, halves, multiply_add, of_columns};
use crate::kernel::desc::NibbleParts;
use crate::kernel::nibble_tile::NibbleTile;
use crate::kernel::part_sums::PartSums;

pub(super) const BODY: NibbleParts = NibbleParts { rows: 8, run };

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run(tile: &mut NibbleTile<'_>) {
    if tile.factor_stride == 0 { run_rows::<false>(tile) } else { run_rows::<true>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run_rows<const GROUPED: bool>(tile: &mut NibbleTile<'_>) {
    match tile.rows {
        1 => body::<1, GROUPED>(tile),
        2 => body::<2, GROUPED>(tile),
        3 => body::<3, GROUPED>(tile),
        4 => body::<4, GROUPED>(tile),
        5 => body::<5, GROUPED>(tile),
        6 => body::<6, GROUPED>(tile),
        7 => body::<7, GROUPED>(tile),
        8 => body::<8, GROUPED>(tile),
        rows => unreachable!("no tile has {rows} rows"),
    }
}

/// M rows. GROUPED if they have a scale for each group.
#[inline(never)] // as in `tile_body`
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn body<const M: usize, const GROUPED: bool>(tile: &mut NibbleTile<'_>) {
    let (b, steps) = (tile.b, tile.b.len());
    let a = rows_of_steps::<M>(tile);
    let mut same = [0.0; M];
    same.copy_from_slice(&tile.factors[..M]);
    // Adding -0.0 changes nothing.
    let mut y = [vec512::splat(-0.0); M];
    let (mut start, mut part) = (0usize, 0);
    for g in 0..tile.groups() {
        // Before there are sums, which would make way for what a choice between two forms needs.
        let [scales] = vec512::load_floats::<1>(tile.scales, g * LANES);
        let end = steps.min(start.saturating_add(tile.group_steps));
        let first_part = part;
        let mut sums = [vec512::zero(); M];
        while start < end {
            let stop = end.min(start.saturating_add(tile.part_steps));
            let mut acc = [vec512::zero(); M];
            for step in start..stop {
                prefetch(&b[step], AHEAD);
                let [low, high] = halves(&b[step]);
                for i in 0..M {
                    acc[i] = multiply_add(acc[i], low, steps::broadcast(a[i][step][0]));
                }
                for i in 0..M {
                    acc[i] = multiply_add(acc[i], high, steps::broadcast(a[i][step][1]));
                }
            }
            if let Some(of_columns) = tile.part_scales.get(part) {
                let times = load_i8x16_as_i32(of_columns);
                for i in 0..M {
                    acc[i] = _mm512_mullo_epi32(acc[i], times);
                }
            }
            for i in 0..M {
                sums[i] = vec512::add(sums[i], acc[i]);
            }
            (start, part) = (stop, part + 1);
        }
        let parts = first_part..part;
        if tile.has_row_terms {
            take_zero_points_off(tile, g, parts.clone(), &mut sums);
        }
        if let Some(of_columns) = tile.column_terms.get(g) {
            let of_columns = load_i32x16(of_columns);
            for (sum, &origin) in sums.iter_mut().zip(tile.origins) {
                *sum = vec512::subtract_product(*sum, origin, of_columns);
            }
        }
        let factors = if GROUPED { &tile.factors[g * tile.factor_stride..][..M] } else { &same[..] };
        let mut terms = [vec512::splat(0.0); M];
        for i in 0..M {
            let factor = vec512::multiply(vec512::splat(factors[i]), scales);
            terms[i] = vec512::scale(sums[i], factor);
        }
        if !tile.minimums.is_empty() {
            let [minimums] = vec512::load_floats::<1>(tile.minimums, g * LANES);
            let mut values = [vec512::splat(0.0); M];
            if tile.part_minimums.is_empty() {
                for i in 0..M {
                    values[i] = vec512::splat(tile.part_sums.of_row(i, parts.clone()) as f32);
                }
            } else {
                let sums = activation_sums::<M>(tile, g, parts);
                for i in 0..M {
                    values[i] = _mm512_cvtepi32_ps(sums[i]);
                }
            }
            for i in 0..M {
                let minimum = vec512::multiply(vec512::splat(factors[i]), minimums);
                terms[i] = vec512::add_f32s(terms[i], vec512::multiply(minimum, values[i]));
            }
        }
        for i in 0..M {
            y[i] = vec512::add_f32s(y[i], terms[i]);
        }
    }
    for i in 0..M {
        vec512::store_f32s(&mut tile.y[i], y[i]);
    }
}

/// The values of each row in the parts of group `g`, summed and times the minimums of the parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn activation_sums<const M: usize>(tile: &NibbleTile<'_>, g: usize, parts: Range<usize>) -> [__m512i; M] {
    let mut sums = [vec512::zero(); M];
    let PartSums { pairs, group_pairs, stride, .. } = tile.part_sums;
    if !pairs.is_empty() {
        for (pair, part) in (g * group_pairs..).zip(parts.clone().step_by(2)) {
            // The sum beside that of a single part is 0, whatever multiplies it.
            let second = (part + 1).min(parts.end - 1);
            let minimums = &tile.part_minimums;
            let times = load_two_i8x16_as_i16_pairs(&minimums[part], &minimums[second]);
            for (sum, &of_row) in sums.iter_mut().zip(&pairs[pair * stride..][..M]) {
                *sum = _mm512_dpwssd_epi32(*sum, times, _mm512_set1_epi32(bytemuck::must_cast(of_row)));
            }
        }
        return sums;
    }
    for part in parts {
        let of_rows = tile.part_sums.of_part(part, M);
        let times = of_columns(tile.part_minimums.get(part));
        for (sum, &of_row) in sums.iter_mut().zip(of_rows) {
            *sum = vec512::add(*sum, _mm512_mullo_epi32(times, _mm512_set1_epi32(of_row)));
        }
    }
    sums
}

/// Takes off the sums of group `g` what zero points of weights add in some parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn take_zero_points_off<const M: usize>(
    tile: &NibbleTile<'_>,
    g: usize,
    parts: Range<usize>,
    sums: &mut [__m512i; M],
) {
    let mut terms = [vec512::zero(); M];
    for part in parts {
        let of_rows = &tile.row_terms[part * tile.term_stride..][..M];
        let times = of_columns(tile.part_scales.get(part));
        for (term, &of_row) in terms.iter_mut().zip(of_rows) {
            *term = vec512::add(*term, _mm512_mullo_epi32(times, _mm512_set1_epi32(of_row)));
        }
    }
    let zero_points = of_columns(tile.zero_points.get(g));
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum = _mm512_sub_epi32(*sum, _mm512_mullo_epi32(term, zero_points));
    }
}
