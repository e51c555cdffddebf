//! Output stages: from the int32 sums of a tile to what the caller stores, while the tile is still in the L1 cache.
//!
//! Each stage is a formula of qcore applied to `acc[i][j] + bias[j]`, in the same order of float operations as the scalar
//! function, so fused and unfused results are equal bit for bit.

use core::ops::Range;

use qcore::Code;

use crate::view::MatMut;

/// Why an output stage cannot be applied to a product.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// A per-channel operand has the wrong number of entries.
    #[error("expected n = {n} entries in the stage's {operand}, got {len}")]
    Length {
        /// Which operand.
        operand: &'static str,
        /// Output channels of the weights.
        n: usize,
        /// Entries that the operand has.
        len: usize,
    },
    /// A scale or multiplier is NaN or infinite.
    #[error("the stage's {operand} is {value} at channel {channel}; it must be finite")]
    NotFinite {
        /// Which operand.
        operand: &'static str,
        /// Index of the first such value (0 for a value per tensor).
        channel: usize,
        /// The value.
        value: f32,
    },
    /// The bounds of a clamp are out of order.
    #[error("clamp from {low} to {high} is empty")]
    EmptyClamp {
        /// Lower bound.
        low: i32,
        /// Upper bound.
        high: i32,
    },
}

/// A factor for each output channel, or one for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales<'a> {
    /// One factor.
    PerTensor(f32),
    /// A factor for each of the n channels.
    PerChannel(&'a [f32]),
}

impl Scales<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Scales::PerTensor(scale) => core::slice::from_ref(scale),
            Scales::PerChannel(scales) => scales,
        }
    }

    fn check_finite(&self, operand: &'static str) -> Result<(), StageError> {
        check_finite(operand, self.values())
    }
}

fn check_finite(operand: &'static str, values: &[f32]) -> Result<(), StageError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(channel) => Err(StageError::NotFinite { operand, channel, value: values[channel] }),
    }
}

fn check_len(operand: &'static str, n: usize, len: usize) -> Result<(), StageError> {
    if len == n { Ok(()) } else { Err(StageError::Length { operand, n, len }) }
}

/// What becomes of the int32 sums. Implemented by [`Int32`], [`Dequantize`] and [`Requantize`].
pub trait OutputStage: Sync + sealed::Stage {}

impl<S: sealed::Stage + Sync> OutputStage for S {}

/// Element type that a stage stores.
pub type Output<S> = <S as sealed::Stage>::Out;

pub(crate) mod sealed {
    use super::{Channels, Scales};

    pub trait Stage {
        type Out: Copy + Send;

        /// The int32 bias, which the driver adds to the sums together with the terms of the zero point.
        fn bias(&self) -> Option<&[i32]>;

        /// Scale or multiplier of each channel.
        fn factor(&self) -> Scales<'_>;

        /// The f32 bias of each channel.
        fn float_bias(&self) -> Option<&[f32]>;

        /// What is stored for the complete sums of `L` neighbouring channels of one row.
        fn apply<const L: usize>(&self, sums: &[i32; L], channels: &Channels<L>) -> [Self::Out; L];
    }
}

/// Whether every per-channel operand of `stage` has `n` entries.
pub(crate) fn check<S: OutputStage>(stage: &S, n: usize) -> Result<(), StageError> {
    if let Some(bias) = stage.bias() {
        check_len("bias", n, bias.len())?;
    }
    if let Some(bias) = stage.float_bias() {
        check_len("float bias", n, bias.len())?;
    }
    match stage.factor() {
        Scales::PerTensor(_) => Ok(()),
        Scales::PerChannel(factors) => check_len("scales", n, factors.len()),
    }
}

/// The per-channel operands of `L` neighbouring channels, in registers while a tile's rows pass by.
#[derive(Clone, Copy, Debug)]
pub struct Channels<const L: usize> {
    offset: [i32; L],
    factor: [f32; L],
    float_bias: [f32; L],
}

/// The finished sums of a tile: row i at `i * stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums<'t> {
    pub(crate) acc: &'t [i32],
    pub(crate) stride: usize,
}

/// Where a tile belongs: its first row and column of the output, and its output channels.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) channels: Range<usize>,
}

/// Stores a tile: channel j becomes `stage(acc[j] + offsets[j])`, the sum wrapping (its bound was checked).
///
/// Channels go through the stage in chunks of fixed length, so that each step becomes whole vectors, also in the last
/// columns of a matrix.
#[inline(always)]
pub(crate) fn store_tile<S: OutputStage>(
    stage: &S,
    sums: Sums<'_>,
    offsets: &[i32],
    place: &Place,
    out: &mut MatMut<'_, Output<S>>,
) {
    let columns = place.channels.len();
    let mut j = 0;
    while j + 16 <= columns {
        store_columns::<16, S>(stage, sums, offsets, place, j, out);
        j += 16;
    }
    if j + 8 <= columns {
        store_columns::<8, S>(stage, sums, offsets, place, j, out);
        j += 8;
    }
    if j + 4 <= columns {
        store_columns::<4, S>(stage, sums, offsets, place, j, out);
        j += 4;
    }
    while j < columns {
        store_columns::<1, S>(stage, sums, offsets, place, j, out);
        j += 1;
    }
}

/// Columns `j..j + L` of the tile.
#[inline(always)]
fn store_columns<const L: usize, S: OutputStage>(
    stage: &S,
    sums: Sums<'_>,
    offsets: &[i32],
    place: &Place,
    j: usize,
    out: &mut MatMut<'_, Output<S>>,
) {
    let channel = place.channels.start + j;
    let channels = Channels {
        offset: entries(offsets, channel),
        factor: match stage.factor() {
            Scales::PerTensor(factor) => [factor; L],
            Scales::PerChannel(factors) => entries(factors, channel),
        },
        float_bias: stage.float_bias().map_or([0.0; L], |bias| entries(bias, channel)),
    };
    for (i, acc) in sums.acc.chunks_exact(sums.stride).enumerate() {
        let out =
            out.row_mut(place.row + i).and_then(|row| row.get_mut(place.column + j..)?.first_chunk_mut());
        if let (Some(acc), Some(out)) = (acc.get(j..).and_then(<[i32]>::first_chunk::<L>), out) {
            let sums = core::array::from_fn(|j| acc[j].wrapping_add(channels.offset[j]));
            *out = stage.apply(&sums, &channels);
        }
    }
}

/// Entries `first..first + L` of a per-channel operand.
#[inline(always)]
fn entries<T: Copy + Default, const L: usize>(values: &[T], first: usize) -> [T; L] {
    // Operands have an entry for each channel (`check`), so the default is never used.
    values.get(first..).and_then(|values| values.first_chunk()).copied().unwrap_or([T::default(); L])
}

/// The sums themselves: `y = acc + bias`, int32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Int32<'a> {
    bias: Option<&'a [i32]>,
}

impl<'a> Int32<'a> {
    /// `y = acc`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an int32 bias, one entry for each channel.
    #[must_use]
    pub fn with_bias(self, bias: &'a [i32]) -> Self {
        Self { bias: Some(bias) }
    }
}

impl sealed::Stage for Int32<'_> {
    type Out = i32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor(&self) -> Scales<'_> {
        Scales::PerTensor(1.0)
    }

    fn float_bias(&self) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn apply<const L: usize>(&self, sums: &[i32; L], _: &Channels<L>) -> [i32; L] {
        *sums
    }
}

/// Real values: `y = f32(acc + bias) * scale + float_bias`, then ReLU; each step in f32 ([`qcore::dequantize_acc`]).
///
/// The scale of a product is `input_scale * weight_scale[channel]`.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    scale: Scales<'a>,
    bias: Option<&'a [i32]>,
    float_bias: Option<&'a [f32]>,
    relu: bool,
}

impl<'a> Dequantize<'a> {
    /// `y = f32(acc) * scale`.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if a scale is NaN or infinite.
    pub fn new(scale: Scales<'a>) -> Result<Self, StageError> {
        scale.check_finite("scale")?;
        Ok(Self { scale, bias: None, float_bias: None, relu: false })
    }

    /// Adds an int32 bias to the sums, one entry for each channel.
    #[must_use]
    pub fn with_bias(self, bias: &'a [i32]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Adds an f32 bias to the scaled sums, one entry for each channel.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if an entry is NaN or infinite.
    pub fn with_float_bias(self, bias: &'a [f32]) -> Result<Self, StageError> {
        check_finite("float bias", bias)?;
        Ok(Self { float_bias: Some(bias), ..self })
    }

    /// Replaces negative results by 0.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { relu: true, ..self }
    }
}

impl sealed::Stage for Dequantize<'_> {
    type Out = f32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor(&self) -> Scales<'_> {
        self.scale
    }

    fn float_bias(&self) -> Option<&[f32]> {
        self.float_bias
    }

    #[inline(always)]
    fn apply<const L: usize>(&self, sums: &[i32; L], channels: &Channels<L>) -> [f32; L] {
        let Channels { factor, float_bias, .. } = channels;
        let y: [f32; L] = if self.float_bias.is_some() {
            core::array::from_fn(|j| qcore::dequantize_acc_bias(sums[j], factor[j], float_bias[j]))
        } else {
            core::array::from_fn(|j| qcore::dequantize_acc(sums[j], factor[j]))
        };
        if self.relu { y.map(|y| if y < 0.0 { 0.0 } else { y }) } else { y }
    }
}

/// Codes for the next layer: `q = clamp(round_ties_even(f32(acc + bias) * multiplier) + zero_point)`, i8 or u8
/// ([`qcore::requantize`]).
///
/// The multiplier of a layer is `input_scale * weight_scale[channel] / output_scale` ([`qcore::output_multiplier`]).
///
/// ```
/// use qkernels::{Requantize, Scales};
/// let stage = Requantize::<u8>::new(Scales::PerTensor(0.02))?.with_zero_point(10).with_relu();
/// # Ok::<(), qkernels::StageError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a, C> {
    multiplier: Scales<'a>,
    bias: Option<&'a [i32]>,
    zero_point: C,
    low: C,
    high: C,
    relu: bool,
}

impl<'a, C: Code> Requantize<'a, C> {
    /// Zero point 0, the whole range of `C`.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if a multiplier is NaN or infinite.
    pub fn new(multiplier: Scales<'a>) -> Result<Self, StageError> {
        multiplier.check_finite("multiplier")?;
        let low = C::from_clamped(C::RANGE.min());
        let high = C::from_clamped(C::RANGE.max());
        Ok(Self { multiplier, bias: None, zero_point: C::from_clamped(0), low, high, relu: false })
    }

    /// Adds an int32 bias to the sums, one entry for each channel.
    #[must_use]
    pub fn with_bias(self, bias: &'a [i32]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The code that stands for 0.
    #[must_use]
    pub fn with_zero_point(self, zero_point: C) -> Self {
        Self { zero_point, ..self }
    }

    /// Limits the codes to `low..=high`.
    ///
    /// # Errors
    /// [`StageError::EmptyClamp`] if `low > high`.
    pub fn with_clamp(self, low: C, high: C) -> Result<Self, StageError> {
        if low.widen() > high.widen() {
            return Err(StageError::EmptyClamp { low: low.widen(), high: high.widen() });
        }
        Ok(Self { low, high, ..self })
    }

    /// Replaces codes that stand for negative values by the zero point.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { relu: true, ..self }
    }
}

impl<C: Code> sealed::Stage for Requantize<'_, C> {
    type Out = C;

    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor(&self) -> Scales<'_> {
        self.multiplier
    }

    fn float_bias(&self) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn apply<const L: usize>(&self, sums: &[i32; L], channels: &Channels<L>) -> [C; L] {
        let (zero_point, high) = (self.zero_point.widen(), self.high.widen());
        // A clamp above the zero point leaves nothing for ReLU to do, one below it leaves nothing else.
        let low = if self.relu { self.low.widen().max(zero_point).min(high) } else { self.low.widen() };
        core::array::from_fn(|j| {
            C::from_clamped(qcore::requantize(sums[j], channels.factor[j], zero_point, low, high))
        })
    }
}
