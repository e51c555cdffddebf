//! The body of products with a scale for each group of k, written once for all aarch64 kernels.
//!
//! The sums of a group, or of its parts, are in registers. At its end they become floats, are
//! scaled by row and column, and added to the tile's results, which lie in L1.

/// `fn run_scaled`, compiled for `$features`, for each number of vectors `$V` and each number of
/// rows `$M`, with `$U` groups of k at a time. The kernel's file supplies what `tile_body!` and
/// `row_products!` ask for, and these.
macro_rules! scaled_body {
    ($features:literal, $($V:literal: $(($M:literal, $U:literal))+),+) => {
        #[target_feature(enable = $features)]
        fn run_scaled(tile: &mut ScaledTile<'_>) {
            match (tile.columns / vec128::LANES, tile.rows) {
                $($(($V, $M) => scaled::<$M, $V, $U>(tile),)+)+
                (vectors, rows) => unreachable!("no tile has {rows} rows and {vectors} vectors"),
            }
        }

        /// M rows, V vectors of columns.
        #[inline(never)] // as in `tile_body`
        #[target_feature(enable = $features)]
        fn scaled<const M: usize, const V: usize, const U: usize>(tile: &mut ScaledTile<'_>) {
            // Bytes of a step in a band. A row that is alone lies as it is.
            let step_bytes = if M == 1 { 16 / BAND } else { 16 };
            let panel_step = V * VECTOR_WEIGHTS;
            let nr = tile.nr;
            // Adding -0.0 changes nothing.
            let mut y = [[[-0.0f32; vec128::LANES]; V]; M];
            let (mut start, mut part) = (0, 0);
            let mut g = 0;
            while start < tile.steps {
                let end = tile.steps.min(start + tile.group_steps);
                let first_part = part;
                let mut sums = [[vec128::zero(); V]; M];
                while start < end {
                    let stop = end.min(start + tile.part_steps);
                    let (a, b) = (&tile.a[start * step_bytes..], &tile.b[start * panel_step..stop * panel_step]);
                    let mut acc = [[vec128::zero(); V]; M];
                    if M == 1 {
                        acc[0] = row_products::<V>(a, b, stop - start);
                    } else {
                        acc = products::<M, V, U>((a, tile.a_stride), b, stop - start);
                    }
                    if !tile.zero_points.is_empty() {
                        let zero_points = vec128::of_columns::<V>(tile.zero_points, g * nr);
                        let of_rows = &tile.row_terms[part * tile.term_stride..][..M];
                        for i in 0..M {
                            for v in 0..V {
                                acc[i][v] = vec128::subtract_product(acc[i][v], of_rows[i], zero_points[v]);
                            }
                        }
                    }
                    let times = vec128::of_columns::<V>(tile.part_scales, part * nr);
                    for i in 0..M {
                        for v in 0..V {
                            sums[i][v] = vec128::add_product(sums[i][v], acc[i][v], times[v]);
                        }
                    }
                    (start, part) = (stop, part + 1);
                }
                if let Some(terms) = tile.column_terms.get(g * nr..g * nr + V * vec128::LANES) {
                    let terms = vec128::load_i32s::<V>(terms);
                    for i in 0..M {
                        for v in 0..V {
                            sums[i][v] = vec128::subtract_product(sums[i][v], tile.origins[i], terms[v]);
                        }
                    }
                }
                let of_columns = vec128::load_floats::<V>(tile.scales, g * nr);
                let has_minimums = !tile.minimums.is_empty();
                let mut minimums = of_columns;
                if has_minimums {
                    minimums = vec128::load_floats::<V>(tile.minimums, g * nr);
                }
                let factors = &tile.factors[g * tile.factor_stride..][..M];
                for i in 0..M {
                    let of_row = vec128::splat(factors[i]);
                    // The values of the row, times the minimums of parts.
                    let mut values = [vec128::zero(); V];
                    if has_minimums {
                        for part in first_part..part {
                            let value = vdupq_n_s32(tile.part_sums.of_parts[part * tile.part_sums.stride + i]);
                            let times = vec128::of_columns::<V>(tile.part_minimums, part * nr);
                            for v in 0..V {
                                values[v] = vec128::add_product(values[v], value, times[v]);
                            }
                        }
                    }
                    for v in 0..V {
                        let factor = vec128::multiply(of_row, of_columns[v]);
                        let mut term = vec128::scale(sums[i][v], factor);
                        if has_minimums {
                            let minimum = vec128::multiply(of_row, minimums[v]);
                            term = vec128::add_f32s(term, vec128::scale(values[v], minimum));
                        }
                        vec128::add_term(&mut y[i][v], term);
                    }
                }
                g += 1;
            }
            let to = &mut tile.y.as_chunks_mut::<{ vec128::LANES }>().0.as_chunks_mut::<V>().0[..M];
            to.copy_from_slice(&y);
        }
    };
}
pub(super) use scaled_body;
