//! Schemes: how scale and zero point are computed from a range.
//!
//! The libraries and courses of this field disagree on divisors, precisions and degenerate inputs.
//! Each choice is a named value here, and each combination in use is a named scheme in
//! `presets.rs`.

use half::f16;
use thiserror::Error;

use super::order::{Rounding, ZeroPointOrder};
use super::qparams::{ParamError, QParams};
use crate::code::CodeRange;
use crate::value::{Range, round_f64};

/// How a [`Range`] becomes [`QParams`]. The default is [`Scheme::weights_i8`].
///
/// ```
/// use qcore::{CodeRange, Range, Scheme};
///
/// let range = Range::new(-1.0, 3.0)?;
/// let p = Scheme::activations_u8().choose(range)?;
/// assert_eq!((p.scale(), p.zero_point()), (4.0 / 255.0, 64));
///
/// let four_bits = Scheme { codes: CodeRange::signed(4)?, ..Scheme::default() };
/// assert_eq!(four_bits.choose(range)?.scale(), 3.0 / 7.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// The codes that values are clamped to.
    pub codes: CodeRange,
    /// Whether the zero point is fixed or computed from the range.
    pub kind: Kind,
    /// The precision that scale and zero point are computed in.
    pub scale: ScaleArithmetic,
    /// What to do if the scale would be 0, or nearly 0.
    pub zero_scale: ZeroScale,
    /// Whether values are rounded before or after the zero point is added.
    pub order: ZeroPointOrder,
    /// Where values halfway between two codes are rounded to.
    pub rounding: Rounding,
}

/// Whether the zero point is fixed or computed from the range.
///
/// ```
/// use qcore::{AffineRange, Kind, Range, Scheme};
///
/// let range = Range::new(0.0, 2.0)?;
/// let affine = Kind::Affine { range: AffineRange::ExtendedToZero };
/// let symmetric = Scheme::weights_i8().choose(range)?;
/// let affine = Scheme { kind: affine, ..Scheme::weights_i8() }.choose(range)?;
/// assert_eq!((symmetric.zero_point(), affine.zero_point()), (0, -128));
/// assert!(affine.scale() < symmetric.scale()); // no codes for values that do not occur
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `scale = max|x| / divisor`, and the zero point is the [middle code](CodeRange::middle): 0
    /// for signed codes, 128 for 0..=255. Used for weights nearly everywhere.
    Symmetric {
        /// The number of steps that `max|x|` is divided into.
        divisor: SymmetricDivisor,
    },
    /// `scale = (max - min) / (qmax - qmin)` and
    /// `zero_point = clamp(round(qmin - min / scale), qmin, qmax)`. Used for activations.
    Affine {
        /// The range that is divided.
        range: AffineRange,
    },
}

/// The divisor of a symmetric scheme.
///
/// ```
/// use qcore::{Kind, Range, Scheme, SymmetricDivisor};
///
/// let scale = |divisor| Scheme { kind: Kind::Symmetric { divisor }, ..Scheme::weights_i8() };
/// let range = Range::new(-1.0, 1.0)?;
/// assert_eq!(scale(SymmetricDivisor::MaxCode).choose(range)?.scale(), 1.0 / 127.0);
/// assert_eq!(scale(SymmetricDivisor::HalfRange).choose(range)?.scale(), 1.0 / 127.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SymmetricDivisor {
    /// `qmax - zero_point`, 127 for eight bits, so ±max|x| become ±127. ONNX Runtime, TensorFlow
    /// Lite, the PyTorch tutorial, MIT 6.5940 lab 2 and most others.
    MaxCode,
    /// `(qmax - qmin) / 2`, 127.5 for eight bits. Code -128 is used too, and `+max|x|` is clamped.
    /// PyTorch's observers.
    HalfRange,
}

/// The range of an affine scheme.
///
/// ```
/// use qcore::{AffineRange, Kind, Range, Scheme};
///
/// let restored = |range| -> Result<f32, Box<dyn std::error::Error>> {
///     let scheme = Scheme { kind: Kind::Affine { range }, ..Scheme::activations_u8() };
///     Ok(scheme.choose(Range::new(5.0, 10.0)?)?.fake_quantize(8.0))
/// };
/// assert_eq!(restored(AffineRange::AsObserved)?, 5.0);
/// assert!((restored(AffineRange::AsObservedDistantZero)? - 8.0).abs() <= 5.0 / 255.0 / 2.0);
/// assert!((restored(AffineRange::ExtendedToZero)? - 8.0).abs() <= 10.0 / 255.0 / 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AffineRange {
    /// As observed. If it does not contain 0, the zero point is clamped and values saturate: [5,
    /// 10] is restored as 5 throughout. The PyTorch tutorial, TinyTorch, MIT 6.5940 lab 2.
    AsObserved,
    /// As observed, with the zero point wherever it falls, inside the codes or outside. [5, 10]
    /// keeps all its codes, and 0 has no code. For values that are never padded with 0. See
    /// [`with_distant_zero_point`](QParams::with_distant_zero_point).
    AsObservedDistantZero,
    /// Extended to contain 0, which is then restored exactly. ONNX, PyTorch's observers, and our
    /// presets.
    ExtendedToZero,
}

/// The precision in which scale and zero point are computed. Values are divided by the scale in f32
/// in every case.
///
/// ```
/// use qcore::{Range, ScaleArithmetic, Scheme};
///
/// let params = |scale| Scheme { scale, ..Scheme::activations_u8() }.choose(Range::new(-3e38, 3e38).unwrap());
/// assert!(params(ScaleArithmetic::F32).is_err()); // 6e38 is no f32
/// assert!(params(ScaleArithmetic::F64StoredF32).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScaleArithmetic {
    /// Every step in f32, with `zero_point = qmin - round(min / scale)`. A range wider than
    /// `f32::MAX` is an error. ONNX DynamicQuantizeLinear, PyTorch's observers, the PyTorch
    /// tutorial.
    F32,
    /// In f64 and kept in f64: the zero point is computed from the unrounded scale. TinyTorch and
    /// MIT 6.5940 lab 2 (activations), where a scale is a Python float.
    F64,
    /// In f64, then rounded to f32. The zero point is computed in f64 from the rounded scale. No
    /// range overflows. MIT 6.5940 lab 2 (weights) and our presets.
    F64StoredF32,
    /// In f64 and kept in f64. The zero point is computed from the end of the range that needs less
    /// rounding, as `qmin - min / scale` or `qmax - max / scale`, with ties away from zero.
    /// TensorFlow Lite's `ChooseQuantizationParams`.
    F64TiesAway,
    /// The magnitude (or range) and the scale are each rounded to f16. Quantize with
    /// [`quantize_in_f16`](QParams::quantize_in_f16). rotalabs_accel on a half-precision model.
    F16,
}

/// What to do if all values are (nearly) equal or (nearly) 0, so that the scale rounded to f32
/// would be 0.
///
/// ```
/// use qcore::{Range, Scheme, ZeroScale};
///
/// let zeros = Range::new(0.0, 0.0)?;
/// let scale = |zero_scale| Scheme { zero_scale, ..Scheme::weights_i8() }.choose(zeros).map(|p| p.scale());
/// assert_eq!(scale(ZeroScale::SubnormalIsOne)?, 1.0);
/// assert_eq!(scale(ZeroScale::FloorScale(f32::EPSILON))?, f32::EPSILON);
/// assert_eq!(scale(ZeroScale::AddEpsilon(1e-10))?, 0.0);
/// assert!(scale(ZeroScale::Reject).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ZeroScale {
    /// A scale of 0 becomes 1. The PyTorch tutorial.
    One,
    /// A scale that is 0 or subnormal becomes 1, so its reciprocal is finite too. All codes are
    /// then the zero point. Our presets.
    SubnormalIsOne,
    /// Values are divided by `scale + epsilon` (in f32). The stored scale is not changed: it may be
    /// 0, and then restores every value as 0. Rows whose scale is near epsilon lose precision. The
    /// rowwise exercise, with 1e-10.
    AddEpsilon(f32),
    /// The magnitude (symmetric) or width (affine) is raised to at least this before it is divided.
    /// MIT 6.5940 lab 2, with 5e-7.
    FloorMagnitude(f32),
    /// The scale is raised to at least this. PyTorch's observers, with 2^-23.
    FloorScale(f32),
    /// A range narrower than this counts as constant. The scale is 1, the zero point 0, and every
    /// value becomes code 0, so a constant other than 0 is lost. TinyTorch, with 1e-8.
    ConstantIsZero {
        /// The width, in f64, below which a range is constant.
        below: f64,
    },
    /// A scale of 0 is an error. For schemes whose source does not define that case.
    Reject,
}

impl Default for Scheme {
    fn default() -> Scheme {
        Scheme::weights_i8()
    }
}

impl Scheme {
    /// The parameters for values in `range`.
    ///
    /// # Errors
    /// When the scale is not finite (a huge range in f32 or f16 arithmetic), or is 0 under
    /// [`ZeroScale::Reject`].
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let p = Scheme::activations_u8().choose(Range::new(0.0, 2.55)?)?;
    /// assert_eq!((p.scale(), p.zero_point()), (0.01, 0));
    /// assert!(Scheme::lab2_linear(CodeRange::I8).choose(Range::new(5.0, 5.0)?).is_err()); // a scale of 0
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn choose(&self, range: Range) -> Result<QParams, SchemeError> {
        let range = match self.kind {
            Kind::Affine { range: AffineRange::ExtendedToZero } => range.extended_to_zero(),
            Kind::Affine { .. } | Kind::Symmetric { .. } => range,
        };
        if let ZeroScale::ConstantIsZero { below } = self.zero_scale
            && f64::from(range.max()) - f64::from(range.min()) < below
        {
            // Dividing by infinity makes every value 0 whatever the constant, so callers need no
            // special case.
            return self.params(range, 1.0, f32::INFINITY, 0);
        }
        let scale = self.replace_zero(range, self.scale_of(range))?;
        // Values are divided in f32; the zero point uses the unrounded divisor.
        let (divisor, exact_divisor) = match self.zero_scale {
            ZeroScale::AddEpsilon(epsilon) => (scale as f32 + epsilon, f64::from(scale as f32 + epsilon)),
            _ => (scale as f32, scale),
        };
        let zero_point = match self.kind {
            Kind::Symmetric { .. } => self.codes.middle(),
            Kind::Affine { .. } => self.zero_point_of(range, exact_divisor),
        };
        self.params(range, scale, divisor, zero_point)
    }

    /// The magnitude or width of the range divided into steps, in the precision of the scheme.
    fn scale_of(&self, range: Range) -> f64 {
        let codes = self.codes;
        let (low, high, steps) = match self.kind {
            Kind::Symmetric { divisor: SymmetricDivisor::MaxCode } => {
                (0.0, range.abs_max(), f64::from(codes.max() - codes.middle()))
            }
            Kind::Symmetric { divisor: SymmetricDivisor::HalfRange } => {
                (0.0, range.abs_max(), f64::from(codes.steps()) / 2.0)
            }
            Kind::Affine { .. } => (range.min(), range.max(), f64::from(codes.steps())),
        };
        let floor = match self.zero_scale {
            ZeroScale::FloorMagnitude(floor) => floor,
            _ => 0.0,
        };
        match self.scale {
            ScaleArithmetic::F32 => f64::from((high - low).max(floor) / steps as f32),
            ScaleArithmetic::F64 | ScaleArithmetic::F64TiesAway => {
                (f64::from(high) - f64::from(low)).max(f64::from(floor)) / steps
            }
            ScaleArithmetic::F64StoredF32 => {
                let scale = (f64::from(high) - f64::from(low)).max(f64::from(floor)) / steps;
                f64::from(scale as f32)
            }
            ScaleArithmetic::F16 => {
                let width = f16::from_f32((high - low).max(floor));
                f16::from_f32(width.to_f32() / steps as f32).to_f64()
            }
        }
    }

    /// Applies the rule for a scale that is 0 as f32, or close to 0.
    fn replace_zero(&self, range: Range, scale: f64) -> Result<f64, SchemeError> {
        let rounded = scale as f32;
        match self.zero_scale {
            ZeroScale::One | ZeroScale::FloorMagnitude(_) | ZeroScale::ConstantIsZero { .. }
                if rounded == 0.0 =>
            {
                Ok(1.0)
            }
            ZeroScale::SubnormalIsOne if rounded < f32::MIN_POSITIVE => Ok(1.0),
            ZeroScale::FloorScale(floor) => Ok(scale.max(f64::from(floor))),
            ZeroScale::Reject if rounded == 0.0 => {
                Err(SchemeError::ZeroScale { min: range.min(), max: range.max() })
            }
            _ => Ok(scale),
        }
    }

    /// The code of 0: `clamp(round(qmin - min / scale), qmin, qmax)`.
    fn zero_point_of(&self, range: Range, divisor: f64) -> i32 {
        let (min, max) = (range.min(), range.max());
        let (qmin, qmax) = (f64::from(self.codes.min()), f64::from(self.codes.max()));
        let exact = match self.scale {
            // The quotient is rounded before it is subtracted. Both are then integers, so computing
            // in f64 changes nothing.
            ScaleArithmetic::F32 | ScaleArithmetic::F16 => qmin - round_f64(f64::from(min / divisor as f32)),
            ScaleArithmetic::F64 | ScaleArithmetic::F64StoredF32 => {
                round_f64(qmin - f64::from(min) / divisor)
            }
            ScaleArithmetic::F64TiesAway => {
                let (low, high) = (f64::from(min) / divisor, f64::from(max) / divisor);
                // The range is less than a step wide: its scale has been replaced, and neither end
                // determines the zero point.
                if high - low < 1.0 {
                    return 0.clamp(self.codes.min(), self.codes.max());
                }
                let from_min = qmin.abs() + low.abs() < qmax.abs() + high.abs();
                if from_min { (qmin - low).round() } else { (qmax - high).round() }
            }
        };
        match self.kind {
            // `as` saturates, and `params` refuses a zero point that is too far away.
            Kind::Affine { range: AffineRange::AsObservedDistantZero } => exact as i32,
            _ => exact.clamp(qmin, qmax) as i32,
        }
    }

    fn params(
        &self,
        range: Range,
        scale: f64,
        divisor: f32,
        zero_point: i32,
    ) -> Result<QParams, SchemeError> {
        let params = match self.kind {
            Kind::Affine { range: AffineRange::AsObservedDistantZero } if divisor == scale as f32 => {
                QParams::with_distant_zero_point(scale, zero_point, self.codes)
            }
            _ => QParams::of_scheme(scale, divisor, zero_point, self.codes),
        };
        match params {
            Ok(params) => Ok(params.with_order(self.order).with_rounding(self.rounding)),
            Err(ParamError::Scale { scale }) if scale as f32 == f32::INFINITY => {
                Err(SchemeError::Overflow { min: range.min(), max: range.max(), arithmetic: self.scale })
            }
            Err(error) => Err(SchemeError::Params(error)),
        }
    }
}

/// Why a scheme has no parameters for a range.
///
/// ```
/// use qcore::{CodeRange, Range, Scheme};
///
/// let error = Scheme::onnx_dynamic(CodeRange::U8).choose(Range::new(-3e38, 3e38)?).unwrap_err();
/// assert_eq!(error.to_string(), "the scale of the range -3e38 to 3e38 overflows in F32 arithmetic");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SchemeError {
    /// The width of the range overflows in the arithmetic of the scheme.
    #[error("the scale of the range {min:e} to {max:e} overflows in {arithmetic:?} arithmetic")]
    Overflow {
        /// The smallest value.
        min: f32,
        /// The largest value.
        max: f32,
        /// The arithmetic in which it overflows.
        arithmetic: ScaleArithmetic,
    },
    /// The scale is 0 and the scheme has no rule for it.
    #[error("the scale of the range {min:e} to {max:e} is 0, and the scheme rejects that")]
    ZeroScale {
        /// The smallest value.
        min: f32,
        /// The largest value.
        max: f32,
    },
    /// A field of the scheme leads to impossible parameters, such as a negative epsilon.
    #[error(transparent)]
    Params(#[from] ParamError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: [fn() -> Scheme; 3] =
        [Scheme::weights_i8, Scheme::activations_u8, Scheme::activations_i8];

    #[test]
    fn defaults_are_defined_for_every_finite_range() {
        let tiny = f32::from_bits(1);
        let ends = [
            -f32::MAX,
            -1e30,
            -1.0,
            -1e-30,
            -f32::MIN_POSITIVE,
            -tiny,
            0.0,
            tiny,
            1e-38,
            0.3,
            1e30,
            f32::MAX,
        ];
        for scheme in DEFAULTS.map(|scheme| scheme()) {
            for (i, &min) in ends.iter().enumerate() {
                for &max in &ends[i..] {
                    let p = scheme.choose(Range::new(min, max).unwrap()).unwrap();
                    assert!(p.scale().is_normal() && p.scale().recip().is_finite(), "{min:e} {max:e} {p:?}");
                    assert_eq!(p.fake_quantize(0.0), 0.0, "0 is restored exactly: {min:e} {max:e} {p:?}");
                }
            }
        }
    }

    #[test]
    fn a_range_beside_zero_keeps_its_codes_if_the_zero_point_may_be_distant() {
        let kind = Kind::Affine { range: AffineRange::AsObservedDistantZero };
        let scheme = Scheme { kind, ..Scheme::activations_u8() };
        for (min, max) in [(5.0, 10.0), (-10.0, -5.0), (0.1, 1.0), (-1.0, 2.0), (1000.0, 1001.0)] {
            let p = scheme.choose(Range::new(min, max).unwrap()).unwrap();
            for x in [min, max, (min + max) / 2.0] {
                let error = (p.fake_quantize(x) - x).abs();
                assert!(error <= p.scale() * 0.51 + max.abs() * f32::EPSILON, "{x} {p:?}");
            }
        }
        // Millions of steps away from 0, and less than one step wide.
        let far = scheme.choose(Range::new(1e6, 1e6 + 1.0).unwrap());
        assert!(matches!(far, Err(SchemeError::Params(ParamError::ZeroPoint { .. }))));
        assert!(scheme.choose(Range::new(5.0, 5.0).unwrap()).is_ok());
    }

    #[test]
    fn weights_never_become_minus_128() {
        for bits in (0..0x7f80_0000_u32).step_by(100_003) {
            let value = f32::from_bits(bits);
            let p = Scheme::weights_i8().choose(Range::new(-value, 0.0).unwrap()).unwrap();
            assert!(p.quantize(-value) >= -127, "{value:e}");
        }
    }

    #[test]
    fn f32_arithmetic_reports_overflow() {
        let range = Range::new(-3e38, 3e38).unwrap();
        let error = Scheme::onnx_dynamic(CodeRange::U8).choose(range).unwrap_err();
        assert_eq!(error.to_string(), "the scale of the range -3e38 to 3e38 overflows in F32 arithmetic");
        let f16 = Scheme::rotalabs_native_f16().choose(Range::new(0.0, 1e6).unwrap());
        assert!(matches!(f16, Err(SchemeError::Overflow { .. })));
    }

    #[test]
    fn nonsense_in_a_public_field_is_an_error_or_harmless() {
        for bad in [f32::NAN, -1.0, f32::INFINITY, f32::NEG_INFINITY] {
            for rule in
                [ZeroScale::AddEpsilon(bad), ZeroScale::FloorMagnitude(bad), ZeroScale::FloorScale(bad)]
            {
                for kind in [
                    Kind::Symmetric { divisor: SymmetricDivisor::MaxCode },
                    Kind::Affine { range: AffineRange::AsObserved },
                ] {
                    let scheme = Scheme { zero_scale: rule, kind, ..Scheme::default() };
                    for range in [Range::new(0.0, 0.0).unwrap(), Range::new(-1.0, 2.0).unwrap()] {
                        if let Ok(p) = scheme.choose(range) {
                            assert!(
                                p.scale().is_finite() && p.codes().contains(p.zero_point()),
                                "{scheme:?} {p:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_constant_is_lost_under_the_rule_that_says_so() {
        let p = Scheme::tinytorch().choose(Range::new(5.0, 5.0).unwrap()).unwrap();
        assert_eq!((p.scale(), p.zero_point(), p.quantize(5.0), p.dequantize(0)), (1.0, 0, 0, 0.0));
    }

    #[test]
    fn a_rejected_zero_scale_is_an_error() {
        let error = Scheme::lab2_linear(CodeRange::I8).choose(Range::new(5.0, 5.0).unwrap()).unwrap_err();
        assert_eq!(error, SchemeError::ZeroScale { min: 5.0, max: 5.0 });
    }
}
