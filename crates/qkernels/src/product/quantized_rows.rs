//! Floats that are quantized once and multiplied several times.

use bytemuck::must_cast_slice;
use qcore::{CodeRange, Float, QParams, Scheme};

use crate::cpu::threads::Threads;
use crate::cpu::vectorize::Task;
use crate::kernel::token::Kernel;
use crate::left::codes::{Activation, Activations};
use crate::left::float_rows::FloatRows;
use crate::left::floats::{RowParams, quantize_bytes};
use crate::matrix::signs::shift;
use crate::matrix::view::{MatMut, MatRef};
use crate::matrix::workspace::{Tokens, Workspace};
use crate::output::operands::RowTerms;
use crate::output::stage::{DequantizeTo, FloatStage, StoredFloat};
use crate::product::dynamic::{Dynamic, DynamicError, check_scales};
use crate::product::gemm::{Call, check_shapes};
use crate::product::scaled;
use crate::product::weight_only::check_shapes as check_scaled_shapes;
use crate::weights::packed::PackedWeights;
use crate::weights::scaled::ScaledWeights;

/// Rows of floats as codes, with a scale and a zero point for each row, or for all. Several layers
/// that read the same values (query, key and value of an attention) multiply them by [`gemm_rows`]
/// or [`gemm_scaled_rows`], and the work of quantizing is done once.
/// [`gemm_dynamic`](crate::gemm_dynamic) is the way for a single product: it keeps no codes.
///
/// The memory is kept from call to call.
///
/// ```
/// use qkernels::{Dequantize, Dynamic, Kernel, MatMut, MatRef, PackedWeights, QuantizedRows, Scales};
/// use qkernels::{Threads, Workspace, gemm_rows};
/// let kernel = Kernel::select()?;
/// let (x, mut rows) = ([1.55f32, -1.0], QuantizedRows::new()); // scale 0.01, zero point 100
/// rows.quantize(MatRef::new(&x, 1, 2)?, Dynamic::default(), kernel)?;
/// let stage = Dequantize::new(Scales::PerTensor(0.01))?;
/// for (weights, expected) in [([100i8, -50], 2.05), ([25, 100], -0.6125)] {
///     let w = PackedWeights::from_nk(MatRef::new(&weights, 1, 2)?, kernel)?;
///     let mut y = [0.0];
///     let out = MatMut::new(&mut y, 1, 1)?;
///     gemm_rows(&rows, &w, &stage, out, Threads::Serial, &mut Workspace::new())?;
///     assert!((y[0] - expected).abs() < 1e-6);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct QuantizedRows {
    rows: usize,
    cols: usize,
    /// The codes (rows, cols), as bytes of u8 or i8.
    codes: Vec<u8>,
    is_signed: bool,
    range: CodeRange,
    /// The parameters of each row, or a single one.
    tokens: Tokens,
    is_per_tensor: bool,
    /// Consecutive k of a row that share a scale, if not all of them do.
    group_len: Option<usize>,
}

impl Default for QuantizedRows {
    fn default() -> Self {
        let (codes, tokens) = (Vec::new(), Tokens::default());
        let (is_signed, range, is_per_tensor) = (false, CodeRange::U8, false);
        Self { rows: 0, cols: 0, codes, is_signed, range, tokens, is_per_tensor, group_len: None }
    }
}

impl QuantizedRows {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many values a row has.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Replaces all rows by those of `x` (m, k), quantized as `how` says, in the vector code of
    /// `kernel`'s level. As in [`gemm_dynamic`](crate::gemm_dynamic), values that are not finite do
    /// not count for the range. [`FloatRows`] may divide values first.
    ///
    /// # Errors
    /// [`DynamicError`] if the scheme has no parameters for the values, its codes fit neither u8
    /// nor i8, rows cannot have such groups, or there is no memory for the scales or the codes.
    /// There are no rows then.
    pub fn quantize<'x, F: Float>(
        &mut self,
        x: impl Into<FloatRows<'x, F>>,
        how: Dynamic,
        kernel: Kernel,
    ) -> Result<(), DynamicError> {
        let x = x.into();
        (self.rows, self.cols) = (0, x.cols());
        self.group_len = how.group_len();
        how.check_rows(self.cols)?;
        let codes = how.codes();
        let (is_signed, rows, cols) = (shift(codes)? != 0, x.rows(), x.cols());
        let memory = DynamicError::Memory { rows, cols };
        let len = rows.checked_mul(cols).ok_or(memory)?;
        if let Some(more) = len.checked_sub(self.codes.len()) {
            self.codes.try_reserve(more).map_err(|_| memory)?;
            self.codes.resize(len, 0);
        }
        // Rows without values may be any number, so they share their parameters.
        let how = match how {
            _ if len > 0 => how,
            Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) | Dynamic::PerGroup { scheme, .. } => {
                Dynamic::PerTensor(scheme)
            }
            Dynamic::GgmlQ8_0 => Dynamic::PerTensor(Scheme { codes, ..Scheme::weights_i8() }),
        };
        self.is_per_tensor = matches!(how, Dynamic::PerTensor(_));
        self.tokens.choose_as(&x, how, kernel)?;
        if len > 0 {
            let (params, to) = (self.tokens.row_params(how), &mut self.codes[..len]);
            kernel.vectorize(QuantizeRows { x: &x, params, to });
        }
        (self.rows, self.is_signed, self.range) = (rows, is_signed, codes);
        Ok(())
    }
}

impl QuantizedRows {
    /// The codes, of the type that they have.
    fn activations<A: Activation>(&self) -> Result<Activations<'_, A>, DynamicError> {
        let &Self { rows, cols, range, is_per_tensor, .. } = self;
        let codes = must_cast_slice(&self.codes[..rows * cols]);
        let codes = MatRef::<A>::new(codes, rows, cols).map_err(|_| DynamicError::Memory { rows, cols })?;
        // All groups of a row have the zero point of the first one.
        let params = &self.tokens.params;
        let distance = params.iter().map(|params| range.largest_distance(params.zero_point())).max();
        let distance = distance.unwrap_or_else(|| range.largest_distance(0));
        let zero_point = params.first().filter(|_| is_per_tensor).map_or(0, QParams::zero_point);
        Ok(Activations::known(codes, zero_point, range, distance))
    }
}

/// Computes a layer on rows that were quantized before: [`gemm_dynamic`](crate::gemm_dynamic), with
/// the same bits, but for the work of quantizing.
///
/// # Errors
/// As [`gemm_dynamic`](crate::gemm_dynamic).
pub fn gemm_rows<T: StoredFloat>(
    x: &QuantizedRows,
    w: &PackedWeights,
    stage: &DequantizeTo<'_, T>,
    out: MatMut<'_, T>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), DynamicError> {
    check_shapes((x.rows, x.cols), w, &(0..w.n()), stage, (out.rows(), out.cols()))?;
    if let Some(group_len) = x.group_len {
        return Err(DynamicError::Groups { group_len });
    }
    if x.is_signed {
        multiply::<i8, T>(x, w, stage, out, threads, workspace)
    } else {
        multiply::<u8, T>(x, w, stage, out, threads, workspace)
    }
}

/// Computes a layer of weights in groups, or of 4 bits, on rows that were quantized before:
/// [`gemm_scaled`](crate::gemm_scaled), with the same bits, but for the work of quantizing.
///
/// ```
/// use qcore::Scheme;
/// use qkernels::{Dynamic, FloatStage, Kernel, MatMut, MatRef, PackedNibbles, QuantizedRows, ScaledWeights};
/// use qkernels::{Threads, WeightScales, Workspace, gemm_scaled_rows};
/// let (kernel, mut rows) = (Kernel::select()?, QuantizedRows::new());
/// let how = Dynamic::PerToken(Scheme::weights_i8());
/// rows.quantize(MatRef::new(&[1.27f32, -1.0], 1, 2)?, how, kernel)?; // scale 0.01
/// let w = PackedNibbles::from_nk(MatRef::new(&[9u8, 4], 1, 2)?, kernel)?;
/// let w = ScaledWeights::of_nibbles(w, WeightScales::per_channel(&[0.5]).with_zero_points(&[8]))?;
/// let (mut y, stage) = ([0.0f32], FloatStage::new());
/// let out = MatMut::new(&mut y, 1, 1)?;
/// gemm_scaled_rows(&rows, &w, &stage, out, Threads::Serial, &mut Workspace::new())?;
/// assert!((y[0] - 0.5 * (1.27 * 1.0 + 1.0 * 4.0)).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`gemm_scaled`](crate::gemm_scaled).
pub fn gemm_scaled_rows<Y: Float>(
    x: &QuantizedRows,
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    out: MatMut<'_, Y>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), DynamicError> {
    let (m, n) = check_scaled_shapes((x.rows, x.cols), w, stage, (out.rows(), out.cols()))?;
    w.check_groups(x.group_len)?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let (arenas, order) = (&mut workspace.arenas, w.input_order());
    if x.is_signed {
        scaled::run(&x.activations::<i8>()?.in_order(order), &x.tokens, w, stage, out, threads, arenas)
    } else {
        scaled::run(&x.activations::<u8>()?.in_order(order), &x.tokens, w, stage, out, threads, arenas)
    }
}

fn multiply<A: Activation, T: StoredFloat>(
    x: &QuantizedRows,
    w: &PackedWeights,
    stage: &DequantizeTo<'_, T>,
    out: MatMut<'_, T>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), DynamicError> {
    let Tokens { params, factors, zero_points, .. } = &x.tokens;
    if out.rows() > 0 && out.cols() > 0 {
        check_scales(factors, stage, w.kernel())?;
    }
    let a = &x.activations::<A>()?;
    let common = params.first().filter(|_| x.is_per_tensor);
    let row_terms = match common {
        Some(_) => RowTerms::default(),
        None => RowTerms { sums: &[], zero_points, factors },
    };
    let scale = common.map(QParams::scale);
    let call = Call { a, w, columns: 0..w.n(), stage, row_terms, scale };
    Ok(call.run(out, threads, &mut workspace.operands, &mut workspace.arenas)?)
}

struct QuantizeRows<'t, 'x, F> {
    x: &'t FloatRows<'x, F>,
    params: RowParams<'t>,
    to: &'t mut [u8],
}

impl<F: Float> Task for QuantizeRows<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, to) in self.to.chunks_exact_mut(self.x.cols()).enumerate() {
            quantize_bytes(self.x, i, &self.params, to);
        }
    }
}
