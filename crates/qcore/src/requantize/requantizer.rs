//! Requantization as a value: the arithmetic that a layer uses has a name, and is applied to slices
//! of accumulators.

use thiserror::Error;

use super::fixed_point::{
    MultiplierError, Q31Multiplier, requantize_double_rounding, requantize_power_of_two,
    requantize_single_rounding,
};
use super::scalar::{
    output_multiplier, output_multiplier_f64, requantize, requantize_add_then_round,
    requantize_add_then_round_f64, requantize_f64,
};
use crate::code::{Code, CodeRange};
use crate::tensor::{ChannelAxis, ChannelError, LengthError, QuantizeError, map_channels};

/// The arithmetic that turns an accumulator into a code. The modes differ by one code, at ties and
/// next to them. Which one a model was exported for is part of the model.
///
/// ```
/// use qcore::{CodeRange, RequantizeMode};
///
/// // acc * m = 2.5 and -2.5, zero point 3.
/// let codes = |mode: RequantizeMode| -> Result<[i32; 2], qcore::MultiplierError> {
///     let requantizer = mode.requantizer(0.5, 0.5, 1.0)?;
///     Ok([10, -10].map(|acc| requantizer.requantize(acc, 3, CodeRange::I8)))
/// };
/// assert_eq!(codes(RequantizeMode::RoundThenAdd)?, [5, 1]); // to even
/// assert_eq!(codes(RequantizeMode::AddThenRound)?, [6, 0]); // 5.5 and 0.5, to even
/// assert_eq!(codes(RequantizeMode::DoubleRounding)?, [6, 0]); // away from zero
/// assert_eq!(codes(RequantizeMode::SingleRounding)?, [6, 1]); // up
/// assert_eq!(codes(RequantizeMode::PowerOfTwo)?, [6, 1]); // up
/// # Ok::<(), qcore::MultiplierError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequantizeMode {
    /// [`requantize`]: `round(acc * m) + z` in f32. FBGEMM, ONNX Runtime, XNNPACK. This is the
    /// default.
    #[default]
    RoundThenAdd,
    /// [`requantize_add_then_round`]: `round(acc * m + z)` in f32. MIT 6.5940 lab 2.
    AddThenRound,
    /// [`requantize_add_then_round_f64`]: `round(acc * m + z)` in f64, with a multiplier computed
    /// in f32. ONNX's reference implementation of QLinearMatMul.
    AddThenRoundF64,
    /// [`requantize_f64`]: `round(acc * m) + z` in f64, for reference.
    RoundThenAddF64,
    /// [`requantize_double_rounding`]: gemmlowp, TensorFlow Lite's reference kernels, CMSIS-NN.
    DoubleRounding,
    /// [`requantize_single_rounding`]: ruy, TensorFlow Lite with `TFLITE_SINGLE_ROUNDING`, TOSA.
    SingleRounding,
    /// [`requantize_power_of_two`], for scales whose quotient is a power of two. Older CMSIS-NN,
    /// FPGA designs.
    PowerOfTwo,
}

impl RequantizeMode {
    /// Every mode.
    ///
    /// ```
    /// use qcore::RequantizeMode;
    ///
    /// for mode in RequantizeMode::ALL {
    ///     assert_eq!(mode.requantizer(0.5, 0.5, 1.0)?.mode(), mode);
    /// }
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    pub const ALL: [RequantizeMode; 7] = [
        RequantizeMode::RoundThenAdd,
        RequantizeMode::AddThenRound,
        RequantizeMode::AddThenRoundF64,
        RequantizeMode::RoundThenAddF64,
        RequantizeMode::DoubleRounding,
        RequantizeMode::SingleRounding,
        RequantizeMode::PowerOfTwo,
    ];

    /// This arithmetic with the multiplier `s_x * s_w / s_y`: input scale, weight scale of the
    /// channel, output scale. The f32 modes compute the multiplier in f32 ([`output_multiplier`]),
    /// the others in f64 ([`output_multiplier_f64`]).
    ///
    /// # Errors
    /// When the multiplier has no such form: it is negative or not finite, it is 2^30 or more in
    /// fixed point, or it is not a power of two.
    ///
    /// ```
    /// use qcore::{RequantizeMode, Requantizer};
    ///
    /// assert_eq!(RequantizeMode::PowerOfTwo.requantizer(0.5, 0.25, 1.0)?, Requantizer::PowerOfTwo(3));
    /// assert!(RequantizeMode::PowerOfTwo.requantizer(0.3, 0.25, 1.0).is_err());
    /// # Ok::<(), qcore::MultiplierError>(())
    /// ```
    pub fn requantizer(self, s_x: f64, s_w: f64, s_y: f64) -> Result<Requantizer, MultiplierError> {
        let m32 = output_multiplier(s_x as f32, s_w as f32, s_y as f32);
        let m64 = output_multiplier_f64(s_x, s_w, s_y);
        let of_f32 = |wrap: fn(f32) -> Requantizer| match m32 >= 0.0 && m32.is_finite() {
            true => Ok(wrap(m32)),
            false => Err(MultiplierError::Real { real: m32.into() }),
        };
        match self {
            RequantizeMode::RoundThenAdd => of_f32(Requantizer::RoundThenAdd),
            RequantizeMode::AddThenRound => of_f32(Requantizer::AddThenRound),
            RequantizeMode::AddThenRoundF64 => of_f32(|m| Requantizer::AddThenRoundF64(m.into())),
            RequantizeMode::RoundThenAddF64 if m64 >= 0.0 && m64.is_finite() => {
                Ok(Requantizer::RoundThenAddF64(m64))
            }
            RequantizeMode::RoundThenAddF64 => Err(MultiplierError::Real { real: m64 }),
            RequantizeMode::DoubleRounding => Q31Multiplier::from_real(m64).map(Requantizer::DoubleRounding),
            RequantizeMode::SingleRounding => Q31Multiplier::from_real(m64).map(Requantizer::SingleRounding),
            RequantizeMode::PowerOfTwo => {
                let exact = (0..=62_u32).find(|&shift| (-f64::from(shift)).exp2() == m64);
                exact.map(Requantizer::PowerOfTwo).ok_or(MultiplierError::NotPowerOfTwo { real: m64 })
            }
        }
    }
}

/// A [`RequantizeMode`] with its multiplier: everything that turns an accumulator into a code
/// except the zero point and the bounds.
///
/// ```
/// use qcore::{CodeRange, Q31Multiplier, RequantizeMode, Requantizer};
///
/// // From a model's own fixed-point multiplier, or from the scales.
/// let stored = Requantizer::DoubleRounding(Q31Multiplier::new(1 << 30, -1)?);
/// assert_eq!(RequantizeMode::DoubleRounding.requantizer(0.5, 0.5, 1.0)?, stored);
/// assert_eq!(stored.requantize(10, 0, CodeRange::I8), 3); // 2.5, away from zero
/// assert_eq!(stored.mode(), RequantizeMode::DoubleRounding);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Requantizer {
    /// See [`requantize`].
    RoundThenAdd(f32),
    /// See [`requantize_add_then_round`].
    AddThenRound(f32),
    /// See [`requantize_add_then_round_f64`].
    AddThenRoundF64(f64),
    /// See [`requantize_f64`].
    RoundThenAddF64(f64),
    /// See [`requantize_double_rounding`].
    DoubleRounding(Q31Multiplier),
    /// See [`requantize_single_rounding`].
    SingleRounding(Q31Multiplier),
    /// See [`requantize_power_of_two`]: a right shift.
    PowerOfTwo(u32),
}

impl Requantizer {
    /// The mode of this requantizer.
    ///
    /// ```
    /// use qcore::{RequantizeMode, Requantizer};
    ///
    /// assert_eq!(Requantizer::PowerOfTwo(3).mode(), RequantizeMode::PowerOfTwo);
    /// ```
    #[must_use]
    pub fn mode(self) -> RequantizeMode {
        match self {
            Requantizer::RoundThenAdd(_) => RequantizeMode::RoundThenAdd,
            Requantizer::AddThenRound(_) => RequantizeMode::AddThenRound,
            Requantizer::AddThenRoundF64(_) => RequantizeMode::AddThenRoundF64,
            Requantizer::RoundThenAddF64(_) => RequantizeMode::RoundThenAddF64,
            Requantizer::DoubleRounding(_) => RequantizeMode::DoubleRounding,
            Requantizer::SingleRounding(_) => RequantizeMode::SingleRounding,
            Requantizer::PowerOfTwo(_) => RequantizeMode::PowerOfTwo,
        }
    }

    /// The code of one accumulator.
    ///
    /// ```
    /// use qcore::{CodeRange, Requantizer};
    ///
    /// let half = Requantizer::RoundThenAdd(0.5);
    /// assert_eq!([7, 1000].map(|acc| half.requantize(acc, 3, CodeRange::I8)), [7, 127]); // 3.5 goes to 4
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn requantize(self, acc: i32, zero_point: i32, codes: CodeRange) -> i32 {
        let (z, min, max) = (zero_point, codes.min(), codes.max());
        match self {
            Requantizer::RoundThenAdd(m) => requantize(acc, m, z, min, max),
            Requantizer::AddThenRound(m) => requantize_add_then_round(acc, m, z, min, max),
            Requantizer::AddThenRoundF64(m) => requantize_add_then_round_f64(acc, m, z, min, max),
            Requantizer::RoundThenAddF64(m) => requantize_f64(acc, m, z, min, max),
            Requantizer::DoubleRounding(m) => requantize_double_rounding(acc, m, z, min, max),
            Requantizer::SingleRounding(m) => requantize_single_rounding(acc, m, z, min, max),
            Requantizer::PowerOfTwo(shift) => requantize_power_of_two(acc, shift, z, min, max),
        }
    }

    /// Requantizes a run of accumulators. The match is outside the loops, so that each loop
    /// contains one kind of arithmetic.
    #[inline(always)]
    fn requantize_run<C: Code>(self, acc: &[i32], z: i32, codes: CodeRange, out: &mut [C]) {
        let (min, max) = (codes.min(), codes.max());
        match self {
            Requantizer::RoundThenAdd(m) => each(acc, out, |acc| requantize(acc, m, z, min, max)),
            Requantizer::AddThenRound(m) => {
                each(acc, out, |acc| requantize_add_then_round(acc, m, z, min, max))
            }
            Requantizer::AddThenRoundF64(m) => {
                each(acc, out, |acc| requantize_add_then_round_f64(acc, m, z, min, max));
            }
            Requantizer::RoundThenAddF64(m) => each(acc, out, |acc| requantize_f64(acc, m, z, min, max)),
            Requantizer::DoubleRounding(m) => {
                each(acc, out, |acc| requantize_double_rounding(acc, m, z, min, max))
            }
            Requantizer::SingleRounding(m) => {
                each(acc, out, |acc| requantize_single_rounding(acc, m, z, min, max))
            }
            Requantizer::PowerOfTwo(shift) => {
                each(acc, out, |acc| requantize_power_of_two(acc, shift, z, min, max))
            }
        }
    }
}

#[inline(always)]
fn each<C: Code>(acc: &[i32], out: &mut [C], f: impl Fn(i32) -> i32) {
    for (code, &acc) in out.iter_mut().zip(acc) {
        *code = C::from_clamped(f(acc));
    }
}

/// `out[i] = requantizer.requantize(acc[i], zero_point, codes)`.
///
/// # Errors
/// When the lengths differ, or `codes` do not fit `C`.
///
/// ```
/// use qcore::{CodeRange, RequantizeMode, requantize_slice};
///
/// let half = RequantizeMode::SingleRounding.requantizer(0.5, 1.0, 1.0)?;
/// let mut codes = [0_i8; 4];
/// requantize_slice(&[4, 5, -5, i32::MAX], half, 1, CodeRange::I8, &mut codes)?;
/// assert_eq!(codes, [3, 4, -1, 127]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn requantize_slice<C: Code>(
    acc: &[i32],
    requantizer: Requantizer,
    zero_point: i32,
    codes: CodeRange,
    out: &mut [C],
) -> Result<(), QuantizeError> {
    LengthError::check(acc.len(), out.len())?;
    check_fit::<C>(codes)?;
    requantizer.requantize_run(acc, zero_point, codes, out);
    Ok(())
}

/// [`requantize_slice`] with one requantizer per channel, along any axis: the last axis for the
/// rows of a linear layer, the second for the planes of a convolution.
///
/// # Errors
/// When a length is not what the axis says, or `codes` do not fit `C`.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, RequantizeMode, requantize_per_channel};
///
/// let mode = RequantizeMode::RoundThenAdd;
/// let per_channel = [mode.requantizer(0.5, 1.0, 1.0)?, mode.requantizer(0.5, 0.5, 1.0)?];
/// let mut codes = [0_i8; 4];
/// let axis = ChannelAxis::new(&[2, 2], 1)?; // two rows, two channels
/// requantize_per_channel(&[8, 8, 40, 40], axis, &per_channel, 0, CodeRange::I8, &mut codes)?;
/// assert_eq!(codes, [4, 2, 20, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn requantize_per_channel<C: Code>(
    acc: &[i32],
    axis: ChannelAxis,
    requantizers: &[Requantizer],
    zero_point: i32,
    codes: CodeRange,
    out: &mut [C],
) -> Result<(), RequantizeError> {
    check_fit::<C>(codes)?;
    map_channels(acc, axis, requantizers, out, |requantizer, acc, out| {
        requantizer.requantize_run(acc, zero_point, codes, out);
    })?;
    Ok(())
}

fn check_fit<C: Code>(codes: CodeRange) -> Result<(), QuantizeError> {
    match C::RANGE.contains_range(codes) {
        true => Ok(()),
        false => Err(QuantizeError::Codes { codes, storage: C::RANGE }),
    }
}

/// Why accumulators cannot be requantized per channel.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, Requantizer, requantize_per_channel};
///
/// let (axis, one) = (ChannelAxis::new(&[1], 0)?, [Requantizer::RoundThenAdd(1.0)]);
/// let error = requantize_per_channel::<u8>(&[1], axis, &one, 0, CodeRange::I8, &mut [0]).unwrap_err();
/// assert_eq!(error.to_string(), "codes -128 to 127 do not fit a type of 0 to 255");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RequantizeError {
    /// The codes cannot be stored.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A length is not what the axis says.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mode_takes_a_multiplier_that_is_negative_or_not_finite() {
        for mode in RequantizeMode::ALL {
            assert!(mode.requantizer(0.5, 0.5, 1.0).is_ok(), "{mode:?}");
            for (s_x, s_w, s_y) in [
                (-0.5, 0.5, 1.0),
                (0.5, 0.5, -1.0),
                (1e300, 1e300, 1e-300),
                (-1e300, 1e300, 1e-300),
                (0.5, 0.5, 0.0),
                (f64::NAN, 0.5, 1.0),
                (f64::INFINITY, 0.5, 1.0),
                (0.5, f64::NEG_INFINITY, 1.0),
            ] {
                let made = mode.requantizer(s_x, s_w, s_y);
                assert!(made.is_err(), "{mode:?} of {s_x:e} {s_w:e} {s_y:e}: {made:?}");
            }
        }
    }
}
