//! What a kernel is called with: the rows of a block against packed panels, cut into register
//! tiles.

use crate::output::store::Store;

/// Some rows in the form of a kernel, in bands as [`KernelDesc::band`](crate::KernelDesc::band) has
/// them: band i starts at byte `i * stride`. In place of rows that the last band lacks there are
/// zeros, unless its row is the only one of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'r> {
    pub(crate) bytes: &'r [u8],
    pub(crate) stride: usize,
    pub(crate) band: usize,
    /// Whether they are i8 for a kernel of u8 form, which shifts them in registers.
    #[allow(dead_code, reason = "kernels of x86-64 do that")]
    pub(crate) signed: bool,
}

impl Rows<'_> {
    /// The rows from row `i`, the first of a band, on.
    pub(crate) fn skip_rows(&self, i: usize) -> Self {
        // Asked for each tile, which a division would delay.
        let band = if self.band == 1 { i } else { i / self.band };
        Rows { bytes: &self.bytes[band * self.stride..], ..*self }
    }
}

/// The numbers of a kernel that cut a strip into tiles, as [`KernelDesc`](crate::KernelDesc) has
/// them.
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
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// Rows that tiles of the panel at hand have been made of.
    pub(crate) done: usize,
    /// Tiles so far, of all panels.
    pub(crate) tiles: usize,
    /// The first of the groups of kr consecutive k.
    pub(crate) first_group: usize,
    /// Groups of kr consecutive k.
    pub(crate) groups: usize,
    /// Panels that are not done, at least 1: the one at hand and those behind it.
    pub(crate) panels: usize,
    /// Columns of a panel, a multiple of the kernel's vector columns and at most nr; nr if there
    /// are several panels.
    pub(crate) columns: usize,
    /// The groups of the panel at hand (for each, for each column, kr weights) and what lies behind
    /// them.
    pub(crate) b: &'t [i8],
    /// Bytes from a panel's groups to those of the next one.
    pub(crate) panel_stride: usize,
    /// Sums of the tiles, each in a slot of its own.
    pub(crate) acc: &'t mut [i32],
    /// Entries from a tile's slot to the next one's; 0 where all use the same.
    pub(crate) slot_stride: usize,
    /// What the sums begin with: an offset for each column from the panel at hand on that the
    /// matrix has (the last panel may be padded), or `None` for what `acc` holds.
    pub(crate) offsets: Option<&'t [i32]>,
    /// `sum_k w` of the same columns, of all k.
    pub(crate) channel_sums: &'t [i32],
    /// What to do with the sums of the panels from the one at hand on instead of writing them to
    /// `acc`; only for kernels that say `stores`.
    pub(crate) store: Option<Store<'t, 'o>>,
}

impl<'s, 'o> Strip<'s, 'o> {
    /// Rows of the next tile: mr, or what is left of them; 0 after the last tile.
    #[inline(always)]
    pub(crate) fn next_rows(&mut self) -> usize {
        if self.done == self.rows && self.panels > 1 {
            self.next_panel();
        }
        self.shape.mr.min(self.rows - self.done)
    }

    /// Begins with the panel behind the one at hand.
    #[inline(never)]
    fn next_panel(&mut self) {
        self.done = 0;
        self.panels -= 1;
        self.b = &self.b[self.panel_stride..];
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
    /// Bands of rows: the i-th starts at byte `i * a_stride`. For each group of kr consecutive k,
    /// the group of each of its rows.
    pub(crate) a: &'t [u8],
    /// Bytes between the starts of two bands.
    pub(crate) a_stride: usize,
    /// The tile's first row in the strip.
    pub(crate) first: usize,
    /// Rows of the tile, 1 to mr.
    pub(crate) rows: usize,
    /// The panel's groups: for each, for each column, kr weights.
    pub(crate) b: &'t [i8],
    /// As in [`Strip`], as are the fields that follow.
    pub(crate) columns: usize,
    pub(crate) groups: usize,
    /// `rows * columns` sums, row by row.
    pub(crate) acc: &'t mut [i32],
    pub(crate) offsets: Option<&'t [i32]>,
    pub(crate) channel_sums: &'t [i32],
    pub(crate) store: Option<&'t mut Store<'s, 'o>>,
}

impl Tile<'_, '_, '_> {
    /// What the sum of row `i` and column `j` begins with.
    #[inline(always)]
    pub(crate) fn start(&self, i: usize, j: usize) -> i32 {
        match self.offsets {
            Some(offsets) => offsets.get(j).copied().unwrap_or(0),
            None => self.acc[i * self.columns + j],
        }
    }
}
