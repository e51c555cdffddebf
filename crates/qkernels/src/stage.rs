//! Output stages: from the int32 sums of a tile to what the caller stores, while the tile is still in the L1 cache.
//!
//! Each stage is a formula of qcore applied to `acc[i][j] + bias[j]`, in the same order of float operations as the scalar
//! function, so fused and unfused results are equal bit for bit.

use qcore::Code;

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

    fn check_len(&self, operand: &'static str, n: usize) -> Result<(), StageError> {
        match self {
            Scales::PerTensor(_) => Ok(()),
            Scales::PerChannel(scales) => check_len(operand, n, scales.len()),
        }
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
    use super::StageError;

    pub trait Stage {
        type Out: Copy + Send;

        /// The int32 bias, which the driver adds to the sums together with the terms of the zero point.
        fn bias(&self) -> Option<&[i32]>;

        /// Whether every per-channel operand has `n` entries.
        fn check(&self, n: usize) -> Result<(), StageError>;

        /// Stores one row of sums: channel `first + j` is `acc[j] + offset[j]` (wrapping; the bound was checked).
        /// `acc`, `offset` and `out` are equally long.
        fn store_row(&self, first: usize, acc: &[i32], offset: &[i32], out: &mut [Self::Out]);
    }
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

    fn check(&self, n: usize) -> Result<(), StageError> {
        self.bias.map_or(Ok(()), |bias| check_len("bias", n, bias.len()))
    }

    #[inline(always)]
    fn store_row(&self, _first: usize, acc: &[i32], offset: &[i32], out: &mut [i32]) {
        for ((y, &acc), &offset) in out.iter_mut().zip(acc).zip(offset) {
            *y = acc.wrapping_add(offset);
        }
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

    #[inline(always)]
    fn finish(&self, y: f32) -> f32 {
        if self.relu && y < 0.0 { 0.0 } else { y }
    }
}

impl sealed::Stage for Dequantize<'_> {
    type Out = f32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn check(&self, n: usize) -> Result<(), StageError> {
        self.scale.check_len("scale", n)?;
        self.float_bias.map_or(Ok(()), |bias| check_len("float bias", n, bias.len()))?;
        self.bias.map_or(Ok(()), |bias| check_len("bias", n, bias.len()))
    }

    #[inline(always)]
    fn store_row(&self, first: usize, acc: &[i32], offset: &[i32], out: &mut [f32]) {
        let sums = acc.iter().zip(offset).map(|(acc, offset)| acc.wrapping_add(*offset));
        match self.scale {
            Scales::PerTensor(scale) => {
                for (y, sum) in out.iter_mut().zip(sums) {
                    *y = qcore::dequantize_acc(sum, scale);
                }
            }
            Scales::PerChannel(scales) => {
                for ((y, sum), &scale) in out.iter_mut().zip(sums).zip(&scales[first..]) {
                    *y = qcore::dequantize_acc(sum, scale);
                }
            }
        }
        if let Some(bias) = self.float_bias {
            for (y, bias) in out.iter_mut().zip(&bias[first..]) {
                *y += bias;
            }
        }
        for y in out {
            *y = self.finish(*y);
        }
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

    fn check(&self, n: usize) -> Result<(), StageError> {
        self.multiplier.check_len("multiplier", n)?;
        self.bias.map_or(Ok(()), |bias| check_len("bias", n, bias.len()))
    }

    #[inline(always)]
    fn store_row(&self, first: usize, acc: &[i32], offset: &[i32], out: &mut [C]) {
        let (zero_point, high) = (self.zero_point.widen(), self.high.widen());
        // A clamp above the zero point leaves nothing for ReLU to do, one below it leaves nothing else.
        let low = if self.relu { self.low.widen().max(zero_point).min(high) } else { self.low.widen() };
        let code =
            |sum, multiplier| C::from_clamped(qcore::requantize(sum, multiplier, zero_point, low, high));
        let sums = acc.iter().zip(offset).map(|(acc, offset)| acc.wrapping_add(*offset));
        match self.multiplier {
            Scales::PerTensor(multiplier) => {
                for (q, sum) in out.iter_mut().zip(sums) {
                    *q = code(sum, multiplier);
                }
            }
            Scales::PerChannel(multipliers) => {
                for ((q, sum), &multiplier) in out.iter_mut().zip(sums).zip(&multipliers[first..]) {
                    *q = code(sum, multiplier);
                }
            }
        }
    }
}
