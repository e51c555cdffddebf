//! The f32 product on views with any strides.
#![cfg(feature = "float")]

use qkernels::float::matmul;
use qkernels::{MatMut, MatRef, Threads};

/// A stride between rows or columns says nothing if there is only one of them, however long the
/// stride is.
#[test]
fn strides_of_a_single_row_or_column() {
    let values: Vec<f32> = (1..=12).map(|x| x as f32).collect();
    let long = [1, 12, 1 << 20, 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, usize::MAX];
    for (m, n, k) in
        [(1, 1, 1), (1, 4, 3), (4, 1, 3), (3, 4, 1), (1, 4, 1), (1, 1, 12), (4, 1, 1), (1, 12, 1)]
    {
        // The strides of a (rows, cols) matrix without gaps, row-major and column-major. Strides
        // that are never used are `long`.
        let views = |rows: usize, cols: usize, long| {
            let one = |count, stride| if count == 1 { long } else { stride };
            let view = |row_stride, col_stride| {
                MatRef::with_strides(&values, rows, cols, one(rows, row_stride), one(cols, col_stride))
            };
            [view(cols, 1).unwrap(), view(1, rows).unwrap()]
        };
        for long in long {
            for (a, w) in views(m, k, long).into_iter().flat_map(|a| views(n, k, long).map(|w| (a, w))) {
                let mut y = vec![9f32; m * n];
                let stride = if m == 1 { long.max(n) } else { n };
                let out = MatMut::with_stride(&mut y, m, n, stride).unwrap();
                matmul(a, w, out, Threads::Serial).unwrap();
                let product = |i, j| (0..k).map(|p| a.get(i, p).unwrap() * w.get(j, p).unwrap()).sum::<f32>();
                let expected: Vec<f32> = (0..m * n).map(|at| product(at / n, at % n)).collect();
                assert_eq!(y, expected, "{m} x {n} x {k}, stride {long}");
            }
        }
    }
}
