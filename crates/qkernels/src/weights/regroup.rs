//! From panels of pairs of consecutive k to panels of four, and back, in place.
//!
//! ```text
//! pairs    c0k0 c0k1  c1k0 c1k1 ..   c0k2 c0k3  c1k2 c1k3 ..
//! quads    c0k0 c0k1  c0k2 c0k3      c1k0 c1k1  c1k2 c1k3 ..
//! ```

/// Two consecutive k of a column.
type Pair = [i8; 2];

/// The most columns of a panel.
const MOST_COLUMNS: usize = crate::weights::proof::MOST_COLUMNS;

/// Turns groups of two k of each of `columns` columns into groups of four. A panel's k is a
/// multiple of 4.
#[inline(always)]
pub(crate) fn quads_of_pairs(panel: &mut [i8], columns: usize) {
    let mut pairs = [Pair::default(); 2 * MOST_COLUMNS];
    let pairs = &mut pairs[..2 * columns];
    for group in panel.as_chunks_mut().0.chunks_exact_mut(2 * columns) {
        pairs.copy_from_slice(group);
        let (first, second) = pairs.split_at(columns);
        for (quad, (first, second)) in group.as_chunks_mut().0.iter_mut().zip(first.iter().zip(second)) {
            *quad = [*first, *second];
        }
    }
}

/// The reverse of [`quads_of_pairs`].
#[inline(always)]
pub(crate) fn pairs_of_quads(panel: &mut [i8], columns: usize) {
    let mut quads = [[Pair::default(); 2]; MOST_COLUMNS];
    let quads = &mut quads[..columns];
    for group in panel.as_chunks_mut::<2>().0.chunks_exact_mut(2 * columns) {
        quads.copy_from_slice(group.as_chunks().0);
        let (first, second) = group.split_at_mut(columns);
        for (quad, (first, second)) in quads.iter().zip(first.iter_mut().zip(second)) {
            [*first, *second] = *quad;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_k_of_a_column_come_side_by_side_and_go_back() {
        // Tens are the column, units are the k.
        let pairs = [0, 1, 10, 11, 20, 21, 2, 3, 12, 13, 22, 23, 4, 5, 14, 15, 24, 25, 6, 7, 16, 17, 26, 27];
        let quads = [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 4, 5, 6, 7, 14, 15, 16, 17, 24, 25, 26, 27];
        let mut panel = pairs;
        quads_of_pairs(&mut panel, 3);
        assert_eq!(panel, quads);
        pairs_of_quads(&mut panel, 3);
        assert_eq!(panel, pairs);
    }
}
