//! What the tiles of this kernel are made of.

use core::arch::x86_64::*;

use super::super::simd::load_i8x64;
use super::super::vec512;

/// Columns of a vector.
pub(super) const LANES: usize = vec512::LANES;

/// Weights of a vector: four k of each column.
pub(super) const VECTOR_WEIGHTS: usize = 4 * LANES;

/// Four weights of each of sixteen columns.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_weights(weights: &[i8; VECTOR_WEIGHTS]) -> __m512i {
    load_i8x64(weights)
}

/// Four elements of a row, repeated for each column.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn broadcast(group: [u8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_ne_bytes(group))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn multiply_add(sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
    _mm512_dpbusd_epi32(sums, x, w)
}
