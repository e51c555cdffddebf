//! Groups with minimums, or in parts, with more between the words of 32 k and the term of a group.
//! The `vpmaddwd` that widens words multiplies them by the part's scale on the way, so parts of 32
//! cost one addition in memory for each vector.

use core::arch::x86_64::*;

use super::super::simd::{load_i8x8_as_i16_pairs, load_i8x8_as_i32, load_i32x8, store_i32x8};
use super::super::tile::{Lines, rows_of_steps};
use super::super::vec256::{self, LANES};
use super::part_sums::activation_sums;
use super::words::{NARROW_STEPS, V, add_step, take_origins_off};
use crate::kernel::desc::NibbleParts;
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NibbleTile};

pub(super) const BODY: NibbleParts = NibbleParts { rows: 6, run };

#[target_feature(enable = "avx2")]
fn run(tile: &mut NibbleTile<'_>) {
    let corrected = tile.has_row_terms || !tile.origins.is_empty();
    let short = tile.part_scales.is_empty() && tile.group_steps <= NARROW_STEPS;
    match (tile.rows, short && !corrected) {
        (1, true) => short_groups::<1>(tile),
        (2, true) => short_groups::<2>(tile),
        (3, true) => short_groups::<3>(tile),
        (4, true) => short_groups::<4>(tile),
        (5, true) => short_groups::<5>(tile),
        (6, true) => short_groups::<6>(tile),
        (1, false) => body::<1>(tile),
        (2, false) => body::<2>(tile),
        (3, false) => body::<3>(tile),
        (4, false) => body::<4>(tile),
        (5, false) => body::<5>(tile),
        (6, false) => body::<6>(tile),
        (rows, _) => unreachable!("no tile has {rows} rows"),
    }
}

/// M rows and groups of at most 32 k with minimums, without parts (Q4_1). Their sums go from words
/// to terms in registers.
#[inline(never)] // as in `tile_body`
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx2")]
fn short_groups<const M: usize>(tile: &mut NibbleTile<'_>) {
    let (a, b, steps) = (rows_of_steps::<M>(tile), tile.b, tile.b.len());
    let first = &tile.factors[..M];
    let ones = _mm256_set1_epi16(1);
    let Lines(y) = &mut Lines([[[-0.0f32; LANES]; V]; M]);
    let mut start = 0usize;
    for g in 0..tile.groups() {
        // Before there are sums, which would make way for what a choice between two forms needs.
        let scales = vec256::load_floats::<V>(tile.scales, g * NIBBLE_COLUMNS);
        let minimums = vec256::load_floats::<V>(tile.minimums, g * NIBBLE_COLUMNS);
        let end = steps.min(start + tile.group_steps);
        let mut words = [[_mm256_setzero_si256(); V]; M];
        for step in start..end {
            add_step::<M>(&mut words, b, &a, step);
        }
        let of_rows = &tile.part_sums.of_part(g, M)[..M];
        let factors =
            if tile.factor_stride == 0 { first } else { &tile.factors[g * tile.factor_stride..][..M] };
        for i in 0..M {
            let (factor, of_row) = (vec256::splat(factors[i]), vec256::splat(of_rows[i] as f32));
            for v in 0..V {
                let sum = _mm256_madd_epi16(words[i][v], ones);
                let term = vec256::scale(sum, vec256::multiply(factor, scales[v]));
                let minimum = vec256::multiply(vec256::multiply(factor, minimums[v]), of_row);
                vec256::add_to(&mut y[i][v], vec256::add_f32s(term, minimum));
            }
        }
        start = end;
    }
    for i in 0..M {
        tile.y[i] = bytemuck::must_cast(y[i]);
    }
}

/// M rows.
#[inline(never)] // as in `tile_body`
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx2")]
fn body<const M: usize>(tile: &mut NibbleTile<'_>) {
    let (a, b, steps) = (rows_of_steps::<M>(tile), tile.b, tile.b.len());
    let first = &tile.factors[..M];
    // Adding -0.0 changes nothing.
    let Lines(y) = &mut Lines([[[-0.0f32; LANES]; V]; M]);
    let (mut start, mut part) = (0usize, 0);
    for g in 0..tile.groups() {
        // Before there are sums, which would make way for what a choice between two forms needs.
        let scales = vec256::load_floats::<V>(tile.scales, g * NIBBLE_COLUMNS);
        let has_minimums = !tile.minimums.is_empty();
        let mut minimums = scales;
        if has_minimums {
            minimums = vec256::load_floats::<V>(tile.minimums, g * NIBBLE_COLUMNS);
        }
        let end = steps.min(start.saturating_add(tile.group_steps));
        let first_part = part;
        let Lines(sums) = &mut Lines([[[0i32; LANES]; V]; M]);
        while start < end {
            let stop = end.min(start.saturating_add(tile.part_steps));
            while start < stop {
                let block = start..stop.min(start + NARROW_STEPS);
                let mut words = [[_mm256_setzero_si256(); V]; M];
                for step in block.clone() {
                    add_step::<M>(&mut words, b, &a, step);
                }
                let mut times = [_mm256_set1_epi16(1); V];
                if let Some(of_columns) = tile.part_scales.get(part) {
                    for v in 0..V {
                        times[v] = load_i8x8_as_i16_pairs(&of_columns.as_chunks().0[v]);
                    }
                }
                for i in 0..M {
                    for v in 0..V {
                        let products = _mm256_madd_epi16(words[i][v], times[v]);
                        let sum = vec256::add(load_i32x8(&sums[i][v]), products);
                        store_i32x8(&mut sums[i][v], sum);
                    }
                }
                start = block.end;
            }
            part += 1;
        }
        if tile.has_row_terms {
            take_zero_points_off(tile, g, first_part..part, sums);
        }
        take_origins_off(tile, g, sums);
        let factors =
            if tile.factor_stride == 0 { first } else { &tile.factors[g * tile.factor_stride..][..M] };
        if !has_minimums {
            for i in 0..M {
                let factor = vec256::splat(factors[i]);
                for v in 0..V {
                    let sum = load_i32x8(&sums[i][v]);
                    vec256::add_to(&mut y[i][v], vec256::scale(sum, vec256::multiply(factor, scales[v])));
                }
            }
            continue;
        }
        if tile.part_minimums.is_empty() {
            for i in 0..M {
                let value = tile.part_sums.of_row(i, first_part..part) as f32;
                let (factor, value) = (vec256::splat(factors[i]), vec256::splat(value));
                for v in 0..V {
                    let sum = load_i32x8(&sums[i][v]);
                    let term = vec256::scale(sum, vec256::multiply(factor, scales[v]));
                    let minimum = vec256::multiply(vec256::multiply(factor, minimums[v]), value);
                    vec256::add_to(&mut y[i][v], vec256::add_f32s(term, minimum));
                }
            }
            continue;
        }
        let minimums_of_parts = tile.part_minimums.as_flattened();
        let of_minimums = activation_sums::<M, V>(&tile.part_sums, minimums_of_parts, g, first_part..part);
        for i in 0..M {
            let factor = vec256::splat(factors[i]);
            for v in 0..V {
                let sum = load_i32x8(&sums[i][v]);
                let term = vec256::scale(sum, vec256::multiply(factor, scales[v]));
                let minimum = vec256::scale(of_minimums[i][v], vec256::multiply(factor, minimums[v]));
                vec256::add_to(&mut y[i][v], vec256::add_f32s(term, minimum));
            }
        }
    }
    for i in 0..M {
        tile.y[i] = bytemuck::must_cast(y[i]);
    }
}

/// Takes off the sums of group `g` what zero points of weights add in some parts.
#[inline]
#[target_feature(enable = "avx2")]
fn take_zero_points_off(
    tile: &NibbleTile<'_>,
    g: usize,
    parts: core::ops::Range<usize>,
    sums: &mut [[[i32; LANES]; V]],
) {
    const ONES: [i8; NIBBLE_COLUMNS] = [1; NIBBLE_COLUMNS];
    let zero_points: &[[i8; LANES]] = tile.zero_points.get(g).unwrap_or(&ONES).as_chunks().0;
    for (i, sums) in sums.iter_mut().enumerate() {
        for (v, sums) in sums.iter_mut().enumerate() {
            let mut terms = _mm256_setzero_si256();
            for part in parts.clone() {
                let of_row = _mm256_set1_epi32(tile.row_terms[part * tile.term_stride + i]);
                let times: &[[i8; LANES]] = tile.part_scales.get(part).unwrap_or(&ONES).as_chunks().0;
                terms = vec256::add(terms, _mm256_mullo_epi32(of_row, load_i8x8_as_i32(&times[v])));
            }
            let terms = _mm256_mullo_epi32(terms, load_i8x8_as_i32(&zero_points[v]));
            store_i32x8(sums, _mm256_sub_epi32(load_i32x8(sums), terms));
        }
    }
}
