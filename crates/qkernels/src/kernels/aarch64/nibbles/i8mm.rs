//! 4-bit weights by `smmla`: eight k of two rows times those of two columns.
//!
//! The two sets of four k of a vector, zipped, are eight k of two columns and of two more. The tile
//! is 3 pairs of rows by 8 pairs of columns: 24 accumulators, 3 vectors of activations and those of
//! a vector's codes. A row that has no other one takes itself along.

use core::arch::aarch64::*;

use super::super::simd::{load_i8x8, smmla};
use super::super::store;
use super::super::vec128::{self, LANES};
use super::{RowOfSums, Step, V, add_terms, as_long_as, codes, nibbles_body, rows_of_steps, steps_of};
use crate::kernel::desc::NibbleBody;
use crate::kernel::nibble_tile::{NibbleLine, NibbleTile};

/// Most rows of a tile.
const ROWS: usize = 6;

pub(in super::super) const BODY: NibbleBody = NibbleBody { rows: ROWS, run, parts: None, float: None };

nibbles_body!("neon,i8mm", 1 2 3 4 5 6);

/// The products of some lines and as many steps of M rows.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn group_sums<const M: usize>(a: &[&[Step]; M], lines: &[NibbleLine]) -> [RowOfSums; M] {
    let pairs = M.div_ceil(2);
    let mut squares = [[[vec128::zero(); 2]; V]; ROWS / 2];
    let a = as_long_as(lines, a);
    for (step, line) in lines.iter().enumerate() {
        let mut x = [vdupq_n_s8(0); ROWS / 2];
        for pair in 0..pairs {
            let (first, second) = (a[2 * pair], a[(2 * pair + 1).min(M - 1)]);
            let first = load_i8x8(bytemuck::must_cast_ref(&first[step]));
            x[pair] = vcombine_s8(first, load_i8x8(bytemuck::must_cast_ref(&second[step])));
        }
        store::unrolled!(v in V, {
            let [low, high] = codes(line, v);
            let (low, high) = (vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high));
            let left = vreinterpretq_s8_s32(vzip1q_s32(low, high));
            let right = vreinterpretq_s8_s32(vzip2q_s32(low, high));
            for pair in 0..pairs {
                squares[pair][v][0] = smmla(squares[pair][v][0], x[pair], left);
                squares[pair][v][1] = smmla(squares[pair][v][1], x[pair], right);
            }
        });
    }
    let mut sums = [[vec128::zero(); V]; M];
    for i in 0..M {
        for v in 0..V {
            let [left, right] = squares[i / 2][v];
            let (left, right) = (vreinterpretq_s64_s32(left), vreinterpretq_s64_s32(right));
            let row = if i % 2 == 0 { vzip1q_s64(left, right) } else { vzip2q_s64(left, right) };
            sums[i][v] = vreinterpretq_s32_s64(row);
        }
    }
    sums
}
