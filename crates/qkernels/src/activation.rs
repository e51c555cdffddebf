//! The left operand: u8 or i8 activations with their zero point, and how a block of their rows reaches a kernel.

use bytemuck::Pod;
use qcore::Code;

use crate::kernel::{ActivationForm, Kernel};
use crate::stage::sealed::StoredCode;
use crate::vectorize::Task;
use crate::view::MatRef;

/// Element type of activations: u8 or i8.
pub trait Activation: Code + Pod + StoredCode {
    /// What is added to a value in the u8 form of a kernel: 0 or 128.
    const SHIFT: i32;
    /// The value plus `SHIFT`.
    #[doc(hidden)]
    fn shifted(self) -> u8;
    /// The value.
    #[doc(hidden)]
    fn word(self) -> i16;
}

impl Activation for u8 {
    const SHIFT: i32 = 0;
    #[inline(always)]
    fn shifted(self) -> u8 {
        self
    }
    #[inline(always)]
    fn word(self) -> i16 {
        i16::from(self)
    }
}

impl Activation for i8 {
    const SHIFT: i32 = 128;
    #[inline(always)]
    fn shifted(self) -> u8 {
        self.cast_unsigned() ^ 0x80
    }
    #[inline(always)]
    fn word(self) -> i16 {
        i16::from(self)
    }
}

/// Activations (m, k) and their zero point: the real value of an element q is `scale * (q - zero_point)`.
///
/// A plain [`MatRef`] converts into activations with zero point 0.
///
/// ```
/// use qkernels::{Activations, MatRef};
/// let q = [130u8, 128, 255, 0];
/// let a = Activations::new(MatRef::new(&q, 2, 2)?, 128);
/// # Ok::<(), qkernels::ViewError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a, A> {
    pub(crate) view: MatRef<'a, A>,
    pub(crate) zero_point: i32,
}

impl<'a, A: Activation> Activations<'a, A> {
    /// The codes of `view` with zero point `zero_point`, which may lie outside of the codes' range.
    pub fn new(view: MatRef<'a, A>, zero_point: i32) -> Self {
        Self { view, zero_point }
    }
}

impl<'a, A: Activation> From<MatRef<'a, A>> for Activations<'a, A> {
    fn from(view: MatRef<'a, A>) -> Self {
        Self::new(view, 0)
    }
}

/// Some rows of `a` in the form of a kernel: row i starts at byte `i * stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'r> {
    pub(crate) bytes: &'r [u8],
    pub(crate) stride: usize,
}

impl<'r> Rows<'r> {
    /// The rows where they lie, if the kernel can read them there.
    pub(crate) fn in_place<A: Activation>(a: &MatRef<'r, A>, kernel: Kernel) -> Option<Self> {
        let desc = kernel.desc();
        let readable = desc.form == ActivationForm::U8
            && A::SHIFT == 0
            && a.cols().is_multiple_of(desc.kr)
            && a.cols() > 0
            && a.col_stride() == 1
            && !shares_cache_sets(a.row_stride(), desc.mr.min(a.rows()));
        readable.then(|| Rows { bytes: bytemuck::cast_slice(a.skip_rows(0)), stride: a.row_stride() })
    }

    /// The rows copied to `buffer` in the kernel's form, padded with zeros to whole groups of k.
    pub(crate) fn copied<A: Activation>(a: &MatRef<'_, A>, kernel: Kernel, buffer: &'r mut Vec<u8>) -> Self {
        let desc = kernel.desc();
        let row_bytes = a.cols().next_multiple_of(desc.kr) * desc.form.bytes();
        let stride = staggered(row_bytes);
        // What the last use left behind is overwritten, so only growth writes zeros here.
        if buffer.len() < a.rows() * stride {
            buffer.resize(a.rows() * stride, 0);
        }
        kernel.vectorize(CopyRows { a, form: desc.form, row_bytes, stride, buffer });
        Rows { bytes: buffer, stride }
    }

    /// The rows from row `i` on.
    pub(crate) fn skip_rows(&self, i: usize) -> Self {
        Rows { bytes: &self.bytes[i * self.stride..], ..*self }
    }
}

/// Bytes between addresses that fall into the same set of a typical L1 data cache (64 sets of 64-byte lines).
const SET_SPAN: usize = 4096;
const LINE: usize = 64;

/// Whether `rows` rows `stride` bytes apart would evict each other from L1: most of them start in a few sets.
fn shares_cache_sets(stride: usize, rows: usize) -> bool {
    let offset = stride % SET_SPAN;
    rows > 2 && offset.min(SET_SPAN - offset) < LINE
}

/// The smallest stride for rows of `row_bytes` that keeps their starts in different cache sets.
fn staggered(row_bytes: usize) -> usize {
    let lines = row_bytes.next_multiple_of(LINE);
    if shares_cache_sets(lines, usize::MAX) { lines + LINE } else { lines }
}

struct CopyRows<'t, 'a, A> {
    a: &'t MatRef<'a, A>,
    form: ActivationForm,
    row_bytes: usize,
    stride: usize,
    buffer: &'t mut [u8],
}

impl<A: Activation> Task for CopyRows<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for i in 0..self.a.rows() {
            let row = &mut self.buffer[i * self.stride..][..self.row_bytes];
            match self.form {
                ActivationForm::U8 => copy_row(self.a, i, row.as_chunks_mut().0, |x| [x.shifted()]),
                ActivationForm::I16 => copy_row(self.a, i, row.as_chunks_mut().0, |x| x.word().to_ne_bytes()),
            }
        }
    }
}

/// Writes `encode` of each element of row `i`, then zeros.
#[inline(always)]
fn copy_row<A: Activation, const BYTES: usize>(
    a: &MatRef<'_, A>,
    i: usize,
    row: &mut [[u8; BYTES]],
    encode: impl Fn(A) -> [u8; BYTES],
) {
    let (elements, padding) = row.split_at_mut(a.cols());
    if let Some(source) = a.row_slice(i) {
        for (to, &from) in elements.iter_mut().zip(source) {
            *to = encode(from);
        }
    } else {
        for (to, from) in elements.iter_mut().zip(a.row_elements(i)) {
            *to = encode(from);
        }
    }
    padding.fill([0; BYTES]);
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
