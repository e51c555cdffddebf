//! Vectors at the ends of rows, for instruction sets without masks.

/// Fills vector `v` of a row, as far as the row reaches.
#[inline(always)]
pub(super) fn store_lanes<T: Copy, const LANES: usize>(row: &mut [T], v: usize, lanes: [T; LANES]) {
    let Some(row) = row.get_mut(v * LANES..) else { return };
    match row.first_chunk_mut() {
        Some(row) => *row = lanes,
        None => row.iter_mut().zip(lanes).for_each(|(to, from)| *to = from),
    }
}

/// Vector `v` of a slice, zeros beyond its end.
#[inline(always)]
pub(super) fn load_lanes<T: Copy + Default, const LANES: usize>(values: &[T], v: usize) -> [T; LANES] {
    let values = values.get(v * LANES..).unwrap_or_default();
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut lanes = [T::default(); LANES];
        lanes.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        lanes
    })
}

/// The functions that store what a row has of a vector, by those that store a whole one: `$edge(row, v, vector)` by
/// `$store(to, vector)`, for elements of type `$element` and vectors `$vector`, compiled for `$features`.
macro_rules! edge_stores {
    ($features:literal, $($edge:ident by $store:ident: $element:ty, $vector:ty;)*) => {$(
        /// Stores what a row has of its vector `v`.
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn $edge(row: &mut [$element], v: usize, vector: $vector) {
            let mut lanes = [<$element>::default(); LANES];
            $store(&mut lanes, vector);
            store_lanes(row, v, lanes);
        }
    )*};
}
pub(super) use edge_stores;
