//! 4-bit weights on aarch64: what the bodies of all kernels share. A line of a panel is four
//! vectors, each with two sets of four k of four columns, in the low and in the high halves of its
//! bytes. Codes of 0 to 15 are i8 as well, so they meet the i8 of activations in any instruction.

pub(super) mod dotprod;
pub(super) mod i8mm;
pub(super) mod neon;

use core::arch::aarch64::*;

use super::simd::{load_i8x16, load_i32x4};
use super::vec128::{self, LANES};
use crate::kernel::nibble_tile::{LARGEST_NIBBLE, NIBBLE_COLUMNS, NIBBLE_STEP, NibbleLine, NibbleTile};

/// Vectors of a panel's columns.
const V: usize = NIBBLE_COLUMNS / LANES;

/// The activations of a step.
type Step = [u8; NIBBLE_STEP];

/// The sums of a row for all columns.
type RowOfSums = [int32x4_t; V];

/// The steps of M rows, `stride` bytes apart.
#[inline(always)]
fn rows_of_steps<const M: usize>(a: &[u8], stride: usize, steps: usize) -> [&[Step]; M] {
    let mut rows: [&[Step]; M] = [&[]; M];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &a[i * stride..].as_chunks().0[..steps];
    }
    rows
}

/// Rows as long as a group's lines, so that one bounds check serves all.
#[inline(always)]
fn as_long_as<'a, const M: usize>(lines: &[NibbleLine], a: &[&'a [Step]; M]) -> [&'a [Step]; M] {
    let mut rows: [&[Step]; M] = [&[]; M];
    for (row, a) in rows.iter_mut().zip(a) {
        *row = &a[..lines.len()];
    }
    rows
}

/// The codes in the low halves of vector `v` of a line, and those in the high halves.
#[inline]
#[target_feature(enable = "neon")]
fn codes(line: &NibbleLine, v: usize) -> [int8x16_t; 2] {
    let bytes: &[[i8; 16]] = bytemuck::must_cast_slice::<u8, i8>(line).as_chunks().0;
    let pairs = vreinterpretq_u8_s8(load_i8x16(&bytes[v]));
    let low = vandq_u8(pairs, vdupq_n_u8(LARGEST_NIBBLE));
    [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(vshrq_n_u8::<4>(pairs))]
}

/// The steps of group `g`.
#[inline(always)]
fn steps_of(tile: &NibbleTile<'_>, g: usize) -> core::ops::Range<usize> {
    let start = g.saturating_mul(tile.group_steps).min(tile.b.len());
    start..tile.b.len().min(start.saturating_add(tile.group_steps))
}

/// Adds the term of group `g` to the results `y` of M rows.
#[inline]
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "neon")]
fn add_terms<const M: usize>(
    tile: &NibbleTile<'_>,
    g: usize,
    mut sums: [RowOfSums; M],
    y: &mut [[[f32; LANES]; V]; M],
) {
    let of_rows = &tile.row_terms[g * tile.term_stride..][..M];
    match tile.zero_points.get(g) {
        None => {
            for i in 0..M {
                for v in 0..V {
                    sums[i][v] = vsubq_s32(sums[i][v], vdupq_n_s32(of_rows[i]));
                }
            }
        }
        Some(zero_points) => {
            let of_columns = vec128::load_i32s::<V>(&zero_points.map(i32::from));
            for i in 0..M {
                for v in 0..V {
                    sums[i][v] = vec128::subtract_product(sums[i][v], of_rows[i], of_columns[v]);
                }
            }
        }
    }
    if let Some(of_columns) = tile.column_terms.get(g) {
        for (i, &origin) in tile.origins.iter().enumerate().take(M) {
            for (v, of_columns) in of_columns.as_chunks().0.iter().enumerate() {
                sums[i][v] = vec128::subtract_product(sums[i][v], origin, load_i32x4(of_columns));
            }
        }
    }
    let scales = vec128::load_floats::<V>(tile.scales, g * NIBBLE_COLUMNS);
    let factors = &tile.factors[g * tile.factor_stride..][..M];
    for i in 0..M {
        let of_row = vec128::splat(factors[i]);
        for v in 0..V {
            let term = vec128::scale(sums[i][v], vec128::multiply(of_row, scales[v]));
            vec128::add_term(&mut y[i][v], term);
        }
    }
}

/// `fn run`, compiled for `$features`, for each number of rows `$M`. A file supplies
/// `fn group_sums<M>`, the products of some lines and as many steps of M rows, and imports what is
/// named here.
macro_rules! nibbles_body {
    ($features:literal, $($M:literal)+) => {
        #[target_feature(enable = $features)]
        fn run(tile: &mut NibbleTile<'_>) {
            match tile.rows {
                $($M => body::<$M>(tile),)+
                rows => unreachable!("no tile has {rows} rows"),
            }
        }

        /// M rows.
        #[inline(never)] // as in `tile_body`
        #[target_feature(enable = $features)]
        fn body<const M: usize>(tile: &mut NibbleTile<'_>) {
            let a = rows_of_steps::<M>(tile.a, tile.a_stride, tile.b.len());
            // Adding -0.0 changes nothing.
            let mut y = [[[-0.0; LANES]; V]; M];
            for g in 0..tile.groups() {
                let steps = steps_of(tile, g);
                let mut of_group = a;
                for of_row in &mut of_group {
                    *of_row = &of_row[steps.clone()];
                }
                let sums = group_sums::<M>(&of_group, &tile.b[steps]);
                add_terms(tile, g, sums, &mut y);
            }
            for (to, y) in tile.y.iter_mut().zip(y) {
                *to = bytemuck::must_cast(y);
            }
        }
    };
}
use nibbles_body;
