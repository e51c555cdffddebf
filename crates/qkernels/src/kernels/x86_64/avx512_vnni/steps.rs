//! What the tiles of this kernel are made of.

use core::arch::x86_64::*;

use super::super::simd::{load_i8x16_as_i32, load_i8x64};
use super::super::vec512;
use crate::kernel::nibble_tile::{LARGEST_NIBBLE, NibbleLine};

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

/// Each i8 as the u8 that is 128 more.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn shifted(codes: __m512i) -> __m512i {
    _mm512_xor_si512(codes, _mm512_set1_epi8(i8::MIN))
}

/// [`load_weights`], and shifts them.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_shifted(weights: &[i8; VECTOR_WEIGHTS]) -> __m512i {
    shifted(load_weights(weights))
}

/// Adds the products of i8 activations and shifted weights.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn multiply_add_shifted(sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
    multiply_add(sums, w, x)
}

/// How many bytes ahead of the multiplication the 4-bit weights of a single row are requested.
pub(super) const AHEAD: usize = 6 << 10;

/// The codes in the low halves of a line's bytes, and those in the high halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn halves(line: &NibbleLine) -> [__m512i; 2] {
    let line = load_weights(bytemuck::must_cast_ref(line));
    let mask = _mm512_set1_epi8(LARGEST_NIBBLE.cast_signed());
    [_mm512_and_si512(line, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask)]
}

/// The entries of columns; ones where there are none.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn of_columns(entries: Option<&[i8; LANES]>) -> __m512i {
    match entries {
        Some(entries) => load_i8x16_as_i32(entries),
        None => _mm512_set1_epi32(1),
    }
}
