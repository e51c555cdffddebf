//! The range with the least mean squared error.

use super::float_counts::{Bin, FloatCounts};
use super::{MergeObserver, MinMaxObserver, Observer};
use crate::params::{Kind, QParams, Scheme};
use crate::value::{ObserverError, Range};

/// The number of shrunken ranges that are tried at a time: 1/100 to 100/100 of the whole.
const SHARES: u32 = 100;

/// The number of evenly spaced points that stand for the values of a bin.
const POINTS: u32 = 8;

/// The range that a scheme quantizes with the least mean squared error. It is found by trying the
/// observed range times 0.01, 0.02 and so on up to 1, and then the same for each end separately
/// (affine schemes). On the binned values the result is never worse than the whole range.
///
/// Values are counted in bins of 2^-8 of their size. Any order and any size of batches gives the
/// same result, and merging two observers equals one pass.
///
/// ```
/// use qcore::{CodeRange, MseObserver, Observer, Scheme};
///
/// let four_bits = Scheme { codes: CodeRange::signed(4)?, ..Scheme::activations_i8() };
/// let mut observer = MseObserver::new(four_bits);
/// let batch: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32 / 100.0).collect();
/// observer.observe(&batch);
/// observer.observe(&[3.0]); // one large error costs less than ten thousand coarse steps
/// assert!(observer.range()?.max() < 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MseObserver {
    scheme: Scheme,
    seen: MinMaxObserver,
    counts: FloatCounts,
}

impl MseObserver {
    /// An observer for values that `scheme` will quantize.
    ///
    /// ```
    /// use qcore::{MseObserver, Observer, Scheme};
    ///
    /// let mut observer = MseObserver::new(Scheme::weights_i8());
    /// observer.observe(&[-1.0, 0.5]);
    /// assert!(observer.range()?.abs_max() <= 1.0); // never wider than what was observed
    /// # Ok::<(), qcore::ObserverError>(())
    /// ```
    #[must_use]
    pub fn new(scheme: Scheme) -> MseObserver {
        MseObserver { scheme, seen: MinMaxObserver::default(), counts: FloatCounts::default() }
    }

    /// The best of `candidates`; the first one if several are equal.
    fn best(&self, bins: &[Bin], candidates: impl Iterator<Item = Range>) -> Option<Range> {
        let scored = candidates.filter_map(|range| {
            let params = self.scheme.choose(range).ok()?;
            Some((squared_error(bins, &params), range))
        });
        scored.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, range)| range)
    }
}

impl MergeObserver for MseObserver {
    fn merge(mut self, other: MseObserver) -> MseObserver {
        self.seen = self.seen.merge(other.seen);
        self.counts.merge(other.counts);
        self
    }
}

impl Observer for MseObserver {
    fn observe(&mut self, values: &[f32]) {
        self.seen.observe(values);
        self.counts.observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        let whole = self.seen.range()?;
        let bins = self.counts.bins(whole);
        // The whole range comes first, so that it wins if shrinking gains nothing.
        let shares = || (1..=SHARES).rev().map(|share| f64::from(share) / f64::from(SHARES));
        let part = |v: f32, share: f64| (f64::from(v) * share) as f32;
        let both = shares().filter_map(|s| Range::new(part(whole.min(), s), part(whole.max(), s)).ok());
        let Some(mut best) = self.best(&bins, both) else { return Ok(whole) };
        if let Kind::Affine { .. } = self.scheme.kind {
            let low = shares().filter_map(|s| Range::new(part(whole.min(), s), best.max()).ok());
            best = self.best(&bins, std::iter::once(best).chain(low)).unwrap_or(best);
            let high = shares().filter_map(|s| Range::new(best.min(), part(whole.max(), s)).ok());
            best = self.best(&bins, std::iter::once(best).chain(high)).unwrap_or(best);
        }
        Ok(best)
    }

    fn finite(&self) -> u64 {
        self.seen.finite()
    }

    fn non_finite(&self) -> u64 {
        self.seen.non_finite()
    }
}

/// The sum of the squared errors of the values in the bins.
fn squared_error(bins: &[Bin], params: &QParams) -> f64 {
    let of_bin = |bin: &Bin| {
        let (low, width) = (f64::from(bin.low), f64::from(bin.high) - f64::from(bin.low));
        let of_point = |i: u32| {
            let x = (low + width * (f64::from(i) + 0.5) / f64::from(POINTS)) as f32;
            let error = f64::from(params.fake_quantize(x)) - f64::from(x);
            error * error
        };
        (0..POINTS).map(of_point).sum::<f64>() / f64::from(POINTS) * bin.count as f64
    };
    bins.iter().map(of_bin).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_equals_one_pass_in_any_order() {
        let values: Vec<f32> = (0..5000).map(|i| ((i * 7919 % 5000) as f32 / 500.0).powi(3) - 9.0).collect();
        let observe = |values: &[f32]| {
            let mut observer = MseObserver::new(Scheme::activations_u8());
            values.chunks(77).for_each(|batch| observer.observe(batch));
            observer
        };
        let merged = observe(&values[3000..]).merge(observe(&values[..3000]));
        assert_eq!(merged, observe(&values));
        assert_eq!(merged.range(), observe(&values).range());
    }

    #[test]
    fn evenly_spread_values_are_not_cut() {
        let values: Vec<f32> = (0..=10_000).map(|i| i as f32 / 5000.0 - 1.0).collect();
        let mut observer = MseObserver::new(Scheme::weights_i8());
        observer.observe(&values);
        assert!(observer.range().unwrap().abs_max() >= 0.98);
    }
}
