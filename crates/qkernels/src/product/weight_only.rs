//! Weight-only products: float activations, weights that become f32 as they are read, sums in f32.

use qcore::Float;

use crate::cpu::threads::Threads;
use crate::drive::float_tiles::FloatProduct;
use crate::drive::panel_walk::PanelWalk;
use crate::drive::parts;
use crate::left::float_rows::FloatRows;
use crate::matrix::view::MatMut;
use crate::matrix::workspace::Workspace;
use crate::output::stage::{FloatStage, check_len};
use crate::product::float_range;
use crate::product::gemm::GemmError;
use crate::weights::scaled::ScaledWeights;

/// Computes `out[i][j] = stage(sum_k a[i][k] * scale[j][k] * (w[j][k] - zero_point[j][k]))` in f32,
/// where all k of a group have one scale and one zero point. Where there are minimums or parts of
/// groups, weights have the values that [`WeightScales`](crate::WeightScales) says.
///
/// `a` is (m, k) and `out` is (m, n). Each may be f32, f16 or bf16. `a` is a
/// [`MatRef`](crate::MatRef), or [`FloatRows`] that are divided as they are read. `w` determines n,
/// k and the kernel. 16-bit activations are widened exactly. Results are rounded once, to nearest,
/// ties to even. Weights are never dequantized as a whole: in a register, or panel by panel for
/// many rows, each becomes f32 minus its zero point, exactly. With a kept `workspace` a serial call
/// allocates nothing.
///
/// # Precision
/// Each element of `out` has the same bits whatever the threads, the strides and the other rows of
/// `a`; only which NaN a NaN is may depend on them. Kernels differ from each other in the order of
/// their sums. On all of them an f32 result is within
/// `(k + 8) * 2^-24 * (sum_k |a * scale * (w - zero_point)| + |bias|)` of the exact one, as long as
/// no sum leaves the range of f32 and none of its terms is subnormal. If a sum leaves the range
/// before it is complete, and is infinite or NaN instead of the finite sum that it should be, the
/// product is an error. NaN and infinities of `a` reach every result of their row, as if the
/// weights were f32.
///
/// Minimums of weights multiply the sum of the row's activations in each group or part. The bound
/// then has `|a * minimum|` beside the products, and infinities of `a` may become NaN.
///
/// Dimensions may be 0: without depth, results are the stage applied to sums of 0; without rows or
/// channels, nothing is written.
///
/// ```
/// use qkernels::{
///     FloatStage, Kernel, MatMut, MatRef, PackedWeights, ScaledWeights, Threads, WeightScales, Workspace, weight_only,
/// };
/// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3, 4, 5, -6], 2, 3)?, Kernel::select()?)?;
/// let w = ScaledWeights::new(w, WeightScales::per_channel(&[0.5, 0.25]))?;
/// let a = MatRef::new(&[2.0f32, 0.0, 1.5], 1, 3)?;
/// let mut y = [0f32; 2];
/// weight_only(a, &w, &FloatStage::new(), MatMut::new(&mut y, 1, 2)?, Threads::Serial, &mut Workspace::new())?;
/// assert_eq!(y, [0.5 * (2.0 + 1.5 * 3.0), 0.25 * (2.0 * 4.0 - 1.5 * 6.0)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`GemmError`] if shapes disagree, the bias has the wrong number of entries, or sums leave the
/// range of f32 on their way.
pub fn weight_only<'a, A: Float, Y: Float>(
    a: impl Into<FloatRows<'a, A>>,
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    out: MatMut<'_, Y>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    let a = a.into();
    let (m, n) = check_shapes((a.rows(), a.cols()), w, stage, (out.rows(), out.cols()))?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    float_range::check(a, w, workspace)?;
    let product = PanelWalk { product: FloatProduct { a, w }, stage };
    parts::run_whole(&product, (m, n, w.k()), out, threads, &mut workspace.arenas);
    Ok(())
}

/// Checks the shapes of the left operand and the output, and the stage's bias. The rows and columns
/// of the product.
pub(super) fn check_shapes(
    (m, cols): (usize, usize),
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    out: (usize, usize),
) -> Result<(usize, usize), GemmError> {
    let (n, k) = (w.n(), w.k());
    if cols != k {
        return Err(GemmError::Depth { expected: k, got: cols });
    }
    if out != (m, n) {
        return Err(GemmError::OutputShape { m, n, rows: out.0, cols: out.1 });
    }
    if let Some(bias) = stage.bias {
        check_len("bias", n, bias.len())?;
    }
    Ok((m, n))
}
