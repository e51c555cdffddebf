//! The smallest and the largest of a set of values.

use thiserror::Error;

use super::float::Float;

/// The smallest and the largest of some values. Both are finite, and `min <= max`.
///
/// ```
/// use qcore::{Range, RangeError};
///
/// let range = Range::of(&[0.5, 2.0, 1.0])?;
/// assert_eq!((range.min(), range.max()), (0.5, 2.0));
/// assert_eq!(range.extended_to_zero(), Range::new(0.0, 2.0)?);
/// assert!(matches!(Range::of(&[1.0, f32::NAN]), Err(RangeError::NonFinite { index: 1, .. })));
/// assert_eq!(Range::of_finite(&[1.0, f32::NAN]), Some(Range::new(1.0, 1.0)?));
/// # Ok::<(), RangeError>(())
/// ```
///
/// The default is 0 to 0, the range of an all-zero tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    min: f32,
    max: f32,
}

impl Range {
    /// The range from `min` to `max`.
    ///
    /// # Errors
    /// Unless both are finite and `min <= max`.
    ///
    /// ```
    /// use qcore::Range;
    ///
    /// assert!(Range::new(-1.0, 2.0).is_ok());
    /// assert!(Range::new(2.0, -1.0).is_err());
    /// assert!(Range::new(0.0, f32::INFINITY).is_err());
    /// ```
    pub fn new(min: f32, max: f32) -> Result<Range, RangeError> {
        // Adding 0 turns -0.0 into 0.0, so that equal ranges have equal bits.
        match min.is_finite() && max.is_finite() && min <= max {
            true => Ok(Range { min: min + 0.0, max: max + 0.0 }),
            false => Err(RangeError::Bounds { min, max }),
        }
    }

    /// The range of values that must all be finite.
    ///
    /// # Errors
    /// When there are no values, or one of them is NaN or infinite. The error gives its index.
    ///
    /// ```
    /// use qcore::Range;
    ///
    /// assert_eq!(Range::of(&[0.5, -2.0, 1.0])?, Range::new(-2.0, 1.0)?);
    /// let error = Range::of(&[0.5, f32::INFINITY]).unwrap_err();
    /// assert_eq!(error.to_string(), "value inf at index 1 is not finite");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // see `Scan::of`
    pub fn of(values: &[f32]) -> Result<Range, RangeError> {
        let scan = Scan::of(values);
        if scan.finite < values.len() {
            return Err(non_finite(values));
        }
        scan.range().ok_or(RangeError::Empty)
    }

    /// [`of`](Range::of) for any [`Float`] type.
    ///
    /// # Errors
    /// As [`of`](Range::of).
    ///
    /// ```
    /// use half::f16;
    /// use qcore::Range;
    ///
    /// assert_eq!(Range::of_floats(&[0.5, -2.0].map(f16::from_f32))?, Range::new(-2.0, 0.5)?);
    /// # Ok::<(), qcore::RangeError>(())
    /// ```
    pub fn of_floats<F: Float>(values: &[F]) -> Result<Range, RangeError> {
        const BLOCK: usize = 1024;
        let (mut wide, mut whole) = ([0.0; BLOCK], None);
        for (block, values) in values.chunks(BLOCK).enumerate() {
            let wide = &mut wide[..values.len()];
            F::widen_slice(values, wide);
            let range = Range::of(wide).map_err(|error| match error {
                RangeError::NonFinite { index, value } => {
                    RangeError::NonFinite { index: block * BLOCK + index, value }
                }
                other => other,
            })?;
            whole = Some(whole.map_or(range, |whole: Range| whole.merge(range)));
        }
        whole.ok_or(RangeError::Empty)
    }

    /// The range of the finite values; `None` if there are none.
    ///
    /// ```
    /// use qcore::Range;
    ///
    /// assert_eq!(Range::of_finite(&[0.5, f32::INFINITY, -2.0]), Some(Range::new(-2.0, 0.5)?));
    /// assert_eq!(Range::of_finite(&[f32::NAN]), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn of_finite(values: &[f32]) -> Option<Range> {
        Scan::of(values).range()
    }

    /// The smallest value.
    ///
    /// ```
    /// assert_eq!(qcore::Range::of(&[0.5, -2.0, 1.0])?.min(), -2.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn min(self) -> f32 {
        self.min
    }

    /// The largest value.
    ///
    /// ```
    /// assert_eq!(qcore::Range::of(&[0.5, -2.0, 1.0])?.max(), 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max(self) -> f32 {
        self.max
    }

    /// The smallest range that contains both.
    ///
    /// ```
    /// use qcore::Range;
    ///
    /// assert_eq!(Range::new(-1.0, 1.0)?.merge(Range::new(2.0, 3.0)?), Range::new(-1.0, 3.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn merge(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// The smallest range that contains this one and 0, so that 0 is restored exactly. ONNX and
    /// PyTorch do this.
    ///
    /// ```
    /// use qcore::Range;
    ///
    /// assert_eq!(Range::new(1.0, 2.0)?.extended_to_zero(), Range::new(0.0, 2.0)?);
    /// assert_eq!(Range::new(-1.0, 2.0)?.extended_to_zero(), Range::new(-1.0, 2.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn extended_to_zero(self) -> Range {
        self.merge(Range { min: 0.0, max: 0.0 })
    }

    /// The largest magnitude, `max(|min|, |max|)`.
    ///
    /// ```
    /// assert_eq!(qcore::Range::new(-3.0, 2.0)?.abs_max(), 3.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn abs_max(self) -> f32 {
        self.min.abs().max(self.max.abs())
    }
}

/// Why values have no range.
///
/// ```
/// assert_eq!(qcore::Range::of(&[]).unwrap_err().to_string(), "no values, so no range");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RangeError {
    /// There are no values.
    #[error("no values, so no range")]
    Empty,
    /// A value is NaN or infinite.
    #[error("value {value} at index {index} is not finite")]
    NonFinite {
        /// Its index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The bounds are not finite or not in order.
    #[error("the bounds must be finite and in order, got {min:?} and {max:?}")]
    Bounds {
        /// The lower bound given.
        min: f32,
        /// The upper bound given.
        max: f32,
    },
}

/// The error for a slice that is known to contain a value that is not finite.
#[cold]
fn non_finite(values: &[f32]) -> RangeError {
    match crate::first_non_finite(values) {
        Some((index, value)) => RangeError::NonFinite { index, value },
        None => RangeError::Empty,
    }
}

/// An integer for each float, in the order of the floats: negative ones have the bits of their
/// magnitude reversed.
#[inline(always)]
fn key(value: f32) -> i32 {
    let bits = value.to_bits().cast_signed();
    bits ^ (bits >> 31) & i32::MAX
}

/// The float that has a key.
#[inline(always)]
fn value(key: i32) -> f32 {
    f32::from_bits((key ^ (key >> 31) & i32::MAX).cast_unsigned())
}

/// Minimum, maximum and number of the finite values of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Scan {
    min: f32,
    max: f32,
    pub(crate) finite: usize,
}

impl Scan {
    #[inline(always)]
    pub(crate) fn of(values: &[f32]) -> Scan {
        Scan::of_all_finite(values).unwrap_or_else(|| Scan::of_any(values))
    }

    /// Scans values that are all finite, in three steps for each. `None` if there is no value, or
    /// one is not finite.
    ///
    /// The larger a magnitude, the larger its bits; NaN and infinities have the largest. Bits of
    /// negative values are below all others as i32, and above all others as u32. So the largest i32
    /// is the maximum, and the largest u32 the minimum, if there are values of that sign; if there
    /// are none, it is the smallest magnitude, the least i32. Minima of integers may be reordered
    /// by the compiler, as in [`of_any`](Self::of_any).
    #[inline(always)]
    fn of_all_finite(values: &[f32]) -> Option<Scan> {
        const INFINITY: i32 = f32::INFINITY.to_bits().cast_signed();
        let (mut least, mut most, mut most_unsigned) = (i32::MAX, i32::MIN, 0);
        for value in values {
            let bits = value.to_bits();
            least = least.min(bits.cast_signed());
            most = most.max(bits.cast_signed());
            most_unsigned = most_unsigned.max(bits);
        }
        if most >= INFINITY || most_unsigned >= f32::NEG_INFINITY.to_bits() || values.is_empty() {
            return None;
        }
        let most_negative = most_unsigned.cast_signed();
        let min = if most_negative < 0 { most_negative } else { least };
        let max = if most >= 0 { most } else { least };
        let value = |bits: i32| f32::from_bits(bits.cast_unsigned());
        Some(Scan { min: value(min), max: value(max), finite: values.len() })
    }

    /// Scans keys, which are integers. The compiler may not reorder minima of floats, but it may
    /// those of integers, so it vectorizes this loop as it stands. The function is always inlined,
    /// so a caller compiled for AVX gets AVX code here too.
    #[inline(always)]
    fn of_any(values: &[f32]) -> Scan {
        let (mut min, mut max, mut finite) = (i32::MAX, i32::MIN, 0);
        // In blocks, so that the count of finite values in a block fits u32 for any length.
        for block in values.chunks(1 << 16) {
            let mut count = 0;
            for &value in block {
                let (key, keep) = (key(value), value.abs() < f32::INFINITY);
                min = min.min(if keep { key } else { i32::MAX });
                max = max.max(if keep { key } else { i32::MIN });
                count += u32::from(keep);
            }
            finite += count as usize;
        }
        // Without a finite value both are NaN, which make no range.
        Scan { min: value(min), max: value(max), finite }
    }

    /// The range of the finite values, if there are any.
    pub(crate) fn range(self) -> Option<Range> {
        Range::new(self.min, self.max).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_extremes_and_the_offender_at_every_position() {
        for len in 1..=130 {
            for at in 0..len {
                let mut values: Vec<f32> = (0..len).map(|i| 1.0 + i as f32).collect();
                values[at] = -5.0;
                let highest = if at == len - 1 { (len - 1) as f32 } else { len as f32 };
                let expected = Range::new(-5.0, highest.max(-5.0)).unwrap();
                let expected = if len == 1 { Range::new(-5.0, -5.0).unwrap() } else { expected };
                assert_eq!(Range::of(&values), Ok(expected));
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    let found = Range::of(&values).unwrap_err();
                    assert!(matches!(found, RangeError::NonFinite { index, .. } if index == at), "{found}");
                    assert_eq!(Range::of_finite(&values).is_none(), len == 1);
                }
            }
        }
    }

    #[test]
    fn any_mixture_of_signs_has_the_range_of_its_values() {
        let tiny = f32::from_bits(1);
        let values = [
            -f32::MAX,
            -1.5,
            -1.0,
            -f32::MIN_POSITIVE,
            -tiny,
            -0.0,
            0.0,
            tiny,
            1e-38,
            1.0,
            1.5,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            -f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::from_bits(0xffff_ffff),
        ];
        // All triples, each value at the head, in the vectors and in the rest of a long slice.
        for a in values {
            for b in values {
                for c in values {
                    for len in [3, 70] {
                        let x: Vec<f32> = [a, b].into_iter().chain((2..len).map(|_| c)).collect();
                        let finite = || x.iter().copied().filter(|v| v.is_finite());
                        let (min, max) = (finite().reduce(f32::min), finite().reduce(f32::max));
                        let expected = min.zip(max).map(|(min, max)| Range::new(min, max).unwrap());
                        assert_eq!(Range::of_finite(&x), expected, "{a} {b} {c}");
                        let all = finite().count() == len;
                        assert_eq!(Range::of(&x).ok(), expected.filter(|_| all), "{a} {b} {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_the_floats() {
        let ordered =
            [f32::NEG_INFINITY, f32::MIN, -1.0, -f32::MIN_POSITIVE, -1e-45, -0.0, 0.0, 1e-45, 1.0, f32::MAX];
        for pair in ordered.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
            assert_eq!(value(key(pair[0])).to_bits(), pair[0].to_bits());
        }
    }

    #[test]
    fn floats_of_any_type_have_the_range_of_their_values() {
        let values: Vec<half::f16> =
            (0..3000).map(|i| half::f16::from_f32((i % 777) as f32 - 55.0)).collect();
        assert_eq!(Range::of_floats(&values), Range::new(-55.0, 721.0));
        let mut values = values;
        values[2049] = half::f16::INFINITY;
        assert!(matches!(Range::of_floats(&values), Err(RangeError::NonFinite { index: 2049, .. })));
        assert_eq!(Range::of_floats::<half::bf16>(&[]), Err(RangeError::Empty));
    }

    #[test]
    fn nothing_has_no_range() {
        assert_eq!(Range::of(&[]), Err(RangeError::Empty));
        assert_eq!(Range::of_finite(&[f32::NAN, f32::INFINITY]), None);
        for (min, max) in [(1.0, 0.0), (f32::NAN, 0.0), (0.0, f32::INFINITY)] {
            assert!(matches!(Range::new(min, max), Err(RangeError::Bounds { .. })));
        }
    }

    #[test]
    fn minus_zero_is_zero() {
        let range = Range::of(&[-0.0, 0.0, -0.0]).unwrap();
        assert_eq!((range.min().to_bits(), range.max().to_bits()), (0, 0));
        assert_eq!(Range::new(-3.0, -1.0).unwrap().extended_to_zero().max(), 0.0);
        assert_eq!(Range::new(-3.0, -1.0).unwrap().abs_max(), 3.0);
    }
}
