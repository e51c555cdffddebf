//! The arguments of a kernel: the rows of a block against packed panels, cut into register tiles.

use crate::kernel::panel_order::Orders;
use crate::output::store::Store;

/// Some rows in the form of a kernel, in bands as [`KernelDesc::band`](crate::KernelDesc::band)
/// describes them. Band i starts at byte `i * stride`. Zeros stand for rows that the last band
/// lacks, unless its row is the only one of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'r> {
    pub(crate) bytes: &'r [u8],
    pub(crate) stride: usize,
    pub(crate) band: usize,
    /// Whether the rows are i8 for a kernel of u8 form, which shifts them in registers.
    #[allow(dead_code, reason = "kernels of x86-64 do that")]
    pub(crate) signed: bool,
}

impl Rows<'_> {
    /// The rows from row `i` on, which is the first of a band.
    pub(crate) fn skip_rows(&self, i: usize) -> Self {
        // This is asked for each tile, and a division would delay it.
        let band = if self.band == 1 { i } else { i / self.band };
        Rows { bytes: &self.bytes[band * self.stride..], ..*self }
    }
}

/// The numbers of a kernel that decide how a strip is cut into tiles, as in
/// [`KernelDesc`](crate::KernelDesc).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileShape {
    pub(crate) mr: usize,
    pub(crate) kr: usize,
    pub(crate) band: usize,
    pub(crate) group_bytes: usize,
}

/// One call of a kernel: the rows of a block against panels that lie one behind the other, tile
/// after tile.
#[derive(Debug)]
pub(crate) struct Strip<'t, 'o> {
    pub(crate) shape: TileShape,
    /// The rows, in the form of the kernel.
    pub(crate) a: Rows<'t>,
    /// Number of rows, at least 1.
    pub(crate) rows: usize,
    /// Rows that have already been cut into tiles for the current panel.
    pub(crate) done: usize,
    /// Tiles so far, over all panels.
    pub(crate) tiles: usize,
    /// Index of the first group of kr consecutive k.
    pub(crate) first_group: usize,
    /// Number of groups of kr consecutive k.
    pub(crate) groups: usize,
    /// Panels that remain, at least 1: the current one and those behind it.
    pub(crate) panels: usize,
    /// Columns of a panel: a multiple of the kernel's vector columns, at most nr. Exactly nr if
    /// there are several panels.
    pub(crate) columns: usize,
    /// The groups of the current panel (for each group, kr weights of each column), and what lies
    /// behind them.
    pub(crate) b: &'t [i8],
    /// Bytes from a panel's groups to those of the next one.
    pub(crate) panel_stride: usize,
    /// The orders of the current panel and those behind it.
    pub(crate) orders: Orders<'t>,
    /// The sums of the tiles, each tile in a slot of its own.
    pub(crate) acc: &'t mut [i32],
    /// Entries from a tile's slot to the next one's; 0 if all tiles use the same slot.
    pub(crate) slot_stride: usize,
    /// The initial values of the sums: an offset for each column that the matrix has from the
    /// current panel on (the last panel may be padded). If `None`, the sums continue from what
    /// `acc` holds.
    pub(crate) offsets: Option<&'t [i32]>,
    /// `sum_k w` of the same columns, over all k.
    pub(crate) channel_sums: &'t [i32],
    /// How to store the sums of the current panel and those behind it, instead of writing them to
    /// `acc`. Only for kernels that say `stores`.
    pub(crate) store: Option<Store<'t, 'o>>,
}

impl<'s, 'o> Strip<'s, 'o> {
    /// Rows of the next tile: mr, or as many as remain; 0 after the last tile.
    #[inline(always)]
    pub(crate) fn next_rows(&mut self) -> usize {
        if self.done == self.rows && self.panels > 1 {
            self.next_panel();
        }
        self.shape.mr.min(self.rows - self.done)
    }

    /// Moves on to the next panel.
    #[inline(never)]
    fn next_panel(&mut self) {
        self.done = 0;
        self.panels -= 1;
        self.b = &self.b[self.panel_stride..];
        self.orders = self.orders.skip(1, self.groups);
        if let Some(offsets) = &mut self.offsets {
            *offsets = &offsets[self.columns..];
        }
        self.channel_sums = &self.channel_sums[self.columns..];
        if let Some(store) = &mut self.store {
            store.skip_columns(self.columns);
        }
    }

    /// The next tile; `None` after the last.
    #[inline(always)]
    pub(crate) fn next_tile(&mut self) -> Option<Tile<'_, 's, 'o>> {
        match self.next_rows() {
            0 => None,
            rows => self.next_tile_of(rows),
        }
    }

    /// The next tile, if it has `rows` rows, at least 1.
    #[inline(always)]
    pub(crate) fn next_tile_of(&mut self, rows: usize) -> Option<Tile<'_, 's, 'o>> {
        if self.next_rows() != rows {
            return None;
        }
        let (first, slot) = (self.done, self.tiles * self.slot_stride);
        self.done += rows;
        self.tiles += 1;
        let group_bytes = self.shape.group_bytes * if rows == 1 { 1 } else { self.shape.band };
        Some(Tile {
            a: self.a.skip_rows(first).bytes.get(group_bytes * self.first_group..).unwrap_or_default(),
            a_stride: self.a.stride,
            first,
            rows,
            b: &self.b[..self.groups * self.columns * self.shape.kr],
            columns: self.columns,
            groups: self.groups,
            orders: self.orders,
            acc: &mut self.acc[slot..][..rows * self.columns],
            offsets: self.offsets,
            channel_sums: self.channel_sums,
            store: self.store.as_mut(),
        })
    }
}

/// One register tile: `acc[i][j] = start(i, j) + sum_k a[i][k] * b[k][j]` in wrapping int32.
#[derive(Debug)]
#[allow(dead_code, reason = "the portable kernel does not need all of it")]
pub(crate) struct Tile<'t, 's, 'o> {
    /// Bands of rows; band i starts at byte `i * a_stride`. For each group of kr consecutive k, a
    /// band holds the group of each of its rows.
    pub(crate) a: &'t [u8],
    /// Bytes between the starts of two bands.
    pub(crate) a_stride: usize,
    /// The index of the tile's first row in the strip.
    pub(crate) first: usize,
    /// Rows of the tile, 1 to mr.
    pub(crate) rows: usize,
    /// The panel's groups: for each group, kr weights of each column.
    pub(crate) b: &'t [i8],
    /// As in [`Strip`]; so are the fields that follow.
    pub(crate) columns: usize,
    pub(crate) groups: usize,
    /// The order of the panel, and of those behind it.
    pub(crate) orders: Orders<'t>,
    /// `rows * columns` sums, row by row.
    pub(crate) acc: &'t mut [i32],
    pub(crate) offsets: Option<&'t [i32]>,
    pub(crate) channel_sums: &'t [i32],
    pub(crate) store: Option<&'t mut Store<'s, 'o>>,
}

impl Tile<'_, '_, '_> {
    /// The initial value of the sum of row `i` and column `j`.
    #[inline(always)]
    pub(crate) fn start(&self, i: usize, j: usize) -> i32 {
        match self.offsets {
            Some(offsets) => offsets.get(j).copied().unwrap_or(0),
            None => self.acc[i * self.columns + j],
        }
    }
}
