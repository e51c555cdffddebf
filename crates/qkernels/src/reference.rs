//! The definition of correct: the triple loop, in i64. Every kernel, route and test is compared with it.

use crate::activation::Activation;
use crate::view::MatRef;

/// `sum_k (a[i][k] - zero_point) * w[j][k]` for `a` (m, k) and `w` (n, k), row-major (m, n).
///
/// k is the smaller of the two depths. Slow, and without any of the code that it is to check.
pub fn product<A: Activation + Into<i64>>(a: MatRef<'_, A>, zero_point: i32, w: MatRef<'_, i8>) -> Vec<i64> {
    let mut y = Vec::with_capacity(a.rows() * w.rows());
    for i in 0..a.rows() {
        for j in 0..w.rows() {
            let mut sum = 0;
            for p in 0..a.cols().min(w.cols()) {
                if let (Some(a), Some(w)) = (a.get(i, p), w.get(j, p)) {
                    sum += (a.into() - i64::from(zero_point)) * i64::from(w);
                }
            }
            y.push(sum);
        }
    }
    y
}
