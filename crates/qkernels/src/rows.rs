//! How a block of rows of the left operand reaches a kernel.

use core::ops::Range;

use crate::kernel::{ActivationForm, Kernel};
use crate::vectorize::Task;

/// Some rows in the form of a kernel: row i starts at byte `i * stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'r> {
    pub(crate) bytes: &'r [u8],
    pub(crate) stride: usize,
}

impl Rows<'_> {
    /// The rows from row `i` on.
    pub(crate) fn skip_rows(&self, i: usize) -> Self {
        Rows { bytes: &self.bytes[i * self.stride..], ..*self }
    }
}

/// A left operand: what it is, and how its rows get into a kernel's form.
pub trait Source: Sync {
    /// m.
    fn rows(&self) -> usize;

    /// k.
    fn cols(&self) -> usize;

    /// What the u8 form of a kernel adds to a code: 0 or 128.
    fn shift(&self) -> i32;

    /// The zero point of all rows; 0 where each has its own.
    fn zero_point(&self) -> i32;

    /// The largest `|code - zero_point|` that a row may hold.
    fn largest_distance(&self) -> u32;

    /// The rows where they lie, if `kernel` can read them there.
    #[expect(private_interfaces, reason = "sealed: only this crate names it")]
    fn in_place(&self, rows: Range<usize>, kernel: Kernel) -> Option<Rows<'_>>;

    /// Writes row `i` in the form of a kernel: a byte for each code plus `shift`.
    fn copy_shifted(&self, i: usize, to: &mut [u8]);

    /// Writes row `i` in the form of a kernel: a word for each code.
    fn copy_words(&self, i: usize, to: &mut [[u8; 2]]);
}

/// The rows `rows` of `source` in the form of `kernel`: where they lie, or copied to `buffer` and padded with zeros to whole
/// groups of k.
pub(crate) fn load<'r, S: Source>(
    source: &'r S,
    rows: Range<usize>,
    kernel: Kernel,
    buffer: &'r mut Vec<u8>,
) -> Rows<'r> {
    if let Some(rows) = source.in_place(rows.clone(), kernel) {
        return rows;
    }
    let desc = kernel.desc();
    let row_bytes = source.cols().next_multiple_of(desc.kr) * desc.form.bytes();
    let stride = staggered(row_bytes);
    // What the last use left behind is overwritten, so only growth writes zeros here.
    if buffer.len() < rows.len() * stride {
        buffer.resize(rows.len() * stride, 0);
    }
    kernel.vectorize(Copy { source, rows, form: desc.form, row_bytes, stride, buffer });
    Rows { bytes: buffer, stride }
}

/// Bytes between addresses that fall into the same set of a typical L1 data cache (64 sets of 64-byte lines).
const SET_SPAN: usize = 4096;
const LINE: usize = 64;

/// Whether `rows` rows `stride` bytes apart would evict each other from L1: most of them start in a few sets.
pub(crate) fn shares_cache_sets(stride: usize, rows: usize) -> bool {
    let offset = stride % SET_SPAN;
    rows > 2 && offset.min(SET_SPAN - offset) < LINE
}

/// The smallest stride for rows of `row_bytes` that keeps their starts in different cache sets.
fn staggered(row_bytes: usize) -> usize {
    let lines = row_bytes.next_multiple_of(LINE);
    if shares_cache_sets(lines, usize::MAX) { lines + LINE } else { lines }
}

struct Copy<'t, S> {
    source: &'t S,
    rows: Range<usize>,
    form: ActivationForm,
    row_bytes: usize,
    stride: usize,
    buffer: &'t mut [u8],
}

impl<S: Source> Task for Copy<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let cols = self.source.cols();
        for (i, row) in self.rows.zip(self.buffer.chunks_mut(self.stride)) {
            let (codes, padding) = row[..self.row_bytes].split_at_mut(cols * self.form.bytes());
            match self.form {
                ActivationForm::U8 => self.source.copy_shifted(i, codes),
                ActivationForm::I16 => self.source.copy_words(i, codes.as_chunks_mut().0),
            }
            padding.fill(0);
        }
    }
}

/// Sums of rows in a kernel's form.
pub(crate) struct RowSums<'t> {
    pub(crate) rows: Rows<'t>,
    pub(crate) form: ActivationForm,
    /// Bytes of a row, whole groups of k.
    pub(crate) row_bytes: usize,
    pub(crate) sums: &'t mut [i32],
}

impl Task for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, sum) in self.sums.iter_mut().enumerate() {
            let row = &self.rows.bytes[i * self.rows.stride..][..self.row_bytes];
            // Wrapping, like the sums that they correct.
            *sum = match self.form {
                ActivationForm::U8 => row.iter().fold(0i32, |sum, &x| sum.wrapping_add(i32::from(x))),
                ActivationForm::I16 => {
                    let words = row.as_chunks::<2>().0.iter().map(|&x| i16::from_ne_bytes(x));
                    words.fold(0i32, |sum, x| sum.wrapping_add(i32::from(x)))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_rows_never_start_in_one_set() {
        for row_bytes in [1, 64, 4000, 4032, 4096, 4097, 8128, 8192, 12288] {
            let stride = staggered(row_bytes);
            assert!(stride >= row_bytes && !shares_cache_sets(stride, 8), "{row_bytes} -> {stride}");
        }
    }
}
