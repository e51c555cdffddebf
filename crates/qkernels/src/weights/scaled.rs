//! Packed weights with their scales: what weight-only products and products in groups multiply by.

use qcore::{AccumulatorError, check_accumulator, first_non_finite};

use crate::kernel::nibble_tile::{LARGEST_NIBBLE, NIBBLE_COLUMNS};
use crate::kernel::token::Kernel;
use crate::output::channels::Largest;
use crate::weights::nibbles::{PackedNibbles, QUAD};
use crate::weights::packed::PackedWeights;

/// Why scales and zero points do not fit weights.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScaleError {
    /// The number of an operand's entries differs from the number of groups.
    #[error("expected {n} x {groups} {operand}, got {len}")]
    Length {
        /// Which operand.
        operand: &'static str,
        /// Output channels of the weights.
        n: usize,
        /// Groups of a channel.
        groups: usize,
        /// Entries that the operand has.
        len: usize,
    },
    /// The weights were packed with zero points of their own.
    #[error("zero points beside those that the weights were packed with")]
    ZeroPoints,
    /// The length of a group is not a whole number of the steps in which kernels read k.
    #[error("groups of {group_len} along k; their length must be a multiple of {GROUP_STEP}")]
    GroupLength {
        /// The length asked for.
        group_len: usize,
    },
    /// A zero point of 4-bit weights is no code of theirs.
    #[error(
        "the zero point of group {group} of channel {channel} is {zero_point}; codes of 4 bits are 0 to 15"
    )]
    ZeroPoint {
        /// The output channel.
        channel: usize,
        /// Its group.
        group: usize,
        /// The zero point.
        zero_point: i8,
    },
    /// A scale is NaN or infinite.
    #[error("the scale of group {group} of channel {channel} is {value}; it must be finite")]
    NotFinite {
        /// The output channel.
        channel: usize,
        /// Its group.
        group: usize,
        /// The scale.
        value: f32,
    },
}

/// The length of a group must be a multiple of this. Then every step of any kernel lies in one
/// group.
pub const GROUP_STEP: usize = 16;

/// The scales of an (n, k) matrix of weights, per output channel or per group of each channel's k,
/// and their zero points if they have any.
///
/// ```
/// use qkernels::WeightScales;
/// let scales = WeightScales::per_group(&[0.5, 0.25, 1.0, 2.0], 32).with_zero_points(&[0, -3, 7, 1]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WeightScales<'a> {
    scales: &'a [f32],
    zero_points: Option<&'a [i8]>,
    group_len: Option<usize>,
}

impl<'a> WeightScales<'a> {
    /// One scale for each of the n channels.
    pub fn per_channel(scales: &'a [f32]) -> Self {
        Self { scales, zero_points: None, group_len: None }
    }

    /// `ceil(k / group_len)` scales for each of the n channels, row-major. The last group is as
    /// short as the rest of k.
    pub fn per_group(scales: &'a [f32], group_len: usize) -> Self {
        Self { scales, zero_points: None, group_len: Some(group_len) }
    }

    /// The code that stands for 0 in each group. There are as many as scales.
    #[must_use]
    pub fn with_zero_points(self, zero_points: &'a [i8]) -> Self {
        Self { zero_points: Some(zero_points), ..self }
    }
}

/// Weights of 8 or 4 bits whose real values are `scale * (w - zero_point)`, packed for one kernel:
/// immutable, `Send + Sync`.
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
    group_len: usize,
    groups: usize,
    /// For each panel and each group, the scales of nr columns, as kernels read them.
    scales: Vec<f32>,
    /// As `scales`; empty if there are none.
    zero_points: Vec<i8>,
    /// The zero point that all groups have, if they do; 0 without zero points.
    common_zero_point: Option<i8>,
    /// The largest magnitude of a scale.
    largest_scale: f32,
    /// As `scales`: the sums of the groups less their zero points; empty if they are not kept.
    pub(super) sums: Vec<i32>,
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
    /// For each group the scales of a whole panel's columns.
    pub(crate) scales: &'p [f32],
    /// As `scales`; empty if all are 0.
    pub(crate) zero_points: &'p [i8],
}

impl ScaledWeights {
    /// Combines weights with their scales. Zero points per channel are those of the scales, or
    /// those that the weights were packed with.
    ///
    /// # Errors
    /// [`ScaleError`] if weights and scales both have zero points, if there are too few or too many
    /// of either, if a scale is not finite, or if groups are shorter than k and their length is 0
    /// or not a multiple of [`GROUP_STEP`].
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
    /// [`ScaleError`] if there are too few or too many scales or zero points, if a scale is not
    /// finite or a zero point no code, or if groups are shorter than k and their length is 0 or not
    /// a multiple of [`GROUP_STEP`].
    pub fn of_nibbles(weights: PackedNibbles, scales: WeightScales<'_>) -> Result<Self, ScaleError> {
        let weights = Self::combine(Codes::Nibbles(weights), scales, &[])?;
        let zero_points = scales.zero_points.unwrap_or_default();
        let no_code = |&zero_point: &i8| !(0..=LARGEST_NIBBLE.cast_signed()).contains(&zero_point);
        match zero_points.iter().position(no_code) {
            None => Ok(weights),
            Some(at) => Err(ScaleError::ZeroPoint {
                channel: at / weights.groups,
                group: at % weights.groups,
                zero_point: zero_points[at],
            }),
        }
    }

    /// `of_channels` are zero points of whole channels, or none.
    fn combine(codes: Codes, scales: WeightScales<'_>, of_channels: &[i8]) -> Result<Self, ScaleError> {
        let (n, k) = codes.shape();
        let WeightScales { scales, zero_points, group_len } = scales;
        let per_channel = group_len.is_none();
        let group_len = group_len.unwrap_or(k.max(1));
        if group_len == 0 || (group_len < k && !group_len.is_multiple_of(GROUP_STEP)) {
            return Err(ScaleError::GroupLength { group_len });
        }
        let groups = if per_channel { 1 } else { k.div_ceil(group_len) };
        let check = |operand, len| match n.checked_mul(groups) {
            Some(expected) if expected == len => Ok(()),
            _ => Err(ScaleError::Length { operand, n, groups, len }),
        };
        check("scales", scales.len())?;
        let of_groups: Vec<i8>;
        let zero_points = match zero_points {
            Some(zero_points) => {
                check("zero points", zero_points.len())?;
                zero_points
            }
            None => {
                let of_channel = |&zero_point: &i8| core::iter::repeat_n(zero_point, groups);
                of_groups = of_channels.iter().flat_map(of_channel).collect();
                &of_groups
            }
        };
        if let Some((at, value)) = first_non_finite(scales) {
            return Err(ScaleError::NotFinite { channel: at / groups, group: at % groups, value });
        }
        let nr = codes.panel_columns();
        let first = zero_points.first().copied().unwrap_or(0);
        let common_zero_point = zero_points.iter().all(|&of| of == first).then_some(first);
        let largest_scale = codes.kernel().vectorize(Largest(scales));
        let scales = panels(scales, n, groups, nr);
        let zero_points =
            if zero_points.is_empty() { Vec::new() } else { panels(zero_points, n, groups, nr) };
        let sums = Vec::new();
        Ok(Self { codes, group_len, groups, scales, zero_points, common_zero_point, largest_scale, sums })
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

    /// The codes (n, k), row-major: i8 (u8 weights less 128), or 0 to 15.
    pub fn unpack(&self) -> Vec<i8> {
        match &self.codes {
            Codes::Bytes(weights) => weights.unpack(),
            Codes::Nibbles(weights) => weights.unpack().into_iter().map(u8::cast_signed).collect(),
        }
    }

    /// Consecutive k of a channel that share a scale.
    pub fn group_len(&self) -> usize {
        self.group_len
    }

    /// Groups of each channel.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The scales (n, groups), row-major, as they were given.
    pub fn scales(&self) -> Vec<f32> {
        self.unpacked(&self.scales)
    }

    /// The zero points (n, groups) of the packed codes, as they were given (or 128 less for u8
    /// weights).
    pub fn zero_points(&self) -> Option<Vec<i8>> {
        (!self.zero_points.is_empty()).then(|| self.unpacked(&self.zero_points))
    }

    /// The real values (n, k): [`qcore::QParams::dequantize`] of each weight.
    pub fn dequantize(&self) -> Vec<f32> {
        let (k, scales, zero_points) = (self.k(), self.scales(), self.zero_points());
        let value = |(at, code): (usize, i8)| {
            let group = at / k * self.groups + at % k / self.group_len;
            let zero_point = zero_points.as_ref().map_or(0, |zero_points| i32::from(zero_points[group]));
            (i32::from(code) - zero_point) as f32 * scales[group]
        };
        self.unpack().into_iter().enumerate().map(value).collect()
    }

    /// Bytes held: weights, scales, zero points and sums, with their padding.
    pub fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::Bytes(weights) => weights.bytes(),
            Codes::Nibbles(weights) => weights.bytes(),
        };
        codes + 4 * (self.scales.len() + self.sums.len()) + self.zero_points.len()
    }

    /// No weight is farther from its zero point than this.
    pub(crate) fn largest_weight(&self) -> u64 {
        match self.codes {
            Codes::Bytes(_) => 255,
            Codes::Nibbles(_) => LARGEST_NIBBLE.into(),
        }
    }

    /// The largest magnitude of a scale.
    pub(crate) fn largest_scale(&self) -> f32 {
        self.largest_scale
    }

    /// The zero point that all groups have, if they do.
    pub(crate) fn common_zero_point(&self) -> Option<i8> {
        self.common_zero_point
    }

    /// Whether a group has a zero point other than 0.
    pub(crate) fn has_zero_points(&self) -> bool {
        !self.zero_points.is_empty()
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
        let bound = self.largest_weight().saturating_mul((self.k() as u64).min(self.group_len as u64));
        if check_accumulator(0, largest_input, bound, 0).is_ok() {
            return Ok(());
        }
        // Groups this long are rare. Their sums are no larger than those of whole channels, whose
        // magnitudes are those about the zero points that the weights were packed with.
        let Codes::Bytes(weights) = &self.codes else {
            return check_accumulator(0, largest_input, bound, 0);
        };
        let about_packed = self.zero_points.is_empty() || !weights.zero_points().is_empty();
        for (channel, &sum) in weights.channel_abs_sums().iter().enumerate() {
            let sum = if about_packed { sum.into() } else { bound };
            check_accumulator(channel, largest_input, sum, 0)?;
        }
        Ok(())
    }

    /// The real value of a weight, which f64 holds exactly.
    pub(crate) fn value(&self, channel: usize, k: usize) -> f64 {
        let nr = self.panel_columns();
        let at = k / self.group_len * nr + channel % nr;
        let (scales, zero_points) = self.entries(channel / nr);
        let code: i32 = match &self.codes {
            Codes::Bytes(weights) => weights.weight(channel, k).into(),
            Codes::Nibbles(weights) => weights.code(channel, k).into(),
        };
        let zero_point = zero_points.get(at).copied().map_or(0, i32::from);
        f64::from(code - zero_point) * f64::from(scales[at])
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
        let (scales, mut zero_points) = self.entries(p);
        let desc = self.kernel().desc();
        let codes = match &self.codes {
            Codes::Bytes(weights) => weights.panel(p, 0..desc.groups(self.k()) * desc.kr),
            Codes::Nibbles(weights) => {
                // One that all groups have is taken off on the way.
                if self.common_zero_point.is_some() {
                    zero_points = &[];
                }
                weights.expand(p, self.common_zero_point.unwrap_or(0), buffer);
                &buffer[..self.k().next_multiple_of(QUAD) * NIBBLE_COLUMNS]
            }
        };
        ScaledPanel { codes, columns: self.columns(p).0, scales, zero_points }
    }

    /// Scales and zero points of panel `p`: those of a whole panel's columns for every group. There
    /// may be no zero points.
    pub(crate) fn entries(&self, p: usize) -> (&[f32], &[i8]) {
        let entries = self.groups * self.panel_columns();
        let range = p * entries..(p + 1) * entries;
        (&self.scales[range.clone()], self.zero_points.get(range).unwrap_or_default())
    }

    /// The n * groups entries that `packed` was made from.
    fn unpacked<T: Copy>(&self, packed: &[T]) -> Vec<T> {
        let nr = self.panel_columns();
        let entry = |at: usize| {
            let (channel, group) = (at / self.groups, at % self.groups);
            packed[(channel / nr * self.groups + group) * nr + channel % nr]
        };
        (0..self.n() * self.groups).map(entry).collect()
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

/// The entries (n, groups), panel by panel of nr channels, and group by group within a panel.
/// Channels that do not exist have zeros.
fn panels<T: Copy + Default>(entries: &[T], n: usize, groups: usize, nr: usize) -> Vec<T> {
    if entries.is_empty() {
        // There are no channels, or any number of them without a group.
        return Vec::new();
    }
    let mut packed = vec![T::default(); n.next_multiple_of(nr) * groups];
    for (channel, entries) in entries.chunks(groups).enumerate() {
        let panel = &mut packed[channel / nr * nr * groups..][..nr * groups];
        for (panel, entry) in panel.chunks_exact_mut(nr).zip(entries) {
            panel[channel % nr] = *entry;
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    #[test]
    fn a_group_is_whole_steps_of_every_kernel() {
        for desc in kernels::all() {
            assert_eq!(GROUP_STEP % desc.kr, 0, "{}", desc.name);
        }
    }
}
