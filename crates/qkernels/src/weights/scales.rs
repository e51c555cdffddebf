//! The scales of weights and what else their formats have, as callers give them.

use core::fmt;

/// Why scales and zero points do not fit weights.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScaleError {
    /// The number of an operand's entries differs from the number of groups, or of parts.
    #[error("expected {n} x {groups} {operand}, got {len}")]
    Length {
        /// Which operand.
        operand: &'static str,
        /// Output channels of the weights.
        n: usize,
        /// Groups of a channel, or parts of all its groups.
        groups: usize,
        /// Entries that the operand has.
        len: usize,
    },
    /// The weights were packed with zero points of their own.
    #[error("zero points beside those that the weights were packed with")]
    ZeroPoints,
    /// The length of a group is not a whole number of the steps in which kernels read k.
    #[error("groups of {group_len} along k; their length must be a multiple of {GROUP_STEP}, and not 0")]
    GroupLength {
        /// The length asked for.
        group_len: usize,
    },
    /// A zero point of 4-bit weights is no code of theirs.
    #[error(
        "the zero point of {} is {zero_point}; codes of 4 bits are 0 to 15",
        Place("channel", *channel, *group)
    )]
    ZeroPoint {
        /// The output channel.
        channel: usize,
        /// Its group, if scales are those of groups.
        group: Option<usize>,
        /// The zero point.
        zero_point: i8,
    },
    /// A scale or a minimum is NaN or infinite, or becomes infinite times that of a part.
    #[error("the {operand} of {} is {value}; it must be finite", Place("channel", *channel, *group))]
    NotFinite {
        /// `"scale"` or `"minimum"`, or that `"of a part"`.
        operand: &'static str,
        /// The output channel.
        channel: usize,
        /// Its group, if scales are those of groups.
        group: Option<usize>,
        /// The scale or the minimum, times that of the part.
        value: f32,
    },
    /// Groups cannot be cut into parts this long.
    #[error(
        "parts of {part_len} in groups of {group_len} along k; they must divide a group and be a multiple of {GROUP_STEP}, and not 0"
    )]
    PartLength {
        /// The length of a part asked for.
        part_len: usize,
        /// The length of a group.
        group_len: usize,
    },
    /// There are minimums of parts, but no minimums of groups or no parts that they could belong
    /// to.
    #[error("minimums of parts need minimums of groups, and groups in parts")]
    Parts,
    /// The minimum of a part is negative.
    #[error("the minimum of part {part} of channel {channel} is {minimum}; those of parts are 0 to 127")]
    PartMinimum {
        /// The output channel.
        channel: usize,
        /// Its part.
        part: usize,
        /// The minimum.
        minimum: i8,
    },
    /// An order of inputs has too few or too many of them.
    #[error("expected an order of k = {k} inputs, got {len}")]
    OrderLength {
        /// Depth of the weights.
        k: usize,
        /// Inputs of the order.
        len: usize,
    },
    /// An order of inputs has one that is not there.
    #[error("input {input} at position {position} of the order is none of 0..{k}")]
    NoInput {
        /// Where in the order it is.
        position: usize,
        /// The input.
        input: u32,
        /// Depth of the weights.
        k: usize,
    },
    /// An order of inputs has one twice.
    #[error("input {input} is in the order twice, the second time at position {position}")]
    SameInput {
        /// Where in the order it is the second time.
        position: usize,
        /// The input.
        input: u32,
    },
}

/// A row or a channel, and perhaps a group of it, in messages.
pub(crate) struct Place(pub(crate) &'static str, pub(crate) usize, pub(crate) Option<usize>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place(of, index, group) = self;
        group.map_or(Ok(()), |group| write!(f, "group {group} of "))?;
        write!(f, "{of} {index}")
    }
}

/// The length of a group must be a multiple of this. Then every step of any kernel lies in one
/// group.
pub const GROUP_STEP: usize = 16;

/// The scales of an (n, k) matrix of weights, per output channel or per group of each channel's k,
/// and what else its formats have: zero points, minimums, and scales of parts of groups. The real
/// value of a weight is
///
/// ```text
/// scale * part_scale * (w - zero_point) + minimum * part_minimum
/// ```
///
/// without the factors and terms that are not there.
///
/// ```
/// use qkernels::WeightScales;
/// let scales = WeightScales::per_group(&[0.5, 0.25, 1.0, 2.0], 32).with_zero_points(&[0, -3, 7, 1]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WeightScales<'a> {
    pub(super) scales: &'a [f32],
    pub(super) zero_points: Option<&'a [i8]>,
    pub(super) group_len: Option<usize>,
    pub(super) minimums: Option<&'a [f32]>,
    pub(super) parts: Option<(usize, &'a [i8])>,
    pub(super) part_minimums: Option<&'a [i8]>,
}

impl<'a> WeightScales<'a> {
    /// One scale for each of the n channels.
    pub fn per_channel(scales: &'a [f32]) -> Self {
        Self::new(scales, None)
    }

    /// `ceil(k / group_len)` scales for each of the n channels, row-major. The last group is as
    /// short as the rest of k.
    pub fn per_group(scales: &'a [f32], group_len: usize) -> Self {
        Self::new(scales, Some(group_len))
    }

    /// The code that stands for 0 in each group. There are as many as scales.
    #[must_use]
    pub fn with_zero_points(self, zero_points: &'a [i8]) -> Self {
        Self { zero_points: Some(zero_points), ..self }
    }

    /// The real value that is added to each scaled code of a group (ggml's Q4_1 has such minimums).
    /// There are as many as scales.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedNibbles, ScaledWeights, WeightScales};
    /// let w = PackedNibbles::from_nk(MatRef::new(&[0u8, 6, 15], 1, 3)?, Kernel::select()?)?;
    /// let w = ScaledWeights::of_nibbles(w, WeightScales::per_channel(&[0.5]).with_minimums(&[-3.0]))?;
    /// assert_eq!(w.dequantize(), [-3.0, 0.0, 4.5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_minimums(self, minimums: &'a [f32]) -> Self {
        Self { minimums: Some(minimums), ..self }
    }

    /// Cuts groups into parts of `part_len` consecutive k, each with an integer that its group's
    /// scale is multiplied by (ggml's Q4_K, Q5_K and Q6_K do). There are `ceil(k / part_len)` for
    /// each of the n channels, row-major; the last part is as short as the rest of k. The length of
    /// a part is a multiple of [`GROUP_STEP`] and divides that of a group, unless there is a single
    /// group, which is as long as need be.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
    /// let w = PackedWeights::from_nk(MatRef::new(&[1i8; 32], 1, 32)?, Kernel::select()?)?;
    /// let w = ScaledWeights::new(w, WeightScales::per_group(&[0.5], 32).with_parts(16, &[3, -1]))?;
    /// assert_eq!((w.dequantize()[0], w.dequantize()[16]), (1.5, -0.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_parts(self, part_len: usize, part_scales: &'a [i8]) -> Self {
        Self { parts: Some((part_len, part_scales)), ..self }
    }

    /// The integers, 0 to 127, that the minimum of each part's group is multiplied by. There are as
    /// many as scales of parts. Without them, all are 1.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
    /// let w = PackedWeights::from_nk(MatRef::new(&[1i8; 32], 1, 32)?, Kernel::select()?)?;
    /// let scales = WeightScales::per_group(&[0.5], 32).with_parts(16, &[3, -1]);
    /// let w = ScaledWeights::new(w, scales.with_minimums(&[-1.0]).with_part_minimums(&[0, 2]))?;
    /// assert_eq!((w.dequantize()[0], w.dequantize()[16]), (1.5, -2.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_part_minimums(self, part_minimums: &'a [i8]) -> Self {
        Self { part_minimums: Some(part_minimums), ..self }
    }

    fn new(scales: &'a [f32], group_len: Option<usize>) -> Self {
        Self { scales, zero_points: None, group_len, minimums: None, parts: None, part_minimums: None }
    }
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
