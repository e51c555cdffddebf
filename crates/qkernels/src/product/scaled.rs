//! Integer products of weights of 8 or 4 bits that have a scale for each group of k.

use qcore::{Float, Kind};

use crate::cpu::threads::Threads;
use crate::drive::nibble_tiles::NibbleProduct;
use crate::drive::panel_walk::PanelWalk;
use crate::drive::parts;
use crate::drive::scaled_tiles::ScaledProduct;
use crate::kernel::desc::ActivationForm;
use crate::left::float_rows::FloatRows;
use crate::left::floats::FloatActivations;
use crate::left::rows::Source;
use crate::matrix::signs::shift;
use crate::matrix::view::MatMut;
use crate::matrix::workspace::{Arena, Tokens, Workspace};
use crate::output::stage::FloatStage;
use crate::product::dynamic::{Dynamic, DynamicError};
use crate::product::gemm::GemmError;
use crate::product::weight_only::check_shapes;
use crate::weights::scaled::ScaledWeights;

/// Computes a layer on floats through integer products, with a scale for each group of k (W8A8 and
/// W4A8 in groups). `x` (m, k) is quantized as `how` says. The products of each group are summed
/// exactly in int32, and these sums are scaled and added up in f32:
///
/// ```text
/// out[i][j] = stage(sum_g (x_scale[i] * scale[j][g]) * f32(sum_k (code(x[i][k]) - x_zero_point[i]) * (w[j][k] - zero_point[j][g])))
/// ```
///
/// `x` may have a scale for each group of k of its own ([`Dynamic::PerGroup`],
/// [`Dynamic::GgmlQ8_0`]): then `x_scale[i]` is that of the group. [`FloatRows`] are divided by
/// scales of channels as they are read. Where weights have minimums or
/// parts of groups, [`qcore::group_term_with_minimum`] defines the
/// terms.
///
/// The groups are added in their order, with one rounding for each operation ([`qcore::group_term`]
/// and [`qcore::sum_group_terms`] are the definition). So a result has the same bits whatever the
/// kernel, the threads, the strides and the other rows of `x`. (An activation function other than
/// ReLU and its like has them, too.) With a scale per channel they are those of
/// [`gemm_dynamic`](crate::gemm_dynamic), which is faster then. The weights are those of
/// [`weight_only`](crate::weight_only), which rounds no activations.
///
/// Values that are not finite do not count for a row's range: NaN becomes the zero point, and
/// infinities saturate. Symmetric i8 activations need no sums of weights and are the usual choice.
/// Dimensions may be 0, as in [`weight_only`](crate::weight_only). With a kept `workspace` a serial
/// call allocates nothing.
///
/// ```
/// use qcore::Scheme;
/// use qkernels::{Dynamic, FloatStage, Kernel, MatMut, MatRef, PackedWeights, ScaledWeights, Threads};
/// use qkernels::{WeightScales, Workspace, gemm_scaled};
/// let codes: Vec<i8> = (0..64).map(|k| if k < 32 { 2 } else { -1 }).collect();
/// let w = PackedWeights::from_nk(MatRef::new(&codes, 1, 64)?, Kernel::select()?)?;
/// let w = ScaledWeights::new(w, WeightScales::per_group(&[0.5, 0.25], 32))?; // two groups
/// let x = [1.27f32; 64]; // scale 0.01, code 127
/// let (x, mut y) = (MatRef::new(&x, 1, 64)?, [0f32]);
/// let how = Dynamic::PerToken(Scheme::weights_i8());
/// let out = MatMut::new(&mut y, 1, 1)?;
/// gemm_scaled(x, how, &w, &FloatStage::new(), out, Threads::Serial, &mut Workspace::new())?;
/// assert!((y[0] - 32.0 * 1.27 * (2.0 * 0.5 - 0.25)).abs() < 1e-4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DynamicError`] if shapes disagree, the bias has the wrong number of entries, the scheme has no
/// parameters for the values, its codes are unusable, its groups are not those of the weights
/// ([`ScaledWeights::check_activations`]), the product of two scales is not finite, the terms of
/// several groups might not be, or a group's sum might leave int32.
pub fn gemm_scaled<'x, F: Float, Y: Float>(
    x: impl Into<FloatRows<'x, F>>,
    how: Dynamic,
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    out: MatMut<'_, Y>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), DynamicError> {
    let x = x.into();
    let (m, n) = check_shapes((x.rows(), x.cols()), w, stage, (out.rows(), out.cols()))?;
    w.check_activations(how)?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let (Workspace { tokens, arenas, .. }, order) = (workspace, w.input_order());
    tokens.choose_as(&x, how, w.kernel())?;
    let a = &FloatActivations::with(x, tokens.row_params(how), how.codes())?.in_order(order);
    run(a, tokens, w, stage, out, threads, arenas)
}

impl ScaledWeights {
    /// The same weights, [with the sums](Self::with_sums) of their groups if products with
    /// activations that are quantized as `how` says need them: those with a zero point, and those
    /// that the kernel reads in a shifted form. (Symmetric i8 activations need none.)
    #[must_use]
    pub fn for_activations(self, how: Dynamic) -> Self {
        let symmetric = match how {
            Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) | Dynamic::PerGroup { scheme, .. } => {
                matches!(scheme.kind, Kind::Symmetric { .. }) && scheme.codes.middle() == 0
            }
            Dynamic::GgmlQ8_0 => true,
        };
        let form = match self.codes() {
            Ok(codes) => codes.kernel().desc().scaled_form(),
            Err(_) => ActivationForm::I8,
        };
        // Codes that cannot be multiplied are refused later.
        match shift(how.codes()) {
            Ok(to_u8) if symmetric && form.shift(to_u8) == 0 => self,
            _ => self.with_sums(),
        }
    }
}

/// Multiplies rows whose scales and zero points are known, and whose columns are in the order of
/// the weights.
pub(super) fn run<S: Source, Y: Float>(
    a: &S,
    tokens: &Tokens,
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    out: MatMut<'_, Y>,
    threads: Threads<'_>,
    arenas: &mut Vec<Arena>,
) -> Result<(), DynamicError> {
    check_scales(tokens, w)?;
    check_terms(tokens, w, a.largest_distance())?;
    w.check_accumulators(a.largest_distance()).map_err(GemmError::from)?;
    let shape = (a.rows(), w.n(), w.k());
    match w.codes() {
        Ok(_) => {
            let product = PanelWalk { product: ScaledProduct { a, tokens, w }, stage };
            parts::run_whole(&product, shape, out, threads, arenas);
        }
        Err(codes) => {
            let product = PanelWalk { product: NibbleProduct { a, tokens, w, codes }, stage };
            parts::run_whole(&product, shape, out, threads, arenas);
        }
    }
    Ok(())
}

/// An error if terms that are added up, all as large as they can be, have no finite sum.
fn check_terms(tokens: &Tokens, w: &ScaledWeights, largest_input: u32) -> Result<(), DynamicError> {
    let (entries, depth) = (w.entries(), w.k() as f64);
    let largest = &entries.largest;
    if w.groups() < 2 && largest.minimum == 0.0 {
        return Ok(());
    }
    let largest_sum = |of_weights: f64| f64::from(largest_input) * of_weights * depth;
    let of_codes = largest_sum(w.largest_weight() as f64 * f64::from(largest.part_scale));
    let of_minimums = largest_sum(largest.part_minimum.into());
    // Each operation rounds, and there are far fewer than would double the sum.
    let bound = 2.0 * (f64::from(largest.scale) * of_codes + f64::from(largest.minimum) * of_minimums);
    let fits = |factor: f32| f64::from(factor) * bound <= f64::from(f32::MAX);
    let Some(at) = tokens.factors.iter().position(|&factor| !fits(factor)) else { return Ok(()) };
    // The larger one of the two terms.
    let (scale, largest_sum) = [(largest.minimum, of_minimums), (largest.scale, of_codes)]
        .into_iter()
        .max_by(|(x, sum_x), (y, sum_y)| (f64::from(*x) * sum_x).total_cmp(&(f64::from(*y) * sum_y)))
        .unwrap_or_default();
    let ((row, group), row_scale) = (tokens.place(at), tokens.factors[at]);
    Err(DynamicError::GroupRange { row, group, row_scale, scale, largest_sum })
}

/// An error if the scale of a row and that of a group, or its minimum, have no finite product.
fn check_scales(tokens: &Tokens, w: &ScaledWeights) -> Result<(), DynamicError> {
    let largest = &w.entries().largest;
    let most = largest.scale.max(largest.minimum);
    let too_large = |factor: &f32| !(factor * most).is_finite();
    let Some(factor) = tokens.factors.iter().position(too_large) else { return Ok(()) };
    let values = if largest.scale < most { w.minimums().unwrap_or_default() } else { w.scales() };
    let at = values.iter().position(|value| value.abs() == most).unwrap_or(0);
    let (row, group) = tokens.place(factor);
    let (row_scale, channel) = (tokens.factors[factor], at / w.groups().max(1));
    Err(DynamicError::ScaleRange { row, group, row_scale, channel, channel_scale: values[at] })
}
