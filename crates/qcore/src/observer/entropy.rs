//! The range that keeps the distribution: least Kullback-Leibler divergence.

use crate::codes::CodeRange;
use crate::observer::float_counts::{Bin, FloatCounts};
use crate::observer::{MergeObserver, MinMaxObserver, Observer, ObserverError};
use crate::range::Range;

/// The bins of the magnitudes' histogram, TensorRT's number.
const BINS: usize = 2048;

/// What an empty bin of `Q` counts.
const EMPTY: f64 = 1e-4;

/// The threshold that keeps most of the distribution of magnitudes: TensorRT's entropy calibration.
///
/// The magnitudes stand in 2048 bins of equal width. For each number of bins that could be kept, `P` is their
/// distribution with all larger values added to the last, `Q` the same bins without them, merged into as many levels as
/// there are codes for magnitudes and spread out again over the bins that are not empty (an empty one counts 1e-4, as
/// in MXNet, lest a lone outlier make the divergence infinite). The threshold with the least `KL(P || Q)` is taken, of
/// equals the smallest, and the observed range cut to it. The bin at 0 counts as much as its neighbour, as in NVIDIA's
/// tools: a ReLU's zeros cost nothing.
///
/// Values are counted in bins of 2^-8 of their size, so any order and size of batches gives the same result, and
/// merging equals one pass.
///
/// ```
/// use qcore::{CodeRange, EntropyObserver, Observer};
///
/// let mut observer = EntropyObserver::new(CodeRange::I8);
/// let batch: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32 / 100.0).collect();
/// observer.observe(&batch);
/// observer.observe(&[50.0]); // an outlier
/// assert!(observer.range()?.max() < 5.0);
/// # Ok::<(), qcore::ObserverError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EntropyObserver {
    levels: usize,
    seen: MinMaxObserver,
    counts: FloatCounts,
}

impl EntropyObserver {
    /// An observer for values that become `codes`: 128 levels of magnitude for eight bits, signed or not.
    ///
    /// ```
    /// use qcore::{CodeRange, EntropyObserver};
    ///
    /// assert_eq!(EntropyObserver::new(CodeRange::I8), EntropyObserver::new(CodeRange::U8));
    /// ```
    #[must_use]
    pub fn new(codes: CodeRange) -> EntropyObserver {
        let levels = (codes.max() - codes.middle()).max(0) as usize + 1;
        EntropyObserver { levels, seen: MinMaxObserver::default(), counts: FloatCounts::default() }
    }
}

impl MergeObserver for EntropyObserver {
    fn merge(mut self, other: EntropyObserver) -> EntropyObserver {
        self.seen = self.seen.merge(other.seen);
        self.counts.merge(other.counts);
        self
    }
}

impl Observer for EntropyObserver {
    fn observe(&mut self, values: &[f32]) {
        self.seen.observe(values);
        self.counts.observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        let range = self.seen.range()?;
        let largest = f64::from(range.abs_max());
        let mut histogram = magnitudes(&self.counts.bins(range), largest);
        histogram[0] = histogram[1];
        let kept = kept_bins(&histogram, self.levels);
        let threshold = (largest * kept as f64 / BINS as f64) as f32;
        let (min, max) = (range.min().max(-threshold), range.max().min(threshold));
        // All values beyond the threshold on one side: nothing to cut there.
        Ok(Range::new(min, max).unwrap_or(range))
    }

    fn finite(&self) -> u64 {
        self.seen.finite()
    }

    fn non_finite(&self) -> u64 {
        self.seen.non_finite()
    }
}

/// Counts of magnitudes in bins of equal width from 0 to `largest`, each source bin spread evenly over what it covers.
fn magnitudes(bins: &[Bin], largest: f64) -> [f64; BINS] {
    let mut histogram = [0.0; BINS];
    // A width of 0 makes the positions NaN, and `as` makes those 0.
    let position = |v: f32| (f64::from(v.abs()) / largest * BINS as f64).min(BINS as f64);
    for bin in bins {
        let (a, b) = (position(bin.low), position(bin.high));
        let (low, high) = (a.min(b), a.max(b));
        let (first, last) = ((low as usize).min(BINS - 1), (high as usize).min(BINS - 1));
        if first == last {
            histogram[first] += bin.count as f64;
            continue;
        }
        for (i, slot) in histogram.iter_mut().enumerate().take(last + 1).skip(first) {
            let covered = (i as f64 + 1.0).min(high) - (i as f64).max(low);
            *slot += bin.count as f64 * covered / (high - low);
        }
    }
    histogram
}

/// How many bins the threshold with the least divergence keeps.
fn kept_bins(histogram: &[f64; BINS], levels: usize) -> usize {
    let total: f64 = histogram.iter().sum();
    let mut inside: f64 = histogram[..levels].iter().sum();
    let (mut best, mut least) = (BINS, f64::INFINITY);
    for kept in levels..=BINS {
        if kept > levels {
            inside += histogram[kept - 1];
        }
        let divergence = divergence(&histogram[..kept], (total - inside).max(0.0), levels);
        if divergence < least {
            (best, least) = (kept, divergence);
        }
    }
    best
}

/// `KL(P || Q)` of the bins kept, and of what lies beyond them.
fn divergence(kept: &[f64], outliers: f64, levels: usize) -> f64 {
    let inside: f64 = kept.iter().sum();
    let mut sum = 0.0;
    for level in 0..levels {
        let bins = level * kept.len() / levels..(level + 1) * kept.len() / levels;
        let (start, end) = (bins.start, bins.end);
        let occupied = kept[bins.clone()].iter().filter(|count| **count > 0.0).count();
        let average = kept[bins].iter().sum::<f64>() / occupied.max(1) as f64;
        for (i, &count) in kept.iter().enumerate().take(end).skip(start) {
            let p = if i == kept.len() - 1 { count + outliers } else { count };
            if p > 0.0 {
                let q = if count > 0.0 { average } else { EMPTY };
                sum += p * ((p / (inside + outliers)) / (q / inside.max(EMPTY))).ln();
            }
        }
    }
    sum / (inside + outliers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_bell_is_cut_and_an_even_spread_is_not() {
        // Sums of twelve: nearly normal, deviation 1.
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let bell: Vec<f32> = (0..50_000).map(|_| (0..12).map(|_| next()).sum::<f32>() - 6.0).collect();
        let even: Vec<f32> = (0..50_000).map(|_| next() - 0.5).collect();
        let threshold = |values: &[f32]| {
            let mut observer = EntropyObserver::new(CodeRange::I8);
            observer.observe(values);
            let whole = Range::of(values).unwrap();
            observer.range().unwrap().abs_max() / whole.abs_max()
        };
        assert!((0.4..0.99).contains(&threshold(&bell)), "{}", threshold(&bell));
        assert!(threshold(&even) > 0.9, "{}", threshold(&even));
    }

    #[test]
    fn merging_equals_one_pass_in_any_order() {
        let values: Vec<f32> = (0..5000).map(|i| ((i * 7919 % 5000) as f32 / 500.0).powi(3) - 9.0).collect();
        let observe = |values: &[f32]| {
            let mut observer = EntropyObserver::new(CodeRange::U8);
            values.chunks(77).for_each(|batch| observer.observe(batch));
            observer
        };
        assert_eq!(observe(&values[3000..]).merge(observe(&values[..3000])), observe(&values));
    }

    #[test]
    fn few_levels_and_empty_histograms() {
        for bits in 2..=8 {
            let mut observer = EntropyObserver::new(CodeRange::signed(bits).unwrap());
            observer.observe(&[0.0, -1.0, 2.0]);
            assert!(observer.range().is_ok());
        }
    }
}
