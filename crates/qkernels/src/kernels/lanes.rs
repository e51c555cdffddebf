//! Vectors at the ends of slices, for instruction sets without masks.

/// Vector `v` of a slice, with zeros beyond its end.
#[inline(always)]
pub(super) fn load_lanes<T: Copy + Default, const LANES: usize>(values: &[T], v: usize) -> [T; LANES] {
    let values = values.get(v * LANES..).unwrap_or_default();
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut lanes = [T::default(); LANES];
        lanes.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        lanes
    })
}
