//! The product: checks, the channels' offsets, then the loop nest, on one thread or several.

use core::ops::Range;

use qcore::{AccumulatorError, Q31Multiplier};

use crate::cpu::threads::Threads;
use crate::drive::nest::Product;
use crate::drive::parts;
use crate::drive::parts::Part;
use crate::drive::tiny;
use crate::left::codes::Left;
use crate::left::rows::Source;
use crate::matrix::view::MatMut;
use crate::matrix::workspace::{Arena, Operands, Workspace};
use crate::output::channels::{AllSmall, Offsets};
use crate::output::operands::{FixedPoint, RowTerms, StageOperands};
use crate::output::stage::sealed::Stored;
use crate::output::stage::{self, Output, OutputStage, Scales, StageError};
use crate::weights::packed::PackedWeights;

/// Why a product could not be computed. In that case nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GemmError {
    /// Activations and weights disagree on k.
    #[error("expected k = {expected} columns of activations, got {got}")]
    Depth {
        /// k of the weights.
        expected: usize,
        /// Columns of the activations.
        got: usize,
    },
    /// The output has another shape than the product.
    #[error("expected a {m} x {n} output, got {rows} x {cols}")]
    OutputShape {
        /// Rows of the activations.
        m: usize,
        /// Output channels of the weights.
        n: usize,
        /// Rows of the output.
        rows: usize,
        /// Columns of the output.
        cols: usize,
    },
    /// The columns asked for do not begin or end where panels of the packed weights do.
    #[error("columns {start}..{end} of n = {n} are not whole panels of {panel}")]
    Columns {
        /// First column.
        start: usize,
        /// One past the last column.
        end: usize,
        /// Output channels of the weights.
        n: usize,
        /// Columns of a panel.
        panel: usize,
    },
    /// The weights were packed for a narrower range of activations than these have.
    #[error("weights are packed for activations of at most {expected} (i8 plus 128), got up to {got}")]
    ActivationCodes {
        /// The largest activation that the weights were packed for, as u8 (i8 plus 128).
        expected: u8,
        /// The largest activation that these may have, likewise.
        got: u8,
    },
    /// Float sums leave the range of f32 before they are complete. The result would be NaN or
    /// infinite, although all operands are finite and so is their product.
    #[error("the sums of row {row} and channel {channel} leave the range of f32 before they are complete")]
    FloatRange {
        /// Row of the activations.
        row: usize,
        /// Output channel of the weights.
        channel: usize,
    },
    /// The sums of a channel might exceed int32.
    #[error(transparent)]
    Overflow(#[from] AccumulatorError),
    /// The output stage does not fit the weights.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Computes `out[i][j] = stage(sum_k (a[i][k] - zero_point) * (w[j][k] - w_zero_point[j]))`,
/// exactly, in int32.
///
/// `a` is (m, k): codes ([`MatRef`](crate::MatRef), [`Activations`](crate::Activations)) or floats
/// that are quantized on the way ([`FloatActivations`](crate::FloatActivations)). `out` is (m, n);
/// `w` determines n, k and the kernel. Each element of `out` has the same bits whatever the kernel,
/// the threads, the strides and the other rows of `a`. With a kept `workspace` a serial call
/// allocates nothing. Dimensions may be 0: without depth, results are the stage applied to sums of
/// 0; without rows or channels, nothing is written.
///
/// ```
/// use qkernels::{Activations, Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, gemm};
/// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3, 4, 5, -6], 2, 3)?, Kernel::select()?)?;
/// let a = Activations::new(MatRef::new(&[130u8, 128, 129], 1, 3)?, 128); // the values 2, 0, 1
/// let mut y = [0i32; 2];
/// gemm(a, &w, &Int32::new(), MatMut::new(&mut y, 1, 2)?, Threads::Serial, &mut Workspace::new())?;
/// assert_eq!(y, [2 * 1 + 1 * 3, 2 * 4 - 1 * 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`GemmError`] if shapes disagree, the stage has the wrong number of entries, or a sum might
/// leave int32.
pub fn gemm<A: Left, S: OutputStage>(
    a: A,
    w: &PackedWeights,
    stage: &S,
    out: MatMut<'_, Output<S>>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    compute(&a.source(), w, 0..w.n(), stage, out, threads, workspace)
}

/// [`gemm`](fn@gemm) for some columns, on the calling thread. It is for engines that spread a
/// product over threads of their own, each with a workspace of its own. (Rows are spread by calling
/// [`gemm`](fn@gemm) on some rows of `a` and of the output.)
///
/// `columns` are whole panels of `w`, best taken from [`PackedWeights::column_ranges`]. They may be
/// none, from the start of a panel or from n on: nothing is written then. `out` is
/// (m, `columns.len()`), for instance split off by [`MatMut::split_at_col`]. The stage is that of
/// the whole product, with entries for all n channels; only a residual has the shape of `out`. The
/// bits are those of the whole product.
///
/// ```
/// use qkernels::{Int32, Kernel, MatMut, MatRef, PackedWeights, Workspace, gemm_columns};
/// let (n, k) = (500, 3);
/// let w = PackedWeights::from_nk(MatRef::new(&vec![2i8; n * k], n, k)?, Kernel::select()?)?;
/// let a = MatRef::new(&[1u8, 2, 3], 1, k)?;
/// let mut y = vec![0; n];
/// let mut rest = MatMut::new(&mut y, 1, n)?;
/// std::thread::scope(|scope| {
///     for columns in w.column_ranges(2) {
///         let (out, other) = rest.split_at_col(columns.len()).unwrap();
///         rest = other;
///         let w = &w;
///         scope.spawn(move || gemm_columns(a, w, columns, &Int32::new(), out, &mut Workspace::new()).unwrap());
///     }
/// });
/// assert_eq!(y, vec![12; n]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`gemm`](fn@gemm), and [`GemmError::Columns`] if `columns` are not whole panels.
pub fn gemm_columns<A: Left, S: OutputStage>(
    a: A,
    w: &PackedWeights,
    columns: Range<usize>,
    stage: &S,
    out: MatMut<'_, Output<S>>,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    compute(&a.source(), w, columns, stage, out, Threads::Serial, workspace)
}

/// Computes the columns `columns` of a product, whatever the left operand.
fn compute<A: Source, S: OutputStage>(
    a: &A,
    w: &PackedWeights,
    columns: Range<usize>,
    stage: &S,
    out: MatMut<'_, Output<S>>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    let Workspace { operands, arenas, .. } = workspace;
    let call = Call { a, w, columns, stage, row_terms: RowTerms::default(), scale: None };
    call.run(out, threads, operands, arenas)
}

/// Checks that activations of the shape (m, k), some columns of the weights, the stage and an
/// output of the shape `out` fit each other. Until they do, nothing is computed and no memory is
/// requested.
pub(crate) fn check_shapes<S: OutputStage>(
    (m, k): (usize, usize),
    w: &PackedWeights,
    columns: &Range<usize>,
    stage: &S,
    out: (usize, usize),
) -> Result<(), GemmError> {
    if k != w.k() {
        return Err(GemmError::Depth { expected: w.k(), got: k });
    }
    if out != (m, columns.len()) {
        return Err(GemmError::OutputShape { m, n: columns.len(), rows: out.0, cols: out.1 });
    }
    Ok(stage::check(stage, w.n(), out)?)
}

/// A product to be computed, as the caller describes it.
pub(crate) struct Call<'c, A, S> {
    pub(crate) a: &'c A,
    pub(crate) w: &'c PackedWeights,
    pub(crate) columns: Range<usize>,
    pub(crate) stage: &'c S,
    /// Zero points and factors of the rows, if they have any.
    pub(crate) row_terms: RowTerms<'c>,
    /// A factor of all channels, besides the stage's.
    pub(crate) scale: Option<f32>,
}

impl<A: Source, S: OutputStage> Call<'_, A, S> {
    pub(crate) fn run(
        &self,
        out: MatMut<'_, Output<S>>,
        threads: Threads<'_>,
        operands: &mut Operands,
        arenas: &mut Vec<Arena>,
    ) -> Result<(), GemmError> {
        let Self { a, w, ref columns, stage, row_terms, .. } = *self;
        let (m, k) = (a.rows(), w.k());
        let panels = self.panels()?;
        check_shapes((m, a.cols()), w, columns, stage, (out.rows(), out.cols()))?;
        if a.largest_byte() > w.largest_byte() {
            return Err(GemmError::ActivationCodes { expected: w.largest_byte(), got: a.largest_byte() });
        }
        w.check_columns(columns.clone(), a.largest_distance(), stage.bias())?;
        self.check_residual()?;
        if m == 0 || columns.is_empty() {
            return Ok(());
        }

        let Operands { offsets, factors, multipliers, .. } = operands;
        let mut stage_operands = self.stage_operands(factors, multipliers);
        let tiny = tiny::fits(m, columns.len(), k);
        if !tiny {
            stage_operands.offsets = self.channel_offsets(offsets);
            let factors = AllSmall(stage_operands.factors);
            stage_operands.small_factors = stage.codes().is_some() && w.kernel().vectorize(factors);
        }
        let product = Product { a, w, first_channel: columns.start, stage: &stage_operands, row_terms };
        if tiny {
            tiny::run(&product, stage.bias(), out);
            return Ok(());
        }
        let out = Stored::target(out);
        let parts = threads.parts(m.saturating_mul(columns.len()).saturating_mul(k));
        if arenas.len() < parts {
            arenas.resize_with(parts, Arena::default);
        }
        let arenas = &mut arenas[..parts];
        let whole = Part { rows: 0..m, panels };
        if parts == 1 {
            parts::run(&product, whole, out, arenas);
        } else {
            threads.enter(|| parts::run(&product, whole, out, arenas));
        }
        Ok(())
    }

    /// An error if a scaled sum and a scaled residual might both be infinite. Their sum might be no
    /// number, which has no code.
    ///
    /// This is the only sum of two products of floats here. Elsewhere a factor multiplies a sum
    /// once and a finite bias is added, which makes no NaN of finite operands. (Scales of rows and
    /// channels are multiplied in `dynamic.rs`, which makes sure that their products are finite.)
    fn check_residual(&self) -> Result<(), StageError> {
        let Self { a, w, stage, .. } = *self;
        let (Some(residual), Some(factor)) = (stage.residual(), stage.factor()) else { return Ok(()) };
        let finite = |largest: u64, factor: f32| (largest as f32 * factor).is_finite();
        if finite(residual.codes.largest_distance(residual.zero_point).into(), residual.multiplier) {
            return Ok(());
        }
        for channel in self.columns.clone() {
            let multiplier = match factor {
                Scales::PerTensor(factor) => factor,
                Scales::PerChannel(factors) => factors[channel],
            };
            let bias = stage.bias().map_or(0, |bias| bias[channel].unsigned_abs());
            let sum = u64::from(w.channel_abs_sums()[channel]) * u64::from(a.largest_distance());
            if !finite(sum + u64::from(bias), multiplier) {
                let residual_multiplier = residual.multiplier;
                return Err(StageError::ResidualRange { channel, multiplier, residual_multiplier });
            }
        }
        Ok(())
    }

    /// The panels that the columns belong to.
    fn panels(&self) -> Result<Range<usize>, GemmError> {
        let Range { start, end } = self.columns;
        let (n, panel) = (self.w.n(), self.w.kernel().desc().nr);
        let whole = |column: usize| column == n || column < n && column.is_multiple_of(panel);
        if start > end || !whole(start) || !whole(end) {
            return Err(GemmError::Columns { start, end, n, panel });
        }
        Ok(start.div_ceil(panel)..end.div_ceil(panel))
    }

    /// The stage with all operands written out for the columns that are computed, except what
    /// products of a few numbers do without: the offsets, and whether factors are small.
    fn stage_operands<'f>(
        &'f self,
        factors: &'f mut Vec<f32>,
        multipliers: &'f mut Vec<Q31Multiplier>,
    ) -> StageOperands<'f> {
        let Self { w, ref columns, stage, .. } = *self;
        let of_columns = |bias: &'f [f32]| &bias[columns.clone()];
        StageOperands {
            offsets: &[],
            channel_sums: &w.channel_sums()[columns.clone()],
            zero_points: w.zero_points().get(columns.clone()).unwrap_or_default(),
            factors: self.channel_factors(factors),
            small_factors: false,
            float_bias: stage.float_bias().map(of_columns),
            function: stage.function(),
            output_scale: stage.output_scale(),
            codes: stage.codes().unwrap_or_default(),
            fixed_point: self.fixed_point(multipliers),
            residual: stage.residual(),
        }
    }

    /// The constant added to a channel's sums: `bias - (zero_point + shift) * sum_k w`, wrapping.
    ///
    /// The kernel's sums, with activations shifted to its form, may wrap as well. The total does
    /// not: `check_columns` makes sure of that.
    fn channel_offsets<'o>(&self, offsets: &'o mut Vec<i32>) -> &'o [i32] {
        let all = &self.columns;
        offsets.resize(all.len(), 0);
        let mut first = all.start;
        while first < all.end {
            let (end, kernel) = self.w.kernel_of(first..all.end);
            let shift = kernel.desc().form.shift(self.a.shift());
            let origin = self.a.zero_point().wrapping_add(shift);
            let sums = &self.w.channel_sums()[first..end];
            let bias = self.stage.bias().map(|bias| &bias[first..end]);
            let offsets = &mut offsets[first - all.start..end - all.start];
            self.w.kernel().vectorize(Offsets { origin, sums, bias, offsets });
            first = end;
        }
        offsets
    }

    /// The factor of each channel; empty if there is none.
    fn channel_factors<'f>(&'f self, factors: &'f mut Vec<f32>) -> &'f [f32] {
        match (self.stage.factor(), self.scale) {
            (None, _) => return &[],
            (Some(Scales::PerChannel(factors)), None) => return &factors[self.columns.clone()],
            (Some(Scales::PerTensor(factor)), scale) => {
                factors.clear();
                factors.resize(self.columns.len(), scale.map_or(factor, |scale| scale * factor));
            }
            (Some(Scales::PerChannel(all)), Some(scale)) => {
                factors.clear();
                factors.extend(all[self.columns.clone()].iter().map(|factor| scale * factor));
            }
        }
        factors
    }

    /// The fixed-point multiplier of each channel, if the stage has any.
    fn fixed_point<'f>(&'f self, multipliers: &'f mut Vec<Q31Multiplier>) -> Option<FixedPoint<'f>> {
        let (given, rounding) = self.stage.fixed_point()?;
        let multipliers = if let [one] = *given {
            multipliers.clear();
            multipliers.resize(self.columns.len(), one);
            multipliers
        } else {
            &given[self.columns.clone()]
        };
        Some(FixedPoint { multipliers, rounding })
    }
}
