//! Floats on the left. They are quantized row by row on their way into the kernel's form, so no
//! matrix of codes is ever in memory.

use core::ops::Range;

use qcore::{CodeRange, Float, GgmlQ8_0, QParams};

use crate::kernel::strip::Rows;
use crate::kernel::token::Kernel;
use crate::left::float_rows::FloatRows;
use crate::left::rows::{Allowed, Source};
use crate::matrix::signs::{CodesError, largest_byte, shift};

/// Float activations (m, k) with a known scale and zero point. The product is that of their codes
/// ([`QParams::quantize`] of each element), which are made as rows are read. [`FloatRows`] may
/// divide elements first.
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
    rows: FloatRows<'a, F>,
    params: RowParams<'a>,
    codes: CodeRange,
    shift: i32,
    /// The columns in the order in which they are read; empty if that is their own.
    order: &'a [u32],
}

/// How rows are quantized.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowParams<'a> {
    /// All rows have the same parameters.
    Same(QParams),
    /// Each row has its own.
    Own(&'a [QParams]),
    /// Each group of consecutive k of each row has its own, row by row, all with the same zero
    /// point and rounding. The other field is the length of a group, 1 or more.
    Groups(&'a [QParams], usize),
    /// Each block of each row has its own, row by row.
    Blocks(&'a [GgmlQ8_0]),
}

impl<'a, F: Float> FloatActivations<'a, F> {
    /// The values of `rows`, a [`MatRef`](crate::MatRef) or [`FloatRows`], quantized by `params`.
    ///
    /// # Errors
    /// [`CodesError`] if the codes of `params` fit neither u8 nor i8.
    pub fn new(rows: impl Into<FloatRows<'a, F>>, params: QParams) -> Result<Self, CodesError> {
        Self::with(rows.into(), RowParams::Same(params), params.codes())
    }

    /// These rows, quantized by `params`. The codes of all entries are `codes`.
    pub(crate) fn with(
        rows: FloatRows<'a, F>,
        params: RowParams<'a>,
        codes: CodeRange,
    ) -> Result<Self, CodesError> {
        Ok(Self { rows, params, codes, shift: shift(codes)?, order: &[] })
    }

    /// As if the columns lay in this order, if there is one.
    pub(crate) fn in_order(self, order: Option<&'a [u32]>) -> Self {
        Self { order: order.unwrap_or_default(), ..self }
    }

    /// Row `i`, in the order of columns.
    #[inline(always)]
    fn blocks<'t>(&'t self, i: usize, wide: &'t mut Wide) -> RowBlocks<'t, 'a, F> {
        RowBlocks::new(&self.rows, i, wide).in_order(self.order)
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate names it")]
impl<F: Float> Source for FloatActivations<'_, F> {
    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn cols(&self) -> usize {
        self.rows.cols()
    }

    fn shift(&self) -> i32 {
        self.shift
    }

    fn zero_point(&self) -> i32 {
        match self.params {
            RowParams::Same(params) => params.zero_point(),
            RowParams::Own(_) | RowParams::Groups(..) | RowParams::Blocks(_) => 0,
        }
    }

    fn largest_distance(&self) -> u32 {
        let distance = |params: &QParams| self.codes.largest_distance(params.zero_point());
        match &self.params {
            RowParams::Same(params) => distance(params),
            RowParams::Own(params) => params.iter().map(distance).max().unwrap_or(0),
            RowParams::Groups(params, _) => params.first().map_or(0, distance),
            RowParams::Blocks(_) => self.codes.largest_distance(0),
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
        quantize_row(self.blocks(i, &mut None), &self.params, to, shifted(self.shift));
    }

    #[inline(always)]
    fn copy_words(&self, i: usize, to: &mut [[u8; 2]]) {
        quantize_row(self.blocks(i, &mut None), &self.params, to, word);
    }
}

/// Writes the codes of row `i` as bytes: those of u8, or of i8.
#[inline(always)]
pub(crate) fn quantize_bytes<F: Float>(
    x: &FloatRows<'_, F>,
    i: usize,
    params: &RowParams<'_>,
    to: &mut [u8],
) {
    quantize_row(RowBlocks::new(x, i, &mut None), params, to, |code| code as u8);
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

/// Values that are widened, gathered or divided at a time.
const BLOCK: usize = 256;

/// The room for them, once it is needed. Adjacent f32 never need it, and to fill it with zeros
/// takes as long as to quantize a short row.
pub(crate) type Wide = Option<[f32; BLOCK]>;

/// Writes `encode` of the code of each element of a row.
#[inline(always)]
fn quantize_row<F: Float, T>(
    mut x: RowBlocks<'_, '_, F>,
    params: &RowParams<'_>,
    mut to: &mut [T],
    encode: impl Fn(i32) -> T,
) {
    let params = match params {
        RowParams::Same(params) => params,
        RowParams::Own(params) => &params[x.i],
        RowParams::Groups(params, group_len) => {
            let groups = x.x.cols().div_ceil(*group_len);
            let params = &params[x.i * groups..][..groups];
            return quantize_groups(x, params, *group_len, to, encode);
        }
        RowParams::Blocks(blocks) => {
            let count = x.x.cols().div_ceil(GgmlQ8_0::BLOCK_LEN);
            let blocks = &blocks[x.i * count..][..count];
            return quantize_ggml(x, blocks, to, encode);
        }
    };
    while let Some(x) = x.next() {
        let Some(to) = to.split_off_mut(..x.len()) else { return };
        params.quantize_each(x, to, &encode);
    }
}

/// Quantizes each group by its entry of `params`.
#[inline(always)]
fn quantize_groups<F: Float, T>(
    mut values: RowBlocks<'_, '_, F>,
    params: &[QParams],
    group_len: usize,
    mut to: &mut [T],
    encode: impl Fn(i32) -> T,
) {
    while let Some((group, x)) = values.next_of_group(group_len) {
        let Some(to) = to.split_off_mut(..x.len()) else { return };
        params[group].quantize_each(x, to, &encode);
    }
}

/// Quantizes each block as ggml does.
#[inline(always)]
fn quantize_ggml<F: Float, T>(
    mut values: RowBlocks<'_, '_, F>,
    blocks: &[GgmlQ8_0],
    mut to: &mut [T],
    encode: impl Fn(i32) -> T,
) {
    while let Some((group, x)) = values.next_of_group(GgmlQ8_0::BLOCK_LEN) {
        let Some(to) = to.split_off_mut(..x.len()) else { return };
        let block = blocks[group];
        to.iter_mut().zip(x).for_each(|(to, &x)| *to = encode(block.quantize(x)));
    }
}

/// A row in f32, block after block, or in one block if it is f32 already. This is where values are
/// divided that have a divisor.
///
/// This is not a function that takes a closure. The closure would be compiled separately, without
/// the caller's instructions.
pub(crate) struct RowBlocks<'t, 'x, F> {
    x: &'t FloatRows<'x, F>,
    i: usize,
    /// The first column of the next block.
    next: usize,
    /// The columns in the order in which they are read; empty if that is their own.
    order: &'t [u32],
    /// Whether there is an order, or values are divided. Other rows pay for one look at this.
    altered: bool,
    wide: &'t mut Wide,
}

impl<'t, 'x, F: Float> RowBlocks<'t, 'x, F> {
    /// Row `i` of `x`.
    #[inline(always)]
    pub(crate) fn new(x: &'t FloatRows<'x, F>, i: usize, wide: &'t mut Wide) -> Self {
        Self { x, i, next: 0, order: &[], altered: !x.divisors().is_empty(), wide }
    }

    /// As if the columns lay in this order, each with its divisor; in their own if it is empty.
    #[inline(always)]
    pub(crate) fn in_order(self, order: &'t [u32]) -> Self {
        Self { order, altered: self.altered || !order.is_empty(), ..self }
    }

    /// The next block; `None` after the last.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<&[f32]> {
        let first = self.next;
        if first >= self.x.cols() {
            return None;
        }
        if self.altered {
            return Some(self.altered(BLOCK));
        }
        self.take(first, self.x.cols() - first)
    }

    /// The next block that lies in a single group of `group_len` (1 or more) consecutive values,
    /// and which group; `None` after the last. A long group may have several blocks. In another
    /// order, groups are those of that order.
    #[inline(always)]
    pub(crate) fn next_of_group(&mut self, group_len: usize) -> Option<(usize, &[f32])> {
        let (first, cols) = (self.next, self.x.cols());
        if first >= cols {
            return None;
        }
        let group = first / group_len;
        let len = (group_len - (first - group * group_len)).min(cols - first);
        if self.altered {
            return Some((group, self.altered(len)));
        }
        Some((group, self.take(first, len)?))
    }

    /// Up to `most` values from `first` on, which is their start.
    #[inline(always)]
    fn take(&mut self, first: usize, most: usize) -> Option<&[f32]> {
        let row = self.x.view().row_slice(self.i);
        if let Some(row) = row.and_then(F::as_f32s) {
            self.next = first + most;
            return row.get(first..first + most);
        }
        Some(self.widen(first, most))
    }

    /// Up to `most` values from `first` on, which is their start, widened.
    #[inline(always)]
    fn widen(&mut self, first: usize, most: usize) -> &mut [f32] {
        let len = BLOCK.min(most);
        self.next = first + len;
        let wide = &mut self.wide.get_or_insert([0.0; BLOCK])[..len];
        match self.x.view().row_slice(self.i) {
            Some(row) => F::widen_slice(&row[first..first + len], wide),
            None => {
                for (wide, x) in wide.iter_mut().zip(self.x.view().row_elements_from(self.i, first)) {
                    *wide = x.widen();
                }
            }
        }
        wide
    }

    /// The next columns in another order, or divided, or both, `most` at most.
    #[inline(always)]
    fn altered(&mut self, most: usize) -> &[f32] {
        let divisors = self.x.divisors();
        if !self.order.is_empty() {
            return self.gather(most, divisors);
        }
        let first = self.next;
        let values = self.widen(first, most.min(self.x.cols() - first));
        // Slices of the same length make this vector code.
        let divisors = &divisors[first..first + values.len()];
        for (value, divisor) in values.iter_mut().zip(divisors) {
            *value /= divisor;
        }
        values
    }

    /// The next columns in another order, `most` at most, divided if there are divisors.
    #[inline(always)]
    fn gather(&mut self, most: usize, divisors: &[f32]) -> &[f32] {
        let columns = self.order.get(self.next..).unwrap_or_default();
        let columns = &columns[..BLOCK.min(most).min(columns.len())];
        self.next += columns.len();
        // All are widened at once, which is vector code.
        let mut block = [F::default(); BLOCK];
        let row = self.x.view().row_elements_in(self.i, columns);
        block.iter_mut().zip(row).for_each(|(to, x)| *to = x);
        let wide = &mut self.wide.get_or_insert([0.0; BLOCK])[..columns.len()];
        F::widen_slice(&block, wide);
        if !divisors.is_empty() {
            for (value, &column) in wide.iter_mut().zip(columns) {
                *value /= divisors[column as usize];
            }
        }
        wide
    }
}
