//! One row of weights with neither minimums nor parts, whose groups are whole blocks of four lines.
//!
//! The codes of a line stay in registers for both halves, which the rows of a larger tile take, and
//! the four lines that words can sum are written out: 0.75 of the instructions of `plain.rs` in
//! groups of 32.

use core::arch::x86_64::*;

use super::super::simd::{add_products_of_bytes, load_i8x32, prefetch};
use super::super::tile::rows_of_steps;
use super::super::vec256::{self, LANES};
use super::words::{AHEAD, NARROW_STEPS, V, broadcast};
use crate::kernel::nibble_tile::{LARGEST_NIBBLE, NIBBLE_COLUMNS, NibbleLine, NibbleTile};

/// Whether a tile is one of these.
pub(super) fn has_body(tile: &NibbleTile<'_>) -> bool {
    let whole_blocks = |steps: usize| steps.is_multiple_of(NARROW_STEPS);
    tile.rows == 1 && tile.origins.is_empty() && whole_blocks(tile.group_steps) && whole_blocks(tile.b.len())
}

#[target_feature(enable = "avx2")]
pub(super) fn run(tile: &mut NibbleTile<'_>) {
    let [a] = rows_of_steps::<1>(tile);
    let (b, _) = tile.b.as_chunks::<NARROW_STEPS>();
    let a = &a.as_chunks::<NARROW_STEPS>().0[..b.len()];
    let group_blocks = tile.group_steps / NARROW_STEPS;
    let ones = _mm256_set1_epi16(1);
    // Adding -0.0 changes nothing.
    let mut y = [vec256::splat(-0.0); V];
    let mut start = 0usize;
    for g in 0..tile.groups() {
        let scales = vec256::load_floats::<V>(tile.scales, g * NIBBLE_COLUMNS);
        let end = b.len().min(start.saturating_add(group_blocks));
        let mut sums = [vec256::zero(); V];
        for (a, b) in a[start..end].iter().zip(&b[start..end]) {
            let words = products(a, b);
            for v in 0..V {
                sums[v] = vec256::add(sums[v], _mm256_madd_epi16(words[v], ones));
            }
        }
        let of_row = tile.row_terms[g * tile.term_stride];
        let factor = vec256::splat(tile.factors[g * tile.factor_stride]);
        let mut amounts = [vec256::splat_i32(of_row); V];
        if let Some(of_columns) = tile.zero_points.get(g) {
            let (of_columns, _) = of_columns.as_chunks::<LANES>();
            for v in 0..V {
                amounts[v] = _mm256_mullo_epi32(amounts[v], vec256::widen_i8s(&of_columns[v]));
            }
        }
        for v in 0..V {
            let sum = _mm256_sub_epi32(sums[v], amounts[v]);
            y[v] = vec256::add_f32s(y[v], vec256::scale(sum, vec256::multiply(factor, scales[v])));
        }
        start = end;
    }
    for (to, y) in tile.y[0].as_chunks_mut::<LANES>().0.iter_mut().zip(y) {
        vec256::store_f32s(to, y);
    }
}

/// The products of four lines, which words hold.
#[inline]
#[target_feature(enable = "avx2")]
fn products(a: &[[[u8; 4]; 2]; NARROW_STEPS], b: &[NibbleLine; NARROW_STEPS]) -> [__m256i; V] {
    let mask = _mm256_set1_epi8(LARGEST_NIBBLE.cast_signed());
    let mut words = [_mm256_setzero_si256(); V];
    for step in 0..NARROW_STEPS {
        prefetch(&b[step], AHEAD);
        let (halves, _) = b[step].as_chunks::<{ 4 * LANES }>();
        let [low, high] = a[step];
        for v in 0..V {
            let line = load_i8x32(bytemuck::must_cast_ref(&halves[v]));
            let codes = _mm256_and_si256(line, mask);
            words[v] = add_products_of_bytes(words[v], codes, broadcast(low));
            let codes = _mm256_and_si256(_mm256_srli_epi16::<4>(line), mask);
            words[v] = add_products_of_bytes(words[v], codes, broadcast(high));
        }
    }
    words
}
