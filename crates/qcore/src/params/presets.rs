//! The schemes in use, each named after what it reproduces. A new convention is one function here.
//! If it needs a choice that does not exist yet, it also adds a variant to the right enum in
//! `scheme.rs`.

use super::order::{Rounding, ZeroPointOrder};
use super::scheme::{AffineRange, Kind, ScaleArithmetic, Scheme, SymmetricDivisor, ZeroScale};
use crate::code::CodeRange;

const SYMMETRIC: Kind = Kind::Symmetric { divisor: SymmetricDivisor::MaxCode };
const AS_OBSERVED: Kind = Kind::Affine { range: AffineRange::AsObserved };
const WITH_ZERO: Kind = Kind::Affine { range: AffineRange::ExtendedToZero };

/// Our own schemes.
impl Scheme {
    /// Our default for weights: symmetric, `scale = f32(max|w| / 127)` with the division in f64.
    ///
    /// Code -128 never occurs for the values that the range was observed on. Every finite range is
    /// accepted, and the scale is normal with a finite reciprocal.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::weights_i8().choose(Range::new(-1.27, 1.0)?)?;
    /// assert_eq!((p.scale(), p.zero_point(), p.quantize(-1.27)), (0.01, 0, -127));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn weights_i8() -> Scheme {
        Scheme {
            codes: CodeRange::I8,
            kind: SYMMETRIC,
            scale: ScaleArithmetic::F64StoredF32,
            zero_scale: ZeroScale::SubnormalIsOne,
            order: ZeroPointOrder::RoundThenAdd,
            rounding: Rounding::TiesToEven,
        }
    }

    /// Our default for activations: affine over the range extended to 0, codes 0..=255, with the
    /// scale computed in f64 and stored as f32. Every finite range is accepted.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::activations_u8().choose(Range::new(0.5, 2.55)?)?; // 0 to 2.55
    /// assert_eq!((p.scale(), p.zero_point(), p.quantize(2.55)), (0.01, 0, 255));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn activations_u8() -> Scheme {
        Scheme { codes: CodeRange::U8, kind: WITH_ZERO, ..Scheme::weights_i8() }
    }

    /// Like [`activations_u8`](Scheme::activations_u8) with codes -128..=127: the same steps, 128
    /// lower.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::activations_i8().choose(Range::new(0.5, 2.55)?)?;
    /// assert_eq!((p.scale(), p.zero_point(), p.quantize(2.55)), (0.01, -128, 127));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn activations_i8() -> Scheme {
        Scheme { codes: CodeRange::I8, kind: WITH_ZERO, ..Scheme::weights_i8() }
    }
}

/// The schemes of libraries and courses.
impl Scheme {
    /// `symmetric_quantize` of the PyTorch tutorial: `scale = max|x| / qmax` in f32, or 1 if that
    /// is 0. Applied per channel it is also what rotalabs_accel does to weights widened to f32.
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let four_bits = Scheme::tutorial_symmetric(CodeRange::signed(4)?);
    /// assert_eq!(four_bits.choose(Range::new(-0.5, 1.4)?)?.scale(), 1.4_f32 / 7.0);
    /// assert_eq!(four_bits.choose(Range::new(0.0, 0.0)?)?.scale(), 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn tutorial_symmetric(codes: CodeRange) -> Scheme {
        Scheme {
            codes,
            kind: SYMMETRIC,
            scale: ScaleArithmetic::F32,
            zero_scale: ZeroScale::One,
            order: ZeroPointOrder::RoundThenAdd,
            rounding: Rounding::TiesToEven,
        }
    }

    /// `asymmetric_quantize` of the PyTorch tutorial: affine over the range as observed, in f32.
    /// Meant for unsigned codes and ranges that contain 0; see [`AffineRange::AsObserved`].
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let p = Scheme::tutorial_affine(CodeRange::U8).choose(Range::new(5.0, 10.0)?)?;
    /// // The zero point would be -255 and is clamped, so that every value saturates.
    /// assert_eq!((p.zero_point(), p.fake_quantize(7.5)), (0, 5.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn tutorial_affine(codes: CodeRange) -> Scheme {
        Scheme { kind: AS_OBSERVED, ..Scheme::tutorial_symmetric(codes) }
    }

    /// ONNX DynamicQuantizeLinear: affine over the range extended to 0, in f32. ONNX defines it for
    /// [`CodeRange::U8`] and leaves an all-zero tensor undefined; here its scale is 1.
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let p = Scheme::onnx_dynamic(CodeRange::U8).choose(Range::new(-1.0, 3.0)?)?;
    /// assert_eq!((p.scale(), p.zero_point()), (4.0 / 255.0, 64)); // 63.75
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn onnx_dynamic(codes: CodeRange) -> Scheme {
        Scheme { kind: WITH_ZERO, ..Scheme::tutorial_symmetric(codes) }
    }

    /// TinyTorch's `quantize_int8`: affine over the range as observed, in f64. The zero point is
    /// added before rounding. A range narrower than 1e-8 counts as constant and becomes all 0.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::tinytorch().choose(Range::new(-1.0, 3.0)?)?;
    /// assert_eq!((p.scale_f64(), p.zero_point()), (4.0 / 255.0, -64)); // -64.25
    /// let constant = Scheme::tinytorch().choose(Range::new(5.0, 5.0)?)?;
    /// assert_eq!(constant.fake_quantize(5.0), 0.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn tinytorch() -> Scheme {
        Scheme {
            codes: CodeRange::I8,
            kind: AS_OBSERVED,
            scale: ScaleArithmetic::F64,
            zero_scale: ZeroScale::ConstantIsZero { below: 1e-8 },
            order: ZeroPointOrder::AddThenRound,
            rounding: Rounding::TiesToEven,
        }
    }

    /// `linear_quantize` of MIT 6.5940 lab 2, for activations: affine over the range as observed,
    /// in f64. A constant tensor is an error; the lab divides by 0 there.
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// // The lab's own example, in two bits.
    /// let lab = Scheme::lab2_linear(CodeRange::signed(2)?);
    /// let p = lab.choose(Range::new(-0.25, 0.75)?)?;
    /// assert_eq!((p.scale_f64(), p.zero_point()), (1.0 / 3.0, -1));
    /// assert!(lab.choose(Range::new(5.0, 5.0)?).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn lab2_linear(codes: CodeRange) -> Scheme {
        Scheme {
            codes,
            kind: AS_OBSERVED,
            scale: ScaleArithmetic::F64,
            zero_scale: ZeroScale::Reject,
            order: ZeroPointOrder::RoundThenAdd,
            rounding: Rounding::TiesToEven,
        }
    }

    /// The weights of MIT 6.5940 lab 2, per output channel: symmetric,
    /// `scale = f32(max(max|w|, 5e-7) / qmax)`.
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let p = Scheme::lab2_weights(CodeRange::I8).choose(Range::new(0.0, 0.0)?)?;
    /// assert_eq!(p.scale(), 5e-7 / 127.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn lab2_weights(codes: CodeRange) -> Scheme {
        Scheme {
            codes,
            kind: SYMMETRIC,
            scale: ScaleArithmetic::F64StoredF32,
            zero_scale: ZeroScale::FloorMagnitude(5e-7),
            order: ZeroPointOrder::RoundThenAdd,
            rounding: Rounding::TiesToEven,
        }
    }

    /// The rowwise exercise as solved: symmetric, in f32. It divides by `scale + 1e-10` but stores
    /// the scale alone.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::rowwise_epsilon().choose(Range::new(0.0, 0.0)?)?;
    /// assert_eq!((p.scale(), p.divisor(), p.fake_quantize(0.0)), (0.0, 1e-10, 0.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn rowwise_epsilon() -> Scheme {
        Scheme { zero_scale: ZeroScale::AddEpsilon(1e-10), ..Scheme::tutorial_symmetric(CodeRange::I8) }
    }

    /// The rowwise exercise as described: symmetric, in f32. A row of zeros, which the text leaves
    /// undefined, is an error.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// assert_eq!(Scheme::rowwise_described().choose(Range::new(-127.0, 0.0)?)?.scale(), 1.0);
    /// assert!(Scheme::rowwise_described().choose(Range::new(0.0, 0.0)?).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn rowwise_described() -> Scheme {
        Scheme { zero_scale: ZeroScale::Reject, ..Scheme::tutorial_symmetric(CodeRange::I8) }
    }

    /// rotalabs_accel on f16 weights in their own precision. Quantize with
    /// [`quantize_per_channel_in_f16`](crate::quantize_per_channel_in_f16). (For weights widened to
    /// f32 first, use [`tutorial_symmetric`](Scheme::tutorial_symmetric).)
    ///
    /// ```
    /// use half::f16;
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::rotalabs_native_f16().choose(Range::new(-1.0, 1.0)?)?;
    /// assert_eq!(p.scale(), f16::from_f32(1.0 / 127.0).to_f32());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn rotalabs_native_f16() -> Scheme {
        Scheme { scale: ScaleArithmetic::F16, ..Scheme::tutorial_symmetric(CodeRange::I8) }
    }

    /// The `affine` schemes of PyTorch's observers: the range extended to 0, in f32, with a scale
    /// of at least 2^-23. PyTorch's reduced range is [`CodeRange::unsigned`]\(7) or
    /// [`CodeRange::signed`]\(7).
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let p = Scheme::pytorch_affine(CodeRange::U8).choose(Range::new(0.0, 0.0)?)?;
    /// assert_eq!((p.scale(), p.zero_point()), (f32::EPSILON, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn pytorch_affine(codes: CodeRange) -> Scheme {
        Scheme { zero_scale: ZeroScale::FloorScale(f32::EPSILON), ..Scheme::onnx_dynamic(codes) }
    }

    /// The `symmetric` schemes of PyTorch's observers: `scale = max|x| / ((qmax - qmin) / 2)`, at
    /// least 2^-23, and zero point 0, or 128 for 0..=255.
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let range = Range::new(-127.5, 127.5)?;
    /// let p = Scheme::pytorch_symmetric(CodeRange::I8).choose(range)?;
    /// assert_eq!((p.scale(), p.quantize(-127.5), p.quantize(127.5)), (1.0, -128, 127));
    /// assert_eq!(Scheme::pytorch_symmetric(CodeRange::U8).choose(range)?.zero_point(), 128);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn pytorch_symmetric(codes: CodeRange) -> Scheme {
        Scheme {
            kind: Kind::Symmetric { divisor: SymmetricDivisor::HalfRange },
            zero_scale: ZeroScale::FloorScale(f32::EPSILON),
            ..Scheme::tutorial_symmetric(codes)
        }
    }

    /// TensorFlow Lite's int8 weights, per output channel: symmetric over -127..=127 with
    /// `scale = max|w| / 127`, or 1 if that is 0, and ties away from zero.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    ///
    /// let p = Scheme::tflite_weights().choose(Range::new(-127.0, 100.0)?)?;
    /// assert_eq!([0.5, -2.5, -1e9].map(|w| p.quantize(w)), [1, -3, -127]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn tflite_weights() -> Scheme {
        Scheme { rounding: Rounding::TiesAway, ..Scheme::tutorial_symmetric(CodeRange::I8_NARROW) }
    }

    /// TensorFlow Lite's activations: affine over the range extended to 0, in f64, with ties away
    /// from zero for zero point and values. Codes are [`CodeRange::I8`], or [`CodeRange::U8`] in
    /// older models. For an all-zero tensor TensorFlow Lite stores a scale of 0; here it is 1.
    ///
    /// ```
    /// use qcore::{CodeRange, Range, Scheme};
    ///
    /// let range = Range::new(-2.0, 2.0)?; // the exact zero point is -0.5
    /// assert_eq!(Scheme::tflite_activations(CodeRange::I8).choose(range)?.zero_point(), -1);
    /// assert_eq!(Scheme::tinytorch().choose(range)?.zero_point(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn tflite_activations(codes: CodeRange) -> Scheme {
        Scheme {
            codes,
            kind: WITH_ZERO,
            scale: ScaleArithmetic::F64TiesAway,
            zero_scale: ZeroScale::One,
            order: ZeroPointOrder::RoundThenAdd,
            rounding: Rounding::TiesAway,
        }
    }
}
