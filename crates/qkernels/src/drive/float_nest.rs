//! The loops of weight-only products. They are those of the integer nest (`nest.rs`), but k is not
//! split, because a tile's rows of floats stream from L2 fast enough. Blocks of panels stay in L3
//! and blocks of rows in L2. Within them one panel follows the other, tile by tile.

use qcore::{ActivationFunction, Float};

use crate::cpu::caches::Caches;
use crate::cpu::vectorize::Task;
use crate::drive::blocking::{Blocking, Extent};
use crate::drive::threads::{Divisible, Part};
use crate::kernel::desc::KernelDesc;
use crate::kernel::float_tile::{FloatTile, PLAIN_ROWS};
use crate::kernel::token::Kernel;
use crate::left::rows::staggered;
use crate::matrix::view::{MatMut, MatRef};
use crate::matrix::workspace::Arena;
use crate::output::stage::FloatStage;
use crate::weights::scaled::ScaledWeights;

/// What all parts of one product share.
pub(crate) struct FloatProduct<'p, A> {
    pub(crate) a: MatRef<'p, A>,
    pub(crate) w: &'p ScaledWeights,
    pub(crate) stage: &'p FloatStage<'p>,
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
        let groups = desc.groups(layout.k);
        let extent = Extent { group_bytes: desc.kr * size_of::<f32>(), ..part.extent(desc, layout.k) };
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
                    // The tiles are as even as possible, so none is left with a single row.
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
                            // Channels without depth have no groups of scales that a kernel could
                            // read.
                            sums.fill(0.0);
                        }
                        let first_row = ic - part.rows.start;
                        let out_rows = first_row + i.start..first_row + i.end;
                        let Some(out) = out.block(out_rows, first_column..first_column + channels.len())
                        else {
                            return;
                        };
                        let bias = self.stage.bias.map(|bias| &bias[channels.clone()]);
                        kernel.vectorize(StoreFloats {
                            sums,
                            columns,
                            bias,
                            function: self.stage.function,
                            out,
                        });
                    }
                }
            }
        }
    }
}

/// A block of rows in f32, divided by the kernel's unit and padded with zeros to whole groups of k.
struct FloatRows<'r> {
    values: &'r [f32],
    stride: usize,
}

impl<'r> FloatRows<'r> {
    fn new<A: Float>(a: &MatRef<'_, A>, kernel: Kernel, buffer: &'r mut Vec<f32>) -> Self {
        let desc = kernel.desc();
        if a.cols() == 0 {
            // Empty rows take no memory, however many there are.
            return Self { values: &[], stride: 0 };
        }
        let row_len = a.cols().next_multiple_of(desc.kr);
        let stride = staggered(row_len * size_of::<f32>()) / size_of::<f32>();
        // The leftovers of the last use are overwritten, so only growth writes zeros here.
        if buffer.len() < a.rows() * stride {
            buffer.resize(a.rows() * stride, 0.0);
        }
        // Units are at least 1, so nothing overflows here.
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
pub(super) struct StoreFloats<'t, Y> {
    pub(super) sums: &'t mut [f32],
    pub(super) columns: usize,
    pub(super) bias: Option<&'t [f32]>,
    pub(super) function: ActivationFunction,
    pub(super) out: MatMut<'t, Y>,
}

impl<Y: Float> Task for StoreFloats<'_, Y> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for (i, sums) in self.sums.chunks_exact_mut(self.columns).enumerate() {
            if let Some(bias) = self.bias {
                sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
            }
            self.function.apply_slice(sums);
            Y::narrow_slice(sums, self.out.row_mut(i).unwrap_or_default());
        }
    }
}
