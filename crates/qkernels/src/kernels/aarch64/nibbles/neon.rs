//! 4-bit weights by `smlal`, which every aarch64 CPU has: products of codes of 0 to 15 and
//! activations of i8 are at most 1,920 in magnitude, so 16 of them fit 16 bits. So 64 k are summed
//! in 16 bits before they are widened.
//!
//! The tile is 3 rows by 8 vectors of products, two for each vector of columns.

use core::arch::aarch64::*;

use super::super::simd::load_i8x8;
use super::super::store;
use super::super::vec128::{self, LANES};
use super::{RowOfSums, Step, V, add_terms, as_long_as, codes, nibbles_body, rows_of_steps, steps_of};
use crate::kernel::desc::NibbleBody;
use crate::kernel::nibble_tile::{NIBBLE_STEP, NibbleLine, NibbleTile};

pub(in super::super) const BODY: NibbleBody = NibbleBody { rows: 3, run, parts: None, float: None };

/// Steps whose products are summed in 16 bits: each adds two to a lane.
const NARROW_STEPS: usize = 64 / NIBBLE_STEP;

nibbles_body!("neon", 1 2 3);

/// The products of some lines and as many steps of M rows.
#[inline]
#[target_feature(enable = "neon")]
fn group_sums<const M: usize>(a: &[&[Step]; M], lines: &[NibbleLine]) -> [RowOfSums; M] {
    let mut sums = [[vec128::zero(); V]; M];
    let a = as_long_as(lines, a);
    for first in (0..lines.len()).step_by(NARROW_STEPS) {
        let mut narrow = [[[vdupq_n_s16(0); 2]; V]; M];
        for step in first..lines.len().min(first + NARROW_STEPS) {
            let line = &lines[step];
            store::unrolled!(v in V, {
                let [low, high] = codes(line, v);
                for i in 0..M {
                    let x = vreinterpret_s32_s8(load_i8x8(bytemuck::must_cast_ref(&a[i][step])));
                    let first = vreinterpretq_s8_s32(vdupq_lane_s32::<0>(x));
                    let second = vreinterpretq_s8_s32(vdupq_lane_s32::<1>(x));
                    let [left, right] = &mut narrow[i][v];
                    *left = vmlal_s8(*left, vget_low_s8(low), vget_low_s8(first));
                    *right = vmlal_high_s8(*right, low, first);
                    *left = vmlal_s8(*left, vget_low_s8(high), vget_low_s8(second));
                    *right = vmlal_high_s8(*right, high, second);
                }
            });
        }
        for i in 0..M {
            for v in 0..V {
                // Four k of a column are side by side.
                let [left, right] = narrow[i][v];
                let wide = vpaddq_s32(vpaddlq_s16(left), vpaddlq_s16(right));
                sums[i][v] = vec128::add(sums[i][v], wide);
            }
        }
    }
    sums
}
