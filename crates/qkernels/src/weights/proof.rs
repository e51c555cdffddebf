//! The proof that 16 bits hold the sums of a panel's products, for any activations or for any
//! activations of a range.
//!
//! A kernel with narrow sums multiplies u8 by i8 and adds up what belongs to one 16-bit word. These
//! are the products of a pair of consecutive k, and those of the pairs at the same place in the
//! next groups, `narrow_groups` groups in all. Each activation is any of 0..=A. So such a sum is at
//! most A P, where P is the sum of the word's positive weights, and at least -A N, where N is the
//! sum of the magnitudes of its negative weights. Every partial sum lies between the two. 16 bits
//! hold both if
//!
//! ```text
//! A P <= 32767  and  A N <= 32768,  which for A = 255 is  P <= 128  and  N <= 128
//! ```
//!
//! That is all the proof needs. It is less than `255 (|w0| + |w1| + ...) <= 32767` asks for,
//! because weights of both signs do not add up. One group is proven for all weights of 7 bits
//! (-64..=63), two for all of 6 bits, four for all of 5 bits (-16..=15), and all of them wherever
//! large weights are rare enough. Where activations are known to be of 7 bits (A = 127), each is
//! proven for weights of one bit more: one group for all weights there are.
//!
//! ```text
//!              word 0     word 1
//! group 0     k0   k1    k2   k3
//! group 1     k4   k5    k6   k7        with two narrow groups, word 0 sums k0, k1, k4 and k5
//! ```

/// The most columns of a panel that can be proven.
pub(crate) const MOST_COLUMNS: usize = 16;

/// Whether the sums of `narrow_groups` groups fit 16 bits everywhere in the panel. The sums begin
/// with group 0. The panel is still in the layout of pairs: for each two k, the two weights of each
/// column. Activations are at most `largest`.
#[inline(always)]
pub(crate) fn holds(panel: &[i8], columns: usize, narrow_groups: usize, largest: u8) -> bool {
    if columns > MOST_COLUMNS {
        return false;
    }
    // The largest sums of weights of one sign whose products fit.
    let limit = |end: u16| end / u16::from(largest.max(1));
    let (most_positive, most_negative) = (limit(i16::MAX.unsigned_abs()), limit(i16::MIN.unsigned_abs()));
    let pairs_len = 2 * columns;
    for step in panel.chunks((2 * narrow_groups * pairs_len).max(1)) {
        let (mut largest_positive, mut largest_negative) = (0, 0);
        // Pairs take turns between the two words of a column.
        for word in 0..2 {
            let (mut positive, mut negative) = ([0u16; 2 * MOST_COLUMNS], [0u16; 2 * MOST_COLUMNS]);
            for pairs in step.chunks_exact(pairs_len).skip(word).step_by(2) {
                for ((positive, negative), &w) in positive.iter_mut().zip(&mut negative).zip(pairs) {
                    *positive += u16::from(w.max(0).unsigned_abs());
                    *negative += u16::from(w.min(0).unsigned_abs());
                }
            }
            for (sums, largest) in [(&positive, &mut largest_positive), (&negative, &mut largest_negative)] {
                for &[first, second] in sums.as_chunks().0 {
                    *largest = (first + second).max(*largest);
                }
            }
        }
        if largest_positive > most_positive || largest_negative > most_negative {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest and the smallest sum of each word, over activations that are all 0 or `most`. An
    /// extreme sum needs no others.
    fn extremes(panel: &[i8], columns: usize, narrow_groups: usize, most: u8) -> Vec<(i32, i32)> {
        let weight = |k: usize, column: usize| {
            let at = k / 2 * 2 * columns + 2 * column + k % 2;
            i32::from(panel.get(at).copied().unwrap_or(0))
        };
        let mut sums = Vec::new();
        for first in (0..panel.len() / columns).step_by(4 * narrow_groups) {
            for (column, word) in (0..columns).flat_map(|column| [(column, 0), (column, 1)]) {
                let ks = (0..narrow_groups).flat_map(|d| [0, 1].map(|i| first + 4 * d + 2 * word + i));
                let weights: Vec<i32> = ks.map(|k| weight(k, column)).collect();
                let all = (0..1u32 << weights.len()).map(|chosen| {
                    let products = weights
                        .iter()
                        .enumerate()
                        .map(|(i, w)| w * i32::from(most) * (chosen >> i & 1) as i32);
                    products.sum::<i32>()
                });
                let (low, high) = all.fold((0, 0), |(low, high), sum| (sum.min(low), sum.max(high)));
                sums.push((low, high));
            }
        }
        sums
    }

    fn fits(sums: &[(i32, i32)]) -> bool {
        let words = i32::from(i16::MIN)..=i32::from(i16::MAX);
        sums.iter().all(|(low, high)| words.contains(low) && words.contains(high))
    }

    #[test]
    fn the_bound_is_128_of_each_sign() {
        // A column of one group: k0 and k1 are one word, k2 and k3 the other.
        let pair = |first, second| holds(&[first, second, 0, 0], 1, 1, 255);
        assert!(pair(127, 1) && pair(64, 64) && pair(-128, 0) && pair(-64, -64) && pair(-128, 127));
        assert!(!pair(127, 2) && !pair(65, 64) && !pair(-128, -1) && !pair(-64, -65));
        assert!(holds(&[127, 1, 127, 1], 1, 1, 255));
        assert!(!holds(&[0, 0, 127, 2], 1, 1, 255));
    }

    #[test]
    fn activations_of_7_bits_prove_all_weights_for_one_group() {
        let pair = |first, second, most| holds(&[first, second, 0, 0], 1, 1, most);
        assert!(pair(127, 127, 127) && pair(-128, -128, 127) && pair(-128, -128, 128));
        assert!(pair(127, 127, 129) && !pair(127, 127, 130) && !pair(-128, -128, 129));
        assert!(pair(127, 127, 0) && pair(-128, -128, 1));
        assert!(holds(&[64; 16], 1, 2, 127) && !holds(&[65; 16], 1, 2, 127));
    }

    #[test]
    fn sums_begin_at_multiples_of_their_groups() {
        // Of k0 to k15, the words of group 1 and of group 2.
        let mut panel = [0; 16];
        (panel[4], panel[8]) = (100, 100);
        assert!(holds(&panel, 1, 1, 255) && holds(&panel, 1, 2, 255) && !holds(&panel, 1, 4, 255));
        // The same pair of groups, but different words.
        let mut panel = [0; 16];
        (panel[4], panel[10]) = (100, 100);
        assert!(holds(&panel, 1, 4, 255));
    }

    #[test]
    fn nothing_is_proven_and_more_columns_than_there_is_room_for_are_not() {
        assert!(holds(&[], 16, 4, 255));
        assert!(holds(&[0; 2 * MOST_COLUMNS], MOST_COLUMNS, 1, 255));
        assert!(!holds(&[0; 2 * MOST_COLUMNS + 2], MOST_COLUMNS + 1, 1, 255));
    }

    proptest! {
        #[test]
        fn it_holds_just_where_no_activations_reach_the_end_of_16_bits(
            columns in 1usize..=MOST_COLUMNS,
            pairs in 0usize..12,
            narrow_groups in prop::sample::select(vec![1usize, 2, 4]),
            magnitude in prop::sample::select(vec![8i32, 16, 17, 20, 32, 36, 40, 64, 66, 80, 128]),
            most in prop::sample::select(vec![255u8, 191, 128, 127, 63, 1, 0]),
            seed in any::<u64>(),
        ) {
            let mut bits = seed | 1;
            let mut weight = || {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((bits >> 33) as i32 % (2 * magnitude) - magnitude).clamp(-128, 127) as i8
            };
            let panel: Vec<i8> = (0..pairs * 2 * columns).map(|_| weight()).collect();
            prop_assert_eq!(
                holds(&panel, columns, narrow_groups, most),
                fits(&extremes(&panel, columns, narrow_groups, most))
            );
        }
    }
}
