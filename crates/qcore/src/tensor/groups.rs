//! Per-group quantization: the weights of an output channel are split into groups along k, each
//! with its own scale.

use thiserror::Error;

use super::quantize::{LengthError, QuantizeError, check_codes, quantize_run};
use crate::code::Code;
use crate::params::{QParams, Scheme, SchemeError};
use crate::value::{Range, RangeError};

/// How the rows of a matrix split into groups of `group_len` values. The last group of a row may be
/// shorter.
///
/// Group `g` of row `r` has number `r * per_row + g`. 4-bit weights usually have groups of 32
/// to 128.
///
/// ```
/// use qcore::{CodeRange, Groups, Scheme, dequantize_per_group, group_params, quantize_per_group};
///
/// let w = [0.7, -0.1, 0.2, 70.0, 10.0]; // one row of five, in groups of two
/// let groups = Groups::new(1, 5, 2)?;
/// let four_bits = Scheme { codes: CodeRange::signed(4)?, ..Scheme::weights_i8() };
/// let params = group_params(&w, groups, &four_bits)?;
/// let mut codes = [0_i8; 5];
/// quantize_per_group(&w, groups, &params, &mut codes)?;
/// assert_eq!(codes, [7, -1, 0, 7, 7]);
/// let mut restored = [0.0; 5];
/// dequantize_per_group(&codes, groups, &params, &mut restored)?;
/// assert_eq!(restored, [0.7, -0.1, 0.0, 70.0, 10.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Groups {
    rows: usize,
    row_len: usize,
    group_len: usize,
}

impl Groups {
    /// Splits each of `rows` rows of `row_len` values into groups of `group_len`.
    ///
    /// # Errors
    /// When `group_len` is 0, or there are more elements than `usize` counts.
    ///
    /// ```
    /// assert_eq!(qcore::Groups::new(2, 5, 2)?.count(), 6); // 2 + 2 + 1 values in each row
    /// assert!(qcore::Groups::new(2, 5, 0).is_err());
    /// # Ok::<(), qcore::GroupError>(())
    /// ```
    pub fn new(rows: usize, row_len: usize, group_len: usize) -> Result<Groups, GroupError> {
        if group_len == 0 || rows.checked_mul(row_len).is_none() {
            return Err(GroupError::Shape { rows, row_len, group_len });
        }
        Ok(Groups { rows, row_len, group_len })
    }

    /// The number of groups in a row: `ceil(row_len / group_len)`.
    ///
    /// ```
    /// assert_eq!(qcore::Groups::new(3, 100, 32)?.per_row(), 4);
    /// # Ok::<(), qcore::GroupError>(())
    /// ```
    #[must_use]
    pub fn per_row(self) -> usize {
        self.row_len.div_ceil(self.group_len)
    }

    /// The number of groups.
    ///
    /// ```
    /// assert_eq!(qcore::Groups::new(3, 100, 32)?.count(), 3 * 4);
    /// # Ok::<(), qcore::GroupError>(())
    /// ```
    #[must_use]
    pub fn count(self) -> usize {
        self.rows * self.per_row()
    }

    /// The number of elements.
    ///
    /// ```
    /// assert_eq!(qcore::Groups::new(3, 100, 32)?.len(), 300);
    /// # Ok::<(), qcore::GroupError>(())
    /// ```
    #[must_use]
    pub fn len(self) -> usize {
        self.rows * self.row_len
    }

    /// Whether there are no elements.
    ///
    /// ```
    /// assert!(qcore::Groups::new(3, 0, 32)?.is_empty());
    /// # Ok::<(), qcore::GroupError>(())
    /// ```
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements of each group, in order.
    fn of<T>(self, data: &[T]) -> impl Iterator<Item = &[T]> {
        data.chunks(self.row_len.max(1)).flat_map(move |row| row.chunks(self.group_len))
    }

    fn of_mut<T>(self, data: &mut [T]) -> impl Iterator<Item = &mut [T]> {
        data.chunks_mut(self.row_len.max(1)).flat_map(move |row| row.chunks_mut(self.group_len))
    }

    fn check(self, data: usize, params: usize, out: usize) -> Result<(), GroupError> {
        if data != self.len() {
            return Err(GroupError::Data { expected: self.len(), got: data });
        }
        if params != self.count() {
            return Err(GroupError::Params { expected: self.count(), got: params });
        }
        Ok(LengthError::check(data, out)?)
    }
}

/// The parameters of each group: [`Scheme::choose`] for its range.
///
/// # Errors
/// When the length of `x` does not match the groups, a value is not finite, or the scheme has no
/// parameters for the range of a group. Indices in the error count from the start of `x`.
///
/// ```
/// use qcore::{Groups, Scheme, group_params};
///
/// let params = group_params(&[1.27, 0.0, 12.7], Groups::new(1, 3, 2)?, &Scheme::weights_i8())?;
/// assert_eq!([params[0].scale(), params[1].scale()], [0.01, 0.1]);
/// # Ok::<(), qcore::GroupError>(())
/// ```
pub fn group_params(x: &[f32], groups: Groups, scheme: &Scheme) -> Result<Vec<QParams>, GroupError> {
    groups.check(x.len(), groups.count(), x.len())?;
    let mut start = 0;
    let choose = |(group, values): (usize, &[f32])| {
        let range = Range::of(values).map_err(|error| match error {
            RangeError::NonFinite { index, value } => {
                GroupError::Range { group, error: RangeError::NonFinite { index: start + index, value } }
            }
            error => GroupError::Range { group, error },
        })?;
        start += values.len();
        scheme.choose(range).map_err(|error| GroupError::Scheme { group, error })
    };
    groups.of(x).enumerate().map(choose).collect()
}

/// `out = params[group].quantize(x)` for every element. Every value has a result, as in
/// [`quantize_slice`](crate::quantize_slice).
///
/// # Errors
/// When a length does not match the groups, or the codes of a group do not fit `C`.
///
/// ```
/// use qcore::{CodeRange, Groups, QParams, quantize_per_group};
///
/// let params = [QParams::new(0.5, 0, CodeRange::I8)?, QParams::new(2.0, 0, CodeRange::I8)?];
/// let mut codes = [0_i8; 3];
/// quantize_per_group(&[1.0, -2.0, 6.0], Groups::new(1, 3, 2)?, &params, &mut codes)?;
/// assert_eq!(codes, [2, -4, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn quantize_per_group<C: Code>(
    x: &[f32],
    groups: Groups,
    params: &[QParams],
    out: &mut [C],
) -> Result<(), GroupError> {
    groups.check(x.len(), params.len(), out.len())?;
    for (group, p) in params.iter().enumerate() {
        check_codes::<C>(p).map_err(|error| GroupError::Quantize { group, error })?;
    }
    for ((x, out), p) in groups.of(x).zip(groups.of_mut(out)).zip(params) {
        quantize_run(x, p, out);
    }
    Ok(())
}

/// `out = params[group].dequantize(q)` for every element.
///
/// # Errors
/// When a length does not match the groups.
///
/// ```
/// use qcore::{CodeRange, Groups, QParams, dequantize_per_group};
///
/// let params = [QParams::new(0.5, 0, CodeRange::I8)?, QParams::new(2.0, 0, CodeRange::I8)?];
/// let mut values = [0.0; 3];
/// dequantize_per_group(&[2_i8, -4, 3], Groups::new(1, 3, 2)?, &params, &mut values)?;
/// assert_eq!(values, [1.0, -2.0, 6.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn dequantize_per_group<C: Code>(
    q: &[C],
    groups: Groups,
    params: &[QParams],
    out: &mut [f32],
) -> Result<(), GroupError> {
    groups.check(q.len(), params.len(), out.len())?;
    for ((q, out), &p) in groups.of(q).zip(groups.of_mut(out)).zip(params) {
        for (v, &code) in out.iter_mut().zip(q) {
            *v = p.dequantize(code.widen());
        }
    }
    Ok(())
}

/// Why per-group quantization fails.
///
/// ```
/// use qcore::{Groups, Scheme, group_params};
///
/// let error = group_params(&[1.0, 2.0], Groups::new(1, 3, 2)?, &Scheme::weights_i8()).unwrap_err();
/// assert_eq!(error.to_string(), "the groups have 3 elements, the data 2");
/// # Ok::<(), qcore::GroupError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The group length is 0, or there are more elements than can be counted.
    #[error(
        "groups of {group_len} in {rows} rows of {row_len}; a group has at least 1 value, and all rows at most {}",
        usize::MAX
    )]
    Shape {
        /// The number of rows.
        rows: usize,
        /// The length of a row.
        row_len: usize,
        /// The length of a group.
        group_len: usize,
    },
    /// The length of the data does not match the groups.
    #[error("the groups have {expected} elements, the data {got}")]
    Data {
        /// The length that the groups imply.
        expected: usize,
        /// Given.
        got: usize,
    },
    /// There are too few or too many parameters.
    #[error("{expected} groups need as many parameters, got {got}")]
    Params {
        /// The number of groups.
        expected: usize,
        /// Given.
        got: usize,
    },
    /// Input and output differ in length.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// A group has no range.
    #[error("group {group}: {error}")]
    Range {
        /// Which.
        group: usize,
        /// Why.
        error: RangeError,
    },
    /// The scheme has no parameters for a group.
    #[error("group {group}: {error}")]
    Scheme {
        /// Which.
        group: usize,
        /// Why.
        error: SchemeError,
    },
    /// A group's codes cannot be stored.
    #[error("group {group}: {error}")]
    Quantize {
        /// Which.
        group: usize,
        /// Why.
        error: QuantizeError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_and_group_length() {
        let scheme = Scheme::weights_i8();
        for row_len in 0..=20 {
            for group_len in 1..=21 {
                let rows = 3;
                let x: Vec<f32> = (0..rows * row_len).map(|i| (i * i % 97) as f32 - 40.0).collect();
                let groups = Groups::new(rows, row_len, group_len).unwrap();
                let params = group_params(&x, groups, &scheme).unwrap();
                assert_eq!(params.len(), groups.count());
                let (mut codes, mut restored) = (vec![0_i8; x.len()], vec![0.0; x.len()]);
                quantize_per_group(&x, groups, &params, &mut codes).unwrap();
                dequantize_per_group(&codes, groups, &params, &mut restored).unwrap();
                for (i, &v) in x.iter().enumerate() {
                    let p = params[i / row_len * groups.per_row() + i % row_len / group_len];
                    assert_eq!((codes[i], restored[i]), (p.quantize(v) as i8, p.fake_quantize(v)));
                    let start = i / row_len * row_len + i % row_len / group_len * group_len;
                    let end = (start + group_len).min((i / row_len + 1) * row_len);
                    assert_eq!(p, scheme.choose(Range::of(&x[start..end]).unwrap()).unwrap());
                }
            }
        }
    }

    #[test]
    fn errors_name_the_group() {
        assert!(Groups::new(1, 1, 0).is_err() && Groups::new(usize::MAX, 2, 1).is_err());
        let groups = Groups::new(2, 3, 2).unwrap();
        let x = [0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN];
        let error = group_params(&x, groups, &Scheme::weights_i8()).unwrap_err();
        assert_eq!(error.to_string(), "group 3: value NaN at index 5 is not finite");
        let error = group_params(&x[..4], groups, &Scheme::weights_i8()).unwrap_err();
        assert_eq!(error, GroupError::Data { expected: 6, got: 4 });
        let params = group_params(&[0.0; 6], groups, &Scheme::weights_i8()).unwrap();
        assert!(quantize_per_group::<u8>(&x, groups, &params, &mut [0; 6]).is_err());
        assert!(quantize_per_group::<i8>(&x, groups, &params[1..], &mut [0; 6]).is_err());
        assert!(quantize_per_group::<i8>(&x, groups, &params, &mut [0; 5]).is_err());
        assert_eq!(quantize_per_group::<i8>(&x, groups, &params, &mut [0; 6]), Ok(()));
    }
}
