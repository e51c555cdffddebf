//! The sums of each channel that packing computes in passing. Zero points and the overflow bound
//! need them.
//!
//! They are sums of packed weights, block by block, each while it is in the cache. There channels
//! lie side by side, whatever the strides of what was packed, and vectors add up what lies side by
//! side.

use bytemuck::try_zeroed_vec;

use crate::weights::operand::{PackError, ZeroPoints};

/// For each channel, the sum of `w - zero_point` and of its magnitude.
#[derive(Clone)]
pub(crate) struct Sums {
    pub(crate) plain: Vec<i32>,
    pub(crate) magnitudes: Vec<u32>,
}

impl Sums {
    /// The sums of n channels without weights. They come from the allocator as zeros and are not
    /// written. So channels that have nothing cost only addresses, however many there are.
    pub(crate) fn zeroed(n: usize) -> Option<Self> {
        Some(Self { plain: try_zeroed_vec(n).ok()?, magnitudes: try_zeroed_vec(n).ok()? })
    }
}

/// Sums that grow, of any number of weights.
pub(crate) struct Totals<'z> {
    zero_points: ZeroPoints<'z>,
    /// What weights and their zero points are packed less.
    shift: i32,
    /// The sum of each channel's packed weights.
    plain: Vec<i64>,
    /// The sum of each channel's `|w - zero_point|`.
    magnitudes: Vec<u64>,
}

/// Pairs of weights that are summed at once, of as many columns as they make.
const PAIRS: usize = 96;

/// The most groups that are summed in 16 bits. A pair of weights adds at least -256 to one sum, and
/// at most 2 * 255 to the other.
const GROUPS: usize = 128;

impl<'z> Totals<'z> {
    /// The sums of n channels, none of which has weights yet; `None` if there is no memory for
    /// them.
    pub(crate) fn zeroed(n: usize, zero_points: ZeroPoints<'z>, shift: i32) -> Option<Self> {
        let (plain, magnitudes) = (try_zeroed_vec(n).ok()?, try_zeroed_vec(n).ok()?);
        Some(Self { zero_points, shift, plain, magnitudes })
    }

    /// Adds groups of a panel of `columns` columns, the first of which is `channel`. kr is even.
    /// Columns that are no channels are padding.
    #[inline(always)]
    pub(crate) fn add<const KR: usize>(&mut self, groups: &[[i8; KR]], columns: usize, channel: usize) {
        let abreast = 2 * PAIRS / KR;
        for groups in groups.chunks(GROUPS * columns) {
            for first in (0..columns).step_by(abreast) {
                let count = abreast.min(columns - first);
                self.add_columns(&groups[first..], columns, count, channel + first);
            }
        }
    }

    /// Adds the first `count` columns, whose pairs have room in one array.
    #[inline(always)]
    fn add_columns<const KR: usize>(
        &mut self,
        groups: &[[i8; KR]],
        columns: usize,
        count: usize,
        channel: usize,
    ) {
        let mut zeros = [0; PAIRS];
        match self.zero_points {
            ZeroPoints::PerTensor(zero_point) => zeros = [(zero_point - self.shift) as i16; PAIRS],
            ZeroPoints::PerChannel(zero_points) => {
                let zero_points = zero_points.get(channel..).unwrap_or_default();
                for (zeros, zero_point) in zeros.chunks_mut(KR / 2).zip(zero_points) {
                    zeros.fill((zero_point - self.shift) as i16);
                }
            }
        }
        let mut sums = PairSums { plain: [0; PAIRS], magnitudes: [0; PAIRS] };
        let (groups, step, pairs) = (groups.as_flattened(), columns * KR, count * KR / 2);
        let mut at = 0;
        while at + 16 <= pairs {
            sums.add::<16>(groups, step, at, &zeros);
            at += 16;
        }
        while at + 8 <= pairs {
            sums.add::<8>(groups, step, at, &zeros);
            at += 8;
        }
        while at < pairs {
            sums.add::<1>(groups, step, at, &zeros);
            at += 1;
        }
        let channels = channel..self.plain.len().min(channel + count);
        let (plain, magnitudes) = (&mut self.plain[channels.clone()], &mut self.magnitudes[channels]);
        match KR {
            2 => sums.of_columns::<1>(plain, magnitudes),
            4 => sums.of_columns::<2>(plain, magnitudes),
            8 => sums.of_columns::<4>(plain, magnitudes),
            _ => sums.of_columns::<8>(plain, magnitudes),
        }
    }

    /// As [`add`](Self::add), for any kr, weight after weight.
    pub(crate) fn add_singly(&mut self, groups: &[i8], kr: usize, columns: usize, channel: usize) {
        for group in groups.chunks_exact(kr * columns) {
            let sums = self.plain.iter_mut().zip(&mut self.magnitudes).enumerate().skip(channel);
            for (weights, (channel, (sum, magnitude))) in group.chunks_exact(kr).zip(sums) {
                let zero_point = self.zero_points.of(channel) - self.shift;
                for &w in weights {
                    *sum += i64::from(w);
                    *magnitude += u64::from((i32::from(w) - zero_point).unsigned_abs());
                }
            }
        }
    }

    /// The sums of channels of `k` weights, which were added with `padding` zeros behind them.
    #[inline(always)]
    pub(crate) fn finish(self, k: usize, padding: usize) -> Result<Sums, PackError> {
        let Self { zero_points, shift, mut plain, mut magnitudes } = self;
        let mut narrowed = Sums::zeroed(plain.len()).ok_or(PackError::OutOfMemory { n: plain.len(), k })?;
        let correct = |zero_point: &i32, (sum, magnitude): (&mut i64, &mut u64)| {
            let zero_point = i64::from(zero_point - shift);
            *sum -= k as i64 * zero_point;
            *magnitude -= padding as u64 * zero_point.unsigned_abs();
        };
        let sums = plain.iter_mut().zip(&mut magnitudes);
        match zero_points {
            ZeroPoints::PerTensor(zero_point) => sums.for_each(|sums| correct(&zero_point, sums)),
            ZeroPoints::PerChannel(zero_points) => {
                zero_points.iter().zip(sums).for_each(|(zero_point, sums)| correct(zero_point, sums));
            }
        }
        let overflow = |channel: usize| PackError::Overflow { channel, k, abs_sum: magnitudes[channel] };
        for (channel, (to, &sum)) in narrowed.plain.iter_mut().zip(&plain).enumerate() {
            *to = i32::try_from(sum).map_err(|_| overflow(channel))?;
        }
        for (channel, (to, &sum)) in narrowed.magnitudes.iter_mut().zip(&magnitudes).enumerate() {
            *to = u32::try_from(sum).map_err(|_| overflow(channel))?;
        }
        Ok(narrowed)
    }
}

/// Sums of pairs of weights of few groups.
struct PairSums {
    plain: [i16; PAIRS],
    magnitudes: [u16; PAIRS],
}

impl PairSums {
    /// Adds up the `P` pairs from `first` on of all groups, which are `step` bytes apart.
    ///
    /// The loops over pairs are short and of constant length. Then the compiler unrolls them all,
    /// and the sums are registers. They would be in memory if one loop did everything.
    #[inline(always)]
    fn add<const P: usize>(&mut self, groups: &[i8], step: usize, first: usize, zeros: &[i16; PAIRS]) {
        let Some(zeros) = zeros[first..].first_chunk::<P>().copied() else { return };
        let (mut sums, mut magnitudes) = ([0i16; P], [0u16; P]);
        let mut rest = groups.get(2 * first..).unwrap_or_default();
        while let Some(pairs) = rest.as_chunks::<2>().0.first_chunk::<P>() {
            rest = rest.get(step..).unwrap_or_default();
            let (mut words, mut low, mut high) = ([0i16; P], [0i16; P], [0i16; P]);
            for i in 0..P {
                words[i] = i16::from_le_bytes(pairs[i].map(i8::cast_unsigned));
            }
            for i in 0..P {
                low[i] = words[i] << 8 >> 8;
            }
            for i in 0..P {
                high[i] = words[i] >> 8;
            }
            for i in 0..P {
                sums[i] += low[i] + high[i];
            }
            for i in 0..P {
                magnitudes[i] += (low[i] - zeros[i]).unsigned_abs();
            }
            for i in 0..P {
                magnitudes[i] += (high[i] - zeros[i]).unsigned_abs();
            }
        }
        self.plain[first..first + P].copy_from_slice(&sums);
        self.magnitudes[first..first + P].copy_from_slice(&magnitudes);
    }

    /// Adds the sums of `E` pairs each to those of their columns.
    #[inline(always)]
    fn of_columns<const E: usize>(&self, plain: &mut [i64], magnitudes: &mut [u64]) {
        for (to, pairs) in plain.iter_mut().zip(self.plain.as_chunks::<E>().0) {
            let mut sum = 0;
            for pair in pairs {
                sum += i32::from(*pair);
            }
            *to += i64::from(sum);
        }
        for (to, pairs) in magnitudes.iter_mut().zip(self.magnitudes.as_chunks::<E>().0) {
            let mut sum = 0;
            for pair in pairs {
                sum += u32::from(*pair);
            }
            *to += u64::from(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of one weight, whose sums may be at the ends of 16 bits, against sums one by one.
    fn check<const KR: usize>(columns: usize, number: usize, fill: i8, zero_point: i32) {
        let groups = vec![[fill; KR]; columns * number];
        let n = columns - 1;
        let k = KR * number - 1;
        for zero_points in [ZeroPoints::PerTensor(zero_point), ZeroPoints::PerChannel(&vec![zero_point; n])] {
            let mut vectors = Totals::zeroed(n, zero_points, 0).unwrap();
            let mut singly = Totals::zeroed(n, zero_points, 0).unwrap();
            vectors.add(&groups, columns, 0);
            singly.add_singly(groups.as_flattened(), KR, columns, 0);
            let weights = (KR * number) as i64;
            let magnitude = weights as u64 * u64::from((i32::from(fill) - zero_point).unsigned_abs());
            for totals in [vectors, singly] {
                assert_eq!(totals.plain, vec![weights * i64::from(fill); n], "{KR} {columns} {number}");
                assert_eq!(totals.magnitudes, vec![magnitude; n], "{KR} {columns} {number}");
                // The last weight of each channel counts as padding, if it is 0.
                if fill == 0 {
                    let sums = totals.finish(k, 1).unwrap();
                    assert_eq!(sums.plain, vec![-(k as i32) * zero_point; n]);
                    assert_eq!(sums.magnitudes, vec![k as u32 * zero_point.unsigned_abs(); n]);
                }
            }
        }
    }

    #[test]
    fn sums_of_extremes_are_exact() {
        for columns in [1, 4, 8, 12, 16, 48, 100] {
            for number in [1, 127, 128, 129, 300] {
                for (fill, zero_point) in [(-128, 127), (127, -128), (-128, -128), (0, -128), (0, 5)] {
                    check::<2>(columns, number, fill, zero_point);
                    check::<4>(columns, number, fill, zero_point);
                    check::<8>(columns, number, fill, zero_point);
                    check::<16>(columns, number, fill, zero_point);
                }
            }
        }
    }
}
