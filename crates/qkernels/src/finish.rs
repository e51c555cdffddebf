//! The output stage as the driver and the kernels see it: operands per channel and per row, and a destination, whatever
//! the caller's types.
//!
//! A kernel may apply the common stages to its registers. Everything else is left in L1 as sums, to which `store.rs` applies
//! qcore's scalar functions, compiled for the kernel's vector level. Both give the same bits (the differential tests run
//! both), so which one runs is a matter of speed alone.

use core::ops::Range;

use half::{bf16, f16};
use qcore::{CodeRange, Q31Multiplier};

use crate::threads::Cut;
use crate::view::{MatMut, MatRef};

/// What becomes of the sums. Operands per channel belong to the channels of the part of the product that is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish<'p> {
    /// What the sums begin with: bias, zero point of the activations and shift, wrapping. One for each channel.
    pub(crate) offsets: &'p [i32],
    /// `sum_k w` of each channel, for rows with zero points of their own.
    pub(crate) channel_sums: &'p [i32],
    /// Zero points of the weights; none where all are 0.
    pub(crate) zero_points: &'p [i32],
    /// Scale or multiplier. Unused by int32 output and by fixed point.
    pub(crate) factors: &'p [f32],
    /// Whether no multiplier of a requantization is above 1/2 in magnitude, as hardly any is.
    pub(crate) small_factors: bool,
    /// Added to the scaled sums.
    pub(crate) float_bias: Option<&'p [f32]>,
    /// Whether negative f32 results become 0.
    pub(crate) relu: bool,
    /// The code for 0, the lowest and the highest code of requantized output.
    pub(crate) codes: Codes,
    /// Requantization in fixed point, in place of the factors.
    pub(crate) fixed_point: Option<FixedPoint<'p>>,
    /// A tensor to add before rounding.
    pub(crate) residual: Option<ResidualRef<'p>>,
}

impl Finish<'_> {
    /// Whether storing codes with saturation does for their upper bound: it is `highest`, that of their type, and sums times
    /// factors, at most 2^30 in magnitude, stay in int32 with the zero point added.
    pub(crate) fn saturates(&self, highest: i32) -> bool {
        self.small_factors && self.codes.high == highest
    }
}

/// The integers of a requantization.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Codes {
    pub(crate) zero_point: i32,
    pub(crate) low: i32,
    pub(crate) high: i32,
}

/// Fixed-point multipliers, one for each channel, and how their products are rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedPoint<'p> {
    pub(crate) multipliers: &'p [Q31Multiplier],
    pub(crate) rounding: FixedPointRounding,
}

/// The roundings of fixed-point requantization.
///
/// ```
/// use qkernels::FixedPointRounding;
/// assert_eq!(FixedPointRounding::default(), FixedPointRounding::Double);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FixedPointRounding {
    /// [`qcore::requantize_double_rounding`]: gemmlowp, TensorFlow Lite.
    #[default]
    Double,
    /// [`qcore::requantize_single_rounding`]: ruy, TOSA.
    Single,
}

/// A quantized tensor of the output's shape, and what a step of it is in steps of the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResidualRef<'p> {
    pub(crate) codes: ResidualCodes<'p>,
    pub(crate) zero_point: i32,
    pub(crate) multiplier: f32,
}

/// The residual's codes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ResidualCodes<'p> {
    I8(MatRef<'p, i8>),
    U8(MatRef<'p, u8>),
}

impl ResidualCodes<'_> {
    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self {
            ResidualCodes::I8(codes) => (codes.rows(), codes.cols()),
            ResidualCodes::U8(codes) => (codes.rows(), codes.cols()),
        }
    }

    /// The largest `|code - zero_point|` that they may hold.
    pub(crate) fn largest_distance(&self, zero_point: i32) -> u32 {
        match self {
            ResidualCodes::I8(_) => CodeRange::I8.largest_distance(zero_point),
            ResidualCodes::U8(_) => CodeRange::U8.largest_distance(zero_point),
        }
    }
}

/// What rows bring along. An empty list means that no row has such a term.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowTerms<'r> {
    /// Sum of the row as the kernel reads it: what zero points of the weights are multiplied by.
    pub(crate) sums: &'r [i32],
    /// Zero point of each row.
    pub(crate) zero_points: &'r [i32],
    /// Scale of each row.
    pub(crate) factors: &'r [f32],
}

impl<'r> RowTerms<'r> {
    /// The terms of `rows`.
    pub(crate) fn of(&self, rows: Range<usize>) -> Self {
        Self {
            sums: self.sums.get(rows.clone()).unwrap_or_default(),
            zero_points: self.zero_points.get(rows.clone()).unwrap_or_default(),
            factors: self.factors.get(rows).unwrap_or_default(),
        }
    }
}

/// Where results go; the element type decides what is done to the sums.
#[derive(Debug)]
pub(crate) enum Target<'o> {
    /// `acc`
    I32(MatMut<'o, i32>),
    /// `f32(acc) * factor + float_bias`, ReLU
    F32(MatMut<'o, f32>),
    /// As `F32`, rounded once more.
    F16(MatMut<'o, f16>),
    /// As `F32`, rounded once more.
    Bf16(MatMut<'o, bf16>),
    /// `clamp(round(f32(acc) * factor) + zero_point)`
    I8(MatMut<'o, i8>),
    /// As `I8`.
    U8(MatMut<'o, u8>),
}

/// `$body` for the matrix in `$target`, wrapped in the same variant again.
macro_rules! each_target {
    ($target:expr, $out:ident => $body:expr, $wrap:ident => $result:expr) => {
        match $target {
            Target::I32($out) => {
                let $wrap = Target::I32;
                let $out = $body;
                $result
            }
            Target::F32($out) => {
                let $wrap = Target::F32;
                let $out = $body;
                $result
            }
            Target::F16($out) => {
                let $wrap = Target::F16;
                let $out = $body;
                $result
            }
            Target::Bf16($out) => {
                let $wrap = Target::Bf16;
                let $out = $body;
                $result
            }
            Target::I8($out) => {
                let $wrap = Target::I8;
                let $out = $body;
                $result
            }
            Target::U8($out) => {
                let $wrap = Target::U8;
                let $out = $body;
                $result
            }
        }
    };
}

impl Cut for Target<'_> {
    fn columns(&self) -> usize {
        each_target!(self, out => out.cols(), _wrap => out)
    }

    fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        each_target!(self, out => out.split_at_row(row)?, wrap => Some((wrap(out.0), wrap(out.1))))
    }

    fn split_at_col(self, column: usize) -> Option<(Self, Self)> {
        each_target!(self, out => out.split_at_col(column)?, wrap => Some((wrap(out.0), wrap(out.1))))
    }
}

/// The way out of the sums of a strip.
#[derive(Debug)]
pub(crate) struct Store<'t, 'o> {
    pub(crate) finish: &'t Finish<'t>,
    /// In the operands per channel: those of the panel at hand and of what is behind it in the strip.
    pub(crate) channels: Range<usize>,
    /// The strip's first row in the whole output. (Its first column there is that of `channels`.)
    pub(crate) first_row: usize,
    /// What the strip's rows bring along.
    pub(crate) row_terms: RowTerms<'t>,
    pub(crate) target: &'t mut Target<'o>,
    /// The row and the column of `target` where the strip and its panel at hand begin.
    pub(crate) origin: (usize, usize),
}

impl Store<'_, '_> {
    /// Goes on to the panel behind `columns` columns.
    pub(crate) fn skip_columns(&mut self, columns: usize) {
        self.channels.start += columns;
        self.origin.1 += columns;
    }
}

/// Whether a kernel that applies stages itself can apply this one.
pub(crate) fn fits_registers(finish: &Finish<'_>, row_terms: &RowTerms<'_>, target: &Target<'_>) -> bool {
    let Finish { zero_points, fixed_point, residual, .. } = finish;
    let rows = !row_terms.zero_points.is_empty() || !row_terms.factors.is_empty();
    let codes_fit = zero_points.is_empty() && !rows && fixed_point.is_none() && residual.is_none();
    match target {
        Target::I32(_) => zero_points.is_empty() && !rows,
        Target::I8(_) => codes_fit && finish.saturates(i8::MAX.into()),
        Target::U8(_) => codes_fit && finish.saturates(u8::MAX.into()),
        Target::F32(_) => zero_points.is_empty(),
        Target::F16(_) | Target::Bf16(_) => false,
    }
}
