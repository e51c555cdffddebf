//! Weights in the order in which a kernel reads them.
//!
//! ```text
//!            panel 0: nr columns        panel 1          last panel: whole vectors only
//!          |<------------------->|<----------------->|<---------->|
//! group 0   c0k0 c0k1 .. c1k0 c1k1 ..                              kr consecutive k of each column, column by column
//! group 1   c0k4 c0k5 ..
//! ...       a panel is contiguous, group after group; panels follow each other
//! ```
//!
//! k is padded with zeros to whole groups, n to whole vectors. The layout does not depend on
//! blocking: a block of k is a range of a panel's groups.

mod interleave;
mod transpose;

use core::ops::Range;

use interleave::{Place, pack_any_columns, pack_columns, pack_rows, pack_wide};
use transpose::BYTES;

use crate::kernel::desc::KernelDesc;
use crate::kernel::panel_order::{WINDOW, Window};
use crate::matrix::pages::Pages;
use crate::matrix::view::MatRef;
use crate::weights::operand::{PackError, Weight, Weights};
use crate::weights::sums::{Sums, Totals};

/// Where the panels of an (n, k) matrix of weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PanelLayout {
    pub(crate) n: usize,
    pub(crate) k: usize,
    nr: usize,
    kr: usize,
    // These follow from the fields above and the kernel. They are divided once, because each
    // product asks for them.
    panels: usize,
    padded_k: usize,
    last_columns: usize,
}

impl PanelLayout {
    pub(crate) fn new(desc: &KernelDesc, n: usize, k: usize) -> Self {
        Self::with(desc.nr, desc.vector_columns, desc.kr, desc.largest_kr(), n, k)
    }

    /// `k_multiple` is the multiple that k is padded to. It is itself a multiple of kr.
    fn with(nr: usize, vector_columns: usize, kr: usize, k_multiple: usize, n: usize, k: usize) -> Self {
        let panels = n.div_ceil(nr);
        let last_columns = (n - panels.saturating_sub(1) * nr).next_multiple_of(vector_columns);
        // Memory has no place for so many k; `bytes` reports that.
        let padded_k = k.checked_next_multiple_of(k_multiple).unwrap_or(usize::MAX);
        Self { n, k, nr, kr, panels, padded_k, last_columns }
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    /// k of a panel, including its padding.
    pub(crate) fn padded_k(&self) -> usize {
        self.padded_k
    }

    /// Windows of a panel that has an order of k.
    pub(crate) fn windows(&self) -> usize {
        self.padded_k / WINDOW
    }

    /// Columns of panel `p` that are columns of the matrix.
    pub(crate) fn used_columns(&self, p: usize) -> usize {
        self.nr.min(self.n - p * self.nr)
    }

    /// Columns of panel `p`, including its padding.
    pub(crate) fn columns(&self, p: usize) -> usize {
        if p + 1 == self.panels { self.last_columns } else { self.nr }
    }

    /// Bytes of all panels; `None` if that overflows.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let columns = (self.panels.saturating_sub(1) * self.nr).checked_add(self.last_columns)?;
        columns.checked_mul(self.padded_k)
    }

    /// The bytes of panel `p`.
    pub(crate) fn panel(&self, p: usize) -> Range<usize> {
        self.range(p, 0..self.padded_k())
    }

    /// The index in the panels of the weight that column `j` has for `k`, in groups of `kr`.
    pub(crate) fn place(&self, j: usize, k: usize, kr: usize) -> usize {
        let (p, column) = (j / self.nr, j % self.nr);
        let (group, at) = (k >> kr.trailing_zeros(), k & (kr - 1));
        self.panel(p).start + (group * self.columns(p) + column) * kr + at
    }

    /// The groups of panel `p` that hold `k`, and the columns that they are of.
    fn groups_of<'p, const KR: usize>(
        &self,
        packed: &'p mut [i8],
        p: usize,
        k: &Range<usize>,
    ) -> (&'p mut [[i8; KR]], Range<usize>) {
        let groups = packed[self.range(p, k.start..k.end.next_multiple_of(KR))].as_chunks_mut().0;
        (groups, p * self.nr..p * self.nr + self.used_columns(p))
    }

    /// Where the columns from `column` on are that one vector holds, from the group of `k` on. A
    /// panel is as wide as whole vectors.
    fn place_of_columns(&self, column: usize, k: usize, kr: usize) -> Place {
        let width = self.columns(column / self.nr);
        Place { column, count: BYTES.min(self.n - column), at: self.place(column, k, kr), step: width * kr }
    }

    /// The bytes of the groups of panel `p` that hold `k`, whatever its kr. `k` must begin and end
    /// with groups.
    pub(crate) fn range(&self, p: usize, k: Range<usize>) -> Range<usize> {
        let (start, columns) = (p * self.nr * self.padded_k(), self.columns(p));
        start + k.start * columns..start + k.end * columns
    }
}

/// Packed panels, and behind them the windows of their orders, on the same huge pages.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    pages: Pages,
    /// Where windows begin: with a line of the cache.
    windows_at: usize,
    /// How many windows there is room for.
    windows: usize,
}

impl Panels {
    /// `bytes` bytes of panels, all of them zeros, and room for windows; `None` if there is no
    /// memory for them.
    pub(crate) fn zeroed(bytes: usize, windows: usize) -> Option<Self> {
        let windows_at = bytes.checked_next_multiple_of(64)?;
        let all = windows_at.checked_add(windows.checked_mul(size_of::<Window>())?)?;
        Some(Self { pages: Pages::zeroed(all)?, windows_at, windows })
    }

    /// The panels, and what lies behind them.
    pub(crate) fn as_slice(&self) -> &[i8] {
        self.pages.as_slice()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [i8] {
        self.pages.as_mut_slice()
    }

    /// The windows of all panels.
    pub(crate) fn windows(&self) -> &[Window] {
        let bytes = self.as_slice().get(self.windows_at..).unwrap_or_default();
        let windows: &[Window] = bytemuck::must_cast_slice(bytes.as_chunks::<WINDOW_BYTES>().0);
        windows.get(..self.windows).unwrap_or_default()
    }

    /// The panels, and the windows of all of them.
    pub(crate) fn with_windows_mut(&mut self) -> (&mut [i8], &mut [Window]) {
        let Self { windows_at, windows: count, .. } = *self;
        let Some((panels, bytes)) = self.as_mut_slice().split_at_mut_checked(windows_at) else {
            return (&mut [], &mut []);
        };
        let windows: &mut [Window] = bytemuck::must_cast_slice_mut(bytes.as_chunks_mut::<WINDOW_BYTES>().0);
        (panels, windows.get_mut(..count).unwrap_or_default())
    }
}

/// Bytes of the windows of an order.
const WINDOW_BYTES: usize = size_of::<Window>();

/// Writes the weights `w` (n, k), neither of them 0, to `panels`, which are zeros, and finds their
/// sums. Compiled for the vector level of the caller.
#[inline(always)]
pub(crate) fn pack<W: Weight>(
    layout: &PanelLayout,
    w: &Weights<'_, W>,
    panels: &mut Panels,
) -> Result<Sums, PackError> {
    let PanelLayout { n, k, kr, .. } = *layout;
    let totals = Totals::zeroed(n, w.zero_points, W::SHIFT);
    let mut totals = totals.ok_or(PackError::OutOfMemory { n, k })?;
    let (view, packed) = (&w.view, panels.as_mut_slice());
    match kr {
        16 => pack_groups::<W, 16, 1>(layout, packed, view, &mut totals),
        8 => pack_groups::<W, 8, 2>(layout, packed, view, &mut totals),
        4 => pack_groups::<W, 4, 4>(layout, packed, view, &mut totals),
        2 => pack_groups::<W, 2, 8>(layout, packed, view, &mut totals),
        _ => pack_elements(layout, packed, view, &mut totals),
    }
    totals.finish(k, k.next_multiple_of(kr) - k)
}

/// How many groups of all panels are written before the next ones are. They are few enough that
/// what is read for one panel is still in the caches, and in the reach of the TLB, for the next.
const BLOCK: usize = 64;

/// Panels whose groups are written by turns, from rows of weights stored (k, n). Their share of a
/// row is several cache lines, which the hardware reads ahead.
const ABREAST: usize = 16;

/// Packs all panels, in the order in which their source lies in memory. `C` columns have as many
/// bytes in a group as a vector.
#[inline(always)]
fn pack_groups<W: Weight, const KR: usize, const C: usize>(
    layout: &PanelLayout,
    packed: &mut [i8],
    w: &MatRef<'_, W>,
    totals: &mut Totals<'_>,
) {
    let columns = |p: usize| p * layout.nr..p * layout.nr + layout.used_columns(p);
    let block = |first: usize| first..layout.k.min(first.saturating_add(BLOCK * KR));
    let groups = |p: usize, k: &Range<usize>| layout.range(p, k.start..k.end.next_multiple_of(KR));
    let blocks = (0..layout.k).step_by(BLOCK * KR).map(block);
    if w.col_stride() == 1 {
        for p in 0..layout.panels() {
            for k in blocks.clone() {
                let groups = packed[groups(p, &k)].as_chunks_mut().0;
                pack_rows::<W, KR, C>(groups, layout.columns(p), columns(p), k, w);
                totals.add(groups, layout.columns(p), columns(p).start);
            }
        }
    } else if w.row_stride() == 1 {
        for k in blocks {
            for first in (0..layout.panels()).step_by(ABREAST) {
                let panels = first..layout.panels().min(first + ABREAST);
                pack_panels::<W, KR>(layout, packed, panels.clone(), k.clone(), &w.transposed());
                for p in panels {
                    let groups = packed[groups(p, &k)].as_chunks().0;
                    totals.add::<KR>(groups, layout.columns(p), columns(p).start);
                }
            }
        }
    } else {
        pack_elements(layout, packed, w, totals);
    }
}

/// Packs the groups of `k`, which begins with one, of some panels, from rows of `w` (k, n).
#[inline(always)]
fn pack_panels<W: Weight, const KR: usize>(
    layout: &PanelLayout,
    packed: &mut [i8],
    panels: Range<usize>,
    k: Range<usize>,
    w: &MatRef<'_, W>,
) {
    /// Vectors that a row has for the panels, or for some of them.
    const VECTORS: usize = 16;
    let end = layout.n.min(panels.end * layout.nr);
    let whole = k.start..k.end - k.len() % KR;
    // Panels as wide as whole vectors, the last one as half ones.
    if layout.nr.is_multiple_of(BYTES) && layout.last_columns.is_multiple_of(BYTES / 2) {
        let mut column = panels.start * layout.nr;
        let mut places = [Place::default(); VECTORS];
        while column < end {
            // The last vector may have fewer columns.
            let count = VECTORS.min((end - column) / BYTES).max(1);
            for (v, to) in places[..count].iter_mut().enumerate() {
                *to = layout.place_of_columns(column + v * BYTES, whole.start, KR);
            }
            pack_vectors::<W, KR>(layout, packed, &mut places[..count], whole.clone(), w);
            column += count * BYTES;
        }
    } else {
        for p in panels.clone() {
            let (groups, columns) = layout.groups_of(packed, p, &k);
            pack_any_columns::<W, KR>(groups, layout.columns(p), columns, whole.clone(), w);
        }
    }
    if whole.end < k.end {
        for p in panels {
            let width = layout.columns(p);
            let (groups, columns) = layout.groups_of(packed, p, &k);
            let last = groups.len() - width;
            pack_any_columns::<W, KR>(&mut groups[last..], width, columns, whole.end..k.end, w);
        }
    }
}

/// Packs the groups of `k`, all of them whole, of the columns at `places`, one beside the other.
#[inline(always)]
fn pack_vectors<W: Weight, const KR: usize>(
    layout: &PanelLayout,
    packed: &mut [i8],
    places: &mut [Place],
    k: Range<usize>,
    w: &MatRef<'_, W>,
) {
    /// So few vectors of each row are read one after the other, down all rows.
    const FEW: usize = 4;
    /// Rows of more vectors that are read by turns.
    const ROWS: usize = 8;
    /// How far behind the vectors lines are requested, in bytes.
    const AHEAD: usize = 128;
    /// Larger matrices come from beyond L2, and lines are requested: the hardware does not read
    /// ahead where few bytes of each row follow each other.
    const NEAR: usize = 512 << 10;
    let mut k = k;
    if places.len() > FEW {
        let wide = k.start..k.end - k.len() % ROWS;
        k.start = wide.end;
        let far = w.rows().saturating_mul(w.row_stride()) > NEAR;
        // Several small groups fill cache lines of a panel before those of the next panel are
        // written. (Starts of panels are often multiples of 4 KiB apart, of which a cache holds few
        // lines.)
        match (KR, far) {
            (2, false) => pack_wide::<W, KR, { ROWS / 2 }, 0>(packed, places, wide, w),
            (2, true) => pack_wide::<W, KR, { ROWS / 2 }, AHEAD>(packed, places, wide, w),
            (4, false) => pack_wide::<W, KR, { ROWS / 4 }, 0>(packed, places, wide, w),
            (4, true) => pack_wide::<W, KR, { ROWS / 4 }, AHEAD>(packed, places, wide, w),
            _ => k = wide.start..k.end,
        }
    }
    if k.is_empty() {
        return;
    }
    for place in places {
        // Columns that there are not stay zeros.
        let end = match place.count {
            ..=4 => pack_columns::<W, KR, 4>(packed, place, k.clone(), w),
            5..=8 => pack_columns::<W, KR, 8>(packed, place, k.clone(), w),
            _ => pack_columns::<W, KR, BYTES>(packed, place, k.clone(), w),
        };
        if end < k.end {
            pack_last_rows::<W, KR>(layout, packed, place, end..k.end, w);
        }
    }
}

/// Packs the groups of `k`, all of them whole, of the columns at `place`, where what lies behind a
/// row is not of the slice.
#[cold]
#[inline(never)]
fn pack_last_rows<W: Weight, const KR: usize>(
    layout: &PanelLayout,
    packed: &mut [i8],
    place: &Place,
    k: Range<usize>,
    w: &MatRef<'_, W>,
) {
    let (p, first) = (place.column / layout.nr, place.column % layout.nr);
    let (groups, _) = layout.groups_of(packed, p, &k);
    let columns = place.column..place.column + place.count;
    pack_any_columns::<W, KR>(&mut groups[first..], layout.columns(p), columns, k, w);
}

/// Packs weights with any strides, for any kr, element by element.
fn pack_elements<W: Weight>(
    layout: &PanelLayout,
    packed: &mut [i8],
    w: &MatRef<'_, W>,
    totals: &mut Totals<'_>,
) {
    for p in 0..layout.panels() {
        let panel = &mut packed[layout.range(p, 0..layout.k.next_multiple_of(layout.kr))];
        let group_bytes = layout.columns(p) * layout.kr;
        for column in 0..layout.used_columns(p) {
            let groups = panel.chunks_exact_mut(group_bytes);
            let places = groups.flat_map(|group| &mut group[column * layout.kr..][..layout.kr]);
            for (to, from) in places.zip(w.row_elements(p * layout.nr + column)) {
                *to = from.signed();
            }
        }
        totals.add_singly(panel, layout.kr, layout.columns(p), p * layout.nr);
    }
}

/// The weights (n, k), row-major, that `pack` was given. `kr` is the kr of each panel.
pub(crate) fn unpack(layout: &PanelLayout, panels: &Panels, kr: impl Fn(usize) -> usize) -> Vec<i8> {
    if layout.k == 0 {
        // There may be any number of channels here.
        return Vec::new();
    }
    let mut w = Vec::with_capacity(layout.n * layout.k);
    for p in 0..layout.panels() {
        let (panel, kr) = (&panels.as_slice()[layout.panel(p)], kr(p));
        for column in 0..layout.used_columns(p) {
            let groups = panel.chunks_exact(layout.columns(p) * kr);
            w.extend(groups.flat_map(|group| &group[column * kr..][..kr]).take(layout.k));
        }
    }
    w
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;
    use crate::weights::operand::ZeroPoints;

    /// The layouts of all kernels, and of tiles that no kernel has.
    fn layouts(n: usize, k: usize) -> impl Iterator<Item = PanelLayout> {
        let odd = [(1, 1, 1), (5, 5, 3), (6, 3, 2), (10, 2, 8)];
        let odd = odd.map(|(nr, vector_columns, kr)| PanelLayout::with(nr, vector_columns, kr, kr, n, k));
        kernels::all().map(move |desc| PanelLayout::new(desc, n, k)).chain(odd)
    }

    fn packed(layout: &PanelLayout, w: &MatRef<'_, i8>) -> Panels {
        let mut panels = Panels::zeroed(layout.bytes().unwrap(), 0).unwrap();
        pack(layout, &Weights::from(*w), &mut panels).unwrap();
        panels
    }

    /// Sums and panels of u8 weights with zero points, in both orientations and with gaps between
    /// the rows.
    #[test]
    fn u8_weights_are_packed_less_128_and_summed_from_both_orientations() {
        for (n, k) in [(3, 2), (17, 33), (300, 37), (33, 300), (800, 9), (40, 515), (300, 64), (25, 64)] {
            let zero_points: Vec<i32> = (0..n).map(|j| (j * 37 % 256) as i32).collect();
            let w = |j: usize, p: usize| ((j * 131 + p * 29 + j * p) % 256) as u8;
            let nk: Vec<u8> = (0..n * (k + 1)).map(|i| w(i / (k + 1), i % (k + 1))).collect();
            let kn: Vec<u8> = (0..k * (n + 1)).map(|i| w(i % (n + 1), i / (n + 1))).collect();
            let nk = MatRef::with_strides(&nk, n, k, k + 1, 1).unwrap();
            // (There is nothing behind the last row.)
            let kn = MatRef::with_strides(&kn[..k * (n + 1) - 1], k, n, n + 1, 1).unwrap().transposed();
            let signed: Vec<i8> =
                (0..n * k).map(|i| w(i / k, i % k).wrapping_sub(128).cast_signed()).collect();
            let distances =
                |j: usize| (0..k).map(move |p| i32::from(w(j, p))).map(move |w| w - (j * 37 % 256) as i32);
            let plain: Vec<i32> = (0..n).map(|j| distances(j).sum()).collect();
            let magnitudes: Vec<u32> = (0..n).map(|j| distances(j).map(i32::unsigned_abs).sum()).collect();
            for layout in layouts(n, k) {
                for view in [nk, kn] {
                    let mut panels = Panels::zeroed(layout.bytes().unwrap(), 0).unwrap();
                    let w = Weights::new(view, ZeroPoints::PerChannel(&zero_points));
                    let sums = pack(&layout, &w, &mut panels).unwrap();
                    assert_eq!(unpack(&layout, &panels, |_| layout.kr), signed, "{layout:?}");
                    assert_eq!((&sums.plain, &sums.magnitudes), (&plain, &magnitudes), "{layout:?}");
                }
            }
        }
    }

    /// A matrix (n, k) in which neighbours differ.
    fn numbered(n: usize, k: usize) -> Vec<i8> {
        (0..n * k).map(|i| (i % 251) as u8 as i8).collect()
    }

    #[test]
    fn unpacking_restores_the_weights_from_both_orientations() {
        for (n, k) in [(1, 1), (1, 5), (7, 3), (16, 8), (17, 9), (50, 6), (100, 33), (49, 4 * 64 + 3)] {
            for layout in layouts(n, k) {
                let nk = numbered(n, k);
                let kn: Vec<i8> = (0..k * n).map(|i| nk[i % n * k + i / n]).collect();
                let spread: Vec<i8> = nk.iter().flat_map(|&w| [w, 99, 98]).collect();
                let from_nk = packed(&layout, &MatRef::new(&nk, n, k).unwrap());
                let from_kn = packed(&layout, &MatRef::new(&kn, k, n).unwrap().transposed());
                let scattered = MatRef::with_strides(&spread, n, k, 3 * k, 3).unwrap();
                assert_eq!(from_nk.as_slice(), packed(&layout, &scattered).as_slice(), "{layout:?}");
                assert_eq!(from_nk.as_slice(), from_kn.as_slice(), "{layout:?}");
                assert_eq!(unpack(&layout, &from_nk, |_| layout.kr), nk, "{layout:?}");
            }
        }
    }

    #[test]
    fn padding_is_zero() {
        for layout in layouts(50, 9) {
            let ones = [1i8; 50 * 9];
            let panels = packed(&layout, &MatRef::new(&ones, 50, 9).unwrap());
            let sum: usize = panels.as_slice().iter().map(|&w| usize::from(w.cast_unsigned())).sum();
            assert_eq!(sum, ones.len(), "{layout:?}");
        }
    }

    #[test]
    fn panels_tile_the_bytes_without_gaps() {
        for layout in layouts(145, 7) {
            let mut next = 0;
            for p in 0..layout.panels() {
                let range = layout.panel(p);
                assert_eq!(range.start, next, "{layout:?} panel {p}");
                next = range.end;
            }
            assert_eq!(Some(next), layout.bytes(), "{layout:?}");
        }
    }
}
