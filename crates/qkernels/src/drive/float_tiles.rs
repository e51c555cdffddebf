//! Weight-only products, tile by tile.

use core::ops::Range;

use qcore::Float;

use crate::cpu::vectorize::Task;
use crate::drive::blocking::Extent;
use crate::drive::panel_walk::Tiles;
use crate::drive::parts::Part;
use crate::kernel::desc::FloatExpanded;
use crate::kernel::float_tile::{Expansion, FloatTile, PLAIN_ROWS};
use crate::kernel::group_floats::{GroupFloats, Widen as WidenHalves};
use crate::kernel::nibble_tile::NibbleLine;
use crate::kernel::token::Kernel;
use crate::left::float_rows::FloatRows;
use crate::left::floats::RowBlocks;
use crate::left::rows::staggered;
use crate::matrix::view::MatRef;
use crate::matrix::workspace::{PanelScratch, RowScratch, lines_of};
use crate::weights::entries::Entries;
use crate::weights::scaled::ScaledWeights;

/// A weight-only product.
pub(crate) struct FloatProduct<'p, A> {
    pub(crate) a: FloatRows<'p, A>,
    pub(crate) w: &'p ScaledWeights,
}

impl<A: Float> FloatProduct<'_, A> {
    /// The body for a block of so many rows, if panels are expanded to f32 for it.
    fn expanded_for(&self, rows: usize) -> Option<&'static FloatExpanded> {
        let affine = self.w.entries().has_zero_points_apart();
        self.w.kernel().desc().float_body(self.w.kr())?.expanded_for(rows, affine)
    }

    /// Panel `p` in f32, less its zero points, in the order of the body for many rows.
    fn expand<'b>(&self, p: usize, codes: &[i8], zero_points: &[i8], to: &'b mut Vec<f32>) -> &'b [f32] {
        let (kr, columns) = (self.w.kr(), self.w.columns(p).0);
        let depth = self.w.k().next_multiple_of(kr);
        let to = lines_of(to, depth * columns);
        self.w.kernel().expand_floats(
            kr,
            &mut Expansion {
                b: codes,
                columns,
                depth,
                scale_depth: self.w.entries().part_len.div_ceil(kr).saturating_mul(kr),
                zero_points,
                nr: self.w.panel_columns(),
                to: &mut *to,
            },
        );
        to
    }
}

impl<A: Float> Tiles for FloatProduct<'_, A> {
    type Rows<'r>
        = WideRows<'r>
    where
        Self: 'r;
    type Panel<'p>
        = FloatPanel<'p>
    where
        Self: 'p;

    fn weights(&self) -> &ScaledWeights {
        self.w
    }

    fn tile(&self) -> (usize, usize) {
        (self.tile_rows(self.a.rows()), self.w.panel_columns())
    }

    fn tile_rows(&self, rows: usize) -> usize {
        let body = self.w.kernel().desc().float_body(self.w.kr());
        let few = body.map_or(PLAIN_ROWS, |body| body.rows);
        self.expanded_for(rows).map_or(few, |expanded| expanded.rows)
    }

    fn tile_scratch(&self, rows: usize) -> usize {
        self.expanded_for(rows).map_or(0, |expanded| expanded.scratch)
    }

    fn even_tiles(&self) -> bool {
        true
    }

    fn extent(&self, part: &Part) -> Extent {
        let ((mr, nr), kr) = (self.tile(), self.w.kr());
        Extent {
            rows: part.rows.len(),
            panels: part.panels.len(),
            groups: self.w.k().div_ceil(kr),
            group_bytes: kr * size_of::<f32>(),
            panel_group_bytes: nr * kr,
            mr,
            rows_far: self.expanded_for(part.rows.len()).is_some(),
        }
    }

    fn rows<'r>(&'r self, rows: Range<usize>, scratch: &'r mut RowScratch) -> WideRows<'r> {
        // The rows are there: products check shapes.
        let a = self.a.row_range(rows).unwrap_or(self.a);
        let entries = self.w.entries();
        let sums = &mut scratch.float_sums;
        sums.resize(if entries.has_minimums() { a.rows() * entries.parts } else { 0 }, 0.0);
        let order = self.w.input_order().unwrap_or_default();
        let kernel = (self.w.kernel(), self.w.kr());
        WideRows::new((&a, order), kernel, &mut scratch.floats, (entries.part_len, sums))
    }

    fn panel<'p>(&'p self, p: usize, rows: usize, scratch: &'p mut PanelScratch) -> FloatPanel<'p> {
        let PanelScratch { codes, floats, scales, minimums, group_floats, zero_points, .. } = scratch;
        let (all, nr, kernel) = (self.w.entries(), self.w.panel_columns(), self.w.kernel());
        // Few rows read codes of 4 bits as they are; for more they are expanded once.
        let few = kernel.desc().float_body(self.w.kr()).and_then(|body| body.nibbles.as_ref());
        let (codes, lines) = match self.w.codes() {
            Err(nibbles) if few.is_some_and(|few| rows <= few.rows) => (&[][..], nibbles.panel(p)),
            _ => (self.w.panel(p, codes).codes, &[][..]),
        };
        let entries = all.panel(p);
        let mut panel = FloatPanel {
            codes,
            lines,
            floats: &[],
            columns: self.w.columns(p).0,
            scales: &[],
            zero_points: entries.zero_points,
            minimums: &[],
        };
        if !all.has_parts() {
            panel.scales = widened(kernel, entries.scales, scales);
            panel.minimums = widened(kernel, entries.minimums, minimums);
        } else {
            // Each part has a scale of its own then.
            let times = |value: f32, of_part: i8| value * f32::from(of_part);
            let of_groups = widened(kernel, entries.scales, group_floats);
            panel.scales = of_parts(all, nr, of_groups, entries.part_scales, times, scales);
            let minimum = if entries.part_minimums.is_empty() { |value, _| value } else { times };
            let of_groups = widened(kernel, entries.minimums, group_floats);
            panel.minimums = of_parts(all, nr, of_groups, entries.part_minimums, minimum, minimums);
            panel.zero_points = of_parts(all, nr, entries.zero_points, &[], |value, _| value, zero_points);
        }
        if self.expanded_for(rows).is_some() {
            panel.floats = self.expand(p, codes, panel.zero_points, floats);
        }
        panel
    }

    fn compute(
        &self,
        rows: &WideRows<'_>,
        tile: Range<usize>,
        panel: &FloatPanel<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        let kr = self.w.kr();
        let groups = self.w.k().div_ceil(kr);
        if groups == 0 {
            // Channels without depth have no groups of scales that a kernel could read.
            return y.fill(0.0);
        }
        self.w.kernel().run_float(&mut FloatTile {
            a: &rows.values[tile.start * rows.stride..],
            a_stride: rows.stride,
            rows: tile.len(),
            b: panel.codes,
            lines: panel.lines,
            floats: panel.floats,
            zero_point: self.w.entries().common_zero_point.unwrap_or(0),
            columns: panel.columns,
            groups,
            kr,
            scale_groups: self.w.entries().part_len.div_ceil(kr),
            scales: panel.scales,
            zero_points: panel.zero_points,
            nr: self.w.panel_columns(),
            sums: &mut *y,
            scratch,
        });
        if !panel.minimums.is_empty() {
            self.w.kernel().vectorize(AddMinimums {
                columns: panel.columns,
                nr: self.w.panel_columns(),
                minimums: panel.minimums,
                row_sums: &rows.sums[tile.start..],
                sum_stride: rows.sums.len() / self.w.entries().parts.max(1),
                y,
            });
        }
    }
}

/// A panel of weights, with an entry for each part where groups have parts.
pub(crate) struct FloatPanel<'p> {
    codes: &'p [i8],
    /// As in a tile.
    lines: &'p [NibbleLine],
    /// As in a tile.
    floats: &'p [f32],
    columns: usize,
    scales: &'p [f32],
    /// Empty if all are 0.
    zero_points: &'p [i8],
    /// Empty if there are none.
    minimums: &'p [f32],
}

/// All `floats` as f32, in `buffer` if they are not.
fn widened<'b>(kernel: Kernel, floats: GroupFloats<'b>, buffer: &'b mut Vec<f32>) -> &'b [f32] {
    match floats {
        GroupFloats::F32(floats) => floats,
        GroupFloats::F16(halves) => {
            buffer.resize(halves.len(), 0.0);
            kernel.vectorize(WidenHalves(halves, buffer));
            buffer
        }
    }
}

/// What `of` makes of the entry of each part's group and that of the part (0 without any), in
/// `buffer`; nothing, if groups have none.
fn of_parts<'b, T: Copy + Default>(
    all: &Entries,
    nr: usize,
    of_groups: &[T],
    of_parts: &[i8],
    of: impl Fn(T, i8) -> T,
    buffer: &'b mut Vec<T>,
) -> &'b [T] {
    buffer.clear();
    for part in 0..all.parts {
        let Some(of_groups) = of_groups.get(all.group_of(part) * nr..).and_then(|from| from.get(..nr)) else {
            break;
        };
        let of_part = |j: usize| of_parts.get(part * nr + j).copied().unwrap_or_default();
        buffer.extend(of_groups.iter().enumerate().map(|(j, &of_group)| of(of_group, of_part(j))));
    }
    buffer
}

/// Adds the sums of activations times the minimums of their parts.
struct AddMinimums<'t> {
    columns: usize,
    nr: usize,
    /// `nr` entries for each part.
    minimums: &'t [f32],
    /// For each part, `sum_stride` entries apart, the sum of each row.
    row_sums: &'t [f32],
    sum_stride: usize,
    /// Results, row by row.
    y: &'t mut [f32],
}

/// Columns whose sums are in registers.
const STRIP: usize = 16;

impl Task for AddMinimums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, y) in self.y.chunks_exact_mut(self.columns).enumerate() {
            for (first, y) in (0..).step_by(STRIP).zip(y.chunks_mut(STRIP)) {
                // These are summed by themselves, so that the sums of products round no more.
                let mut sums = [0.0f32; STRIP];
                let row_sums = self.row_sums[i..].iter().step_by(self.sum_stride);
                for (minimums, row_sum) in self.minimums.chunks_exact(self.nr).zip(row_sums) {
                    for (sum, minimum) in sums.iter_mut().zip(&minimums[first..][..y.len()]) {
                        *sum += minimum * row_sum;
                    }
                }
                y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
            }
        }
    }
}

/// A block of rows in f32, divided by the kernel's unit and padded with zeros to whole groups of k.
pub(crate) struct WideRows<'r> {
    values: &'r [f32],
    stride: usize,
    /// For each part of a group the sums of all rows, if minimums need them.
    sums: &'r [f32],
}

impl<'r> WideRows<'r> {
    /// The columns of `a` are read in `order`, unless it is empty. `sums` of parts of some length
    /// are asked for if it is not empty.
    fn new<A: Float>(
        (a, order): (&FloatRows<'_, A>, &[u32]),
        (kernel, kr): (Kernel, usize),
        buffer: &'r mut Vec<f32>,
        (part_len, sums): (usize, &'r mut [f32]),
    ) -> Self {
        if a.cols() == 0 {
            // Empty rows take no memory, however many there are.
            return Self { values: &[], stride: 0, sums: &[] };
        }
        let row_len = a.cols().next_multiple_of(kr);
        let stride = staggered(row_len * size_of::<f32>()) / size_of::<f32>();
        // The leftovers of the last use are overwritten, so only growth writes zeros here.
        let len = a.rows() * stride + FloatTile::BEHIND;
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        // Units are at least 1, so nothing overflows here.
        let factor = kernel.desc().float_body(kr).map_or(1.0, |body| 1.0 / body.unit);
        let widen = Widen { a: a.view(), order, factor, row_len, stride, buffer, part_len, sums };
        match a.divisors() {
            [] => kernel.vectorize(widen),
            _ => kernel.vectorize(Divide { rows: a, widen }),
        }
        Self { values: buffer, stride, sums }
    }
}

struct Widen<'t, 'a, A> {
    a: &'t MatRef<'a, A>,
    order: &'t [u32],
    factor: f32,
    row_len: usize,
    stride: usize,
    buffer: &'t mut [f32],
    part_len: usize,
    sums: &'t mut [f32],
}

impl<A: Float> Task for Widen<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for i in 0..self.a.rows() {
            let row = &mut self.buffer[i * self.stride..][..self.row_len];
            let (values, padding) = row.split_at_mut(self.a.cols());
            match self.a.row_slice(i) {
                _ if !self.order.is_empty() => {
                    let row = self.a.row_elements_in(i, self.order);
                    values.iter_mut().zip(row).for_each(|(to, from)| *to = from.widen());
                }
                Some(source) => A::widen_slice(source, values),
                None => {
                    values.iter_mut().zip(self.a.row_elements(i)).for_each(|(to, from)| *to = from.widen());
                }
            }
            let sums = self.sums.iter_mut().skip(i).step_by(self.a.rows());
            for (sum, part) in sums.zip(values.chunks(self.part_len)) {
                *sum = sum_of(part);
            }
            values.iter_mut().for_each(|value| *value *= self.factor);
            padding.fill(0.0);
        }
    }
}

/// [`Widen`] of rows that are divided. It is a task of its own, so that the loops of other rows are
/// compiled as if there were none.
struct Divide<'t, 'a, A> {
    rows: &'t FloatRows<'a, A>,
    widen: Widen<'t, 'a, A>,
}

impl<A: Float> Task for Divide<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Widen { a, order, factor, row_len, stride, buffer, part_len, sums } = self.widen;
        let mut wide = None;
        for i in 0..a.rows() {
            let (values, padding) = buffer[i * stride..][..row_len].split_at_mut(a.cols());
            let mut blocks = RowBlocks::new(self.rows, i, &mut wide).in_order(order);
            let mut to = &mut *values;
            while let Some(block) = blocks.next() {
                let Some(to) = to.split_off_mut(..block.len()) else { break };
                to.copy_from_slice(block);
            }
            let sums = sums.iter_mut().skip(i).step_by(a.rows());
            for (sum, part) in sums.zip(values.chunks(part_len)) {
                *sum = sum_of(part);
            }
            for value in values {
                *value *= factor;
            }
            padding.fill(0.0);
        }
    }
}

/// The sum of floats, in an order that depends on their number alone.
#[inline(always)]
fn sum_of(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0f32; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    lanes.iter().chain(rest).sum()
}
