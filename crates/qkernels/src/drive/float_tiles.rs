//! Weight-only products, tile by tile.

use core::ops::Range;

use qcore::Float;

use crate::cpu::vectorize::Task;
use crate::drive::blocking::Extent;
use crate::drive::panel_walk::Tiles;
use crate::drive::threads::Part;
use crate::kernel::float_tile::{FloatTile, PLAIN_ROWS};
use crate::kernel::token::Kernel;
use crate::left::rows::staggered;
use crate::matrix::view::MatRef;
use crate::matrix::workspace::{PanelScratch, RowScratch};
use crate::output::stage::FloatStage;
use crate::weights::scaled::{ScaledPanel, ScaledWeights};

/// A weight-only product.
pub(crate) struct FloatProduct<'p, A> {
    pub(crate) a: MatRef<'p, A>,
    pub(crate) w: &'p ScaledWeights,
    pub(crate) stage: &'p FloatStage<'p>,
}

impl<A: Float> Tiles for FloatProduct<'_, A> {
    type Rows<'r>
        = FloatRows<'r>
    where
        Self: 'r;
    type Panel<'p>
        = ScaledPanel<'p>
    where
        Self: 'p;

    fn kernel(&self) -> Kernel {
        self.w.kernel()
    }

    fn stage(&self) -> &FloatStage<'_> {
        self.stage
    }

    fn tile(&self) -> (usize, usize) {
        let body = self.kernel().desc().float_body(self.w.kr());
        (body.map_or(PLAIN_ROWS, |body| body.rows), self.w.panel_columns())
    }

    fn even_tiles(&self) -> bool {
        true
    }

    fn columns(&self, p: usize) -> (usize, usize) {
        self.w.columns(p)
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
        }
    }

    fn rows<'r>(&'r self, rows: Range<usize>, scratch: &'r mut RowScratch) -> FloatRows<'r> {
        // The rows are there: products check shapes.
        let a = self.a.row_range(rows).unwrap_or(self.a);
        FloatRows::new(&a, self.kernel(), self.w.kr(), &mut scratch.floats)
    }

    fn panel<'p>(&'p self, p: usize, scratch: &'p mut PanelScratch) -> ScaledPanel<'p> {
        self.w.panel(p, &mut scratch.codes)
    }

    fn compute(
        &self,
        rows: &FloatRows<'_>,
        tile: Range<usize>,
        panel: &ScaledPanel<'_>,
        y: &mut [f32],
        _: &mut [i32],
    ) {
        let kr = self.w.kr();
        let groups = self.w.k().div_ceil(kr);
        if groups == 0 {
            // Channels without depth have no groups of scales that a kernel could read.
            return y.fill(0.0);
        }
        self.kernel().run_float(&mut FloatTile {
            a: &rows.values[tile.start * rows.stride..],
            a_stride: rows.stride,
            rows: tile.len(),
            b: panel.codes,
            columns: panel.columns,
            groups,
            kr,
            scale_groups: self.w.group_len().div_ceil(kr),
            scales: panel.scales,
            zero_points: panel.zero_points,
            nr: self.w.panel_columns(),
            sums: y,
        });
    }
}

/// A block of rows in f32, divided by the kernel's unit and padded with zeros to whole groups of k.
pub(crate) struct FloatRows<'r> {
    values: &'r [f32],
    stride: usize,
}

impl<'r> FloatRows<'r> {
    fn new<A: Float>(a: &MatRef<'_, A>, kernel: Kernel, kr: usize, buffer: &'r mut Vec<f32>) -> Self {
        if a.cols() == 0 {
            // Empty rows take no memory, however many there are.
            return Self { values: &[], stride: 0 };
        }
        let row_len = a.cols().next_multiple_of(kr);
        let stride = staggered(row_len * size_of::<f32>()) / size_of::<f32>();
        // The leftovers of the last use are overwritten, so only growth writes zeros here.
        if buffer.len() < a.rows() * stride {
            buffer.resize(a.rows() * stride, 0.0);
        }
        // Units are at least 1, so nothing overflows here.
        let factor = kernel.desc().float_body(kr).map_or(1.0, |body| 1.0 / body.unit);
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
