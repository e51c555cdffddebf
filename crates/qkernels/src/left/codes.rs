//! The left operand: u8 or i8 activations with their zero point, or floats that are quantized on
//! their way to the kernel.

use core::ops::Range;

use bytemuck::Pod;
use qcore::{Code, CodeRange};

use crate::kernel::desc::ActivationForm;
use crate::kernel::strip::Rows;
use crate::kernel::token::Kernel;
use crate::left::rows::{Allowed, Source, shares_cache_sets};
use crate::matrix::signs::largest_byte;
use crate::matrix::view::MatRef;
use crate::output::stage::StoredCode;

/// Element type of activations: u8 or i8.
pub trait Activation: Code + Pod + StoredCode {
    /// The amount that the u8 form of a kernel adds to a value: 0 or 128.
    const SHIFT: i32;
    /// The value plus `SHIFT`.
    #[doc(hidden)]
    fn shifted(self) -> u8;
    /// [`shifted`](Self::shifted) of each value.
    #[doc(hidden)]
    fn copy_shifted(from: &[Self], to: &mut [u8]);
}

impl Activation for u8 {
    const SHIFT: i32 = 0;
    #[inline(always)]
    fn shifted(self) -> u8 {
        self
    }
    #[inline(always)]
    fn copy_shifted(from: &[u8], to: &mut [u8]) {
        to.copy_from_slice(&from[..to.len()]);
    }
}

impl Activation for i8 {
    const SHIFT: i32 = 128;
    #[inline(always)]
    fn shifted(self) -> u8 {
        self.cast_unsigned() ^ 0x80
    }
    #[inline(always)]
    fn copy_shifted(from: &[i8], to: &mut [u8]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.shifted());
    }
}

/// Activations (m, k) and their zero point: the real value of an element q is
/// `scale * (q - zero_point)`.
///
/// A plain [`MatRef`] stands for activations with zero point 0.
///
/// ```
/// use qkernels::{Activations, MatRef};
/// let q = [130u8, 128, 255, 0];
/// let a = Activations::new(MatRef::new(&q, 2, 2)?, 128);
/// # Ok::<(), qkernels::ViewError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a, A> {
    view: MatRef<'a, A>,
    zero_point: i32,
    /// The range every code lies in.
    codes: CodeRange,
    /// How far a code may be from its zero point.
    distance: u32,
    /// The columns in the order in which they are read; empty if that is their own.
    order: &'a [u32],
}

/// A code lies outside the range that the activations are to be within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code {code} in row {row}, column {col} is not in {min}..={max}")]
pub struct OutsideError {
    /// The row of the code.
    pub row: usize,
    /// The column of the code.
    pub col: usize,
    /// The code.
    pub code: i32,
    /// Smallest code of the range.
    pub min: i32,
    /// Largest code of the range.
    pub max: i32,
}

impl<'a, A: Activation> Activations<'a, A> {
    /// The codes of `view` with zero point `zero_point`, which may lie outside of the codes' range.
    pub fn new(view: MatRef<'a, A>, zero_point: i32) -> Self {
        Self::known(view, zero_point, A::RANGE, A::RANGE.largest_distance(zero_point))
    }

    /// As [`new`](Self::new), for activations whose codes all lie in `codes`. Products with weights
    /// that are packed [for such activations](crate::Weights::for_activations) require this. Every
    /// code is checked. Codes that `A` lacks are no codes of these activations: u8 within -64..=63
    /// are u8 within 0..=63.
    ///
    /// ```
    /// use qcore::CodeRange;
    /// use qkernels::{Activations, MatRef};
    /// let (q, bits) = ([127u8, 64, 128, 0], CodeRange::unsigned(7)?);
    /// assert!(Activations::within(MatRef::new(&q[..2], 1, 2)?, 64, bits).is_ok());
    /// let error = Activations::within(MatRef::new(&q, 2, 2)?, 64, bits).unwrap_err();
    /// assert_eq!(error.to_string(), "code 128 in row 1, column 0 is not in 0..=127");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OutsideError`] with the first code that is not in `codes`.
    pub fn within(view: MatRef<'a, A>, zero_point: i32, codes: CodeRange) -> Result<Self, OutsideError> {
        let (min, max) = (codes.min(), codes.max());
        let outside = |code: A| !codes.contains(code.widen());
        // The error names the first of repeated rows or columns.
        let distinct = view.without_repeats();
        for row in 0..distinct.rows() {
            // There is no early exit while all is well, so this is vector code.
            let any = match distinct.row_slice(row) {
                Some(codes) => codes.iter().fold(false, |any, &code| any | outside(code)),
                None => true,
            };
            let found = any.then(|| distinct.row_elements(row).position(outside)).flatten();
            if let Some(col) = found {
                let code = distinct.get(row, col).map_or(0, A::widen);
                return Err(OutsideError { row, col, code, min, max });
            }
        }
        let codes = A::RANGE.intersection(codes);
        Ok(Self::known(view, zero_point, codes, codes.largest_distance(zero_point)))
    }

    /// Codes that are known to lie in `codes` and at most `distance` from their zero point, which
    /// is `zero_point`, or (if that is 0) a term of each row.
    pub(crate) fn known(view: MatRef<'a, A>, zero_point: i32, codes: CodeRange, distance: u32) -> Self {
        Self { view, zero_point, codes, distance, order: &[] }
    }

    /// As if the columns lay in this order, if there is one.
    pub(crate) fn in_order(self, order: Option<&'a [u32]>) -> Self {
        Self { order: order.unwrap_or_default(), ..self }
    }
}

impl<'a, A: Activation> From<MatRef<'a, A>> for Activations<'a, A> {
    fn from(view: MatRef<'a, A>) -> Self {
        Self::new(view, 0)
    }
}

/// The left operand of a product: codes ([`MatRef`] of u8 or i8, [`Activations`]) or floats that
/// are quantized as they are read ([`FloatActivations`](crate::FloatActivations)). Sealed.
pub trait Left: sealed::Left {}

impl<L: sealed::Left> Left for L {}

pub(crate) mod sealed {
    use crate::left::rows::Source;

    pub trait Left {
        type Source: Source;
        fn source(self) -> Self::Source;
    }

    impl<S: Source> Left for S {
        type Source = S;
        fn source(self) -> S {
            self
        }
    }
}

impl<'a, A: Activation> sealed::Left for MatRef<'a, A> {
    type Source = Activations<'a, A>;

    fn source(self) -> Activations<'a, A> {
        self.into()
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate names it")]
impl<A: Activation> Source for Activations<'_, A> {
    fn rows(&self) -> usize {
        self.view.rows()
    }

    fn cols(&self) -> usize {
        self.view.cols()
    }

    fn shift(&self) -> i32 {
        A::SHIFT
    }

    fn zero_point(&self) -> i32 {
        self.zero_point
    }

    fn largest_distance(&self) -> u32 {
        self.distance
    }

    fn largest_byte(&self) -> u8 {
        largest_byte(self.codes, A::SHIFT)
    }

    fn in_place(&self, rows: Range<usize>, kernel: Kernel, allowed: Allowed) -> Option<(Rows<'_>, usize)> {
        let (desc, view) = (kernel.desc(), self.view);
        let signed = allowed.form == ActivationForm::U8 && A::SHIFT != 0;
        let readable = allowed.form.bytes() == 1
            && (allowed.form.shift(A::SHIFT) == 0 || signed && allowed.signed)
            && desc.rows_together(rows.len()) == 1
            && (desc.whole_groups(view.cols()) || allowed.ragged)
            && view.cols() > 0
            && view.col_stride() == 1
            && self.order.is_empty()
            && !shares_cache_sets(view.row_stride(), desc.mr.min(rows.len()));
        if !readable {
            return None;
        }
        let (bytes, stride) = (bytemuck::cast_slice(view.skip_rows(rows.start)), view.row_stride());
        let mut count = rows.len();
        if !desc.whole_groups(view.cols()) {
            // These are the rows whose last group ends within the slice.
            let last =
                bytes.len().checked_sub(desc.groups(view.cols()) * desc.group_bytes())? / stride.max(1);
            if last + 1 < count {
                count = (last + 1) / desc.mr * desc.mr;
            }
        }
        (count > 0).then_some((Rows { bytes, stride, band: 1, signed }, count))
    }

    #[inline(always)]
    fn copy_shifted(&self, i: usize, to: &mut [u8]) {
        if !self.order.is_empty() {
            let row = self.view.row_elements_in(i, self.order);
            return to.iter_mut().zip(row).for_each(|(to, x)| *to = x.shifted());
        }
        match self.view.row_slice(i) {
            Some(row) => A::copy_shifted(row, to),
            None => to.iter_mut().zip(self.view.row_elements(i)).for_each(|(to, x)| *to = x.shifted()),
        }
    }

    #[inline(always)]
    fn copy_words(&self, i: usize, to: &mut [[u8; 2]]) {
        let word = |x: A| (x.widen() as i16).to_ne_bytes();
        if !self.order.is_empty() {
            let row = self.view.row_elements_in(i, self.order);
            return to.iter_mut().zip(row).for_each(|(to, x)| *to = word(x));
        }
        match self.view.row_slice(i) {
            Some(row) => to.iter_mut().zip(row).for_each(|(to, &x)| *to = word(x)),
            None => to.iter_mut().zip(self.view.row_elements(i)).for_each(|(to, x)| *to = word(x)),
        }
    }
}
