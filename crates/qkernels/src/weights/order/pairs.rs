//! The search for words of two k.

use super::window::{Place, STEP, Window};
use crate::kernel::panel_order::WINDOW;

/// The sets of `PAIRS` disjoint pairs of k that fit, one after the other: of the k that are left,
/// the one with the fewest partners is paired with the largest of them, then with the others.
pub(super) struct Pairs<const PAIRS: usize> {
    /// The k that fit beside each, as they are or flipped.
    partners: [u16; WINDOW],
    /// Of each pair: the k that were left before it, its two k, and the partners not tried yet.
    rest: [u16; PAIRS],
    firsts: [u8; PAIRS],
    seconds: [u8; PAIRS],
    untried: [u16; PAIRS],
    depth: usize,
}

impl<const PAIRS: usize> Pairs<PAIRS> {
    #[inline(always)]
    pub(super) fn new(partners: [u16; WINDOW]) -> Pairs<PAIRS> {
        let mut pairs = Pairs {
            partners,
            rest: [0; PAIRS],
            firsts: [0; PAIRS],
            seconds: [0; PAIRS],
            untried: [0; PAIRS],
            depth: 0,
        };
        pairs.enter(0, u16::MAX);
        pairs
    }

    /// Chooses the first k of the pair `depth` from those of `rest`.
    #[inline(always)]
    fn enter(&mut self, depth: usize, rest: u16) {
        let (mut first, mut fewest) = (0, u32::MAX);
        for (k, &partners) in self.partners.iter().enumerate() {
            let count = (partners & rest).count_ones();
            if rest >> k & 1 == 1 && count < fewest {
                (first, fewest) = (k, count);
            }
        }
        self.depth = depth;
        self.rest[depth] = rest;
        self.firsts[depth] = first as u8;
        self.untried[depth] = self.partners[first] & rest;
    }

    /// Moves on to the next set and returns the k that are in no pair. Each pair that is tried is
    /// as much work as [`STEP`] tests.
    #[inline(always)]
    pub(super) fn next(&mut self, tests: &mut usize) -> Option<u16> {
        loop {
            let depth = self.depth;
            let untried = self.untried[depth];
            if untried == 0 {
                self.depth = depth.checked_sub(1)?;
                continue;
            }
            *tests = tests.checked_sub(STEP)?;
            self.untried[depth] = untried & (untried - 1);
            self.seconds[depth] = untried.trailing_zeros() as u8;
            let rest = self.rest[depth] & !(1 << self.firsts[depth]) & !(1 << self.seconds[depth]);
            if depth + 1 == PAIRS {
                return Some(rest);
            }
            self.enter(depth + 1, rest);
        }
    }

    /// Puts the pairs in words from `word` on.
    #[inline(always)]
    pub(super) fn place(&self, word: u8, window: &Window, places: &mut [Place; WINDOW]) {
        for ((&first, &second), word) in self.firsts.iter().zip(&self.seconds).zip(word..) {
            let (first, second) = (usize::from(first), usize::from(second));
            let flip = window.flip_of_pair(first, second);
            for k in [first, second] {
                places[k] = Place { word, flipped: flip == Some(k) };
            }
        }
    }
}
