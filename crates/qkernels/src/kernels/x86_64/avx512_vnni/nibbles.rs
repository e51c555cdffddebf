//! 4-bit weights on AVX-512 VNNI: codes of 0 to 15 are the u8 operand of `vpdpbusd`, activations of
//! i8 the other one, which an instruction broadcasts from memory itself.
//!
//! A line of a panel is one register, and two of codes after a shift and two masks. The tile is 12
//! rows by this vector. So the masks are one instruction in eight, and the results of all rows stay
//! in registers beside their sums.

use core::arch::x86_64::*;

use super::super::simd::{load_i32x16, prefetch};
use super::super::tile::rows_of_steps;
use super::super::{float512, vec512};
use super::nibbles_parts;
use super::steps::{self, AHEAD, LANES, halves, multiply_add, of_columns};
use crate::kernel::desc::NibbleBody;
use crate::kernel::group_floats::GroupFloats;
use crate::kernel::nibble_tile::NibbleTile;

pub(super) const BODY: NibbleBody =
    NibbleBody { rows: 12, run, parts: Some(nibbles_parts::BODY), float: Some(float512::BODY) };

/// Tiles of no more rows sum the halves of lines apart, since each addition waits for the one
/// before.
const FEW_ROWS: usize = 5;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run(tile: &mut NibbleTile<'_>) {
    if tile.zero_points.is_empty() && tile.origins.is_empty() {
        run_rows::<false>(tile)
    } else {
        run_rows::<true>(tile)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run_rows<const CORRECTED: bool>(tile: &mut NibbleTile<'_>) {
    match tile.rows {
        1 => body::<1, CORRECTED>(tile),
        2 => body::<2, CORRECTED>(tile),
        3 => body::<3, CORRECTED>(tile),
        4 => body::<4, CORRECTED>(tile),
        5 => body::<5, CORRECTED>(tile),
        6 => body::<6, CORRECTED>(tile),
        7 => body::<7, CORRECTED>(tile),
        8 => body::<8, CORRECTED>(tile),
        9 => body::<9, CORRECTED>(tile),
        10 => body::<10, CORRECTED>(tile),
        11 => body::<11, CORRECTED>(tile),
        12 => body::<12, CORRECTED>(tile),
        rows => unreachable!("no tile has {rows} rows"),
    }
}

/// M rows. CORRECTED if columns have zero points of their own, or rows have origins.
#[inline(never)] // as in `tile_body`
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn body<const M: usize, const CORRECTED: bool>(tile: &mut NibbleTile<'_>) {
    let (b, steps) = (tile.b, tile.b.len());
    let a = rows_of_steps::<M>(tile);
    let first = &tile.factors[..M];
    // Which sums those of the high halves are added to.
    let other = usize::from(M <= FEW_ROWS);
    // Adding -0.0 changes nothing.
    let mut y = [vec512::splat(-0.0); M];
    let mut start = 0usize;
    for g in 0..tile.groups() {
        // Before there are sums, which would make way for what a choice between two forms needs.
        let [scales] = vec512::load_floats::<1>(tile.scales, g * LANES);
        match tile.scales {
            GroupFloats::F32(scales) => prefetch(&scales[g * LANES..], AHEAD / 4),
            GroupFloats::F16(scales) => prefetch(&scales[g * LANES..], AHEAD / 8),
        }
        let end = steps.min(start.saturating_add(tile.group_steps));
        let mut acc = [[vec512::zero(); M]; 2];
        for step in start..end {
            prefetch(&b[step], AHEAD);
            let [low, high] = halves(&b[step]);
            for i in 0..M {
                acc[0][i] = multiply_add(acc[0][i], low, steps::broadcast(a[i][step][0]));
            }
            for i in 0..M {
                acc[other][i] = multiply_add(acc[other][i], high, steps::broadcast(a[i][step][1]));
            }
        }
        let [mut sums, others] = acc;
        if other > 0 {
            for i in 0..M {
                sums[i] = vec512::add(sums[i], others[i]);
            }
        }
        let of_rows = &tile.row_terms[g * tile.term_stride..][..M];
        if CORRECTED {
            take_off(tile, g, of_rows, &mut sums);
        } else {
            for i in 0..M {
                sums[i] = _mm512_sub_epi32(sums[i], _mm512_set1_epi32(of_rows[i]));
            }
        }
        let factors =
            if tile.factor_stride == 0 { first } else { &tile.factors[g * tile.factor_stride..][..M] };
        for i in 0..M {
            let factor = vec512::multiply(vec512::splat(factors[i]), scales);
            y[i] = vec512::add_f32s(y[i], vec512::scale(sums[i], factor));
        }
        start = end;
    }
    for i in 0..M {
        vec512::store_f32s(&mut tile.y[i], y[i]);
    }
}

/// Takes off the sums of group `g` what zero points of columns and origins of rows add.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn take_off<const M: usize>(tile: &NibbleTile<'_>, g: usize, of_rows: &[i32], sums: &mut [__m512i; M]) {
    let zero_points = of_columns(tile.zero_points.get(g));
    for (sum, &of_row) in sums.iter_mut().zip(of_rows) {
        *sum = vec512::subtract_product(*sum, of_row, zero_points);
    }
    let Some(of_columns) = tile.column_terms.get(g) else { return };
    let of_columns = load_i32x16(of_columns);
    for (sum, &origin) in sums.iter_mut().zip(tile.origins) {
        *sum = vec512::subtract_product(*sum, origin, of_columns);
    }
}

const _: () = assert!(LANES == crate::kernel::nibble_tile::NIBBLE_COLUMNS);
