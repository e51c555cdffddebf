//! Output stages: from the int32 sums of a tile to what the caller stores, while the sums are in registers or in L1.
//!
//! Each stage is a formula of qcore applied to `acc[i][j] + bias[j]`, in the same order of float operations as the scalar
//! function, so fused and unfused results are equal bit for bit.

use qcore::Code;

use crate::finish::{Codes, Target};
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
    use super::{Codes, Scales, Target};
    use crate::view::MatMut;

    pub trait Stage {
        type Out: Copy + Send;

        /// The int32 bias, which the driver adds to the sums together with the terms of the zero point.
        fn bias(&self) -> Option<&[i32]>;

        /// Scale or multiplier; `None` where the sums stay int32.
        fn factor(&self) -> Option<Scales<'_>> {
            None
        }

        /// What the caller knows the factor as.
        fn factor_name(&self) -> &'static str {
            "scale"
        }

        /// The f32 bias of each channel.
        fn float_bias(&self) -> Option<&[f32]> {
            None
        }

        /// Whether negative f32 results become 0.
        fn relu(&self) -> bool {
            false
        }

        /// The integers of a requantization.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn codes(&self) -> Codes {
            Codes::default()
        }

        /// The output with its element type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn target(out: MatMut<'_, Self::Out>) -> Target<'_>;
    }

    /// i8 or u8 as an output.
    pub trait StoredCode: qcore::Code {
        /// The output with its element type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn target(out: MatMut<'_, Self>) -> Target<'_>;
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
        Some(Scales::PerChannel(factors)) => check_len(stage.factor_name(), n, factors.len()),
        _ => Ok(()),
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

    #[expect(private_interfaces, reason = "sealed")]
    fn target(out: MatMut<'_, i32>) -> Target<'_> {
        Target::I32(out)
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

    fn factor(&self) -> Option<Scales<'_>> {
        Some(self.scale)
    }

    fn float_bias(&self) -> Option<&[f32]> {
        self.float_bias
    }

    fn relu(&self) -> bool {
        self.relu
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn target(out: MatMut<'_, f32>) -> Target<'_> {
        Target::F32(out)
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

impl<C: sealed::StoredCode> sealed::Stage for Requantize<'_, C> {
    type Out = C;

    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor(&self) -> Option<Scales<'_>> {
        Some(self.multiplier)
    }

    fn factor_name(&self) -> &'static str {
        "multiplier"
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn codes(&self) -> Codes {
        let (zero_point, high) = (self.zero_point.widen(), self.high.widen());
        // A clamp above the zero point leaves nothing for ReLU to do, one below it leaves nothing else.
        let low = if self.relu { self.low.widen().max(zero_point).min(high) } else { self.low.widen() };
        Codes { zero_point, low, high }
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn target(out: MatMut<'_, C>) -> Target<'_> {
        C::target(out)
    }
}

impl sealed::StoredCode for i8 {
    #[expect(private_interfaces, reason = "sealed")]
    fn target(out: MatMut<'_, i8>) -> Target<'_> {
        Target::I8(out)
    }
}

impl sealed::StoredCode for u8 {
    #[expect(private_interfaces, reason = "sealed")]
    fn target(out: MatMut<'_, u8>) -> Target<'_> {
        Target::U8(out)
    }
}
