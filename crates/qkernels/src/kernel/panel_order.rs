//! Panels whose k have an order of their own within windows of 16: what a kernel reads beside their
//! weights.
//!
//! A kernel that sums products in 16 bits needs weights that do not add up there. Within a window,
//! the panel decides which k meet in a word. A row's 16 codes of the window pass one shuffle, whose
//! control belongs to the panel. A code may also be flipped to 255 less itself. Its weight is
//! negated then, and 255 times the weight belongs to the column's offset:
//!
//! ```text
//! x w = 255 w + (255 - x) (-w)
//! ```

use bytemuck::{Pod, Zeroable};

/// Consecutive k of a window.
pub(crate) const WINDOW: usize = 16;

/// The most columns of such a panel.
pub(crate) const ORDERED_COLUMNS: usize = 16;

/// How a window's products are summed, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WindowKind {
    /// In words of four products: groups 0 and 1 of four k, and groups 2 and 3.
    Quads,
    /// The first two groups in words of four products, the others in words of two.
    QuadsAndPairs,
    /// All groups in words of two products.
    Pairs,
    /// In 32 bits, for any weights. They lie in pairs of k, in the matrix's order.
    Words,
}

impl WindowKind {
    /// All kinds, in the order in which a panel has their windows.
    pub(crate) const ALL: [Self; 4] = [Self::Quads, Self::QuadsAndPairs, Self::Pairs, Self::Words];
}

/// The order of one panel, but for its windows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PanelOrder {
    /// How many windows of each kind there are, in the order of [`WindowKind::ALL`].
    pub(crate) counts: [usize; 4],
    /// What flips add to the sums of each column.
    pub(crate) offsets: [i32; ORDERED_COLUMNS],
}

impl PanelOrder {
    /// How many windows there are; 0 if the panel has no order.
    pub(crate) fn windows(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The index of the first window of words.
    pub(crate) fn words(&self) -> usize {
        self.counts[..WindowKind::Words as usize].iter().sum()
    }
}

/// Where a window's codes are in a row, and how they are ordered.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Window {
    /// For each place, the k of the window that comes there; [`FLIP`] is set if it is flipped.
    pub(crate) control: [u8; WINDOW],
    /// The first k. (Bytes, because windows lie among bytes.)
    first: [u8; 4],
}

impl Window {
    /// The window of `k` .. `k + WINDOW`.
    pub(crate) fn new(control: [u8; WINDOW], k: usize) -> Self {
        Self { control, first: (k as u32).to_ne_bytes() }
    }

    /// The first k.
    #[inline(always)]
    pub(crate) fn first(&self) -> usize {
        u32::from_ne_bytes(self.first) as usize
    }
}

/// The bit of a control that says that a code is flipped. The shuffle does not look at it.
pub(crate) const FLIP: u8 = 0x40;

/// The orders of panels that lie one behind the other; empty if none has one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Orders<'t> {
    panels: &'t [PanelOrder],
    windows: &'t [Window],
}

impl<'t> Orders<'t> {
    /// The windows of each panel lie as the panels do, each panel's in the order in which it has
    /// them.
    pub(crate) fn new(panels: &'t [PanelOrder], windows: &'t [Window]) -> Self {
        Self { panels, windows }
    }

    /// Those from panel `p` on. Each has room for `windows` windows.
    #[inline(always)]
    pub(crate) fn skip(self, p: usize, windows: usize) -> Self {
        if self.panels.is_empty() {
            return self;
        }
        let (panels, windows) = (self.panels.get(p..), self.windows.get(p * windows..));
        Self { panels: panels.unwrap_or_default(), windows: windows.unwrap_or_default() }
    }

    /// The order of panel `p` and its windows, of which there are `windows`.
    #[inline(always)]
    pub(crate) fn of(&self, p: usize, windows: usize) -> Option<(&'t PanelOrder, &'t [Window])> {
        Some((self.panels.get(p)?, self.windows.get(p * windows..(p + 1) * windows)?))
    }
}
