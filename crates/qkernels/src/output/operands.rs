//! The output stage as the driver and the kernels see it: operands for each channel and each row,
//! whatever the caller's types.
//!
//! A kernel may apply the common stages to its registers. For all other stages it leaves the sums
//! in L1, and `output/store.rs` applies qcore's scalar functions to them, compiled for the kernel's
//! vector level. Both ways give the same bits (the differential tests run both), so the choice is a
//! matter of speed alone.

use core::ops::Range;

use qcore::{ActivationFunction, CodeRange, Q31Multiplier};

use crate::matrix::view::MatRef;

/// What is done to the sums. Per-channel operands belong to the channels of the part of the product
/// that is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StageOperands<'p> {
    /// The constant added to each channel's sums (bias, zero-point and shift terms), wrapping.
    pub(crate) offsets: &'p [i32],
    /// `sum_k w` of each channel, for rows with zero points of their own.
    pub(crate) channel_sums: &'p [i32],
    /// Zero points of the weights; empty if all are 0.
    pub(crate) zero_points: &'p [i32],
    /// Scale or multiplier. Unused by int32 output and by fixed point.
    pub(crate) factors: &'p [f32],
    /// Whether no multiplier of a requantization is above 1/2 in magnitude. Hardly any is.
    pub(crate) small_factors: bool,
    /// Added to the scaled sums.
    pub(crate) float_bias: Option<&'p [f32]>,
    /// The function applied to real results, or to codes before they are rounded if it is not among
    /// their bounds.
    pub(crate) function: ActivationFunction,
    /// The scale of codes that are made from real results; `None` if the factors lead to codes
    /// directly.
    pub(crate) output_scale: Option<f32>,
    /// The code for 0, and the lowest and the highest code of requantized output.
    pub(crate) codes: Codes,
    /// Requantization in fixed point, in place of the factors.
    pub(crate) fixed_point: Option<FixedPoint<'p>>,
    /// A tensor to add before rounding.
    pub(crate) residual: Option<ResidualRef<'p>>,
}

impl StageOperands<'_> {
    /// Whether real results below 0 become 0.
    pub(crate) fn relu(&self) -> bool {
        self.function == ActivationFunction::Relu
    }

    /// Whether kernels can apply the function to their registers: it is ReLU, or nothing but bounds
    /// on the codes.
    pub(crate) fn function_fits_registers(&self) -> bool {
        self.output_scale.is_none()
            && matches!(self.function, ActivationFunction::Identity | ActivationFunction::Relu)
    }

    /// Whether storing codes with saturation takes care of their upper bound. It does if that bound
    /// is `highest`, the largest code of their type, and if sums times factors, at most 2^30 in
    /// magnitude, stay in int32 with the zero point added.
    pub(crate) fn saturates(&self, highest: i32) -> bool {
        self.small_factors && self.codes.high == highest
    }
}

/// The integer operands of a requantization.
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

/// How fixed-point requantization rounds.
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

/// A quantized tensor of the output's shape, and the size of its step in steps of the output.
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

/// The terms that rows add to the product. An empty list means that no row has such a term.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowTerms<'r> {
    /// The sum of each row as the kernel reads it. Zero points of the weights are multiplied by it.
    pub(crate) sums: &'r [i32],
    /// Zero point of each row.
    pub(crate) zero_points: &'r [i32],
    /// Scale of each row.
    pub(crate) factors: &'r [f32],
}

impl<'r> RowTerms<'r> {
    /// The terms of `rows`.
    pub(crate) fn of(&self, rows: Range<usize>) -> Self {
        // Most products have none, and small ones should not pay for looking.
        if self.sums.is_empty() && self.zero_points.is_empty() && self.factors.is_empty() {
            return Self::default();
        }
        Self {
            sums: self.sums.get(rows.clone()).unwrap_or_default(),
            zero_points: self.zero_points.get(rows.clone()).unwrap_or_default(),
            factors: self.factors.get(rows).unwrap_or_default(),
        }
    }
}
