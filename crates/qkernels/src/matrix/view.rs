//! Matrices as the caller holds them: strided views over slices, checked once when they are made.
//!
//! [`MatRef`] reads with any row and column stride (row-major, column-major, a sub-matrix of a
//! larger one). [`MatMut`] writes rows whose elements are adjacent. Neither asks for any alignment.
//! The views must not know of kernels, packing or padding.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

/// Why a view over a slice could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The slice ends before the last element of the matrix.
    #[error(
        "a {rows} x {cols} matrix with strides ({row_stride}, {col_stride}) needs {needed} elements, got {len}"
    )]
    TooShort {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Elements between the starts of two rows.
        row_stride: usize,
        /// Elements between two neighbours in a row.
        col_stride: usize,
        /// Elements that such a matrix spans.
        needed: usize,
        /// Elements that the slice has.
        len: usize,
    },
    /// The extent of the matrix does not fit `usize`.
    #[error(
        "the extent of a {rows} x {cols} matrix with strides ({row_stride}, {col_stride}) overflows usize"
    )]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Elements between the starts of two rows.
        row_stride: usize,
        /// Elements between two neighbours in a row.
        col_stride: usize,
    },
    /// The rows of a matrix to be written would share elements.
    #[error("rows of {cols} elements overlap at row stride {row_stride}")]
    RowsOverlap {
        /// Columns asked for.
        cols: usize,
        /// Elements between the starts of two rows.
        row_stride: usize,
    },
}

/// Elements from the first to one past the last; `None` if that overflows.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last_row = (rows - 1).checked_mul(row_stride)?;
    let last_col = (cols - 1).checked_mul(col_stride)?;
    last_row.checked_add(last_col)?.checked_add(1)
}

fn check_extent(
    len: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
) -> Result<(), ViewError> {
    let needed = extent(rows, cols, row_stride, col_stride).ok_or(ViewError::TooLarge {
        rows,
        cols,
        row_stride,
        col_stride,
    })?;
    if needed > len {
        return Err(ViewError::TooShort { rows, cols, row_stride, col_stride, needed, len });
    }
    Ok(())
}

/// A matrix to read: `rows` x `cols` elements of a slice, element (i, j) at
/// `i * row_stride + j * col_stride`.
///
/// ```
/// use qkernels::MatRef;
/// let data = [1i8, 2, 3, 4, 5, 6];
/// let a = MatRef::new(&data, 2, 3)?;
/// assert_eq!(a.get(1, 0), Some(4));
/// assert_eq!(a.transposed().get(0, 1), Some(4));
/// # Ok::<(), qkernels::ViewError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// A row-major matrix without gaps.
    ///
    /// # Errors
    /// [`ViewError`] if `data` has fewer than `rows * cols` elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, ViewError> {
        Self::with_strides(data, rows, cols, cols, 1)
    }

    /// A matrix with any strides, in elements. A stride of 0 repeats a row or a column.
    ///
    /// # Errors
    /// [`ViewError`] if the last element lies outside of `data`.
    pub fn with_strides(
        data: &'a [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, ViewError> {
        check_extent(data.len(), rows, cols, row_stride, col_stride)?;
        Ok(Self { data, rows, cols, row_stride, col_stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Elements between two neighbours in a row.
    pub fn col_stride(&self) -> usize {
        self.col_stride
    }

    /// The same elements with rows and columns exchanged; nothing moves.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// Element (i, j), or `None` outside of the matrix.
    pub fn get(&self, i: usize, j: usize) -> Option<T> {
        (i < self.rows && j < self.cols).then(|| self.data[i * self.row_stride + j * self.col_stride])
    }

    /// The rows of `range` as a matrix of their own; `None` if they reach past the last row.
    pub fn row_range(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.rows {
            return None;
        }
        // Without elements the strides were never checked against anything, and may have any value.
        let start = if range.is_empty() || self.cols == 0 { 0 } else { range.start * self.row_stride };
        Some(Self { data: &self.data[start..], rows: range.len(), ..*self })
    }

    /// The same elements, without the rows and columns that a stride of 0 repeats, and without rows
    /// that have no element. There is memory for all that remain.
    pub(crate) fn without_repeats(self) -> Self {
        let once = |count: usize, stride: usize| if stride == 0 { count.min(1) } else { count };
        let (rows, cols) = (once(self.rows, self.row_stride), once(self.cols, self.col_stride));
        Self { rows: if cols == 0 { 0 } else { rows }, cols, ..self }
    }

    /// The slice from the first element of row `i` on, for callers that know the strides.
    pub(crate) fn skip_rows(&self, i: usize) -> &'a [T] {
        if self.cols == 0 { &[] } else { &self.data[i * self.row_stride..] }
    }

    /// The elements of row `i`, at any stride.
    #[inline(always)]
    pub(crate) fn row_elements(&self, i: usize) -> impl Iterator<Item = T> + use<'a, T> {
        self.row_elements_from(i, 0)
    }

    /// Those from column `first` on.
    #[inline(always)]
    pub(crate) fn row_elements_from(&self, i: usize, first: usize) -> impl Iterator<Item = T> + use<'a, T> {
        let (row, stride) = (self.skip_rows(i), self.col_stride);
        (first..self.cols).map(move |j| row[j * stride])
    }

    /// The elements of row `i` that `order` names, at any stride.
    #[inline(always)]
    pub(crate) fn row_elements_in<'o>(
        &self,
        i: usize,
        order: &'o [u32],
    ) -> impl Iterator<Item = T> + use<'a, 'o, T> {
        let (row, stride) = (self.skip_rows(i), self.col_stride);
        order.iter().map(move |&j| row[j as usize * stride])
    }

    /// Row `i` as a slice. `None` outside of the matrix, or if the elements of a row are not
    /// adjacent.
    #[inline(always)] // Loops over chunks of a row ask for it each time.
    pub fn row_slice(&self, i: usize) -> Option<&'a [T]> {
        let adjacent = self.col_stride == 1 || self.cols <= 1;
        if i < self.rows && adjacent { Some(&self.skip_rows(i)[..self.cols]) } else { None }
    }
}

/// A matrix to write: rows of adjacent elements, row i at `i * row_stride`.
///
/// ```
/// use qkernels::MatMut;
/// let mut data = [0i32; 6];
/// let mut c = MatMut::new(&mut data, 2, 3)?;
/// c.row_mut(1).unwrap().fill(7);
/// assert_eq!(data, [0, 0, 0, 7, 7, 7]);
/// # Ok::<(), qkernels::ViewError>(())
/// ```
#[derive(Debug)]
pub struct MatMut<'a, T> {
    /// Start of row 0. With `rows` and `cols` not 0, every element (i, j) lies inside one live
    /// exclusive borrow.
    start: *mut T,
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a MatMut is an exclusive borrow of the elements of its rows, like `&mut [T]`, which is
// Send where T is.
unsafe impl<T: Send> Send for MatMut<'_, T> {}
// SAFETY: a shared MatMut gives no access to elements at all (`row_mut` and the splits need it
// exclusively or by value).
unsafe impl<T: Sync> Sync for MatMut<'_, T> {}

impl<'a, T> MatMut<'a, T> {
    /// A row-major matrix without gaps.
    ///
    /// # Errors
    /// [`ViewError`] if `data` has fewer than `rows * cols` elements.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, ViewError> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    ///
    /// # Errors
    /// [`ViewError`] if `data` is too short, or if the rows would overlap (`row_stride < cols`).
    pub fn with_stride(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, ViewError> {
        if row_stride < cols && rows > 1 {
            return Err(ViewError::RowsOverlap { cols, row_stride });
        }
        check_extent(data.len(), rows, cols, row_stride, 1)?;
        Ok(Self { start: data.as_mut_ptr(), rows, cols, row_stride, borrow: PhantomData })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Where row 0 starts, for foreign code that takes pointers and strides.
    #[cfg(feature = "float")]
    pub(crate) fn start_mut(&mut self) -> *mut T {
        self.start
    }

    /// The elements of row `i`, or `None` outside of the matrix.
    pub fn row_mut(&mut self, i: usize) -> Option<&mut [T]> {
        if i >= self.rows {
            return None;
        }
        if self.cols == 0 {
            return Some(&mut []);
        }
        // SAFETY: i < rows, so by the invariant of `start` the offset stays inside the borrowed
        // slice.
        let row = unsafe { self.start.add(i * self.row_stride) };
        // SAFETY: the row's `cols` elements are inside the borrowed slice, and this matrix is their
        // only borrower: `self` is borrowed exclusively for the result's lifetime, and matrices
        // split off from it have other elements.
        Some(unsafe { core::slice::from_raw_parts_mut(row, self.cols) })
    }

    /// M rows from row `first` on, V * L of their columns from `column` on, in V chunks of L;
    /// `None` unless the matrix has all of them.
    #[inline(always)]
    #[allow(dead_code, reason = "for kernels that store whole vectors")]
    pub(crate) fn tile_mut<const M: usize, const V: usize, const L: usize>(
        &mut self,
        first: usize,
        column: usize,
    ) -> Option<[&mut [[T; L]; V]; M]> {
        if self.rows.checked_sub(first)? < M || self.cols.checked_sub(column)? < V * L || V * L == 0 {
            return None;
        }
        let mut tile = [const { MaybeUninit::uninit() }; M];
        for (r, row) in tile.iter_mut().enumerate() {
            // SAFETY: first + r < rows and column < cols, so by the invariant of `start` the offset
            // stays inside the borrowed slice.
            let start = unsafe { self.start.add((first + r) * self.row_stride + column) };
            // SAFETY: the row has V * L elements from `column` on, inside the borrowed slice. Rows
            // do not overlap, and `self` is borrowed exclusively for the result's lifetime.
            row.write(unsafe { &mut *start.cast::<[[T; L]; V]>() });
        }
        // SAFETY: the loop has written all M entries, and an array of MaybeUninit has the layout of
        // one without.
        Some(unsafe { tile.as_ptr().cast::<[&mut [[T; L]; V]; M]>().read() })
    }

    /// A matrix over the same elements that borrows this one.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { borrow: PhantomData, ..*self }
    }

    /// The elements of `rows` and `columns`; `None` if they reach outside.
    pub fn block(&mut self, rows: Range<usize>, columns: Range<usize>) -> Option<MatMut<'_, T>> {
        if rows.start > rows.end || columns.start > columns.end {
            return None;
        }
        let (above, _) = self.reborrow().split_at_row(rows.end)?;
        let (_, block) = above.split_at_row(rows.start)?;
        let (left, _) = block.split_at_col(columns.end)?;
        Some(left.split_at_col(columns.start)?.1)
    }

    /// The rows before `row`, and the rows from it on; `None` if there are fewer.
    pub fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        if row > self.rows {
            return None;
        }
        let lower_rows = self.rows - row;
        let start = if lower_rows == 0 || self.cols == 0 {
            self.start
        } else {
            // SAFETY: row < rows, so by the invariant of `start` the offset stays inside the
            // borrowed slice.
            unsafe { self.start.add(row * self.row_stride) }
        };
        Some((Self { rows: row, ..self }, Self { start, rows: lower_rows, ..self }))
    }

    /// The columns before `col`, and the columns from it on; `None` if there are fewer.
    pub fn split_at_col(self, col: usize) -> Option<(Self, Self)> {
        if col > self.cols {
            return None;
        }
        let right_cols = self.cols - col;
        let start = if right_cols == 0 || self.rows == 0 {
            self.start
        } else {
            // SAFETY: col < cols, so by the invariant of `start` the offset stays inside the
            // borrowed slice.
            unsafe { self.start.add(col) }
        };
        Some((Self { cols: col, ..self }, Self { start, cols: right_cols, ..self }))
    }
}

impl MatMut<'_, i8> {
    /// The same elements as bytes. (Every byte is an i8, and the other way round.)
    #[inline]
    pub(crate) fn as_bytes(&mut self) -> MatMut<'_, u8> {
        let Self { start, rows, cols, row_stride, .. } = *self;
        MatMut { start: start.cast(), rows, cols, row_stride, borrow: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_is_one_element_short_is_refused() {
        let data = [0u8; 11];
        assert!(MatRef::with_strides(&data, 3, 2, 4, 3).is_err());
        assert!(MatRef::with_strides(&data, 3, 2, 4, 2).is_ok());
        assert!(matches!(MatRef::new(&data, 3, 4), Err(ViewError::TooShort { needed: 12, len: 11, .. })));
    }

    #[test]
    fn an_extent_that_overflows_is_refused() {
        assert!(matches!(MatRef::new(&[0u8; 4], usize::MAX, 2), Err(ViewError::TooLarge { .. })));
        assert!(matches!(MatMut::new(&mut [0u8; 4], usize::MAX, 3), Err(ViewError::TooLarge { .. })));
    }

    #[test]
    fn empty_matrices_need_no_elements() {
        let none: [u8; 0] = [];
        assert_eq!(MatRef::new(&none, 0, 5).unwrap().rows(), 0);
        assert_eq!(MatRef::new(&none, 5, 0).unwrap().row_slice(4), Some(&none[..]));
        let mut none: [u8; 0] = [];
        assert_eq!(MatMut::new(&mut none, 3, 0).unwrap().row_mut(2).map(|r| r.len()), Some(0));
    }

    #[test]
    fn overlapping_rows_are_refused_for_writing_only() {
        let mut data = [0u8; 10];
        assert!(MatRef::with_strides(&data, 3, 4, 2, 1).is_ok());
        assert_eq!(
            MatMut::with_stride(&mut data, 3, 4, 2).unwrap_err(),
            ViewError::RowsOverlap { cols: 4, row_stride: 2 }
        );
    }

    #[test]
    fn splits_cover_every_element_once() {
        let mut data = [0u8; 5 * 9];
        let whole = MatMut::with_stride(&mut data, 5, 7, 9).unwrap();
        let (top, bottom) = whole.split_at_row(2).unwrap();
        for part in [top, bottom] {
            let (left, right) = part.split_at_col(3).unwrap();
            for mut quarter in [left, right] {
                for i in 0..quarter.rows() {
                    quarter.row_mut(i).unwrap().iter_mut().for_each(|x| *x += 1);
                }
            }
        }
        for (i, &x) in data.iter().enumerate() {
            assert_eq!(x, u8::from(i % 9 < 7), "element {i}");
        }
    }

    #[test]
    fn a_block_has_its_elements_and_no_others() {
        let mut data = [0u8; 4 * 6];
        let mut whole = MatMut::with_stride(&mut data, 4, 5, 6).unwrap();
        assert!(whole.block(0..5, 0..1).is_none() && whole.block(0..1, 0..6).is_none());
        let mut block = whole.block(1..3, 2..5).unwrap();
        assert_eq!((block.rows(), block.cols()), (2, 3));
        for i in 0..2 {
            block.row_mut(i).unwrap().fill(1);
        }
        for (i, &x) in data.iter().enumerate() {
            assert_eq!(x, u8::from((1..3).contains(&(i / 6)) && (2..5).contains(&(i % 6))), "element {i}");
        }
    }

    #[test]
    fn a_tile_is_whole_or_none() {
        let mut data: Vec<usize> = (0..4 * 7).collect();
        let mut matrix = MatMut::with_stride(&mut data, 4, 6, 7).unwrap();
        let tile = matrix.tile_mut::<2, 2, 3>(1, 0).unwrap();
        assert_eq!(tile, [&[[7, 8, 9], [10, 11, 12]], &[[14, 15, 16], [17, 18, 19]]]);
        tile[1][1][2] = 99;
        assert_eq!(matrix.row_mut(2).unwrap()[5], 99);
        assert!(matrix.tile_mut::<2, 1, 3>(2, 3).is_some() && matrix.tile_mut::<2, 1, 3>(3, 0).is_none());
        assert_eq!(matrix.tile_mut::<1, 2, 2>(3, 2).unwrap(), [&[[23, 24], [25, 26]]]);
        assert!(matrix.tile_mut::<1, 2, 2>(3, 3).is_none() && matrix.tile_mut::<1, 1, 1>(0, 7).is_none());
        assert!(matrix.tile_mut::<1, 1, 3>(5, 0).is_none() && matrix.tile_mut::<1, 1, 7>(0, 0).is_none());
    }

    #[test]
    fn row_ranges_stay_inside() {
        let data: Vec<u8> = (0..12).collect();
        let a = MatRef::new(&data, 3, 4).unwrap();
        assert_eq!(a.row_range(1..3).unwrap().get(0, 0), Some(4));
        assert_eq!(a.row_range(3..3).unwrap().rows(), 0);
        assert!(a.row_range(2..4).is_none());
    }
}
