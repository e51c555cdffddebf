//! The loops around products whose tiles are sums of f32. They are those of the integer nest
//! (`nest.rs`), but k is not split, because what tiles read streams from L2 fast enough. Blocks of
//! panels stay in L3 and blocks of rows in L2. Within them one panel follows the other, tile by
//! tile.

use core::ops::Range;

use qcore::{ActivationFunction, Float};

use crate::cpu::caches::Caches;
use crate::cpu::vectorize::Task;
use crate::drive::blocking::{Blocking, Extent};
use crate::drive::parts::{Divisible, Part};
use crate::matrix::view::MatMut;
use crate::matrix::workspace::{Arena, PanelScratch, RowScratch, lines_of};
use crate::output::stage::FloatStage;
use crate::weights::scaled::ScaledWeights;

/// A product that is computed tile by tile, each of a block of rows and a panel.
pub(crate) trait Tiles: Sync {
    /// A block of rows, in the form that tiles read.
    type Rows<'r>
    where
        Self: 'r;

    /// A panel of weights, and what else its tiles read.
    type Panel<'p>
    where
        Self: 'p;

    /// The weights, whose panels and kernel are those of the product.
    fn weights(&self) -> &ScaledWeights;

    /// Rows and columns of a whole tile.
    fn tile(&self) -> (usize, usize);

    /// The most rows of a tile in a block of so many rows.
    fn tile_rows(&self, _: usize) -> usize {
        self.tile().0
    }

    /// How many floats a tile needs besides its sums, in a block of so many rows.
    fn tile_scratch(&self, _: usize) -> usize {
        0
    }

    /// Whether a block may be cut into tiles between any rows. (Else each tile but the last has all
    /// its rows: rows in bands are laid out for that.)
    fn even_tiles(&self) -> bool;

    /// The size of a part, in the units that blocks are cut into.
    fn extent(&self, part: &Part) -> Extent;

    /// Prepares a block of rows.
    fn rows<'r>(&'r self, rows: Range<usize>, scratch: &'r mut RowScratch) -> Self::Rows<'r>;

    /// Prepares a panel for a block of so many rows.
    fn panel<'p>(&'p self, p: usize, rows: usize, scratch: &'p mut PanelScratch) -> Self::Panel<'p>;

    /// Computes the sums `y` of the rows `tile` of a block and a panel, row by row with the panel's
    /// padding.
    fn compute(
        &self,
        rows: &Self::Rows<'_>,
        tile: Range<usize>,
        panel: &Self::Panel<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    );
}

/// A product as parts for threads.
pub(crate) struct PanelWalk<'p, T> {
    pub(crate) product: T,
    /// What is applied to the sums.
    pub(crate) stage: &'p FloatStage<'p>,
}

impl<T: Tiles, Y: Float> Divisible<MatMut<'_, Y>> for PanelWalk<'_, T> {
    fn tile(&self) -> (usize, usize) {
        self.product.tile()
    }

    fn run(&self, part: &Part, out: &mut MatMut<'_, Y>, arena: &mut Arena) {
        if part.rows.is_empty() || part.panels.is_empty() {
            return;
        }
        let Self { product, stage } = self;
        let (weights, (mr, nr)) = (product.weights(), product.tile());
        let kernel = weights.kernel();
        let _set_up = kernel.set_up();
        let block = Blocking::new(Caches::of_this_cpu(), product.extent(part));
        let Arena { rows: row_scratch, panel: panel_scratch, float_sums, .. } = arena;
        let scratch = product.tile_scratch(part.rows.len());
        let (scratch, float_sums) = lines_of(float_sums, scratch + mr * nr).split_at_mut(scratch);
        for jc in part.panels.clone().step_by(block.panels) {
            let panels = jc..(jc + block.panels).min(part.panels.end);
            for ic in part.rows.clone().step_by(block.rows) {
                let rows = ic..(ic + block.rows).min(part.rows.end);
                let first_row = ic - part.rows.start;
                // The tiles are as even as possible, so none is left with a single row.
                let count = rows.len();
                let mr = product.tile_rows(count);
                let tiles = count.div_ceil(mr);
                let even = product.even_tiles();
                let start = |tile: usize| if even { count * tile / tiles } else { count.min(tile * mr) };
                let rows = product.rows(rows, row_scratch);
                for p in panels.clone() {
                    let panel = product.panel(p, count, panel_scratch);
                    let (columns, used) = weights.columns(p);
                    let first_column = (p - part.panels.start) * nr;
                    let bias = stage.bias.map(|bias| &bias[p * nr..p * nr + used]);
                    for tile in 0..tiles {
                        let i = start(tile)..start(tile + 1);
                        let sums = &mut float_sums[..i.len() * columns];
                        product.compute(&rows, i.clone(), &panel, sums, scratch);
                        let Some(out) = out
                            .block(first_row + i.start..first_row + i.end, first_column..first_column + used)
                        else {
                            return;
                        };
                        let function = stage.function;
                        kernel.vectorize(StoreFloats { sums, columns, bias, function, out });
                    }
                }
            }
        }
    }
}

/// Applies the stage to a tile.
struct StoreFloats<'t, Y> {
    sums: &'t mut [f32],
    columns: usize,
    bias: Option<&'t [f32]>,
    function: ActivationFunction,
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
            self.function.apply_slice(sums);
            Y::narrow_slice(sums, self.out.row_mut(i).unwrap_or_default());
        }
    }
}
