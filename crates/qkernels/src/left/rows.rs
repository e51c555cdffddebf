//! How a block of rows of the left operand reaches a kernel.

use core::ops::Range;

use crate::cpu::vectorize::Task;
use crate::kernel::desc::{ActivationForm, KernelDesc};
use crate::kernel::strip::Rows;
use crate::kernel::token::Kernel;

/// The form in which rows are read, and what else may be accepted in those that lie in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    pub(crate) form: ActivationForm,
    /// Rows of i8, for a kernel of u8 form.
    pub(crate) signed: bool,
    /// Rows that are not whole groups of k. What lies behind a row is multiplied by the zeros
    /// behind the weights.
    pub(crate) ragged: bool,
}

/// A left operand: what it is, and how its rows get into a kernel's form.
pub trait Source: Sync {
    /// The number of rows, m.
    fn rows(&self) -> usize;

    /// The number of columns, k.
    fn cols(&self) -> usize;

    /// The amount that the u8 form of a kernel adds to a code: 0 or 128.
    fn shift(&self) -> i32;

    /// The zero point of all rows; 0 if each row has its own.
    fn zero_point(&self) -> i32;

    /// The largest `|code - zero_point|` that a row may hold.
    fn largest_distance(&self) -> u32;

    /// The largest byte that a row may have in u8 form.
    fn largest_byte(&self) -> u8;

    /// The first of `rows` where they lie, and how many of them `kernel` can read there: all rows,
    /// or those of whole tiles. `None` if it can read none.
    #[expect(private_interfaces, reason = "sealed: only this crate names it")]
    fn in_place(&self, rows: Range<usize>, kernel: Kernel, allowed: Allowed) -> Option<(Rows<'_>, usize)>;

    /// Writes row `i` in the form of a kernel, as a byte for each code plus `shift`.
    fn copy_shifted(&self, i: usize, to: &mut [u8]);

    /// Writes row `i` in the form of a kernel, as a word for each code.
    fn copy_words(&self, i: usize, to: &mut [[u8; 2]]);
}

/// The first of the rows `rows` of `source` in a form that is `allowed`, for `kernel`, and how many
/// they are. Either they stay where they lie, or all of them are copied to `buffer` and padded with
/// zeros to whole groups of k.
pub(crate) fn load<'r, S: Source>(
    source: &'r S,
    rows: Range<usize>,
    kernel: Kernel,
    allowed: Allowed,
    buffer: &'r mut Vec<u8>,
) -> (Rows<'r>, usize) {
    if let Some(in_place) = source.in_place(rows.clone(), kernel, allowed) {
        return in_place;
    }
    let count = rows.len();
    let desc = kernel.desc();
    if source.cols() == 0 {
        // Empty rows take no memory, however many there are.
        return (Rows { bytes: &[], stride: 0, band: desc.band, signed: false }, count);
    }
    let row_bytes = desc.groups(source.cols()) * desc.group_bytes();
    let stride = staggered(desc.band * row_bytes);
    // Behind the bands there is room for the rows of one band before they are interleaved.
    let scratch = if desc.band == 1 { 0 } else { desc.band * row_bytes };
    let bytes = desc.bands(rows.len()) * stride + scratch;
    // The leftovers of the last use are overwritten, so only growth writes zeros here.
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    kernel.vectorize(Copy { source, rows, desc, form: allowed.form, row_bytes, stride, buffer });
    (Rows { bytes: buffer, stride, band: desc.band, signed: false }, count)
}

/// Bytes between addresses that fall into the same set of a typical L1 data cache (64 sets of
/// 64-byte lines).
const SET_SPAN: usize = 4096;
const LINE: usize = 64;

/// Whether `rows` rows, `stride` bytes apart, would evict each other from L1 because most of them
/// start in a few sets.
pub(crate) fn shares_cache_sets(stride: usize, rows: usize) -> bool {
    let offset = stride % SET_SPAN;
    rows > 2 && offset.min(SET_SPAN - offset) < LINE
}

/// The smallest stride for rows of `row_bytes` that keeps their starts in different cache sets.
pub(crate) fn staggered(row_bytes: usize) -> usize {
    let lines = row_bytes.next_multiple_of(LINE);
    if shares_cache_sets(lines, usize::MAX) { lines + LINE } else { lines }
}

struct Copy<'t, S> {
    source: &'t S,
    rows: Range<usize>,
    desc: &'t KernelDesc,
    form: ActivationForm,
    row_bytes: usize,
    stride: usize,
    buffer: &'t mut [u8],
}

impl<S: Source> Task for Copy<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { source, ref rows, desc, form, row_bytes, stride, buffer } = self;
        if desc.band == 1 {
            // Small products should not pay for the divisions that chunks take.
            for i in 0..rows.len() {
                copy_row(source, rows.start + i, form, &mut buffer[i * stride..][..row_bytes]);
            }
            return;
        }
        let (bands, scratch) = buffer.split_at_mut(desc.bands(rows.len()) * stride);
        for (first, to) in (0..rows.len()).step_by(desc.band).zip(bands.chunks_exact_mut(stride)) {
            if desc.rows_together_from(first, rows.len()) == 1 {
                copy_row(source, rows.start + first, form, &mut to[..row_bytes]);
                continue;
            }
            for (i, row) in (first..).zip(scratch.chunks_exact_mut(row_bytes).take(desc.band)) {
                if i < rows.len() {
                    copy_row(source, rows.start + i, form, row);
                } else {
                    row.fill(0);
                }
            }
            interleave(scratch, desc.band, desc.group_bytes(), &mut to[..desc.band * row_bytes]);
        }
    }
}

/// Writes row `i` in a kernel's form, then zeros as padding.
#[inline(always)]
pub(crate) fn copy_row<S: Source>(source: &S, i: usize, form: ActivationForm, row: &mut [u8]) {
    let (codes, padding) = row.split_at_mut(source.cols() * form.bytes());
    match form {
        ActivationForm::U8 => source.copy_shifted(i, codes),
        ActivationForm::I8 => {
            source.copy_shifted(i, codes);
            codes.iter_mut().for_each(|x| *x ^= 0x80);
        }
        ActivationForm::I16 => source.copy_words(i, codes.as_chunks_mut().0),
    }
    padding.fill(0);
}

/// Puts the groups of the rows of a band, which follow each other in `rows`, side by side.
#[inline(always)]
fn interleave(rows: &[u8], band: usize, group_bytes: usize, to: &mut [u8]) {
    match (band, group_bytes) {
        (4, 4) => interleave_groups::<4, 4>(rows, to),
        (2, 8) => interleave_groups::<2, 8>(rows, to),
        _ => {
            let row_bytes = to.len() / band;
            for (at, to) in to.chunks_exact_mut(group_bytes).enumerate() {
                to.copy_from_slice(&rows[at % band * row_bytes + at / band * group_bytes..][..group_bytes]);
            }
        }
    }
}

/// [`interleave`] as a loop that the compiler turns into structure stores.
#[inline(always)]
fn interleave_groups<const BAND: usize, const BYTES: usize>(rows: &[u8], to: &mut [u8]) {
    let (to, _) = to.as_chunks_mut::<BYTES>().0.as_chunks_mut::<BAND>();
    let groups = to.len();
    let mut row_groups: [&[[u8; BYTES]]; BAND] = [&[]; BAND];
    for (r, row) in row_groups.iter_mut().enumerate() {
        *row = &rows[r * groups * BYTES..].as_chunks().0[..groups];
    }
    for (g, to) in to.iter_mut().enumerate() {
        for r in 0..BAND {
            to[r] = row_groups[r][g];
        }
    }
}

/// Computes the sums of rows in a form of a kernel.
pub(crate) struct RowSums<'t> {
    pub(crate) rows: Rows<'t>,
    pub(crate) desc: &'t KernelDesc,
    pub(crate) form: ActivationForm,
    /// The groups of kr consecutive k that are summed.
    pub(crate) groups: Range<usize>,
    /// So many of them have a sum of their own. The last one has those that remain.
    pub(crate) part_groups: usize,
    /// How many rows there are.
    pub(crate) count: usize,
    /// For each part the sums of all rows.
    pub(crate) sums: &'t mut [i32],
}

impl Task for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, desc, form, ref groups, part_groups, count, sums } = self;
        let mut start = groups.start;
        for sums in sums.chunks_exact_mut(count.max(1)) {
            let end = groups.end.min(start.saturating_add(part_groups));
            for (i, sum) in sums.iter_mut().enumerate() {
                let together = desc.rows_together_from(i / desc.band * desc.band, count);
                let bytes = together * desc.group_bytes();
                let band = &rows.bytes[i / rows.band * rows.stride..][bytes * start..bytes * end];
                // These wrap, like the sums that they correct.
                *sum = if together == 1 {
                    sum_of(band, form)
                } else {
                    let groups = band.chunks_exact(desc.group_bytes()).skip(i % together).step_by(together);
                    groups.fold(0i32, |sum, group| sum.wrapping_add(sum_of(group, form)))
                };
            }
            start = end;
        }
    }
}

/// The sum of codes in a kernel's form, wrapping.
#[inline(always)]
fn sum_of(codes: &[u8], form: ActivationForm) -> i32 {
    let add = |sum: i32, x: i32| sum.wrapping_add(x);
    match form {
        ActivationForm::U8 => codes.iter().map(|&x| i32::from(x)).fold(0, add),
        ActivationForm::I8 => codes.iter().map(|&x| i32::from(x.cast_signed())).fold(0, add),
        ActivationForm::I16 => {
            let words = codes.as_chunks::<2>().0.iter().map(|&x| i16::from_ne_bytes(x));
            words.map(i32::from).fold(0, add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{self, portable};
    use crate::left::codes::Activations;
    use crate::matrix::view::MatRef;

    #[test]
    fn copied_rows_never_start_in_one_set() {
        for row_bytes in [1, 64, 4000, 4032, 4096, 4097, 8128, 8192, 12288] {
            let stride = staggered(row_bytes);
            assert!(stride >= row_bytes && !shares_cache_sets(stride, 8), "{row_bytes} -> {stride}");
        }
    }

    #[test]
    fn every_byte_of_a_copy_is_where_kernels_look_for_it() {
        // All kernels, and tiles that no kernel has: portable code can copy for any.
        kernels::all().for_each(check_copies);
        for (mr, band, kr) in [(4, 4, 4), (8, 2, 8), (6, 2, 2), (8, 4, 2)] {
            check_copies(&KernelDesc { mr, band, kr, form: ActivationForm::I8, ..portable::KERNEL });
        }
    }

    fn check_copies(desc: &KernelDesc) {
        for (m, k) in [(1, 5), (2, 16), (3, 7), (4, 8), (5, 33), (9, 64), (17, 13)] {
            let codes: Vec<u8> = (0..(m + 1) * k).map(|at| (at * 7 % 251) as u8).collect();
            let source = Activations::from(MatRef::new(&codes, m + 1, k).unwrap());
            let groups = desc.groups(k);
            let row_bytes = groups * desc.group_bytes();
            let stride = staggered(desc.band * row_bytes);
            let mut buffer = vec![99; desc.bands(m) * stride + desc.band * row_bytes];
            let (form, rows) = (desc.form, 1..m + 1);
            Copy { source: &source, rows, desc, form, row_bytes, stride, buffer: &mut buffer }.run();
            let rows = Rows { bytes: &buffer, stride, band: desc.band, signed: false };
            let (part_groups, count) = (groups, m);
            let mut sums = vec![0; m];
            RowSums { rows, desc, form, groups: 0..groups, part_groups, count, sums: &mut sums }.run();
            for (i, &sum) in sums.iter().enumerate() {
                let mut expected = vec![0; row_bytes];
                copy_row(&source, 1 + i, desc.form, &mut expected);
                assert_eq!(sum, sum_of(&expected, desc.form), "{} row {i}", desc.name);
                let together = desc.rows_together(desc.mr.min(m - i / desc.mr * desc.mr));
                let bytes = rows.skip_rows(i / desc.band * desc.band).bytes;
                for (g, expected) in expected.chunks(desc.group_bytes()).enumerate() {
                    let at = (g * together + i % together) * desc.group_bytes();
                    assert_eq!(bytes[at..][..expected.len()], *expected, "{} row {i} group {g}", desc.name);
                }
            }
        }
    }
}
