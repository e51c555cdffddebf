//! Floats on the left. They are quantized row by row on their way into the kernel's form, so no
//! matrix of codes is ever in memory.

use core::ops::Range;

use qcore::{CodeRange, Float, QParams, Rounding};

use crate::kernel::strip::Rows;
use crate::kernel::token::Kernel;
use crate::left::rows::{Allowed, Source};
use crate::matrix::signs::{CodesError, largest_byte, shift};
use crate::matrix::view::MatRef;

/// Float activations (m, k) with a known scale and zero point. The product is that of their codes
/// ([`QParams::quantize`] of each element), which are made as rows are read.
///
/// ```
/// use qcore::{CodeRange, QParams};
/// use qkernels::{FloatActivations, Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, gemm};
/// let params = QParams::new(0.5, 10, CodeRange::U8)?;
/// let x = FloatActivations::new(MatRef::new(&[1.0f32, -2.0, 0.25], 1, 3)?, params)?; // 2, -4, 0 steps
/// let w = PackedWeights::from_nk(MatRef::new(&[5i8, 6, 7], 1, 3)?, Kernel::select()?)?;
/// let mut y = [0];
/// gemm(x, &w, &Int32::new(), MatMut::new(&mut y, 1, 1)?, Threads::Serial, &mut Workspace::new())?;
/// assert_eq!(y, [2 * 5 - 4 * 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FloatActivations<'a, F> {
    view: MatRef<'a, F>,
    params: RowParams<'a>,
    codes: CodeRange,
    shift: i32,
    /// The columns in the order in which they are read; empty if that is their own.
    order: &'a [u32],
}

/// How rows are quantized.
#[derive(Clone, Copy, Debug)]
enum RowParams<'a> {
    /// All rows have the same parameters.
    Same(QParams),
    /// Each row has its own.
    Own(&'a [QParams]),
}

impl<'a, F: Float> FloatActivations<'a, F> {
    /// The values of `view`, quantized by `params`.
    ///
    /// # Errors
    /// [`CodesError`] if the codes of `params` fit neither u8 nor i8.
    pub fn new(view: MatRef<'a, F>, params: QParams) -> Result<Self, CodesError> {
        Self::with(view, RowParams::Same(params), params.codes())
    }

    /// The rows of `view`, each quantized by its entry of `params`. The codes of all entries are
    /// `codes`.
    pub(crate) fn per_row(
        view: MatRef<'a, F>,
        params: &'a [QParams],
        codes: CodeRange,
    ) -> Result<Self, CodesError> {
        Self::with(view, RowParams::Own(params), codes)
    }

    fn with(view: MatRef<'a, F>, params: RowParams<'a>, codes: CodeRange) -> Result<Self, CodesError> {
        Ok(Self { view, params, codes, shift: shift(codes)?, order: &[] })
    }

    /// As if the columns lay in this order, if there is one.
    pub(crate) fn in_order(self, order: Option<&'a [u32]>) -> Self {
        Self { order: order.unwrap_or_default(), ..self }
    }

    /// Row `i`, in the order of columns.
    #[inline(always)]
    fn blocks(&self, i: usize) -> RowBlocks<'_, 'a, F> {
        RowBlocks::new(&self.view, i).in_order(self.order)
    }

    /// The parameters of row `i`.
    #[inline(always)]
    fn params(&self, i: usize) -> &QParams {
        match &self.params {
            RowParams::Same(params) => params,
            RowParams::Own(params) => &params[i],
        }
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate names it")]
impl<F: Float> Source for FloatActivations<'_, F> {
    fn rows(&self) -> usize {
        self.view.rows()
    }

    fn cols(&self) -> usize {
        self.view.cols()
    }

    fn shift(&self) -> i32 {
        self.shift
    }

    fn zero_point(&self) -> i32 {
        match self.params {
            RowParams::Same(params) => params.zero_point(),
            RowParams::Own(_) => 0,
        }
    }

    fn largest_distance(&self) -> u32 {
        let distance = |params: &QParams| self.codes.largest_distance(params.zero_point());
        match &self.params {
            RowParams::Same(params) => distance(params),
            RowParams::Own(params) => params.iter().map(distance).max().unwrap_or(0),
        }
    }

    fn largest_byte(&self) -> u8 {
        largest_byte(self.codes, self.shift)
    }

    fn in_place(&self, _: Range<usize>, _: Kernel, _: Allowed) -> Option<(Rows<'_>, usize)> {
        None
    }

    #[inline(always)]
    fn copy_shifted(&self, i: usize, to: &mut [u8]) {
        quantize_row(self.blocks(i), self.params(i), to, shifted(self.shift));
    }

    #[inline(always)]
    fn copy_words(&self, i: usize, to: &mut [[u8; 2]]) {
        quantize_row(self.blocks(i), self.params(i), to, word);
    }
}

/// Writes the codes of row `i` as bytes: those of u8, or of i8.
#[inline(always)]
pub(crate) fn quantize_bytes<F: Float>(x: &MatRef<'_, F>, i: usize, params: &QParams, to: &mut [u8]) {
    quantize_row(RowBlocks::new(x, i), params, to, |code| code as u8);
}

/// A code as the byte that a kernel of u8 form reads.
#[inline(always)]
fn shifted(shift: i32) -> impl Fn(i32) -> u8 {
    move |code| (code + shift) as u8
}

/// A code as the word that a kernel of i16 form reads.
#[inline(always)]
fn word(code: i32) -> [u8; 2] {
    (code as i16).to_ne_bytes()
}

/// Values that are widened or gathered at a time.
const BLOCK: usize = 256;

/// Writes `encode` of the code of each element of a row.
#[inline(always)]
fn quantize_row<F: Float, T>(
    x: RowBlocks<'_, '_, F>,
    params: &QParams,
    to: &mut [T],
    encode: impl Fn(i32) -> T,
) {
    // There is one loop for each rounding, so neither pays for the other.
    match params.rounding() {
        Rounding::TiesToEven => quantize_blocks(x, &params.with_rounding(Rounding::TiesToEven), to, encode),
        Rounding::TiesAway => quantize_blocks(x, &params.with_rounding(Rounding::TiesAway), to, encode),
    }
}

#[inline(always)]
fn quantize_blocks<F: Float, T>(
    mut blocks: RowBlocks<'_, '_, F>,
    params: &QParams,
    mut to: &mut [T],
    encode: impl Fn(i32) -> T,
) {
    while let Some(x) = blocks.next() {
        let Some(to) = to.split_off_mut(..x.len()) else { return };
        for (to, &x) in to.iter_mut().zip(x) {
            *to = encode(params.quantize(x));
        }
    }
}

/// A row in f32, block after block, or in one block if it is f32 already.
///
/// This is not a function that takes a closure. The closure would be compiled separately, without
/// the caller's instructions.
pub(crate) struct RowBlocks<'t, 'x, F> {
    x: &'t MatRef<'x, F>,
    i: usize,
    /// The first column of the next block.
    next: usize,
    /// The columns in the order in which they are read; empty if that is their own.
    order: &'t [u32],
    wide: [f32; BLOCK],
}

impl<'t, 'x, F: Float> RowBlocks<'t, 'x, F> {
    /// Row `i` of `x`.
    #[inline(always)]
    pub(crate) fn new(x: &'t MatRef<'x, F>, i: usize) -> Self {
        Self { x, i, next: 0, order: &[], wide: [0.0; BLOCK] }
    }

    /// As if the columns lay in this order; in their own if it is empty.
    #[inline(always)]
    pub(crate) fn in_order(self, order: &'t [u32]) -> Self {
        Self { order, ..self }
    }

    /// The next block; `None` after the last.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<&[f32]> {
        let first = self.next;
        if first >= self.x.cols() {
            return None;
        }
        if !self.order.is_empty() {
            return Some(self.gather());
        }
        let row = self.x.row_slice(self.i);
        if let Some(row) = row.and_then(F::as_f32s) {
            self.next = row.len();
            return Some(row);
        }
        let len = BLOCK.min(self.x.cols() - first);
        self.next = first + len;
        let wide = &mut self.wide[..len];
        match row {
            Some(row) => F::widen_slice(&row[first..], wide),
            None => {
                for (wide, x) in wide.iter_mut().zip(self.x.row_elements(self.i).skip(first)) {
                    *wide = x.widen();
                }
            }
        }
        Some(wide)
    }

    /// The next block of columns in another order.
    #[inline(always)]
    fn gather(&mut self) -> &[f32] {
        let columns = self.order.get(self.next..).unwrap_or_default();
        let columns = &columns[..BLOCK.min(columns.len())];
        self.next += columns.len();
        // All are widened at once, which is vector code.
        let mut block = [F::default(); BLOCK];
        let row = self.x.row_elements_in(self.i, columns);
        block.iter_mut().zip(row).for_each(|(to, x)| *to = x);
        let wide = &mut self.wide[..columns.len()];
        F::widen_slice(&block, wide);
        wide
    }
}
