//! The body of the x86-64 kernels, written once for all of them: rows of `a` against a packed
//! panel, with the sums in registers.
//!
//! A kernel's file supplies the constants `LANES` and `VECTOR_WEIGHTS` and the functions
//! `load_weights`, `broadcast` and `multiply_add`. `vec256` or `vec512` supplies the functions of
//! its vector width.

use core::arch::asm;
use core::marker::PhantomData;

pub(super) use super::simd::prefetch_vector;
use crate::kernel::nibble_tile::{NIBBLE_STEP, NibbleTile};

/// The most rows whose addresses each get a register.
const MOST_ADDRESSES: usize = 6;

/// The same address, of which the compiler knows nothing. It would keep one row's address and
/// derive the others from it in each step, by a chain of additions: 41 instructions instead of 36
/// for 6 rows and 2 vectors. ([`core::hint::black_box`] goes through memory, which small tiles
/// feel.)
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written through it")]
fn opaque(address: *const u8) -> *const u8 {
    if cfg!(miri) {
        return address;
    }
    let mut address = address;
    // SAFETY: no instruction is executed.
    unsafe {
        asm!("/* {} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}

/// M rows of `len` bytes, `stride` apart, the first at the start of `bytes`. All of them are
/// checked at once, which counts because a tile has few products.
#[inline(always)]
pub(super) fn rows_apart<const M: usize>(bytes: &[u8], stride: usize, len: usize) -> [&[u8]; M] {
    let end = stride.checked_mul(M - 1).and_then(|last| last.checked_add(len));
    let Some(bytes) = end.and_then(|end| bytes.get(..end)) else {
        unreachable!("{M} rows of {len} bytes, {stride} apart, in {}", bytes.len())
    };
    let mut rows: [&[u8]; M] = [&[]; M];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: i < M, so the slice above ends `len` bytes or more behind this start.
        let start = unsafe { bytes.as_ptr().add(i * stride) };
        let start = if M <= MOST_ADDRESSES { opaque(start) } else { start };
        // SAFETY: as above, and the result borrows `bytes`.
        *row = unsafe { core::slice::from_raw_parts(start, len) };
    }
    rows
}

/// M rows of as many bytes, from which blocks of N bytes are read.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'t, const M: usize, const N: usize> {
    start: *const u8,
    stride: usize,
    /// The last place in a row where a block begins.
    last: usize,
    rows: PhantomData<&'t [u8]>,
}

impl<'t, const M: usize, const N: usize> Blocks<'t, M, N> {
    /// Of M rows of `len` bytes, at least N, `stride` apart, the first at the start of `bytes`.
    #[inline(always)]
    pub(super) fn new(bytes: &'t [u8], stride: usize, len: usize) -> Self {
        let start = rows_apart::<M>(bytes, stride, len)[0].as_ptr();
        let Some(last) = len.checked_sub(N) else { unreachable!("rows of {len} bytes have no block of {N}") };
        Self { start, stride, last, rows: PhantomData }
    }

    /// The block of each row that begins at its byte `at`. All rows are checked at once.
    #[inline(always)]
    pub(super) fn at(&self, at: usize) -> [&'t [u8; N]; M] {
        assert!(at <= self.last, "a block that begins at {at}, behind {}", self.last);
        let mut blocks = [&[0; N]; M];
        for (i, block) in blocks.iter_mut().enumerate() {
            // SAFETY: `new` had M rows of `last + N` bytes, `stride` apart, and i < M.
            let start = unsafe { self.start.add(i * self.stride + at) };
            // SAFETY: as above, for the lifetime of the result.
            *block = unsafe { &*start.cast() };
        }
        blocks
    }
}

/// The first M rows of a tile of 4-bit weights, as steps of four bytes for the low halves of a line
/// and four for the high ones.
#[inline(always)]
pub(super) fn rows_of_steps<'t, const M: usize>(tile: &NibbleTile<'t>) -> [&'t [[[u8; 4]; 2]]; M] {
    let rows = rows_apart::<M>(tile.a, tile.a_stride, NIBBLE_STEP * tile.b.len());
    let mut steps: [&[[[u8; 4]; 2]]; M] = [&[]; M];
    for (steps, row) in steps.iter_mut().zip(rows) {
        *steps = row.as_chunks::<4>().0.as_chunks::<2>().0;
    }
    steps
}

/// Values that wait in memory for each other. They begin with a line of the cache, so no vector
/// lies across two, which the alignment of the stack alone leaves to chance: 3 % of the time of 4
/// bits in groups of 32 on AVX2, 10 % and more of minimums on AVX-512 (AMD Zen 4).
#[repr(align(64))]
pub(super) struct Lines<T>(pub(super) T);

/// `$U` sets of the sums of `$M` rows of `$V` vectors. One set has the initial values of the tile's
/// sums, the others are zeros.
macro_rules! first_sums {
    ($isa:ident, $tile:ident, $M:ident, $V:ident, $U:ident) => {{
        let mut partial = [[[$isa::zero(); $V]; $M]; $U];
        if let Some(offsets) = $tile.offsets {
            let offsets = $isa::load_i32s::<$V>(offsets);
            for i in 0..$M {
                partial[0][i] = offsets;
            }
        } else {
            let sums = &$tile.acc.as_chunks::<LANES>().0[..$M * $V];
            for i in 0..$M {
                for v in 0..$V {
                    partial[0][i][v] = $isa::load_sums(&sums[i * $V + v]);
                }
            }
        }
        partial
    }};
}
pub(super) use first_sums;

/// Adds up the partial sums and stores them, through the output stage or for the next block of k.
macro_rules! last_sums {
    ($isa:ident, $tile:ident, $partial:ident, $M:ident, $V:ident) => {
        let mut acc = $partial[0];
        for partial in &$partial[1..] {
            for i in 0..$M {
                for v in 0..$V {
                    acc[i][v] = $isa::add(acc[i][v], partial[i][v]);
                }
            }
        }
        if let Some(store) = &mut $tile.store {
            store::store!($isa, acc, store, $tile.acc, $tile.first, $M, $V);
        } else {
            let sums = &mut $tile.acc.as_chunks_mut::<LANES>().0[..$M * $V];
            for i in 0..$M {
                for v in 0..$V {
                    $isa::store_sums(&mut sums[i * $V + v], acc[i][v]);
                }
            }
        }
    };
}
pub(super) use last_sums;

/// `fn body<M, V, U>`, compiled for `$features` with vectors of module `$isa`: tiles of M rows and
/// V vectors of columns, U groups of k at a time. For `$least` rows and more, weights are requested
/// ahead of their multiplication.
macro_rules! tile_body {
    ($features:literal, $isa:ident, ahead from $least:literal) => {
        // One call is for all tiles of a strip that have M rows. Inlined into their one caller, all
        // bodies of a kernel would be one function, over which the compiler takes far longer.
        #[inline(never)]
        #[target_feature(enable = $features)]
        fn body<const M: usize, const V: usize, const U: usize>(strip: &mut Strip<'_, '_>) {
            while let Some(mut tile) = strip.next_tile_of(M) {
                let groups = tile.groups;
                // Loops, not `from_fn`: closures called from code without the target features are
                // not inlined.
                let mut a: [&[[u8; 4]]; M] = [&[]; M];
                let mut a_steps: [&[[[u8; 4]; U]]; M] = [&[]; M];
                let steps = groups / U;
                let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * groups);
                for i in 0..M {
                    a[i] = rows[i].as_chunks::<4>().0;
                    a_steps[i] = &a[i].as_chunks::<U>().0[..steps];
                }
                let mut partial = tile::first_sums!($isa, tile, M, V, U);
                let (b, _) = tile.b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>();
                let b_steps = &b.as_chunks::<U>().0[..steps];
                for g in 0..steps {
                    for u in 0..U {
                        let mut w = [$isa::zero(); V];
                        for v in 0..V {
                            if M >= $least {
                                tile::prefetch_vector(&b_steps[g][u][v], u * V + v);
                            }
                            w[v] = load_weights(&b_steps[g][u][v]);
                        }
                        for i in 0..M {
                            let x = broadcast(a_steps[i][g][u]);
                            for v in 0..V {
                                partial[u][i][v] = multiply_add(partial[u][i][v], x, w[v]);
                            }
                        }
                    }
                }
                for g in steps * U..groups {
                    for i in 0..M {
                        let x = broadcast(a[i][g]);
                        for v in 0..V {
                            partial[0][i][v] = multiply_add(partial[0][i][v], x, load_weights(&b[g][v]));
                        }
                    }
                }
                tile::last_sums!($isa, tile, partial, M, V);
            }
        }
    };
}
pub(super) use tile_body;

/// For bodies of weight-only products, whose files supply the constant `LANES` and the functions
/// `load` and `store` of their vectors: adds `$sum`, which a group has in row `$i` and vector `$v`
/// of columns, times the scales of these columns, to the `$sums` of the groups before it. The first
/// column of `$scales` is that of vector `$first`.
macro_rules! add_group {
    ($fmadd:ident, $sums:ident, $scales:expr, $first:expr, |$i:ident, $v:ident| $sum:expr) => {
        let scales = $scales.as_chunks::<LANES>().0;
        for $v in 0..V {
            let scale = load(&scales[$first + $v]);
            for $i in 0..M {
                $sums[$i][$v] = $fmadd($sum, scale, $sums[$i][$v]);
            }
        }
    };
}
pub(super) use add_group;

/// For the same bodies: stores the sums of M rows and V vectors of columns, from vector `$first`
/// on.
macro_rules! store_sums {
    ($tile:ident, $first:expr, $sums:ident) => {
        for i in 0..M {
            let to = $tile.sums[i * $tile.columns..].as_chunks_mut::<LANES>().0;
            for v in 0..V {
                store(&mut to[$first + v], $sums[i][v]);
            }
        }
    };
}
pub(super) use store_sums;
