//! Output stages on 128-bit registers: qcore's formulas on four channels at a time.
//!
//! | step | qcore | here |
//! | --- | --- | --- |
//! | `if v > lo { v } else { lo }` | | `fmaxnm`: the number where the other is NaN |
//! | `if v < hi { v } else { hi }` | | `fminnm` |
//! | round to nearest, ties to even | adds 1.5 * 2^23 | `fcvtns` |
//! | `if y < 0 { 0 } else { y }` | | `fcmgt` and `bsl`, which keep NaN and -0 |

use core::arch::aarch64::*;

use super::simd::{load_i32x4, load_u16x4_as_u32, store_i32x4};
use crate::kernel::group_floats::{EXPONENT_GAP, GroupFloats};
use crate::kernels::lanes::load_lanes;
use crate::output::operands::Codes;

/// int32 lanes of a vector.
pub(super) const LANES: usize = 4;

/// A vector of sums that are 0.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zero() -> int32x4_t {
    vdupq_n_s32(0)
}

/// Loads a vector of a tile's sums.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_sums(sums: &[i32; LANES]) -> int32x4_t {
    load_i32x4(sums)
}

/// Stores a vector of a tile's sums.
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

/// `sum - row * channels`, wrapping: subtracts a row's zero point times the sums of the channels'
/// weights.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn subtract_product(sum: int32x4_t, row: i32, channels: int32x4_t) -> int32x4_t {
    vmlsq_s32(sum, vdupq_n_s32(row), channels)
}

/// `sum + a * b`, wrapping.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_product(sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    vmlaq_s32(sum, a, b)
}

/// The entries of columns from `first` on; ones where there are none.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn of_columns<const V: usize>(entries: &[i8], first: usize) -> [int32x4_t; V] {
    let mut vectors = [vdupq_n_s32(1); V];
    if let Some(entries) = entries.get(first..first + V * LANES) {
        for (vector, entries) in vectors.iter_mut().zip(entries.as_chunks::<LANES>().0) {
            *vector = load_i32x4(&entries.map(i32::from));
        }
    }
    vectors
}

/// The sums of two vectors, lane by lane.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_f32s(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vaddq_f32(a, b)
}

/// The products of two vectors, lane by lane.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vmulq_f32(a, b)
}

/// A vector with one value in all lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn splat(value: f32) -> float32x4_t {
    vdupq_n_f32(value)
}

/// Loads a per-channel operand into vectors, with zeros at the end.
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

/// Loads floats of a group from index `at` on.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_floats<const V: usize>(floats: GroupFloats<'_>, at: usize) -> [float32x4_t; V] {
    let mut vectors = [splat(0.0); V];
    match floats {
        GroupFloats::F32(floats) => vectors = load_f32s::<V>(&floats[at..at + V * LANES]),
        GroupFloats::F16(floats) => {
            let floats = floats[at..at + V * LANES].as_chunks::<LANES>().0;
            // As `widen` of these, which says why.
            for v in 0..V {
                let bits = load_u16x4_as_u32(&floats[v]);
                let shifted = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
                let value = vmulq_f32(vreinterpretq_f32_u32(shifted), splat(EXPONENT_GAP));
                let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
                vectors[v] = vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(value), sign));
            }
        }
    }
    vectors
}

/// [`qcore::dequantize_acc`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn scale(sum: int32x4_t, factor: float32x4_t) -> float32x4_t {
    vmulq_f32(vcvtq_f32_s32(sum), factor)
}

/// Adds a term to results.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_term(y: &mut [f32; LANES], term: float32x4_t) {
    let results = vreinterpretq_f32_s32(load_i32x4(bytemuck::must_cast_ref(y)));
    store_f32s(y, vaddq_f32(results, term));
}

/// [`qcore::dequantize_acc_bias`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dequantize(sum: int32x4_t, factor: float32x4_t, bias: float32x4_t) -> float32x4_t {
    vaddq_f32(scale(sum, factor), bias)
}

/// `y`, or the floor where `y` is below it: ReLU with a floor of 0.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn floor(y: float32x4_t, floor: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(floor, y), floor, y)
}

/// [`qcore::requantize`] without the upper bound, to which the stores saturate. The sums must be
/// ones that [`StageOperands::saturates`] is true for.
///
/// [`StageOperands::saturates`]: crate::output::operands::StageOperands::saturates
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn requantize(sum: int32x4_t, factor: float32x4_t, codes: &Codes) -> int32x4_t {
    let code = vaddq_s32(vcvtnq_s32_f32(scale(sum, factor)), vdupq_n_s32(codes.zero_point));
    vmaxq_s32(code, vdupq_n_s32(codes.low))
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

/// As [`store_i32s`], with saturation.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i8s(to: &mut [i8; LANES], codes: int32x4_t) {
    let words = words(codes);
    *to = bytemuck::must_cast(vget_lane_u32::<0>(vreinterpret_u32_s8(vqmovn_s16(words))));
}

/// As [`store_i32s`], with saturation.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_u8s(to: &mut [u8; LANES], codes: int32x4_t) {
    let words = words(codes);
    *to = bytemuck::must_cast(vget_lane_u32::<0>(vreinterpret_u32_u8(vqmovun_s16(words))));
}

/// Four int32 as 16-bit words, saturated, twice.
#[inline]
#[target_feature(enable = "neon")]
fn words(codes: int32x4_t) -> int16x8_t {
    let words = vqmovn_s32(codes);
    vcombine_s16(words, words)
}
