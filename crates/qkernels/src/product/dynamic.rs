//! Dynamic quantization: the parameters of float activations are chosen from the values at hand,
//! and their codes are made as the product reads them.

use qcore::{Float, Kind, QParams, Range, Scheme, SchemeError, ZeroScale};

use crate::cpu::threads::Threads;
use crate::cpu::vectorize::Task;
use crate::kernel::token::Kernel;
use crate::left::float_rows::FloatRows;
use crate::left::floats::{FloatActivations, RowBlocks, RowParams, Wide};
use crate::matrix::signs::CodesError;
use crate::matrix::view::MatMut;
use crate::matrix::workspace::{Tokens, Workspace};
use crate::output::channels::Largest;
use crate::output::operands::RowTerms;
use crate::output::stage::sealed::Stage;
use crate::output::stage::{DequantizeTo, StoredFloat};
use crate::product::gemm::{Call, GemmError, check_shapes};
use crate::weights::packed::PackedWeights;
use crate::weights::scales::{GROUP_STEP, Place};

/// How activations are quantized when they arrive.
///
/// ```
/// use qcore::Scheme;
/// use qkernels::Dynamic;
/// assert_eq!(Dynamic::default(), Dynamic::PerToken(Scheme::activations_u8()));
/// let onnx = Dynamic::PerTensor(Scheme::onnx_dynamic(qcore::CodeRange::U8)); // DynamicQuantizeLinear
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Dynamic {
    /// One scale and zero point for all rows. Their codes then depend on each other.
    PerTensor(Scheme),
    /// A scale and zero point for each row (token). A row then has the same result in any batch.
    PerToken(Scheme),
    /// A scale for each row and each group of consecutive k, for products with weights in the same
    /// groups ([`gemm_scaled`](crate::gemm_scaled)). A large value then costs the precision of its
    /// group alone. Weights with
    /// [inputs in another order](crate::ScaledWeights::with_input_order) have groups that are none
    /// of a row, and are refused.
    PerGroup {
        /// How each group is quantized. It must be symmetric, so that all groups have the same zero
        /// point.
        scheme: Scheme,
        /// The length of a group, a multiple of [`GROUP_STEP`](crate::GROUP_STEP) unless a row is
        /// no longer than it. The last group may be shorter.
        group_len: usize,
    },
    /// A scale for each row and each 32 consecutive k, as ggml quantizes activations for weights of
    /// its types Q8_0, Q4_0 and Q5_0 ([`qcore::GgmlQ8_0`]): the same codes, and scales of f16. For
    /// the same weights as [`PerGroup`](Self::PerGroup).
    GgmlQ8_0,
}

impl Default for Dynamic {
    /// Per token, u8 with a zero point: 2.7 to 3.8 dB better than symmetric i8 on the models that
    /// were measured, in the same time, because few tokens have a range that is the same on both
    /// sides of 0.
    fn default() -> Self {
        Dynamic::PerToken(Scheme::activations_u8())
    }
}

/// Why a product of floats could not be computed. In that case nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DynamicError {
    /// The scheme has no parameters for the values of a row, or for all values.
    #[error("no scale for {}: {error}", Place("row", *row, *group))]
    Scheme {
        /// The row (0 for parameters per tensor).
        row: usize,
        /// Its group, if rows have a scale for each.
        group: Option<usize>,
        /// The error of the scheme.
        error: SchemeError,
    },
    /// The scale of a row times the scale of a channel is more than f32 holds.
    #[error(
        "the scale {row_scale:e} of {} times {channel_scale:e} of channel {channel} leaves the range of f32",
        Place("row", *row, *group)
    )]
    ScaleRange {
        /// The row (0 for parameters per tensor).
        row: usize,
        /// Its group, if rows have a scale for each.
        group: Option<usize>,
        /// The scale of the row, as its values give it.
        row_scale: f32,
        /// The output channel (0 for a scale per tensor).
        channel: usize,
        /// The stage's scale for the channel, or the largest one of its groups, or their minimum.
        channel_scale: f32,
    },
    /// In a product with several groups, or with minimums, terms may be infinite, and two of them
    /// make no number. They are refused where twice what all of them together can reach, those of
    /// minimums included, is more than f32 holds.
    #[error(
        "the scale {row_scale:e} of {} times {scale:e} of a group, times a sum of up to {largest_sum:e}, leaves the range of f32",
        Place("row", *row, *group)
    )]
    GroupRange {
        /// The row (0 for parameters per tensor).
        row: usize,
        /// Its group, if rows have a scale for each.
        group: Option<usize>,
        /// The scale of the row, as its values give it.
        row_scale: f32,
        /// The largest scale of a group, or minimum, whichever has the larger terms.
        scale: f32,
        /// The largest sum, which it multiplies, that the groups of a channel can have together.
        largest_sum: f64,
    },
    /// The values of a block need a scale that f16 does not hold ([`Dynamic::GgmlQ8_0`]).
    #[error("{} needs the scale {scale:e}, but f16 holds no more than 65504", Place("row", *row, Some(*group)))]
    HalfScale {
        /// The row.
        row: usize,
        /// The block in it.
        group: usize,
        /// The scale before it is rounded to f16.
        scale: f32,
    },
    /// The length of groups is not a whole number of the steps in which kernels read k.
    #[error(
        "activations in groups of {group_len} along k; their length must be a multiple of {GROUP_STEP}, and not 0"
    )]
    GroupLength {
        /// The length asked for.
        group_len: usize,
    },
    /// The groups of activations are not those of the weights.
    #[error("activations in groups of {group_len}, but weights in groups of {of_weights} along k")]
    GroupMismatch {
        /// The length of the groups of activations.
        group_len: usize,
        /// The length of the groups of weights.
        of_weights: usize,
    },
    /// Activations in groups, and weights whose k is in another order than the inputs'.
    #[error(
        "activations in groups of {group_len} along k, but weights with inputs in another order, whose groups are others; one scale for each row, or for all, fits"
    )]
    GroupOrder {
        /// The length of the groups of activations.
        group_len: usize,
    },
    /// The scheme may give groups zero points of their own.
    #[error(
        "groups of activations must have the same zero point, as symmetric schemes have, not those of {kind:?} with {zero_scale:?}"
    )]
    GroupScheme {
        /// The kind of the scheme.
        kind: Kind,
        /// Its rule for scales of 0.
        zero_scale: ZeroScale,
    },
    /// Weights with one scale for each channel have no groups that activations could have, too.
    #[error(
        "activations in groups of {group_len} are multiplied by weights in groups (gemm_scaled, gemm_scaled_rows), not by weights with a scale for each channel"
    )]
    Groups {
        /// The length of the groups of activations.
        group_len: usize,
    },
    /// The scheme's codes cannot be multiplied.
    #[error(transparent)]
    Codes(#[from] CodesError),
    /// There is no memory for the scales or the codes of the rows
    /// ([`QuantizedRows`](crate::QuantizedRows)).
    #[error("there is no memory for the scales or the codes of {rows} rows of {cols} values")]
    Memory {
        /// Rows.
        rows: usize,
        /// Values of each.
        cols: usize,
    },
    /// The product could not be computed.
    #[error(transparent)]
    Gemm(#[from] GemmError),
}

/// Computes a layer on floats through an integer product (W8A8, dynamic). `x` (m, k) is quantized
/// as `how` says, multiplied exactly in int32, and restored by `x_scale * stage_scale[channel]` in
/// one f32 multiplication. Bias and ReLU of the stage follow. `x` is a
/// [`MatRef`](crate::MatRef), or [`FloatRows`] that are divided as they are read.
///
/// The scale of `stage` is that of the weights alone. Values that are not finite do not count for
/// the range: NaN becomes the zero point, and infinities saturate. A row's codes are made while it
/// is copied for the kernel; no matrix of them exists. With a kept `workspace` a serial call
/// allocates nothing. Dimensions may be 0, as in [`gemm`](crate::gemm): without rows or channels no
/// scale is chosen either.
///
/// ```
/// use qkernels::{Dequantize, Dynamic, Kernel, MatMut, MatRef, PackedWeights, Scales, Threads, Workspace, gemm_dynamic};
/// let w = PackedWeights::from_nk(MatRef::new(&[100i8, -50, 25, 127], 2, 2)?, Kernel::select()?)?;
/// let stage = Dequantize::new(Scales::PerChannel(&[0.01, 0.02]))?.with_float_bias(&[0.5, 0.0])?;
/// let x = [1.55f32, -1.0]; // scale 0.01, zero point 100: codes 255, 0
/// let mut y = [0.0; 2];
/// let out = MatMut::new(&mut y, 1, 2)?;
/// gemm_dynamic(MatRef::new(&x, 1, 2)?, Dynamic::default(), &w, &stage, out, Threads::Serial, &mut Workspace::new())?;
/// assert!((y[0] - 2.55).abs() < 1e-6 && (y[1] + 1.765).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DynamicError`] if the scheme has no parameters for the values, if its codes are unusable, if
/// the product of two scales is not finite, and for everything that [`gemm`](crate::gemm) refuses.
/// Shapes are compared first of all. Activations with scales for groups are refused: these weights
/// have none.
pub fn gemm_dynamic<'x, F: Float, T: StoredFloat>(
    x: impl Into<FloatRows<'x, F>>,
    how: Dynamic,
    w: &PackedWeights,
    stage: &DequantizeTo<'_, T>,
    out: MatMut<'_, T>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), DynamicError> {
    let x = x.into();
    let Workspace { operands, tokens, arenas } = workspace;
    let (kernel, columns) = (w.kernel(), 0..w.n());
    check_shapes((x.rows(), x.cols()), w, &columns, stage, (out.rows(), out.cols()))?;
    how.check_no_groups()?;
    if out.rows() == 0 || out.cols() == 0 {
        // A view without elements may have any number of rows, so none is looked at.
        let a = &FloatActivations::with(x, RowParams::Own(&[]), how.codes())?;
        let nothing = Call { a, w, columns, stage, row_terms: RowTerms::default(), scale: None };
        return Ok(nothing.run(out, threads, operands, arenas)?);
    }
    tokens.choose_as(&x, how, kernel)?;
    let Tokens { zero_points, factors, .. } = &*tokens;
    check_scales(factors, stage, kernel)?;
    let params = tokens.row_params(how);
    let (row_terms, scale) = match params {
        RowParams::Same(params) => (RowTerms::default(), Some(params.scale())),
        _ => (RowTerms { sums: &[], zero_points, factors }, None),
    };
    let a = FloatActivations::with(x, params, how.codes())?;
    Ok(Call { a: &a, w, columns, stage, row_terms, scale }.run(out, threads, operands, arenas)?)
}

/// The scheme's parameters for `range`, the range of row `row`. If there is no finite value at all,
/// the range is that of 0.
fn choose(scheme: &Scheme, range: Option<Range>, row: usize) -> Result<QParams, DynamicError> {
    let range = range.unwrap_or_default();
    scheme.choose(range).map_err(|error| DynamicError::Scheme { row, group: None, error })
}

/// An error if the scale of a row and that of a channel have no finite product. A sum of 0 times
/// that product would be no number.
///
/// Rounding keeps order. So the largest product is the one of the largest scales, and one look at
/// each scale is enough.
pub(super) fn check_scales<T: StoredFloat>(
    rows: &[f32],
    stage: &DequantizeTo<'_, T>,
    kernel: Kernel,
) -> Result<(), DynamicError> {
    let Some(scales) = stage.factor() else { return Ok(()) };
    let channels = scales.values();
    let largest = kernel.vectorize(Largest(channels));
    let fits = |row: f32, channel: f32| (row * channel).is_finite();
    if fits(kernel.vectorize(Largest(rows)), largest) {
        return Ok(());
    }
    for (row, &row_scale) in rows.iter().enumerate().filter(|&(_, &row)| !fits(row, largest)) {
        for (channel, &channel_scale) in channels.iter().enumerate() {
            if !fits(row_scale, channel_scale) {
                return Err(DynamicError::ScaleRange { row, group: None, row_scale, channel, channel_scale });
            }
        }
    }
    Ok(())
}

impl Tokens {
    /// Parameters for each row of `x`, for each group of it, or the same for all of them. `how`
    /// must be [checked](Dynamic::check_rows).
    pub(super) fn choose_as<F: Float>(
        &mut self,
        x: &FloatRows<'_, F>,
        how: Dynamic,
        kernel: Kernel,
    ) -> Result<(), DynamicError> {
        match how {
            Dynamic::PerToken(scheme) => self.choose(x, &scheme, kernel),
            // A group that is a whole row.
            Dynamic::PerGroup { scheme, group_len } if group_len >= x.cols() => {
                self.choose(x, &scheme, kernel)
            }
            Dynamic::PerGroup { scheme, group_len } => self.choose_groups(x, &scheme, group_len, kernel),
            Dynamic::GgmlQ8_0 => self.choose_blocks(x, kernel),
            Dynamic::PerTensor(scheme) => {
                // Rows without values may be any number.
                let rows = if x.cols() == 0 { 0..0 } else { 0..x.rows() };
                let range = kernel.vectorize(RangeOf { x, rows });
                self.clear();
                self.params.push(choose(&scheme, range, 0)?);
                self.split();
                Ok(())
            }
        }
    }

    /// Parameters for each row of `x`.
    fn choose<F: Float>(
        &mut self,
        x: &FloatRows<'_, F>,
        scheme: &Scheme,
        kernel: Kernel,
    ) -> Result<(), DynamicError> {
        self.clear();
        let rows = x.rows();
        // Rows of a view may be one row many times, so they may be more than memory has room for.
        let reserved = self.params.try_reserve(rows).and_then(|()| self.factors.try_reserve(rows));
        let reserved = reserved.and_then(|()| self.zero_points.try_reserve(rows));
        reserved.map_err(|_| DynamicError::Memory { rows, cols: x.cols() })?;
        kernel.vectorize(ChooseRows { x, scheme, params: &mut self.params })?;
        self.split();
        Ok(())
    }

    /// Keeps scales and zero points by themselves, as products read them.
    fn split(&mut self) {
        self.factors.clear();
        self.factors.extend(self.params.iter().map(QParams::scale));
        self.zero_points.clear();
        if self.params.iter().any(|params| params.zero_point() != 0) {
            self.zero_points.extend(self.params.iter().map(QParams::zero_point));
        }
    }
}

/// The range of the finite values of some rows.
struct RangeOf<'t, 'x, F> {
    x: &'t FloatRows<'x, F>,
    rows: core::ops::Range<usize>,
}

impl<F: Float> Task for RangeOf<'_, '_, F> {
    type Output = Option<Range>;

    #[inline(always)]
    fn run(self) -> Option<Range> {
        let mut wide = None;
        let mut whole = None;
        for i in self.rows {
            whole = merge(whole, range_of_row(self.x, i, &mut wide));
        }
        whole
    }
}

/// The parameters of each row, by the range of its finite values.
struct ChooseRows<'t, 'x, F> {
    x: &'t FloatRows<'x, F>,
    scheme: &'t Scheme,
    /// Empty, with room for all rows.
    params: &'t mut Vec<QParams>,
}

impl<F: Float> Task for ChooseRows<'_, '_, F> {
    type Output = Result<(), DynamicError>;

    #[inline(always)]
    fn run(self) -> Result<(), DynamicError> {
        let mut wide = None;
        for row in 0..self.x.rows() {
            let range = range_of_row(self.x, row, &mut wide).unwrap_or_default();
            // Not by `choose`: to copy its large errors takes a third as long as to choose.
            match self.scheme.choose(range) {
                Ok(params) => self.params.push(params),
                Err(error) => return Err(DynamicError::Scheme { row, group: None, error }),
            }
        }
        Ok(())
    }
}

/// The range of the finite values of row `i`.
#[inline(always)]
fn range_of_row<F: Float>(x: &FloatRows<'_, F>, i: usize, wide: &mut Wide) -> Option<Range> {
    let mut whole = None;
    let mut blocks = RowBlocks::new(x, i, wide);
    while let Some(block) = blocks.next() {
        whole = merge(whole, Range::of_finite(block));
    }
    whole
}

/// The smallest range that contains those that there are.
#[inline(always)]
fn merge(a: Option<Range>, b: Option<Range>) -> Option<Range> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.merge(b)),
        (a, b) => a.or(b),
    }
}
