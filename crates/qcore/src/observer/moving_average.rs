//! Minimum and maximum, averaged over batches.

use super::{MinMaxObserver, Observer, SettingError};
use crate::value::{ObserverError, Range};

/// The extremes of each batch, averaged. It starts with the first batch and then moves by
/// `v + c * (v_batch - v)` in f32 for each further one. This is PyTorch's
/// `MovingAverageMinMaxObserver`, an exponential moving average, so a single unusual batch has
/// little effect.
///
/// The result depends on the order and the sizes of the batches by definition, so two observers
/// cannot be merged. A batch without finite values changes nothing.
///
/// ```
/// use qcore::{MovingAverageObserver, Observer, Range};
///
/// let mut observer = MovingAverageObserver::new(0.5)?;
/// observer.observe(&[-1.0, 1.0]);
/// observer.observe(&[-2.0, 3.0]);
/// assert_eq!(observer.range()?, Range::new(-1.5, 2.0)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovingAverageObserver {
    averaging_constant: f32,
    average: Option<Range>,
    seen: MinMaxObserver,
}

impl MovingAverageObserver {
    /// An observer that moves by `averaging_constant` of the way to each batch's extremes.
    ///
    /// # Errors
    /// Unless `0 < averaging_constant <= 1`.
    ///
    /// ```
    /// use qcore::MovingAverageObserver;
    ///
    /// assert_eq!(MovingAverageObserver::new(0.01)?, MovingAverageObserver::default());
    /// assert!(MovingAverageObserver::new(0.0).is_err());
    /// # Ok::<(), qcore::SettingError>(())
    /// ```
    pub fn new(averaging_constant: f32) -> Result<MovingAverageObserver, SettingError> {
        match 0.0 < averaging_constant && averaging_constant <= 1.0 {
            true => Ok(MovingAverageObserver {
                averaging_constant,
                average: None,
                seen: MinMaxObserver::default(),
            }),
            false => Err(SettingError {
                setting: "the averaging constant",
                expected: "greater than 0 and at most 1",
                got: averaging_constant.into(),
            }),
        }
    }

    fn toward(&self, from: f32, to: f32) -> f32 {
        let moved = from + self.averaging_constant * (to - from);
        if moved.is_finite() {
            return moved;
        }
        // The difference can exceed `f32::MAX` and needs a wider type. The average cannot.
        let (from, to) = (f64::from(from), f64::from(to));
        (from + f64::from(self.averaging_constant) * (to - from)) as f32
    }
}

impl Default for MovingAverageObserver {
    /// With PyTorch's averaging constant, 0.01.
    fn default() -> MovingAverageObserver {
        MovingAverageObserver { averaging_constant: 0.01, average: None, seen: MinMaxObserver::default() }
    }
}

impl Observer for MovingAverageObserver {
    fn observe(&mut self, values: &[f32]) {
        let mut batch = MinMaxObserver::default();
        batch.observe(values);
        self.seen = self.seen.merge(batch);
        let Ok(batch) = batch.range() else { return };
        self.average = Some(match self.average {
            None => batch,
            Some(average) => {
                let min = self.toward(average.min(), batch.min());
                let max = self.toward(average.max(), batch.max());
                // Rounding could put them in the wrong order by one ulp.
                Range::new(min.min(max), max.max(min)).unwrap_or(average)
            }
        });
    }

    fn range(&self) -> Result<Range, ObserverError> {
        self.average.ok_or(ObserverError::NoData { non_finite: self.non_finite() })
    }

    fn finite(&self) -> u64 {
        self.seen.finite()
    }

    fn non_finite(&self) -> u64 {
        self.seen.non_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_further_apart_than_f32_reaches() {
        let mut observer = MovingAverageObserver::new(0.5).unwrap();
        observer.observe(&[-3e38]);
        observer.observe(&[3e38]);
        assert_eq!(observer.range(), Ok(Range::new(0.0, 0.0).unwrap()));
    }

    #[test]
    fn refuses_constants_that_are_no_share() {
        for bad in [0.0, -0.1, 1.1, f32::NAN] {
            assert!(MovingAverageObserver::new(bad).is_err(), "{bad}");
        }
        let error = MovingAverageObserver::new(2.0).unwrap_err();
        assert_eq!(error.to_string(), "the averaging constant must be greater than 0 and at most 1, got 2");
    }
}
