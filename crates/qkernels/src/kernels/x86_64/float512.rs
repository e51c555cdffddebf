//! The body of weight-only products on 512-bit registers, for panels of four consecutive k.
//!
//! Each lane holds four k of a column, a byte each. A shift, two byte shuffles and a mask bring the
//! bytes to the top of four lanes, with zeros below. There they count 2^24 times (the activations
//! come divided by that), so no second shift is needed to extend the sign, and lanes stay columns.
//! With a conversion and a multiply-add these are 36 instructions for the 192 weights of a step,
//! spread over all four pipes of a Zen 4: 18 cycles at best. Extending adjacent bytes (`vpmovsxbd`)
//! takes as many instructions, but took 24 cycles.

use core::arch::x86_64::*;

use super::simd::{self, store_f32x16 as store};
use super::tile;
use crate::kernel::desc::{FloatBody, FloatNibbles};
use crate::kernel::float_tile::FloatTile;

pub(super) const BODY: FloatBody = FloatBody {
    rows: 6,
    unit: (1 << 24) as f32,
    run,
    nibbles: Some(FloatNibbles { rows: 2, run: run_nibbles }),
    expanded: None,
};

/// Columns of a vector.
const LANES: usize = 16;

/// Consecutive k of a column that lie side by side.
const KR: usize = 4;

/// How many bytes ahead of the multiplication weights are requested from memory. A step takes too
/// long for the CPU to have enough reads under way on its own.
const AHEAD: usize = 16 << 10;

#[target_feature(enable = "avx512f,avx512bw")]
fn run(tile: &mut FloatTile<'_>) {
    match tile.rows {
        1 => columns::<1, 3>(tile),
        2 => columns::<2, 3>(tile),
        3 => columns::<3, 1>(tile),
        4 => columns::<4, 1>(tile),
        5 => columns::<5, 1>(tile),
        _ => columns::<6, 1>(tile),
    }
}

/// All columns of a tile, `V` vectors at a time, then one by one.
#[target_feature(enable = "avx512f,avx512bw")]
fn columns<const M: usize, const V: usize>(tile: &mut FloatTile<'_>) {
    let (width, affine) = (tile.columns / LANES, !tile.zero_points.is_empty());
    let mut first = 0;
    while width - first >= V {
        if affine {
            body::<M, V, true>(tile, first)
        } else {
            body::<M, V, false>(tile, first)
        }
        first += V;
    }
    while first < width {
        if affine {
            body::<M, 1, true>(tile, first)
        } else {
            body::<M, 1, false>(tile, first)
        }
        first += 1;
    }
}

/// M rows, V vectors of columns from vector `first` on.
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx512f,avx512bw")]
fn body<const M: usize, const V: usize, const AFFINE: bool>(tile: &mut FloatTile<'_>, first: usize) {
    let (width, groups) = (tile.columns / LANES, tile.groups);
    let (vectors, _) = tile.b.as_chunks::<{ KR * LANES }>();
    // Loops, not `from_fn`: the compiler does not inline closures that have intrinsics in them.
    let mut rows: [[&[[f32; KR]]; V]; M] = [[&[]; V]; M];
    for i in 0..M {
        // Each vector gets the row as if it were a different one. Each multiply-add then broadcasts
        // activations in its memory operand (36 GB/s of weights in L2), instead of one broadcast
        // into a register for all vectors (31 GB/s).
        let row = &tile.a[i * tile.a_stride..].as_chunks().0[..groups];
        for v in 0..V {
            rows[i][v] = core::hint::black_box(row);
        }
    }
    let mut sums = [[_mm512_setzero_ps(); V]; M];
    let mut start = 0usize;
    for q in 0.. {
        let end = groups.min(start.saturating_add(tile.scale_groups));
        let len = end - start;
        let mut a: [[&[[f32; KR]]; V]; M] = [[&[]; V]; M];
        for i in 0..M {
            for v in 0..V {
                a[i][v] = &rows[i][v][start..][..len];
            }
        }
        let mut zero_points = [_mm512_setzero_ps(); V];
        if AFFINE {
            let codes = tile.zero_points[q * tile.nr..].as_chunks().0;
            for v in 0..V {
                zero_points[v] = scaled_codes(&codes[first + v]);
            }
        }
        let mut acc = [[[_mm512_setzero_ps(); KR]; V]; M];
        let b = &vectors[start * width..end * width];
        for g in 0..len {
            let b = &b[g * width..][..width][first..][..V];
            for v in 0..V {
                simd::prefetch(&b[v], AHEAD);
                let codes = bytes_on_top(simd::load_i8x64(&b[v]));
                for t in 0..KR {
                    let mut w = _mm512_cvtepi32_ps(codes[t]);
                    if AFFINE {
                        w = _mm512_sub_ps(w, zero_points[v]);
                    }
                    for i in 0..M {
                        acc[i][v][t] = _mm512_fmadd_ps(_mm512_set1_ps(a[i][v][g][t]), w, acc[i][v][t]);
                    }
                }
            }
        }
        let scales = &tile.scales[q * tile.nr..];
        tile::add_group!(_mm512_fmadd_ps, sums, scales, first, |i, v| sum_of_four(acc[i][v]));
        start = end;
        if start >= groups {
            break;
        }
    }
    tile::store_sums!(tile, first, sums);
}

/// One or two rows of 4-bit weights as they are packed, whose panels are one vector of columns: the
/// sums of `body`, in the same order.
#[target_feature(enable = "avx512f,avx512bw")]
fn run_nibbles(tile: &mut FloatTile<'_>) {
    match (tile.rows, tile.zero_points.is_empty()) {
        (1, true) => nibbles::<1, false>(tile),
        (1, false) => nibbles::<1, true>(tile),
        (_, true) => nibbles::<2, false>(tile),
        (_, false) => nibbles::<2, true>(tile),
    }
}

/// M rows. AFFINE if columns have zero points of their own.
///
/// Without them a code is a place in a table of sixteen floats, which one register holds: its
/// value, less the zero point that all codes have. The instruction that looks them up sees four
/// bits of a lane, so a shift brings them there, and nothing else is to do.
///
/// With them a code becomes a float where it lies: one instruction leaves its bits of a mantissa
/// and sets an exponent for which they count one unit. What that stands for is subtracted together
/// with the zero point, exactly.
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles<const M: usize, const AFFINE: bool>(tile: &mut FloatTile<'_>) {
    const V: usize = 1;
    let groups = tile.groups;
    let values = scaled_codes(&core::array::from_fn(|code| code as i8 - tile.zero_point));
    let mut sums = [[_mm512_setzero_ps(); V]; M];
    let mut start = 0usize;
    for q in 0.. {
        let end = groups.min(start.saturating_add(tile.scale_groups));
        let mut a: [&[[f32; KR]]; M] = [&[]; M];
        for i in 0..M {
            a[i] = &tile.a[i * tile.a_stride..].as_chunks().0[start..end];
        }
        let mut origins = [_mm512_setzero_ps(); 4];
        if AFFINE {
            let zero_points = scaled_codes(&tile.zero_points[q * tile.nr..].as_chunks().0[0]);
            for place in 0..4 {
                origins[place] = _mm512_add_ps(_mm512_set1_ps(EXPONENTS[place]), zero_points);
            }
        }
        let mut acc = [[_mm512_setzero_ps(); KR]; M];
        // A group begins with a line. The last one may end amid one.
        let lines = &tile.lines[start / 2..end.div_ceil(2)];
        for (l, line) in lines.iter().enumerate() {
            simd::prefetch(line, AHEAD / 2);
            let pairs = simd::load_i8x64(bytemuck::must_cast_ref(line));
            let high = _mm512_srli_epi32::<16>(pairs);
            macro_rules! add_products {
                ($g:expr, $t:literal, $shift:literal) => {
                    let w = if AFFINE {
                        let (place, words) = ($shift % 16 / 4, if $shift < 16 { pairs } else { high });
                        let mask = _mm512_set1_epi32(0xf << ($shift % 16));
                        let exponent = _mm512_set1_epi32(EXPONENTS[place].to_bits().cast_signed());
                        let float = _mm512_ternarylogic_epi32::<AND_OR>(words, mask, exponent);
                        _mm512_sub_ps(_mm512_castsi512_ps(float), origins[place])
                    } else {
                        _mm512_permutexvar_ps(_mm512_srli_epi32::<$shift>(pairs), values)
                    };
                    for i in 0..M {
                        acc[i][$t] = _mm512_fmadd_ps(_mm512_set1_ps(a[i][$g][$t]), w, acc[i][$t]);
                    }
                };
            }
            add_products!(2 * l, 0, 0);
            add_products!(2 * l, 1, 8);
            add_products!(2 * l, 2, 16);
            add_products!(2 * l, 3, 24);
            if 2 * l + 1 < end - start {
                add_products!(2 * l + 1, 0, 4);
                add_products!(2 * l + 1, 1, 12);
                add_products!(2 * l + 1, 2, 20);
                add_products!(2 * l + 1, 3, 28);
            }
        }
        let scales = &tile.scales[q * tile.nr..];
        tile::add_group!(_mm512_fmadd_ps, sums, scales, 0, |i, _v| sum_of_four(acc[i]));
        start = end;
        if start >= groups {
            break;
        }
    }
    tile::store_sums!(tile, 0, sums);
}

/// For four bits from bit 0, 4, 8 and 12 on, the exponent for which they count [`BODY`]'s unit.
const EXPONENTS: [f32; 4] =
    [(1u64 << 47) as f32, (1u64 << 43) as f32, (1u64 << 39) as f32, (1u64 << 35) as f32];

/// What `vpternlogd` makes of three bits: the first and the second, or the third.
const AND_OR: i32 = 0b1110_1010;

/// Bytes 0, 1, 2 and 3 of each lane, times 2^24.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn bytes_on_top(lanes: __m512i) -> [__m512i; KR] {
    // For each lane of 128 bits, where its bytes come from. If the top bit is set, the byte becomes
    // zero.
    let second = _mm512_set4_epi32(0x0d_80_80_80, 0x09_80_80_80, 0x05_80_80_80, 0x01_80_80_80);
    let third = _mm512_set4_epi32(0x0e_80_80_80, 0x0a_80_80_80, 0x06_80_80_80, 0x02_80_80_80);
    [
        _mm512_slli_epi32::<24>(lanes),
        _mm512_shuffle_epi8(lanes, second),
        _mm512_shuffle_epi8(lanes, third),
        _mm512_and_si512(lanes, _mm512_set1_epi32(-1 << 24)),
    ]
}

/// Codes times 2^24.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled_codes(codes: &[i8; LANES]) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_slli_epi32::<24>(simd::load_i8x16_as_i32(codes)))
}

/// The scales of a vector of columns. Those of groups to come are requested.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(scales: &[f32; LANES]) -> __m512 {
    simd::prefetch(scales, AHEAD / 8);
    simd::load_f32x16(scales)
}

/// The sum of four sums of each column.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_of_four([s0, s1, s2, s3]: [__m512; KR]) -> __m512 {
    _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3))
}
