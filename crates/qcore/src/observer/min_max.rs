//! Observes the smallest and the largest value.

use super::{MergeObserver, Observer};
use crate::value::{ObserverError, Range, Scan};

/// The smallest and the largest value of all batches, like PyTorch's `MinMaxObserver` and
/// TinyTorch's `calibrate`.
///
/// ```
/// use qcore::{MinMaxObserver, Observer, Range};
///
/// let mut observer = MinMaxObserver::default();
/// assert!(observer.range().is_err());
/// observer.observe(&[0.5, f32::NAN]);
/// observer.observe(&[-2.0, 1.0]);
/// assert_eq!(observer.range()?, Range::new(-2.0, 1.0)?);
/// assert_eq!((observer.finite(), observer.non_finite()), (3, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MinMaxObserver {
    range: Option<Range>,
    finite: u64,
    non_finite: u64,
}

impl MinMaxObserver {
    /// Combines two observers into one that has seen what both have seen. For calibration in
    /// parallel.
    ///
    /// ```
    /// use qcore::{MinMaxObserver, Observer, Range};
    ///
    /// let (mut a, mut b) = (MinMaxObserver::default(), MinMaxObserver::default());
    /// a.observe(&[1.0]);
    /// b.observe(&[-2.0]);
    /// assert_eq!(a.merge(b).range()?, Range::new(-2.0, 1.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn merge(self, other: MinMaxObserver) -> MinMaxObserver {
        MinMaxObserver {
            range: match (self.range, other.range) {
                (Some(a), Some(b)) => Some(a.merge(b)),
                (a, b) => a.or(b),
            },
            finite: self.finite + other.finite,
            non_finite: self.non_finite + other.non_finite,
        }
    }
}

impl MergeObserver for MinMaxObserver {
    fn merge(self, other: MinMaxObserver) -> MinMaxObserver {
        MinMaxObserver::merge(self, other)
    }
}

impl Observer for MinMaxObserver {
    fn observe(&mut self, values: &[f32]) {
        let scan = Scan::of(values);
        let (finite, non_finite) = (scan.finite as u64, (values.len() - scan.finite) as u64);
        *self = self.merge(MinMaxObserver { range: scan.range(), finite, non_finite });
    }

    fn range(&self) -> Result<Range, ObserverError> {
        self.range.ok_or(ObserverError::NoData { non_finite: self.non_finite })
    }

    fn finite(&self) -> u64 {
        self.finite
    }

    fn non_finite(&self) -> u64 {
        self.non_finite
    }
}
