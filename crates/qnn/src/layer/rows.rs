//! Rows of the caller's matrices: their shapes, their values, and the blocks of them that go
//! through a model together.

use core::ops::Range;

use qcore::{Float, argmax};
use qkernels::{FloatRows, Kernel, MatMut, MatRef, Threads, first_non_finite};

use super::forward_error::ForwardError;

/// How many rows for each thread go through all layers together. They are few enough that the
/// values between two layers stay in the L2 cache, and that a workspace does not grow with the
/// batch. They are enough that starting a product is worth it.
const ROWS_PER_THREAD: usize = 256;

/// How many rows go through a model together, unless something needs more at once.
pub(crate) fn block_rows(threads: Threads<'_>) -> usize {
    let count = match threads {
        Threads::Pool(pool) => pool.current_num_threads(),
        _ => 1,
    };
    ROWS_PER_THREAD.saturating_mul(count.max(1))
}

/// Checks that `x` is (any, k).
pub(crate) fn check_input<T: Copy>(x: &MatRef<'_, T>, k: usize) -> Result<(), ForwardError> {
    if x.cols() == k { Ok(()) } else { Err(ForwardError::Width { expected: k, got: x.cols() }) }
}

/// Checks that `out` is (m, n).
pub(crate) fn check_output<T: Copy>(out: &MatMut<'_, T>, m: usize, n: usize) -> Result<(), ForwardError> {
    let (rows, cols) = (out.rows(), out.cols());
    if (rows, cols) == (m, n) { Ok(()) } else { Err(ForwardError::OutputShape { m, n, rows, cols }) }
}

/// The first `rows * cols` elements of a buffer, which grows if it is too small.
pub(crate) fn grown<T: Copy + Default>(
    buffer: &mut Vec<T>,
    rows: usize,
    cols: usize,
) -> Result<&mut [T], ForwardError> {
    let error = ForwardError::Memory { rows, cols };
    let len = rows.checked_mul(cols).ok_or(error)?;
    if let Some(more) = len.checked_sub(buffer.len()) {
        buffer.try_reserve(more).map_err(|_| error)?;
        buffer.resize(len, T::default());
    }
    Ok(&mut buffer[..len])
}

/// The (m, n) results that `forward` writes, in a vector.
pub(crate) fn in_vec(
    m: usize,
    n: usize,
    forward: impl FnOnce(MatMut<'_, f32>) -> Result<(), ForwardError>,
) -> Result<Vec<f32>, ForwardError> {
    let mut values = Vec::new();
    forward(MatMut::new(grown(&mut values, m, n)?, m, n)?)?;
    Ok(values)
}

/// The blocks of at most `size` rows that `m` rows are cut into.
pub(crate) fn blocks(m: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = size.max(1);
    (0..m).step_by(size).map(move |start| start..m.min(start.saturating_add(size)))
}

/// Row `i` of `x` in f32. If its elements are f32 and adjacent, the row is read in place, else it
/// is copied to `buffer`. Outside of `x` it is empty.
pub(crate) fn row<'r, F: Float>(x: &MatRef<'r, F>, i: usize, buffer: &'r mut Vec<f32>) -> &'r [f32] {
    let elements = x.row_slice(i);
    if let Some(row) = elements.and_then(F::as_f32s) {
        return row;
    }
    buffer.clear();
    match elements {
        Some(row) => {
            buffer.resize(row.len(), 0.0);
            F::widen_slice(row, buffer);
        }
        None => buffer.extend((0..x.cols()).filter_map(|j| x.get(i, j)).map(F::widen)),
    }
    buffer
}

/// Copies all rows of `x` to `buffer`, one after the other.
pub(crate) fn gather<'b>(x: &MatRef<'_, f32>, buffer: &'b mut Vec<f32>) -> Result<&'b [f32], ForwardError> {
    let (values, mut apart) = (grown(buffer, x.rows(), x.cols())?, Vec::new());
    for (i, values) in values.chunks_exact_mut(x.cols().max(1)).enumerate() {
        values.copy_from_slice(row(x, i, &mut apart));
    }
    Ok(values)
}

/// `x` (m, k), divided by the input scale of a layer if it has one.
pub(crate) fn divided<'a, F: Float>(
    x: MatRef<'a, F>,
    input_scale: Option<&'a [f32]>,
) -> Result<FloatRows<'a, F>, ForwardError> {
    match input_scale {
        None => Ok(x.into()),
        Some(scale) => Ok(FloatRows::divided_by(x, scale)?),
    }
}

/// Checks that every value of `x` is finite, and every quotient if it is divided.
pub(crate) fn check_finite<F: Float>(x: FloatRows<'_, F>, kernel: Kernel) -> Result<(), ForwardError> {
    match first_non_finite(kernel, x) {
        Some((row, col, value)) => Err(ForwardError::NonFinite { row, col, value }),
        None => Ok(()),
    }
}

/// The index of the largest value in each row of `values` (m, n), by [`qcore::argmax`]: the first
/// of equals, never NaN, and `None` for a row without a number (n = 0, or all NaN).
///
/// ```
/// use qkernels::MatRef;
/// let logits = [0.1, 0.7, 0.2, f32::NAN, -3.0, -2.0];
/// let classes: Vec<_> = qnn::argmax_rows(MatRef::new(&logits, 2, 3)?).collect();
/// assert_eq!(classes, [Some(1), Some(2)]);
/// # Ok::<(), qkernels::ViewError>(())
/// ```
pub fn argmax_rows(values: MatRef<'_, f32>) -> impl Iterator<Item = Option<usize>> {
    (0..values.rows()).map(move |i| argmax((0..values.cols()).filter_map(|j| values.get(i, j))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_row_once() {
        for m in [0, 1, 255, 256, 257, 1000] {
            for size in [0, 1, 256, m, usize::MAX] {
                let rows: Vec<usize> = blocks(m, size).flatten().collect();
                assert_eq!(rows, (0..m).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals_and_no_nan() {
        let values = [2.0, 2.0, 1.0, f32::NAN, f32::NAN, f32::NAN, f32::NAN, f32::NEG_INFINITY, f32::NAN];
        let classes: Vec<_> = argmax_rows(MatRef::new(&values, 3, 3).unwrap()).collect();
        assert_eq!(classes, [Some(0), None, Some(1)]);
        assert_eq!(argmax_rows(MatRef::new(&values, 2, 0).unwrap()).collect::<Vec<_>>(), [None, None]);
    }
}
