//! AVX2 for panels of proven weights. `vpmaddubsw` adds two u8 x i8 products in 16 bits, with
//! saturation that never occurs.
//!
//! Its sums must still be widened, by `vpmaddwd` with ones, which uses the same units. So one group
//! at a time costs as many multiplications as `avx2_madd`, and gains only what that kernel spends
//! on extending weights. Where the proof covers D groups, their sums are added in 16 bits first and
//! widened once. These are the instructions for 4 D consecutive k and each vector of columns:
//!
//! | | multiply | add | extend |
//! |---|---|---|---|
//! | `avx2_madd` | 2 D | 2 D | 2 D / 6 |
//! | here | D + 1 | D | |
//!
//! D = 8 would save a tenth of what D = 4 leaves. But it is proven for few weights and has more in
//! hand than 16 registers hold, and it was slower. The tile is that of `avx2_madd`: 12 accumulators
//! leave 4 registers, so with D = 4 some of the weights wait on the stack. That is 24 accesses in a
//! loop of 176 instructions, which the multiplications hide. With D = 1 they would not, so its
//! instructions are written out (`maddubs_madd_add`).

use core::arch::x86_64::*;

use super::super::avx2_madd::broadcast;
use super::super::simd::{load_i8x32, maddubs_madd_add, prefetch_vector, sum_of_lanes};
use super::super::strip::bodies;
use super::super::tile::{self, rows_apart};
use super::super::{avx2_madd, float256, store, vec256};
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind, PeakLoop};
use crate::kernel::strip::Strip;
use crate::output::store::Store;
use crate::output::target::Target;

/// Columns of a vector.
const LANES: usize = vec256::LANES;

/// Weights of a vector: four k of each column.
const VECTOR_WEIGHTS: usize = 4 * LANES;

/// The kernel for a proof of one group, which is all that `vpmaddubsw` alone needs.
const KERNEL: KernelDesc = KernelDesc {
    name: "avx2_maddubs1_6x16",
    family: "avx2_maddubs1",
    kr: 4,
    kind: PanelKind::Proven,
    narrow_groups: 1,
    proven: &[],
    ordered: None,
    form: ActivationForm::U8,
    signed_rows: false,
    run: run::<1>,
    float: Some(float256::QUADS),
    scaled: None,
    nibbles: None,
    peak: peak_loop::<1>(),
    ..avx2_madd::KERNEL
};

/// The kernels by the number of groups that they sum in 16 bits, fastest first.
pub(super) const KERNELS: &[&KernelDesc] = &[
    &KernelDesc {
        name: "avx2_maddubs4_6x16",
        family: "avx2_maddubs4",
        narrow_groups: 4,
        run: run::<4>,
        peak: peak_loop::<4>(),
        ..KERNEL
    },
    &KernelDesc {
        name: "avx2_maddubs2_6x16",
        family: "avx2_maddubs2",
        narrow_groups: 2,
        run: run::<2>,
        peak: peak_loop::<2>(),
        ..KERNEL
    },
    &KERNEL,
];

#[target_feature(enable = "avx2")]
fn run<const D: usize>(strip: &mut Strip<'_, '_>) {
    while strip.next_rows() > 0 {
        match strip.columns / LANES {
            1 => bodies!(strip, 1, D, 1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1),
            _ => bodies!(strip, 2, D, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1),
        }
    }
}

/// Tiles of M rows and V vectors of columns, U times D groups of k at a time.
#[inline(never)] // as in `tile_body`
#[target_feature(enable = "avx2")]
fn body<const M: usize, const V: usize, const U: usize, const D: usize>(strip: &mut Strip<'_, '_>) {
    while let Some(mut tile) = strip.next_tile_of(M) {
        let groups = tile.groups;
        let (b, _) = tile.b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>();
        let steps = groups / (U * D);
        let b_steps = &b.as_chunks::<D>().0.as_chunks::<U>().0[..steps];
        // Loops, not `from_fn`: closures called from code without the target features are not
        // inlined.
        let mut a: [&[[u8; 4]]; M] = [&[]; M];
        let mut a_steps: [&[[[[u8; 4]; D]; U]]; M] = [&[]; M];
        let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * groups);
        for i in 0..M {
            a[i] = rows[i].as_chunks::<4>().0;
            a_steps[i] = &a[i].as_chunks::<D>().0.as_chunks::<U>().0[..steps];
        }
        let mut partial = tile::first_sums!(vec256, tile, M, V, U);
        for g in 0..steps {
            for u in 0..U {
                for (at, weights) in b_steps[g][u].as_flattened().iter().enumerate() {
                    if M >= 3 {
                        prefetch_vector(weights, u * D * V + at);
                    }
                }
                for i in 0..M {
                    partial[u][i] = add_products(partial[u][i], &a_steps[i][g][u], &b_steps[g][u]);
                }
            }
        }
        // What is proven for D groups holds for each of them.
        for g in steps * U * D..groups {
            for i in 0..M {
                partial[0][i] = add_products(partial[0][i], &[a[i][g]], &[b[g]]);
            }
        }
        tile::last_sums!(vec256, tile, partial, M, V);
    }
}

/// Adds the products of D groups to the sums of a row.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products<const V: usize, const D: usize>(
    mut sums: [__m256i; V],
    a: &[[u8; 4]; D],
    b: &[[[i8; VECTOR_WEIGHTS]; V]; D],
) -> [__m256i; V] {
    if D == 1 {
        let (x, ones) = (broadcast(a[0]), _mm256_set1_epi16(1));
        for v in 0..V {
            sums[v] = maddubs_madd_add(sums[v], x, &b[0][v], ones);
        }
        return sums;
    }
    let mut words = [_mm256_setzero_si256(); V];
    for d in 0..D {
        let x = broadcast(a[d]);
        for v in 0..V {
            let products = _mm256_maddubs_epi16(x, load_i8x32(&b[d][v]));
            words[v] = if d == 0 { products } else { _mm256_add_epi16(words[v], products) };
        }
    }
    for v in 0..V {
        sums[v] = widen_add(sums[v], words[v]);
    }
    sums
}

/// Adds neighbouring words to int32 sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen_add(sums: __m256i, words: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(words, _mm256_set1_epi16(1)))
}

/// Independent accumulators of the peak loop, as many as the tile has.
const PEAK_CHAINS: usize = 12;

pub(super) const fn peak_loop<const D: usize>() -> PeakLoop {
    PeakLoop { operations: 2 * (4 * D * LANES * PEAK_CHAINS) as u64, run: peak::<D> }
}

#[target_feature(enable = "avx2")]
fn peak<const D: usize>(iterations: u64) -> i32 {
    let x = _mm256_set1_epi32(core::hint::black_box(0x0102_0304));
    let mut acc = [x; PEAK_CHAINS];
    for _ in 0..iterations {
        for acc in &mut acc {
            // The sums are fed back, so no product can be computed once and reused.
            let mut words = _mm256_maddubs_epi16(x, *acc);
            for _ in 1..D {
                words = _mm256_add_epi16(words, _mm256_maddubs_epi16(x, words));
            }
            *acc = widen_add(*acc, words);
        }
    }
    sum_of_lanes(&acc)
}
