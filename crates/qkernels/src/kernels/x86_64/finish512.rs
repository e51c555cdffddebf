//! Output stages on 512-bit registers: qcore's formulas on sixteen channels at a time, straight from a kernel's
//! accumulators to the output.
//!
//! | step | qcore | here |
//! | --- | --- | --- |
//! | `if v > lo { v } else { lo }` | `maxss` | `vmaxps v, lo`: the second operand where equal or NaN |
//! | `if v < hi { v } else { hi }` | `minss` | `vminps v, hi` |
//! | round to nearest, ties to even | adds 1.5 * 2^23 | `vcvtps2dq` in the default rounding mode |
//! | `if y < 0 { 0 } else { y }` | | `vmaxps 0, y`, which keeps NaN and -0 |

use core::arch::x86_64::*;

use super::simd::{load_f32_lanes, load_i32_lanes};
use crate::finish::Codes;

/// The block once for each `$i` below `$bound`, a constant of at most 8.
///
/// The compiler keeps an array in registers only if it sees nothing but constant indices early on; it unrolls loops this
/// large too late, or not at all.
macro_rules! unrolled {
    ($i:ident in $bound:ident, $block:block) => {
        unrolled!($i in $bound, $block, 0 1 2 3 4 5 6 7)
    };
    ($i:ident in $bound:ident, $block:block, $($index:literal)*) => {
        $(if $index < $bound {
            let $i = $index;
            $block
        })*
    };
}
pub(super) use unrolled;

/// Stores `$sums`, the complete int32 sums of a tile (an array of `$M` rows of `$V` vectors), through its output stage.
///
/// A macro, since a function with target features cannot be `#[inline(always)]`, and out of line it would take the
/// accumulators through memory.
macro_rules! store {
    ($sums:ident, $store:expr, $M:ident, $V:ident) => {{
        let Store { finish, channels, target } = $store;
        let offsets = finish512::load_i32s::<$V>(&finish.offsets[channels.clone()]);
        match target {
            Target::I32(out) => {
                unrolled!(i in $M, {
                    let row = out.row_mut(i).unwrap_or_default();
                    unrolled!(v in $V, {
                        let sum = _mm512_add_epi32($sums[i][v], offsets[v]);
                        store_i32_lanes(row, v, sum);
                    });
                });
            }
            Target::F32(out) => {
                let factors = finish512::load_f32s::<$V>(&finish.factors[channels.clone()]);
                let bias = match finish.float_bias {
                    Some(bias) => finish512::load_f32s::<$V>(&bias[channels.clone()]),
                    None => [_mm512_set1_ps(-0.0); $V],
                };
                let floor = _mm512_set1_ps(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
                unrolled!(i in $M, {
                    let row = out.row_mut(i).unwrap_or_default();
                    unrolled!(v in $V, {
                        let sum = _mm512_add_epi32($sums[i][v], offsets[v]);
                        store_f32_lanes(row, v, finish512::dequantize(sum, factors[v], bias[v], floor));
                    });
                });
            }
            Target::I8(out) => {
                let factors = finish512::load_f32s::<$V>(&finish.factors[channels.clone()]);
                unrolled!(i in $M, {
                    let row = bytemuck::must_cast_slice_mut(out.row_mut(i).unwrap_or_default());
                    unrolled!(v in $V, {
                        let sum = _mm512_add_epi32($sums[i][v], offsets[v]);
                        let codes = finish512::requantize(sum, factors[v], &finish.codes);
                        store_byte_lanes(row, v, codes);
                    });
                });
            }
            Target::U8(out) => {
                let factors = finish512::load_f32s::<$V>(&finish.factors[channels.clone()]);
                unrolled!(i in $M, {
                    let row = out.row_mut(i).unwrap_or_default();
                    unrolled!(v in $V, {
                        let sum = _mm512_add_epi32($sums[i][v], offsets[v]);
                        let codes = finish512::requantize(sum, factors[v], &finish.codes);
                        store_byte_lanes(row, v, codes);
                    });
                });
            }
        }
    }};
}
pub(super) use store;

/// A per-channel operand, a vector after the other, zeros at the end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i32s<const V: usize>(values: &[i32]) -> [__m512i; V] {
    let mut vectors = [_mm512_setzero_si512(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = load_i32_lanes(values, v);
    }
    vectors
}

/// As [`load_i32s`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32s<const V: usize>(values: &[f32]) -> [__m512; V] {
    let mut vectors = [_mm512_setzero_ps(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        *vector = load_f32_lanes(values, v);
    }
    vectors
}

/// [`qcore::dequantize_acc_bias`], then ReLU. Without a bias, -0.0 stands in, which changes nothing when it is added;
/// without ReLU, a floor of minus infinity.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn dequantize(sum: __m512i, factor: __m512, bias: __m512, floor: __m512) -> __m512 {
    let y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor), bias);
    _mm512_max_ps(floor, y)
}

/// [`qcore::requantize`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn requantize(sum: __m512i, factor: __m512, codes: &Codes) -> __m512i {
    let (low, high) = ((codes.low - codes.zero_point) as f32, (codes.high - codes.zero_point) as f32);
    let v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
    let v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(low)), _mm512_set1_ps(high));
    _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(codes.zero_point))
}
