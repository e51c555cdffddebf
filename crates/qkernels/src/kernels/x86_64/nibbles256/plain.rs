//! Groups with neither minimums nor parts.

use core::arch::x86_64::*;

use super::super::simd::{load_i8x8_as_i32, load_i32x8, store_i32x8};
use super::super::tile::{Lines, rows_of_steps};
use super::super::vec256::{self, LANES};
use super::one_row;
use super::words::{NARROW_STEPS, V, add_step, take_origins_off};
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NibbleTile};

#[target_feature(enable = "avx2")]
pub(super) fn run(tile: &mut NibbleTile<'_>) {
    if one_row::has_body(tile) {
        return one_row::run(tile);
    }
    let corrected = !tile.zero_points.is_empty() || !tile.origins.is_empty();
    if corrected || tile.group_steps > NARROW_STEPS {
        run_rows::<true>(tile)
    } else {
        run_rows::<false>(tile)
    }
}

#[target_feature(enable = "avx2")]
fn run_rows<const WIDE: bool>(tile: &mut NibbleTile<'_>) {
    match tile.rows {
        1 => body::<1, WIDE>(tile),
        2 => body::<2, WIDE>(tile),
        3 => body::<3, WIDE>(tile),
        4 => body::<4, WIDE>(tile),
        5 => body::<5, WIDE>(tile),
        6 => body::<6, WIDE>(tile),
        rows => unreachable!("no tile has {rows} rows"),
    }
}

/// M rows. WIDE if the int32 sums of a group are in memory before they are scaled, because there
/// are more than fit words, or because rows have origins.
#[inline(never)] // as in `tile_body`
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx2")]
fn body<const M: usize, const WIDE: bool>(tile: &mut NibbleTile<'_>) {
    let (a, b, steps) = (rows_of_steps::<M>(tile), tile.b, tile.b.len());
    let first = &tile.factors[..M];
    let ones = _mm256_set1_epi16(1);
    let Lines(wide) = &mut Lines([[[0i32; LANES]; V]; M]);
    // Adding -0.0 changes nothing.
    let Lines(y) = &mut Lines([[[-0.0f32; LANES]; V]; M]);
    let mut start = 0usize;
    for g in 0..tile.groups() {
        // Before there are sums, which would make way for what a choice between two forms needs.
        let scales = vec256::load_floats::<V>(tile.scales, g * NIBBLE_COLUMNS);
        let end = steps.min(start.saturating_add(tile.group_steps));
        let mut words = [[_mm256_setzero_si256(); V]; M];
        let mut block = start;
        while block < end {
            let stop = end.min(block + NARROW_STEPS);
            words = [[_mm256_setzero_si256(); V]; M];
            for step in block..stop {
                add_step::<M>(&mut words, b, &a, step);
            }
            if WIDE {
                for i in 0..M {
                    for v in 0..V {
                        let mut sum = _mm256_madd_epi16(words[i][v], ones);
                        if block > start {
                            sum = vec256::add(sum, load_i32x8(&wide[i][v]));
                        }
                        store_i32x8(&mut wide[i][v], sum);
                    }
                }
            }
            block = stop;
        }
        if WIDE {
            take_origins_off(tile, g, wide);
        }
        let of_rows = &tile.row_terms[g * tile.term_stride..][..M];
        let factors =
            if tile.factor_stride == 0 { first } else { &tile.factors[g * tile.factor_stride..][..M] };
        // Two loops, which the compiler unrolls. One with a choice in it, it does not.
        macro_rules! add_terms {
            (|$of_row:ident, $v:ident| $amount:expr) => {
                for i in 0..M {
                    let $of_row = _mm256_set1_epi32(of_rows[i]);
                    let factor = vec256::splat(factors[i]);
                    for $v in 0..V {
                        let sum = if WIDE {
                            load_i32x8(&wide[i][$v])
                        } else {
                            _mm256_madd_epi16(words[i][$v], ones)
                        };
                        let sum = _mm256_sub_epi32(sum, $amount);
                        let term = vec256::scale(sum, vec256::multiply(factor, scales[$v]));
                        vec256::add_to(&mut y[i][$v], term);
                    }
                }
            };
        }
        if let Some(of_columns) = tile.zero_points.get(g) {
            let mut zero_points = [_mm256_setzero_si256(); V];
            for v in 0..V {
                zero_points[v] = load_i8x8_as_i32(&of_columns.as_chunks().0[v]);
            }
            add_terms!(|of_row, v| _mm256_mullo_epi32(of_row, zero_points[v]));
        } else {
            add_terms!(|of_row, v| of_row);
        }
        start = end;
    }
    for i in 0..M {
        tile.y[i] = bytemuck::must_cast(y[i]);
    }
}
