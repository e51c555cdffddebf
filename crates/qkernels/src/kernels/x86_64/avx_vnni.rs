//! AVX-VNNI: `vpdpbusd` in its VEX form, for client CPUs that have no AVX-512.
//!
//! The tile is 6 rows by 2 vectors: 12 accumulators, 2 vectors of weights and the broadcast of `a`
//! in 16 registers.

use core::arch::x86_64::*;

use super::scaled::{MOST_VECTORS, corrections, scaled_body, scaled_parts_body};
use super::simd::{AHEAD, load_i8x32, prefetch, prefetch_vector, sum_of_lanes};
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

/// Columns of a vector.
const LANES: usize = vec256::LANES;

/// Weights of a vector: four k of each column.
const VECTOR_WEIGHTS: usize = 4 * LANES;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx_vnni_6x16",
    family: "avx_vnni",
    mr: 6,
    nr: 16,
    vector_columns: LANES,
    kr: 4,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::U8,
    signed_rows: false,
    band: 1,
    features: &[Feature::Avx2, Feature::Fma, Feature::AvxVnni],
    level: Level::Avx2,
    run,
    stores: true,
    state: None,
    float: Some(float256::QUADS),
    scaled: Some(ScaledBody { form: ActivationForm::I8, weight_shift: 128, run: run_scaled }),
    nibbles: Some(nibbles256::BODY),
    peak: PeakLoop { operations: 2 * 4 * (LANES * PEAK_CHAINS) as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 12;

#[target_feature(enable = "avx2,avxvnni")]
fn run_tiles(strip: &mut Strip<'_, '_>) {
    match strip.columns / LANES {
        1 => bodies!(strip, 1, 1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2),
        _ => bodies!(strip, 2, 1: 4, 2: 4, 3: 2, 4: 1, 5: 1, 6: 1),
    }
}

/// Four weights of each of eight columns.
#[inline]
#[target_feature(enable = "avx2")]
fn load_weights(weights: &[i8; VECTOR_WEIGHTS]) -> __m256i {
    load_i8x32(weights)
}

/// Four elements of a row, repeated for each column.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(group: [u8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(group))
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn multiply_add(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(sums, x, w)
}

/// [`load_weights`], each as the u8 that is 128 more.
#[inline]
#[target_feature(enable = "avx2")]
fn load_shifted(weights: &[i8; VECTOR_WEIGHTS]) -> __m256i {
    _mm256_xor_si256(load_weights(weights), _mm256_set1_epi8(i8::MIN))
}

/// Adds the products of i8 activations and shifted weights.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn multiply_add_shifted(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    multiply_add(sums, w, x)
}

strip_body!("avx2,avxvnni");

tile_body!("avx2,avxvnni", vec256, ahead from 3);

scaled_body!(
    "avx2,avxvnni",
    vec256,
    (load_shifted, 128, multiply_add_shifted),
    ahead from 1,
    1: 1 2 3 4 5 6,
    2: 1 2 3 4 5 6
);

scaled_parts_body!("avx2,avxvnni", vec256, (load_shifted, 128, multiply_add_shifted), ahead from 1);

#[target_feature(enable = "avx2,avxvnni")]
fn peak(iterations: u64) -> i32 {
    let x = _mm256_set1_epi32(core::hint::black_box(0x0102_0304));
    let mut acc = [_mm256_setzero_si256(); PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            *acc = _mm256_dpbusd_avx_epi32(*acc, x, x);
        }
    }
    sum_of_lanes(&acc)
}
