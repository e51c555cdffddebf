//! 4-bit weights on AVX2. `vpmaddubsw` multiplies codes of 0 to 15 by activations of i8: two
//! products are at most 2 * 15 * 128 = 3,840 in magnitude, which cannot saturate, and eight such
//! pairs, 30,720, fit 16 bits. So 32 k are summed in words before one `vpmaddwd` widens them.
//!
//! The tile is 6 rows by 2 vectors: 12 accumulators, 2 vectors of codes, the broadcast of `a` and
//! one product fill the 16 registers. The sums of longer groups wait in L1, as do the results.

use core::arch::x86_64::*;

use super::float256;
use super::simd::{
    add_products_of_bytes, high_nibbles, load_i8x8_as_i32, load_i32x8, low_nibbles, prefetch, store_i32x8,
};
use super::tile::rows_apart;
use super::vec256::{self, LANES};
use crate::kernel::desc::NibbleBody;
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NIBBLE_STEP, NibbleLine, NibbleTile};

/// Without that of minimums and parts, `nibbles256_parts`, which has it in addition.
pub(super) const PLAIN: NibbleBody = NibbleBody { rows: 6, run, parts: None, float: Some(float256::QUADS) };

/// Vectors of a panel.
pub(super) const V: usize = NIBBLE_COLUMNS / LANES;

/// How many bytes ahead of the multiplication the weights of a single row are requested: they come
/// from memory, and this takes an eighth off the time.
const AHEAD: usize = 8 << 10;

/// Steps whose products are summed in words.
pub(super) const NARROW_STEPS: usize = 32 / NIBBLE_STEP;

#[target_feature(enable = "avx2")]
fn run(tile: &mut NibbleTile<'_>) {
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
    let (b, steps) = (tile.b, tile.b.len());
    let rows = rows_apart::<M>(tile.a, tile.a_stride, NIBBLE_STEP * steps);
    let mut a: [&[[[u8; 4]; 2]]; M] = [&[]; M];
    for i in 0..M {
        a[i] = rows[i].as_chunks::<4>().0.as_chunks::<2>().0;
    }
    let first = &tile.factors[..M];
    let ones = _mm256_set1_epi16(1);
    let mut wide = [[[0i32; LANES]; V]; M];
    // Adding -0.0 changes nothing.
    let mut y = [[[-0.0f32; LANES]; V]; M];
    let mut start = 0usize;
    for (g, scales) in tile.scales.iter().enumerate() {
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
            take_origins_off(tile, g, &mut wide);
        }
        let of_rows = &tile.row_terms[g * tile.term_stride..][..M];
        let factors =
            if tile.factor_stride == 0 { first } else { &tile.factors[g * tile.factor_stride..][..M] };
        let scales = vec256::load_f32s::<V>(scales);
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
                        let sum = vec256::add_f32s(vec256::load(&y[i][$v]), term);
                        vec256::store_f32s(&mut y[i][$v], sum);
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

/// Adds the products of a step to words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_step<const M: usize>(
    words: &mut [[__m256i; V]; M],
    b: &[NibbleLine],
    a: &[&[[[u8; 4]; 2]]; M],
    step: usize,
) {
    if M == 1 {
        prefetch(&b[step], AHEAD);
    }
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
fn broadcast(quad: [u8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(quad))
}
