//! AVX-512 VNNI: `vpdpbusd` adds four u8 x i8 products to each of sixteen int32 lanes, without
//! saturation.
//!
//! The tile is 8 rows by 3 vectors. Its 24 accumulators, 3 vectors of weights and the broadcast of
//! `a` stay in the 32 registers. The 8 row pointers of `a` stay in general registers, so `a` is
//! read where it lies. One group of four k takes 11 loads for 24 products.

mod nibbles;
mod nibbles_parts;
mod signed;
mod steps;

use core::arch::x86_64::*;

use super::scaled::{MOST_VECTORS, corrections, scaled_body, scaled_parts_body};
use super::simd::{AHEAD, prefetch, prefetch_vector};
use super::strip::{bodies, strip_body};
use super::tile::{self, rows_apart, tile_body};
use super::{float512, store, vec512};
use crate::cpu::detect::Feature;
use crate::cpu::vectorize::Level;
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind, PeakLoop, ScaledBody};
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::Strip;
use crate::output::store::Store;
use crate::output::target::Target;
use steps::{
    LANES, VECTOR_WEIGHTS, broadcast, load_shifted, load_weights, multiply_add, multiply_add_shifted,
};

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx512_vnni_8x48",
    family: "avx512_vnni",
    mr: 8,
    nr: 48,
    vector_columns: LANES,
    kr: 4,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::U8,
    signed_rows: true,
    band: 1,
    features: &[
        Feature::Avx2,
        Feature::Avx512F,
        Feature::Avx512Bw,
        Feature::Avx512Dq,
        Feature::Avx512Vl,
        Feature::Avx512Vnni,
    ],
    level: Level::Avx512,
    run,
    stores: true,
    state: None,
    float: Some(float512::BODY),
    scaled: Some(ScaledBody { form: ActivationForm::I8, weight_shift: 128, run: run_scaled }),
    nibbles: Some(nibbles::BODY),
    peak: PeakLoop { operations: 2 * 4 * (LANES * PEAK_CHAINS) as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 24;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run_tiles(strip: &mut Strip<'_, '_>) {
    if strip.a.signed {
        return signed::run_tiles(strip);
    }
    match strip.columns / LANES {
        1 => bodies!(strip, 1, 1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2, 7: 2, 8: 1),
        2 => bodies!(strip, 2, 1: 4, 2: 4, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
        _ => bodies!(strip, 3, 1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
    }
}

strip_body!("avx512f,avx512bw,avx512vl,avx512vnni");

tile_body!("avx512f,avx512bw,avx512vl,avx512vnni", vec512, ahead from 5);

scaled_body!(
    "avx512f,avx512bw,avx512vl,avx512vnni",
    vec512,
    (load_shifted, 128, multiply_add_shifted),
    ahead from 5,
    1: 1 2 3 4 5 6 7 8,
    2: 1 2 3 4 5 6 7 8,
    3: 1 2 3 4 5 6 7 8
);

scaled_parts_body!(
    "avx512f,avx512bw,avx512vl,avx512vnni",
    vec512,
    (load_shifted, 128, multiply_add_shifted),
    ahead from 3
);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn peak(iterations: u64) -> i32 {
    let x = _mm512_set1_epi32(core::hint::black_box(0x0102_0304));
    let mut acc = [_mm512_setzero_si512(); PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, x, x);
        }
    }
    let mut sum = acc[0];
    for acc in &acc[1..] {
        sum = _mm512_add_epi32(sum, *acc);
    }
    _mm512_reduce_add_epi32(sum)
}
