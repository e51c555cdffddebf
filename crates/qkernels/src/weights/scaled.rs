//! Packed weights with their scales: what a weight-only product multiplies by.

use qcore::{AccumulatorError, check_accumulator, first_non_finite};

use crate::output::channels::Largest;
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

/// i8 weights whose real values are `scale * (w - zero_point)`, packed for one kernel: immutable,
/// `Send + Sync`.
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
    weights: PackedWeights,
    group_len: usize,
    groups: usize,
    /// For each panel and each group, the scales of nr columns, as kernels read them.
    scales: Vec<f32>,
    /// As `scales`; empty if there are none.
    zero_points: Vec<i8>,
    /// The largest magnitude of a scale.
    largest_scale: f32,
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
        let (n, k) = (weights.n(), weights.k());
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
        // These are codes of the packed weights, and so in the range of i8.
        let of_channel = |&zero_point: &i32| core::iter::repeat_n(zero_point as i8, groups);
        let packed: Vec<i8> = weights.zero_points().iter().flat_map(of_channel).collect();
        let zero_points = match zero_points {
            Some(_) if !packed.is_empty() => return Err(ScaleError::ZeroPoints),
            Some(zero_points) => {
                check("zero points", zero_points.len())?;
                zero_points
            }
            None => &packed,
        };
        if let Some((at, value)) = first_non_finite(scales) {
            return Err(ScaleError::NotFinite { channel: at / groups, group: at % groups, value });
        }
        let nr = weights.kernel().desc().nr;
        let largest_scale = weights.kernel().vectorize(Largest(scales));
        let scales = panels(scales, n, groups, nr);
        let zero_points =
            if zero_points.is_empty() { Vec::new() } else { panels(zero_points, n, groups, nr) };
        // One body multiplies floats, whatever is proven about products of integers.
        Ok(Self { weights: weights.without_proofs(), group_len, groups, scales, zero_points, largest_scale })
    }

    /// The codes.
    pub fn weights(&self) -> &PackedWeights {
        &self.weights
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
        let (k, scales, zero_points) = (self.weights.k(), self.scales(), self.zero_points());
        let value = |(at, code): (usize, i8)| {
            let group = at / k * self.groups + at % k / self.group_len;
            let zero_point = zero_points.as_ref().map_or(0, |zero_points| i32::from(zero_points[group]));
            (i32::from(code) - zero_point) as f32 * scales[group]
        };
        self.weights.unpack().into_iter().enumerate().map(value).collect()
    }

    /// Bytes held: weights, scales and zero points, with their padding.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * self.scales.len() + self.zero_points.len()
    }

    /// The largest magnitude of a scale.
    pub(crate) fn largest_scale(&self) -> f32 {
        self.largest_scale
    }

    /// Whether a group has a zero point other than 0.
    pub(crate) fn has_zero_points(&self) -> bool {
        !self.zero_points.is_empty()
    }

    /// Checks that the int32 sums of every group hold activations of a distance of up to
    /// `largest_input` from their zero point.
    pub(crate) fn check_accumulators(&self, largest_input: u32) -> Result<(), AccumulatorError> {
        // No weight is farther from its zero point than this.
        const LARGEST: u64 = 255;
        let k = self.weights.k() as u64;
        let bound = LARGEST.saturating_mul(k.min(self.group_len as u64));
        if check_accumulator(0, largest_input, bound, 0).is_ok() {
            return Ok(());
        }
        // Groups this long are rare. Their sums are no larger than those of whole channels, whose
        // magnitudes are those about the zero points that the weights were packed with.
        let about_packed = self.zero_points.is_empty() || !self.weights.zero_points().is_empty();
        for (channel, &sum) in self.weights.channel_abs_sums().iter().enumerate() {
            let sum = if about_packed { sum.into() } else { bound };
            check_accumulator(channel, largest_input, sum, 0)?;
        }
        Ok(())
    }

    /// The real value of a weight, which f64 holds exactly.
    pub(crate) fn value(&self, channel: usize, k: usize) -> f64 {
        let nr = self.weights.kernel().desc().nr;
        let at = k / self.group_len * nr + channel % nr;
        let (scales, zero_points) = self.panel(channel / nr);
        let code = i32::from(self.weights.weight(channel, k));
        let zero_point = zero_points.get(at).copied().map_or(0, i32::from);
        f64::from(code - zero_point) * f64::from(scales[at])
    }

    /// Scales and zero points of panel `p`: nr of each for every group. There may be no zero
    /// points.
    pub(crate) fn panel(&self, p: usize) -> (&[f32], &[i8]) {
        let entries = self.groups * self.weights.kernel().desc().nr;
        let range = p * entries..(p + 1) * entries;
        (&self.scales[range.clone()], self.zero_points.get(range).unwrap_or_default())
    }

    /// The n * groups entries that `packed` was made from.
    fn unpacked<T: Copy>(&self, packed: &[T]) -> Vec<T> {
        let nr = self.weights.kernel().desc().nr;
        let entry = |at: usize| {
            let (channel, group) = (at / self.groups, at % self.groups);
            packed[(channel / nr * self.groups + group) * nr + channel % nr]
        };
        (0..self.weights.n() * self.groups).map(entry).collect()
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
