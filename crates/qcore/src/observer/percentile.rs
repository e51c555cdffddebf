//! Percentiles: a range that leaves out the tails.

use super::float_counts::FloatCounts;
use super::{MergeObserver, MinMaxObserver, Observer, SettingError};
use crate::value::{ObserverError, Range};

/// The largest number of values that are kept as they are.
const KEPT: usize = 1 << 16;

/// The range between two percentiles, so that rare outliers are clamped.
///
/// Percentile `P` of `n` sorted values is at position `(n - 1) * P / 100`, interpolated linearly
/// between neighbours in f64, which is numpy's default. It is exact for up to 65 536 values. More
/// values are counted in bins, and a percentile is then off by at most 2^-8 of its value (for
/// subnormals, of the smallest normal number). The order of the batches does not matter, and
/// merging two observers equals one pass.
///
/// ```
/// use qcore::{Observer, PercentileObserver, Range};
///
/// let mut observer = PercentileObserver::new(90.0)?;
/// observer.observe(&[1e9]); // an outlier
/// observer.observe(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
/// assert_eq!(observer.range()?, Range::new(1.0, 9.0)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PercentileObserver {
    percentile: f64,
    symmetric: bool,
    seen: MinMaxObserver,
    /// All values, as long as there are at most [`KEPT`]; then it is empty.
    kept: Vec<f32>,
    counts: FloatCounts,
}

impl PercentileObserver {
    /// The range from percentile `100 - percentile` to `percentile`.
    ///
    /// # Errors
    /// Unless `percentile` is 50 to 100.
    ///
    /// ```
    /// use qcore::{Observer, PercentileObserver, Range};
    ///
    /// let mut observer = PercentileObserver::new(75.0)?;
    /// observer.observe(&[0.0, 1.0, 2.0, 3.0, 4.0]);
    /// assert_eq!(observer.range()?, Range::new(1.0, 3.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(percentile: f64) -> Result<PercentileObserver, SettingError> {
        match (50.0..=100.0).contains(&percentile) {
            true => Ok(PercentileObserver {
                percentile,
                symmetric: false,
                seen: MinMaxObserver::default(),
                kept: vec![],
                counts: FloatCounts::default(),
            }),
            false => Err(SettingError { setting: "the percentile", expected: "50 to 100", got: percentile }),
        }
    }

    /// For symmetric schemes: plus and minus the percentile of the magnitudes.
    ///
    /// # Errors
    /// Unless `percentile` is 50 to 100.
    ///
    /// ```
    /// use qcore::{Observer, PercentileObserver, Range};
    ///
    /// let mut observer = PercentileObserver::symmetric(50.0)?;
    /// observer.observe(&[-4.0, 1.0, 2.0]);
    /// assert_eq!(observer.range()?, Range::new(-2.0, 2.0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn symmetric(percentile: f64) -> Result<PercentileObserver, SettingError> {
        PercentileObserver::new(percentile).map(|observer| PercentileObserver { symmetric: true, ..observer })
    }

    /// A percentile, 0 to 100, of the observed values, or of their magnitudes if the observer is
    /// [`symmetric`](PercentileObserver::symmetric).
    ///
    /// # Errors
    /// When no finite value was observed.
    ///
    /// ```
    /// use qcore::{Observer, PercentileObserver};
    ///
    /// let mut observer = PercentileObserver::new(99.9)?;
    /// observer.observe(&[3.0, 0.0, 1.0, 2.0]);
    /// assert_eq!(observer.percentile(50.0)?, 1.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn percentile(&self, percentile: f64) -> Result<f64, ObserverError> {
        let range = self.seen.range()?;
        let n = self.finite();
        let position = (n - 1) as f64 * (percentile.clamp(0.0, 100.0) / 100.0);
        let below = position as u64;
        let (low, high) = (self.ranked(below, range), self.ranked((below + 1).min(n - 1), range));
        Ok(low + (high - low) * (position - below as f64))
    }

    /// The value at a rank, counted from 0.
    fn ranked(&self, rank: u64, range: Range) -> f64 {
        if self.finite() <= KEPT as u64 {
            let mut values = self.kept.clone();
            if self.symmetric {
                values.iter_mut().for_each(|v| *v = v.abs());
            }
            let at = (rank as usize).min(values.len().saturating_sub(1));
            return match values.is_empty() {
                true => f64::from(range.max()),
                false => f64::from(*values.select_nth_unstable_by(at, f32::total_cmp).1),
            };
        }
        let mut bins = self.counts.bins(range);
        if self.symmetric {
            for bin in bins.iter_mut().filter(|bin| bin.high < 0.0) {
                (bin.low, bin.high) = (-bin.high, -bin.low);
            }
            bins.sort_unstable_by(|a, b| a.low.total_cmp(&b.low));
        }
        let mut before = 0;
        for bin in bins {
            if rank < before + bin.count {
                // The values of a bin are assumed to be evenly spread.
                let within = ((rank - before) as f64 + 0.5) / bin.count as f64;
                return f64::from(bin.low) + (f64::from(bin.high) - f64::from(bin.low)) * within;
            }
            before += bin.count;
        }
        f64::from(range.max())
    }
}

impl MergeObserver for PercentileObserver {
    fn merge(mut self, other: PercentileObserver) -> PercentileObserver {
        self.seen = self.seen.merge(other.seen);
        if self.seen.finite() <= KEPT as u64 {
            self.kept.extend(other.kept);
        } else {
            self.counts.observe(&std::mem::take(&mut self.kept));
            self.counts.observe(&other.kept);
            self.counts.merge(other.counts);
        }
        self
    }
}

impl Observer for PercentileObserver {
    fn observe(&mut self, values: &[f32]) {
        self.seen.observe(values);
        if self.seen.finite() <= KEPT as u64 {
            self.kept.extend(values.iter().filter(|v| v.is_finite()));
        } else {
            self.counts.observe(&std::mem::take(&mut self.kept));
            self.counts.observe(values);
        }
    }

    fn range(&self) -> Result<Range, ObserverError> {
        let high = self.percentile(self.percentile)? as f32;
        let low = if self.symmetric { -high } else { self.percentile(100.0 - self.percentile)? as f32 };
        // Percentiles are in order. If rounding ever disagreed, the upper end would win.
        Range::new(low.min(high), high).or(self.seen.range())
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

    fn values(n: usize) -> Vec<f32> {
        // The values are neither sorted nor symmetric, and cover several binades.
        (0..n).map(|i| ((i * 7919 % n) as f32 / n as f32 * 9.0 - 4.0).exp() - 3.0).collect()
    }

    #[test]
    fn binned_percentiles_are_near_the_exact() {
        for n in [KEPT + 1, 3 * KEPT] {
            let values = values(n);
            for symmetric in [false, true] {
                let mut observer = PercentileObserver { symmetric, ..PercentileObserver::new(99.0).unwrap() };
                values.chunks(1000).for_each(|batch| observer.observe(batch));
                let mut sorted: Vec<f32> =
                    values.iter().map(|v| if symmetric { v.abs() } else { *v }).collect();
                sorted.sort_by(f32::total_cmp);
                for percentile in [0.0, 0.1, 10.0, 50.0, 99.0, 99.9, 100.0] {
                    let position = (n - 1) as f64 * (percentile / 100.0);
                    let [low, high] =
                        [position.floor(), position.ceil()].map(|at| f64::from(sorted[at as usize]));
                    let exact = low + (high - low) * position.fract();
                    let got = observer.percentile(percentile).unwrap();
                    assert!((got - exact).abs() <= exact.abs() / 256.0, "{percentile} {got} {exact}");
                }
            }
        }
    }

    #[test]
    fn merging_equals_one_pass_on_either_side_of_the_limit() {
        for (a, b) in [(10, 20), (KEPT, 1), (1, KEPT), (KEPT + 5, 3), (KEPT + 5, KEPT + 9), (KEPT - 1, 1)] {
            let values = values(a + b);
            let observe = |values: &[f32]| {
                let mut observer = PercentileObserver::new(99.0).unwrap();
                observer.observe(values);
                observer
            };
            let merged = observe(&values[..a]).merge(observe(&values[a..]));
            assert_eq!(merged.range(), observe(&values).range());
            assert_eq!(merged.finite(), (a + b) as u64);
        }
    }

    #[test]
    fn zeros_are_zeros_however_many_values_there_are() {
        // A ReLU's output: 80 % zeros, of either sign.
        for n in [KEPT / 2, 3 * KEPT] {
            let values: Vec<f32> = (0..n)
                .map(|i| match i % 10 {
                    0..4 => 0.0,
                    4..8 => -0.0,
                    _ => (i % 1000) as f32 / 999.0,
                })
                .collect();
            for mut observer in
                [PercentileObserver::new(99.9).unwrap(), PercentileObserver::symmetric(50.0).unwrap()]
            {
                observer.observe(&values);
                for percentile in [0.0, 0.1, 50.0, 79.9] {
                    assert_eq!(observer.percentile(percentile), Ok(0.0), "{n} values, {percentile}");
                }
            }
            let mut tails = PercentileObserver::new(99.9).unwrap();
            tails.observe(&values);
            assert_eq!(tails.range().unwrap().min(), 0.0, "{n} values");
            // If the values are negated, the zeros are the upper end.
            let mut tails = PercentileObserver::new(99.9).unwrap();
            tails.observe(&values.iter().map(|v| -v).collect::<Vec<_>>());
            assert_eq!(tails.range().unwrap().max(), 0.0, "{n} values");
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_data() {
        let mut observer = PercentileObserver::new(99.0).unwrap();
        let values = values(KEPT);
        for _ in 0..20 {
            observer.observe(&values);
        }
        assert_eq!((observer.finite(), observer.kept.capacity()), (20 * KEPT as u64, 0));
        assert!(observer.counts.bins(observer.seen.range().unwrap()).len() <= (512 << 8) + 1);
    }

    #[test]
    fn refuses_what_is_no_percentile() {
        for bad in [49.9, 100.1, f64::NAN, -1.0] {
            assert!(PercentileObserver::new(bad).is_err() && PercentileObserver::symmetric(bad).is_err());
        }
    }
}
