//! The parameters of one quantized tensor (or channel), and the arithmetic on one value.

use half::f16;
use thiserror::Error;

use super::order::{Rounding, ZeroPointOrder};
use crate::code::CodeRange;
use crate::value::{round_clamped, round_clamped_ties_away};

/// Scale, zero point and code range of one tensor or channel: `x ≈ (q - zero_point) * scale`.
///
/// A value of this type is always valid. The scale is finite and greater than 0 (or 0, for
/// [additive epsilon]), and the zero point is one of the codes (unless it was asked for as
/// [distant]).
///
/// ```
/// use qcore::{CodeRange, QParams};
///
/// let p = QParams::new(0.5, 10, CodeRange::U8)?;
/// assert_eq!(p.quantize(3.0), 16);
/// assert_eq!(p.dequantize(16), 3.0);
/// assert_eq!(p.quantize(0.25), 10); // the quotient 0.5 is a tie: to even
/// assert_eq!(p.quantize(f32::NAN), 10);
/// assert_eq!((p.quantize(f32::NEG_INFINITY), p.quantize(f32::INFINITY)), (0, 255));
/// # Ok::<(), qcore::ParamError>(())
/// ```
///
/// [additive epsilon]: crate::ZeroScale::AddEpsilon
/// [distant]: QParams::with_distant_zero_point
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QParams {
    scale_f64: f64,
    scale: f32,
    divisor: f32,
    zero_point: i32,
    codes: CodeRange,
    order: ZeroPointOrder,
    rounding: Rounding,
}

impl QParams {
    /// Parameters with the default order, which divide by the scale itself.
    ///
    /// # Errors
    /// Unless `scale` is finite and greater than 0 and `zero_point` is one of `codes`.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!((p.scale(), p.divisor(), p.zero_point()), (0.5, 0.5, 10));
    /// assert!(QParams::new(0.5, -1, CodeRange::U8).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(scale: f32, zero_point: i32, codes: CodeRange) -> Result<QParams, ParamError> {
        QParams::with_f64_scale(f64::from(scale), zero_point, codes)
    }

    /// Like [`new`](QParams::new), from a scale kept in f64 (TinyTorch, MIT 6.5940 lab 2). Values
    /// are divided and multiplied by the scale rounded to f32. [`scale_f64`](QParams::scale_f64)
    /// returns it unrounded.
    ///
    /// # Errors
    /// Unless the scale rounded to f32 is finite and greater than 0 and `zero_point` is one of
    /// `codes`.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::with_f64_scale(0.1, 0, CodeRange::I8)?;
    /// assert_eq!((p.scale(), p.scale_f64()), (0.1_f32, 0.1_f64));
    /// assert!(QParams::with_f64_scale(1e-60, 0, CodeRange::I8).is_err()); // 0 as f32
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_f64_scale(scale: f64, zero_point: i32, codes: CodeRange) -> Result<QParams, ParamError> {
        QParams::of_scheme(scale, scale as f32, zero_point, codes)
    }

    /// Like [`with_f64_scale`](QParams::with_f64_scale), with a zero point that may lie outside the
    /// codes, up to 2^21 from 0. It serves ranges that do not contain 0. The value 0 then has no
    /// code, and NaN becomes the code nearest to the zero point.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// // 5 to 10 in 256 codes.
    /// let p = QParams::with_distant_zero_point(5.0 / 255.0, -255, CodeRange::U8)?;
    /// assert_eq!((p.quantize(5.0), p.quantize(10.0), p.quantize(0.0)), (0, 255, 0));
    /// assert_eq!(p.dequantize(0), 5.0);
    /// # Ok::<(), qcore::ParamError>(())
    /// ```
    ///
    /// # Errors
    /// Unless the scale rounded to f32 is finite and greater than 0 and `zero_point` is within
    /// ±2^21.
    pub fn with_distant_zero_point(
        scale: f64,
        zero_point: i32,
        codes: CodeRange,
    ) -> Result<QParams, ParamError> {
        const DISTANT: i32 = 1 << 21;
        if !(-DISTANT..=DISTANT).contains(&zero_point) {
            return Err(ParamError::ZeroPoint { zero_point, min: -DISTANT, max: DISTANT });
        }
        // First a code that passes the other checks, then the real zero point.
        let params = QParams::with_f64_scale(scale, codes.min(), codes)?;
        Ok(QParams { zero_point, ..params })
    }

    /// The general form: values are divided by a number other than the scale. Schemes choose such
    /// parameters under [`ZeroScale::AddEpsilon`](crate::ZeroScale) and
    /// [`ZeroScale::ConstantIsZero`](crate::ZeroScale). This function rebuilds them from what
    /// [`scale_f64`](QParams::scale_f64), [`divisor`](QParams::divisor) and the other getters
    /// return.
    ///
    /// ```
    /// use qcore::{CodeRange, ParamError, QParams};
    ///
    /// let p = QParams::with_divisor(1.0, 1.25, 0, CodeRange::I8)?;
    /// assert_eq!((p.quantize(10.0), p.dequantize(8)), (8, 8.0));
    /// let constant = QParams::with_divisor(1.0, f32::INFINITY, 0, CodeRange::I8)?;
    /// assert_eq!(constant.quantize(10.0), 0);
    /// let error = QParams::with_divisor(1.0, -1.0, 0, CodeRange::I8).unwrap_err();
    /// assert_eq!(error, ParamError::Divisor { divisor: -1.0 });
    /// # Ok::<(), ParamError>(())
    /// ```
    ///
    /// # Errors
    /// Unless the scale rounded to f32 is finite and not negative, `divisor` is greater than 0
    /// (infinity is allowed), and `zero_point` is one of `codes`.
    pub fn with_divisor(
        scale: f64,
        divisor: f32,
        zero_point: i32,
        codes: CodeRange,
    ) -> Result<QParams, ParamError> {
        match divisor > 0.0 {
            true => QParams::of_scheme(scale, divisor, zero_point, codes),
            false => Err(ParamError::Divisor { divisor }),
        }
    }

    /// Like [`with_divisor`](QParams::with_divisor), but if the divisor is invalid the error blames
    /// the scale it came from.
    pub(crate) fn of_scheme(
        scale_f64: f64,
        divisor: f32,
        zero_point: i32,
        codes: CodeRange,
    ) -> Result<QParams, ParamError> {
        let scale = scale_f64 as f32;
        // A scale of 0 is allowed only together with a divisor of its own.
        let positive = scale > 0.0 || (scale == 0.0 && divisor > 0.0);
        if !(positive && scale.is_finite() && divisor > 0.0) {
            return Err(ParamError::Scale { scale: scale_f64 });
        }
        if !codes.contains(zero_point) {
            return Err(ParamError::ZeroPoint { zero_point, min: codes.min(), max: codes.max() });
        }
        let (order, rounding) = (ZeroPointOrder::default(), Rounding::default());
        Ok(QParams { scale_f64, scale, divisor, zero_point, codes, order, rounding })
    }

    /// The same parameters with another order of rounding and adding the zero point.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams, ZeroPointOrder};
    ///
    /// let p = QParams::new(1.0, 3, CodeRange::I8)?.with_order(ZeroPointOrder::AddThenRound);
    /// assert_eq!(p.quantize(0.5), 4); // 3.5 to even; RoundThenAdd has 0 + 3
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_order(self, order: ZeroPointOrder) -> QParams {
        QParams { order, ..self }
    }

    /// The same parameters with another rounding of ties.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams, Rounding};
    ///
    /// let p = QParams::new(1.0, 0, CodeRange::I8)?;
    /// assert_eq!([0.5, 1.5, -2.5].map(|x| p.quantize(x)), [0, 2, -2]);
    /// let p = p.with_rounding(Rounding::TiesAway);
    /// assert_eq!([0.5, 1.5, -2.5].map(|x| p.quantize(x)), [1, 2, -3]);
    /// # Ok::<(), qcore::ParamError>(())
    /// ```
    #[must_use]
    pub fn with_rounding(self, rounding: Rounding) -> QParams {
        QParams { rounding, ..self }
    }

    /// The scale: the value of one step, in the units of the data.
    /// [`dequantize`](QParams::dequantize) multiplies by it.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!(p.dequantize(12) - p.dequantize(11), p.scale());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The scale before it was rounded to f32, for schemes that keep it in f64. Otherwise the same
    /// as `scale`.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// assert_eq!(QParams::with_f64_scale(0.1, 0, CodeRange::I8)?.scale_f64(), 0.1);
    /// assert_eq!(QParams::new(0.1, 0, CodeRange::I8)?.scale_f64(), f64::from(0.1_f32));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn scale_f64(&self) -> f64 {
        self.scale_f64
    }

    /// The code that stands for the value 0.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!((p.zero_point(), p.quantize(0.0)), (10, 10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// The codes that values are clamped to.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!(p.codes(), CodeRange::U8);
    /// assert_eq!(p.quantize(1e6), p.codes().max());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn codes(&self) -> CodeRange {
        self.codes
    }

    /// The number that values are divided by. It is the scale, with two exceptions: under
    /// [`ZeroScale::AddEpsilon`](crate::ZeroScale) it is the scale plus epsilon, and for a constant
    /// tensor under [`ZeroScale::ConstantIsZero`](crate::ZeroScale) it is +inf, so that every
    /// finite value becomes the zero point.
    ///
    /// ```
    /// use qcore::{Range, Scheme, ZeroScale};
    ///
    /// let scheme = Scheme { zero_scale: ZeroScale::AddEpsilon(0.25), ..Scheme::weights_i8() };
    /// let p = scheme.choose(Range::new(-127.0, 127.0)?)?;
    /// assert_eq!((p.scale(), p.divisor()), (1.0, 1.25));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn divisor(&self) -> f32 {
        self.divisor
    }

    /// Whether the zero point is added after or before rounding.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams, ZeroPointOrder};
    ///
    /// assert_eq!(QParams::new(1.0, 3, CodeRange::I8)?.order(), ZeroPointOrder::RoundThenAdd);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn order(&self) -> ZeroPointOrder {
        self.order
    }

    /// Where ties are rounded to.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams, Rounding};
    ///
    /// assert_eq!(QParams::new(1.0, 0, CodeRange::I8)?.rounding(), Rounding::TiesToEven);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// `clamp(round(x / divisor) + zero_point, min, max)` in f32, or with
    /// [`AddThenRound`](ZeroPointOrder::AddThenRound)
    /// `clamp(round(x / divisor + zero_point), min, max)`. Ties go to even unless the [`Rounding`]
    /// says otherwise.
    ///
    /// Every input has a result: NaN becomes the zero point, +inf the largest code, -inf the
    /// smallest.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!([3.0, 0.25, 1e6].map(|x| p.quantize(x)), [16, 10, 255]); // 0.5 is a tie, 1e6 is clamped
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn quantize(&self, x: f32) -> i32 {
        self.round_quotient(x / self.divisor)
    }

    /// Writes `encode` of the code of each value, as many as the shorter slice has:
    /// `out[i] = encode(p.quantize(x[i]))`.
    ///
    /// This is the loop for many values. It is always inlined, so a caller compiled for AVX2 or
    /// AVX-512 gets it as vector instructions, with the same codes.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// let mut words = [0_i16; 3];
    /// p.quantize_each(&[3.0, 0.25, 1e6], &mut words, |code| code as i16 - 10);
    /// assert_eq!(words, [6, 0, 245]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn quantize_each<T>(&self, x: &[f32], out: &mut [T], encode: impl Fn(i32) -> T) {
        #[inline(always)]
        fn each<T>(p: QParams, x: &[f32], out: &mut [T], encode: impl Fn(i32) -> T) {
            for (to, &v) in out.iter_mut().zip(x) {
                *to = encode(p.quantize(v));
            }
        }
        // The usual order has a loop for each rounding, so that no value pays for what others need.
        let usual = |rounding| QParams { order: ZeroPointOrder::RoundThenAdd, rounding, ..*self };
        match (self.order, self.rounding) {
            (ZeroPointOrder::RoundThenAdd, Rounding::TiesToEven) => {
                each(usual(Rounding::TiesToEven), x, out, encode);
            }
            (ZeroPointOrder::RoundThenAdd, Rounding::TiesAway) => {
                each(usual(Rounding::TiesAway), x, out, encode);
            }
            (ZeroPointOrder::AddThenRound, _) => each(*self, x, out, encode),
        }
    }

    /// Like [`quantize`](QParams::quantize), but computes `x * (1 / divisor)` instead of the
    /// division. That is faster where division is slow, but the code can be off by one at ties and
    /// next to them. ONNX and PyTorch define the division.
    ///
    /// ```
    /// # use qcore::{CodeRange, QParams};
    /// let p = QParams::new(0.01, 0, CodeRange::I8)?;
    /// assert_eq!(p.quantize(0.045), 5); // the quotient is just above 4.5
    /// assert_eq!(p.quantize_by_reciprocal(0.045), 4); // the product is 4.5 and goes to even
    /// # Ok::<(), qcore::ParamError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn quantize_by_reciprocal(&self, x: f32) -> i32 {
        self.round_quotient(x * (1.0 / self.divisor))
    }

    /// Like [`quantize`](QParams::quantize), but rounds the quotient to f16 before rounding it to
    /// an integer. rotalabs_accel quantizes half-precision models this way. Meant for scales chosen
    /// with [`ScaleArithmetic::F16`](crate::ScaleArithmetic).
    ///
    /// ```
    /// use half::f16;
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.086_968, 0, CodeRange::I8)?;
    /// assert_eq!(p.quantize(1.0), 11); // the quotient is 11.498
    /// assert_eq!(p.quantize_in_f16(f16::ONE), 12); // 11.5 in f16, a tie
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn quantize_in_f16(&self, x: f16) -> i32 {
        self.round_quotient(f16::from_f32(x.to_f32() / self.divisor).to_f32())
    }

    /// Whether clamping changes the code of `x`. NaN is not clamped.
    pub(crate) fn clips(&self, x: f32) -> bool {
        let z = self.zero_point as f32;
        let code = match self.order {
            ZeroPointOrder::RoundThenAdd => self.rounded(x / self.divisor) + z,
            ZeroPointOrder::AddThenRound => self.rounded(x / self.divisor + z),
        };
        code < self.codes.min() as f32 || code > self.codes.max() as f32
    }

    fn rounded(&self, v: f32) -> f32 {
        match self.rounding {
            Rounding::TiesToEven => v.round_ties_even(),
            Rounding::TiesAway => v.round(),
        }
    }

    /// Rounds, adds the zero point and clamps.
    #[inline(always)]
    fn round_quotient(&self, quotient: f32) -> i32 {
        let (v, before, after) = match self.order {
            ZeroPointOrder::RoundThenAdd => (quotient, 0, self.zero_point),
            ZeroPointOrder::AddThenRound => (quotient + self.zero_point as f32, self.zero_point, 0),
        };
        let v = if v.is_nan() { before as f32 } else { v };
        // Clamping first gives the same result because the bounds are integers (see `rounding`).
        let (lo, hi) = ((self.codes.min() - after) as f32, (self.codes.max() - after) as f32);
        // Order and rounding are the same for a whole slice, so the compiler moves these choices
        // out of a loop.
        let rounded = match self.rounding {
            Rounding::TiesToEven => round_clamped(v, lo, hi),
            Rounding::TiesAway => round_clamped_ties_away(v, lo, hi),
        };
        rounded + after
    }

    /// `(f32(q) - f32(zero_point)) * scale`, in f32.
    ///
    /// Integers outside the codes use the same formula. The result can round to infinity for a
    /// tensor that reaches `f32::MAX`, because the scale is itself rounded and may be rounded up.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!([0, 10, 16].map(|q| p.dequantize(q)), [-5.0, 0.0, 3.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn dequantize(&self, q: i32) -> f32 {
        (q as f32 - self.zero_point as f32) * self.scale
    }

    /// `dequantize(quantize(x))`: the value that `x` becomes by being quantized and restored.
    ///
    /// ```
    /// use qcore::{CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 10, CodeRange::U8)?;
    /// assert_eq!([3.1, -100.0].map(|x| p.fake_quantize(x)), [3.0, -5.0]); // -5 is the value of code 0
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn fake_quantize(&self, x: f32) -> f32 {
        self.dequantize(self.quantize(x))
    }
}

/// Why numbers are not valid quantization parameters.
///
/// ```
/// use qcore::{CodeRange, QParams};
///
/// let error = QParams::new(0.0, 0, CodeRange::I8).unwrap_err();
/// assert_eq!(error.to_string(), "the scale must be finite and greater than 0 as f32, got 0e0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ParamError {
    /// The scale is 0, negative, infinite or NaN, as f32.
    #[error("the scale must be finite and greater than 0 as f32, got {scale:e}")]
    Scale {
        /// What was given.
        scale: f64,
    },
    /// The divisor is 0, negative or NaN.
    #[error("the divisor must be greater than 0, got {divisor:e}")]
    Divisor {
        /// What was given.
        divisor: f32,
    },
    /// The zero point is not one of the codes, or too distant.
    #[error("the zero point must be {min} to {max}, got {zero_point}")]
    ZeroPoint {
        /// What was given.
        zero_point: i32,
        /// The smallest zero point allowed, usually the smallest code.
        min: i32,
        /// The largest zero point allowed.
        max: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_scale_or_a_zero_point() {
        for scale in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(
                matches!(QParams::new(scale, 0, CodeRange::I8), Err(ParamError::Scale { .. })),
                "{scale}"
            );
        }
        for scale in [1e-60, 1e60] {
            assert!(QParams::with_f64_scale(scale, 0, CodeRange::I8).is_err(), "{scale}");
        }
        for zero_point in [-129, 128, i32::MIN, i32::MAX] {
            let error = QParams::new(1.0, zero_point, CodeRange::I8).unwrap_err();
            assert_eq!(error.to_string(), format!("the zero point must be -128 to 127, got {zero_point}"));
        }
        assert!(QParams::new(f32::from_bits(1), -128, CodeRange::I8).is_ok());
    }

    #[test]
    fn both_orders_equal_their_formulas_around_ties() {
        for zero_point in -128..=127 {
            let p = QParams::new(0.25, zero_point, CodeRange::I8).unwrap();
            let z = zero_point as f32;
            for k in -1100..=1100 {
                let tie = k as f32 / 8.0;
                for x in [tie, tie.next_up(), tie.next_down()] {
                    let after = ((x / 0.25).round_ties_even() + z).clamp(-128.0, 127.0) as i32;
                    let before = (x / 0.25 + z).round_ties_even().clamp(-128.0, 127.0) as i32;
                    assert_eq!(p.quantize(x), after, "{x} {zero_point}");
                    assert_eq!(
                        p.with_order(ZeroPointOrder::AddThenRound).quantize(x),
                        before,
                        "{x} {zero_point}"
                    );
                }
            }
        }
    }

    #[test]
    fn distant_zero_points_equal_their_formula() {
        for zero_point in [-(1 << 21), -255, -129, 0, 256, 510, 1 << 21] {
            let p = QParams::with_distant_zero_point(0.25, zero_point, CodeRange::U8).unwrap();
            for code in 0..=255 {
                let x = (code - zero_point) as f32 * 0.25;
                assert_eq!((p.quantize(x), p.dequantize(code)), (code, x), "{zero_point}");
            }
            let clamped = zero_point.clamp(0, 255);
            assert_eq!((p.quantize(0.0), p.quantize(f32::NAN)), (clamped, clamped));
            assert_eq!((p.quantize(-1e30), p.quantize(f32::INFINITY)), (0, 255));
        }
        assert!(QParams::with_distant_zero_point(1.0, (1 << 21) + 1, CodeRange::U8).is_err());
        assert!(QParams::with_distant_zero_point(1.0, i32::MIN, CodeRange::U8).is_err());
        assert!(QParams::with_distant_zero_point(0.0, 0, CodeRange::U8).is_err());
    }

    #[test]
    fn ties_away_from_zero_equal_their_formula() {
        for zero_point in [-128, -1, 0, 3, 127] {
            let p = QParams::new(0.25, zero_point, CodeRange::I8).unwrap().with_rounding(Rounding::TiesAway);
            let z = zero_point as f32;
            for k in -1100..=1100 {
                let tie = k as f32 / 8.0;
                for x in [tie, tie.next_up(), tie.next_down()] {
                    let after = ((x / 0.25).round() + z).clamp(-128.0, 127.0) as i32;
                    let before = (x / 0.25 + z).round().clamp(-128.0, 127.0) as i32;
                    assert_eq!(p.quantize(x), after, "{x} {zero_point}");
                    let p = p.with_order(ZeroPointOrder::AddThenRound);
                    assert_eq!(p.quantize(x), before, "{x} {zero_point}");
                }
            }
            assert_eq!(p.quantize(f32::NAN), zero_point);
            assert_eq!((p.quantize(f32::NEG_INFINITY), p.quantize(f32::INFINITY)), (-128, 127));
        }
    }

    #[test]
    fn every_input_has_a_result() {
        let tiny = f32::from_bits(1);
        for order in [ZeroPointOrder::RoundThenAdd, ZeroPointOrder::AddThenRound] {
            for scale in [tiny, f32::MIN_POSITIVE, 0.1, 1.0, f32::MAX] {
                for zero_point in [0, 1, 77, 255] {
                    let p = QParams::new(scale, zero_point, CodeRange::U8).unwrap().with_order(order);
                    assert_eq!(p.quantize(f32::NAN), zero_point);
                    assert_eq!(p.quantize(-f32::NAN), zero_point);
                    assert_eq!(p.quantize(f32::INFINITY), 255);
                    assert_eq!(p.quantize(f32::NEG_INFINITY), 0);
                    assert_eq!((p.quantize(0.0), p.quantize(-0.0)), (zero_point, zero_point));
                    assert_eq!(p.quantize_by_reciprocal(f32::NAN), zero_point);
                    assert_eq!(p.quantize_in_f16(f16::NAN), zero_point);
                    assert_eq!(p.quantize_in_f16(f16::NEG_INFINITY), 0);
                }
            }
        }
    }
}
