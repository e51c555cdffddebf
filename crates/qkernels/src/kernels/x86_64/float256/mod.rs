//! The body of weight-only products on 256-bit registers, for panels of two or four consecutive k.
//!
//! Adjacent bytes of a panel are sign-extended and converted as they lie. The lanes hold some
//! columns, kr consecutive k of each. One multiply-add multiplies them by kr activations that are
//! repeated over the register. Lanes of a column are added only at the end of a group of scales.
//!
//! ```text
//! weights      c0k0 c0k1 c0k2 c0k3 | c1k0 c1k1 c1k2 c1k3      extend, convert: 2 instructions for 8 weights
//! activations  k0   k1   k2   k3   | k0   k1   k2   k3        one load, for all columns
//! ```

mod expanded;
mod lanes;

use core::arch::x86_64::*;

use lanes::{LANES, QUARTERS, load, store, sum_of_four};

use super::{simd, tile};
use crate::kernel::desc::{FloatBody, FloatNibbles};
use crate::kernel::float_tile::FloatTile;
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NibbleLine};

/// The body for panels of two k.
pub(super) const PAIRS: FloatBody =
    FloatBody { rows: 3, unit: 1.0, run: run::<2, 2>, nibbles: None, expanded: Some(expanded::PAIRS) };

/// The body for panels of four k.
pub(super) const QUADS: FloatBody = FloatBody {
    rows: 3,
    unit: 1.0,
    run: run::<4, 1>,
    nibbles: Some(FloatNibbles { rows: 2, run: run_nibbles }),
    expanded: Some(expanded::QUADS),
};

/// How many bytes ahead of the multiplication weights are requested from memory.
const AHEAD: usize = 8 << 10;

/// `KR` consecutive k of a column lie side by side. A step takes `G` groups of them: four k.
#[target_feature(enable = "avx2,fma")]
fn run<const KR: usize, const G: usize>(tile: &mut FloatTile<'_>) {
    match tile.rows {
        1 => columns::<KR, G, 1, 2>(tile),
        2 => columns::<KR, G, 2, 1>(tile),
        _ => columns::<KR, G, 3, 1>(tile),
    }
}

/// All columns of a tile, `V` vectors at a time, then one by one.
#[target_feature(enable = "avx2,fma")]
fn columns<const KR: usize, const G: usize, const M: usize, const V: usize>(tile: &mut FloatTile<'_>) {
    let (width, affine) = (tile.columns / LANES, !tile.zero_points.is_empty());
    let mut first = 0;
    while width - first >= V {
        if affine {
            body::<KR, G, M, V, true>(tile, first)
        } else {
            body::<KR, G, M, V, false>(tile, first)
        }
        first += V;
    }
    while first < width {
        if affine {
            body::<KR, G, M, 1, true>(tile, first)
        } else {
            body::<KR, G, M, 1, false>(tile, first)
        }
        first += 1;
    }
}

/// M rows, V vectors of columns from vector `first` on.
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx2,fma")]
fn body<const KR: usize, const G: usize, const M: usize, const V: usize, const AFFINE: bool>(
    tile: &mut FloatTile<'_>,
    first: usize,
) {
    let (width, groups) = (tile.columns / LANES, tile.groups);
    let (vectors, _) = tile.b.as_chunks::<LANES>().0.as_chunks::<KR>();
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    let mut start = 0usize;
    for q in 0.. {
        let end = groups.min(start.saturating_add(tile.scale_groups));
        // Loops, not `from_fn`: the compiler does not inline closures that have intrinsics in them.
        let mut a: [&[[f32; KR]]; M] = [&[]; M];
        let mut a_steps: [&[[[f32; KR]; G]]; M] = [&[]; M];
        let steps = (end - start) / G;
        for i in 0..M {
            a[i] = &tile.a[i * tile.a_stride..].as_chunks().0[start..end];
            a_steps[i] = &a[i].as_chunks().0[..steps];
        }
        let mut zero_points = [[_mm256_setzero_si256(); QUARTERS]; V];
        if AFFINE {
            let codes = tile.zero_points[q * tile.nr..].as_chunks().0;
            for v in 0..V {
                zero_points[v] = spread::<KR>(&codes[first + v]);
            }
        }
        let mut acc = [[[_mm256_setzero_ps(); QUARTERS]; V]; M];
        let b = &vectors[start * width..end * width];
        for step in 0..steps {
            let b = &b[step * (width * G)..][..width * G];
            simd::prefetch(b, AHEAD);
            for u in 0..G {
                let b = &b[u * width + first..][..V];
                let mut x = [_mm256_setzero_ps(); M];
                for i in 0..M {
                    x[i] = repeat(&a_steps[i][step][u]);
                }
                for v in 0..V {
                    for h in 0..KR {
                        let s = u * KR + h;
                        let w = weights::<AFFINE>(&b[v][h], zero_points[v][s]);
                        for i in 0..M {
                            acc[i][v][s] = _mm256_fmadd_ps(x[i], w, acc[i][v][s]);
                        }
                    }
                }
            }
        }
        // If a step is two groups, the last group may be alone.
        for g in steps * G..end - start {
            let b = &b[g * width + first..][..V];
            for v in 0..V {
                for h in 0..KR {
                    let w = weights::<AFFINE>(&b[v][h], zero_points[v][h]);
                    for i in 0..M {
                        acc[i][v][h] = _mm256_fmadd_ps(repeat(&a[i][g]), w, acc[i][v][h]);
                    }
                }
            }
        }
        let scales = &tile.scales[q * tile.nr..];
        tile::add_group!(_mm256_fmadd_ps, sums, scales, first, |i, v| sum_of_columns::<KR>(acc[i][v]));
        start = end;
        if start >= groups {
            break;
        }
    }
    tile::store_sums!(tile, first, sums);
}

/// One or two rows of 4-bit weights as they are packed: the sums of `body` for groups of four k, in
/// the same order.
#[target_feature(enable = "avx2,fma")]
fn run_nibbles(tile: &mut FloatTile<'_>) {
    match (tile.rows, !tile.zero_points.is_empty()) {
        (1, true) => nibbles::<1, 2, true>(tile, 0),
        (1, false) => nibbles::<1, 2, false>(tile, 0),
        (_, affine) => {
            // Two rows leave registers for one vector of columns.
            for first in 0..NIBBLE_COLUMNS / LANES {
                if affine {
                    nibbles::<2, 1, true>(tile, first);
                } else {
                    nibbles::<2, 1, false>(tile, first);
                }
            }
        }
    }
}

/// Floats whose mantissas count 1 from bit 0 and from bit 8 on.
const EXPONENTS: [f32; 2] = [(1 << 23) as f32, (1 << 15) as f32];

/// M rows, V vectors of columns from vector `first` on, a column in each lane. AFFINE if columns
/// have zero points of their own; else there is one that all have.
///
/// A code becomes a float where it lies: a mask leaves its four bits, and above them an exponent
/// for which they count 1. What that stands for is subtracted together with the zero point,
/// exactly. With the multiply-add these are three instructions for eight weights.
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx2,fma")]
fn nibbles<const M: usize, const V: usize, const AFFINE: bool>(tile: &mut FloatTile<'_>, first: usize) {
    let groups = tile.groups;
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    let (mut masks, mut origins) = ([_mm256_setzero_ps(); 2], [[_mm256_setzero_ps(); V]; 2]);
    for (place, exponent) in EXPONENTS.into_iter().enumerate() {
        masks[place] = _mm256_set1_ps(f32::from_bits(exponent.to_bits() | 0xf << (8 * place)));
        origins[place] = [_mm256_set1_ps(exponent + f32::from(tile.zero_point)); V];
    }
    let mut start = 0usize;
    for q in 0.. {
        let end = groups.min(start.saturating_add(tile.scale_groups));
        let mut a: [&[[f32; QUARTERS]]; M] = [&[]; M];
        for i in 0..M {
            a[i] = &tile.a[i * tile.a_stride..].as_chunks().0[start..end];
        }
        if AFFINE {
            let codes = tile.zero_points[q * tile.nr..].as_chunks().0;
            for v in 0..V {
                let zero_points = _mm256_cvtepi32_ps(simd::load_i8x8_as_i32(&codes[first + v]));
                for (place, exponent) in EXPONENTS.into_iter().enumerate() {
                    origins[place][v] = _mm256_add_ps(_mm256_set1_ps(exponent), zero_points);
                }
            }
        }
        let mut acc = [[[_mm256_setzero_ps(); QUARTERS]; V]; M];
        macro_rules! add_half {
            ($words:ident, $pair:ident, $g:expr) => {
                for place in 0..2 {
                    let t = 2 * $pair + place;
                    for v in 0..V {
                        let w = _mm256_and_ps(_mm256_castsi256_ps($words[v]), masks[place]);
                        let w = _mm256_sub_ps(w, origins[place][v]);
                        for i in 0..M {
                            acc[i][v][t] = _mm256_fmadd_ps(_mm256_set1_ps(a[i][$g][t]), w, acc[i][v][t]);
                        }
                    }
                }
            };
        }
        // A group begins with a line. The last one may end amid one.
        let whole = (end - start) / 2;
        let lines = &tile.lines[start / 2..end.div_ceil(2)];
        for (l, line) in lines[..whole].iter().enumerate() {
            simd::prefetch(line, AHEAD);
            for pair in 0..2 {
                let mut words = words::<V>(line, first, pair);
                add_half!(words, pair, 2 * l);
                for v in 0..V {
                    words[v] = _mm256_srai_epi32::<4>(words[v]);
                }
                add_half!(words, pair, 2 * l + 1);
            }
        }
        for line in &lines[whole..] {
            for pair in 0..2 {
                let words = words::<V>(line, first, pair);
                add_half!(words, pair, 2 * whole);
            }
        }
        let scales = &tile.scales[q * tile.nr..];
        tile::add_group!(_mm256_fmadd_ps, sums, scales, first, |i, v| sum_of_four(acc[i][v]));
        start = end;
        if start >= groups {
            break;
        }
    }
    tile::store_sums!(tile, first, sums);
}

/// The low words (`pair` 0) or the high ones of V vectors of a line, with ones above them.
#[inline]
#[target_feature(enable = "avx2")]
fn words<const V: usize>(line: &NibbleLine, first: usize, pair: usize) -> [__m256i; V] {
    let (vectors, _) = line.as_chunks::<{ 4 * LANES }>();
    let mut words = [_mm256_setzero_si256(); V];
    for v in 0..V {
        words[v] = simd::load_i8x32(bytemuck::must_cast_ref(&vectors[first + v]));
        if pair == 1 {
            words[v] = _mm256_srli_epi32::<16>(words[v]);
        }
        words[v] = _mm256_or_si256(words[v], _mm256_set1_epi32(-1 << 16));
    }
    words
}

/// Repeats `KR` activations over the register.
#[inline]
#[target_feature(enable = "avx2")]
fn repeat<const KR: usize>(values: &[f32; KR]) -> __m256 {
    const { assert!(KR == 2 || KR == 4) }
    if KR == 2 {
        return _mm256_castpd_ps(_mm256_set1_pd(bytemuck::must_cast([values[0], values[1]])));
    }
    let four = simd::load_f32x4(&[values[0], values[1], values[2], values[3]]);
    _mm256_set_m128(four, four)
}

/// Eight weights minus their zero points, in f32.
#[inline]
#[target_feature(enable = "avx2")]
fn weights<const AFFINE: bool>(codes: &[i8; LANES], zero_points: __m256i) -> __m256 {
    let mut w = simd::load_i8x8_as_i32(codes);
    if AFFINE {
        w = _mm256_sub_epi32(w, zero_points);
    }
    _mm256_cvtepi32_ps(w)
}

/// The zero points of eight columns in the order of their weights: each one `KR` times, and all of
/// them for each group of a step.
#[inline]
#[target_feature(enable = "avx2")]
fn spread<const KR: usize>(zero_points: &[i8; LANES]) -> [__m256i; QUARTERS] {
    let columns = simd::load_i8x8_as_i32(zero_points);
    let first = if KR == 2 {
        _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)
    } else {
        _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)
    };
    let mut quarters = [columns; QUARTERS];
    for (s, quarter) in quarters.iter_mut().enumerate() {
        let column = s % KR * (LANES / KR);
        let places = _mm256_add_epi32(first, _mm256_set1_epi32(column as i32));
        *quarter = _mm256_permutevar8x32_epi32(columns, places);
    }
    quarters
}

/// For each of eight columns, the sum of its four sums.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_of_columns<const KR: usize>(sums: [__m256; QUARTERS]) -> __m256 {
    let [s0, s1, s2, s3] = sums;
    if KR == 2 {
        // Each holds two groups, of columns 0 to 3 and 4 to 7.
        let y = _mm256_hadd_ps(_mm256_add_ps(s0, s2), _mm256_add_ps(s1, s3));
        return _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(y)));
    }
    // Each holds two columns, one in each lane of 128 bits.
    let y = _mm256_hadd_ps(_mm256_hadd_ps(s0, s1), _mm256_hadd_ps(s2, s3));
    _mm256_permutevar8x32_ps(y, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

#[cfg(test)]
mod tests {
    use super::super::avx2_madd;
    use super::*;
    use crate::kernel::desc::{ActivationForm, KernelDesc};
    use crate::kernel::token::Kernel;
    use crate::{
        FloatStage, MatMut, MatRef, PackedWeights, ScaledWeights, Threads, WeightScales, Workspace, kernels,
        weight_only,
    };

    /// The kernel for CPUs with `vpdpbusd` in 256 bits. Here it runs only weight-only products,
    /// which any CPU with AVX2 can run.
    static QUAD_PANELS: KernelDesc =
        KernelDesc { kr: 4, form: ActivationForm::U8, float: Some(QUADS), ..avx2_madd::KERNEL };
    static PAIR_PANELS: KernelDesc = avx2_madd::KERNEL;

    #[test]
    fn panels_of_two_and_of_four_k_give_the_sums_of_integers() {
        // The sums are exact in f32, whatever the order.
        let (n, mut workspace) = (45, Workspace::new());
        for (m, k) in (1..=7).chain([13, 33]).flat_map(|m| [1, 2, 3, 5, 8, 31, 64, 70, 131].map(|k| (m, k))) {
            let number = |at: usize| (at * at % 255) as u8 as i8;
            let codes: Vec<i8> = (0..n * k).map(number).collect();
            let a: Vec<f32> = (0..m * k).map(|at| f32::from(number(at + 7))).collect();
            let count = n * k.div_ceil(32);
            let zero_points: Vec<i8> = (0..count).map(number).collect();
            let scales = vec![0.5; count];
            let scales = WeightScales::per_group(&scales, 32).with_zero_points(&zero_points);
            let mut product = |desc| {
                let kernel = Kernel::new(desc).ok()?;
                let w = PackedWeights::from_nk(MatRef::new(&codes, n, k).unwrap(), kernel).unwrap();
                let w = ScaledWeights::new(w, scales).unwrap();
                let (a, mut y) = (MatRef::new(&a, m, k).unwrap(), vec![f32::NAN; m * n]);
                let out = MatMut::new(&mut y, m, n).unwrap();
                weight_only(a, &w, &FloatStage::new(), out, Threads::Serial, &mut workspace).unwrap();
                Some(y)
            };
            let expected =
                kernels::all().last().and_then(&mut product).expect("the portable kernel runs anywhere");
            for desc in [&QUAD_PANELS, &PAIR_PANELS] {
                if let Some(y) = product(desc) {
                    assert_eq!(y, expected, "kr = {}, {m} x {n} x {k}", desc.kr);
                }
            }
        }
    }
}
