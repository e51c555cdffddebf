//! Loads and stores between arrays and vector registers, and the instructions that stable Rust has
//! no intrinsic for: all pointers and all assembly of the aarch64 kernels.

use core::arch::aarch64::*;
use core::arch::asm;

/// Loads 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8x16(bytes: &[i8; 16]) -> int8x16_t {
    // SAFETY: the reference covers the 16 bytes read, and the load asks for no alignment.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}

/// Loads 8 bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8x8(bytes: &[i8; 8]) -> int8x8_t {
    // SAFETY: the reference covers the 8 bytes read, and the load asks for no alignment.
    unsafe { vld1_s8(bytes.as_ptr()) }
}

/// Loads four int32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i32x4(values: &[i32; 4]) -> int32x4_t {
    // SAFETY: the reference covers the 16 bytes read.
    unsafe { vld1q_s32(values.as_ptr()) }
}

/// Loads four words and zero-extends them.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u16x4_as_u32(words: &[u16; 4]) -> uint32x4_t {
    // SAFETY: the reference covers the 8 bytes read.
    vmovl_u16(unsafe { vld1_u16(words.as_ptr()) })
}

/// Stores four int32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i32x4(values: &mut [i32; 4], v: int32x4_t) {
    // SAFETY: the reference covers the 16 bytes written.
    unsafe { vst1q_s32(values.as_mut_ptr(), v) }
}

/// Adds to each lane of `sums` the products of its four bytes of `w` and the four bytes of lane
/// `LANE` of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot<const LANE: u32>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: this is an instruction of the enabled feature, on registers alone.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds the product of `x` (two rows of eight bytes) and `w` (two columns of eight bytes) to `sums`
/// (two rows of two sums).
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: this is an instruction of the enabled feature, on registers alone.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {x:v}.16b, {w:v}.16b",
            sums = inout(vreg) sums,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
