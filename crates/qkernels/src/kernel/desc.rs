//! A kernel as a row of data.

use crate::cpu::detect::Feature;
use crate::cpu::vectorize::Level;
use crate::kernel::float_tile::FloatTile;
use crate::kernel::strip::{Strip, TileShape};

/// How a kernel wants the elements of `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationForm {
    /// u8. An i8 row is shifted by 128 on its way in, and `128 * sum of the weights` taken off
    /// again in int32.
    U8,
    /// i8. A u8 row is shifted by -128 on its way in, and `-128 * sum of the weights` taken off
    /// again in int32.
    I8,
    /// i16, holding u8 and i8 alike.
    I16,
}

impl ActivationForm {
    /// Bytes per element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            ActivationForm::U8 | ActivationForm::I8 => 1,
            ActivationForm::I16 => 2,
        }
    }

    /// What is added to codes on their way in, given what makes them u8: 0 or 128.
    pub(crate) fn shift(self, to_u8: i32) -> i32 {
        match self {
            ActivationForm::U8 => to_u8,
            ActivationForm::I8 => to_u8 - 128,
            ActivationForm::I16 => 0,
        }
    }
}

/// One kernel: its register tile, what it needs, and its body. Rows of this make up the table in
/// [`crate::kernels`].
#[derive(Debug)]
pub struct KernelDesc {
    /// File stem and tile, for example `avx2_6x16`: the name in every report, test, bench and
    /// override.
    pub name: &'static str,
    /// The stem alone, which an override may also give: the first supported row of that family.
    pub family: &'static str,
    /// Most rows of `a` in a tile.
    pub mr: usize,
    /// Columns of a packed panel of weights, and so of a full tile.
    pub nr: usize,
    /// Columns of one vector: the last panel of a matrix is narrowed to a multiple of it.
    pub vector_columns: usize,
    /// Consecutive k whose products one instruction sums, a power of two; packed weights are padded
    /// to a multiple of it with zeros.
    pub kr: usize,
    /// Groups whose products are summed in 16 bits before they are widened; 0 where all sums are
    /// int32, which are exact for any weights.
    pub narrow_groups: usize,
    /// Kernels with such narrow sums for panels that are proven not to saturate them, fastest
    /// first. They have this one's columns, and its features.
    pub proven: &'static [&'static KernelDesc],
    /// The form of `a`.
    pub form: ActivationForm,
    /// Whether the body, of u8 form, also reads rows of i8 and shifts in registers
    /// (`Rows::signed`).
    pub signed_rows: bool,
    /// Rows of `a` in a band, a power of two and a divisor of mr. The groups of a band's rows lie
    /// side by side, so that one load gets kr elements of each; in a band of 1, a row lies as it
    /// is. A tile of a single row is that row as it is, whatever the band.
    pub band: usize,
    /// CPU features that the body and `level` are compiled for.
    pub features: &'static [Feature],
    /// The vector level of the element-wise code around the kernel.
    pub(crate) level: Level,
    /// The body.
    pub(crate) run: unsafe fn(&mut Strip<'_, '_>),
    /// Whether the body applies output stages itself (`Strip::store`).
    pub(crate) stores: bool,
    /// What the body needs the CPU to be set to; `None` for most.
    pub(crate) state: Option<CpuState>,
    /// The body of weight-only products; `None` for the plain one, compiled for `level`.
    pub(crate) float: Option<FloatBody>,
    /// The body's products without its loads: what the CPU could do at most.
    pub(crate) peak: PeakLoop,
}

impl KernelDesc {
    /// Bytes of a group: kr elements of a row of `a`.
    pub(crate) fn group_bytes(&self) -> usize {
        self.kr * self.form.bytes()
    }

    /// Groups of k elements, the last one padded. A shift: tiny products should not pay for a
    /// division.
    pub(crate) fn groups(&self, k: usize) -> usize {
        (k >> self.kr.trailing_zeros()) + usize::from(!self.whole_groups(k))
    }

    /// Whether k elements are whole groups.
    pub(crate) fn whole_groups(&self, k: usize) -> bool {
        k & (self.kr - 1) == 0
    }

    /// Bands of `rows` rows, the last one perhaps incomplete. A shift as well.
    pub(crate) fn bands(&self, rows: usize) -> usize {
        (rows >> self.band.trailing_zeros()) + usize::from(rows & (self.band - 1) > 0)
    }

    /// Which row form this kernel reads.
    pub(crate) fn kind(&self) -> PanelKind {
        if self.narrow_groups > 0 { PanelKind::Proven } else { PanelKind::Any }
    }

    /// What a strip needs to know to cut its rows into tiles.
    pub(crate) fn tile_shape(&self) -> TileShape {
        TileShape { mr: self.mr, kr: self.kr, band: self.band, group_bytes: self.group_bytes() }
    }

    /// What k of packed weights is padded to a multiple of: a panel is whole groups of whichever
    /// kernel runs it.
    pub(crate) fn largest_kr(&self) -> usize {
        self.proven.iter().map(|proven| proven.kr).fold(self.kr, usize::max)
    }

    /// The most groups that a kernel which may run a panel sums in 16 bits: blocks of k are
    /// multiples of them, so that such sums begin in each block where the proof has them begin.
    pub(crate) fn most_narrow_groups(&self) -> usize {
        self.proven.iter().map(|proven| proven.narrow_groups).fold(1, usize::max)
    }

    /// Rows that lie together in a tile of `rows` rows: a band, or a single row as it is.
    pub(crate) fn rows_together(&self, rows: usize) -> usize {
        if rows == 1 { 1 } else { self.band }
    }

    /// [`rows_together`](Self::rows_together) of the tile with row `first` of `rows` rows in its
    /// first band or a later one.
    pub(crate) fn rows_together_from(&self, first: usize, rows: usize) -> usize {
        // Asked for each row, which a division would delay.
        if self.band == 1 { 1 } else { self.rows_together(self.mr.min(rows - first / self.mr * self.mr)) }
    }
}

/// The two kinds of panels that one product may have, whose kernels read rows in different forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PanelKind {
    /// Panels of any weights.
    Any,
    /// Panels proven not to saturate narrow sums.
    Proven,
}

/// A loop of a kernel's multiply instruction on independent registers, which nothing but the
/// instruction itself limits.
#[derive(Debug)]
pub(crate) struct PeakLoop {
    /// Operations (a multiplication and an addition are two) of one iteration.
    pub(crate) operations: u64,
    /// Runs that many iterations. The result depends on all of them, so that none can be left out.
    pub(crate) run: unsafe fn(u64) -> i32,
}

/// How a thread is made ready for a kernel that configures the CPU (tiles of AMX), and restored.
/// Both are called once for the strips that a thread runs for one product, not for each strip or
/// tile.
#[derive(Debug)]
pub(crate) struct CpuState {
    /// Called before the first strip.
    pub(crate) set_up: unsafe fn(),
    /// Called after the last one, also when a strip panics.
    pub(crate) tear_down: unsafe fn(),
}

/// A kernel's own body of weight-only products.
#[derive(Debug)]
pub(crate) struct FloatBody {
    /// Most rows of a tile.
    pub(crate) rows: usize,
    /// What weights are multiplied by where they become f32, a power of two: activations come
    /// divided by it.
    pub(crate) unit: f32,
    /// Does what [`FloatTile`] says.
    pub(crate) run: unsafe fn(&mut FloatTile<'_>),
}

impl PartialEq for KernelDesc {
    /// Names are unique in the table.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for KernelDesc {}
