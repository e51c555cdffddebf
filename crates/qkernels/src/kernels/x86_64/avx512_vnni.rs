//! AVX-512 VNNI: `vpdpbusd` adds four u8 x i8 products to each of sixteen int32 lanes, without saturation.
//!
//! The tile is 8 rows by 3 vectors: 24 accumulators, 3 vectors of weights and the broadcast of `a` stay in the 32
//! registers, and the 8 row pointers of `a` in general registers, so that `a` is read where it lies. One group of four k
//! is 11 loads for 24 products.

use core::arch::x86_64::*;

use super::finish512;
use super::simd::{load_i8x64, load_i32x16, store_i32x16};
use super::store::{self, unrolled};
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

/// Calls the body for the tile's rows and `$V` vectors of columns. `$U` groups of k go to sums of their own, so that small
/// tiles, too, have enough independent sums to hide the latency of the products.
macro_rules! bodies {
    ($tile:ident, $V:literal, $($M:literal: $U:literal),*) => {
        match $tile.rows {
            $($M => body::<$M, $V, $U>($tile),)*
            rows => unreachable!("{rows} rows in a tile of at most {}", KERNEL.mr),
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run(tile: &mut Tile<'_>) {
    match tile.columns / LANES {
        1 => bodies!(tile, 1, 1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2, 7: 2, 8: 1),
        2 => bodies!(tile, 2, 1: 4, 2: 4, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
        _ => bodies!(tile, 3, 1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn body<const M: usize, const V: usize, const U: usize>(tile: &mut Tile<'_>) {
    let groups = tile.groups;
    // Loops, not `from_fn`: closures called from code without the target features are not inlined.
    let mut a: [&[[u8; 4]]; M] = [&[]; M];
    let mut a_steps: [&[[[u8; 4]; U]]; M] = [&[]; M];
    let steps = groups / U;
    for i in 0..M {
        a[i] = &tile.a[i * tile.a_stride..].as_chunks::<4>().0[..groups];
        a_steps[i] = &a[i].as_chunks::<U>().0[..steps];
    }
    let (sums, _) = tile.acc.as_chunks_mut::<LANES>();
    let sums = &mut sums[..M * V];
    let mut partial = [[[_mm512_setzero_si512(); V]; M]; U];
    if tile.accumulate {
        for i in 0..M {
            for v in 0..V {
                partial[0][i][v] = load_i32x16(&sums[i * V + v]);
            }
        }
    }
    let (b, _) = tile.b.as_chunks::<{ 4 * LANES }>();
    let b_steps = b.chunks_exact(V * U);
    let b_rest = b_steps.remainder();
    for (g, b) in (0..steps).zip(b_steps) {
        for u in 0..U {
            let mut w = [_mm512_setzero_si512(); V];
            for v in 0..V {
                w[v] = load_i8x64(&b[u * V + v]);
            }
            for i in 0..M {
                let x = _mm512_set1_epi32(i32::from_ne_bytes(a_steps[i][g][u]));
                for v in 0..V {
                    partial[u][i][v] = _mm512_dpbusd_epi32(partial[u][i][v], x, w[v]);
                }
            }
        }
    }
    for (g, b) in (steps * U..groups).zip(b_rest.chunks_exact(V)) {
        for i in 0..M {
            let x = _mm512_set1_epi32(i32::from_ne_bytes(a[i][g]));
            for v in 0..V {
                partial[0][i][v] = _mm512_dpbusd_epi32(partial[0][i][v], x, load_i8x64(&b[v]));
            }
        }
    }
    let mut acc = partial[0];
    for partial in &partial[1..] {
        for i in 0..M {
            for v in 0..V {
                acc[i][v] = _mm512_add_epi32(acc[i][v], partial[i][v]);
            }
        }
    }
    if let Some(store) = &mut tile.store {
        store::store!(finish512, acc, store, M, V);
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
