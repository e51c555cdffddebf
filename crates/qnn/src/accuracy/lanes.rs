//! Eight numbers side by side, in loops that become vectors.
//!
//! They are loops over constant indices, and always inlined: iterators inside of the innermost
//! loops are calls where a program is compiled in several units without link-time optimization.

/// How many numbers are side by side.
pub(super) const LANES: usize = 8;

/// So many numbers.
pub(super) type Lanes = [f64; LANES];

/// Adds a factor times each of the values.
#[inline(always)]
pub(super) fn add_scaled(sums: &mut Lanes, factor: f64, values: &Lanes) {
    for lane in 0..LANES {
        sums[lane] += factor * values[lane];
    }
}

/// Adds the products of numbers in the same lane.
#[inline(always)]
pub(super) fn add_products(sums: &mut Lanes, x: &Lanes, y: &Lanes) {
    for lane in 0..LANES {
        sums[lane] += x[lane] * y[lane];
    }
}
