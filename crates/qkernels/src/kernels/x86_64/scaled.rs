//! The body of products with a scale for each group of k, written once for all x86-64 kernels whose
//! rows hold codes as they are.
//!
//! The sums of a group are in registers. At its end they become floats, are scaled by row and
//! column, and added to the tile's results, which lie in L1. For groups of 32 that takes 6
//! instructions beside 16 of `vpmaddwd`, and as many additions, for each vector. Weights with
//! minimums or parts have a body of their own, whose sums of groups are in L1.

/// How many bytes ahead of the multiplication the weights of a single row are requested: they come
/// from memory, and this takes a tenth off the time.
pub(super) const AHEAD: usize = 1 << 10;

/// `fn run_scaled`, compiled for `$features` with vectors of module `$isa`, for each number of
/// vectors `$V` and each number of rows `$M`. The kernel's file supplies what `tile_body!` asks
/// for.
macro_rules! scaled_body {
    ($features:literal, $isa:ident, $($V:literal: $($M:literal)+),+) => {
        #[target_feature(enable = $features)]
        fn run_scaled(tile: &mut ScaledTile<'_>) {
            let in_parts = !tile.minimums.is_empty() || !tile.part_scales.is_empty();
            match (tile.columns / LANES, tile.factors.len()) {
                $($(($V, $M) if in_parts => scaled_parts::<$M, $V>(tile),)+)+
                $($(($V, $M) => scaled::<$M, $V>(tile),)+)+
                (vectors, rows) => unreachable!("no tile has {rows} rows and {vectors} vectors"),
            }
        }

        /// M rows, V vectors of columns.
        #[inline(never)] // as in `tile_body`
        #[target_feature(enable = $features)]
        fn scaled<const M: usize, const V: usize>(tile: &mut ScaledTile<'_>) {
            let steps = tile.steps;
            let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * steps);
            // Two steps at a time, which saves a twelfth of the instructions.
            let mut a: [&[[u8; 4]]; M] = [&[]; M];
            let mut a_pairs: [&[[[u8; 4]; 2]]; M] = [&[]; M];
            for i in 0..M {
                a[i] = rows[i].as_chunks::<4>().0;
                a_pairs[i] = &a[i].as_chunks::<2>().0[..steps / 2];
            }
            let b = &tile.b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>().0[..steps];
            let b_pairs = &b.as_chunks::<2>().0[..steps / 2];
            let mut factors = [0.0; M];
            factors.copy_from_slice(&tile.factors[..M]);
            // What a form adds is the same for all rows, and so is the only zero point there is.
            let origins = tile.origins;
            let same_origins = origins[..M].iter().all(|&origin| origin == origins[0]);
            // Results wait here, where the compiler knows that nothing else lies. Adding -0.0
            // changes nothing.
            let mut y = [[[-0.0f32; LANES]; V]; M];
            let (mut start, mut scales, mut first_term) = (0, tile.scales, 0);
            while start < steps {
                let end = steps.min(start + tile.group_steps);
                let mut acc = [[$isa::zero(); V]; M];
                if let Some(terms) = tile.column_terms.get(first_term..first_term + V * LANES) {
                    let terms = $isa::load_i32s::<V>(terms);
                    let mut first = [$isa::zero(); V];
                    for v in 0..V {
                        first[v] = $isa::subtract_product($isa::zero(), origins[0], terms[v]);
                    }
                    acc = [first; M];
                    if !same_origins {
                        for i in 1..M {
                            for v in 0..V {
                                acc[i][v] = $isa::subtract_product($isa::zero(), origins[i], terms[v]);
                            }
                        }
                    }
                }
                for pair in start / 2..end / 2 {
                    if M == 1 {
                        prefetch(&b_pairs[pair], AHEAD);
                    }
                    for u in 0..2 {
                        let mut w = [$isa::zero(); V];
                        for v in 0..V {
                            w[v] = load_weights(&b_pairs[pair][u][v]);
                        }
                        for i in 0..M {
                            let x = broadcast(a_pairs[i][pair][u]);
                            for v in 0..V {
                                acc[i][v] = multiply_add(acc[i][v], x, w[v]);
                            }
                        }
                    }
                }
                // All groups but the last are pairs of steps.
                if end % 2 == 1 {
                    for i in 0..M {
                        let x = broadcast(a[i][end - 1]);
                        for v in 0..V {
                            acc[i][v] = multiply_add(acc[i][v], x, load_weights(&b[end - 1][v]));
                        }
                    }
                }
                let of_columns = $isa::load_f32s::<V>(&scales[..V * LANES]);
                for i in 0..M {
                    let of_row = $isa::splat(factors[i]);
                    for v in 0..V {
                        let term = $isa::scale(acc[i][v], $isa::multiply(of_row, of_columns[v]));
                        let sum = $isa::add_f32s($isa::load(&y[i][v]), term);
                        $isa::store_f32s(&mut y[i][v], sum);
                    }
                }
                (start, scales) = (end, &scales[tile.nr.min(scales.len())..]);
                first_term += tile.nr;
            }
            let to = &mut tile.y.as_chunks_mut::<LANES>().0.as_chunks_mut::<V>().0[..M];
            to.copy_from_slice(&y);
        }

        /// M rows, V vectors of columns, of weights with minimums or parts. The sums of a group are
        /// in L1. Those of a part are multiplied by its scale on the way there.
        #[inline(never)] // as in `tile_body`
        #[target_feature(enable = $features)]
        fn scaled_parts<const M: usize, const V: usize>(tile: &mut ScaledTile<'_>) {
            let (steps, nr) = (tile.steps, tile.nr);
            let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * steps);
            let mut a: [&[[u8; 4]]; M] = [&[]; M];
            let mut a_pairs: [&[[[u8; 4]; 2]]; M] = [&[]; M];
            for i in 0..M {
                a[i] = rows[i].as_chunks::<4>().0;
                a_pairs[i] = &a[i].as_chunks::<2>().0[..steps / 2];
            }
            let b = &tile.b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>().0[..steps];
            let b_pairs = &b.as_chunks::<2>().0[..steps / 2];
            let mut factors = [0.0; M];
            factors.copy_from_slice(&tile.factors[..M]);
            let mut y = [[[-0.0f32; LANES]; V]; M];
            let (mut start, mut part, mut g) = (0, 0, 0);
            while start < steps {
                let end = steps.min(start + tile.group_steps);
                let mut sums = [[[0i32; LANES]; V]; M];
                if let Some(terms) = tile.column_terms.get(g * nr..g * nr + V * LANES) {
                    let terms = $isa::load_i32s::<V>(terms);
                    for i in 0..M {
                        for v in 0..V {
                            let sum = $isa::subtract_product($isa::zero(), tile.origins[i], terms[v]);
                            $isa::store_sums(&mut sums[i][v], sum);
                        }
                    }
                }
                let first_part = part;
                while start < end {
                    let stop = end.min(start + tile.part_steps);
                    let mut acc = [[$isa::zero(); V]; M];
                    for pair in start / 2..stop / 2 {
                        if M == 1 {
                            prefetch(&b_pairs[pair], AHEAD);
                        }
                        for u in 0..2 {
                            let mut w = [$isa::zero(); V];
                            for v in 0..V {
                                w[v] = load_weights(&b_pairs[pair][u][v]);
                            }
                            for i in 0..M {
                                let x = broadcast(a_pairs[i][pair][u]);
                                for v in 0..V {
                                    acc[i][v] = multiply_add(acc[i][v], x, w[v]);
                                }
                            }
                        }
                    }
                    // All parts but the last are pairs of steps.
                    if stop % 2 == 1 {
                        for i in 0..M {
                            let x = broadcast(a[i][stop - 1]);
                            for v in 0..V {
                                acc[i][v] = multiply_add(acc[i][v], x, load_weights(&b[stop - 1][v]));
                            }
                        }
                    }
                    let mut times = [$isa::splat_i32(1); V];
                    if let Some(of_columns) = tile.part_scales.get(part * nr..part * nr + V * LANES) {
                        let of_columns = of_columns.as_chunks::<LANES>().0;
                        for v in 0..V {
                            times[v] = $isa::widen_i8s(&of_columns[v]);
                        }
                    }
                    for i in 0..M {
                        for v in 0..V {
                            let sum = $isa::load_sums(&sums[i][v]);
                            let sum = $isa::add_product(sum, acc[i][v], times[v]);
                            $isa::store_sums(&mut sums[i][v], sum);
                        }
                    }
                    (start, part) = (stop, part + 1);
                }
                let of_columns = $isa::load_f32s::<V>(&tile.scales[g * nr..g * nr + V * LANES]);
                let minimums = tile.minimums.get(g * nr..g * nr + V * LANES);
                let minimums = minimums.map(|minimums| $isa::load_f32s::<V>(minimums));
                for i in 0..M {
                    let of_row = $isa::splat(factors[i]);
                    // The values of the row, times the minimums of parts.
                    let mut values = [$isa::zero(); V];
                    if minimums.is_some() {
                        for part in first_part..part {
                            let value = $isa::splat_i32(tile.row_sums[part * tile.sum_stride + i]);
                            let of_part = tile.part_minimums.get(part * nr..part * nr + V * LANES);
                            for v in 0..V {
                                values[v] = match of_part {
                                    None => $isa::add(values[v], value),
                                    Some(of_part) => {
                                        let times = $isa::widen_i8s(&of_part.as_chunks().0[v]);
                                        $isa::add_product(values[v], value, times)
                                    }
                                };
                            }
                        }
                    }
                    for v in 0..V {
                        let sum = $isa::load_sums(&sums[i][v]);
                        let mut term = $isa::scale(sum, $isa::multiply(of_row, of_columns[v]));
                        if let Some(minimums) = &minimums {
                            let minimum = $isa::multiply(of_row, minimums[v]);
                            term = $isa::add_f32s(term, $isa::scale(values[v], minimum));
                        }
                        let sum = $isa::add_f32s($isa::load(&y[i][v]), term);
                        $isa::store_f32s(&mut y[i][v], sum);
                    }
                }
                g += 1;
            }
            let to = &mut tile.y.as_chunks_mut::<LANES>().0.as_chunks_mut::<V>().0[..M];
            to.copy_from_slice(&y);
        }
    };
}
pub(super) use scaled_body;
