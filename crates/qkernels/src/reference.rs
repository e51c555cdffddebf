//! The definition of correct: the triple loop, in i64. Every kernel, every way through the code and
//! every test is compared with it.

use crate::left::codes::Activation;
use crate::matrix::view::MatRef;
use crate::weights::operand::{Weight, Weights, ZeroPoints};

/// `sum_k (a[i][k] - zero_point) * (w[j][k] - w_zero_point[j])` for `a` (m, k) and `w` (n, k),
/// row-major (m, n).
///
/// k is the smaller of the two depths. A channel without a zero point has 0. The function is slow,
/// and uses none of the code that it is meant to check. Its result is as long as
/// `vec![0i64; m * n]`, and there must be memory for it just as for that one.
///
/// ```
/// use qkernels::{MatRef, Weights, ZeroPoints, reference};
/// let (a, w) = ([7u8, 9], [130u8, 125]);
/// let w = Weights::new(MatRef::new(&w, 1, 2)?, ZeroPoints::PerTensor(128));
/// assert_eq!(reference::product(MatRef::new(&a, 1, 2)?, 5, w), [2 * 2 + 4 * -3]);
/// # Ok::<(), qkernels::ViewError>(())
/// ```
pub fn product<'w, A, W>(a: MatRef<'_, A>, zero_point: i32, w: impl Into<Weights<'w, W>>) -> Vec<i64>
where
    A: Activation + Into<i64>,
    W: Weight + Into<i64>,
{
    let Weights { view: w, zero_points, .. } = w.into();
    if a.rows() == 0 || w.rows() == 0 {
        return Vec::new();
    }
    let mut y = Vec::with_capacity(a.rows() * w.rows());
    for i in 0..a.rows() {
        for j in 0..w.rows() {
            let w_zero_point = match zero_points {
                ZeroPoints::PerTensor(zero_point) => zero_point,
                ZeroPoints::PerChannel(zero_points) => zero_points.get(j).copied().unwrap_or(0),
            };
            let mut sum = 0;
            for p in 0..a.cols().min(w.cols()) {
                if let (Some(a), Some(w)) = (a.get(i, p), w.get(j, p)) {
                    sum += (a.into() - i64::from(zero_point)) * (w.into() - i64::from(w_zero_point));
                }
            }
            y.push(sum);
        }
    }
    y
}
