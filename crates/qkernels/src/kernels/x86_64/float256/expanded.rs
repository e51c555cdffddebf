//! Many rows: a panel is expanded to f32 once for all of them, and tiles of it are products of
//! floats alone, with the sums of the body for few rows in the same order.
//!
//! That body has four sums for each row and column, one for each k of four, which fill its
//! registers after three rows and one vector of columns. Here the k of each such chain lie behind
//! each other, and a tile is multiplied chain by chain: its registers are the sums of six rows and
//! two vectors, so a step needs eight loads for twelve multiply-adds, and no conversion. The sums
//! of other chains wait in L1 meanwhile.
//!
//! ```text
//! chains   k0 k4 k8 .. | k2 k6 k10 .. | k1 k5 k9 .. | k3 k7 k11 ..     (for panels of pairs)
//! ```

use core::arch::x86_64::*;
use core::ops::Range;

use super::lanes::{LANES, QUARTERS, load, store, sum_of_four};
use crate::kernel::desc::FloatExpanded;
use crate::kernel::float_tile::{Expansion, FloatTile};
use crate::kernels::x86_64::tile::rows_apart;
use crate::kernels::x86_64::{simd, tile};

/// For panels of two k.
pub(super) const PAIRS: FloatExpanded = FloatExpanded { expand: expand::<2>, run: run::<2>, ..BODY };

/// For panels of four k.
pub(super) const QUADS: FloatExpanded = FloatExpanded { expand: expand::<4>, run: run::<4>, ..BODY };

/// What both have. An expansion costs as much as four rows, and pays (Zen 4) where the body for few
/// rows has lost that.
const BODY: FloatExpanded = FloatExpanded {
    from_rows: 32,
    affine_from_rows: 12,
    rows: ROWS,
    scratch: SCRATCH,
    expand: expand::<4>,
    run: run::<4>,
};

const ROWS: usize = 6;

/// What the sums of all chains of a chunk take in L1.
const SCRATCH: usize = QUARTERS * MOST_GROUPS * ROWS * STRIP * LANES;

/// The chains of a column, in the order in which they are multiplied: the first two are added, the
/// last two, and these sums.
const fn order(kr: usize) -> [usize; QUARTERS] {
    if kr == 2 { [0, 2, 1, 3] } else { [0, 1, 2, 3] }
}

/// The most k whose chains are multiplied between two trips of their sums through L1. The
/// activations of a tile, which each chain reads, stay in L1, too.
const CHUNK: usize = 512;

/// The most k of several groups whose sums are in L1 together.
const SHORT_GROUPS: usize = 128;

/// Vectors of columns that a tile has side by side. A panel is expanded in strips of so many.
const STRIP: usize = 2;

/// The most groups of a chunk.
const MOST_GROUPS: usize = SHORT_GROUPS / 16;

/// `depth` k in chunks, where groups of scales have `scale_depth` each.
fn chunks(depth: usize, scale_depth: usize) -> impl Iterator<Item = Chunk> {
    let most = (SHORT_GROUPS / scale_depth.max(1)).min(MOST_GROUPS);
    let mut next = Chunk { group: 0, groups: 0, k: 0..0, first: true, last: true };
    core::iter::from_fn(move || {
        let start = next.k.end;
        if start >= depth {
            return None;
        }
        let group = next.group + next.groups;
        let group_start = group * scale_depth;
        let group_end = depth.min(group_start.saturating_add(scale_depth));
        // Few groups that are left at the end come one by one.
        let (groups, end) = if most > 1 && most * scale_depth <= depth - start {
            (most, start + most * scale_depth)
        } else {
            (1, group_end.min(start + CHUNK))
        };
        let last = end >= group_end;
        next = Chunk {
            group,
            groups: if last { groups } else { 0 },
            k: start..end,
            first: start == group_start,
            last,
        };
        Some(Chunk { groups, ..next.clone() })
    })
}

/// Consecutive k: part of a group of scales, or whole groups. It begins at a multiple of four k.
#[derive(Clone)]
struct Chunk {
    /// The first group.
    group: usize,
    groups: usize,
    k: Range<usize>,
    /// Whether a group begins with it.
    first: bool,
    /// Whether a group ends with it.
    last: bool,
}

impl Chunk {
    /// The k of chain `t`, which are four apart.
    fn steps(&self, t: usize) -> usize {
        (self.k.len() + 3 - t) / QUARTERS
    }
}

/// `KR` consecutive k of a column lie side by side in the panel of bytes.
#[target_feature(enable = "avx2,fma")]
fn expand<const KR: usize>(expansion: &mut Expansion<'_>) {
    let Expansion { b, columns, depth, scale_depth, zero_points, nr, .. } = *expansion;
    let width = columns / LANES;
    let vectors = b.as_chunks::<LANES>().0.as_chunks::<KR>().0;
    let mut to = expansion.to.as_chunks_mut::<LANES>().0;
    for first in (0..width).step_by(STRIP) {
        let strip = STRIP.min(width - first);
        for chunk in chunks(depth, scale_depth) {
            let mut chains: [&mut [[f32; LANES]]; QUARTERS] = Default::default();
            for t in order(KR) {
                (chains[t], to) = to.split_at_mut(chunk.steps(t) * strip);
            }
            for v in 0..strip {
                let mut start = chunk.k.start;
                for group in chunk.group..chunk.group + chunk.groups {
                    let of_group = zero_points.get(group * nr..).map(|codes| codes.as_chunks().0);
                    let zero_point = match of_group.and_then(|codes| codes.get(first + v)) {
                        Some(codes) => simd::load_i8x8_as_i32(codes),
                        None => _mm256_setzero_si256(),
                    };
                    let end = chunk.k.end.min(start.saturating_add(scale_depth));
                    for four in (start..end).step_by(QUARTERS) {
                        let at = (four - chunk.k.start) / QUARTERS * strip + v;
                        for u in 0..QUARTERS / KR {
                            let k = four + u * KR;
                            if k == end {
                                break;
                            }
                            let codes = columns_of::<KR>(&vectors[k / KR * width + first + v]);
                            for h in 0..KR {
                                let w = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes[h], zero_point));
                                store(&mut chains[u * KR + h][at], w);
                            }
                        }
                    }
                    start = end;
                }
            }
        }
    }
}

/// The codes of eight columns, for each of `KR` k.
#[inline]
#[target_feature(enable = "avx2")]
fn columns_of<const KR: usize>(bytes: &[[i8; LANES]; KR]) -> [__m256i; KR] {
    const { assert!(KR == 2 || KR == 4) }
    let bytes = bytes.as_flattened();
    let mut codes = [_mm256_setzero_si256(); KR];
    if let Some(pairs) = bytes.first_chunk().filter(|_| KR == 2) {
        let pairs = simd::load_u16x8_as_i32(&bytemuck::must_cast::<[i8; 16], _>(*pairs));
        codes[0] = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(pairs));
        codes[1] = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<16>(pairs));
    } else if let Some(quads) = bytes.first_chunk() {
        let quads = simd::load_i8x32(quads);
        codes[0] = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(quads));
        codes[1] = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<16>(quads));
        codes[KR - 2] = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<8>(quads));
        codes[KR - 1] = _mm256_srai_epi32::<24>(quads);
    }
    codes
}

#[target_feature(enable = "avx2,fma")]
fn run<const KR: usize>(tile: &mut FloatTile<'_>) {
    match tile.rows {
        1 => columns::<KR, 1>(tile),
        2 => columns::<KR, 2>(tile),
        3 => columns::<KR, 3>(tile),
        4 => columns::<KR, 4>(tile),
        5 => columns::<KR, 5>(tile),
        _ => columns::<KR, ROWS>(tile),
    }
}

/// All columns of a tile, strip by strip, of which the last one may be narrow.
#[target_feature(enable = "avx2,fma")]
fn columns<const KR: usize, const M: usize>(tile: &mut FloatTile<'_>) {
    let (width, depth) = (tile.columns / LANES, tile.groups * tile.kr);
    for first in (0..width).step_by(STRIP) {
        let floats = &tile.floats[first * LANES * depth..];
        if width - first >= STRIP {
            body::<M, STRIP>(tile, floats, order(KR), first);
        } else {
            body::<M, 1>(tile, floats, order(KR), first);
        }
    }
}

/// M rows, and the strip of V vectors of columns from vector `first` on.
#[target_feature(enable = "avx2,fma")]
fn body<const M: usize, const V: usize>(
    tile: &mut FloatTile<'_>,
    floats: &[f32],
    order: [usize; QUARTERS],
    first: usize,
) {
    let depth = tile.groups * tile.kr;
    let mut strip = floats.as_chunks::<LANES>().0.as_chunks::<V>().0;
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    let waiting = tile.scratch.as_chunks_mut::<LANES>().0.as_chunks_mut::<V>().0.as_chunks_mut::<M>().0;
    for chunk in chunks(depth, tile.scale_groups.saturating_mul(tile.kr)) {
        let of_group = if chunk.groups > 1 { tile.scale_groups * tile.kr / QUARTERS } else { chunk.k.len() };
        for (t, chain) in order.into_iter().zip(waiting.as_chunks_mut::<MOST_GROUPS>().0) {
            let (b, rest) = strip.split_at(chunk.steps(t));
            strip = rest;
            let a = &tile.a[chunk.k.start + t..];
            multiply(&mut chain[..chunk.groups], (a, tile.a_stride), b, of_group, chunk.first);
        }
        if !chunk.last {
            continue;
        }
        let mut chains: [&[Sums<M, V>]; QUARTERS] = [&[]; QUARTERS];
        for (chain, sums) in chains.iter_mut().zip(waiting.as_chunks::<MOST_GROUPS>().0) {
            *chain = sums;
        }
        let scales = &tile.scales[chunk.group * tile.nr..];
        for q in 0..chunk.groups {
            tile::add_group!(_mm256_fmadd_ps, sums, scales[q * tile.nr..], first, |i, v| {
                sum_of_four([
                    load(&chains[0][q][i][v]),
                    load(&chains[1][q][i][v]),
                    load(&chains[2][q][i][v]),
                    load(&chains[3][q][i][v]),
                ])
            });
        }
    }
    tile::store_sums!(tile, first, sums);
}

/// The sums of a tile's rows and of a strip's columns, as they wait in L1.
type Sums<const M: usize, const V: usize> = [[[f32; LANES]; V]; M];

/// Adds the products of a chain: of activations four apart, and a strip's weights for each. Each of
/// `groups` takes `steps` of them, and begins with zeros if it is `fresh`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn multiply<const M: usize, const V: usize>(
    groups: &mut [Sums<M, V>],
    (a, stride): (&[f32], usize),
    b: &[[[f32; LANES]; V]],
    steps: usize,
    fresh: bool,
) {
    let total = b.len();
    let bytes = rows_apart::<M>(
        bytemuck::must_cast_slice(a),
        stride * size_of::<f32>(),
        size_of::<[f32; QUARTERS]>() * total,
    );
    let mut rows: [&[[[u8; 4]; QUARTERS]]; M] = [&[]; M];
    for i in 0..M {
        rows[i] = &bytes[i].as_chunks().0.as_chunks().0[..total];
    }
    let mut start = 0;
    for sums in groups {
        let mut acc = [[_mm256_setzero_ps(); V]; M];
        if !fresh {
            for i in 0..M {
                for v in 0..V {
                    acc[i][v] = load(&sums[i][v]);
                }
            }
        }
        let end = total.min(start + steps);
        for step in start..end {
            let mut w = [_mm256_setzero_ps(); V];
            for v in 0..V {
                w[v] = load(&b[step][v]);
            }
            for i in 0..M {
                let x = _mm256_set1_ps(f32::from_ne_bytes(rows[i][step][0]));
                for v in 0..V {
                    acc[i][v] = _mm256_fmadd_ps(x, w[v], acc[i][v]);
                }
            }
        }
        for i in 0..M {
            for v in 0..V {
                store(&mut sums[i][v], acc[i][v]);
            }
        }
        start = end;
    }
}
