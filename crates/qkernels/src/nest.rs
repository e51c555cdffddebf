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

use crate::blocking::{Blocking, Extent};
use crate::caches::Caches;
use crate::finish::{Finish, RowTerms, Store, Target};
use crate::kernel::{Kernel, Tile};
use crate::packed::PackedWeights;
use crate::rows::{self, RowSums, Source};
use crate::vectorize::Task;
use crate::workspace::Arena;

/// What all parts of one product share.
#[derive(Debug)]
pub(crate) struct Product<'p, S> {
    pub(crate) a: &'p S,
    pub(crate) w: &'p PackedWeights,
    /// The first channel that is computed, which the operands of `finish` begin with.
    pub(crate) first_channel: usize,
    pub(crate) finish: Finish<'p>,
    /// Zero points and factors of all rows, as far as they have any.
    pub(crate) row_terms: RowTerms<'p>,
}

/// The rows and panels of a product that one thread computes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    pub(crate) panels: Range<usize>,
}

impl<S: Source> Product<'_, S> {
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
                let a = rows::load(self.a, rows.clone(), kernel, &mut arena.a);
                let row_sums = if self.finish.zero_points.is_empty() {
                    &[][..]
                } else {
                    arena.row_sums.resize(rows.len(), 0);
                    let (groups, sums) = (extent.groups, &mut arena.row_sums);
                    kernel.vectorize(RowSums { rows: a, desc, groups, sums });
                    &arena.row_sums[..]
                };
                for pc in 0..k_blocks {
                    let groups = pc * block.groups..((pc + 1) * block.groups).min(extent.groups);
                    for (jr, p) in panels.clone().enumerate() {
                        let b = self.w.panel(p, groups.clone());
                        let first_channel = p * desc.nr - self.first_channel;
                        let channels = first_channel..first_channel + layout.used_columns(p);
                        let first_column = (p - part.panels.start) * desc.nr;
                        let out_columns = first_column..first_column + channels.len();
                        for (ir, i) in rows.clone().step_by(desc.mr).enumerate() {
                            let tile_rows = desc.mr.min(rows.end - i);
                            let slot = if k_blocks == 1 { 0 } else { ir * block.panels + jr };
                            let out_rows = i - part.rows.start..i - part.rows.start + tile_rows;
                            let store = if pc + 1 == k_blocks {
                                let Some(target) = out.block(out_rows, out_columns.clone()) else { return };
                                let row_terms = RowTerms {
                                    sums: row_sums.get(i - ic..i - ic + tile_rows).unwrap_or_default(),
                                    ..self.row_terms.of(i..i + tile_rows)
                                };
                                Some(Store {
                                    finish: &self.finish,
                                    channels: channels.clone(),
                                    first_row: i,
                                    row_terms,
                                    target,
                                })
                            } else {
                                None
                            };
                            let a = a.skip_rows(i - ic);
                            let columns = layout.columns(p);
                            let step = desc.rows_together(tile_rows) * desc.group_bytes();
                            let tile = Tile {
                                a: a.bytes.get(step * groups.start..).unwrap_or_default(),
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
    if tile.store.as_ref().is_none_or(|store| kernel.desc().stores && store.fits_registers()) {
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
