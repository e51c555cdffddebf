//! A window as the search sees it.

use super::magnitudes::Magnitudes;
use crate::kernel::panel_order::{ORDERED_COLUMNS as COLUMNS, WINDOW};

/// Windows are easy if the mean square of their weights is less than this part of the limit's.
/// (Anything from 11 to 17 takes the same time.)
const EASY: u32 = 14;

/// The tests that take as long as a step of a search besides its own.
pub(super) const STEP: usize = 16;

/// Where a k is put.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) word: u8,
    pub(super) flipped: bool,
}

/// The magnitudes of a window's k, the largest k first.
///
/// Sets of k are masks with a bit for each. Sets of k with a sign are masks of u32: the lower half
/// is for k as they are, the upper half for flipped ones.
///
/// The first k of a word is never flipped: with all others flipped instead, the word is the same.
/// (Beside a -128, which must stay as it is, some orders are missed so.)
pub(super) struct Window {
    /// Which k each is.
    pub(super) ks: [u8; WINDOW],
    /// The magnitudes of each, then those of each flipped.
    pub(super) magnitudes: [Magnitudes; 2 * WINDOW],
    /// The signs that each may have.
    pub(super) signs: u32,
    /// What the magnitudes of a word may sum to.
    limit: u8,
    /// For those of `known`: which k fit beside it in a word.
    partners: [u32; WINDOW],
    known: u16,
    /// The sum of the squares of all magnitudes.
    squares: u32,
}

impl Window {
    /// Weights are `[k][column]`, activations at most `largest`.
    #[inline(always)]
    pub(super) fn new(weights: &[[i8; COLUMNS]; WINDOW], largest: u8) -> Window {
        // Bytes cannot hold the sums that small activations allow, but those of halves. What is
        // lost by rounding up may only hide an order. (32768 for magnitudes of negative weights is
        // another limit only if `largest` is a power of two.)
        let limit = i16::MAX.unsigned_abs() / u16::from(largest.max(1));
        let halvings = u32::from(limit > Magnitudes::MOST_LIMIT.into());
        let limit = (limit >> halvings).min(Magnitudes::MOST_LIMIT.into()) as u8;

        let mut of_ks = [Magnitudes::ZERO; WINDOW];
        let mut sizes = [0; WINDOW];
        for (k, ((to, size), weights)) in of_ks.iter_mut().zip(&mut sizes).zip(weights).enumerate() {
            *to = Magnitudes::new(weights, halvings);
            // With the k, so that no two are equal.
            *size = to.overlap(to) << 4 | k as u32;
        }
        let mut window = Window {
            ks: [0; WINDOW],
            magnitudes: [Magnitudes::ZERO; 2 * WINDOW],
            signs: u16::MAX.into(),
            limit,
            partners: [0; WINDOW],
            known: 0,
            squares: sizes.iter().map(|size| size >> 4).sum(),
        };
        let lowest = with_lowest(weights);
        for (k, magnitudes) in of_ks.iter().enumerate() {
            let rank = sizes.iter().map(|&size| u32::from(size > sizes[k])).sum::<u32>() as usize % WINDOW;
            window.ks[rank] = k as u8;
            window.magnitudes[rank] = *magnitudes;
            window.magnitudes[WINDOW + rank] = magnitudes.flipped();
            let negatable = lowest >> k & 1 == 0;
            window.signs |= u32::from(largest == u8::MAX && negatable) << (WINDOW + rank);
        }
        window
    }

    /// Whether the weights are so small that the first order that suggests itself is likely to fit.
    #[inline(always)]
    pub(super) fn is_easy(&self) -> bool {
        self.squares < u32::from(self.limit).pow(2) * (WINDOW * COLUMNS) as u32 / EASY
    }

    /// Whether the magnitudes of a word may sum to `sum`.
    #[inline(always)]
    pub(super) fn fits(&self, sum: &Magnitudes) -> bool {
        sum.within(self.limit)
    }

    /// Those of `among` that fit in a word beside `sum`. Each is a test.
    #[inline(always)]
    pub(super) fn fitting(&self, sum: &Magnitudes, mut among: u32, tests: &mut usize) -> u32 {
        let (mut found, mut count) = (0, 0);
        while among != 0 {
            let k = among.trailing_zeros();
            among &= among - 1;
            count += 1;
            found |= u32::from(self.fits(&sum.plus(&self.magnitudes[k as usize]))) << k;
        }
        *tests = tests.saturating_sub(count);
        found
    }

    /// The k that fit in a word beside `k` alone.
    #[inline(always)]
    pub(super) fn partners(&mut self, k: usize, tests: &mut usize) -> u32 {
        if self.known >> k & 1 == 0 {
            self.partners[k] = self.fitting(&self.magnitudes[k], self.signs & !(0x1_0001 << k), tests);
            self.known |= 1 << k;
        }
        self.partners[k]
    }

    /// For each k, which others fit in a word beside it, with whatever sign.
    #[inline(always)]
    pub(super) fn all_partners(&self, tests: &mut usize) -> [u16; WINDOW] {
        let mut all = [0; WINDOW];
        for k in 0..WINDOW {
            let partners = match self.known >> k & 1 {
                1 => self.partners[k],
                // Those before it and those that are known have been tested with it.
                _ => {
                    let others =
                        u32::from(!self.known) & u32::from(u16::MAX) << (k + 1) & u32::from(u16::MAX);
                    let others = (others | others << WINDOW) & self.signs;
                    self.fitting(&self.magnitudes[k], others, tests)
                }
            };
            let partners = (partners | partners >> WINDOW) as u16;
            all[k] |= partners;
            for (other, all) in all.iter_mut().enumerate() {
                *all |= (partners >> other & 1) << k;
            }
        }
        all
    }

    /// Of two k that fit beside each other, the one that must be flipped for it.
    #[inline(always)]
    pub(super) fn flip_of_pair(&self, first: usize, second: usize) -> Option<usize> {
        let together = self.fits(&self.magnitudes[first].plus(&self.magnitudes[second]));
        let may_be_flipped = |k: usize| self.signs >> (WINDOW + k) & 1 == 1;
        (!together).then_some(if may_be_flipped(second) { second } else { first })
    }
}

/// A bit for each k: whether it has a -128, which has no negative.
#[inline(always)]
pub(super) fn with_lowest(weights: &[[i8; COLUMNS]; WINDOW]) -> u16 {
    let mut ks = 0;
    for (k, of_k) in weights.iter().enumerate() {
        let mut lowest = false;
        for &w in of_k {
            lowest |= w == i8::MIN;
        }
        ks |= u16::from(lowest) << k;
    }
    ks
}
