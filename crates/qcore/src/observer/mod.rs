//! Observers find the range of values that arrive in batches, in memory that does not grow with the
//! data.

mod entropy;
mod float_counts;
mod histogram;
mod min_max;
mod moving_average;
mod mse;
mod per_channel;
mod percentile;

use thiserror::Error;

use crate::value::{ObserverError, Range};

pub use entropy::EntropyObserver;
pub use histogram::HistogramObserver;
pub use min_max::MinMaxObserver;
pub use moving_average::MovingAverageObserver;
pub use mse::MseObserver;
pub use per_channel::PerChannelObserver;
pub use percentile::PercentileObserver;

/// Observes values during calibration and returns the range to quantize.
///
/// Values that are not finite are counted and skipped. It is not an error to observe nothing, but
/// then there is no range.
///
/// ```
/// use qcore::{HistogramObserver, MinMaxObserver, Observer, ObserverError, Range};
///
/// /// Any observer over any batches.
/// fn calibrate(mut observer: Box<dyn Observer>, batches: &[&[f32]]) -> Result<Range, ObserverError> {
///     batches.iter().for_each(|batch| observer.observe(batch));
///     observer.range()
/// }
/// let batches: [&[f32]; 2] = [&[0.0, 1.0], &[-1.0]];
/// assert_eq!(calibrate(Box::new(MinMaxObserver::default()), &batches)?, Range::new(-1.0, 1.0)?);
/// assert!(calibrate(Box::new(HistogramObserver::default()), &[]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer {
    /// Observes a batch of any size.
    ///
    /// ```
    /// use qcore::{MinMaxObserver, Observer};
    ///
    /// let mut observer = MinMaxObserver::default();
    /// observer.observe(&[1.0, f32::NAN, -2.0]);
    /// assert_eq!((observer.finite(), observer.non_finite()), (2, 1));
    /// ```
    fn observe(&mut self, values: &[f32]);

    /// The range to quantize.
    ///
    /// # Errors
    /// When no finite value was observed.
    ///
    /// ```
    /// use qcore::{MinMaxObserver, Observer, Range};
    ///
    /// let mut observer = MinMaxObserver::default();
    /// assert!(observer.range().is_err());
    /// observer.observe(&[1.0, -2.0]);
    /// assert_eq!(observer.range()?, Range::new(-2.0, 1.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn range(&self) -> Result<Range, ObserverError>;

    /// How many finite values were observed.
    ///
    /// ```
    /// use qcore::{MinMaxObserver, Observer};
    ///
    /// let mut observer = MinMaxObserver::default();
    /// observer.observe(&[1.0, f32::NAN, 1.0]);
    /// assert_eq!(observer.finite(), 2);
    /// ```
    fn finite(&self) -> u64;

    /// How many values were skipped because they are NaN or infinite.
    ///
    /// ```
    /// use qcore::{MinMaxObserver, Observer};
    ///
    /// let mut observer = MinMaxObserver::default();
    /// observer.observe(&[1.0, f32::NAN, f32::INFINITY]);
    /// assert_eq!(observer.non_finite(), 2);
    /// ```
    fn non_finite(&self) -> u64;
}

/// A boxed observer is an observer, so an observer chosen at run time can be used wherever a fixed
/// one can.
///
/// ```
/// use qcore::{MinMaxObserver, Observer, ObserverError, PercentileObserver, Range};
///
/// fn range_of<O: Observer>(mut observer: O, values: &[f32]) -> Result<Range, ObserverError> {
///     observer.observe(values);
///     observer.range()
/// }
/// let observers: [Box<dyn Observer>; 2] =
///     [Box::new(MinMaxObserver::default()), Box::new(PercentileObserver::new(99.0)?)];
/// for observer in observers {
///     assert_eq!(range_of(observer, &[2.0; 3])?, Range::new(2.0, 2.0)?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<O: Observer + ?Sized> Observer for Box<O> {
    fn observe(&mut self, values: &[f32]) {
        (**self).observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        (**self).range()
    }

    fn finite(&self) -> u64 {
        (**self).finite()
    }

    fn non_finite(&self) -> u64 {
        (**self).non_finite()
    }
}

/// A borrowed observer is an observer. It can be passed by value, and its owner keeps what it saw.
///
/// ```
/// use qcore::{MinMaxObserver, Observer};
///
/// fn watch<O: Observer>(mut observer: O, values: &[f32]) {
///     observer.observe(values);
/// }
/// let mut observer = MinMaxObserver::default();
/// watch(&mut observer, &[1.0, 2.0]);
/// assert_eq!(observer.finite(), 2);
/// ```
impl<O: Observer + ?Sized> Observer for &mut O {
    fn observe(&mut self, values: &[f32]) {
        (**self).observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        (**self).range()
    }

    fn finite(&self) -> u64 {
        (**self).finite()
    }

    fn non_finite(&self) -> u64 {
        (**self).non_finite()
    }
}

/// Observers that can be merged, so that parts of the data can be observed separately, for example
/// on several threads.
///
/// ```
/// use qcore::{MergeObserver, MinMaxObserver, Observer, ObserverError, Range};
///
/// fn in_two_halves<O: MergeObserver + Default>(values: &[f32]) -> Result<Range, ObserverError> {
///     let (mut first, mut second) = (O::default(), O::default());
///     let (a, b) = values.split_at(values.len() / 2);
///     first.observe(a);
///     second.observe(b);
///     first.merge(second).range()
/// }
/// assert_eq!(in_two_halves::<MinMaxObserver>(&[1.0, -2.0, 3.0])?, Range::new(-2.0, 3.0)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait MergeObserver: Observer + Sized {
    /// Combines two observers into one that has seen what both have seen, with the settings of
    /// `self`.
    ///
    /// ```
    /// use qcore::{MergeObserver, Observer, PercentileObserver, Range};
    ///
    /// let (mut a, mut b) = (PercentileObserver::new(75.0)?, PercentileObserver::new(75.0)?);
    /// a.observe(&[4.0, 0.0]);
    /// b.observe(&[3.0, 1.0, 2.0]);
    /// assert_eq!(a.merge(b).range()?, Range::new(1.0, 3.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    fn merge(self, other: Self) -> Self;
}

/// The error for an invalid setting of an observer.
///
/// ```
/// let error = qcore::PercentileObserver::new(101.0).unwrap_err();
/// assert_eq!(error.to_string(), "the percentile must be 50 to 100, got 101");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error("{setting} must be {expected}, got {got}")]
#[non_exhaustive]
pub struct SettingError {
    /// The name of the setting.
    pub setting: &'static str,
    /// What values are valid.
    pub expected: &'static str,
    /// What was given.
    pub got: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeRange;
    use crate::params::Scheme;

    /// Every observer. A new one is one line here, and all tests below run with it.
    fn all() -> Vec<Box<dyn Observer>> {
        vec![
            Box::new(MinMaxObserver::default()),
            Box::new(MovingAverageObserver::default()),
            Box::new(PercentileObserver::new(99.9).unwrap()),
            Box::new(PercentileObserver::symmetric(99.9).unwrap()),
            Box::new(HistogramObserver::default()),
            Box::new(EntropyObserver::new(CodeRange::I8)),
            Box::new(MseObserver::new(Scheme::activations_u8())),
            Box::new(MseObserver::new(Scheme::onnx_dynamic(CodeRange::U8))),
        ]
    }

    #[test]
    fn few_levels_keep_their_range() {
        for levels in [2_usize, 3, 5, 9, 17, 33] {
            let values: Vec<f32> = (0..20_000).map(|i| (i % levels) as f32 / (levels - 1) as f32).collect();
            let searching: [Box<dyn Observer>; 4] = [
                Box::new(PercentileObserver::new(99.9).unwrap()),
                Box::new(HistogramObserver::default()),
                Box::new(EntropyObserver::new(CodeRange::U8)),
                Box::new(MseObserver::new(Scheme::activations_u8())),
            ];
            for mut observer in searching {
                observer.observe(&values);
                let range = observer.range().unwrap();
                assert!(range.min() < 0.01 && range.max() > 0.99, "{levels} levels: {range:?}");
            }
        }
    }

    #[test]
    fn nothing_finite_breaks_an_observer() {
        let tiny = f32::from_bits(1);
        let batches: [&[f32]; 10] = [
            &[0.0],
            &[0.0, -0.0, 0.0],
            &[5.0; 7],
            &[-3e38; 3],
            &[1e38, -1e38],
            &[f32::MAX, -f32::MAX, 0.0],
            &[tiny],
            &[tiny, -tiny, 1e-40],
            &[1.0, 1.0 + f32::EPSILON],
            &[1e38, 1e-38, 0.0, -1.0],
        ];
        let polluted =
            |batch: &[f32]| [batch, &[f32::NAN, f32::INFINITY], batch, &[f32::NEG_INFINITY]].concat();
        for first in batches {
            for second in batches {
                for (mut observer, mut other) in all().into_iter().zip(all()) {
                    observer.observe(&[]);
                    other.observe(&[f32::NAN]);
                    for batch in [first, second] {
                        observer.observe(&[batch, batch].concat());
                        other.observe(&polluted(batch));
                    }
                    let range = observer.range().unwrap();
                    let whole = Range::of(&[first, second].concat()).unwrap();
                    let bound = whole.extended_to_zero().abs_max();
                    assert!(range.abs_max() <= bound, "{range:?} of {whole:?}");
                    assert_eq!(other.range(), Ok(range), "values that are not finite are skipped");
                    assert_eq!((other.finite(), other.non_finite()), (observer.finite(), 7));
                    assert!(Scheme::activations_u8().choose(range).is_ok());
                }
            }
        }
    }

    #[test]
    fn an_observer_that_saw_nothing_is_an_error() {
        for mut observer in all() {
            assert_eq!(observer.range(), Err(ObserverError::NoData { non_finite: 0 }));
            observer.observe(&[f32::NAN]);
            assert_eq!(observer.range(), Err(ObserverError::NoData { non_finite: 1 }));
        }
    }

    #[test]
    fn the_size_of_batches_does_not_matter_where_the_definition_allows() {
        let values: Vec<f32> = (0..4000).map(|i| ((i * 7919 % 4000) as f32 / 400.0).powi(3) - 90.0).collect();
        for size in [1, 33, 4000] {
            for (i, (mut whole, mut parts)) in all().into_iter().zip(all()).enumerate() {
                // The moving average counts batches, and the histogram rebins, so their results may
                // differ.
                if i == 1 || i == 4 {
                    continue;
                }
                whole.observe(&values);
                values.chunks(size).rev().for_each(|batch| parts.observe(batch));
                assert_eq!(parts.range(), whole.range(), "observer {i}");
            }
        }
    }

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
