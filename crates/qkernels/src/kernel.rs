//! A kernel as a row of data, the token that proves that the CPU can run it, and the one place that calls it.

use core::fmt;

use crate::detect::{Feature, Features};
use crate::finish::Store;
use crate::float_tile::{FloatTile, Plain};
use crate::kernels;
use crate::rows::Rows;
use crate::vectorize::{Level, Task};

/// How a kernel wants the elements of `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationForm {
    /// u8. An i8 row is shifted by 128 on its way in, and `128 * sum of the weights` taken off again in int32.
    U8,
    /// i8. A u8 row is shifted by -128 on its way in, and `-128 * sum of the weights` taken off again in int32.
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

/// One kernel: its register tile, what it needs, and its body. Rows of this make up the table in [`crate::kernels`].
#[derive(Debug)]
pub struct KernelDesc {
    /// File stem and tile, for example `avx2_6x16`: the name in every report, test, bench and override.
    pub name: &'static str,
    /// The stem alone, which an override may also give: the first supported row of that family.
    pub family: &'static str,
    /// Most rows of `a` in a tile.
    pub mr: usize,
    /// Columns of a packed panel of weights, and so of a full tile.
    pub nr: usize,
    /// Columns of one vector: the last panel of a matrix is narrowed to a multiple of it.
    pub vector_columns: usize,
    /// Consecutive k whose products one instruction sums, a power of two; packed weights are padded to a multiple of it with
    /// zeros.
    pub kr: usize,
    /// Groups whose products are summed in 16 bits before they are widened; 0 where all sums are int32, which are exact for
    /// any weights.
    pub narrow_groups: usize,
    /// Kernels with such narrow sums for panels that are proven not to saturate them, fastest first. They have this one's
    /// columns, and its features.
    pub proven: &'static [&'static KernelDesc],
    /// The form of `a`.
    pub form: ActivationForm,
    /// Whether the body, of u8 form, also reads rows of i8 and shifts in registers (`Rows::signed`).
    pub signed_rows: bool,
    /// Rows of `a` in a band, a power of two and a divisor of mr. The groups of a band's rows lie side by side, so that one load gets kr
    /// elements of each; in a band of 1, a row lies as it is. A tile of a single row is that row as it is, whatever the band.
    pub band: usize,
    /// CPU features that the body and `level` are compiled for.
    pub features: &'static [Feature],
    /// The vector level of the element-wise code around the kernel.
    pub(crate) level: Level,
    /// The body.
    pub(crate) run: unsafe fn(&mut Strip<'_, '_>),
    /// Whether the body applies output stages itself (`Strip::store`).
    pub(crate) stores: bool,
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

    /// Groups of k elements, the last one padded. A shift: tiny products should not pay for a division.
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

    /// Which of the two forms of rows that one product may need the kernel reads: 0 for that of any panels, 1 for that of
    /// proven ones.
    pub(crate) fn kind(&self) -> usize {
        usize::from(self.narrow_groups > 0)
    }

    /// An error unless the kernel's sums are exact for any weights, so that they may be packed for it.
    pub(crate) fn check_any_weights(&self) -> Result<(), KernelError> {
        if self.narrow_groups == 0 {
            return Ok(());
        }
        let base = kernels::all().find(|base| base.proven.contains(&self));
        Err(KernelError::ProvenPanelsOnly {
            name: self.name,
            base: base.map_or("no kernel", |base| base.name),
        })
    }

    /// What k of packed weights is padded to a multiple of: a panel is whole groups of whichever kernel runs it.
    pub(crate) fn largest_kr(&self) -> usize {
        self.proven.iter().map(|proven| proven.kr).fold(self.kr, usize::max)
    }

    /// The most groups that a kernel which may run a panel sums in 16 bits: blocks of k are multiples of them, so that such
    /// sums begin in each block where the proof has them begin.
    pub(crate) fn most_narrow_groups(&self) -> usize {
        self.proven.iter().map(|proven| proven.narrow_groups).fold(1, usize::max)
    }

    /// Rows that lie together in a tile of `rows` rows: a band, or a single row as it is.
    pub(crate) fn rows_together(&self, rows: usize) -> usize {
        if rows == 1 { 1 } else { self.band }
    }

    /// [`rows_together`](Self::rows_together) of the tile with row `first` of `rows` rows in its first band or a later one.
    pub(crate) fn rows_together_from(&self, first: usize, rows: usize) -> usize {
        // Asked for each row, which a division would delay.
        if self.band == 1 { 1 } else { self.rows_together(self.mr.min(rows - first / self.mr * self.mr)) }
    }
}

/// A loop of a kernel's multiply instruction on independent registers, which nothing but the instruction itself limits.
#[derive(Debug)]
pub(crate) struct PeakLoop {
    /// Operations (a multiplication and an addition are two) of one iteration.
    pub(crate) operations: u64,
    /// Runs that many iterations. The result depends on all of them, so that none can be left out.
    pub(crate) run: unsafe fn(u64) -> i32,
}

/// A kernel's own body of weight-only products.
#[derive(Debug)]
pub(crate) struct FloatBody {
    /// Most rows of a tile.
    pub(crate) rows: usize,
    /// What weights are multiplied by where they become f32, a power of two: activations come divided by it.
    pub(crate) unit: f32,
    /// Does what [`FloatTile`] says.
    pub(crate) run: unsafe fn(&mut FloatTile<'_>),
}

/// One call of a kernel: the rows of a block against panels that lie one behind the other, tile after tile.
#[derive(Debug)]
pub(crate) struct Strip<'t, 'o> {
    pub(crate) desc: &'static KernelDesc,
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
    /// Columns of a panel, a multiple of the kernel's vector columns and at most nr; nr if there are several panels.
    pub(crate) columns: usize,
    /// The groups of the panel at hand (for each, for each column, kr weights) and what lies behind them.
    pub(crate) b: &'t [i8],
    /// Bytes from a panel's groups to those of the next one.
    pub(crate) panel_stride: usize,
    /// Sums of the tiles, each in a slot of its own.
    pub(crate) acc: &'t mut [i32],
    /// Entries from a tile's slot to the next one's; 0 where all use the same.
    pub(crate) slot_stride: usize,
    /// What the sums begin with: an offset for each column from the panel at hand on that the matrix has (the last panel may
    /// be padded), or `None` for what `acc` holds.
    pub(crate) offsets: Option<&'t [i32]>,
    /// `sum_k w` of the same columns, of all k.
    pub(crate) channel_sums: &'t [i32],
    /// What to do with the sums of the panels from the one at hand on instead of writing them to `acc`; only for kernels that
    /// say `stores`.
    pub(crate) store: Option<Store<'t, 'o>>,
}

impl<'s, 'o> Strip<'s, 'o> {
    /// Rows of the next tile: mr, or what is left of them; 0 after the last tile.
    #[inline(always)]
    pub(crate) fn next_rows(&mut self) -> usize {
        if self.done == self.rows && self.panels > 1 {
            self.next_panel();
        }
        self.desc.mr.min(self.rows - self.done)
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
        let group_bytes = self.desc.rows_together(rows) * self.desc.group_bytes();
        Some(Tile {
            a: self.a.skip_rows(first).bytes.get(group_bytes * self.first_group..).unwrap_or_default(),
            a_stride: self.a.stride,
            first,
            rows,
            b: &self.b[..self.groups * self.columns * self.desc.kr],
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
#[cfg_attr(
    not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))),
    expect(dead_code, reason = "the portable kernel does not need all of it")
)]
pub(crate) struct Tile<'t, 's, 'o> {
    /// Bands of rows: the i-th starts at byte `i * a_stride`. For each group of kr consecutive k, the group of each of its rows.
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
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only a kernel of x86-64 shifts weights")
    )]
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

/// Why there is no [`Kernel`] for a row of the table, or nothing can be packed for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// This CPU lacks a feature that the kernel needs.
    #[error("kernel {name} needs {missing}, which this CPU lacks")]
    Unsupported {
        /// The kernel.
        name: &'static str,
        /// The first feature that the CPU lacks.
        missing: Feature,
    },
    /// The kernel sums in 16 bits, which saturate for most weights. It runs panels that packing proves not to get there, and
    /// comes along with the kernel that runs all others.
    #[error("kernel {name} is for panels of proven weights alone, which packing for {base} finds")]
    ProvenPanelsOnly {
        /// The kernel.
        name: &'static str,
        /// The kernel that brings it along: weights are packed for that.
        base: &'static str,
    },
}

/// A kernel that this CPU can run. Holding one is the proof: it is only made where every feature was detected.
///
/// ```
/// let kernel = qkernels::Kernel::select()?;
/// println!("{kernel}: {} x {} tile", kernel.desc().mr, kernel.desc().nr);
/// # Ok::<(), qkernels::SelectError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel(&'static KernelDesc);

impl Kernel {
    /// The token for `desc`, a row of the [table](crate::kernels::all).
    ///
    /// ```
    /// use qkernels::{Kernel, KernelError, kernels};
    /// for desc in kernels::all() {
    ///     match Kernel::new(desc) {
    ///         Ok(kernel) => println!("{kernel}"),
    ///         Err(error) => println!("{error}"), // kernel avx_vnni_6x16 needs avxvnni, which this CPU lacks
    ///     }
    ///     for proven in desc.proven {
    ///         assert!(matches!(Kernel::new(proven), Err(KernelError::ProvenPanelsOnly { .. })));
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`KernelError`] with the missing feature, or where `desc` is one of the [`proven`](KernelDesc::proven) of another.
    pub fn new(desc: &'static KernelDesc) -> Result<Self, KernelError> {
        desc.check_any_weights()?;
        Self::supported(desc).map_err(|missing| KernelError::Unsupported { name: desc.name, missing })
    }

    /// The token for `desc`, whatever weights it is for, or the first feature that this CPU lacks.
    pub(crate) fn supported(desc: &'static KernelDesc) -> Result<Self, Feature> {
        match Features::of_this_cpu().first_missing(desc.features) {
            Some(missing) => Err(missing),
            None => Ok(Self(desc)),
        }
    }

    /// Every kernel that this CPU can run, in order of preference.
    pub fn available() -> impl Iterator<Item = Kernel> {
        kernels::all().filter_map(|desc| Kernel::new(desc).ok())
    }

    /// The kernels that may run a panel in place of this one, fastest first.
    pub(crate) fn proven(self) -> impl Iterator<Item = Kernel> {
        self.0.proven.iter().filter_map(|&desc| Kernel::supported(desc).ok())
    }

    /// The kernel's row of the table.
    pub fn desc(self) -> &'static KernelDesc {
        self.0
    }

    /// File stem and tile, for example `avx2_6x16`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Runs the body on a strip.
    pub(crate) fn run(self, strip: &mut Strip<'_, '_>) {
        // SAFETY: `run` is a safe function but for its target features, which its row lists in `features`, and `self`
        // exists only because `Kernel::supported` found all of them.
        unsafe { (self.0.run)(strip) }
    }

    /// Runs the body of weight-only products on one tile.
    pub(crate) fn run_float(self, tile: &mut FloatTile<'_>) {
        match &self.0.float {
            // SAFETY: as for `run`.
            Some(body) => unsafe { (body.run)(tile) },
            None => self.vectorize(Plain(tile)),
        }
    }

    /// Runs `iterations` of the kernel's multiply instruction on independent registers, and returns the number of
    /// operations done (2 for a product and its addition). Timed, it gives the peak of this CPU for this kernel, which
    /// benches state beside every figure.
    pub fn run_peak_loop(self, iterations: u64) -> u64 {
        // SAFETY: as for `run`.
        let sum = unsafe { (self.0.peak.run)(iterations) };
        core::hint::black_box(sum);
        iterations * self.0.peak.operations
    }

    /// Runs element-wise code compiled for this kernel's vector level.
    pub(crate) fn vectorize<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the level's features are part of `features` (a test checks it), and `self` exists only because
        // `Kernel::supported` found all of them.
        unsafe { self.0.level.run(task) }
    }
}

impl PartialEq for KernelDesc {
    /// Names are unique in the table.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for KernelDesc {}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernel").field(&self.0.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_family_and_the_tile() {
        for desc in kernels::all() {
            assert_eq!(desc.name, format!("{}_{}x{}", desc.family, desc.mr, desc.nr));
        }
    }

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = kernels::all().map(|desc| desc.name).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name} twice");
        }
    }

    #[test]
    fn the_vector_level_is_part_of_the_features() {
        for desc in kernels::all() {
            for feature in desc.level.features() {
                assert!(desc.features.contains(feature), "{} lacks {feature}", desc.name);
            }
        }
    }

    #[test]
    fn proven_kernels_stand_in_for_the_one_that_names_them() {
        for desc in kernels::all() {
            assert_eq!(desc.narrow_groups, 0, "{} is for any weights", desc.name);
            for proven in desc.proven {
                assert!(proven.proven.is_empty() && proven.narrow_groups > 0, "{}", proven.name);
                assert_eq!(proven.name, format!("{}_{}x{}", proven.family, proven.mr, proven.nr));
                // Their panels have the same columns, their tiles the same slots, and one copy of rows serves them all.
                let shape = |desc: &KernelDesc| (desc.mr, desc.nr, desc.vector_columns);
                assert_eq!(shape(proven), shape(desc), "{}", proven.name);
                let rows = |desc: &KernelDesc| (desc.kr, desc.form, desc.band);
                assert_eq!(rows(proven), rows(desc.proven[0]), "{}", proven.name);
                // Whoever has `desc` has them.
                assert_eq!((proven.features, proven.level), (desc.features, desc.level), "{}", proven.name);
                // A block of k is whole sums of each, a panel whole groups.
                assert_eq!(desc.most_narrow_groups() % proven.narrow_groups, 0, "{}", proven.name);
                assert_eq!(desc.largest_kr() % desc.kr, 0, "{}", desc.name);
            }
        }
    }

    #[test]
    fn tiles_are_made_of_whole_vectors_and_bands() {
        for desc in kernels::all() {
            assert_eq!(desc.nr % desc.vector_columns, 0, "{}", desc.name);
            assert_eq!(desc.mr % desc.band, 0, "{}", desc.name);
        }
    }

    #[test]
    fn groups_and_bands_are_counted_up() {
        for desc in kernels::all() {
            assert!(desc.kr.is_power_of_two() && desc.band.is_power_of_two(), "{}", desc.name);
            for len in 0..=65 {
                assert_eq!(desc.groups(len), len.div_ceil(desc.kr), "{} {len}", desc.name);
                assert_eq!(desc.whole_groups(len), len % desc.kr == 0, "{} {len}", desc.name);
                assert_eq!(desc.bands(len), len.div_ceil(desc.band), "{} {len}", desc.name);
            }
        }
    }

    #[test]
    fn no_group_of_a_band_lies_across_two_lines_of_a_cache() {
        for desc in kernels::all() {
            assert_eq!(64 % (desc.band * desc.group_bytes()), 0, "{}", desc.name);
        }
    }
}
