//! Which kernel runs each panel: the fastest one whose sums packing proves.

use core::ops::Range;
use std::collections::TryReserveError;

use crate::cpu::threads::{Threads, join};
use crate::cpu::vectorize::Task;
use crate::kernel::panel_order::{Orders, PanelOrder, Window};
use crate::kernel::token::Kernel;
use crate::weights::order::panel::{Scratch, Source, in_order};
use crate::weights::pack::{PanelLayout, Panels};
use crate::weights::regroup::quads_of_pairs;
use crate::weights::{order, proof};

/// The kernel of each panel, and the order of those that have one.
#[derive(Clone, Debug, Default)]
pub(crate) struct PanelKernels {
    /// The kernel that each panel is packed for and runs on; empty if it is the weights' own for
    /// all.
    kernels: Vec<Kernel>,
    /// The order of each panel; empty if none has one.
    orders: Vec<PanelOrder>,
}

impl PanelKernels {
    /// How many windows there must be room for, if orders come from `source`.
    pub(crate) fn windows(kernel: Kernel, layout: &PanelLayout, source: Option<Source<'_>>) -> Option<usize> {
        match source.and(kernel.ordered()) {
            None => Some(0),
            Some(_) => layout.panels().checked_mul(layout.windows()),
        }
    }

    /// Finds the fastest kernel for each panel, and packs the panel for it. Panels come in pairs of
    /// k, with room for the windows of the orders that come from `source`.
    pub(crate) fn find(
        kernel: Kernel,
        layout: &PanelLayout,
        panels: &mut Panels,
        largest_byte: u8,
        source: Option<Source<'_>>,
        threads: Threads<'_>,
    ) -> Result<Self, TryReserveError> {
        let mut found = Self::default();
        let source = source.filter(|_| kernel.ordered().is_some());
        // (A window's place is 32 bits.)
        let source = source.filter(|_| u32::try_from(layout.padded_k()).is_ok());
        if kernel.proven().next().is_none() && source.is_none() {
            return Ok(found);
        }
        found.kernels.try_reserve_exact(layout.panels())?;
        found.kernels.resize(layout.panels(), kernel);
        if source.is_some() {
            found.orders.try_reserve_exact(layout.panels())?;
            found.orders.resize(layout.panels(), PanelOrder::default());
        }
        let (panels, windows) = panels.with_windows_mut();
        let all = Proofs {
            layout,
            kernel,
            source,
            largest_byte,
            first: 0,
            panels,
            windows,
            kernels: &mut found.kernels,
            orders: &mut found.orders,
        };
        let parts = threads.parts(order::products(layout.n, layout.k));
        threads.enter(|| all.run(parts))?;
        if found.kernels.iter().all(|of_panel| *of_panel == kernel) {
            found.kernels = Vec::new();
        }
        if found.orders.iter().all(|order| order.windows() == 0) {
            found.orders = Vec::new();
        }
        Ok(found)
    }

    /// The kernel of panel `p`; `None` if it is the weights' own for all.
    pub(crate) fn get(&self, p: usize) -> Option<Kernel> {
        self.kernels.get(p).copied()
    }

    /// The kernels of `panels`; `None` if it is the weights' own for all.
    pub(crate) fn of(&self, panels: Range<usize>) -> Option<&[Kernel]> {
        self.kernels.get(panels).filter(|_| !self.kernels.is_empty())
    }

    /// The kernels of all panels; none if it is the weights' own for all.
    pub(crate) fn all(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The orders of all panels, whose windows are `windows`.
    #[inline(always)]
    pub(crate) fn orders<'t>(&'t self, windows: &'t [Window]) -> Orders<'t> {
        Orders::new(&self.orders, windows)
    }

    /// The order of each panel; empty if none has one.
    pub(crate) fn panel_orders(&self) -> &[PanelOrder] {
        &self.orders
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.kernels.as_slice()) + size_of_val(self.orders.as_slice())
    }
}

/// Consecutive panels, each to be packed for the fastest kernel that is proven for it.
struct Proofs<'t> {
    layout: &'t PanelLayout,
    kernel: Kernel,
    largest_byte: u8,
    /// Where orders come from, if there are any.
    source: Option<Source<'t>>,
    /// The index of the first panel.
    first: usize,
    panels: &'t mut [i8],
    /// Places for the windows of each panel, if there are orders.
    windows: &'t mut [Window],
    kernels: &'t mut [Kernel],
    /// An order for each panel, if there are any.
    orders: &'t mut [PanelOrder],
}

impl Proofs<'_> {
    /// Finds the kernels on about `parts` threads.
    fn run(self, parts: usize) -> Result<(), TryReserveError> {
        if parts < 2 || self.kernels.len() < 2 {
            return self.kernel.vectorize(self);
        }
        let (first, second) = self.halves();
        let (mut of_first, mut of_second) = (Ok(()), Ok(()));
        join(|| of_first = first.run(parts / 2), || of_second = second.run(parts - parts / 2));
        of_first.and(of_second)
    }

    fn halves(self) -> (Self, Self) {
        let (layout, middle) = (self.layout, self.kernels.len() / 2);
        let bytes = layout.panel(self.first + middle).start - layout.panel(self.first).start;
        let windows = if self.source.is_some() { middle * layout.windows() } else { 0 };
        let (panels, windows) = (self.panels.split_at_mut(bytes), self.windows.split_at_mut(windows));
        let (kernels, orders) = (
            self.kernels.split_at_mut(middle),
            self.orders.split_at_mut(if self.source.is_some() { middle } else { 0 }),
        );
        let first =
            Self { panels: panels.0, windows: windows.0, kernels: kernels.0, orders: orders.0, ..self };
        let second = Self {
            first: self.first + middle,
            panels: panels.1,
            windows: windows.1,
            kernels: kernels.1,
            orders: orders.1,
            ..first
        };
        (first, second)
    }
}

impl Task for Proofs<'_> {
    type Output = Result<(), TryReserveError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { layout, kernel, largest_byte, source, first, panels, windows, kernels, orders } = self;
        let mut scratch = Scratch::new(if source.is_some() { layout.padded_k() } else { 0 })?;
        let mut rest = panels;
        for (i, to) in kernels.iter_mut().enumerate() {
            let (p, columns) = (first + i, layout.columns(first + i));
            let Some(panel) = rest.split_off_mut(..layout.panel(p).len()) else { break };
            let holds =
                |proven: &Kernel| proof::holds(panel, columns, proven.desc().narrow_groups, largest_byte);
            let proven = kernel.proven().find(holds);
            if let Some(proven) = proven {
                quads_of_pairs(panel, columns);
                *to = proven;
            } else if let (Some(source), Some(ordered)) = (source, kernel.ordered()) {
                let windows = &mut windows[i * layout.windows()..][..layout.windows()];
                // Kernels that prove nothing else put all panels in an order.
                let most = if kernel.desc().proven.is_empty() { f32::INFINITY } else { order::MOST_TIME };
                let (place, source) = ((p, columns), (source, largest_byte));
                if let Some(order) = in_order(panel, place, source, most, windows, &mut scratch) {
                    (*to, orders[i]) = (ordered, order);
                }
            }
        }
        Ok(())
    }
}
