//! The f32 product that calibration and comparisons run on: the `gemm` crate, behind checked views.

use crate::threads::Threads;
use crate::view::{MatMut, MatRef};

/// Operands whose shapes do not fit each other.
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

/// `out[i][j] = sum_k a[i][k] * w[j][k]` in f32, for `a` (m, k) and `w` (n, k) as `nn.Linear` stores it. The order of the
/// sums, and so the last bits, depend on the CPU and the shape.
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
    if k == 0 {
        for i in 0..m {
            out.row_mut(i).into_iter().for_each(|row| row.fill(0.0));
        }
        return Ok(());
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let parallelism = match threads {
        Threads::Serial => gemm::Parallelism::None,
        #[cfg(feature = "rayon")]
        Threads::Pool(_) => gemm::Parallelism::Rayon(0),
        #[cfg(not(feature = "rayon"))]
        Threads::Never(never, _) => match never {},
    };
    threads.enter(move || {
        let (a_rows, a_cols) = (a.row_stride() as isize, a.col_stride() as isize);
        let (w_rows, w_cols) = (w.row_stride() as isize, w.col_stride() as isize);
        let (out_stride, out_start) = (out.row_stride() as isize, out.start_mut());
        let (a, w) = (a.skip_rows(0).as_ptr(), w.skip_rows(0).as_ptr());
        // SAFETY: the views hold all elements that these shapes and strides address (their constructors checked it), the
        // output's rows do not overlap and are borrowed exclusively, and with `read_dst` false nothing is read from it.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out_start,
                1,
                out_stride,
                false,
                a,
                a_cols,
                a_rows,
                w,
                w_rows,
                w_cols,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
    Ok(())
}
