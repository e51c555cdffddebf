//! 4-bit weights by `sdot`: four k of a row, taken by lane, times those of four columns.
//!
//! The tile is 6 rows by 4 vectors: 24 accumulators, two vectors of codes, the mask that parts them
//! and one vector of activations.

use core::arch::aarch64::*;

use super::super::simd::{load_i8x8, sdot};
use super::super::store;
use super::super::vec128::{self, LANES};
use super::{RowOfSums, Step, V, add_terms, as_long_as, codes, nibbles_body, rows_of_steps, steps_of};
use crate::kernel::desc::NibbleBody;
use crate::kernel::nibble_tile::{NibbleLine, NibbleTile};

pub(in super::super) const BODY: NibbleBody = NibbleBody { rows: 6, run, parts: None, float: None };

nibbles_body!("neon,dotprod", 1 2 3 4 5 6);

/// The products of some lines and as many steps of M rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn group_sums<const M: usize>(a: &[&[Step]; M], lines: &[NibbleLine]) -> [RowOfSums; M] {
    // With few rows, each addition would wait for the one before: those of the low halves and those
    // of the high ones are apart.
    let other = usize::from(M < 3);
    let mut sums = [[[vec128::zero(); V]; M]; 2];
    let a = as_long_as(lines, a);
    for (step, line) in lines.iter().enumerate() {
        store::unrolled!(v in V, {
            let [low, high] = codes(line, v);
            store::unrolled!(i in M, {
                let x = load_i8x8(bytemuck::must_cast_ref(&a[i][step]));
                let x = vcombine_s8(x, vdup_n_s8(0));
                sums[0][i][v] = sdot::<0>(sums[0][i][v], low, x);
                sums[other][i][v] = sdot::<1>(sums[other][i][v], high, x);
            });
        });
    }
    let [mut sums, others] = sums;
    if other > 0 {
        for i in 0..M {
            for v in 0..V {
                sums[i][v] = vec128::add(sums[i][v], others[i][v]);
            }
        }
    }
    sums
}
