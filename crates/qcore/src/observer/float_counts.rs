//! Counts values by sign, exponent and leading mantissa bits.
//!
//! These bins do not depend on a range, so none has to be known in advance and no bin is ever
//! moved. Batches may come in any order and any size, two observers are merged by adding their
//! counts, and neither 1e38 beside 1e-38 nor a range of zero needs special treatment. A bin is at
//! most 2^-8 of its value wide, down to the subnormals, and 0 has a bin of its own. Memory is used
//! only for exponents that occur.

use crate::value::Range;

/// The number of leading mantissa bits that tell bins apart.
const MANTISSA_BITS: u32 = 8;

/// The number of trailing bits of an f32 that one bin does not tell apart.
const DROPPED_BITS: u32 = f32::MANTISSA_DIGITS - 1 - MANTISSA_BITS;

/// The bins of one sign and exponent.
type Binade = [u64; 1 << MANTISSA_BITS];

/// A bin that is not empty: its closed range of values, and their count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bin {
    pub(crate) low: f32,
    pub(crate) high: f32,
    pub(crate) count: u64,
}

/// Counts of finite values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FloatCounts {
    /// The count of 0 and -0. Most values after a ReLU are zeros, and they must not count as
    /// subnormals.
    zeros: u64,
    /// The counts of all other values, by sign and exponent. The vector grows on demand to at most
    /// 512 entries, and each entry is allocated when it is first needed.
    binades: Vec<Option<Box<Binade>>>,
}

impl FloatCounts {
    /// Counts the finite values.
    pub(crate) fn observe(&mut self, values: &[f32]) {
        for &v in values.iter().filter(|v| v.is_finite()) {
            if v == 0.0 {
                self.zeros += 1;
                continue;
            }
            let key = (v.to_bits() >> DROPPED_BITS) as usize;
            let (binade, bin) = (key >> MANTISSA_BITS, key % (1 << MANTISSA_BITS));
            if self.binades.len() <= binade {
                self.binades.resize(binade + 1, None);
            }
            self.binades[binade].get_or_insert_with(|| Box::new([0; 1 << MANTISSA_BITS]))[bin] += 1;
        }
    }

    /// Adds the counts of another.
    pub(crate) fn merge(&mut self, other: FloatCounts) {
        self.zeros += other.zeros;
        if self.binades.len() < other.binades.len() {
            self.binades.resize(other.binades.len(), None);
        }
        for (mine, theirs) in self.binades.iter_mut().zip(other.binades) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => {
                    mine.iter_mut().zip(theirs.iter()).for_each(|(a, b)| *a += b);
                }
                (mine @ None, theirs) => *mine = theirs,
                (Some(_), None) => {}
            }
        }
    }

    /// The bins that are not empty, cut to `range`, in ascending order of their values.
    pub(crate) fn bins(&self, range: Range) -> Vec<Bin> {
        let half = 1 << (31 - DROPPED_BITS);
        let zeros = (self.zeros > 0).then_some(Bin { low: 0.0, high: 0.0, count: self.zeros });
        let bin = |key: usize| -> Option<Bin> {
            let count = self.binades.get(key >> MANTISSA_BITS)?.as_ref()?[key % (1 << MANTISSA_BITS)];
            let first_bits = (key as u32) << DROPPED_BITS;
            // The bin of the smallest magnitudes would contain 0, which has a bin of its own, so it
            // begins just above 0.
            let first = f32::from_bits(if key.is_multiple_of(half) { first_bits + 1 } else { first_bits });
            let last = f32::from_bits(first_bits | ((1 << DROPPED_BITS) - 1));
            let (low, high) = (first.min(last).max(range.min()), first.max(last).min(range.max()));
            (count > 0).then_some(Bin { low, high, count })
        };
        // Negative floats descend as their bits ascend.
        (half..2 * half).rev().filter_map(bin).chain(zeros).chain((0..half).filter_map(bin)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_its_bin_and_bins_ascend() {
        let values: Vec<f32> = (0..=u32::MAX).step_by(100_003).map(f32::from_bits).collect();
        let range = Range::of_finite(&values).unwrap();
        let mut counts = FloatCounts::default();
        counts.observe(&values);
        let bins = counts.bins(range);
        let finite = values.iter().filter(|v| v.is_finite()).count() as u64;
        assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), finite);
        assert!(bins.windows(2).all(|pair| pair[0].high < pair[1].low));
        for bin in bins {
            let inside = values.iter().filter(|&&v| (bin.low..=bin.high).contains(&v)).count() as u64;
            assert_eq!(inside, bin.count, "{bin:?}");
        }
    }

    #[test]
    fn zeros_stand_apart_from_the_smallest_magnitudes() {
        let tiny = f32::from_bits(1);
        let mut counts = FloatCounts::default();
        counts.observe(&[0.0, tiny, -0.0, -tiny, 0.0]);
        let bins = counts.bins(Range::new(-tiny, tiny).unwrap());
        let bin = |v, count| Bin { low: v, high: v, count };
        assert_eq!(bins, [bin(-tiny, 1), bin(0.0, 3), bin(tiny, 1)]);
    }

    #[test]
    fn a_bin_is_narrow() {
        let mut counts = FloatCounts::default();
        counts.observe(&[1.0, -1.0, 1e38, 1e-30]);
        for bin in counts.bins(Range::new(-f32::MAX, f32::MAX).unwrap()) {
            assert!(bin.high - bin.low <= bin.low.abs().max(bin.high.abs()) / 256.0, "{bin:?}");
        }
    }
}
