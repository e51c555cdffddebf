//! The body of products with a scale for each group of k, written once for all x86-64 kernels whose
//! rows hold codes as they are.
//!
//! The sums of a group are in registers. At its end they become floats, are scaled by row and
//! column, and added to the tile's results, which lie in L1. For groups of 32 that takes 6
//! instructions beside 16 of `vpmaddwd`, and as many additions, for each vector. Weights with
//! minimums or parts have a body of their own, which takes fewer columns at a time.
//!
//! Bodies that multiply u8 by i8 read activations as i8 and shift the weights:
//! `sum a * w = sum a * (w + 128) - 128 * sum a`. The sum of a row's codes is one number for each
//! group, where shifted activations would need one for each group and column. With it a zero point
//! of the weights costs nothing more.

/// The most vectors of columns that a tile has.
pub(super) const MOST_VECTORS: usize = 3;

/// What the sums of M rows and V vectors of columns start with, to take off what shifts of weights
/// (`$shift`) and their zero points add to the products of a part. `$term` is the first of the
/// part's `row_terms`, `$entry` the group's first entry.
macro_rules! corrections {
    ($isa:ident, $shift:literal, $M:ident, $V:ident, $tile:ident, $term:expr, $entry:expr) => {{
        let mut acc = [[$isa::zero(); $V]; $M];
        if let Some(of_rows) = $tile.row_terms.get($term..$term + $M) {
            if let Some(of_columns) = $tile.zero_points.get($entry..$entry + $V * LANES) {
                let of_columns = of_columns.as_chunks::<LANES>().0;
                for v in 0..$V {
                    let zero_points = $isa::add($isa::widen_i8s(&of_columns[v]), $isa::splat_i32($shift));
                    for i in 0..$M {
                        acc[i][v] = $isa::subtract_product($isa::zero(), of_rows[i], zero_points);
                    }
                }
            } else {
                for i in 0..$M {
                    acc[i] = [$isa::splat_i32(of_rows[i]); $V];
                }
            }
        }
        acc
    }};
}
pub(super) use corrections;

/// `fn run_scaled`, compiled for `$features` with vectors of module `$isa`, for each number of
/// vectors `$V` and each number of rows `$M`. Weights are loaded by `$load`, which adds `$shift` to
/// them, and multiplied by `$multiply_add`; for `$least` rows and more they are requested ahead.
/// The kernel's file supplies what else `tile_body!` asks for, and `scaled_parts` for weights with
/// minimums or parts.
macro_rules! scaled_body {
    (
        $features:literal, $isa:ident, ($load:ident, $shift:literal, $multiply_add:ident), ahead from $least:literal,
        $($V:literal: $($M:literal)+),+
    ) => {
        #[target_feature(enable = $features)]
        fn run_scaled(tile: &mut ScaledTile<'_>) {
            let in_parts = !tile.minimums.is_empty() || !tile.part_scales.is_empty();
            match (tile.columns / LANES, tile.rows) {
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
            // Results wait here, where the compiler knows that nothing else lies. Adding -0.0
            // changes nothing.
            let tile::Lines(y) = &mut tile::Lines([[[-0.0f32; LANES]; V]; M]);
            let (mut start, mut first, mut first_factor, mut first_term) = (0, 0, 0, 0);
            while start < steps {
                let end = steps.min(start + tile.group_steps);
                // Before there are sums, which would make way for what a choice between two forms
                // needs.
                let of_columns = $isa::load_floats::<V>(tile.scales, first);
                let mut acc = corrections!($isa, $shift, M, V, tile, first_term, first);
                if let Some(terms) = tile.column_terms.get(first..first + V * LANES) {
                    let terms = $isa::load_i32s::<V>(terms);
                    for i in 0..M {
                        for v in 0..V {
                            acc[i][v] = $isa::subtract_product(acc[i][v], tile.origins[i], terms[v]);
                        }
                    }
                }
                for pair in start / 2..end / 2 {
                    for u in 0..2 {
                        let mut w = [$isa::zero(); V];
                        for v in 0..V {
                            if M >= $least {
                                prefetch_vector(&b_pairs[pair][u][v], u * V + v);
                            }
                            w[v] = $load(&b_pairs[pair][u][v]);
                        }
                        for i in 0..M {
                            let x = broadcast(a_pairs[i][pair][u]);
                            for v in 0..V {
                                acc[i][v] = $multiply_add(acc[i][v], x, w[v]);
                            }
                        }
                    }
                }
                // All groups but the last are pairs of steps.
                if end % 2 == 1 {
                    for i in 0..M {
                        let x = broadcast(a[i][end - 1]);
                        for v in 0..V {
                            acc[i][v] = $multiply_add(acc[i][v], x, $load(&b[end - 1][v]));
                        }
                    }
                }
                let factors = &tile.factors[first_factor..][..M];
                for i in 0..M {
                    let of_row = $isa::splat(factors[i]);
                    for v in 0..V {
                        let term = $isa::scale(acc[i][v], $isa::multiply(of_row, of_columns[v]));
                        let sum = $isa::add_f32s($isa::load(&y[i][v]), term);
                        $isa::store_f32s(&mut y[i][v], sum);
                    }
                }
                (start, first) = (end, first + tile.nr);
                first_factor += tile.factor_stride;
                first_term += tile.term_stride;
            }
            let to = &mut tile.y.as_chunks_mut::<LANES>().0.as_chunks_mut::<V>().0[..M];
            to.copy_from_slice(y);
        }
    };
}
pub(super) use scaled_body;

/// `fn scaled_parts` for [`scaled_body`], for weights with minimums or parts.
macro_rules! scaled_parts_body {
    (
        $features:literal, $isa:ident, ($load:ident, $shift:literal, $multiply_add:ident), ahead from $least:literal
    ) => {
        #[target_feature(enable = $features)]
        fn scaled_parts<const M: usize, const V: usize>(tile: &mut ScaledTile<'_>) {
            // One or two rows leave registers for all columns at once.
            match (M <= 2, tile.factor_stride == 0) {
                (true, true) => scaled_columns::<M, V, false>(tile),
                (true, false) => scaled_columns::<M, V, true>(tile),
                (false, true) => scaled_columns::<M, 1, false>(tile),
                (false, false) => scaled_columns::<M, 1, true>(tile),
            }
        }

        /// M rows of weights with minimums or parts, W vectors of columns at a time: the sums of a
        /// part and those of its group wait in registers for each other, so there are few of each.
        /// GROUPED if rows have a scale for each group.
        #[inline(never)] // as in `tile_body`
        #[target_feature(enable = $features)]
        fn scaled_columns<const M: usize, const W: usize, const GROUPED: bool>(tile: &mut ScaledTile<'_>) {
            let (steps, nr, vectors) = (tile.steps, tile.nr, tile.columns / LANES);
            let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * steps);
            let mut a: [&[[u8; 4]]; M] = [&[]; M];
            for i in 0..M {
                a[i] = &rows[i].as_chunks::<4>().0[..steps];
            }
            let b = &tile.b.as_chunks::<VECTOR_WEIGHTS>().0[..steps * vectors];
            let mut same = [0.0; M];
            same.copy_from_slice(&tile.factors[..M]);
            // Adding -0.0 changes nothing.
            let tile::Lines(y) = &mut tile::Lines([[[-0.0f32; LANES]; MOST_VECTORS]; M]);
            // While one group is multiplied, another one is requested from memory.
            let ahead = (tile.group_steps * vectors * VECTOR_WEIGHTS).max(AHEAD);
            let (mut group, mut first_part, mut g) = (0, 0, 0);
            while group < steps {
                let end = steps.min(group + tile.group_steps);
                let parts = first_part..first_part + (end - group).div_ceil(tile.part_steps);
                let factors = if GROUPED { &tile.factors[g * tile.factor_stride..][..M] } else { &same[..] };
                // A group's weights are in L1 after the first of these.
                for first in (0..vectors).step_by(W) {
                    let entries = g * nr + first * LANES..g * nr + (first + W) * LANES;
                    let mut sums = [[$isa::zero(); W]; M];
                    if let Some(terms) = tile.column_terms.get(entries.clone()) {
                        let terms = $isa::load_i32s::<W>(terms);
                        for i in 0..M {
                            for v in 0..W {
                                sums[i][v] = $isa::subtract_product($isa::zero(), tile.origins[i], terms[v]);
                            }
                        }
                    }
                    let mut start = group;
                    for part in parts.clone() {
                        let stop = end.min(start + tile.part_steps);
                        let (term, entry) = (part * tile.term_stride, entries.start);
                        let mut acc = corrections!($isa, $shift, M, W, tile, term, entry);
                        for step in start..stop {
                            let b = &b[step * vectors + first..][..W];
                            let mut w = [$isa::zero(); W];
                            for v in 0..W {
                                if M >= $least {
                                    prefetch(&b[v], ahead);
                                }
                                w[v] = $load(&b[v]);
                            }
                            for i in 0..M {
                                let x = broadcast(a[i][step]);
                                for v in 0..W {
                                    acc[i][v] = $multiply_add(acc[i][v], x, w[v]);
                                }
                            }
                        }
                        let of_part = part * nr + first * LANES..part * nr + (first + W) * LANES;
                        if let Some(of_columns) = tile.part_scales.get(of_part) {
                            for v in 0..W {
                                let times = $isa::widen_i8s(&of_columns.as_chunks().0[v]);
                                for i in 0..M {
                                    sums[i][v] = $isa::add_product(sums[i][v], acc[i][v], times);
                                }
                            }
                        } else {
                            for i in 0..M {
                                for v in 0..W {
                                    sums[i][v] = $isa::add(sums[i][v], acc[i][v]);
                                }
                            }
                        }
                        start = stop;
                    }
                    let of_columns = $isa::load_floats::<W>(tile.scales, entries.start);
                    let mut terms = [[$isa::splat(0.0); W]; M];
                    for i in 0..M {
                        let of_row = $isa::splat(factors[i]);
                        for v in 0..W {
                            terms[i][v] = $isa::scale(sums[i][v], $isa::multiply(of_row, of_columns[v]));
                        }
                    }
                    if !tile.minimums.is_empty() {
                        // The values of rows, times the minimums of parts.
                        let mut values = [[$isa::zero(); W]; M];
                        for part in parts.clone() {
                            let of_rows = tile.part_sums.of_part(part, M);
                            let of_part = part * nr + first * LANES..part * nr + (first + W) * LANES;
                            let mut times = [$isa::splat_i32(1); W];
                            if let Some(of_columns) = tile.part_minimums.get(of_part) {
                                for v in 0..W {
                                    times[v] = $isa::widen_i8s(&of_columns.as_chunks().0[v]);
                                }
                            }
                            for i in 0..M {
                                let of_row = $isa::splat_i32(of_rows[i]);
                                for v in 0..W {
                                    values[i][v] = $isa::add_product(values[i][v], of_row, times[v]);
                                }
                            }
                        }
                        let of_columns = $isa::load_floats::<W>(tile.minimums, entries.start);
                        for i in 0..M {
                            let of_row = $isa::splat(factors[i]);
                            for v in 0..W {
                                let minimum = $isa::multiply(of_row, of_columns[v]);
                                let term = $isa::scale(values[i][v], minimum);
                                terms[i][v] = $isa::add_f32s(terms[i][v], term);
                            }
                        }
                    }
                    for i in 0..M {
                        for v in 0..W {
                            let to = &mut y[i][first + v];
                            let y = $isa::add_f32s($isa::load(to), terms[i][v]);
                            $isa::store_f32s(to, y);
                        }
                    }
                }
                (group, first_part, g) = (end, parts.end, g + 1);
            }
            for (to, y) in tile.y.chunks_exact_mut(tile.columns).zip(y) {
                to.copy_from_slice(&y.as_flattened()[..tile.columns]);
            }
        }
    };
}
pub(super) use scaled_parts_body;
