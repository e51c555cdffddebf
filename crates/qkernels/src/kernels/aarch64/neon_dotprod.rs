//! FEAT_DotProd: `sdot` adds four i8 x i8 products to each of four int32 lanes, and takes its
//! second operand by lane.
//!
//! A vector of `a` is four k of four rows, so its lanes are rows and no instruction has to spread
//! them. The tile is 8 rows by 3 vectors: 24 accumulators, 2 vectors of `a` and 3 of weights in the
//! 32 registers. One group of four k takes 5 loads for 24 products.

use core::arch::aarch64::*;
use core::ops::Range;

use super::scaled::scaled_body;
use super::simd::{load_i8x16, sdot};
use super::strip::{bodies, strip_body};
use super::tile::{self, row_products, single_row, tile_body};
use super::{nibbles, store, vec128};
use crate::cpu::detect::Feature;
use crate::cpu::vectorize::Level;
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind, PeakLoop, ScaledBody};
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::Strip;
use crate::output::store::Store;
use crate::output::target::Target;

/// Rows that a vector of `a` holds.
const BAND: usize = 4;

/// Weights for a vector of sums: four k of each column.
const VECTOR_WEIGHTS: usize = 4 * vec128::LANES;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "neon_dotprod_8x12",
    family: "neon_dotprod",
    mr: 8,
    nr: 12,
    vector_columns: vec128::LANES,
    kr: 4,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::I8,
    signed_rows: false,
    band: BAND,
    features: &[Feature::Neon, Feature::Dotprod],
    level: Level::Baseline,
    run,
    stores: true,
    state: None,
    float: None,
    scaled: Some(ScaledBody { form: ActivationForm::I8, weight_shift: 0, run: run_scaled }),
    nibbles: Some(nibbles::dotprod::BODY),
    peak: PeakLoop { operations: 2 * 4 * (vec128::LANES * PEAK_CHAINS) as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 24;

#[target_feature(enable = "neon,dotprod")]
fn run_tiles(strip: &mut Strip<'_, '_>) {
    match (strip.columns / vec128::LANES, strip.next_rows()) {
        (1, 1) => single_row::<1>(strip),
        (2, 1) => single_row::<2>(strip),
        (_, 1) => single_row::<3>(strip),
        (1, _) => bodies!(strip, 1, 2: 8, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2),
        (2, _) => bodies!(strip, 2, 2: 4, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1),
        (_, _) => bodies!(strip, 3, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
    }
}

/// The sums of each row.
type Sums = [int32x4_t; BAND];

#[inline]
#[target_feature(enable = "neon")]
fn no_sums() -> Sums {
    [vec128::zero(); BAND]
}

/// Four weights of each of four columns.
#[inline]
#[target_feature(enable = "neon")]
fn load_weights(weights: &[i8; VECTOR_WEIGHTS]) -> int8x16_t {
    load_i8x16(weights)
}

/// Adds the products of those `rows` that the band has.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply_add(mut sums: Sums, rows: Range<usize>, x: int8x16_t, w: int8x16_t) -> Sums {
    if rows.contains(&0) {
        sums[0] = sdot::<0>(sums[0], w, x);
    }
    if rows.contains(&1) {
        sums[1] = sdot::<1>(sums[1], w, x);
    }
    if rows.contains(&2) {
        sums[2] = sdot::<2>(sums[2], w, x);
    }
    if rows.contains(&3) {
        sums[3] = sdot::<3>(sums[3], w, x);
    }
    sums
}

#[inline(always)]
fn to_rows(sums: Sums) -> [int32x4_t; BAND] {
    sums
}

strip_body!("neon,dotprod");
tile_body!("neon,dotprod");
row_products!("neon,dotprod");
single_row!("neon,dotprod");
scaled_body!(
    "neon,dotprod",
    1: (1, 1) (2, 8) (3, 4) (4, 4) (5, 2) (6, 2) (7, 2) (8, 2),
    2: (1, 1) (2, 4) (3, 2) (4, 2) (5, 1) (6, 1) (7, 1) (8, 1),
    3: (1, 1) (2, 2) (3, 2) (4, 1) (5, 1) (6, 1) (7, 1) (8, 1)
);

#[target_feature(enable = "neon,dotprod")]
fn peak(iterations: u64) -> i32 {
    let x = vreinterpretq_s8_s32(vdupq_n_s32(core::hint::black_box(0x0102_0304)));
    let mut acc = [vec128::zero(); PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            *acc = sdot::<0>(*acc, x, x);
        }
    }
    let mut sum = acc[0];
    for acc in &acc[1..] {
        sum = vec128::add(sum, *acc);
    }
    vaddvq_s32(sum)
}
