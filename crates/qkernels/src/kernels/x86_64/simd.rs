//! Loads and stores between arrays and vector registers: all pointer intrinsics of the x86-64
//! kernels.

use core::arch::asm;
use core::arch::x86_64::*;

/// Loads 16 bytes and sign-extends them to 16-bit words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x16_as_i16(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Loads 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_u8x16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Stores 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_u8x16(to: &mut [u8; 16], v: __m128i) {
    // SAFETY: the reference covers the 16 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), v) }
}

/// Stores 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_u8x32(to: &mut [u8; 32], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
}

/// Loads 8 bytes and sign-extends them to int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x8_as_i32(bytes: &[i8; 8]) -> __m256i {
    // SAFETY: the reference covers the 8 bytes read, and `loadl` asks for no alignment.
    _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
}

/// Loads 8 words and zero-extends them to int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_u16x8_as_i32(words: &[u16; 8]) -> __m256i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(words.as_ptr().cast()) })
}

/// Loads 16 words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_u16x16(words: &[u16; 16]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Loads 8 bytes and sign-extends them to 16-bit words, each twice.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x8_as_i16_pairs(bytes: &[i8; 8]) -> __m256i {
    // SAFETY: the reference covers the 8 bytes read, and `loadl` asks for no alignment.
    let bytes = unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) };
    _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(bytes, bytes))
}

/// Loads eight i8 and eight more as int16, the n-th of both side by side.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_two_i8x8_as_i16_pairs(bytes: &[i8; 8], second: &[i8; 8]) -> __m256i {
    // SAFETY: the references cover the 8 bytes read, and `loadl` asks for no alignment.
    let [first, second] = [bytes, second].map(|bytes| unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) });
    _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, second))
}

/// Loads sixteen i8 and sixteen more as int16, the n-th of both side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn load_two_i8x16_as_i16_pairs(bytes: &[i8; 16], second: &[i8; 16]) -> __m512i {
    // SAFETY: the references cover the 16 bytes read, and `loadu` asks for no alignment.
    let [first, second] = [bytes, second].map(|bytes| unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    let (low, high) = (_mm_unpacklo_epi8(first, second), _mm_unpackhi_epi8(first, second));
    _mm512_cvtepi8_epi16(_mm256_set_m128i(high, low))
}

/// How many bytes ahead of the multiplication weights of 8 bits, which may come from memory, are
/// requested at least. (Multiples of 4 KiB were slower for one row.)
pub(super) const AHEAD: usize = 13 << 9;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Requests what lies [`AHEAD`] of vector `index` of a step or several, if a line begins there.
#[inline(always)]
pub(super) fn prefetch_vector<const N: usize>(weights: &[i8; N], index: usize) {
    if (index * N).is_multiple_of(LINE) {
        prefetch(weights, AHEAD);
    }
}

/// Requests the cache line `bytes` behind the start of `values`. The line need not belong to them.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T], bytes: usize) {
    let line = values.as_ptr().cast::<i8>().wrapping_add(bytes);
    // SAFETY: this is a hint. It reads nothing that the program could see and never faults,
    // whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line) }
}

/// Loads four floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_f32x4(values: &[f32; 4]) -> __m128 {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm_loadu_ps(values.as_ptr()) }
}

/// Loads 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x32(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// `sums` plus the products of the u8 of `x` and `bytes`, four for each lane, by `vpmaddubsw`. Its
/// words must not saturate. `ones` are words of 1.
///
/// Three instructions in this order, with the bytes in memory. The compiler chooses another order
/// and keeps sums on the stack to have the bytes in registers, which leaves a tile of 6 rows at
/// 0.91 to 0.93 of the multipliers' rate. This reaches 0.96 to 0.98 (AMD Zen 4).
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn maddubs_madd_add(mut sums: __m256i, x: __m256i, bytes: &[i8; 32], ones: __m256i) -> __m256i {
    // SAFETY: it reads just the 32 bytes that the reference covers, and writes just registers.
    unsafe {
        asm!(
            "vpmaddubsw {words}, {x}, ymmword ptr [{bytes}]",
            "vpmaddwd {words}, {words}, {ones}",
            "vpaddd {sums}, {sums}, {words}",
            words = out(ymm_reg) _,
            x = in(ymm_reg) x,
            bytes = in(reg) bytes.as_ptr(),
            ones = in(ymm_reg) ones,
            sums = inout(ymm_reg) sums,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds the products of four rows' u8 and the weights of two groups of four k, from group `G` of 16
/// k on, for two vectors of columns, by `vpmaddubsw`. The words of both groups together must not
/// saturate. `ones` are words of 1.
///
/// This takes all registers: beside eight sums, they hold three vectors of weights and what a row
/// needs. The compiler would keep the codes of all rows in registers, and sums on the stack. (It
/// did so with six of the eight even where a row was a block of its own: 33 cycles for 16 k instead
/// of 30, AMD Zen 4.)
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_two_groups<const G: usize>(
    [[s00, s01], [s10, s11], [s20, s21], [s30, s31]]: &mut [[__m256i; 2]; 4],
    x: &[[u8; 16]; 4],
    weights: &[[[i8; 32]; 2]; 2],
    ones: __m256i,
) {
    const { assert!(4 * G + 8 <= 16) }
    /// A row's codes begin at `$row`, and its sums are `$first` and `$second`.
    macro_rules! row {
        ($row:literal, $first:literal, $second:literal) => {
            concat!(
                "vpbroadcastd {x0}, dword ptr [{x} + {g} + ",
                $row,
                "]\n",
                "vpmaddubsw {words}, {x0}, {first0}\n",
                "vpmaddubsw {x0}, {x0}, {first1}\n",
                "vpbroadcastd {x1}, dword ptr [{x} + {g} + ",
                $row,
                " + 4]\n",
                "vpmaddubsw {more}, {x1}, {second0}\n",
                "vpaddw {words}, {words}, {more}\n",
                "vpmaddubsw {x1}, {x1}, ymmword ptr [{weights} + 96]\n",
                "vpmaddwd {words}, {words}, {ones}\n",
                "vpaddw {x0}, {x0}, {x1}\n",
                "vpaddd {",
                $first,
                "}, {",
                $first,
                "}, {words}\n",
                "vpmaddwd {x0}, {x0}, {ones}\n",
                "vpaddd {",
                $second,
                "}, {",
                $second,
                "}, {x0}",
            )
        };
    }
    // SAFETY: it reads just the bytes that the references cover, and writes just registers.
    unsafe {
        asm!(
            "vmovdqu {first0}, ymmword ptr [{weights}]",
            "vmovdqu {first1}, ymmword ptr [{weights} + 32]",
            "vmovdqu {second0}, ymmword ptr [{weights} + 64]",
            row!(0, "s00", "s01"),
            row!(16, "s10", "s11"),
            row!(32, "s20", "s21"),
            row!(48, "s30", "s31"),
            x = in(reg) x.as_ptr(),
            g = const 4 * G,
            weights = in(reg) weights.as_ptr(),
            x0 = out(ymm_reg) _,
            x1 = out(ymm_reg) _,
            words = out(ymm_reg) _,
            more = out(ymm_reg) _,
            first0 = out(ymm_reg) _,
            first1 = out(ymm_reg) _,
            second0 = out(ymm_reg) _,
            ones = in(ymm_reg) ones,
            s00 = inout(ymm_reg) *s00,
            s01 = inout(ymm_reg) *s01,
            s10 = inout(ymm_reg) *s10,
            s11 = inout(ymm_reg) *s11,
            s20 = inout(ymm_reg) *s20,
            s21 = inout(ymm_reg) *s21,
            s30 = inout(ymm_reg) *s30,
            s31 = inout(ymm_reg) *s31,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}

/// Puts 16 codes of each of four rows in an order: that of the shuffle `control`, and complemented
/// where bit 6 of it is set and where those of `sign` are.
///
/// No register holds more than these steps need, so that all others can hold sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn shuffle_four_rows(
    to: &mut [[u8; 16]; 4],
    [row0, row1, row2, row3]: [&[u8; 16]; 4],
    control: &[u8; 16],
    sign: &[i8; 32],
) {
    // SAFETY: it reads and writes just the bytes that the references cover, and writes registers.
    unsafe {
        asm!(
            "vbroadcasti128 {control}, xmmword ptr [{at}]",
            "vpxor {flips}, {flips}, {flips}",
            "vpaddw {codes}, {control}, {control}",
            "vpcmpgtb {flips}, {flips}, {codes}",
            "vpxor {flips}, {flips}, ymmword ptr [{sign}]",
            "vmovdqu {codes:x}, xmmword ptr [{row0}]",
            "vinserti128 {codes}, {codes}, xmmword ptr [{row1}], 1",
            "vmovdqu {more:x}, xmmword ptr [{row2}]",
            "vinserti128 {more}, {more}, xmmword ptr [{row3}], 1",
            "vpshufb {codes}, {codes}, {control}",
            "vpxor {codes}, {codes}, {flips}",
            "vpshufb {more}, {more}, {control}",
            "vpxor {more}, {more}, {flips}",
            "vmovdqu ymmword ptr [{to}], {codes}",
            "vmovdqu ymmword ptr [{to} + 32], {more}",
            to = in(reg) to.as_mut_ptr(),
            row0 = in(reg) row0.as_ptr(),
            row1 = in(reg) row1.as_ptr(),
            row2 = in(reg) row2.as_ptr(),
            row3 = in(reg) row3.as_ptr(),
            at = in(reg) control.as_ptr(),
            sign = in(reg) sign.as_ptr(),
            control = out(ymm_reg) _,
            flips = out(ymm_reg) _,
            codes = out(ymm_reg) _,
            more = out(ymm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// A mask of the low halves of bytes. In memory, since sums fill the registers.
static LOW_HALVES: [u8; 32] = [15; 32];

/// Loads 32 bytes and keeps the low half of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn low_nibbles(bytes: &[u8; 32]) -> __m256i {
    let nibbles: __m256i;
    // SAFETY: it reads just the 32 bytes that each reference covers, and writes just a register.
    unsafe {
        asm!(
            "vmovdqu {nibbles}, ymmword ptr [{bytes}]",
            "vpand {nibbles}, {nibbles}, ymmword ptr [{mask}]",
            nibbles = out(ymm_reg) nibbles,
            bytes = in(reg) bytes.as_ptr(),
            mask = in(reg) LOW_HALVES.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    nibbles
}

/// Loads 32 bytes and shifts the high half of each down.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn high_nibbles(bytes: &[u8; 32]) -> __m256i {
    let nibbles: __m256i;
    // SAFETY: as in `low_nibbles`.
    unsafe {
        asm!(
            "vmovdqu {nibbles}, ymmword ptr [{bytes}]",
            "vpsrlw {nibbles}, {nibbles}, 4",
            "vpand {nibbles}, {nibbles}, ymmword ptr [{mask}]",
            nibbles = out(ymm_reg) nibbles,
            bytes = in(reg) bytes.as_ptr(),
            mask = in(reg) LOW_HALVES.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    nibbles
}

/// `words` plus the products of the u8 of `x` and the i8 of `y`, two for each word, which must not
/// saturate.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_products_of_bytes(words: __m256i, x: __m256i, y: __m256i) -> __m256i {
    _mm256_add_epi16(words, _mm256_maddubs_epi16(x, y))
}

/// The low halves of the products of words. The factors stay in memory: the compiler would keep
/// them in registers, and sums in memory instead.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn multiply_words(mut words: __m256i, factors: &[i16; 16]) -> __m256i {
    // SAFETY: it reads just the bytes that the reference covers, and writes just a register.
    unsafe {
        asm!(
            "vpmullw {words}, {words}, ymmword ptr [{factors}]",
            words = inout(ymm_reg) words,
            factors = in(reg) factors.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    words
}

/// Stores sixteen words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i16x16(to: &mut [i16; 16], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
}

/// Loads eight int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i32x8(values: &[i32; 8]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Stores eight int32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i32x8(values: &mut [i32; 8], v: __m256i) {
    // SAFETY: the reference covers the 32 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), v) }
}

/// The sum of all lanes of all vectors, wrapping.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_of_lanes(vectors: &[__m256i]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for vector in vectors {
        sum = _mm256_add_epi32(sum, *vector);
    }
    let mut lanes = [0; 8];
    store_i32x8(&mut lanes, sum);
    lanes.iter().fold(0, |sum: i32, lane| sum.wrapping_add(*lane))
}

/// Loads 16 bytes and sign-extends them to int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8x16_as_i32(bytes: &[i8; 16]) -> __m512i {
    // SAFETY: the reference covers the 16 bytes read, and `loadu` asks for no alignment.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Loads 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8x64(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Loads sixteen int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i32x16(values: &[i32; 16]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Loads sixteen floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32x16(values: &[f32; 16]) -> __m512 {
    // SAFETY: the reference covers the 64 bytes read, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Stores sixteen int32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_i32x16(values: &mut [i32; 16], v: __m512i) {
    // SAFETY: the reference covers the 64 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), v) }
}

/// Stores sixteen floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_f32x16(values: &mut [f32; 16], v: __m512) {
    // SAFETY: the reference covers the 64 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), v) }
}

/// The mask of the lanes of vector `v` of a slice of `len` elements: sixteen, or fewer at its end.
#[inline(always)]
fn lanes(len: usize, v: usize) -> u16 {
    ((1u32 << len.saturating_sub(16 * v).min(16)) - 1) as u16
}

/// Loads vector `v` of a slice, with zeros beyond its end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i32_lanes(values: &[i32], v: usize) -> __m512i {
    // SAFETY: masked-out lanes are not read, and the mask has no lane beyond the slice.
    unsafe { _mm512_maskz_loadu_epi32(lanes(values.len(), v), values.as_ptr().wrapping_add(16 * v)) }
}

/// Loads vector `v` of a slice, with zeros beyond its end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32_lanes(values: &[f32], v: usize) -> __m512 {
    // SAFETY: masked-out lanes are not read, and the mask has no lane beyond the slice.
    unsafe { _mm512_maskz_loadu_ps(lanes(values.len(), v), values.as_ptr().wrapping_add(16 * v)) }
}

/// Stores 16 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_bytes(to: &mut [u8; 16], bytes: __m128i) {
    // SAFETY: the reference covers the 16 bytes written, and `storeu` asks for no alignment.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
}
