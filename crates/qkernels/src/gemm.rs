//! The product: checks, the channels' offsets, then the loop nest, on one thread or several.

use qcore::{AccumulatorError, check_accumulator};

use crate::activation::{Activation, Activations};
use crate::finish::Finish;
use crate::kernel::ActivationForm;
use crate::nest::{Part, Product};
use crate::packed::PackedWeights;
use crate::stage::{self, Output, OutputStage, Scales, StageError};
use crate::threads::{self, Threads};
use crate::view::MatMut;
use crate::workspace::{Arena, Workspace};

/// Why a product could not be computed. Nothing was written then.
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
    /// The sums of a channel might exceed int32.
    #[error(transparent)]
    Overflow(#[from] AccumulatorError),
    /// The output stage does not fit the weights.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Computes `out[i][j] = stage(sum_k (a[i][k] - zero_point) * w[j][k])`, exactly, in int32.
///
/// `a` is (m, k), `out` (m, n); `w` fixes n, k and the kernel. Each element of `out` has the same bits whatever the kernel,
/// the threads, the strides and the other rows of `a`. With a kept `workspace` a serial call allocates nothing.
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
/// [`GemmError`] if shapes disagree, the stage has the wrong number of entries, or a sum might leave int32.
pub fn gemm<'a, A: Activation, S: OutputStage>(
    a: impl Into<Activations<'a, A>>,
    w: &PackedWeights,
    stage: &S,
    out: MatMut<'_, Output<S>>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    let a = a.into();
    let (m, n, k) = (a.view.rows(), w.n(), w.k());
    if a.view.cols() != k {
        return Err(GemmError::Depth { expected: k, got: a.view.cols() });
    }
    if (out.rows(), out.cols()) != (m, n) {
        return Err(GemmError::OutputShape { m, n, rows: out.rows(), cols: out.cols() });
    }
    stage::check(stage, n)?;
    check_sums(&a, w, stage.bias())?;
    if m == 0 || n == 0 {
        return Ok(());
    }

    let parts = threads.parts(m.saturating_mul(n).saturating_mul(k));
    let Workspace { offsets, factors, arenas } = workspace;
    let finish = Finish {
        offsets: channel_offsets(&a, w, stage.bias(), offsets),
        factors: channel_factors(stage.factor(), n, factors),
        float_bias: stage.float_bias(),
        relu: stage.relu(),
        codes: stage.codes(),
    };
    if arenas.len() < parts {
        arenas.resize_with(parts, Arena::default);
    }
    let arenas = &mut arenas[..parts];
    let product = Product { a: a.view, w, finish };
    let out = S::target(out);
    let whole = Part { rows: 0..m, panels: 0..w.layout().panels() };
    if parts == 1 {
        threads::run(&product, whole, out, arenas);
    } else {
        threads.enter(|| threads::run(&product, whole, out, arenas));
    }
    Ok(())
}

/// No sum can leave int32, by qcore's bound for each channel.
fn check_sums<A: Activation>(
    a: &Activations<'_, A>,
    w: &PackedWeights,
    bias: Option<&[i32]>,
) -> Result<(), AccumulatorError> {
    let largest_a = A::RANGE.largest_distance(a.zero_point);
    // One test for all channels nearly always suffices; only its failure asks which channel it is.
    let largest_bias = bias.unwrap_or_default().iter().copied().max_by_key(|bias| bias.unsigned_abs());
    if check_accumulator(0, largest_a, u64::from(w.largest_abs_sum()), largest_bias.unwrap_or(0)).is_ok() {
        return Ok(());
    }
    for (channel, &abs_sum) in w.channel_abs_sums().iter().enumerate() {
        check_accumulator(channel, largest_a, u64::from(abs_sum), bias.map_or(0, |bias| bias[channel]))?;
    }
    Ok(())
}

/// What is added to the kernel's sums of each channel: `bias - (zero_point + shift) * sum_k w`, wrapping.
///
/// The kernel's sums, with activations shifted to u8, may wrap as well; the total does not, by `check_sums`.
fn channel_offsets<'o, A: Activation>(
    a: &Activations<'_, A>,
    w: &PackedWeights,
    bias: Option<&[i32]>,
    offsets: &'o mut Vec<i32>,
) -> &'o [i32] {
    let shift = match w.kernel().desc().form {
        ActivationForm::U8 => A::SHIFT,
        ActivationForm::I16 => 0,
    };
    let origin = a.zero_point.wrapping_add(shift);
    let terms = w.channel_sums().iter().map(|&sum| origin.wrapping_mul(sum).wrapping_neg());
    offsets.clear();
    match bias {
        None => offsets.extend(terms),
        Some(bias) => offsets.extend(terms.zip(bias).map(|(term, bias)| bias.wrapping_add(term))),
    }
    offsets
}

/// The factor of each channel; none where there is no factor.
fn channel_factors<'f>(factor: Option<Scales<'f>>, n: usize, factors: &'f mut Vec<f32>) -> &'f [f32] {
    match factor {
        None => &[],
        Some(Scales::PerChannel(factors)) => factors,
        Some(Scales::PerTensor(factor)) => {
            factors.clear();
            factors.resize(n, factor);
            factors
        }
    }
}
