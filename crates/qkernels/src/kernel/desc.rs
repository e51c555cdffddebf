//! A kernel, described as a row of data.

use crate::cpu::detect::Feature;
use crate::cpu::vectorize::Level;
use crate::kernel::float_tile::{Expansion, FloatTile};
use crate::kernel::nibble_tile::NibbleTile;
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::{Strip, TileShape};

/// The form in which a kernel reads the elements of `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationForm {
    /// u8. An i8 row is shifted by 128 on its way in, and `128 * sum of the weights` is subtracted
    /// again in int32.
    U8,
    /// i8. A u8 row is shifted by -128 on its way in, and `-128 * sum of the weights` is subtracted
    /// again in int32.
    I8,
    /// i16, which holds u8 and i8 alike.
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

    /// The shift that is added to codes on their way in, given the shift that makes them u8: 0 or
    /// 128.
    pub(crate) fn shift(self, to_u8: i32) -> i32 {
        match self {
            ActivationForm::U8 => to_u8,
            ActivationForm::I8 => to_u8 - 128,
            ActivationForm::I16 => 0,
        }
    }
}

/// One kernel: its register tile, its requirements and its body. Such rows make up the table in
/// [`crate::kernels`].
#[derive(Debug)]
pub struct KernelDesc {
    /// File stem and tile, for example `avx2_6x16`. Every report, test, bench and override uses
    /// this name.
    pub name: &'static str,
    /// The stem alone. An override may give it too, and gets the first supported row of that
    /// family.
    pub family: &'static str,
    /// Most rows of `a` in a tile.
    pub mr: usize,
    /// Columns of a packed panel of weights, and so of a full tile.
    pub nr: usize,
    /// Columns of one vector. The last panel of a matrix is narrowed to a multiple of it.
    pub vector_columns: usize,
    /// The number of consecutive k whose products one instruction sums, a power of two. Packed
    /// weights are padded with zeros to a multiple of it.
    pub kr: usize,
    /// Groups whose products are summed in 16 bits before they are widened. 0 if all sums are
    /// int32, which are exact for any weights.
    pub narrow_groups: usize,
    /// Kernels with such narrow sums, for panels that are proven not to saturate them, fastest
    /// first. They have the columns and the features of this one.
    pub proven: &'static [&'static KernelDesc],
    /// The kernel for panels whose k have an order of their own, in which it is proven for most of
    /// their words; `None` if there is none. It has the columns and the features of this one.
    /// Panels get an order where that is faster, or all of them if no kernel is `proven`.
    pub ordered: Option<&'static KernelDesc>,
    /// Which panels it is for.
    pub(crate) kind: PanelKind,
    /// The form in which it reads `a`.
    pub form: ActivationForm,
    /// Whether the body, of u8 form, also reads rows of i8 and shifts them in registers
    /// (`Rows::signed`).
    pub signed_rows: bool,
    /// Rows of `a` in a band, a power of two and a divisor of mr. The groups of a band's rows lie
    /// side by side, so one load gets kr elements of each row. In a band of 1, a row lies as it is.
    /// A tile of a single row is that row as it is, whatever the band.
    pub band: usize,
    /// CPU features that the body and `level` are compiled for.
    pub features: &'static [Feature],
    /// The vector level of the element-wise code around the kernel.
    pub(crate) level: Level,
    /// The kernel's body.
    pub(crate) run: unsafe fn(&mut Strip<'_, '_>),
    /// Whether the body applies output stages itself (`Strip::store`).
    pub(crate) stores: bool,
    /// How the body needs the CPU to be set up; `None` for most.
    pub(crate) state: Option<CpuState>,
    /// The body of weight-only products; `None` for the plain one, compiled for `level`.
    pub(crate) float: Option<FloatBody>,
    /// The body of products with a scale for each group of k; `None` for the plain one, compiled
    /// for `level`.
    pub(crate) scaled: Option<ScaledBody>,
    /// The body of products of 4-bit weights; `None` for the plain one, compiled for `level`.
    pub(crate) nibbles: Option<NibbleBody>,
    /// The multiplications of the body without its loads: the most that the CPU could do.
    pub(crate) peak: PeakLoop,
}

impl KernelDesc {
    /// Bytes of a group, which is kr elements of a row of `a`.
    pub(crate) fn group_bytes(&self) -> usize {
        self.kr * self.form.bytes()
    }

    /// How many groups k elements make, the last one padded. It shifts, because tiny products
    /// should not pay for a division.
    pub(crate) fn groups(&self, k: usize) -> usize {
        (k >> self.kr.trailing_zeros()) + usize::from(!self.whole_groups(k))
    }

    /// Whether k elements make whole groups.
    pub(crate) fn whole_groups(&self, k: usize) -> bool {
        k & (self.kr - 1) == 0
    }

    /// How many bands `rows` rows make, the last one perhaps incomplete. It shifts as well.
    pub(crate) fn bands(&self, rows: usize) -> usize {
        (rows >> self.band.trailing_zeros()) + usize::from(rows & (self.band - 1) > 0)
    }

    /// The form in which products with a scale for each group of k read rows.
    pub(crate) fn scaled_form(&self) -> ActivationForm {
        self.scaled.as_ref().map_or(self.form, |body| body.form)
    }

    /// The body of weight-only products on panels with groups of `kr`; `None` for the plain one.
    pub(crate) fn float_body(&self, kr: usize) -> Option<&FloatBody> {
        if kr == self.kr { self.float.as_ref() } else { self.nibbles.as_ref()?.float.as_ref() }
    }

    /// What a strip needs to know to cut its rows into tiles.
    pub(crate) fn tile_shape(&self) -> TileShape {
        TileShape { mr: self.mr, kr: self.kr, band: self.band, group_bytes: self.group_bytes() }
    }

    /// The k of packed weights is padded to a multiple of this, so a panel has whole groups of
    /// whichever kernel runs it.
    pub(crate) fn largest_kr(&self) -> usize {
        self.panel_forms().map(|form| form.kr).fold(self.kr, usize::max)
    }

    /// The kernels that run some panels of weights that are packed for this one.
    pub(crate) fn panel_forms(&self) -> impl Iterator<Item = &'static KernelDesc> {
        self.proven.iter().copied().chain(self.ordered)
    }

    /// The most groups that a kernel which may run a panel sums in 16 bits. Blocks of k are
    /// multiples of it. In each block such sums then begin where the proof assumes that they do.
    pub(crate) fn most_narrow_groups(&self) -> usize {
        self.proven.iter().map(|proven| proven.narrow_groups).fold(1, usize::max)
    }

    /// Rows that lie together in a tile of `rows` rows: a band, or a single row as it is.
    pub(crate) fn rows_together(&self, rows: usize) -> usize {
        if rows == 1 { 1 } else { self.band }
    }

    /// [`rows_together`](Self::rows_together) of the tile that has row `first` of `rows` rows in
    /// one of its bands.
    pub(crate) fn rows_together_from(&self, first: usize, rows: usize) -> usize {
        // This is asked for each row, and a division would delay it.
        if self.band == 1 { 1 } else { self.rows_together(self.mr.min(rows - first / self.mr * self.mr)) }
    }
}

/// The kinds of panels that one product may have. Their kernels read rows in different forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "kernels of x86-64 have all of them")]
pub(crate) enum PanelKind {
    /// Panels of any weights.
    Any,
    /// Panels proven not to saturate narrow sums.
    Proven,
    /// Panels with an order of k, see `panel_order.rs`.
    Ordered,
}

/// A loop of a kernel's multiply instruction on independent registers. Nothing but the instruction
/// itself limits it.
#[derive(Debug)]
pub(crate) struct PeakLoop {
    /// Operations of one iteration. A multiplication and an addition count as two.
    pub(crate) operations: u64,
    /// Runs that many iterations. The result depends on all of them, so none can be left out.
    pub(crate) run: unsafe fn(u64) -> i32,
}

/// How to set up a thread for a kernel that configures the CPU (tiles of AMX), and how to restore
/// it. Each is called once for all strips that a thread runs for one product, not for each strip or
/// tile.
#[derive(Debug)]
pub(crate) struct CpuState {
    /// Called before the first strip.
    pub(crate) set_up: unsafe fn(),
    /// Called after the last strip, also when a strip panics.
    pub(crate) tear_down: unsafe fn(),
}

/// A kernel's own body for products with a scale for each group of k.
#[derive(Debug)]
pub(crate) struct ScaledBody {
    /// The form in which it reads the elements of `a`, of as many bytes as that of the kernel.
    pub(crate) form: ActivationForm,
    /// What it adds to weights: 128 if it multiplies them as u8. Then it needs the sums of rows,
    /// and none of weights where activations have no zero point.
    pub(crate) weight_shift: i32,
    /// Runs a tile of at most mr rows, as [`ScaledTile`] defines it.
    pub(crate) run: unsafe fn(&mut ScaledTile<'_>),
}

/// A kernel's own body for weight-only products.
#[derive(Debug)]
pub(crate) struct FloatBody {
    /// Most rows of a tile.
    pub(crate) rows: usize,
    /// The factor that weights are multiplied by as they become f32, a power of two. Activations
    /// come divided by it.
    pub(crate) unit: f32,
    /// Runs one tile, as [`FloatTile`] defines it.
    pub(crate) run: unsafe fn(&mut FloatTile<'_>),
    /// Runs a tile of few rows on weights of 4 bits as they are packed; `None` if they are expanded
    /// for any number of rows.
    pub(crate) nibbles: Option<FloatNibbles>,
    /// Runs tiles of many rows on weights that were expanded to f32; `None` if `run` is as fast for
    /// any number of rows.
    pub(crate) expanded: Option<FloatExpanded>,
}

impl FloatBody {
    /// The body for a block of so many rows, if weights are expanded to f32 for it. `affine` if
    /// groups have zero points of their own.
    pub(crate) fn expanded_for(&self, rows: usize, affine: bool) -> Option<&FloatExpanded> {
        let from = |body: &FloatExpanded| if affine { body.affine_from_rows } else { body.from_rows };
        self.expanded.as_ref().filter(|body| rows >= from(body))
    }
}

/// The body of weight-only products for few rows and weights of 4 bits as they are packed, with the
/// bits of the body for expanded ones. (They are read once then, and come from memory.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatNibbles {
    /// The most rows of a tile.
    pub(crate) rows: usize,
    /// Runs a tile whose weights are its `lines`.
    pub(crate) run: unsafe fn(&mut FloatTile<'_>),
}

/// The body of weight-only products for many rows, with the bits of the body for few. A panel is
/// expanded to f32 once for all rows of a block, in an order that only this body knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatExpanded {
    /// The rows of a block from which on this is faster.
    pub(crate) from_rows: usize,
    /// The same where groups have zero points of their own, which `run` would subtract in each
    /// tile.
    pub(crate) affine_from_rows: usize,
    /// The most rows of a tile.
    pub(crate) rows: usize,
    /// Floats that a tile needs as a scratch.
    pub(crate) scratch: usize,
    /// Expands a panel.
    pub(crate) expand: unsafe fn(&mut Expansion<'_>),
    /// Runs a tile whose weights are its `floats`.
    pub(crate) run: unsafe fn(&mut FloatTile<'_>),
}

/// A kernel's own body for products of 4-bit weights.
#[derive(Debug)]
pub(crate) struct NibbleBody {
    /// Most rows of a tile.
    pub(crate) rows: usize,
    /// Runs one tile without minimums and parts, as [`NibbleTile`] defines it.
    pub(crate) run: unsafe fn(&mut NibbleTile<'_>),
    /// The body of tiles with minimums or parts; `None` for the plain one. All kernels have the
    /// same panels, so it may be that of another one, with no more features.
    pub(crate) parts: Option<NibbleParts>,
    /// The body of weight-only products on expanded panels, which have groups of four k; `None` for
    /// the plain one.
    pub(crate) float: Option<FloatBody>,
}

/// A kernel's own body for products of 4-bit weights with minimums, or with groups in parts.
#[derive(Debug)]
pub(crate) struct NibbleParts {
    /// Most rows of a tile.
    pub(crate) rows: usize,
    /// Runs one tile, as [`NibbleTile`] defines it.
    pub(crate) run: unsafe fn(&mut NibbleTile<'_>),
}

impl PartialEq for KernelDesc {
    /// Names are unique in the table.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for KernelDesc {}
