//! Vectors of eight columns, and how many of them both bodies sum.

use core::arch::x86_64::*;

use crate::kernels::x86_64::simd;

/// Columns of a vector.
pub(super) const LANES: usize = 8;

/// Registers of weights, and so of sums, that four k of a vector of columns fill. They are enough
/// to hide the latency of the products of a single row.
pub(super) const QUARTERS: usize = 4;

/// Loads eight values.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(values: &[f32; LANES]) -> __m256 {
    _mm256_castsi256_ps(simd::load_i32x8(bytemuck::must_cast_ref(values)))
}

/// Stores eight values.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(values: &mut [f32; LANES], v: __m256) {
    simd::store_i32x8(bytemuck::must_cast_mut(values), _mm256_castps_si256(v));
}

/// The sum of four sums of each column.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_of_four([s0, s1, s2, s3]: [__m256; QUARTERS]) -> __m256 {
    _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3))
}
