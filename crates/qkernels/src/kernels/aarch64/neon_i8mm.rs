//! FEAT_I8MM: `smmla` multiplies two rows by two columns of eight k each and adds the 32 products
//! to four int32 sums.
//!
//! A vector of `a` is eight k of two rows, and a vector of weights is eight k of two columns. The
//! tile is 8 rows by 12 columns. Its 4 by 6 squares of sums take 24 accumulators, which leaves 4
//! registers for vectors of `a` and 4 for weights. One group of eight k takes 10 loads for 24
//! products.

use core::arch::aarch64::*;
use core::ops::Range;

use super::scaled::scaled_body;
use super::simd::{load_i8x16, smmla};
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
const BAND: usize = 2;

/// Weights for a vector of sums: eight k of each column.
const VECTOR_WEIGHTS: usize = 8 * vec128::LANES;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "neon_i8mm_8x12",
    family: "neon_i8mm",
    mr: 8,
    nr: 12,
    vector_columns: vec128::LANES,
    kr: 8,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::I8,
    signed_rows: false,
    band: BAND,
    features: &[Feature::Neon, Feature::I8mm],
    level: Level::Baseline,
    run,
    stores: true,
    state: None,
    float: None,
    scaled: Some(ScaledBody { form: ActivationForm::I8, weight_shift: 0, run: run_scaled }),
    nibbles: Some(nibbles::i8mm::BODY),
    peak: PeakLoop { operations: 2 * 32 * PEAK_CHAINS as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 24;

#[target_feature(enable = "neon,i8mm")]
fn run_tiles(strip: &mut Strip<'_, '_>) {
    match (strip.columns / vec128::LANES, strip.next_rows()) {
        (1, 1) => single_row::<1>(strip),
        (2, 1) => single_row::<2>(strip),
        (_, 1) => single_row::<3>(strip),
        (1, _) => bodies!(strip, 1, 2: 8, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2),
        (2, _) => bodies!(strip, 2, 2: 4, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1),
        (_, _) => bodies!(strip, 3, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
    }
}

/// Two squares side by side, each of two rows and two columns.
type Sums = [int32x4_t; 2];

#[inline]
#[target_feature(enable = "neon")]
fn no_sums() -> Sums {
    [vec128::zero(); 2]
}

/// Eight weights of each of four columns.
#[inline]
#[target_feature(enable = "neon")]
fn load_weights(weights: &[i8; VECTOR_WEIGHTS]) -> [int8x16_t; 2] {
    let (columns, _) = weights.as_chunks();
    [load_i8x16(&columns[0]), load_i8x16(&columns[1])]
}

/// Adds the products of both rows. The sums of a row that is not wanted are ignored.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multiply_add(sums: Sums, _rows: Range<usize>, x: int8x16_t, w: [int8x16_t; 2]) -> Sums {
    [smmla(sums[0], x, w[0]), smmla(sums[1], x, w[1])]
}

#[inline]
#[target_feature(enable = "neon")]
fn to_rows(sums: Sums) -> [int32x4_t; BAND] {
    let [left, right] = sums.map(|square| vreinterpretq_s64_s32(square));
    [vreinterpretq_s32_s64(vzip1q_s64(left, right)), vreinterpretq_s32_s64(vzip2q_s64(left, right))]
}

strip_body!("neon,i8mm");
tile_body!("neon,i8mm");
row_products!("neon,i8mm");
single_row!("neon,i8mm");
scaled_body!(
    "neon,i8mm",
    1: (1, 1) (2, 4) (3, 4) (4, 4) (5, 2) (6, 2) (7, 2) (8, 2),
    2: (1, 1) (2, 4) (3, 2) (4, 2) (5, 1) (6, 1) (7, 1) (8, 1),
    3: (1, 1) (2, 2) (3, 1) (4, 1) (5, 1) (6, 1) (7, 1) (8, 1)
);

#[target_feature(enable = "neon,i8mm")]
fn peak(iterations: u64) -> i32 {
    let x = vreinterpretq_s8_s32(vdupq_n_s32(core::hint::black_box(0x0102_0304)));
    let mut acc = [vec128::zero(); PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            *acc = smmla(*acc, x, x);
        }
    }
    let mut sum = acc[0];
    for acc in &acc[1..] {
        sum = vec128::add(sum, *acc);
    }
    vaddvq_s32(sum)
}
