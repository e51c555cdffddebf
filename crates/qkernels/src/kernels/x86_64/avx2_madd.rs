//! AVX2 for any weights. They are sign-extended to 16 bits as they are loaded, and `vpmaddwd` adds
//! two i16 x i16 products.
//!
//! The sum of two products is at most 2 * 255 * 128, far below the 32 bits that `vpmaddwd` sums
//! into. (`vpmaddubsw` needs no extension, but it sums into 16 bits with saturation and is wrong
//! for weights of full range: see `avx2/maddubs.rs`.) The tile is 6 rows by 2 vectors: 12
//! accumulators, 2 vectors of weights, the broadcast of `a` and one product fill the 16 registers.

mod parts;
mod steps;

use core::arch::x86_64::*;

use super::scaled::{corrections, scaled_body};
use super::simd::{prefetch_vector, sum_of_lanes};
use super::strip::{bodies, strip_body};
use super::tile::{self, rows_apart, tile_body};
use super::{float256, nibbles256, store, vec256};
use crate::cpu::detect::Feature;
use crate::cpu::vectorize::Level;
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind, PeakLoop, ScaledBody};
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::Strip;
use crate::output::store::Store;
use crate::output::target::Target;
use parts::scaled_parts;
pub(super) use steps::broadcast;
use steps::{LANES, VECTOR_WEIGHTS, load_weights, multiply_add};

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx2_madd_6x16",
    family: "avx2_madd",
    mr: 6,
    nr: 16,
    vector_columns: LANES,
    kr: 2,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::I16,
    signed_rows: false,
    band: 1,
    features: &[Feature::Avx2, Feature::Fma],
    level: Level::Avx2,
    run,
    stores: true,
    state: None,
    float: Some(float256::PAIRS),
    scaled: Some(ScaledBody { form: ActivationForm::I16, weight_shift: 0, run: run_scaled }),
    nibbles: Some(nibbles256::BODY),
    peak: PeakLoop { operations: 2 * 2 * (LANES * PEAK_CHAINS) as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 12;

#[target_feature(enable = "avx2")]
fn run_tiles(strip: &mut Strip<'_, '_>) {
    match strip.columns / LANES {
        1 => bodies!(strip, 1, 1: 8, 2: 4, 3: 2, 4: 2, 5: 2, 6: 1),
        _ => bodies!(strip, 2, 1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1),
    }
}

strip_body!("avx2");

tile_body!("avx2", vec256, ahead from 3);

scaled_body!("avx2", vec256, (load_weights, 0, multiply_add), ahead from 1, 1: 1 2 3 4 5 6, 2: 1 2 3 4 5 6);

#[target_feature(enable = "avx2")]
fn peak(iterations: u64) -> i32 {
    let x = _mm256_set1_epi32(core::hint::black_box(0x0001_0002));
    let mut acc = [x; PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            // The sum is fed back, so no product can be computed once and reused.
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(*acc, x));
        }
    }
    sum_of_lanes(&acc)
}
