//! The f32 product that calibration and comparisons use: the `gemm-f32` crate, behind checked
//! views.

use crate::cpu::threads::Threads;
use crate::matrix::view::{MatMut, MatRef};

/// The shapes of the operands do not fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("({m} x {k}) times ({n} x {w_k}) transposed does not make {rows} x {cols}")]
pub struct FloatShapeError {
    m: usize,
    k: usize,
    n: usize,
    w_k: usize,
    rows: usize,
    cols: usize,
}

/// The most products of one pair of floats, repeated by strides of 0, that are added up. f32 counts
/// no further.
const MOST_SAME: usize = 1 << 24;

/// Replaces a longer stride that no two elements are apart by. It is far from the strides that the
/// `gemm-f32` crate treats differently, and short enough for everything that the crate multiplies
/// by it.
const LONGEST_UNUSED: usize = 1 << 20;

/// `stride` between `count` rows or columns, as the `gemm-f32` crate takes it. The crate would
/// panic for a stride that `isize` does not hold. Only a single row or column can have such a
/// stride, and there is no second one to reach by it.
fn stride(count: usize, stride: usize) -> isize {
    // This stride is between two elements of a slice, which is at most `isize::MAX` bytes long.
    (if count > 1 { stride } else { stride.min(LONGEST_UNUSED) }) as isize
}

/// `out[i][j] = sum_k a[i][k] * w[j][k]` in f32, for `a` (m, k) and `w` (n, k) as `nn.Linear`
/// stores it. The order of the sums, and so the last bits, depend on the CPU and the shape. Sums
/// that leave the range of f32 on the way are infinite or NaN, as in any f32 arithmetic. Without
/// depth all results are 0; without rows or channels nothing is written.
///
/// # Errors
/// [`FloatShapeError`] if the shapes do not fit each other.
pub fn matmul(
    a: MatRef<'_, f32>,
    w: MatRef<'_, f32>,
    mut out: MatMut<'_, f32>,
    threads: Threads<'_>,
) -> Result<(), FloatShapeError> {
    let (m, k, n) = (a.rows(), a.cols(), w.rows());
    if w.cols() != k || out.rows() != m || out.cols() != n {
        return Err(FloatShapeError { m, k, n, w_k: w.cols(), rows: out.rows(), cols: out.cols() });
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        for i in 0..m {
            out.row_mut(i).into_iter().for_each(|row| row.fill(0.0));
        }
        return Ok(());
    }
    // If all products are the same one, it is multiplied instead of added up. There may be more of
    // them than memory could hold.
    let same = a.col_stride() == 0 && w.col_stride() == 0 && k > MOST_SAME;
    let (k, times) = if same { (1, k as f32) } else { (k, 1.0) };
    let parallelism = match threads {
        Threads::Serial => gemm_common::Parallelism::None,
        #[cfg(feature = "rayon")]
        Threads::Pool(_) => gemm_common::Parallelism::Rayon(0),
        #[cfg(not(feature = "rayon"))]
        Threads::Never(never, _) => match never {},
    };
    threads.enter(move || {
        let (a_rows, a_cols) = (stride(m, a.row_stride()), stride(k, a.col_stride()));
        let (w_rows, w_cols) = (stride(n, w.row_stride()), stride(k, w.col_stride()));
        let (out_stride, out_start) = (stride(m, out.row_stride()), out.start_mut());
        let (a, w) = (a.skip_rows(0).as_ptr(), w.skip_rows(0).as_ptr());
        // Columns are faster to write than rows. Where the output has rows, its transpose is
        // computed.
        let (rows, cols) = ((m, a, a_rows, a_cols, out_stride), (n, w, w_rows, w_cols, 1));
        let (left, right) = if out_stride > 1 { (cols, rows) } else { (rows, cols) };
        let (m, a, a_rows, a_cols, out_rows) = left;
        let (n, w, w_rows, w_cols, out_cols) = right;
        let product = gemm_f32::gemm::f32::get_gemm_fn();
        // SAFETY: the views hold all elements that these shapes and strides address (their
        // constructors checked it), the output's rows do not overlap and are borrowed exclusively,
        // and with `read_dst` false nothing is read from it.
        unsafe {
            product(
                m,
                n,
                k,
                out_start,
                out_cols,
                out_rows,
                false,
                a,
                a_cols,
                a_rows,
                w,
                w_rows,
                w_cols,
                0.0,
                times,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
    Ok(())
}
