//! Output stages on 512-bit registers: qcore's formulas on sixteen channels at a time.
//!
//! | step | qcore | here |
//! | --- | --- | --- |
//! | `if v > lo { v } else { lo }` | `maxss` | `vmaxps v, lo`: the second operand where equal or NaN |
//! | `if v < hi { v } else { hi }` | `minss` | `vminps v, hi` |
//! | round to nearest, ties to even | adds 1.5 * 2^23 | `vcvtps2dq` in the default rounding mode |
//! | `if y < 0 { 0 } else { y }` | | `vmaxps 0, y`, which keeps NaN and -0 |

use core::arch::x86_64::*;

use super::simd;
use crate::kernel::group_floats::GroupFloats;
use crate::output::operands::Codes;

/// int32 lanes of a vector.
pub(super) const LANES: usize = 16;

/// A vector of sums that are 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn zero() -> __m512i {
    _mm512_setzero_si512()
}

/// Loads a vector of a tile's sums.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_sums(sums: &[i32; 16]) -> __m512i {
    simd::load_i32x16(sums)
}

/// Stores a vector of a tile's sums.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_sums(to: &mut [i32; 16], sums: __m512i) {
    simd::store_i32x16(to, sums);
}

/// The sum of two vectors, wrapping.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(a, b)
}

/// `sum - row * channels`, wrapping.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn subtract_product(sum: __m512i, row: i32, channels: __m512i) -> __m512i {
    _mm512_sub_epi32(sum, _mm512_mullo_epi32(_mm512_set1_epi32(row), channels))
}

/// `sum + x * y`, wrapping.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_product(sum: __m512i, x: __m512i, y: __m512i) -> __m512i {
    _mm512_add_epi32(sum, _mm512_mullo_epi32(x, y))
}

/// A vector with one int32 in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat_i32(value: i32) -> __m512i {
    _mm512_set1_epi32(value)
}

/// Loads i8 as int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widen_i8s(values: &[i8; LANES]) -> __m512i {
    simd::load_i8x16_as_i32(values)
}

/// Loads a whole vector.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(values: &[f32; LANES]) -> __m512 {
    simd::load_f32x16(values)
}

/// The sums of two vectors, lane by lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_f32s(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(a, b)
}

/// The products of two vectors, lane by lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn multiply(a: __m512, b: __m512) -> __m512 {
    _mm512_mul_ps(a, b)
}

/// A vector with one value in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(value: f32) -> __m512 {
    _mm512_set1_ps(value)
}

/// Loads a per-channel operand into vectors, with zeros at the end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i32s<const V: usize>(values: &[i32]) -> [__m512i; V] {
    let mut vectors = [_mm512_setzero_si512(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = match values.get(v * LANES..).and_then(<[i32]>::first_chunk::<LANES>) {
            Some(values) => simd::load_i32x16(values),
            None => simd::load_i32_lanes(values, v),
        };
    }
    vectors
}

/// As [`load_i32s`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32s<const V: usize>(values: &[f32]) -> [__m512; V] {
    let mut vectors = [_mm512_setzero_ps(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = match values.get(v * LANES..).and_then(<[f32]>::first_chunk::<LANES>) {
            Some(values) => _mm512_castsi512_ps(simd::load_i32x16(bytemuck::must_cast_ref(values))),
            None => simd::load_f32_lanes(values, v),
        };
    }
    vectors
}

/// Loads floats of a group from index `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn load_floats<const V: usize>(floats: GroupFloats<'_>, at: usize) -> [__m512; V] {
    let mut vectors = [_mm512_setzero_ps(); V];
    match floats {
        GroupFloats::F32(floats) => {
            let floats = floats[at..at + V * LANES].as_chunks::<LANES>().0;
            for v in 0..V {
                vectors[v] = load(&floats[v]);
            }
        }
        GroupFloats::F16(floats) => {
            let floats = floats[at..at + V * LANES].as_chunks::<LANES>().0;
            for v in 0..V {
                vectors[v] = _mm512_cvtph_ps(simd::load_u16x16(&floats[v]));
            }
        }
    }
    vectors
}

/// [`qcore::dequantize_acc`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scale(sum: __m512i, factor: __m512) -> __m512 {
    _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor)
}

/// [`qcore::dequantize_acc_bias`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn dequantize(sum: __m512i, factor: __m512, bias: __m512) -> __m512 {
    _mm512_add_ps(scale(sum, factor), bias)
}

/// `y`, or the floor where `y` is below it: ReLU with a floor of 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn floor(y: __m512, floor: __m512) -> __m512 {
    _mm512_max_ps(floor, y)
}

/// [`qcore::requantize`] without the upper bound, to which the stores saturate. The sums must be
/// ones that [`StageOperands::saturates`] is true for.
///
/// [`StageOperands::saturates`]: crate::output::operands::StageOperands::saturates
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn requantize(sum: __m512i, factor: __m512, codes: &Codes) -> __m512i {
    let code = _mm512_add_epi32(_mm512_cvtps_epi32(scale(sum, factor)), _mm512_set1_epi32(codes.zero_point));
    _mm512_max_epi32(code, _mm512_set1_epi32(codes.low))
}

/// Stores a whole vector.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_i32s(to: &mut [i32; LANES], sums: __m512i) {
    simd::store_i32x16(to, sums);
}

/// As [`store_i32s`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_f32s(to: &mut [f32; LANES], y: __m512) {
    simd::store_i32x16(bytemuck::must_cast_mut(to), _mm512_castps_si512(y));
}

/// As [`store_i32s`], with saturation.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_i8s(to: &mut [i8; LANES], codes: __m512i) {
    simd::store_bytes(bytemuck::must_cast_mut(to), _mm512_cvtsepi32_epi8(codes));
}

/// As [`store_i32s`], with saturation; the codes are not negative.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_u8s(to: &mut [u8; LANES], codes: __m512i) {
    simd::store_bytes(to, _mm512_cvtusepi32_epi8(codes));
}
