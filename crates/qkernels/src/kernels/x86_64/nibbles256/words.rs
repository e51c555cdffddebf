//! The sums in words that both bodies begin with.

use core::arch::x86_64::*;

use super::super::simd::{
    add_products_of_bytes, high_nibbles, load_i32x8, low_nibbles, prefetch, store_i32x8,
};
use super::super::vec256::{self, LANES};
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NIBBLE_STEP, NibbleLine, NibbleTile};

/// Vectors of a panel.
pub(super) const V: usize = NIBBLE_COLUMNS / LANES;

/// How many bytes ahead of the multiplication weights, which may come from memory, are requested.
pub(super) const AHEAD: usize = 17 << 9;

/// Steps whose products are summed in words.
pub(super) const NARROW_STEPS: usize = 32 / NIBBLE_STEP;

/// Adds the products of a step to words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_step<const M: usize>(
    words: &mut [[__m256i; V]; M],
    b: &[NibbleLine],
    a: &[&[[[u8; 4]; 2]]; M],
    step: usize,
) {
    prefetch(&b[step], AHEAD);
    let (halves, _) = b[step].as_chunks::<{ 4 * LANES }>();
    let mut w = [_mm256_setzero_si256(); V];
    for v in 0..V {
        w[v] = low_nibbles(&halves[v]);
    }
    for i in 0..M {
        let x = broadcast(a[i][step][0]);
        for v in 0..V {
            words[i][v] = add_products_of_bytes(words[i][v], w[v], x);
        }
    }
    for v in 0..V {
        w[v] = high_nibbles(&halves[v]);
    }
    for i in 0..M {
        let x = broadcast(a[i][step][1]);
        for v in 0..V {
            words[i][v] = add_products_of_bytes(words[i][v], w[v], x);
        }
    }
}

/// Takes off the sums of group `g` what the origins of rows add.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn take_origins_off(tile: &NibbleTile<'_>, g: usize, sums: &mut [[[i32; LANES]; V]]) {
    let Some(of_columns) = tile.column_terms.get(g) else { return };
    for (sums, &origin) in sums.iter_mut().zip(tile.origins) {
        for (sums, of_columns) in sums.iter_mut().zip(of_columns.as_chunks().0) {
            let sum = vec256::subtract_product(load_i32x8(sums), origin, load_i32x8(of_columns));
            store_i32x8(sums, sum);
        }
    }
}

/// Four bytes of a row, repeated for each column.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn broadcast(quad: [u8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(quad))
}
