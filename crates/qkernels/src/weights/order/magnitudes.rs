//! Magnitudes of the weights of a k, in vectors of bytes that can be summed and compared.

use crate::kernel::panel_order::ORDERED_COLUMNS as COLUMNS;

/// For each column the magnitude of a positive weight, then for each column that of a negative one;
/// or sums of these, which end at 255.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Magnitudes([u8; 2 * COLUMNS]);

impl Magnitudes {
    /// The highest limit that sums can be compared with: at 255, they may be more.
    pub(super) const MOST_LIMIT: u8 = u8::MAX - 1;

    pub(super) const ZERO: Magnitudes = Magnitudes([0; 2 * COLUMNS]);

    /// Of the weights of one k, halved `halvings` times, rounded up.
    #[inline(always)]
    pub(super) fn new(weights: &[i8; COLUMNS], halvings: u32) -> Magnitudes {
        let mut all = Magnitudes::ZERO;
        let (positive, negative) = all.0.split_at_mut(COLUMNS);
        for ((positive, negative), &w) in positive.iter_mut().zip(negative).zip(weights) {
            *positive = w.max(0).unsigned_abs().div_ceil(1 << halvings);
            *negative = w.min(0).unsigned_abs().div_ceil(1 << halvings);
        }
        all
    }

    /// Of the negated weights.
    #[inline(always)]
    pub(super) fn flipped(&self) -> Magnitudes {
        let mut flipped = Magnitudes::ZERO;
        flipped.0[..COLUMNS].copy_from_slice(&self.0[COLUMNS..]);
        flipped.0[COLUMNS..].copy_from_slice(&self.0[..COLUMNS]);
        flipped
    }

    #[inline(always)]
    pub(super) fn plus(&self, other: &Magnitudes) -> Magnitudes {
        let mut sums = *self;
        for (sum, &x) in sums.0.iter_mut().zip(&other.0) {
            *sum = sum.saturating_add(x);
        }
        sums
    }

    /// Whether no sum is above `limit`, which is [`Magnitudes::MOST_LIMIT`] at most.
    #[inline(always)]
    pub(super) fn within(&self, limit: u8) -> bool {
        !self.0.iter().fold(false, |above, &x| above | (x > limit))
    }

    /// How much two are large in the same places: the sum of their products.
    #[inline(always)]
    pub(super) fn overlap(&self, other: &Magnitudes) -> u32 {
        let mut sum = 0i32;
        for (&x, &y) in self.0.iter().zip(&other.0) {
            sum += i32::from(i16::from(x)) * i32::from(i16::from(y));
        }
        sum as u32
    }
}
