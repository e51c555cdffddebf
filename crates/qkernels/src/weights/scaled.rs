//! Packed weights with their scales: what weight-only products and products in groups multiply by.

use qcore::{AccumulatorError, check_accumulator};

use crate::kernel::nibble_tile::{LARGEST_NIBBLE, NIBBLE_COLUMNS};
use crate::kernel::token::Kernel;
use crate::weights::entries::{Entries, PanelEntries};
use crate::weights::nibbles::{PackedNibbles, QUAD};
use crate::weights::packed::PackedWeights;
use crate::weights::scales::{ScaleError, WeightScales};

/// Weights of 8 or 4 bits whose real values are `scale * (w - zero_point)`, or what else
/// [`WeightScales`] says, packed for one kernel: immutable, `Send + Sync`.
///
/// ```
/// use qkernels::{Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
/// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3, 4, 5, -6], 2, 3)?, Kernel::select()?)?;
/// let w = ScaledWeights::new(w, WeightScales::per_channel(&[0.5, 0.25]).with_zero_points(&[0, 1]))?;
/// assert_eq!(w.dequantize(), [0.5, -1.0, 1.5, 0.75, 1.0, -1.75]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScaledWeights {
    codes: Codes,
    entries: Entries,
    /// For each panel and each group, the sums of nr columns less their zero points, each part's
    /// times its scale; empty if they are not kept.
    pub(super) sums: Vec<i32>,
    /// The input of each column; empty if each column has its own.
    pub(super) input_order: Box<[u32]>,
}

#[derive(Clone, Debug)]
enum Codes {
    Bytes(PackedWeights),
    Nibbles(PackedNibbles),
}

/// A panel of weights with their scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaledPanel<'p> {
    /// The codes of the panel.
    pub(crate) codes: &'p [i8],
    /// Columns of the panel, with its padding.
    pub(crate) columns: usize,
    /// Without the zero points that the codes have no more.
    pub(crate) entries: PanelEntries<'p>,
}

impl ScaledWeights {
    /// Combines weights with their scales. Zero points per channel are those of the scales, or
    /// those that the weights were packed with. (An order of k serves no product of these, so
    /// weights may be packed with [`PackEffort::Fast`](crate::PackEffort).)
    ///
    /// # Errors
    /// [`ScaleError`] if weights and scales both have zero points, if there are too few or too many
    /// entries of any kind, if a scale or a minimum is not finite, alone or times that of a part,
    /// if groups are shorter than k and their length is not a multiple of
    /// [`GROUP_STEP`](crate::GROUP_STEP), if their length is 0, or if parts do not fit groups.
    pub fn new(weights: PackedWeights, scales: WeightScales<'_>) -> Result<Self, ScaleError> {
        // These are codes of the packed weights, and so in the range of i8.
        let packed: Vec<i8> = weights.zero_points().iter().map(|&zero_point| zero_point as i8).collect();
        if !packed.is_empty() && scales.zero_points.is_some() {
            return Err(ScaleError::ZeroPoints);
        }
        // One body multiplies floats, whatever is proven about products of integers.
        Self::combine(Codes::Bytes(weights.without_proofs()), scales, &packed)
    }

    /// Combines 4-bit weights with their scales. Zero points are codes, 0 to 15; signed codes of -8
    /// to 7 have 8.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedNibbles, ScaledWeights, WeightScales};
    /// let w = PackedNibbles::from_nk(MatRef::new(&[9u8, 6, 15, 8, 0, 7], 2, 3)?, Kernel::select()?)?;
    /// let w = ScaledWeights::of_nibbles(w, WeightScales::per_channel(&[0.5, 0.25]).with_zero_points(&[8, 8]))?;
    /// assert_eq!(w.dequantize(), [0.5, -1.0, 3.5, 0.0, -2.0, -0.25]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new), and if a zero point is no code.
    pub fn of_nibbles(weights: PackedNibbles, scales: WeightScales<'_>) -> Result<Self, ScaleError> {
        let weights = Self::combine(Codes::Nibbles(weights), scales, &[])?;
        let zero_points = scales.zero_points.unwrap_or_default();
        let no_code = |&zero_point: &i8| !(0..=LARGEST_NIBBLE.cast_signed()).contains(&zero_point);
        match zero_points.iter().position(no_code) {
            None => Ok(weights),
            Some(at) => Err(ScaleError::ZeroPoint {
                channel: at / weights.groups(),
                group: scales.group_len.map(|_| at % weights.groups()),
                zero_point: zero_points[at],
            }),
        }
    }

    /// `of_channels` are zero points of whole channels, or none.
    fn combine(codes: Codes, scales: WeightScales<'_>, of_channels: &[i8]) -> Result<Self, ScaleError> {
        let for_panels = (codes.kernel(), codes.panel_columns());
        let nibbles = matches!(codes, Codes::Nibbles(_));
        let entries = Entries::new(codes.shape(), for_panels, scales, of_channels, nibbles)?;
        Ok(Self { codes, entries, sums: Vec::new(), input_order: Box::default() })
    }

    /// Output channels: columns of the product.
    pub fn n(&self) -> usize {
        self.codes.shape().0
    }

    /// Depth: products summed for each output.
    pub fn k(&self) -> usize {
        self.codes.shape().1
    }

    /// The kernel that these weights are packed for.
    pub fn kernel(&self) -> Kernel {
        self.codes.kernel()
    }

    /// Bits of a code: 8 or 4.
    pub fn bits(&self) -> u32 {
        match self.codes {
            Codes::Bytes(_) => 8,
            Codes::Nibbles(_) => 4,
        }
    }

    /// The codes (n, k), row-major: i8 (u8 weights less 128), or 0 to 15. They are in the order in
    /// which they were packed, and so are scales, zero points, minimums and parts
    /// ([`with_input_order`](Self::with_input_order)).
    pub fn unpack(&self) -> Vec<i8> {
        match &self.codes {
            Codes::Bytes(weights) => weights.unpack(),
            Codes::Nibbles(weights) => weights.unpack().into_iter().map(u8::cast_signed).collect(),
        }
    }

    /// Consecutive k of a channel that share a scale.
    pub fn group_len(&self) -> usize {
        self.entries.group_len
    }

    /// Groups of each channel.
    pub fn groups(&self) -> usize {
        self.entries.groups
    }

    /// The scales (n, groups), row-major, as they were given.
    pub fn scales(&self) -> Vec<f32> {
        self.entries.scales()
    }

    /// The zero points (n, groups) of the packed codes, as they were given (or 128 less for u8
    /// weights).
    pub fn zero_points(&self) -> Option<Vec<i8>> {
        self.entries.zero_points()
    }

    /// The minimums (n, groups), as they were given.
    pub fn minimums(&self) -> Option<Vec<f32>> {
        self.entries.minimums()
    }

    /// Consecutive k of a part, if groups have parts.
    pub fn part_len(&self) -> Option<usize> {
        self.entries.has_parts().then_some(self.entries.part_len)
    }

    /// The scales of parts (n, parts), row-major, as they were given.
    pub fn part_scales(&self) -> Option<Vec<i8>> {
        self.entries.part_scales()
    }

    /// The minimums of parts (n, parts), as they were given.
    pub fn part_minimums(&self) -> Option<Vec<i8>> {
        self.entries.part_minimums()
    }

    /// The real values (n, k), in f32: [`qcore::QParams::dequantize`] of each weight. Where there
    /// are parts, scale and minimum are multiplied by those of the part first; the minimum is added
    /// last. Columns are in the order of the inputs.
    pub fn dequantize(&self) -> Vec<f32> {
        let (k, groups, parts) = (self.k(), self.groups(), self.entries.parts);
        let (scales, zero_points, minimums) = (self.scales(), self.zero_points(), self.minimums());
        let (part_scales, part_minimums) = (self.part_scales(), self.part_minimums());
        let value = |(at, code): (usize, i8)| {
            let (channel, k) = (at / k, at % k);
            let group = channel * groups + k / self.group_len();
            let part = channel * parts + k / self.entries.part_len;
            let zero_point = zero_points.as_ref().map_or(0, |zero_points| i32::from(zero_points[group]));
            let of_part = |of_parts: &Option<Vec<i8>>, value: f32| match of_parts {
                Some(of_parts) => value * f32::from(of_parts[part]),
                None => value,
            };
            let value = (i32::from(code) - zero_point) as f32 * of_part(&part_scales, scales[group]);
            match &minimums {
                Some(minimums) => value + of_part(&part_minimums, minimums[group]),
                None => value,
            }
        };
        self.by_input(self.unpack().into_iter().enumerate().map(value).collect())
    }

    /// Bytes held: weights, scales, zero points, minimums and sums, with their padding, and the
    /// order of inputs.
    pub fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::Bytes(weights) => weights.bytes(),
            Codes::Nibbles(weights) => weights.bytes(),
        };
        codes + self.entries.bytes() + 4 * (self.sums.len() + self.input_order.len())
    }

    /// No weight is farther from its zero point than this.
    pub(crate) fn largest_weight(&self) -> u64 {
        match self.codes {
            Codes::Bytes(_) => 255,
            Codes::Nibbles(_) => LARGEST_NIBBLE.into(),
        }
    }

    /// Scales and what else groups have.
    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Whether groups have minimums or parts.
    pub(crate) fn has_minimums_or_parts(&self) -> bool {
        self.entries.has_minimums() || self.entries.has_parts()
    }

    /// Checks that the int32 sums of every group hold activations of a distance of up to
    /// `largest_input` from their zero point, whatever they are. Then no product with such
    /// activations fails because of its sums.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedNibbles, ScaledWeights, WeightScales};
    /// let w = PackedNibbles::from_nk(MatRef::new(&[15u8, 0], 1, 2)?, Kernel::select()?)?;
    /// let w = ScaledWeights::of_nibbles(w, WeightScales::per_channel(&[0.5]))?;
    /// assert!(w.check_accumulators(255).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AccumulatorError`] with the first channel whose sums might not fit.
    pub fn check_accumulators(&self, largest_input: u32) -> Result<(), AccumulatorError> {
        let depth = (self.k() as u64).min(self.group_len() as u64);
        let largest = &self.entries.largest;
        if self.entries.has_minimums() {
            // The sums of activations, which the minimums of parts multiply.
            check_accumulator(0, largest_input, depth.saturating_mul(largest.part_minimum.into()), 0)?;
        }
        let of_parts = u64::from(largest.part_scale);
        let bound = self.largest_weight().saturating_mul(depth).saturating_mul(of_parts);
        if check_accumulator(0, largest_input, bound, 0).is_ok() {
            return Ok(());
        }
        // Groups this long are rare. Their sums are no larger than those of whole channels, whose
        // magnitudes are those about the zero points that the weights were packed with.
        let Codes::Bytes(weights) = &self.codes else {
            return check_accumulator(0, largest_input, bound, 0);
        };
        let about_packed = !self.entries.has_zero_points() || !weights.zero_points().is_empty();
        for (channel, &sum) in weights.channel_abs_sums().iter().enumerate() {
            let sum = if about_packed { u64::from(sum).saturating_mul(of_parts) } else { bound };
            check_accumulator(channel, largest_input, sum, 0)?;
        }
        Ok(())
    }

    /// The real value of a weight, which f64 holds exactly but for the rounding of a sum. `k` is a
    /// column as it was packed.
    pub(crate) fn value(&self, channel: usize, k: usize) -> f64 {
        let nr = self.panel_columns();
        let of = |index: usize| index * nr + channel % nr;
        let (group, part) = (of(k / self.group_len()), of(k / self.entries.part_len));
        let entries = self.entries.panel(channel / nr);
        let code: i32 = match &self.codes {
            Codes::Bytes(weights) => weights.weight(channel, k).into(),
            Codes::Nibbles(weights) => weights.code(channel, k).into(),
        };
        let zero_point = entries.zero_points.get(group).copied().or(self.entries.common_zero_point);
        let part_scale = entries.part_scales.get(part).copied().map_or(1.0, f64::from);
        let part_minimum = entries.part_minimums.get(part).copied().map_or(1.0, f64::from);
        let (scale, minimum) = (f64::from(entries.scales.at(group)), f64::from(entries.minimums.at(group)));
        f64::from(code - zero_point.map_or(0, i32::from)) * part_scale * scale + part_minimum * minimum
    }

    /// The codes of 8 bits, or those of 4.
    pub(crate) fn codes(&self) -> Result<&PackedWeights, &PackedNibbles> {
        match &self.codes {
            Codes::Bytes(weights) => Ok(weights),
            Codes::Nibbles(weights) => Err(weights),
        }
    }

    /// Columns of a whole panel.
    pub(crate) fn panel_columns(&self) -> usize {
        self.codes.panel_columns()
    }

    /// Columns of panel `p`, with its padding and without.
    pub(crate) fn columns(&self, p: usize) -> (usize, usize) {
        match &self.codes {
            Codes::Bytes(weights) => (weights.layout().columns(p), weights.layout().used_columns(p)),
            Codes::Nibbles(_) => (NIBBLE_COLUMNS, NIBBLE_COLUMNS.min(self.n() - p * NIBBLE_COLUMNS)),
        }
    }

    /// Consecutive k that lie side by side in [`panel`](Self::panel).
    pub(crate) fn kr(&self) -> usize {
        match self.codes {
            Codes::Bytes(_) => self.kernel().desc().kr,
            Codes::Nibbles(_) => QUAD,
        }
    }

    /// Panel `p` as bytes, in groups of [`kr`](Self::kr). Codes of 4 bits are expanded into
    /// `buffer`.
    pub(crate) fn panel<'p>(&'p self, p: usize, buffer: &'p mut Vec<i8>) -> ScaledPanel<'p> {
        let (entries, common) = (self.entries.panel(p), self.entries.common_zero_point);
        let desc = self.kernel().desc();
        let codes = match &self.codes {
            Codes::Bytes(weights) => weights.panel(p, 0..desc.groups(self.k()) * desc.kr),
            Codes::Nibbles(weights) => {
                // One that all groups have is taken off on the way.
                weights.expand(p, common.unwrap_or(0), buffer);
                &buffer[..self.k().next_multiple_of(QUAD) * NIBBLE_COLUMNS]
            }
        };
        ScaledPanel { codes, columns: self.columns(p).0, entries }
    }
}

impl Codes {
    /// (n, k).
    fn shape(&self) -> (usize, usize) {
        match self {
            Codes::Bytes(weights) => (weights.n(), weights.k()),
            Codes::Nibbles(weights) => (weights.n(), weights.k()),
        }
    }

    fn kernel(&self) -> Kernel {
        match self {
            Codes::Bytes(weights) => weights.kernel(),
            Codes::Nibbles(weights) => weights.kernel(),
        }
    }

    /// Columns of a whole panel.
    fn panel_columns(&self) -> usize {
        match self {
            Codes::Bytes(weights) => weights.kernel().desc().nr,
            Codes::Nibbles(_) => NIBBLE_COLUMNS,
        }
    }
}
