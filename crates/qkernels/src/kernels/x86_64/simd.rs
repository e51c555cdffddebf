//! Loads and stores between arrays and vector registers: all pointer intrinsics of the x86-64 kernels.

use core::arch::x86_64::*;

/// 16 bytes, sign-extended to 16-bit words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x16_as_i16(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Eight int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i32x8(values: &[i32; 8]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Eight int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i32x8(values: &mut [i32; 8], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), v) }
}

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8x64(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Sixteen int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i32x16(values: &[i32; 16]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Sixteen int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_i32x16(values: &mut [i32; 16], v: __m512i) {
    // SAFETY: the reference covers the 64 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), v) }
}
