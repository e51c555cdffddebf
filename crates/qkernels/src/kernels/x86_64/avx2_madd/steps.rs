//! What the tiles of this kernel are made of.

use core::arch::x86_64::*;

use super::super::simd::load_i8x16_as_i16;
use super::super::vec256;

/// Columns of a vector.
pub(super) const LANES: usize = vec256::LANES;

/// Weights of a vector: two k of each column.
pub(super) const VECTOR_WEIGHTS: usize = 2 * LANES;

/// Two weights of each of eight columns, as 16-bit words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_weights(weights: &[i8; VECTOR_WEIGHTS]) -> __m256i {
    load_i8x16_as_i16(weights)
}

/// Four bytes of a row, repeated for each column.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn broadcast(group: [u8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(group))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn multiply_add(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(x, w))
}
