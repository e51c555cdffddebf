//! An order of the k of a window in which 16 bits hold the sums of many products.
//!
//! Weights of full range reach past 16 bits where two or more large ones of a sign meet in a word
//! (see [`proof`](super::proof)). Which weights meet is a matter of order: a window is 16
//! consecutive k of a panel of 16 columns, and the k of a window may stand in any order, if those
//! of the rows do as well. Then large weights meet small ones, or large ones of the other sign.
//!
//! A k may also be *flipped*: rows have 255 - x in place of x there, the weights are -w, and the
//! product's offset has 255 w. So whichever of both signs suits a word better can be taken. There
//! is no negative of -128, and activations of fewer bits need no flips.
//!
//! ```text
//!            word 0     word 1
//! group 0    s0   s1    s2   s3      slots; each group has a word 0 and a word 1
//! group 1    s4   s5    s6   s7      Quads:          groups 0 and 1 are summed in 16 bits,
//! group 2    s8   s9    s10  s11                     and so are groups 2 and 3
//! group 3    s12  s13   s14  s15     QuadsAndPairs:  groups 0 and 1 are, 2 and 3 stay alone
//! ```

pub(crate) mod counts;
mod find;
mod greedy;
pub(crate) mod k_orders;
mod magnitudes;
mod pairs;
pub(crate) mod panel;
mod quads;
mod window;

use pairs::Pairs;
use window::{Place, STEP, Window};

use crate::kernel::panel_order::{FLIP, ORDERED_COLUMNS as COLUMNS, WINDOW, WindowKind};

/// The budget of [`PackEffort::Usual`](crate::PackEffort::Usual), for which no weights take more
/// than 20 ns each.
pub(crate) const TESTS: usize = 2600;

/// The budget of [`PackEffort::Thorough`](crate::PackEffort::Thorough).
pub(crate) const THOROUGH_TESTS: usize = 50_000;

/// A search for the orders of a weight takes as long as so many products (20 ns, at 160 Gop/s).
const PRODUCTS_OF_A_SEARCH: usize = 1600;

/// A search for all orders of weights (n, k) takes as long as so many products.
pub(crate) fn products(n: usize, k: usize) -> usize {
    n.saturating_mul(k).saturating_mul(PRODUCTS_OF_A_SEARCH)
}

/// Tests of a search for eight pairs, which is short.
const PAIR_TESTS: usize = 40 * STEP;

/// The slots of each 16-bit word that windows of a kind sum.
#[inline(always)]
fn words(kind: WindowKind) -> &'static [&'static [u8]] {
    match kind {
        WindowKind::Quads => &[&[0, 1, 4, 5], &[2, 3, 6, 7], &[8, 9, 12, 13], &[10, 11, 14, 15]],
        WindowKind::QuadsAndPairs => {
            &[&[0, 1, 4, 5], &[2, 3, 6, 7], &[8, 9], &[10, 11], &[12, 13], &[14, 15]]
        }
        WindowKind::Pairs => &[&[0, 1], &[2, 3], &[4, 5], &[6, 7], &[8, 9], &[10, 11], &[12, 13], &[14, 15]],
        WindowKind::Words => &[],
    }
}

/// Nanoseconds that a window's products of one row and 16 columns take in a tile of four rows, with
/// the row's order (AMD Zen 3; words by their ratio to a panel without an order, AMD Zen 4).
#[inline(always)]
pub(crate) fn time(kind: WindowKind) -> f32 {
    match kind {
        WindowKind::Quads => 2.45,
        WindowKind::QuadsAndPairs => 2.9,
        WindowKind::Pairs => 3.0,
        WindowKind::Words => 4.0,
    }
}

/// A panel gets an order if its windows then take less than this on average, and [`TILE_TIME`]. (A
/// smaller gain is not worth the bytes of an order, which few rows have to read.)
pub(crate) const MOST_TIME: f32 = 0.97 * PLAIN_TIME;

/// [`time`] of any window of a panel without an order.
const PLAIN_TIME: f32 = 3.3;

/// Nanoseconds for each row, beside all windows, by which tiles with an order take longer than
/// those without (7 at k = 128, AMD Zen 4, whose windows take 0.8 of [`time`]).
pub(crate) const TILE_TIME: f32 = 4.0;

/// An order of a window's k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowOrder {
    /// What it is proven for.
    pub(crate) kind: WindowKind,
    /// The k of each slot.
    pub(crate) ks: [u8; WINDOW],
    /// A bit for each k: whether it is flipped.
    pub(crate) flips: u16,
}

impl WindowOrder {
    /// The k as they lie.
    #[inline(always)]
    fn unchanged(kind: WindowKind) -> WindowOrder {
        let mut ks = [0; WINDOW];
        for (slot, k) in ks.iter_mut().enumerate() {
            *k = slot as u8;
        }
        WindowOrder { kind, ks, flips: 0 }
    }

    /// What the kernel reads, see [`control`](crate::kernel::panel_order::Window::control).
    #[inline(always)]
    fn control(&self) -> [u8; WINDOW] {
        let mut control = self.ks;
        for control in &mut control {
            *control |= if self.flips >> *control & 1 == 1 { FLIP } else { 0 };
        }
        control
    }

    /// The k of `window` in their places.
    #[inline(always)]
    fn of_places(kind: WindowKind, window: &Window, places: &[Place; WINDOW]) -> WindowOrder {
        let mut order = WindowOrder { kind, ks: [0; WINDOW], flips: 0 };
        for (word, slots) in words(kind).iter().enumerate() {
            let in_word = places.iter().zip(&window.ks).filter(|(place, _)| usize::from(place.word) == word);
            for (&slot, (place, &k)) in slots.iter().zip(in_word) {
                order.ks[usize::from(slot)] = k;
                order.flips |= u16::from(place.flipped) << k;
            }
        }
        order
    }
}

/// The fastest order of a window that is found with about `tests` tests, each of whether a k fits
/// in a word. (To say that there is none, or to find pairs, takes up to 240 in any case.) Weights
/// are `[k][column]`, activations at most `largest`.
#[inline(always)]
pub(crate) fn search(weights: &[[i8; COLUMNS]; WINDOW], largest: u8, tests: usize) -> WindowOrder {
    if fits(weights, WindowKind::Quads, largest) {
        return WindowOrder::unchanged(WindowKind::Quads);
    }
    let window = &mut Window::new(weights, largest);
    let places = &mut [Place { word: 0, flipped: false }; WINDOW];
    // A quarter is for the second best.
    let mut for_quads = tests - tests / 4;
    if window.is_easy() && greedy::place(window, &mut for_quads, places) {
        return WindowOrder::of_places(WindowKind::Quads, window, places);
    }
    // Where one of the largest fits beside nothing, as most do if weights are uniform, all else is
    // in vain.
    if (0..2).any(|k| window.partners(k, &mut for_quads) == 0) {
        return WindowOrder::unchanged(WindowKind::Words);
    }
    if quads::place::<4>(window, u16::MAX, &mut for_quads, places) {
        return WindowOrder::of_places(WindowKind::Quads, window, places);
    }

    let mut left = for_quads + tests / 4;
    let partners = window.all_partners(&mut left);
    // Pairs of the k that fit beside the fewest, until the other eight make two quads.
    let mut pairs = Pairs::<4>::new(partners);
    let mut last = 0;
    while let Some(rest) = pairs.next(&mut left) {
        left = left.saturating_sub(STEP);
        // (The same eight k are paired in several ways.)
        if rest != last && quads::place::<2>(window, rest, &mut left, places) {
            pairs.place(2, window, places);
            return WindowOrder::of_places(WindowKind::QuadsAndPairs, window, places);
        }
        last = rest;
    }
    let mut pairs = Pairs::<8>::new(partners);
    if pairs.next(&mut PAIR_TESTS.clone()).is_some() {
        pairs.place(0, window, places);
        return WindowOrder::of_places(WindowKind::Pairs, window, places);
    }
    WindowOrder::unchanged(WindowKind::Words)
}

/// Whether 16 bits hold all sums of a window for activations of at most `largest`. The weights are
/// `[slot][column]`, in their order and with those of flipped k negated. This is the proof: it
/// relies on nothing that the search found.
#[inline(always)]
pub(crate) fn fits(weights: &[[i8; COLUMNS]; WINDOW], kind: WindowKind, largest: u8) -> bool {
    let most_positive = i16::MAX.unsigned_abs() / u16::from(largest.max(1));
    let most_negative = i16::MIN.unsigned_abs() / u16::from(largest.max(1));
    let mut above = false;
    for slots in words(kind) {
        let (mut positive, mut negative) = ([0; COLUMNS], [0; COLUMNS]);
        for &slot in *slots {
            let columns = positive.iter_mut().zip(&mut negative).zip(&weights[usize::from(slot)]);
            for ((positive, negative), &w) in columns {
                *positive += u16::from(w.max(0).unsigned_abs());
                *negative += u16::from(w.min(0).unsigned_abs());
            }
        }
        for (&positive, &negative) in positive.iter().zip(&negative) {
            above |= positive > most_positive || negative > most_negative;
        }
    }
    !above
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Weights = [[i8; COLUMNS]; WINDOW];

    /// Numbers from `seed`, from 0 to `end` - 1.
    fn random(seed: u64) -> impl FnMut(i32) -> i32 {
        let mut bits = seed | 1;
        move |end| {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (bits >> 33) as i32 % end
        }
    }

    /// Weights of up to `most` (128 is -128), which the more `factors` are the rarer large.
    fn weights(most: i32, factors: u32, seed: u64) -> Weights {
        let mut random = random(seed);
        [(); WINDOW].map(|()| {
            [(); COLUMNS].map(|()| {
                let factor = |random: &mut dyn FnMut(i32) -> i32| f64::from(random(2 * most + 1) - most);
                let w =
                    (1..factors).fold(factor(&mut random), |w, _| w * factor(&mut random) / f64::from(most));
                w as i8
            })
        })
    }

    /// The weights in an order, as they are packed.
    fn packed(weights: &Weights, order: &WindowOrder) -> Weights {
        order.ks.map(|k| {
            let flipped = order.flips >> k & 1 == 1;
            weights[usize::from(k)]
                .map(|w| if flipped { w.checked_neg().expect("a flip of -128") } else { w })
        })
    }

    /// Searches and checks what is found.
    fn checked(weights: &Weights, largest: u8, tests: usize) -> WindowOrder {
        let order = search(weights, largest, tests);
        let mut sorted = order.ks;
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(at, &k)| at == usize::from(k)), "{order:?}");
        assert!(order.flips == 0 || largest == 255, "{order:?}");
        assert!(fits(&packed(weights, &order), order.kind, largest), "{order:?}");
        assert!(order.kind != WindowKind::Words || order == WindowOrder::unchanged(WindowKind::Words));
        assert_eq!(order, search(weights, largest, tests));
        order
    }

    /// [`fits`], by the sums for activations that are all 0 or `largest`. No others are extremes.
    fn fits_all_activations(weights: &Weights, kind: WindowKind, largest: u8) -> bool {
        let words = words(kind).iter().flat_map(|slots| (0..COLUMNS).map(move |column| (*slots, column)));
        words.into_iter().all(|(slots, column)| {
            (0..1u32 << slots.len()).all(|chosen| {
                let of_chosen = slots.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1);
                let sum: i32 =
                    of_chosen.map(|(_, &slot)| i32::from(weights[usize::from(slot)][column])).sum();
                i16::try_from(sum * i32::from(largest)).is_ok()
            })
        })
    }

    #[test]
    fn each_slot_is_in_one_word() {
        for kind in [WindowKind::Quads, WindowKind::QuadsAndPairs, WindowKind::Pairs] {
            let mut slots = words(kind).concat();
            slots.sort_unstable();
            assert!(slots.into_iter().eq(0..WINDOW as u8), "{kind:?}");
        }
    }

    #[test]
    fn windows_of_one_kind_of_weights() {
        let kinds =
            |weights: &Weights| [255, 127, 64, 1, 0].map(|largest| checked(weights, largest, TESTS).kind);
        use WindowKind::{Pairs, Quads, Words};
        assert_eq!(kinds(&[[0; COLUMNS]; WINDOW]), [Quads; 5]);
        assert_eq!(kinds(&[[32; COLUMNS]; WINDOW]), [Quads; 5]);
        assert_eq!(kinds(&[[-128; COLUMNS]; WINDOW]), [Words, Pairs, Quads, Quads, Quads]);
        // Two of them cancel, if one is flipped.
        assert_eq!(kinds(&[[127; COLUMNS]; WINDOW]), [Pairs, Pairs, Quads, Quads, Quads]);
        let mut signs = [[127; COLUMNS]; WINDOW];
        signs.iter_mut().step_by(2).for_each(|of_k| *of_k = [-127; COLUMNS]);
        assert_eq!(kinds(&signs), [Pairs, Quads, Quads, Quads, Quads]);
        let mut columns = [[127; COLUMNS]; WINDOW];
        columns.iter_mut().flat_map(|of_k| of_k.iter_mut().step_by(2)).for_each(|w| *w = -127);
        assert_eq!(kinds(&columns), [Pairs, Pairs, Quads, Quads, Quads]);
    }

    #[test]
    fn one_large_k_among_small_ones_needs_a_flip() {
        for at in 0..WINDOW {
            let mut weights = [[10; COLUMNS]; WINDOW];
            weights[at] = [127; COLUMNS];
            let order = checked(&weights, 255, TESTS);
            assert!(order.kind == WindowKind::Quads && order.flips != 0);
            assert_eq!(checked(&weights, 254, TESTS).kind, WindowKind::Words);
            assert_eq!(checked(&weights, 127, TESTS).kind, WindowKind::Quads);
        }
    }

    #[test]
    fn a_small_budget_finds_less_and_none_is_enough_for_pairs() {
        for seed in 0..50 {
            let weights = weights(120, 2, seed);
            let kinds = [0, 300, 2000, 100_000].map(|tests| checked(&weights, 255, tests).kind);
            assert!(kinds.is_sorted_by(|a, b| a >= b), "{kinds:?}");
            assert!(kinds[0] <= WindowKind::Pairs, "{kinds:?}");
        }
    }

    proptest! {
        #[test]
        fn orders_are_permutations_that_fit(
            most in prop::sample::select(vec![1, 30, 64, 90, 127, 128]),
            factors in 1u32..4,
            largest in prop::sample::select(vec![255u8, 254, 200, 129, 128, 127, 100, 64, 63, 1, 0]),
            tests in prop::sample::select(vec![0usize, 1, 100, 300, 1000, TESTS]),
            seed in any::<u64>(),
        ) {
            checked(&weights(most, factors, seed), largest, tests);
        }

        #[test]
        fn fits_says_just_where_no_activations_reach_the_end_of_16_bits(
            kind in prop::sample::select(vec![WindowKind::Quads, WindowKind::QuadsAndPairs, WindowKind::Pairs]),
            most in prop::sample::select(vec![32, 36, 45, 64, 66, 128]),
            factors in 1u32..4,
            largest in prop::sample::select(vec![255u8, 191, 128, 127, 63, 1, 0]),
            seed in any::<u64>(),
        ) {
            let weights = weights(most, factors, seed);
            prop_assert_eq!(fits(&weights, kind, largest), fits_all_activations(&weights, kind, largest));
        }

        #[test]
        fn an_order_that_there_is_is_found(seed in any::<u64>()) {
            // Words of four k that fill 128 of each sign, then in another order and some flipped.
            let mut random = random(seed);
            let mut weights = [[0; COLUMNS]; WINDOW];
            for word in weights.chunks_mut(4) {
                for column in 0..COLUMNS {
                    let mut left = [127, 127];
                    for of_k in word.iter_mut() {
                        let sign = random(2) as usize;
                        let w = random(left[sign] + 1);
                        left[sign] -= w;
                        of_k[column] = if sign == 0 { w as i8 } else { -w as i8 };
                    }
                }
            }
            for k in (1..WINDOW).rev() {
                weights.swap(k, random(k as i32 + 1) as usize);
                if random(2) == 1 {
                    weights[k] = weights[k].map(|w| -w);
                }
            }
            prop_assert_eq!(checked(&weights, 255, 1_000_000).kind, WindowKind::Quads);
        }
    }
}
