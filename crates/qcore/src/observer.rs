//! Observers: the range of values that arrive in batches, in memory that does not grow with them.

use thiserror::Error;

use crate::range::{Range, Scan};

/// Watches values during calibration and says what range to quantize.
///
/// Values that are not finite are counted and skipped. Observing nothing is allowed; asking for the range then is an
/// error.
pub trait Observer {
    /// Takes in a batch, of any size.
    fn observe(&mut self, values: &[f32]);

    /// The range to quantize.
    ///
    /// # Errors
    /// When no finite value was observed.
    fn range(&self) -> Result<Range, ObserverError>;

    /// How many finite values were observed.
    fn finite(&self) -> u64;

    /// How many values were skipped because they are NaN or infinite.
    fn non_finite(&self) -> u64;
}

/// The smallest and the largest value of all batches: PyTorch's `MinMaxObserver`, TinyTorch's `calibrate`.
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
    /// An observer that has seen both what `self` and what `other` have seen, for calibration in parallel.
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

/// Why an observer has no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ObserverError {
    /// It has not seen a single finite value.
    #[error("no finite value was observed ({non_finite} that are not finite)")]
    NoData {
        /// How many values were skipped.
        non_finite: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_good_as_one() {
        let values: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 - 400.0).collect();
        let mut whole = MinMaxObserver::default();
        whole.observe(&values);
        for size in [1, 2, 31, 32, 33, 999] {
            let mut batches = MinMaxObserver::default();
            values.chunks(size).for_each(|batch| batches.observe(batch));
            assert_eq!(batches, whole);
        }
        assert_eq!(whole.range(), Ok(Range::of(&values).unwrap()));
    }

    #[test]
    fn nothing_finite_is_no_data() {
        let mut observer = MinMaxObserver::default();
        observer.observe(&[]);
        observer.observe(&[f32::NAN, f32::INFINITY]);
        let error = observer.range().unwrap_err();
        assert_eq!(error.to_string(), "no finite value was observed (2 that are not finite)");
    }
}
