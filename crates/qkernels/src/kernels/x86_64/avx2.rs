//! AVX2, exact: weights are sign-extended to 16 bits as they are loaded, and `vpmaddwd` adds two i16 x i16 products.
//!
//! A product pair is at most 2 * 255 * 128, far below the 32 bits that `vpmaddwd` sums into. (`vpmaddubsw`, twice as
//! fast, sums into 16 bits with saturation and is wrong for weights of full range.) The tile is 6 rows by 2 vectors: 12
//! accumulators, 2 vectors of weights, the broadcast of `a` and one product fill the 16 registers.

use core::arch::x86_64::*;

use super::finish256;
use super::simd::{load_i8x16_as_i16, load_i32x8, store_i32x8};
use super::store::{self, unrolled};
use crate::detect::Feature;
use crate::finish::{Store, Target};
use crate::kernel::{ActivationForm, KernelDesc, PeakLoop, Tile};
use crate::vectorize::Level;

/// Columns of a vector.
const LANES: usize = 8;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx2_6x16",
    family: "avx2",
    mr: 6,
    nr: 16,
    vector_columns: LANES,
    kr: 2,
    form: ActivationForm::I16,
    features: &[Feature::Avx2],
    level: Level::Avx2,
    run,
    stores: true,
    peak: PeakLoop { operations: 2 * 2 * (LANES * PEAK_CHAINS) as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 12;

#[target_feature(enable = "avx2")]
fn run(tile: &mut Tile<'_>) {
    match tile.columns / LANES {
        1 => rows::<1>(tile),
        _ => rows::<2>(tile),
    }
}

#[target_feature(enable = "avx2")]
fn rows<const V: usize>(tile: &mut Tile<'_>) {
    match tile.rows {
        1 => body::<1, V>(tile),
        2 => body::<2, V>(tile),
        3 => body::<3, V>(tile),
        4 => body::<4, V>(tile),
        5 => body::<5, V>(tile),
        _ => body::<6, V>(tile),
    }
}

#[target_feature(enable = "avx2")]
fn body<const M: usize, const V: usize>(tile: &mut Tile<'_>) {
    let groups = tile.groups;
    // A loop, not `from_fn`: closures called from code without the target features are not inlined.
    let mut a: [&[[u8; 4]]; M] = [&[]; M];
    for (i, row) in a.iter_mut().enumerate() {
        *row = &tile.a[i * tile.a_stride..].as_chunks::<4>().0[..groups];
    }
    let mut acc = [[_mm256_setzero_si256(); V]; M];
    let (sums, _) = tile.acc.as_chunks_mut::<LANES>();
    let sums = &mut sums[..M * V];
    if tile.accumulate {
        for i in 0..M {
            for v in 0..V {
                acc[i][v] = load_i32x8(&sums[i * V + v]);
            }
        }
    }
    let (b, _) = tile.b.as_chunks::<{ 2 * LANES }>();
    for (g, b) in (0..groups).zip(b.chunks_exact(V)) {
        let mut w = [_mm256_setzero_si256(); V];
        for v in 0..V {
            w[v] = load_i8x16_as_i16(&b[v]);
        }
        for i in 0..M {
            let x = _mm256_set1_epi32(i32::from_ne_bytes(a[i][g]));
            for v in 0..V {
                acc[i][v] = _mm256_add_epi32(acc[i][v], _mm256_madd_epi16(x, w[v]));
            }
        }
    }
    if let Some(store) = &mut tile.store {
        store::store!(finish256, acc, store, M, V);
        return;
    }
    for i in 0..M {
        for v in 0..V {
            store_i32x8(&mut sums[i * V + v], acc[i][v]);
        }
    }
}

#[target_feature(enable = "avx2")]
fn peak(iterations: u64) -> i32 {
    let x = _mm256_set1_epi32(core::hint::black_box(0x0001_0002));
    let mut acc = [x; PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            // Fed back, so that no product can be computed once and reused.
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(*acc, x));
        }
    }
    let mut sum = acc[0];
    for acc in &acc[1..] {
        sum = _mm256_add_epi32(sum, *acc);
    }
    let mut lanes = [0; 8];
    store_i32x8(&mut lanes, sum);
    lanes.iter().fold(0, |sum: i32, lane| sum.wrapping_add(*lane))
}
