//! Output stages on 256-bit registers: qcore's formulas on eight channels at a time. The steps are
//! those of `vec512`.

use core::arch::x86_64::*;

use super::simd::{load_i8x8_as_i32, load_i32x8, load_u16x8_as_i32, store_i32x8};
use crate::kernel::group_floats::{EXPONENT_GAP, GroupFloats};
use crate::kernels::lanes::load_lanes;
use crate::output::operands::Codes;

/// int32 lanes of a vector.
pub(super) const LANES: usize = 8;

/// A vector of sums that are 0.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn zero() -> __m256i {
    _mm256_setzero_si256()
}

/// Loads a vector of a tile's sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_sums(sums: &[i32; 8]) -> __m256i {
    load_i32x8(sums)
}

/// Stores a vector of a tile's sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_sums(to: &mut [i32; 8], sums: __m256i) {
    store_i32x8(to, sums);
}

/// The sum of two vectors, wrapping.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(a, b)
}

/// `sum - row * channels`, wrapping.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn subtract_product(sum: __m256i, row: i32, channels: __m256i) -> __m256i {
    _mm256_sub_epi32(sum, _mm256_mullo_epi32(_mm256_set1_epi32(row), channels))
}

/// `sum + x * y`, wrapping.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_product(sum: __m256i, x: __m256i, y: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_mullo_epi32(x, y))
}

/// A vector with one int32 in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn splat_i32(value: i32) -> __m256i {
    _mm256_set1_epi32(value)
}

/// Loads i8 as int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen_i8s(values: &[i8; LANES]) -> __m256i {
    load_i8x8_as_i32(values)
}

/// Loads a whole vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(values: &[f32; LANES]) -> __m256 {
    _mm256_castsi256_ps(load_i32x8(bytemuck::must_cast_ref(values)))
}

/// The sums of two vectors, lane by lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_f32s(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(a, b)
}

/// Adds a vector to one in memory, lane by lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_to(sums: &mut [f32; LANES], terms: __m256) {
    let sum = add_f32s(load(sums), terms);
    store_f32s(sums, sum);
}

/// The products of two vectors, lane by lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn multiply(a: __m256, b: __m256) -> __m256 {
    _mm256_mul_ps(a, b)
}

/// A vector with one value in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn splat(value: f32) -> __m256 {
    _mm256_set1_ps(value)
}

/// Loads a per-channel operand into vectors, with zeros at the end.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i32s<const V: usize>(values: &[i32]) -> [__m256i; V] {
    let mut vectors = [_mm256_setzero_si256(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = load_i32x8(&load_lanes(values, v));
    }
    vectors
}

/// As [`load_i32s`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_f32s<const V: usize>(values: &[f32]) -> [__m256; V] {
    let mut vectors = [_mm256_setzero_ps(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = _mm256_castsi256_ps(load_i32x8(&load_lanes(bytemuck::must_cast_slice(values), v)));
    }
    vectors
}

/// Loads floats of a group from index `at` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_floats<const V: usize>(floats: GroupFloats<'_>, at: usize) -> [__m256; V] {
    let mut vectors = [_mm256_setzero_ps(); V];
    match floats {
        GroupFloats::F32(floats) => {
            let floats = floats[at..at + V * LANES].as_chunks::<LANES>().0;
            for v in 0..V {
                vectors[v] = load(&floats[v]);
            }
        }
        GroupFloats::F16(floats) => {
            let floats = floats[at..at + V * LANES].as_chunks::<LANES>().0;
            // As `widen` of these, which says why.
            let (magnitude, sign) = (_mm256_set1_epi32(0x7fff), _mm256_set1_epi32(0x8000));
            for v in 0..V {
                let bits = load_u16x8_as_i32(&floats[v]);
                let shifted = _mm256_slli_epi32::<13>(_mm256_and_si256(bits, magnitude));
                let value = _mm256_mul_ps(_mm256_castsi256_ps(shifted), _mm256_set1_ps(EXPONENT_GAP));
                let sign = _mm256_slli_epi32::<16>(_mm256_and_si256(bits, sign));
                vectors[v] = _mm256_or_ps(value, _mm256_castsi256_ps(sign));
            }
        }
    }
    vectors
}

/// [`qcore::dequantize_acc`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scale(sum: __m256i, factor: __m256) -> __m256 {
    _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor)
}

/// [`qcore::dequantize_acc_bias`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn dequantize(sum: __m256i, factor: __m256, bias: __m256) -> __m256 {
    _mm256_add_ps(scale(sum, factor), bias)
}

/// `y`, or the floor where `y` is below it: ReLU with a floor of 0.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn floor(y: __m256, floor: __m256) -> __m256 {
    _mm256_max_ps(floor, y)
}

/// [`qcore::requantize`] without the upper bound, to which the stores saturate. The sums must be
/// ones that [`StageOperands::saturates`] is true for.
///
/// [`StageOperands::saturates`]: crate::output::operands::StageOperands::saturates
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn requantize(sum: __m256i, factor: __m256, codes: &Codes) -> __m256i {
    let code = _mm256_add_epi32(_mm256_cvtps_epi32(scale(sum, factor)), _mm256_set1_epi32(codes.zero_point));
    _mm256_max_epi32(code, _mm256_set1_epi32(codes.low))
}

/// Stores a whole vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i32s(to: &mut [i32; LANES], sums: __m256i) {
    store_i32x8(to, sums);
}

/// As [`store_i32s`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_f32s(to: &mut [f32; LANES], y: __m256) {
    store_i32x8(bytemuck::must_cast_mut(to), _mm256_castps_si256(y));
}

/// As [`store_i32s`], with saturation.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i8s(to: &mut [i8; LANES], codes: __m256i) {
    let words = words(codes);
    *to = bytemuck::must_cast(_mm_cvtsi128_si64(_mm_packs_epi16(words, words)));
}

/// As [`store_i32s`], with saturation.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_u8s(to: &mut [u8; LANES], codes: __m256i) {
    let words = words(codes);
    *to = bytemuck::must_cast(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}

/// Eight int32 as 16-bit words, saturated.
#[inline]
#[target_feature(enable = "avx2")]
fn words(codes: __m256i) -> __m128i {
    _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes))
}
