//! Output stages on 128-bit registers: qcore's formulas on four channels at a time.
//!
//! | step | qcore | here |
//! | --- | --- | --- |
//! | `if v > lo { v } else { lo }` | | `fmaxnm`: the number where the other is NaN |
//! | `if v < hi { v } else { hi }` | | `fminnm` |
//! | round to nearest, ties to even | adds 1.5 * 2^23 | `fcvtns` |
//! | `if y < 0 { 0 } else { y }` | | `fcmgt` and `bsl`, which keep NaN and -0 |

use core::arch::aarch64::*;

use super::simd::{load_i32x4, store_i32x4};
use crate::finish::Codes;
use crate::kernels::lanes::{edge_stores, load_lanes, store_lanes};

/// int32 lanes of a vector.
pub(super) const LANES: usize = 4;

/// No sums yet.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zero() -> int32x4_t {
    vdupq_n_s32(0)
}

/// A vector of a tile's sums.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_sums(sums: &[i32; LANES]) -> int32x4_t {
    load_i32x4(sums)
}

/// As [`load_sums`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_sums(to: &mut [i32; LANES], sums: int32x4_t) {
    store_i32x4(to, sums);
}

/// The sum of two vectors, wrapping.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    vaddq_s32(a, b)
}

/// `sum - row * channels`, wrapping: a row's zero point times the sums of the channels' weights.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn subtract_product(sum: int32x4_t, row: i32, channels: int32x4_t) -> int32x4_t {
    vmlsq_s32(sum, vdupq_n_s32(row), channels)
}

/// The products of two vectors.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vmulq_f32(a, b)
}

/// One value in all lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn splat(value: f32) -> float32x4_t {
    vdupq_n_f32(value)
}

/// A per-channel operand, a vector after the other, zeros at the end.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i32s<const V: usize>(values: &[i32]) -> [int32x4_t; V] {
    let mut vectors = [zero(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = load_i32x4(&load_lanes(values, v));
    }
    vectors
}

/// As [`load_i32s`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_f32s<const V: usize>(values: &[f32]) -> [float32x4_t; V] {
    let mut vectors = [splat(0.0); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = vreinterpretq_f32_s32(load_i32x4(&load_lanes(bytemuck::must_cast_slice(values), v)));
    }
    vectors
}

/// [`qcore::dequantize_acc_bias`], then ReLU. Without a bias, -0.0 stands in, which changes nothing when it is added;
/// without ReLU, a floor of minus infinity.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dequantize(
    sum: int32x4_t,
    factor: float32x4_t,
    bias: float32x4_t,
    floor: float32x4_t,
) -> float32x4_t {
    let y = vaddq_f32(vmulq_f32(vcvtq_f32_s32(sum), factor), bias);
    vbslq_f32(vcgtq_f32(floor, y), floor, y)
}

/// [`qcore::requantize`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn requantize(sum: int32x4_t, factor: float32x4_t, codes: &Codes) -> int32x4_t {
    let (low, high) = ((codes.low - codes.zero_point) as f32, (codes.high - codes.zero_point) as f32);
    let v = vmulq_f32(vcvtq_f32_s32(sum), factor);
    let v = vminnmq_f32(vmaxnmq_f32(v, splat(low)), splat(high));
    vaddq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(codes.zero_point))
}

/// Stores a whole vector.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i32s(to: &mut [i32; LANES], sums: int32x4_t) {
    store_i32x4(to, sums);
}

/// As [`store_i32s`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_f32s(to: &mut [f32; LANES], y: float32x4_t) {
    store_i32x4(bytemuck::must_cast_mut(to), vreinterpretq_s32_f32(y));
}

/// As [`store_i32s`]; the codes are in the range of i8.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i8s(to: &mut [i8; LANES], codes: int32x4_t) {
    *to = bytemuck::must_cast(low_bytes(codes));
}

/// As [`store_i32s`]; the codes are in the range of u8.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_u8s(to: &mut [u8; LANES], codes: int32x4_t) {
    *to = bytemuck::must_cast(low_bytes(codes));
}

/// The low byte of each lane.
#[inline]
#[target_feature(enable = "neon")]
fn low_bytes(codes: int32x4_t) -> u32 {
    let words = vmovn_s32(codes);
    vget_lane_u32::<0>(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))))
}

edge_stores! {
    "neon",
    store_edge_i32s by store_i32s: i32, int32x4_t;
    store_edge_f32s by store_f32s: f32, float32x4_t;
    store_edge_i8s by store_i8s: i8, int32x4_t;
    store_edge_u8s by store_u8s: u8, int32x4_t;
}
