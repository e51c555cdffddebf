//! The bodies of the aarch64 kernels, written once for all of them: bands of `a` against a packed
//! panel, with the sums in registers.
//!
//! A group of a band's rows is one vector, whatever the kernel: 16 k of a row, 4 k of four rows or
//! 8 k of two. A kernel's file supplies the constants `BAND` and `VECTOR_WEIGHTS` (the weights for
//! the four columns of a vector of sums), the type `Sums` (the sums of a band and a vector of
//! columns, in the form in which the instruction adds to them), and the functions `no_sums`,
//! `load_weights`, `multiply_add` and `to_rows`.

/// `fn body<M, V, U>`, compiled for `$features`: tiles of M rows and V vectors of columns, U groups
/// of k at a time.
///
/// The sums are a function of their own. The compiler optimizes it once before it is inlined and
/// once after, and only then sees that no index is out of bounds. In one function, a compare and a
/// branch remain for each group.
macro_rules! tile_body {
    ($features:literal) => {
        // One call is for all tiles of a strip that have M rows. Inlined into their one caller, all
        // bodies of a kernel would be one function, over which the compiler takes far longer.
        #[inline(never)]
        #[target_feature(enable = $features)]
        fn body<const M: usize, const V: usize, const U: usize>(strip: &mut Strip<'_, '_>) {
            while let Some(mut tile) = strip.next_tile_of(M) {
                let mut acc = products::<M, V, U>((tile.a, tile.a_stride), tile.b, tile.groups);
                tile::end!(tile, acc, M, V);
            }
        }

        /// The products of bands, `a_stride` bytes apart, and a panel of `groups`.
        #[inline]
        #[target_feature(enable = $features)]
        fn products<const M: usize, const V: usize, const U: usize>(
            (a, a_stride): (&[u8], usize),
            b: &[i8],
            groups: usize,
        ) -> [[int32x4_t; V]; M] {
            const BANDS: usize = KERNEL.mr / BAND;
            let bytes: &[i8] = bytemuck::must_cast_slice(a);
            let (bands, steps) = (M.div_ceil(BAND), groups / U);
            // Loops, not `from_fn`: closures called from code without the target features are not
            // inlined.
            let mut a: [&[[i8; 16]]; BANDS] = [&[]; BANDS];
            let mut a_steps: [&[[[i8; 16]; U]]; BANDS] = [&[]; BANDS];
            for i in 0..bands {
                a[i] = &bytes[i * a_stride..].as_chunks::<16>().0[..groups];
                a_steps[i] = &a[i].as_chunks::<U>().0[..steps];
            }
            let mut partial = [[[no_sums(); V]; BANDS]; U];
            // This is as long as `a`, so one bounds check serves all.
            let b = &b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>().0[..groups];
            let b_steps = &b.as_chunks::<U>().0[..steps];
            for g in 0..steps {
                for u in 0..U {
                    for v in 0..V {
                        let w = load_weights(&b_steps[g][u][v]);
                        for i in 0..bands {
                            let x = load_i8x16(&a_steps[i][g][u]);
                            partial[u][i][v] = multiply_add(partial[u][i][v], 0..M - i * BAND, x, w);
                        }
                    }
                }
            }
            for g in steps * U..groups {
                for v in 0..V {
                    let w = load_weights(&b[g][v]);
                    for i in 0..bands {
                        let x = load_i8x16(&a[i][g]);
                        partial[0][i][v] = multiply_add(partial[0][i][v], 0..M - i * BAND, x, w);
                    }
                }
            }
            let mut acc = [[vec128::zero(); V]; M];
            for i in 0..bands {
                for v in 0..V {
                    let mut sums = partial[0][i][v];
                    for partial in &partial[1..] {
                        for s in 0..sums.len() {
                            sums[s] = vec128::add(sums[s], partial[i][v][s]);
                        }
                    }
                    let rows = to_rows(sums);
                    for r in 0..BAND {
                        if i * BAND + r < M {
                            acc[i * BAND + r][v] = rows[r];
                        }
                    }
                }
            }
            acc
        }
    };
}
pub(super) use tile_body;

/// `fn row_products<V>`: those of a row that lies as it is. For kernels whose bands have several
/// rows, one vector of it holds a group for each of several steps, as many as a band has rows. Step
/// u multiplies by part u of the vector and has sums of its own.
macro_rules! row_products {
    ($features:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn row_products<const V: usize>(a: &[u8], b: &[i8], groups: usize) -> [int32x4_t; V] {
            let a: &[i8] = bytemuck::must_cast_slice(&a[..groups * 16 / BAND]);
            let (a_steps, a_rest) = a.as_chunks::<16>();
            let b = &b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>().0[..groups];
            let (b_steps, b_rest) = b.as_chunks::<BAND>();
            let mut partial = [[no_sums(); V]; BAND];
            for (x, b) in a_steps.iter().zip(b_steps) {
                let x = load_i8x16(x);
                store::unrolled!(u in BAND, {
                    for v in 0..V {
                        let w = load_weights(&b[u][v]);
                        partial[u][v] = multiply_add(partial[u][v], u..u + 1, x, w);
                    }
                });
            }
            let mut last = [0; 16];
            last[..a_rest.len()].copy_from_slice(a_rest);
            let x = load_i8x16(&last);
            for u in 0..BAND {
                if let Some(b) = b_rest.get(u) {
                    for v in 0..V {
                        partial[u][v] = multiply_add(partial[u][v], u..u + 1, x, load_weights(&b[v]));
                    }
                }
            }
            let mut sums = [vec128::zero(); V];
            for u in 0..BAND {
                for v in 0..V {
                    sums[v] = vec128::add(sums[v], to_rows(partial[u][v])[u]);
                }
            }
            sums
        }
    };
}
pub(super) use row_products;

/// `fn single_row<V>`: tiles of one row.
macro_rules! single_row {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        fn single_row<const V: usize>(strip: &mut Strip<'_, '_>) {
            const M: usize = 1;
            while let Some(mut tile) = strip.next_tile_of(M) {
                let mut acc = [row_products::<V>(tile.a, tile.b, tile.groups)];
                tile::end!(tile, acc, M, V);
            }
        }
    };
}
pub(super) use single_row;

/// Adds the initial values to the sums of a tile, `$M` rows of `$V` vectors, and stores the result.
macro_rules! end {
    ($tile:ident, $acc:ident, $M:ident, $V:ident) => {
        let (sums, _) = $tile.acc.as_chunks_mut::<{ vec128::LANES }>();
        let sums = &mut sums[..$M * $V];
        if let Some(offsets) = $tile.offsets {
            let offsets = vec128::load_i32s::<$V>(offsets);
            for i in 0..$M {
                for v in 0..$V {
                    $acc[i][v] = vec128::add($acc[i][v], offsets[v]);
                }
            }
        } else {
            for i in 0..$M {
                for v in 0..$V {
                    $acc[i][v] = vec128::add($acc[i][v], vec128::load_sums(&sums[i * $V + v]));
                }
            }
        }
        if let Some(store) = &mut $tile.store {
            store::store!(vec128, $acc, store, $tile.acc, $tile.first, $M, $V);
        } else {
            for i in 0..$M {
                for v in 0..$V {
                    vec128::store_sums(&mut sums[i * $V + v], $acc[i][v]);
                }
            }
        }
    };
}
pub(super) use end;
