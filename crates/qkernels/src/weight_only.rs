//! Weight-only products: float activations, i8 weights that become f32 in registers, sums in f32.
//!
//! The loops are those of the integer nest (`nest.rs`) without a split of k, as a tile's rows of floats stream from L2 fast
//! enough: blocks of panels in L3, blocks of rows in L2, then one panel after the other, tile by tile.

use qcore::Float;

use crate::blocking::{Blocking, Extent};
use crate::caches::Caches;
use crate::float_range;
use crate::float_tile::{FloatTile, PLAIN_ROWS};
use crate::gemm::GemmError;
use crate::kernel::{Kernel, KernelDesc};
use crate::nest::Part;
use crate::rows::staggered;
use crate::scaled::ScaledWeights;
use crate::stage::{StageError, check_finite, check_len};
use crate::threads::{self, Cut, Divisible, Threads};
use crate::vectorize::Task;
use crate::view::{MatMut, MatRef};
use crate::workspace::{Arena, Workspace};

/// What becomes of the sums of a weight-only product: `y = sum + bias`, then ReLU, in f32.
///
/// ```
/// use qkernels::FloatStage;
/// let stage = FloatStage::new().with_bias(&[0.5, -1.0])?.with_relu();
/// # Ok::<(), qkernels::StageError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FloatStage<'a> {
    bias: Option<&'a [f32]>,
    relu: bool,
}

impl<'a> FloatStage<'a> {
    /// `y = sum`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bias, one entry for each channel.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if an entry is NaN or infinite.
    pub fn with_bias(self, bias: &'a [f32]) -> Result<Self, StageError> {
        check_finite("bias", bias)?;
        Ok(Self { bias: Some(bias), ..self })
    }

    /// Replaces negative results by 0.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { relu: true, ..self }
    }
}

/// Computes `out[i][j] = stage(sum_k a[i][k] * scale[j][k] * (w[j][k] - zero_point[j][k]))` in f32, where all k of a group
/// have one scale and one zero point.
///
/// `a` is (m, k), `out` (m, n), each of f32, f16 or bf16; `w` fixes n, k and the kernel. 16-bit activations are widened
/// exactly, results rounded once, to nearest, ties to even. Weights are never dequantized as a whole: each becomes f32, less
/// its zero point, exactly, in a register. With a kept `workspace` a serial call allocates nothing.
///
/// # Precision
/// Each element of `out` has the same bits whatever the threads, the strides and the other rows of `a`; kernels differ from
/// each other in the order of their sums. On all of them an f32 result is within
/// `(k + 8) * 2^-24 * (sum_k |a * scale * (w - zero_point)| + |bias|)` of the exact one, as long as no sum leaves the range
/// of f32. Where one does that before it is complete, and is infinite or NaN instead of the finite sum that it should be, the
/// product is an error. NaN and infinities of `a` reach every result of their row, as if the weights were f32.
///
/// Dimensions may be 0: without depth, results are the stage of sums of 0; without rows or channels, nothing is written.
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
/// [`GemmError`] if shapes disagree, the bias has the wrong number of entries, or sums leave the range of f32 on their way.
pub fn weight_only<A: Float, Y: Float>(
    a: MatRef<'_, A>,
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    out: MatMut<'_, Y>,
    threads: Threads<'_>,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    let weights = w.weights();
    let (m, n, k) = (a.rows(), weights.n(), weights.k());
    if a.cols() != k {
        return Err(GemmError::Depth { expected: k, got: a.cols() });
    }
    if (out.rows(), out.cols()) != (m, n) {
        return Err(GemmError::OutputShape { m, n, rows: out.rows(), cols: out.cols() });
    }
    if let Some(bias) = stage.bias {
        check_len("bias", n, bias.len())?;
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    float_range::check(a, w, workspace)?;
    let parts = threads.parts(m.saturating_mul(n).saturating_mul(k));
    let arenas = workspace.arenas(parts);
    let product = FloatProduct { a, w, stage };
    let whole = Part { rows: 0..m, panels: 0..weights.layout().panels() };
    if parts == 1 {
        threads::run(&product, whole, out, arenas);
    } else {
        threads.enter(|| threads::run(&product, whole, out, arenas));
    }
    Ok(())
}

/// What all parts of one product share.
pub(crate) struct FloatProduct<'p, A> {
    pub(crate) a: MatRef<'p, A>,
    pub(crate) w: &'p ScaledWeights,
    pub(crate) stage: &'p FloatStage<'p>,
}

impl<Y: Send> Cut for MatMut<'_, Y> {
    fn columns(&self) -> usize {
        self.cols()
    }

    fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        self.split_at_row(row)
    }

    fn split_at_col(self, column: usize) -> Option<(Self, Self)> {
        self.split_at_col(column)
    }
}

impl<A: Float, Y: Float> Divisible<MatMut<'_, Y>> for FloatProduct<'_, A> {
    fn desc(&self) -> &'static KernelDesc {
        self.w.weights().kernel().desc()
    }

    fn run(&self, part: &Part, out: &mut MatMut<'_, Y>, arena: &mut Arena) {
        if part.rows.is_empty() || part.panels.is_empty() {
            return;
        }
        let weights = self.w.weights();
        let (kernel, layout) = (weights.kernel(), weights.layout());
        let desc = kernel.desc();
        let mr = desc.float.as_ref().map_or(PLAIN_ROWS, |body| body.rows);
        let group_bytes = desc.kr * size_of::<f32>();
        let groups = desc.groups(layout.k);
        let extent = Extent { rows: part.rows.len(), panels: part.panels.len(), groups, group_bytes };
        let block = Blocking::new(Caches::of_this_cpu(), desc, extent);
        arena.float_sums.resize(mr * desc.nr, 0.0);
        for jc in part.panels.clone().step_by(block.panels) {
            let panels = jc..(jc + block.panels).min(part.panels.end);
            for ic in part.rows.clone().step_by(block.rows) {
                let rows = ic..(ic + block.rows).min(part.rows.end);
                let Some(a) = self.a.row_range(rows.clone()) else { return };
                let a = FloatRows::new(&a, kernel, &mut arena.float_rows);
                for p in panels.clone() {
                    let (scales, zero_points) = self.w.panel(p);
                    let columns = layout.columns(p);
                    let first_channel = p * desc.nr;
                    let channels = first_channel..first_channel + layout.used_columns(p);
                    let first_column = (p - part.panels.start) * desc.nr;
                    // Tiles as even as can be, so that none is left with a single row.
                    let tiles = rows.len().div_ceil(mr);
                    for tile in 0..tiles {
                        let i = rows.len() * tile / tiles..rows.len() * (tile + 1) / tiles;
                        let sums = &mut arena.float_sums[..i.len() * columns];
                        let tile = &mut FloatTile {
                            a: &a.values[i.start * a.stride..],
                            a_stride: a.stride,
                            rows: i.len(),
                            b: weights.panel(p, 0..groups * desc.kr),
                            columns,
                            groups,
                            kr: desc.kr,
                            scale_groups: desc.groups(self.w.group_len()),
                            scales,
                            zero_points,
                            nr: desc.nr,
                            sums: &mut *sums,
                        };
                        if groups > 0 {
                            kernel.run_float(tile);
                        } else {
                            // Channels without depth have no groups of scales that a kernel could read.
                            sums.fill(0.0);
                        }
                        let first_row = ic - part.rows.start;
                        let out_rows = first_row + i.start..first_row + i.end;
                        let Some(out) = out.block(out_rows, first_column..first_column + channels.len())
                        else {
                            return;
                        };
                        let bias = self.stage.bias.map(|bias| &bias[channels.clone()]);
                        kernel.vectorize(StoreFloats { sums, columns, bias, relu: self.stage.relu, out });
                    }
                }
            }
        }
    }
}

/// A block of rows in f32, divided by a kernel's unit, with zeros up to whole groups of k.
struct FloatRows<'r> {
    values: &'r [f32],
    stride: usize,
}

impl<'r> FloatRows<'r> {
    fn new<A: Float>(a: &MatRef<'_, A>, kernel: Kernel, buffer: &'r mut Vec<f32>) -> Self {
        let desc = kernel.desc();
        if a.cols() == 0 {
            // Rows of nothing take no memory, be there as many as there may.
            return Self { values: &[], stride: 0 };
        }
        let row_len = a.cols().next_multiple_of(desc.kr);
        let stride = staggered(row_len * size_of::<f32>()) / size_of::<f32>();
        // What the last use left behind is overwritten, so only growth writes zeros here.
        if buffer.len() < a.rows() * stride {
            buffer.resize(a.rows() * stride, 0.0);
        }
        // Units are at least 1, so that nothing overflows here.
        let factor = desc.float.as_ref().map_or(1.0, |body| 1.0 / body.unit);
        kernel.vectorize(Widen { a, factor, row_len, stride, buffer });
        Self { values: buffer, stride }
    }
}

struct Widen<'t, 'a, A> {
    a: &'t MatRef<'a, A>,
    factor: f32,
    row_len: usize,
    stride: usize,
    buffer: &'t mut [f32],
}

impl<A: Float> Task for Widen<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for i in 0..self.a.rows() {
            let row = &mut self.buffer[i * self.stride..][..self.row_len];
            let (values, padding) = row.split_at_mut(self.a.cols());
            match self.a.row_slice(i) {
                Some(source) => A::widen_slice(source, values),
                None => {
                    values.iter_mut().zip(self.a.row_elements(i)).for_each(|(to, from)| *to = from.widen());
                }
            }
            values.iter_mut().for_each(|value| *value *= self.factor);
            padding.fill(0.0);
        }
    }
}

/// Applies the stage to a tile.
struct StoreFloats<'t, Y> {
    sums: &'t mut [f32],
    columns: usize,
    bias: Option<&'t [f32]>,
    relu: bool,
    out: MatMut<'t, Y>,
}

impl<Y: Float> Task for StoreFloats<'_, Y> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for (i, sums) in self.sums.chunks_exact_mut(self.columns).enumerate() {
            if let Some(bias) = self.bias {
                sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
            }
            if self.relu {
                sums.iter_mut().for_each(|sum| *sum = if *sum < 0.0 { 0.0 } else { *sum });
            }
            Y::narrow_slice(sums, self.out.row_mut(i).unwrap_or_default());
        }
    }
}
