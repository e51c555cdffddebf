//! AVX-512 VNNI: `vpdpbusd` adds four u8 x i8 products to each of sixteen int32 lanes, without saturation.
//!
//! The tile is 8 rows by 3 vectors: 24 accumulators, 3 vectors of weights and the broadcast of `a` stay in the 32
//! registers, and the 8 row pointers of `a` in general registers, so that `a` is read where it lies. One group of four k
//! is 11 loads for 24 products.

use core::arch::x86_64::*;

use super::finish512::{self, unrolled};
use super::simd::{
    load_i8x64, load_i32x16, store_byte_lanes, store_f32_lanes, store_i32_lanes, store_i32x16,
};
use crate::detect::Feature;
use crate::finish::{Store, Target};
use crate::kernel::{ActivationForm, KernelDesc, PeakLoop, Tile};
use crate::vectorize::Level;

/// Columns of a vector.
const LANES: usize = 16;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx512_vnni_8x48",
    family: "avx512_vnni",
    mr: 8,
    nr: 48,
    vector_columns: LANES,
    kr: 4,
    form: ActivationForm::U8,
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
    peak: PeakLoop { operations: 2 * 4 * (LANES * PEAK_CHAINS) as u64, run: peak },
};

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 24;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run(tile: &mut Tile<'_>) {
    match tile.columns / LANES {
        1 => rows::<1>(tile),
        2 => rows::<2>(tile),
        _ => rows::<3>(tile),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn rows<const V: usize>(tile: &mut Tile<'_>) {
    match tile.rows {
        1 => body::<1, V>(tile),
        2 => body::<2, V>(tile),
        3 => body::<3, V>(tile),
        4 => body::<4, V>(tile),
        5 => body::<5, V>(tile),
        6 => body::<6, V>(tile),
        7 => body::<7, V>(tile),
        _ => body::<8, V>(tile),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn body<const M: usize, const V: usize>(tile: &mut Tile<'_>) {
    let groups = tile.groups;
    // A loop, not `from_fn`: closures called from code without the target features are not inlined.
    let mut a: [&[[u8; 4]]; M] = [&[]; M];
    for (i, row) in a.iter_mut().enumerate() {
        *row = &tile.a[i * tile.a_stride..].as_chunks::<4>().0[..groups];
    }
    let mut acc = [[_mm512_setzero_si512(); V]; M];
    let (sums, _) = tile.acc.as_chunks_mut::<LANES>();
    let sums = &mut sums[..M * V];
    if tile.accumulate {
        for i in 0..M {
            for v in 0..V {
                acc[i][v] = load_i32x16(&sums[i * V + v]);
            }
        }
    }
    let (b, _) = tile.b.as_chunks::<{ 4 * LANES }>();
    for (g, b) in (0..groups).zip(b.chunks_exact(V)) {
        let mut w = [_mm512_setzero_si512(); V];
        for v in 0..V {
            w[v] = load_i8x64(&b[v]);
        }
        for i in 0..M {
            let x = _mm512_set1_epi32(i32::from_ne_bytes(a[i][g]));
            for v in 0..V {
                acc[i][v] = _mm512_dpbusd_epi32(acc[i][v], x, w[v]);
            }
        }
    }
    if let Some(store) = &mut tile.store {
        finish512::store!(acc, store, M, V);
        return;
    }
    for i in 0..M {
        for v in 0..V {
            store_i32x16(&mut sums[i * V + v], acc[i][v]);
        }
    }
}

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
