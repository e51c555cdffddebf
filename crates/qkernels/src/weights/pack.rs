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

use core::ops::Range;

use crate::kernel::desc::KernelDesc;
use crate::kernel::panel_order::{WINDOW, Window};
use crate::matrix::pages::Pages;
use crate::matrix::view::MatRef;
use crate::weights::operand::Weight;

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

/// Writes the weights `w` (n, k), neither of them 0, to `panels`, which are zeros. Compiled for the
/// vector level of the caller.
#[inline(always)]
pub(crate) fn pack<W: Weight>(layout: &PanelLayout, w: &MatRef<'_, W>, panels: &mut Panels) {
    let packed = panels.as_mut_slice();
    match layout.kr {
        16 => pack_groups::<W, 16>(layout, packed, w),
        8 => pack_groups::<W, 8>(layout, packed, w),
        4 => pack_groups::<W, 4>(layout, packed, w),
        2 => pack_groups::<W, 2>(layout, packed, w),
        _ => pack_elements(layout, packed, w),
    }
}

/// How many groups of all panels are written before the next ones are. They are few enough that
/// what is read for one panel is still in the caches, and in the reach of the TLB, for the next.
const BLOCK: usize = 64;

/// Packs all panels, in the order in which their source lies in memory.
#[inline(always)]
fn pack_groups<W: Weight, const KR: usize>(layout: &PanelLayout, packed: &mut [i8], w: &MatRef<'_, W>) {
    let columns = |p: usize| p * layout.nr..p * layout.nr + layout.used_columns(p);
    if w.col_stride() == 1 {
        for p in 0..layout.panels() {
            let panel = &mut packed[layout.panel(p)];
            pack_rows::<W, KR>(panel.as_chunks_mut().0, layout.columns(p), columns(p), w);
        }
    } else if w.row_stride() == 1 {
        for first in (0..layout.k).step_by(BLOCK * KR) {
            let rows = first..layout.k.min(first + BLOCK * KR);
            for p in 0..layout.panels() {
                let panel = &mut packed[layout.range(p, first..rows.end.next_multiple_of(KR))];
                pack_columns::<W, KR>(
                    panel.as_chunks_mut().0,
                    layout.columns(p),
                    columns(p),
                    rows.clone(),
                    &w.transposed(),
                );
            }
        }
    } else {
        pack_elements(layout, packed, w);
    }
}

/// Columns that are read side by side, so what is written is adjacent. They are few enough that
/// source rows which start in one cache set do not evict each other.
const ABREAST: usize = 4;

/// Packs a panel whose columns are adjacent elements of `w` (n, k). Groups of each column are
/// copied as they are.
#[inline(always)]
fn pack_rows<W: Weight, const KR: usize>(
    panel: &mut [[i8; KR]],
    width: usize,
    columns: Range<usize>,
    w: &MatRef<'_, W>,
) {
    let row = |column: usize| w.row_slice(columns.start + column).unwrap_or_default();
    for (block, panel) in panel.chunks_mut(BLOCK * width).enumerate() {
        // This block's share of the row's whole groups.
        let groups = |column: usize| -> &[[W; KR]] {
            let groups = row(column).as_chunks().0;
            let first = (block * BLOCK).min(groups.len());
            &groups[first..groups.len().min(first + BLOCK)]
        };
        let whole = columns.len() - columns.len() % ABREAST;
        for column in (0..whole).step_by(ABREAST) {
            let rows = [groups(column), groups(column + 1), groups(column + 2), groups(column + 3)];
            copy_groups::<W, KR, ABREAST>(panel, width, column, rows);
        }
        for column in whole..columns.len() {
            copy_groups::<W, KR, 1>(panel, width, column, [groups(column)]);
        }
        // The last group may be short; it stands in the last block.
        let last = w.cols() / KR - (block * BLOCK).min(w.cols() / KR);
        if last < BLOCK && !w.cols().is_multiple_of(KR) {
            for column in 0..columns.len() {
                let rest = row(column).as_chunks::<KR>().1;
                for (to, from) in panel.get_mut(last * width + column).into_iter().flatten().zip(rest) {
                    *to = from.signed();
                }
            }
        }
    }
}

/// Copies groups of `C` adjacent columns of a panel, from `column` on.
#[inline(always)]
fn copy_groups<W: Weight, const KR: usize, const C: usize>(
    panel: &mut [[i8; KR]],
    width: usize,
    column: usize,
    rows: [&[[W; KR]]; C],
) {
    let count = rows.iter().map(|groups| groups.len()).min().unwrap_or(0);
    let rows = rows.map(|groups| &groups[..count]);
    for (g, to) in panel.chunks_exact_mut(width).take(count).enumerate() {
        let Some(to) = to[column..].first_chunk_mut::<C>() else { return };
        for c in 0..C {
            to[c] = rows[c][g].map(W::signed);
        }
    }
}

/// Packs groups of a panel whose rows `rows` are adjacent elements of `w` (k, n). kr of the rows
/// are interleaved.
#[inline(always)]
fn pack_columns<W: Weight, const KR: usize>(
    panel: &mut [[i8; KR]],
    width: usize,
    columns: Range<usize>,
    rows: Range<usize>,
    w: &MatRef<'_, W>,
) {
    let row = |p: usize| -> &[W] { &w.row_slice(p).unwrap_or_default()[columns.clone()] };
    for (first, panel) in rows.clone().step_by(KR).zip(panel.chunks_exact_mut(width)) {
        let panel = &mut panel[..columns.len()];
        if first + KR <= rows.end {
            // This is a loop because a closure for `from_fn` would be called.
            let mut rows: [&[W]; KR] = [&[]; KR];
            for (r, of_row) in rows.iter_mut().enumerate() {
                *of_row = row(first + r);
            }
            interleave(&rows, panel);
        } else {
            for r in 0..rows.end - first {
                for (to, from) in panel.iter_mut().zip(row(first + r)) {
                    to[r] = from.signed();
                }
            }
        }
    }
}

/// Writes groups of one element of each row. Four rows are treated as words of 32 bits, whose
/// shifts are vector code; bytes side by side would not be.
#[inline(always)]
fn interleave<W: Weight, const KR: usize>(rows: &[&[W]; KR], to: &mut [[i8; KR]]) {
    let byte = |r: usize, column: usize| u32::from(rows[r][column].signed().cast_unsigned());
    if KR == 4 && rows.iter().all(|row| row.len() == to.len()) {
        for (column, to) in to.iter_mut().enumerate() {
            let word = byte(0, column) | byte(1, column) << 8 | byte(2, column) << 16 | byte(3, column) << 24;
            to.copy_from_slice(&word.to_le_bytes().map(u8::cast_signed));
        }
    } else {
        for (column, to) in to.iter_mut().enumerate() {
            for (to, row) in to.iter_mut().zip(rows) {
                *to = row[column].signed();
            }
        }
    }
}

/// Packs weights with any strides, element by element.
fn pack_elements<W: Weight>(layout: &PanelLayout, packed: &mut [i8], w: &MatRef<'_, W>) {
    for p in 0..layout.panels() {
        let panel = &mut packed[layout.panel(p)];
        let group_bytes = layout.columns(p) * layout.kr;
        for column in 0..layout.used_columns(p) {
            let groups = panel.chunks_exact_mut(group_bytes);
            let places = groups.flat_map(|group| &mut group[column * layout.kr..][..layout.kr]);
            for (to, from) in places.zip(w.row_elements(p * layout.nr + column)) {
                *to = from.signed();
            }
        }
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

    /// The layouts of all kernels, and of tiles that no kernel has.
    fn layouts(n: usize, k: usize) -> impl Iterator<Item = PanelLayout> {
        let odd = [(1, 1, 1), (5, 5, 3), (6, 3, 2), (10, 2, 8)];
        let odd = odd.map(|(nr, vector_columns, kr)| PanelLayout::with(nr, vector_columns, kr, kr, n, k));
        kernels::all().map(move |desc| PanelLayout::new(desc, n, k)).chain(odd)
    }

    fn packed(layout: &PanelLayout, w: &MatRef<'_, i8>) -> Panels {
        let mut panels = Panels::zeroed(layout.bytes().unwrap(), 0).unwrap();
        pack(layout, w, &mut panels);
        panels
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
