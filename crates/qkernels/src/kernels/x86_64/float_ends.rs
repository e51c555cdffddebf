//! How the bodies of weight-only products end, whatever their vectors: from the sums that wait for
//! the end of a group of scales to the results of a tile.
//!
//! A body is a function of M rows and V vectors of columns. Its file supplies the constant `LANES`
//! and the functions `load` and `store` of its vectors.

/// Adds `$sum`, which a group has in row `$i` and vector `$v` of columns, times the scales of these
/// columns, to the `$sums` of the groups before it. The first column of `$scales` is that of vector
/// `$first`.
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

/// Stores the sums of M rows and V vectors of columns, from vector `$first` on.
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
