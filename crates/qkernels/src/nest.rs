//! The loop nest of BLIS around a kernel, once for all kernels, element types and output stages.
//!
//! ```text
//! loop 5  jc: nc columns     their panels stay in L3
//! loop 4  ic: mc rows        `a` in the kernel's form, in L2        (BLIS has pc outside of ic; here the int32 sums of a
//! loop 3  pc: kc of k                                                block must outlive pc, so ic comes first)
//! loop 2  jr: one panel      nr columns of weights, in L1 or streaming from L2
//! loop 1  ir: one tile       mr rows; sums in registers, then the output stage
//! ```

use core::ops::Range;

use crate::activation::{Activation, Rows};
use crate::blocking::{Blocking, Extent};
use crate::caches::Caches;
use crate::finish::{Finish, Store, Target};
use crate::kernel::{Kernel, Tile};
use crate::packed::PackedWeights;
use crate::vectorize::Task;
use crate::view::MatRef;
use crate::workspace::Arena;

/// What all parts of one product share.
#[derive(Debug)]
pub(crate) struct Product<'p, A> {
    pub(crate) a: MatRef<'p, A>,
    pub(crate) w: &'p PackedWeights,
    pub(crate) finish: Finish<'p>,
}

/// The rows and panels of a product that one thread computes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    pub(crate) panels: Range<usize>,
}

impl<A: Activation> Product<'_, A> {
    /// Computes `part` into `out`, which holds just its rows and columns.
    pub(crate) fn run(&self, part: &Part, mut out: Target<'_>, arena: &mut Arena) {
        if part.rows.is_empty() || part.panels.is_empty() {
            return;
        }
        let (kernel, layout) = (self.w.kernel(), self.w.layout());
        let desc = kernel.desc();
        let extent = Extent { rows: part.rows.len(), panels: part.panels.len(), groups: layout.groups() };
        let block = Blocking::new(Caches::of_this_cpu(), desc, extent);
        let k_blocks = if block.groups < extent.groups { extent.groups.div_ceil(block.groups) } else { 1 };
        // Sums wait in a slot for the next block of k; without one, a single slot does for all tiles.
        let slots = if k_blocks == 1 { 1 } else { block.rows.div_ceil(desc.mr) * block.panels };
        let slot_len = desc.mr * desc.nr;
        if arena.acc.len() < slots * slot_len {
            arena.acc.resize(slots * slot_len, 0);
        }
        for jc in part.panels.clone().step_by(block.panels) {
            let panels = jc..(jc + block.panels).min(part.panels.end);
            for ic in part.rows.clone().step_by(block.rows) {
                let rows = ic..(ic + block.rows).min(part.rows.end);
                let Some(a) = self.a.row_range(rows.clone()) else { return };
                let a = match Rows::in_place(&a, kernel) {
                    Some(rows) => rows,
                    None => Rows::copied(&a, kernel, &mut arena.a),
                };
                for pc in 0..k_blocks {
                    let groups = pc * block.groups..((pc + 1) * block.groups).min(extent.groups);
                    for (jr, p) in panels.clone().enumerate() {
                        let b = self.w.panel(p, groups.clone());
                        let channels = p * desc.nr..p * desc.nr + layout.used_columns(p);
                        let first_column = (p - part.panels.start) * desc.nr;
                        let out_columns = first_column..first_column + channels.len();
                        for (ir, i) in rows.clone().step_by(desc.mr).enumerate() {
                            let tile_rows = desc.mr.min(rows.end - i);
                            let slot = if k_blocks == 1 { 0 } else { ir * block.panels + jr };
                            let out_rows = i - part.rows.start..i - part.rows.start + tile_rows;
                            let store = if pc + 1 == k_blocks {
                                let Some(target) = out.block(out_rows, out_columns.clone()) else { return };
                                Some(Store { finish: &self.finish, channels: channels.clone(), target })
                            } else {
                                None
                            };
                            let a = a.skip_rows(i - ic);
                            let columns = layout.columns(p);
                            let tile = Tile {
                                a: a.bytes.get(4 * groups.start..).unwrap_or_default(),
                                a_stride: a.stride,
                                rows: tile_rows,
                                b,
                                columns,
                                groups: groups.len(),
                                acc: &mut arena.acc[slot * slot_len..][..tile_rows * columns],
                                accumulate: pc > 0,
                                store,
                            };
                            run_tile(kernel, tile);
                        }
                    }
                }
            }
        }
    }
}

/// Runs the kernel on a tile, and after it the output stage if the kernel does not apply it itself.
fn run_tile(kernel: Kernel, mut tile: Tile<'_>) {
    if kernel.desc().stores {
        return kernel.run(&mut tile);
    }
    let store = tile.store.take();
    kernel.run(&mut tile);
    if let Some(store) = store {
        kernel.vectorize(StoreTile { store, acc: tile.acc, stride: tile.columns });
    }
}

struct StoreTile<'t> {
    store: Store<'t>,
    acc: &'t [i32],
    stride: usize,
}

impl Task for StoreTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.store.apply(self.acc, self.stride);
    }
}
