//! Loads and stores between arrays and vector registers: all pointer intrinsics of the x86-64 kernels.

use core::arch::x86_64::*;

/// 16 bytes, sign-extended to 16-bit words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x16_as_i16(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// 8 bytes, sign-extended to int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x8_as_i32(bytes: &[i8; 8]) -> __m256i {
    // SAFETY: the reference covers the 8 bytes read, and `loadl` asks for no alignment.
    _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
}

/// Asks for the cache line `bytes` behind the start of `values`, which need not be theirs.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T], bytes: usize) {
    let line = values.as_ptr().cast::<i8>().wrapping_add(bytes);
    // SAFETY: a hint, which reads nothing that the program could see and never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line) }
}

/// Four floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_f32x4(values: &[f32; 4]) -> __m128 {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm_loadu_ps(values.as_ptr()) }
}

/// 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x32(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
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

/// 16 bytes, sign-extended to int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8x16_as_i32(bytes: &[i8; 16]) -> __m512i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
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

/// Sixteen floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32x16(values: &[f32; 16]) -> __m512 {
    // SAFETY: the reference covers the 64 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Sixteen int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_i32x16(values: &mut [i32; 16], v: __m512i) {
    // SAFETY: the reference covers the 64 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), v) }
}

/// The lanes of vector `v` of a slice of `len` elements: sixteen, or fewer at its end.
#[inline(always)]
fn lanes(len: usize, v: usize) -> u16 {
    ((1u32 << len.saturating_sub(16 * v).min(16)) - 1) as u16
}

/// Vector `v` of a slice, zeros beyond its end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i32_lanes(values: &[i32], v: usize) -> __m512i {
    // SAFETY: masked-out lanes are not read, and the mask has no lane beyond the slice.
    unsafe { _mm512_maskz_loadu_epi32(lanes(values.len(), v), values.as_ptr().wrapping_add(16 * v)) }
}

/// Vector `v` of a slice, zeros beyond its end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32_lanes(values: &[f32], v: usize) -> __m512 {
    // SAFETY: masked-out lanes are not read, and the mask has no lane beyond the slice.
    unsafe { _mm512_maskz_loadu_ps(lanes(values.len(), v), values.as_ptr().wrapping_add(16 * v)) }
}

/// The low bytes of the lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_bytes(to: &mut [u8; 16], x: __m512i) {
    let bytes = _mm512_cvtepi32_epi8(x);
    // SAFETY: the reference covers the 16 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
}

/// Fills vector `v` of a slice, as far as the slice reaches.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_i32_lanes(values: &mut [i32], v: usize, x: __m512i) {
    let start = values.as_mut_ptr().wrapping_add(16 * v);
    if values.len() >= 16 * (v + 1) {
        // SAFETY: the slice has all sixteen elements from `start` on.
        unsafe { _mm512_storeu_epi32(start, x) }
    } else {
        // Masked stores are several times slower than whole ones (AMD Zen 4), so they are left to the edges.
        // SAFETY: masked-out lanes are not written, and the mask has no lane beyond the slice.
        unsafe { _mm512_mask_storeu_epi32(start, lanes(values.len(), v), x) }
    }
}

/// As [`store_i32_lanes`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_f32_lanes(values: &mut [f32], v: usize, x: __m512) {
    store_i32_lanes(bytemuck::must_cast_slice_mut(values), v, _mm512_castps_si512(x));
}

/// Fills vector `v` of a slice with the low bytes of the lanes, as far as the slice reaches.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn store_byte_lanes(values: &mut [u8], v: usize, x: __m512i) {
    let (start, bytes) = (values.as_mut_ptr().wrapping_add(16 * v).cast(), _mm512_cvtepi32_epi8(x));
    if values.len() >= 16 * (v + 1) {
        // SAFETY: the slice has all sixteen bytes from `start` on.
        unsafe { _mm_storeu_epi8(start, bytes) }
    } else {
        // SAFETY: masked-out lanes are not written, and the mask has no lane beyond the slice.
        unsafe { _mm_mask_storeu_epi8(start, lanes(values.len(), v), bytes) }
    }
}
