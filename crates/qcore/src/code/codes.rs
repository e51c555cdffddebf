//! The integers that values are quantized to: their range, and the two types that store them.

use thiserror::Error;

/// An inclusive range of integer codes, such as -128..=127. It always contains 0.
///
/// ```
/// use qcore::CodeRange;
///
/// assert_eq!(CodeRange::I8, CodeRange::signed(8)?);
/// assert_eq!((CodeRange::signed(4)?.min(), CodeRange::signed(4)?.max()), (-8, 7));
/// assert_eq!(CodeRange::signed(2)?.narrow().min(), -1);
/// assert!(CodeRange::unsigned(9).is_err());
/// # Ok::<(), qcore::CodeRangeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeRange {
    min: i32,
    max: i32,
}

impl CodeRange {
    /// -128..=127, all of `i8`.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!((CodeRange::I8.min(), CodeRange::I8.max()), (-128, 127));
    /// ```
    pub const I8: CodeRange = CodeRange { min: -128, max: 127 };
    /// -127..=127, the range of TensorFlow Lite's weights. It is symmetric, so negation stays in
    /// range.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!(CodeRange::I8_NARROW, CodeRange::I8.narrow());
    /// ```
    pub const I8_NARROW: CodeRange = CodeRange { min: -127, max: 127 };
    /// 0..=255, all of `u8`.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!((CodeRange::U8.min(), CodeRange::U8.max()), (0, 255));
    /// ```
    pub const U8: CodeRange = CodeRange { min: 0, max: 255 };

    /// `-2^(bits-1) ..= 2^(bits-1) - 1`.
    ///
    /// # Errors
    /// Unless `bits` is 2 to 8. (With one signed bit there would be no positive code.)
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// let int4 = CodeRange::signed(4)?;
    /// assert_eq!((int4.min(), int4.max()), (-8, 7));
    /// assert!(CodeRange::signed(1).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn signed(bits: u32) -> Result<CodeRange, CodeRangeError> {
        match bits {
            2..=8 => Ok(CodeRange { min: -(1 << (bits - 1)), max: (1 << (bits - 1)) - 1 }),
            _ => Err(CodeRangeError { bits }),
        }
    }

    /// `0 ..= 2^bits - 1`.
    ///
    /// # Errors
    /// Unless `bits` is 2 to 8.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// let uint4 = CodeRange::unsigned(4)?;
    /// assert_eq!((uint4.min(), uint4.max()), (0, 15));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn unsigned(bits: u32) -> Result<CodeRange, CodeRangeError> {
        match bits {
            2..=8 => Ok(CodeRange { min: 0, max: (1 << bits) - 1 }),
            _ => Err(CodeRangeError { bits }),
        }
    }

    /// This range without its lowest signed code: `-max..=max`. An unsigned range is unchanged.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!(CodeRange::signed(4)?.narrow().min(), -7);
    /// assert_eq!(CodeRange::U8.narrow(), CodeRange::U8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn narrow(self) -> CodeRange {
        CodeRange { min: if self.min < 0 { -self.max } else { self.min }, max: self.max }
    }

    /// Half of the codes, where these have 8 bits: PyTorch's `reduce_range`, which makes room in
    /// the 16-bit sums of `vpmaddubsw`. Ranges of fewer bits are unchanged.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!(CodeRange::U8.reduced(), CodeRange::unsigned(7)?);
    /// assert_eq!(CodeRange::I8.reduced(), CodeRange::signed(7)?);
    /// assert_eq!(CodeRange::unsigned(7)?.reduced(), CodeRange::unsigned(7)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn reduced(self) -> CodeRange {
        // A shift rounds down, as PyTorch's `//` does: -127..=127 becomes -64..=63, too.
        if self.steps() < 128 { self } else { CodeRange { min: self.min >> 1, max: self.max >> 1 } }
    }

    /// The smallest code.
    ///
    /// ```
    /// assert_eq!(qcore::CodeRange::I8.min(), -128);
    /// ```
    #[must_use]
    pub const fn min(self) -> i32 {
        self.min
    }

    /// The largest code.
    ///
    /// ```
    /// assert_eq!(qcore::CodeRange::I8.max(), 127);
    /// ```
    #[must_use]
    pub const fn max(self) -> i32 {
        self.max
    }

    /// The number of steps between the smallest and the largest code: 255 for eight bits.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!((CodeRange::I8.steps(), CodeRange::I8_NARROW.steps()), (255, 254));
    /// ```
    #[must_use]
    pub const fn steps(self) -> i32 {
        self.max - self.min
    }

    /// The code in the middle, which stands for 0 in a symmetric scheme: 0 for signed codes, 128
    /// for 0..=255.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert_eq!((CodeRange::I8.middle(), CodeRange::I8_NARROW.middle(), CodeRange::U8.middle()), (0, 0, 128));
    /// ```
    #[must_use]
    pub const fn middle(self) -> i32 {
        (self.min + self.max + 1) / 2
    }

    /// Whether `code` is in this range.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert!(CodeRange::I8.contains(-128));
    /// assert!(!CodeRange::I8_NARROW.contains(-128));
    /// ```
    #[must_use]
    pub const fn contains(self, code: i32) -> bool {
        self.min <= code && code <= self.max
    }

    /// Whether every code of `other` is in this range.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// assert!(CodeRange::I8.contains_range(CodeRange::I8_NARROW));
    /// assert!(!CodeRange::I8.contains_range(CodeRange::U8));
    /// ```
    #[must_use]
    pub const fn contains_range(self, other: CodeRange) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    /// The codes that are in both ranges: 0 at least.
    ///
    /// ```
    /// use qcore::CodeRange;
    ///
    /// let both = CodeRange::U8.intersection(CodeRange::signed(7)?);
    /// assert_eq!((both.min(), both.max()), (0, 63));
    /// # Ok::<(), qcore::CodeRangeError>(())
    /// ```
    #[must_use]
    pub const fn intersection(self, other: CodeRange) -> CodeRange {
        CodeRange {
            min: if self.min > other.min { self.min } else { other.min },
            max: if self.max < other.max { self.max } else { other.max },
        }
    }

    /// The largest `|code - zero_point|`. Together with the sums of the weights it bounds an
    /// accumulator.
    ///
    /// ```
    /// assert_eq!(qcore::CodeRange::U8.largest_distance(100), 155);
    /// ```
    #[must_use]
    pub const fn largest_distance(self, zero_point: i32) -> u32 {
        let (below, above) = (self.min.abs_diff(zero_point), self.max.abs_diff(zero_point));
        if below > above { below } else { above }
    }
}

/// The error for a number of bits that has no [`CodeRange`].
///
/// ```
/// assert_eq!(qcore::CodeRange::signed(9).unwrap_err().to_string(), "codes have 2 to 8 bits, got 9");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("codes have 2 to 8 bits, got {bits}")]
#[non_exhaustive]
pub struct CodeRangeError {
    /// The number of bits asked for.
    pub bits: u32,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for i8 {}
    impl Sealed for u8 {}
}

/// A type that stores codes: `i8` or `u8`. It is sealed because kernels rely on there being no
/// other.
///
/// ```
/// use qcore::{Code, CodeRange};
///
/// fn saturated<C: Code>(code: i32) -> i32 {
///     C::from_clamped(code).widen()
/// }
/// assert_eq!((saturated::<i8>(300), saturated::<u8>(300), saturated::<u8>(-1)), (127, 255, 0));
/// assert_eq!(<u8 as Code>::RANGE, CodeRange::U8);
/// ```
pub trait Code: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// Every value of the type.
    const RANGE: CodeRange;

    /// The code as this type. A value out of range saturates; it never wraps.
    #[must_use]
    fn from_clamped(code: i32) -> Self;

    /// The code as the i32 that arithmetic is done in.
    #[must_use]
    fn widen(self) -> i32;
}

impl Code for i8 {
    const RANGE: CodeRange = CodeRange::I8;

    // The clamp costs nothing in a loop: clamp and narrow together are one saturating pack
    // instruction.
    #[inline(always)]
    fn from_clamped(code: i32) -> i8 {
        code.clamp(-128, 127) as i8
    }

    #[inline(always)]
    fn widen(self) -> i32 {
        i32::from(self)
    }
}

impl Code for u8 {
    const RANGE: CodeRange = CodeRange::U8;

    #[inline(always)]
    fn from_clamped(code: i32) -> u8 {
        code.clamp(0, 255) as u8
    }

    #[inline(always)]
    fn widen(self) -> i32 {
        i32::from(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_every_width() {
        for bits in 2..=8 {
            let (signed, unsigned) = (CodeRange::signed(bits).unwrap(), CodeRange::unsigned(bits).unwrap());
            assert_eq!(signed.steps(), unsigned.steps());
            assert_eq!((signed.middle(), unsigned.middle()), (0, 1 << (bits - 1)));
            assert_eq!(signed.narrow().min(), -signed.max());
            assert_eq!(unsigned.narrow(), unsigned);
            assert!(CodeRange::I8.contains_range(signed) && CodeRange::U8.contains_range(unsigned));
            assert!(!CodeRange::U8.contains_range(signed));
        }
        for bits in [0, 1, 9, 32, u32::MAX] {
            assert_eq!(CodeRange::signed(bits).unwrap_err().bits, bits);
            assert_eq!(
                CodeRange::unsigned(bits).unwrap_err().to_string(),
                format!("codes have 2 to 8 bits, got {bits}")
            );
        }
        assert_eq!(CodeRange::I8.narrow(), CodeRange::I8_NARROW);
        assert_eq!(CodeRange::I8_NARROW.middle(), 0);
    }

    #[test]
    fn codes_saturate() {
        for code in [i32::MIN, -129, -128, -1, 0, 127, 128, 255, 256, i32::MAX] {
            assert_eq!(i8::from_clamped(code).widen(), code.clamp(-128, 127));
            assert_eq!(u8::from_clamped(code).widen(), code.clamp(0, 255));
        }
    }
}
