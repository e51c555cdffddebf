//! The loops of integer products whose weights have a scale for each group of k. They are those of
//! the integer nest (`nest.rs`), but each group of a tile has sums of its own, which become a term
//! of f32 sums while they are in L1.

use core::ops::Range;

use qcore::{Float, group_term};

use crate::cpu::caches::Caches;
use crate::cpu::vectorize::Task;
use crate::drive::blocking::Blocking;
use crate::drive::float_nest::StoreFloats;
use crate::drive::threads::{Divisible, Part};
use crate::kernel::desc::{ActivationForm, KernelDesc};
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::{Rows, Strip};
use crate::kernel::token::Kernel;
use crate::left::rows::{self, Allowed, RowSums, Source};
use crate::matrix::view::MatMut;
use crate::matrix::workspace::{Arena, Tokens};
use crate::output::stage::FloatStage;
use crate::weights::scaled::ScaledWeights;

/// What all parts of one product share.
pub(crate) struct ScaledProduct<'p, S> {
    pub(crate) a: &'p S,
    /// The scales and zero points of the rows, or those of all rows.
    pub(crate) tokens: &'p Tokens,
    pub(crate) w: &'p ScaledWeights,
    pub(crate) stage: &'p FloatStage<'p>,
}

/// A block of rows in the form of the kernel.
struct Block<'b> {
    rows: Range<usize>,
    a: Rows<'b>,
    /// What the form adds to codes.
    shift: i32,
    /// For each group of a scale the sums of all rows, if zero points of weights need them.
    row_sums: &'b [i32],
}

/// A panel of weights.
#[derive(Clone, Copy)]
struct Panel<'b> {
    p: usize,
    columns: usize,
    scales: &'b [f32],
    zero_points: &'b [i8],
    /// For each group of a scale the sums of all columns, if shifts or zero points of rows need
    /// them.
    sums: &'b [i32],
}

impl<S: Source, Y: Float> Divisible<MatMut<'_, Y>> for ScaledProduct<'_, S> {
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
        let _set_up = kernel.set_up();
        let block = Blocking::new(Caches::of_this_cpu(), desc, part.extent(desc, layout.k));
        let tile_len = desc.mr * desc.nr;
        arena.acc.resize(arena.acc.len().max(tile_len), 0);
        arena.float_sums.resize(arena.float_sums.len().max(tile_len), 0.0);
        let shift = desc.form.shift(self.a.shift());
        let needs_sums = shift != 0 || !self.tokens.zero_points.is_empty();
        let allowed = Allowed { signed: false, ragged: false };
        for jc in part.panels.clone().step_by(block.panels) {
            let panels = jc..(jc + block.panels).min(part.panels.end);
            for ic in part.rows.clone().step_by(block.rows) {
                let rows = ic..(ic + block.rows).min(part.rows.end);
                let (a, _) = rows::load(self.a, rows.clone(), kernel, allowed, &mut arena.a);
                self.sum_rows(&rows, a, &mut arena.row_sums);
                let block = Block { rows, a, shift, row_sums: &arena.row_sums };
                for p in panels.clone() {
                    arena.group_sums.clear();
                    if needs_sums {
                        self.sum_panel(p, &mut arena.group_sums, &mut arena.acc);
                    }
                    let (scales, zero_points) = self.w.panel(p);
                    let sums = &arena.group_sums;
                    let panel = Panel { p, columns: layout.columns(p), scales, zero_points, sums };
                    for first in (0..block.rows.len()).step_by(desc.mr) {
                        let tile = first..(first + desc.mr).min(block.rows.len());
                        let columns = panel.columns;
                        let y = &mut arena.float_sums[..tile.len() * columns];
                        self.run_tile(&block, tile.clone(), panel, y, &mut arena.acc);
                        let channels = p * desc.nr..p * desc.nr + layout.used_columns(p);
                        let first_row = ic - part.rows.start;
                        let first_column = (p - part.panels.start) * desc.nr;
                        let Some(out) = out.block(
                            first_row + tile.start..first_row + tile.end,
                            first_column..first_column + channels.len(),
                        ) else {
                            return;
                        };
                        let bias = self.stage.bias.map(|bias| &bias[channels]);
                        let function = self.stage.function;
                        kernel.vectorize(StoreFloats { sums: y, columns, bias, function, out });
                    }
                }
            }
        }
    }
}

impl<S: Source> ScaledProduct<'_, S> {
    fn kernel(&self) -> Kernel {
        self.w.weights().kernel()
    }

    /// The k of group `g` of a scale.
    fn group(&self, g: usize) -> Range<usize> {
        let (len, k) = (self.w.group_len(), self.w.weights().k());
        g * len..(g + 1).saturating_mul(len).min(k)
    }

    /// The groups of kr consecutive k that group `g` of a scale consists of.
    fn steps(&self, g: usize) -> Range<usize> {
        let (k, desc) = (self.group(g), self.kernel().desc());
        // The length of all groups but the last is a multiple of kr.
        desc.groups(k.start)..desc.groups(k.end)
    }

    /// Sums rows in the kernel's form, group by group, if the weights have zero points.
    fn sum_rows(&self, rows: &Range<usize>, a: Rows<'_>, sums: &mut Vec<i32>) {
        sums.clear();
        if !self.w.has_zero_points() {
            return;
        }
        sums.resize(rows.len() * self.w.groups(), 0);
        for (g, sums) in sums.chunks_exact_mut(rows.len()).enumerate() {
            let desc = self.kernel().desc();
            self.kernel().vectorize(RowSums { rows: a, desc, groups: self.steps(g), sums });
        }
    }

    /// Sums the weights of a panel, group by group: the product of a row of ones.
    fn sum_panel(&self, p: usize, sums: &mut Vec<i32>, acc: &mut [i32]) {
        let desc = self.kernel().desc();
        let columns = self.w.weights().layout().columns(p);
        for g in 0..self.w.groups() {
            let bytes: &[u8] = match desc.form {
                ActivationForm::U8 | ActivationForm::I8 => &[1; ONES],
                ActivationForm::I16 => bytemuck::must_cast_slice(&[1_u16; ONES]),
            };
            let ones = Rows { bytes, stride: 0, band: desc.band, signed: false };
            let acc = &mut acc[..columns];
            acc.fill(0);
            // A group may be as long as k, and there are not as many ones.
            let (steps, most) = (self.steps(g), ONES / desc.kr);
            for first in steps.clone().step_by(most) {
                self.run_kernel(ones, 1, p, 0, first..(first + most).min(steps.end), acc);
            }
            sums.extend_from_slice(acc);
        }
    }

    /// Adds the products of some rows and a panel over `steps` groups of kr consecutive k to `acc`.
    /// The rows hold these groups from group `first` on.
    fn run_kernel(
        &self,
        a: Rows<'_>,
        rows: usize,
        p: usize,
        first: usize,
        steps: Range<usize>,
        acc: &mut [i32],
    ) {
        let (weights, desc) = (self.w.weights(), self.kernel().desc());
        self.kernel().run(&mut Strip {
            shape: desc.tile_shape(),
            a,
            rows,
            done: 0,
            tiles: 0,
            first_group: first,
            groups: steps.len(),
            panels: 1,
            columns: weights.layout().columns(p),
            b: weights.panel(p, steps.start * desc.kr..steps.end * desc.kr),
            panel_stride: 0,
            acc,
            slot_stride: 0,
            offsets: None,
            channel_sums: &[],
            store: None,
        });
    }

    /// Computes the sums of the rows `tile` of a block and a panel: group by group the products,
    /// then their term.
    fn run_tile(
        &self,
        block: &Block<'_>,
        tile: Range<usize>,
        panel: Panel<'_>,
        y: &mut [f32],
        acc: &mut [i32],
    ) {
        let (desc, columns) = (self.kernel().desc(), panel.columns);
        if self.w.groups() == 0 {
            return y.fill(0.0);
        }
        let a = block.a.skip_rows(tile.start);
        let token = block.rows.start + tile.start;
        if panel.sums.is_empty() && panel.zero_points.is_empty() {
            // Products are summed as they are, which a kernel may do and scale by itself.
            let mut same = [0.0; MOST_ROWS];
            let of_tile = token..token + tile.len();
            let factors = match (&self.tokens.factors[..], same.get_mut(..tile.len())) {
                (&[factor], Some(same)) => {
                    same.fill(factor);
                    &*same
                }
                (factors, _) => factors.get(of_tile).unwrap_or_default(),
            };
            let weights = self.w.weights();
            let steps = desc.groups(weights.k());
            let mut scaled = ScaledTile {
                a: a.bytes,
                a_stride: a.stride,
                b: weights.panel(panel.p, 0..steps * desc.kr),
                columns,
                steps,
                group_steps: self.steps(0).len(),
                scales: panel.scales,
                nr: desc.nr,
                factors,
                y,
            };
            if factors.len() == tile.len() && self.kernel().run_scaled(&mut scaled) {
                return;
            }
        }
        let acc = &mut acc[..tile.len() * columns];
        let of_tile = |values: &'_ [i32], i: usize| values.get(token + i).or(values.first()).copied();
        for g in 0..self.w.groups() {
            acc.fill(0);
            let steps = self.steps(g);
            self.run_kernel(a, tile.len(), panel.p, steps.start, steps, acc);
            let of_group = |start: usize, len: usize| start + g * len..start + (g + 1) * len;
            let column_sums = panel.sums.get(of_group(0, columns)).unwrap_or_default();
            let zero_points = panel.zero_points.get(of_group(0, desc.nr)).unwrap_or_default();
            let row_sums = block.row_sums.get(of_group(0, block.rows.len())).unwrap_or_default();
            self.kernel().vectorize(AddTerm {
                is_first: g == 0,
                columns,
                len: self.group(g).len() as i32,
                scales: &panel.scales[g * desc.nr..][..columns],
                zero_points: zero_points.get(..columns).unwrap_or_default(),
                column_sums,
                row_sums: row_sums.get(tile.clone()).unwrap_or_default(),
                factors: &self.tokens.factors,
                first_token: token,
                offset: |i| block.shift + of_tile(&self.tokens.zero_points, i).unwrap_or(0),
                acc,
                y,
            });
        }
    }
}

/// The most rows of any kernel's tile.
const MOST_ROWS: usize = 8;

/// The length of a row of ones.
const ONES: usize = 256;

/// Turns the sums of one group into a term of `y`.
struct AddTerm<'t, O> {
    is_first: bool,
    columns: usize,
    /// k of the group.
    len: i32,
    scales: &'t [f32],
    /// Empty if there are none.
    zero_points: &'t [i8],
    /// The sums of the weights; empty if no row has an offset.
    column_sums: &'t [i32],
    /// The sums of the rows in the kernel's form; empty if there are no zero points.
    row_sums: &'t [i32],
    /// Scales of all rows, or the one that they share.
    factors: &'t [f32],
    /// The tile's first row among them.
    first_token: usize,
    /// What row i has more than the value that it stands for: its shift and its zero point.
    offset: O,
    acc: &'t mut [i32],
    y: &'t mut [f32],
}

impl<O: Fn(usize) -> i32> Task for AddTerm<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let columns = self.columns;
        for i in 0..self.y.len() / columns {
            let acc = &mut self.acc[i * columns..][..columns];
            let y = &mut self.y[i * columns..][..columns];
            let offset = (self.offset)(i);
            // (x - offset) * (w - zero_point), summed, each product by itself. The sum fits i32,
            // though not all of these do.
            if let Some(sums) = self.column_sums.get(..columns) {
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(offset.wrapping_mul(sums[j]));
                }
            }
            if let (Some(zero_points), Some(row_sum)) =
                (self.zero_points.get(..columns), self.row_sums.get(i))
            {
                let row_sum = row_sum.wrapping_sub(offset.wrapping_mul(self.len));
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(row_sum.wrapping_mul(zero_points[j].into()));
                }
            }
            let factors = self.factors;
            let Some(&factor) = factors.get(self.first_token + i).or(factors.first()) else { return };
            let scales = &self.scales[..columns];
            if self.is_first {
                for j in 0..columns {
                    y[j] = group_term(factor, scales[j], acc[j]);
                }
            } else {
                for j in 0..columns {
                    y[j] += group_term(factor, scales[j], acc[j]);
                }
            }
        }
    }
}
