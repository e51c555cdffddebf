//! How many windows of each kind there are.

use core::fmt;
use core::iter::Sum;
use core::ops::Add;

use crate::kernel::panel_order::{PanelOrder, WindowKind};

/// How many windows of 16 consecutive k of panels with an order are summed in which way
/// ([`PackedWeights::window_counts`](crate::PackedWeights::window_counts)). Each is of one panel of
/// 16 channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowCounts {
    /// Four products in each word of 16 bits, the fastest way.
    pub quads: usize,
    /// Half of the k four to a word, half of them two.
    pub quads_and_pairs: usize,
    /// Two products in each word.
    pub pairs: usize,
    /// In 32 bits, which hold any products, as in panels without an order.
    pub words: usize,
}

impl WindowCounts {
    /// All of them.
    pub fn total(&self) -> usize {
        self.quads + self.quads_and_pairs + self.pairs + self.words
    }

    pub(crate) fn of(order: &PanelOrder) -> Self {
        let count = |kind| order.counts[kind as usize];
        Self {
            quads: count(WindowKind::Quads),
            quads_and_pairs: count(WindowKind::QuadsAndPairs),
            pairs: count(WindowKind::Pairs),
            words: count(WindowKind::Words),
        }
    }
}

impl Add for WindowCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            quads: self.quads + other.quads,
            quads_and_pairs: self.quads_and_pairs + other.quads_and_pairs,
            pairs: self.pairs + other.pairs,
            words: self.words + other.words,
        }
    }
}

impl Sum for WindowCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for WindowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quads, quads_and_pairs, pairs, words } = self;
        write!(
            f,
            "{quads} of fours, {quads_and_pairs} of fours and pairs, {pairs} of pairs, {words} in 32 bits"
        )
    }
}
