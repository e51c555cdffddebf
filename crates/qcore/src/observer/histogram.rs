//! PyTorch's histogram observer: the range with the least squared error, searched on a histogram.

use super::{MergeObserver, MinMaxObserver, Observer, SettingError};
use crate::value::{ObserverError, Range};

/// The number of parts that a bin is split into when the range grows.
const PARTS: usize = 16;

/// The share of the distribution that one step of the search leaves out at an end.
const STEP: f64 = 1e-5;

/// A histogram over the observed range, and the part of that range that loses least: PyTorch's
/// `HistogramObserver`.
///
/// When a batch widens the range, each bin is split into 16 parts, which go to the new bins by
/// their midpoints. The histogram therefore depends a little on the order of the batches. The
/// search then narrows the range, always at the end where more bins hold the next 1e-5 of the
/// values, until the L2 norm of the error grows. The norm assumes values spread evenly within each
/// bin and rounded to the middle of one of `levels` target bins.
///
/// PyTorch computes this in f32. Here it is f64, which can handle any finite range, so a value at
/// the edge of a bin may be counted on its other side.
///
/// ```
/// use qcore::{HistogramObserver, Observer};
///
/// let mut observer = HistogramObserver::new(2048, 16)?; // four bits
/// let batch: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32 / 100.0).collect();
/// observer.observe(&batch);
/// observer.observe(&[3.0]); // one large error costs less than ten thousand coarse steps
/// assert!(observer.range()?.max() < 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramObserver {
    levels: u32,
    seen: MinMaxObserver,
    /// The counts over the observed range. Parts of a split bin are sixteenths, which are exact in
    /// f64.
    bins: Vec<f64>,
}

impl HistogramObserver {
    /// An observer with this many bins, for codes with this many levels. PyTorch uses 2048 and 256.
    ///
    /// # Errors
    /// Unless `bins` is 1 to 65 536 and `levels` 2 to 65 536.
    ///
    /// ```
    /// use qcore::HistogramObserver;
    ///
    /// assert_eq!(HistogramObserver::new(2048, 256)?, HistogramObserver::default());
    /// assert!(HistogramObserver::new(0, 256).is_err());
    /// # Ok::<(), qcore::SettingError>(())
    /// ```
    pub fn new(bins: usize, levels: u32) -> Result<HistogramObserver, SettingError> {
        if !(1..=1 << 16).contains(&bins) {
            let setting = "the number of bins";
            return Err(SettingError { setting, expected: "1 to 65536", got: bins as f64 });
        }
        if !(2..=1 << 16).contains(&levels) {
            let setting = "the number of levels";
            return Err(SettingError { setting, expected: "2 to 65536", got: levels.into() });
        }
        Ok(HistogramObserver { levels, seen: MinMaxObserver::default(), bins: vec![0.0; bins] })
    }

    /// The counts over the observed range, in bins of equal width. All are 0 until something finite
    /// was observed.
    ///
    /// ```
    /// use qcore::{HistogramObserver, Observer};
    ///
    /// let mut observer = HistogramObserver::new(4, 256)?;
    /// observer.observe(&[0.0, 1.0, 2.0, 3.0, 4.0]);
    /// assert_eq!(observer.histogram(), [1.0, 1.0, 1.0, 2.0]);
    /// # Ok::<(), qcore::SettingError>(())
    /// ```
    #[must_use]
    pub fn histogram(&self) -> &[f64] {
        &self.bins
    }

    /// Widens the histogram to a range that also contains `range`. Only the counts change, not the
    /// observed extremes.
    fn widen(&mut self, range: Range) {
        if let Ok(mine) = self.seen.range()
            && mine.merge(range) != mine
        {
            let mut wider = vec![0.0; self.bins.len()];
            rebin(&self.bins, mine, &mut wider, mine.merge(range));
            self.bins = wider;
        }
    }
}

impl Default for HistogramObserver {
    /// PyTorch's default: 2048 bins, 256 levels.
    fn default() -> HistogramObserver {
        HistogramObserver { levels: 256, seen: MinMaxObserver::default(), bins: vec![0.0; 2048] }
    }
}

impl MergeObserver for HistogramObserver {
    /// Like the order of batches, the order of merging changes the result a little. The total of
    /// the counts and the extremes are exact.
    fn merge(mut self, other: HistogramObserver) -> HistogramObserver {
        if let Ok(theirs) = other.seen.range() {
            self.widen(theirs);
            let all = self.seen.range().map_or(theirs, |mine| mine.merge(theirs));
            rebin(&other.bins, theirs, &mut self.bins, all);
        }
        self.seen = self.seen.merge(other.seen);
        self
    }
}

impl Observer for HistogramObserver {
    fn observe(&mut self, values: &[f32]) {
        let mut batch = MinMaxObserver::default();
        batch.observe(values);
        if let Ok(range) = batch.range() {
            self.widen(range);
            let all = self.seen.range().map_or(range, |mine| mine.merge(range));
            let edges = Edges::of(all, self.bins.len());
            for &v in values.iter().filter(|v| v.is_finite()) {
                self.bins[edges.bin_of(f64::from(v))] += 1.0;
            }
        }
        self.seen = self.seen.merge(batch);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        let range = self.seen.range()?;
        let width = (f64::from(range.max()) - f64::from(range.min())) / self.bins.len() as f64;
        let (first, last) = Search { bins: &self.bins, levels: self.levels.into(), width }.run();
        let at = |bins: usize| (f64::from(range.min()) + width * bins as f64) as f32;
        let (min, max) = (at(first).max(range.min()), at(last + 1).min(range.max()));
        Ok(Range::new(min, max).unwrap_or(range))
    }

    fn finite(&self) -> u64 {
        self.seen.finite()
    }

    fn non_finite(&self) -> u64 {
        self.seen.non_finite()
    }
}

/// Bins of equal width over a range.
struct Edges {
    low: f64,
    width: f64,
    bins: usize,
}

impl Edges {
    /// As in `torch.histc`, a range of width 0 is widened by one on either side.
    fn of(range: Range, bins: usize) -> Edges {
        let (low, high) = (f64::from(range.min()), f64::from(range.max()));
        let (low, high) = if low == high { (low - 1.0, high + 1.0) } else { (low, high) };
        Edges { low, width: high - low, bins }
    }

    /// The last bin includes its upper edge. Values beyond an end count in the bin there.
    #[inline]
    fn bin_of(&self, v: f64) -> usize {
        // The cast saturates below 0 and turns NaN (0 / 0, for a huge constant) into 0.
        (((v - self.low) / self.width * self.bins as f64) as usize).min(self.bins - 1)
    }
}

/// Adds the counts of `old`, which cover `from`, to `new`, which cover `to`. `to` contains `from`.
fn rebin(old: &[f64], from: Range, new: &mut [f64], to: Range) {
    let edges = Edges::of(to, new.len());
    if from == to && old.len() == new.len() {
        new.iter_mut().zip(old).for_each(|(new, old)| *new += old);
        return;
    }
    let (low, high) = (f64::from(from.min()), f64::from(from.max()));
    if low == high {
        new[edges.bin_of(low)] += old.iter().sum::<f64>();
        return;
    }
    let part = (high - low) / (old.len() * PARTS) as f64;
    for (bin, &count) in old.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        for i in bin * PARTS..(bin + 1) * PARTS {
            new[edges.bin_of(low + (i as f64 + 0.5) * part)] += count / PARTS as f64;
        }
    }
}

/// The search for the bins to keep: PyTorch's `NonlinearQuantizationParamsSearch`.
struct Search<'a> {
    bins: &'a [f64],
    levels: f64,
    width: f64,
}

impl Search<'_> {
    /// The first and the last bin to keep.
    fn run(&self) -> (usize, usize) {
        let mut cumulative = self.bins.to_vec();
        for i in 1..cumulative.len() {
            cumulative[i] += cumulative[i - 1];
        }
        let total = cumulative[cumulative.len() - 1];
        let (mut alpha, mut beta) = (0.0, 1.0);
        let (mut start, mut end) = (0, self.bins.len() - 1);
        let mut least = f64::INFINITY;
        while alpha < beta {
            let (next_alpha, next_beta) = (alpha + STEP, beta - STEP);
            let (mut left, mut right) = (start, end);
            while left < end && cumulative[left] < next_alpha * total {
                left += 1;
            }
            while right > start && cumulative[right] > next_beta * total {
                right -= 1;
            }
            let (mut next_start, mut next_end) = (start, end);
            if left - start > end - right {
                next_start = left;
                alpha = next_alpha;
            } else {
                next_end = right;
                beta = next_beta;
            }
            if (next_start, next_end) == (start, end) {
                continue;
            }
            let norm = self.norm(next_start, next_end);
            if norm > least {
                break;
            }
            least = norm;
            (start, end) = (next_start, next_end);
        }
        (start, end)
    }

    /// The squared error of all values, spread evenly within their bins, if the bins `start..=end`
    /// are divided into `levels`.
    fn norm(&self, start: usize, end: usize) -> f64 {
        let target = self.width * (end - start + 1) as f64 / self.levels;
        if target == 0.0 {
            return 0.0;
        }
        let last = self.levels - 1.0;
        // The integral of x^2 between two distances from the centre of a target bin.
        let integral = |begin: f64, end: f64| (end * end * end - begin * begin * begin) / 3.0;
        let half = target / 2.0;
        let of_bin = |(bin, &count): (usize, &f64)| {
            if count == 0.0 {
                return 0.0;
            }
            let begin = (bin as f64 - start as f64) * self.width;
            let end = begin + self.width;
            let (first, second) =
                ((begin / target).floor().clamp(0.0, last), (end / target).floor().clamp(0.0, last));
            let to_begin = begin - (first + 0.5) * target;
            let to_end = end - (second * target + half);
            let norm = integral(to_begin, half)
                + (second - first - 1.0) * integral(-half, half)
                + integral(-half, to_end);
            count / self.width * norm
        };
        self.bins.iter().enumerate().map(of_bin).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_when_the_range_grows() {
        let mut observer = HistogramObserver::new(64, 256).unwrap();
        for (batch, total) in [(1.0, 100.0), (1.5, 200.0), (1e38, 300.0), (-1e38, 400.0), (0.0, 500.0)] {
            observer.observe(&[batch; 100]);
            assert_eq!(observer.histogram().iter().sum::<f64>(), total);
        }
        assert!(observer.range().is_ok());
    }

    #[test]
    fn a_merge_keeps_totals_and_extremes() {
        let observe = |values: &[f32]| {
            let mut observer = HistogramObserver::new(128, 256).unwrap();
            observer.observe(values);
            observer
        };
        let (a, b) = ([1.0, 2.0, 3.0, 9.0], [-4.0, 0.5, f32::NAN]);
        for (a, b) in [(&a[..], &b[..]), (&a, &[]), (&[], &b), (&[2.0], &[2.0]), (&[2.0], &a)] {
            let merged = observe(a).merge(observe(b));
            let whole = observe(&[a, b].concat());
            assert_eq!(merged.seen, whole.seen);
            assert_eq!(merged.bins.iter().sum::<f64>(), whole.bins.iter().sum::<f64>());
        }
        // Both have the same range, so nothing is rebinned.
        let (a, b) = ([0.0, 1.0, 5.0, 8.0], [0.0, 8.0, 7.0]);
        assert_eq!(observe(&a).merge(observe(&b)), observe(&[&a[..], &b[..]].concat()));
    }

    #[test]
    fn refuses_impossible_sizes() {
        assert!(HistogramObserver::new(0, 256).is_err() && HistogramObserver::new(usize::MAX, 256).is_err());
        assert!(HistogramObserver::new(8, 1).is_err() && HistogramObserver::new(8, u32::MAX).is_err());
    }
}
