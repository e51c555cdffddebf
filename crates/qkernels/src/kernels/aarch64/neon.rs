//! NEON as every aarch64 CPU has it: `smull` multiplies eight i8 x i8 into 16 bits, and `sadalp`
//! adds pairs of the products to four int32 lanes.
//!
//! Each product is widened before another is added to it. 2 * -128 * -128 is one more than 16 bits
//! hold, so `smlal` into 16 bits is wrong for operands of full range, although it halves the
//! additions elsewhere.
//!
//! A vector of `a` is 16 k of one row, and a vector of weights is 16 k of one column. Nothing is
//! spread over lanes; the four lanes of a sum are added up at the end. The tile is 5 rows by 4
//! columns: 20 accumulators, 4 vectors of weights and one of `a`. That leaves 7 of the 32 registers
//! for products, enough to hide their latency where instructions run in order. With 6 rows,
//! accumulators leave their registers. One group of 16 k takes 9 loads, 40 multiplications and as
//! many additions.

use core::arch::aarch64::*;
use core::ops::Range;

use super::scaled::scaled_body;
use super::simd::load_i8x16;
use super::strip::{bodies, strip_body};
use super::tile::{self, row_products, tile_body};
use super::{nibbles, store, vec128};
use crate::cpu::detect::Feature;
use crate::cpu::vectorize::Level;
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind, PeakLoop, ScaledBody};
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::Strip;
use crate::output::store::Store;
use crate::output::target::Target;

/// Rows that a vector of `a` holds.
const BAND: usize = 1;

/// Weights for a vector of sums: 16 k of each column.
const VECTOR_WEIGHTS: usize = 16 * vec128::LANES;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "neon_5x4",
    family: "neon",
    mr: 5,
    nr: vec128::LANES,
    vector_columns: vec128::LANES,
    kr: 16,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::I8,
    signed_rows: false,
    band: BAND,
    features: &[Feature::Neon],
    level: Level::Baseline,
    run,
    stores: true,
    state: None,
    float: None,
    scaled: Some(ScaledBody { form: ActivationForm::I8, weight_shift: 0, run: run_scaled }),
    nibbles: Some(nibbles::neon::BODY),
    peak: PeakLoop { operations: 2 * 8 * PEAK_CHAINS as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 20;

#[target_feature(enable = "neon")]
fn run_tiles(strip: &mut Strip<'_, '_>) {
    bodies!(strip, 1, 1: 4, 2: 2, 3: 1, 4: 1, 5: 1)
}

/// For each column four sums, each of every fourth pair of products.
type Sums = [int32x4_t; 4];

#[inline]
#[target_feature(enable = "neon")]
fn no_sums() -> Sums {
    [vec128::zero(); 4]
}

/// 16 weights of each of four columns.
#[inline]
#[target_feature(enable = "neon")]
fn load_weights(weights: &[i8; VECTOR_WEIGHTS]) -> [int8x16_t; 4] {
    let (columns, _) = weights.as_chunks();
    [load_i8x16(&columns[0]), load_i8x16(&columns[1]), load_i8x16(&columns[2]), load_i8x16(&columns[3])]
}

/// Adds the products of the row.
#[inline]
#[target_feature(enable = "neon")]
fn multiply_add(mut sums: Sums, _rows: Range<usize>, x: int8x16_t, w: [int8x16_t; 4]) -> Sums {
    for column in 0..4 {
        let products = vmull_s8(vget_low_s8(x), vget_low_s8(w[column]));
        sums[column] = vpadalq_s16(sums[column], products);
        sums[column] = vpadalq_s16(sums[column], vmull_high_s8(x, w[column]));
    }
    sums
}

#[inline]
#[target_feature(enable = "neon")]
fn to_rows(sums: Sums) -> [int32x4_t; BAND] {
    [vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]))]
}

strip_body!("neon");
tile_body!("neon");
row_products!("neon");
scaled_body!("neon", 1: (1, 1) (2, 2) (3, 1) (4, 1) (5, 1));

#[target_feature(enable = "neon")]
fn peak(iterations: u64) -> i32 {
    let x = vdup_n_s8(core::hint::black_box(3));
    let mut acc = [vec128::zero(); PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            // The sum is fed back, so no product can be computed once and reused.
            let fed_back = vget_low_s8(vreinterpretq_s8_s32(*acc));
            *acc = vpadalq_s16(*acc, vmull_s8(fed_back, x));
        }
    }
    let mut sum = acc[0];
    for acc in &acc[1..] {
        sum = vec128::add(sum, *acc);
    }
    vaddvq_s32(sum)
}
