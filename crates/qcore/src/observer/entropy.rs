//! The range whose codes keep the distribution of the values: the least Kullback-Leibler
//! divergence.

use super::float_counts::{Bin, FloatCounts};
use super::{MergeObserver, MinMaxObserver, Observer};
use crate::code::CodeRange;
use crate::value::{ObserverError, Range};

/// The number of bins of the histogram of magnitudes, as in TensorRT.
const BINS: usize = 2048;

/// The count given to an empty bin of `Q`.
const EMPTY: f64 = 1e-4;

/// The largest share of the values, zeros aside, that a threshold may cut off. For bell-shaped and
/// heavy-tailed values the least divergence cuts off at most 3 %.
const MOST_CUT: f64 = 0.1;

/// Finds the threshold that keeps most of the distribution of magnitudes: TensorRT's entropy
/// calibration.
///
/// The magnitudes are counted in 2048 bins of equal width. For each number of bins that could be
/// kept there are two distributions. `P` has these bins, with all larger values added to the last.
/// `Q` has them without the larger values, merged into as many levels as there are codes for
/// magnitudes and then spread out again over the bins that are not empty. (An empty bin counts
/// 1e-4, as in MXNet, so that a single outlier does not make the divergence infinite.) The
/// threshold with the least `KL(P || Q)` wins, the smallest one if several are equal, and the
/// observed range is cut to it. The bin at 0 counts as much as its neighbour, as in NVIDIA's tools,
/// so the zeros of a ReLU cost nothing.
///
/// This works for values that become rarer away from 0. A value other than 0 that occurs often,
/// such as the background of normalised pixels, has no special treatment, and the least divergence
/// may then cut off up to a tenth of the values.
///
/// Two rules keep it from cutting off values that are not outliers, as TensorRT's rule alone would:
///
/// - A threshold that cuts off more than a tenth of the values, zeros aside, is not considered. (If
///   `Q` has at most one bin that is not empty, its divergence from `P` is 0, however many values
///   lie beyond.)
/// - If there are fewer distinct values than codes (pixels of 17 grey levels, a mask of 0 and 1),
///   each is in one bin, and the values beyond a threshold stay where they are in `P`, against
///   empty bins of `Q`. They are not added to the last value that is kept.
///
/// Values are counted in bins of 2^-8 of their size. Any order and any size of batches gives the
/// same result, and merging two observers equals one pass.
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
    /// An observer for values that will be quantized to `codes`. Eight bits give 128 levels of
    /// magnitude, signed or not.
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
        let bins = self.counts.bins(range);
        let spread = if bins.len() < 2 * self.levels { Spread::Few } else { Spread::Dense };
        let mut histogram = magnitudes(&bins, largest, spread);
        histogram[0] = histogram[1];
        let kept = kept_bins(&histogram, self.levels, spread);
        let threshold = (largest * kept as f64 / BINS as f64) as f32;
        let (min, max) = (range.min().max(-threshold), range.max().min(threshold));
        // All values of one side are beyond the threshold, so that side is not cut.
        Ok(Range::new(min, max).unwrap_or(range))
    }

    fn finite(&self) -> u64 {
        self.seen.finite()
    }

    fn non_finite(&self) -> u64 {
        self.seen.non_finite()
    }
}

/// How the values are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spread {
    /// There are many distinct values, so neighbouring bins stand for each other.
    Dense,
    /// There are fewer distinct values than codes.
    Few,
}

/// The counts of magnitudes in bins of equal width from 0 to `largest`. A source bin is spread
/// evenly over what it covers. If there are few distinct values it is counted at its upper end
/// instead, so that a threshold keeps all of it or nothing, even far from 0, where source bins are
/// wider than bins of the histogram.
fn magnitudes(bins: &[Bin], largest: f64, spread: Spread) -> Vec<f64> {
    let mut histogram = vec![0.0; BINS];
    // If the width is 0 the positions are NaN, which `as` turns into 0.
    let position = |v: f32| (f64::from(v.abs()) / largest * BINS as f64).min(BINS as f64);
    for bin in bins {
        let (a, b) = (position(bin.low), position(bin.high));
        let (low, high) = (a.min(b), a.max(b));
        let (first, last) = ((low as usize).min(BINS - 1), (high as usize).min(BINS - 1));
        if first == last || spread == Spread::Few {
            histogram[last] += bin.count as f64;
            continue;
        }
        for (i, slot) in histogram.iter_mut().enumerate().take(last + 1).skip(first) {
            let covered = (i as f64 + 1.0).min(high) - (i as f64).max(low);
            *slot += bin.count as f64 * covered / (high - low);
        }
    }
    histogram
}

/// The number of bins that the threshold with the least divergence keeps.
fn kept_bins(histogram: &[f64], levels: usize, spread: Spread) -> usize {
    let total: f64 = histogram.iter().sum();
    let mut inside: f64 = histogram[..levels].iter().sum();
    let (mut best, mut least) = (BINS, f64::INFINITY);
    for kept in levels..=BINS {
        if kept > levels {
            inside += histogram[kept - 1];
        }
        if kept < BINS && total - inside > MOST_CUT * total {
            continue;
        }
        let divergence = divergence(histogram, kept, levels, spread);
        if divergence < least {
            (best, least) = (kept, divergence);
        }
    }
    best
}

/// `KL(P || Q)` for the first `kept` bins, including what lies beyond them.
fn divergence(histogram: &[f64], kept: usize, levels: usize, spread: Spread) -> f64 {
    let (kept, beyond) = histogram.split_at(kept);
    let (inside, outliers): (f64, f64) = (kept.iter().sum(), beyond.iter().sum());
    let total = inside + outliers;
    let term = |p: f64, q: f64| if p > 0.0 { p * ((p / total) / (q / inside)).ln() } else { 0.0 };
    let mut sum = 0.0;
    for level in 0..levels {
        let bins = level * kept.len() / levels..(level + 1) * kept.len() / levels;
        let occupied = kept[bins.clone()].iter().filter(|count| **count > 0.0).count();
        let average = kept[bins.clone()].iter().sum::<f64>() / occupied.max(1) as f64;
        for i in bins {
            let q = if kept[i] > 0.0 { average } else { EMPTY };
            let takes_outliers = spread == Spread::Dense && i == kept.len() - 1;
            sum += term(if takes_outliers { kept[i] + outliers } else { kept[i] }, q);
        }
    }
    if spread == Spread::Few {
        sum += beyond.iter().map(|&count| term(count, EMPTY)).sum::<f64>();
    }
    sum / total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_bell_is_cut_and_an_even_spread_is_not() {
        // Sums of twelve uniform values: nearly normal, with deviation 1.
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let bell: Vec<f32> = (0..50_000).map(|_| (0..12).map(|_| next()).sum::<f32>() - 6.0).collect();
        let even: Vec<f32> = (0..50_000).map(|_| next() - 0.5).collect();
        let threshold = |values: &[f32]| share(values, CodeRange::I8);
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

    /// The observed range as a share of the whole range.
    fn share(values: &[f32], codes: CodeRange) -> f32 {
        let mut observer = EntropyObserver::new(codes);
        observer.observe(values);
        observer.range().unwrap().abs_max() / Range::of(values).unwrap().abs_max()
    }

    #[test]
    fn inputs_of_few_values_are_not_cut() {
        for levels in (2..=20_usize).chain([33, 34, 65, 129, 254, 255]) {
            let even = (0..20_000).map(|i| (i % levels) as f32 / (levels - 1) as f32);
            let signed = even.clone().map(|v| 2.0 * v - 1.0);
            // Each value occurs half as often as the one before, at a distance that is not a power
            // of two.
            let rare = (1..20_000_u32).map(|i| (i.trailing_zeros() as usize).min(levels - 1) as f32 * 0.3);
            for values in [even.collect::<Vec<_>>(), signed.collect(), rare.collect()] {
                for scale in [1.0, 255.0] {
                    let values: Vec<f32> = values.iter().map(|v| v * scale).collect();
                    let share = share(&values, CodeRange::U8);
                    assert!(share > 0.99, "{levels} levels times {scale}: {share}");
                }
            }
        }
        // With fewer codes than values, neighbours share a code, but the range is still that of the
        // values.
        for levels in [17, 33, 65, 257] {
            let values: Vec<f32> = (0..20_000).map(|i| (i % levels) as f32).collect();
            let share = share(&values, CodeRange::signed(4).unwrap());
            assert!(share > 0.9, "{levels} levels in four bits: {share}");
        }
    }

    #[test]
    fn values_far_from_zero_are_not_cut_to_the_first_of_them() {
        let values = |low: f32, high: f32| -> Vec<f32> {
            (0..20_000).map(|i| low + (high - low) * (i as f32 / 20_000.0).powi(2)).collect()
        };
        let around = |center: f32, deviation: f32| (center - 3.0 * deviation, center + 3.0 * deviation);
        let narrow = [
            around(10.0, 0.01),
            around(100.0, 0.1),
            around(300.0, 0.1),
            around(3000.0, 1.0),
            around(1e4, 1.0),
        ];
        let wide = [(280.0, 310.0), (0.2, 1.0), (0.5, 1.0), (-310.0, -280.0), around(-1e4, 1.0)];
        for (low, high) in wide.into_iter().chain(narrow) {
            for codes in [CodeRange::U8, CodeRange::signed(4).unwrap()] {
                let values = values(low, high);
                let mut observer = EntropyObserver::new(codes);
                observer.observe(&values);
                let range = observer.range().unwrap();
                let kept = values.iter().filter(|v| (range.min()..=range.max()).contains(v)).count();
                assert!(kept >= values.len() * 9 / 10, "{low}..{high}: {kept}");
            }
        }
    }

    #[test]
    fn few_values_far_from_zero_are_all_kept() {
        for values in [
            (0..11).map(|i| 10_000.0 + i as f32).collect::<Vec<_>>(),
            (0..10).map(|i| 10.0 + i as f32 / 1000.0).collect(),
            vec![0.1, 0.5, -0.3, 0.9],
            (0..3).map(|i| i as f32 / 3.0).collect(),
        ] {
            let mut observer = EntropyObserver::new(CodeRange::U8);
            observer.observe(&values);
            assert_eq!(observer.range(), Ok(Range::of(&values).unwrap()), "{values:?}");
        }
    }

    #[test]
    fn a_lone_outlier_is_cut_off_few_values_too() {
        let mut values: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32 / 100.0).collect();
        values.push(50.0);
        assert!(share(&values, CodeRange::I8) < 0.1);
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
