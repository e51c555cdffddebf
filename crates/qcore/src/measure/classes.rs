//! Which value of a row is the largest, and whether two models agree on it.

use super::error::{MetricsError, check_lengths, check_rows};

/// The index of the largest value, the first one if several are equal. NaN is never the largest;
/// `None` if there is no number at all.
///
/// ```
/// assert_eq!(qcore::argmax([1.0, f32::NAN, 2.0, 2.0]), Some(2));
/// assert_eq!(qcore::argmax([f32::NAN]), None);
/// ```
pub fn argmax(values: impl IntoIterator<Item = f32>) -> Option<usize> {
    let numbers = values.into_iter().enumerate().filter(|(_, v)| !v.is_nan());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(i, _)| i)
}

/// Counts the rows for which two models have the largest value ([`argmax`]) in the same place.
/// Their outputs arrive in batches. A row without a number, in either output, names no class and
/// agrees with nothing, not even with another such row.
///
/// ```
/// use qcore::Agreement;
///
/// let mut agreement = Agreement::default();
/// agreement.add(&[0.1, 0.9], &[0.3, 0.7], 2)?;
/// agreement.add(&[0.8, 0.2, f32::NAN, f32::NAN], &[0.4, 0.6, f32::NAN, f32::NAN], 2)?;
/// assert_eq!((agreement.same(), agreement.rows()), (1, 3));
/// # Ok::<(), qcore::MetricsError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    same: u64,
    rows: u64,
}

impl Agreement {
    /// Counts rows of `row_len` values, stored row-major. There may be no rows.
    ///
    /// # Errors
    /// When the lengths differ or are not a whole number of rows. Nothing is counted then.
    ///
    /// ```
    /// assert!(qcore::Agreement::default().add(&[0.1, 0.9], &[0.3, 0.7], 0).is_err());
    /// ```
    pub fn add(&mut self, a: &[f32], b: &[f32], row_len: usize) -> Result<(), MetricsError> {
        check_lengths(a.len(), b.len())?;
        check_rows(a.len(), row_len)?;
        for (a, b) in a.chunks_exact(row_len).zip(b.chunks_exact(row_len)) {
            let class = argmax(a.iter().copied());
            self.same += u64::from(class.is_some() && class == argmax(b.iter().copied()));
            self.rows += 1;
        }
        Ok(())
    }

    /// The number of rows that agree.
    ///
    /// ```
    /// assert_eq!(qcore::Agreement::default().same(), 0);
    /// ```
    pub fn same(&self) -> u64 {
        self.same
    }

    /// The number of all rows.
    ///
    /// ```
    /// assert_eq!(qcore::Agreement::default().rows(), 0);
    /// ```
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The share of rows that agree, from 0 to 1; NaN if there are no rows.
    ///
    /// ```
    /// assert!(qcore::Agreement::default().share().is_nan());
    /// ```
    pub fn share(&self) -> f64 {
        self.same as f64 / self.rows as f64
    }
}

/// The share of rows that have their largest value in the same place in both: how often two
/// classifiers agree. If values are equal the first counts. NaN is never the largest, and a row
/// without a number agrees with nothing ([`Agreement`]).
///
/// # Errors
/// When the lengths differ, there are no values, or they are not a whole number of rows.
///
/// ```
/// let agreement = qcore::agreement(&[0.1, 0.9, 0.8, 0.2], &[0.3, 0.7, 0.4, 0.6], 2)?;
/// assert_eq!(agreement, 0.5);
/// # Ok::<(), qcore::MetricsError>(())
/// ```
pub fn agreement(a: &[f32], b: &[f32], row_len: usize) -> Result<f64, MetricsError> {
    if a.is_empty() && b.is_empty() {
        return Err(MetricsError::Empty);
    }
    let mut agreement = Agreement::default();
    agreement.add(a, b, row_len)?;
    Ok(agreement.share())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert_eq!(argmax([1.0, 2.0, 2.0]), Some(1));
        assert_eq!(argmax([f32::NAN, -1.0, f32::NAN]), Some(1));
        assert_eq!(argmax([f32::NAN, f32::NEG_INFINITY]), Some(1));
        assert_eq!((argmax([f32::NAN; 2]), argmax([])), (None, None));
    }

    #[test]
    fn a_row_without_a_number_agrees_with_nothing() {
        let (nan, class) = ([f32::NAN; 2], [1.0, 0.0]); // a class where an index of 0 for "none" would be seen
        for (a, b) in [(nan, class), (class, nan), (nan, nan)] {
            assert_eq!(agreement(&a, &b, 2), Ok(0.0), "{a:?} {b:?}");
        }
        assert_eq!(agreement(&class, &[1.0, f32::NAN], 2), Ok(1.0));
    }

    #[test]
    fn refuses_what_cannot_be_compared() {
        assert_eq!(agreement(&[], &[], 1), Err(MetricsError::Empty));
        for row_len in [0, 2, usize::MAX] {
            let error = agreement(&[1.0; 3], &[1.0; 3], row_len);
            assert_eq!(error, Err(MetricsError::Rows { len: 3, row_len }));
        }
        assert_eq!(agreement(&[1.0], &[], 1), Err(MetricsError::Length { original: 1, restored: 0 }));
    }
}
