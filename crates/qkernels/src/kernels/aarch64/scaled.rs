//! The body of products with a scale for each group of k, written once for all aarch64 kernels.
//!
//! The sums of a group are in registers. At its end they become floats, are scaled by row and
//! column, and added to the tile's results, which lie in L1.

/// `fn run_scaled`, compiled for `$features`, for each number of vectors `$V` and each number of
/// rows `$M`, with `$U` groups of k at a time. The kernel's file supplies what `tile_body!` and
/// `row_products!` ask for, and these.
macro_rules! scaled_body {
    ($features:literal, $($V:literal: $(($M:literal, $U:literal))+),+) => {
        #[target_feature(enable = $features)]
        fn run_scaled(tile: &mut ScaledTile<'_>) {
            match (tile.columns / vec128::LANES, tile.factors.len()) {
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
            // Adding -0.0 changes nothing.
            let mut y = [[[-0.0f32; vec128::LANES]; V]; M];
            let (mut start, mut scales, mut first_term) = (0, tile.scales, 0);
            while start < tile.steps {
                let end = tile.steps.min(start.saturating_add(tile.group_steps));
                let (a, b) = (&tile.a[start * step_bytes..], &tile.b[start * panel_step..end * panel_step]);
                let mut acc = [[vec128::zero(); V]; M];
                if M == 1 {
                    acc[0] = row_products::<V>(a, b, end - start);
                } else {
                    acc = products::<M, V, U>((a, tile.a_stride), b, end - start);
                }
                if let Some(terms) = tile.column_terms.get(first_term..first_term + V * vec128::LANES) {
                    let terms = vec128::load_i32s::<V>(terms);
                    for i in 0..M {
                        for v in 0..V {
                            acc[i][v] = vec128::subtract_product(acc[i][v], tile.origins[i], terms[v]);
                        }
                    }
                }
                let of_columns = vec128::load_f32s::<V>(&scales[..V * vec128::LANES]);
                for i in 0..M {
                    let of_row = vec128::splat(tile.factors[i]);
                    for v in 0..V {
                        let factor = vec128::multiply(of_row, of_columns[v]);
                        vec128::add_term(&mut y[i][v], acc[i][v], factor);
                    }
                }
                (start, scales) = (end, &scales[tile.nr.min(scales.len())..]);
                first_term += tile.nr;
            }
            let to = &mut tile.y.as_chunks_mut::<{ vec128::LANES }>().0.as_chunks_mut::<V>().0[..M];
            to.copy_from_slice(&y);
        }
    };
}
pub(super) use scaled_body;
