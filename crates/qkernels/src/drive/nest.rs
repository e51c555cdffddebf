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

use crate::cpu::caches::Caches;
use crate::cpu::vectorize::Task;
use crate::drive::blocking::Blocking;
use crate::drive::parts::{Divisible, Part};
use crate::kernel::desc::{KernelDesc, PanelKind};
use crate::kernel::strip::Rows;
use crate::kernel::strip::Strip;
use crate::kernel::token::Kernel;
use crate::left::rows::{self, Allowed, RowSums, Source};
use crate::matrix::workspace::Arena;
use crate::output::operands::{RowTerms, StageOperands};
use crate::output::store::Store;
use crate::output::target::{Target, fits_registers};
use crate::output::tile::Place;
use crate::weights::packed::PackedWeights;

/// What all parts of one product share.
#[derive(Debug)]
pub(crate) struct Product<'p, S> {
    pub(crate) a: &'p S,
    pub(crate) w: &'p PackedWeights,
    /// The first channel that is computed. The operands of `stage` begin with it.
    pub(crate) first_channel: usize,
    pub(crate) stage: &'p StageOperands<'p>,
    /// Zero points and factors of all rows, if they have any.
    pub(crate) row_terms: RowTerms<'p>,
}

impl<S: Source> Divisible<Target<'_>> for Product<'_, S> {
    fn tile(&self) -> (usize, usize) {
        let desc = self.w.kernel().desc();
        (desc.mr, desc.nr)
    }

    fn run(&self, part: &Part, out: &mut Target<'_>, arena: &mut Arena) {
        if part.rows.is_empty() || part.panels.is_empty() {
            return;
        }
        // One after the other, the panels whose kernels read the same form of rows.
        for kernel in self.w.kinds(part.panels.clone()).into_iter().flatten() {
            self.run_kind(kernel, part, out, arena);
        }
    }
}

/// The panels of a part whose kernels read the same form of rows, and how to walk through them.
struct Pass<'n> {
    /// One of those kernels.
    kernel: Kernel,
    part: &'n Part,
    block: Blocking,
    /// All groups of k, and the blocks that they are cut into.
    groups: usize,
    k_blocks: usize,
    /// Whether the kernels apply the output stage themselves.
    stores: bool,
}

/// A block of rows, and the block of panels that they are multiplied by.
struct Block<'n> {
    rows: Range<usize>,
    /// The rows, in the form that the kernels read.
    a: Rows<'n>,
    /// The sums of the rows, if the zero points of the weights need them.
    row_sums: &'n [i32],
    panels: Range<usize>,
}

impl<S: Source> Product<'_, S> {
    /// Loops 5 and 4, over the panels of `part` whose kernels read the same form of rows as
    /// `kernel`.
    fn run_kind(&self, kernel: Kernel, part: &Part, out: &mut Target<'_>, arena: &mut Arena) {
        let desc = kernel.desc();
        // Kernels of one kind have the same features, and so the same CPU state.
        let _set_up = kernel.set_up();
        let (allowed, pass) = (self.allowed(kernel, part), self.pass(kernel, part, out));
        // Sums wait in their slots for the next block of k. If there is none, one slot serves all
        // tiles.
        let slots =
            if pass.k_blocks == 1 { 1 } else { pass.block.rows.div_ceil(desc.mr) * pass.block.panels };
        let slot_len = desc.mr * desc.nr;
        if arena.acc.len() < slots * slot_len {
            arena.acc.resize(slots * slot_len, 0);
        }
        // These loops count for themselves. `step_by` would begin with a division, which tiny
        // products should not pay for.
        let mut jc = part.panels.start;
        while jc < part.panels.end {
            let panels = jc..(jc + pass.block.panels).min(part.panels.end);
            jc = panels.end;
            let mut ic = part.rows.start;
            while ic < part.rows.end {
                let rows = ic..(ic + pass.block.rows).min(part.rows.end);
                let (a, count) = rows::load(self.a, rows, kernel, allowed, &mut arena.rows.bytes);
                let rows = ic..ic + count;
                ic = rows.end;
                let row_sums = if self.stage.zero_points.is_empty() {
                    &[][..]
                } else {
                    arena.rows.sums.resize(rows.len(), 0);
                    kernel.vectorize(RowSums {
                        rows: a,
                        desc,
                        form: desc.form,
                        groups: 0..pass.groups,
                        part_groups: pass.groups,
                        count,
                        sums: &mut arena.rows.sums,
                    });
                    &arena.rows.sums[..]
                };
                let panels = panels.clone();
                self.run_block(&pass, Block { rows, a, row_sums, panels }, out, &mut arena.acc);
            }
        }
    }

    /// How to walk through the panels of `part` whose kernels read the same form of rows as
    /// `kernel`.
    fn pass<'n>(&self, kernel: Kernel, part: &'n Part, out: &Target<'_>) -> Pass<'n> {
        let (layout, desc) = (self.w.layout(), kernel.desc());
        let extent = part.extent(desc, layout.k);
        let mut block = Blocking::new(Caches::of_this_cpu(), extent);
        // The windows of an order have any k.
        if desc.kind == PanelKind::Ordered {
            block.groups = extent.groups;
        }
        let k_blocks = if block.groups < extent.groups {
            block.groups = block.groups.next_multiple_of(self.w.kernel().desc().most_narrow_groups());
            extent.groups.div_ceil(block.groups)
        } else {
            1
        };
        let stores = desc.stores && fits_registers(self.stage, &self.row_terms, out);
        Pass { kernel, part, block, groups: extent.groups, k_blocks, stores }
    }

    /// Loops 3 and 2.
    fn run_block(&self, pass: &Pass<'_>, block: Block<'_>, out: &mut Target<'_>, acc: &mut [i32]) {
        let (layout, part) = (self.w.layout(), pass.part);
        let KernelDesc { mr, kr, nr, .. } = *pass.kernel.desc();
        let Block { rows, a, row_sums, panels } = block;
        for pc in 0..pass.k_blocks {
            let groups = pc * pass.block.groups..((pc + 1) * pass.block.groups).min(pass.groups);
            let mut jr = panels.start;
            while jr < panels.end {
                // If the kernel needs no help with the output stage, one call runs several of its
                // panels.
                let first = jr;
                jr = self.w.end_of_run(first, if pass.stores { panels.end } else { first + 1 });
                let kernel = self.w.panel_kernel(first);
                if kernel.desc().kind != pass.kernel.desc().kind {
                    continue;
                }
                let channels = first * nr - self.first_channel..(jr * nr).min(layout.n) - self.first_channel;
                let channel_sums = &self.stage.channel_sums[channels.clone()];
                let offsets = (pc == 0).then(|| &self.stage.offsets[channels.clone()]);
                let store = (pc + 1 == pass.k_blocks).then(|| Store {
                    place: Place {
                        stage: self.stage,
                        channels,
                        first_row: rows.start,
                        row_terms: RowTerms { sums: row_sums, ..self.row_terms.of(rows.clone()) },
                        origin: (rows.start - part.rows.start, (first - part.panels.start) * nr),
                    },
                    target: &mut *out,
                });
                let (first_slot, slot_stride) = if pass.k_blocks == 1 {
                    (0, 0)
                } else {
                    ((first - panels.start) * rows.len().div_ceil(mr), mr * nr)
                };
                let mut strip = Strip {
                    shape: kernel.desc().tile_shape(),
                    a,
                    rows: rows.len(),
                    done: 0,
                    tiles: 0,
                    first_group: groups.start,
                    groups: groups.len(),
                    panels: jr - first,
                    columns: layout.columns(first),
                    b: self.w.panels_from(first, groups.start * kr),
                    panel_stride: nr * layout.padded_k(),
                    orders: self.w.orders().skip(first, groups.len()),
                    acc: &mut acc[first_slot * mr * nr..],
                    slot_stride,
                    offsets,
                    channel_sums,
                    store,
                };
                run_strip(kernel, &mut strip, pass.stores);
            }
        }
    }
}

/// The most panels for which rows of i8 are shifted in registers, once for each panel. For more
/// panels the rows are copied and shifted once. Shifting in registers was 1.11 times as fast for 3
/// panels (128^3), 1.015 for 21 (1000^3) and 0.992 for 64 (128, 3072, 768) (AMD Zen 4).
const MOST_SIGNED_PANELS: usize = 24;

impl<S> Product<'_, S> {
    /// Which rows the kernel may read where they lie.
    #[inline(always)]
    fn allowed(&self, kernel: Kernel, part: &Part) -> Allowed {
        if !self.stage.zero_points.is_empty() {
            // Row sums are computed from copies, which are shifted and padded with zeros.
            return Allowed { form: kernel.desc().form, signed: false, ragged: false };
        }
        let (layout, desc) = (self.w.layout(), kernel.desc());
        let bytes = part.panels.len() * desc.nr * layout.padded_k();
        Allowed {
            form: desc.form,
            signed: desc.signed_rows && part.panels.len() <= MOST_SIGNED_PANELS,
            // The last rows are then copied and take a pass of their own over the panels, so the
            // panels had better be in L2.
            ragged: part.rows.len() > desc.mr && bytes <= Caches::of_this_cpu().l2 / 2,
        }
    }
}

/// Loop 1: runs the kernel on a strip. A kernel that `stores` applies the output stage itself.
/// Otherwise the strip has one panel and runs one tile at a time, whose sums are then still in L1.
///
/// Never inlined: the loops around it are compiled for each type of activations in each crate that
/// uses them, and each copy would include all output stages.
#[inline(never)]
fn run_strip(kernel: Kernel, strip: &mut Strip<'_, '_>, stores: bool) {
    let store = if stores { None } else { strip.store.take() };
    let Some(mut store) = store else { return kernel.run(strip) };
    let rows = strip.rows;
    while strip.done < rows {
        let first = strip.done;
        strip.rows = rows.min(first + kernel.desc().mr);
        kernel.run(strip);
        let acc = &strip.acc[(strip.tiles - 1) * strip.slot_stride..];
        let acc = &acc[..(strip.rows - first) * strip.columns];
        kernel.vectorize(StoreTile { store: &mut store, first, acc, stride: strip.columns });
    }
}

struct StoreTile<'t, 's, 'o> {
    store: &'t mut Store<'s, 'o>,
    first: usize,
    acc: &'t [i32],
    stride: usize,
}

impl Task for StoreTile<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.store.apply(self.first, self.acc, self.stride);
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use crate::kernel::desc::{CpuState, KernelDesc};
    use crate::kernel::strip::Strip;
    use crate::kernel::token::Kernel;
    use crate::kernels::portable;
    use crate::matrix::view::{MatMut, MatRef};
    use crate::{Int32, PackedWeights, Threads, Workspace, gemm};

    thread_local! {
        static SET_UP: Cell<u32> = const { Cell::new(0) };
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }

    static KERNEL: KernelDesc = KernelDesc {
        name: "configured",
        state: Some(CpuState {
            set_up: || {
                SET_UP.set(SET_UP.get() + 1);
                CALLS.set(CALLS.get() + 1);
            },
            tear_down: || SET_UP.set(SET_UP.get() - 1),
        }),
        run: strip_on_a_thread_that_is_set_up,
        ..portable::KERNEL
    };

    fn strip_on_a_thread_that_is_set_up(strip: &mut Strip<'_, '_>) {
        assert_eq!(SET_UP.get(), 1);
        portable::run(strip);
    }

    #[test]
    fn a_kernel_that_configures_the_cpu_does_so_once_for_all_strips() {
        let kernel = Kernel::supported(&KERNEL).unwrap();
        let (m, n, k) = (300, 40, 7);
        let w = PackedWeights::from_nk(MatRef::new(&vec![2i8; n * k], n, k).unwrap(), kernel).unwrap();
        let x = vec![3u8; m * k];
        let mut y = vec![0; m * n];
        let out = MatMut::new(&mut y, m, n).unwrap();
        let a = MatRef::new(&x, m, k).unwrap();
        gemm(a, &w, &Int32::new(), out, Threads::Serial, &mut Workspace::new()).unwrap();
        assert!(y.iter().all(|&y| y == 42));
        assert_eq!((SET_UP.get(), CALLS.get()), (0, 1));
    }
}
