//! The tiles of this kernel for rows of i8, which are read where they lie.
//!
//! Each group of a row is shifted by 128 as it is broadcast. Two or three vectors of columns hide
//! that. With one vector, rows of i8 would be multiplied 0.65 times as fast as rows of u8. There
//! the weights are shifted instead, once for all rows of the tile:
//! `sum (a + 128) * w = sum a * (w + 128) - 128 * sum a + 128 * sum w`.

use core::arch::x86_64::*;

use super::super::simd::load_i8x64;
use super::super::strip::bodies;
use super::super::tile::{self, rows_apart, tile_body};
use super::super::{store, vec512};
use super::steps::{self, LANES, VECTOR_WEIGHTS, load_shifted, load_weights, multiply_add, shifted};
use crate::kernel::strip::Strip;
use crate::output::store::Store;
use crate::output::target::Target;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn run_tiles(strip: &mut Strip<'_, '_>) {
    match strip.columns / LANES {
        1 => one_vector(strip),
        2 => bodies!(strip, 2, 1: 4, 2: 4, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
        _ => bodies!(strip, 3, 1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(group: [u8; 4]) -> __m512i {
    shifted(steps::broadcast(group))
}

tile_body!("avx512f,avx512bw,avx512vl,avx512vnni", vec512, ahead from 5);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn one_vector(strip: &mut Strip<'_, '_>) {
    match strip.next_rows() {
        1 => shifted_weights::<1, 8>(strip),
        2 => shifted_weights::<2, 4>(strip),
        3 => shifted_weights::<3, 4>(strip),
        4 => shifted_weights::<4, 2>(strip),
        5 => shifted_weights::<5, 2>(strip),
        6 => shifted_weights::<6, 2>(strip),
        7 => shifted_weights::<7, 2>(strip),
        _ => shifted_weights::<8, 1>(strip),
    }
}

/// Tiles of M rows and one vector of columns, U groups of k at a time.
#[inline(never)] // as in `tile_body`
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn shifted_weights<const M: usize, const U: usize>(strip: &mut Strip<'_, '_>) {
    const V: usize = 1;
    while let Some(mut tile) = strip.next_tile_of(M) {
        let mut partial = tile::first_sums!(vec512, tile, M, V, U);
        let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * tile.groups);
        // The offsets assume that the rows are shifted. Here the weights are.
        let mut origin = _mm512_setzero_si512();
        if tile.offsets.is_some() {
            let [channel_sums] = vec512::load_i32s::<V>(tile.channel_sums);
            origin = _mm512_slli_epi32::<7>(channel_sums);
        }
        let sums = sums_of(&rows);
        for i in 0..M {
            let of_row = _mm512_set1_epi32(sums[i].wrapping_mul(128));
            let sum = _mm512_add_epi32(partial[0][i][0], origin);
            partial[0][i][0] = _mm512_sub_epi32(sum, of_row);
        }
        add_products(&mut partial, &rows, tile.b);
        tile::last_sums!(vec512, tile, partial, M, V);
    }
}

/// This is a function of its own. The compiler optimizes it once before it is inlined and once
/// after, and only then sees that no index is out of bounds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_products<const M: usize, const U: usize>(
    partial: &mut [[[__m512i; 1]; M]; U],
    rows: &[&[u8]; M],
    b: &[i8],
) {
    let (b, _) = b.as_chunks::<VECTOR_WEIGHTS>();
    let groups = b.len();
    let steps = groups / U;
    let mut a: [&[[u8; 4]]; M] = [&[]; M];
    let mut a_steps: [&[[[u8; 4]; U]]; M] = [&[]; M];
    for i in 0..M {
        a[i] = &rows[i].as_chunks::<4>().0[..groups];
        a_steps[i] = &a[i].as_chunks::<U>().0[..steps];
    }
    let b_steps = &b.as_chunks::<U>().0[..steps];
    for g in 0..steps {
        for u in 0..U {
            let w = load_shifted(&b_steps[g][u]);
            for i in 0..M {
                partial[u][i][0] = multiply_add(partial[u][i][0], w, super::broadcast(a_steps[i][g][u]));
            }
        }
    }
    for g in steps * U..groups {
        let w = load_shifted(&b[g]);
        for i in 0..M {
            partial[0][i][0] = multiply_add(partial[0][i][0], w, super::broadcast(a[i][g]));
        }
    }
}

/// The sums of rows of i8 of one length, wrapping.
#[inline]
#[expect(clippy::needless_range_loop, reason = "the same chunk of all rows")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn sums_of<const M: usize>(rows: &[&[u8]; M]) -> [i32; M] {
    let ones = _mm512_set1_epi8(1);
    let (mut acc, mut sums) = ([_mm512_setzero_si512(); M], [0; M]);
    let (whole, rest_len) = (rows[0].len() / 64, rows[0].len() % 64);
    let (mut chunks, mut rests): ([&[[i8; 64]]; M], [&[i8]; M]) = ([&[]; M], [&[]; M]);
    for i in 0..M {
        let row: &[i8] = bytemuck::must_cast_slice(rows[i]);
        chunks[i] = &row.as_chunks().0[..whole];
        rests[i] = &row[64 * whole..];
    }
    for c in 0..whole {
        for i in 0..M {
            acc[i] = _mm512_dpbusd_epi32(acc[i], ones, load_i8x64(&chunks[i][c]));
        }
    }
    for i in 0..M {
        if rest_len > 0 {
            let mut rest = [0; 64];
            rest[..rest_len].copy_from_slice(&rests[i][..rest_len]);
            acc[i] = _mm512_dpbusd_epi32(acc[i], ones, load_i8x64(&rest));
        }
        sums[i] = _mm512_reduce_add_epi32(acc[i]);
    }
    sums
}
