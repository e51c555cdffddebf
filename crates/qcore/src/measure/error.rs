//! Checks which slices can be compared.

use thiserror::Error;

/// Checks that two lengths are equal. They may be 0.
pub(super) fn check_lengths(original: usize, restored: usize) -> Result<(), MetricsError> {
    if original == restored { Ok(()) } else { Err(MetricsError::Length { original, restored }) }
}

/// Checks that the values are a whole number of rows, which may be 0.
pub(super) fn check_rows(len: usize, row_len: usize) -> Result<(), MetricsError> {
    match row_len > 0 && len.is_multiple_of(row_len) {
        true => Ok(()),
        false => Err(MetricsError::Rows { len, row_len }),
    }
}

/// Why slices cannot be compared.
///
/// ```
/// let error = qcore::sqnr_db(&[1.0], &[]).unwrap_err();
/// assert_eq!(error.to_string(), "the slices compared must be of one length, got 1 and 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// They differ in length.
    #[error("the slices compared must be of one length, got {original} and {restored}")]
    Length {
        /// The length of the first.
        original: usize,
        /// The length of the second.
        restored: usize,
    },
    /// There are no values.
    #[error("no values to compare")]
    Empty,
    /// The values are not a whole number of rows.
    #[error("{len} values are no whole number of rows of {row_len}")]
    Rows {
        /// The number of values.
        len: usize,
        /// The length of a row.
        row_len: usize,
    },
}
