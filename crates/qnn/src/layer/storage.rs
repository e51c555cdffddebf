//! How many bytes a layer takes, by what they are for.

use core::iter::Sum;
use core::ops::Add;

/// The bytes that must be stored for a layer or a model, without padding and without what can be
/// computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Weights, and the order of their inputs if they have one of their own.
    pub weights: usize,
    /// Scales, of weights, of parts of them, and of the input: one of all its codes, and the ones
    /// that channels are divided by, if there are any, 4 bytes each.
    pub scales: usize,
    /// Zero points, of weights and of the input, and minimums of weights.
    pub zero_points: usize,
    /// Bias.
    pub bias: usize,
}

impl Storage {
    /// The sum of all four.
    ///
    /// ```
    /// let storage = qnn::Storage { weights: 10, scales: 4, zero_points: 0, bias: 8 };
    /// assert_eq!(storage.total(), 22);
    /// ```
    pub fn total(&self) -> usize {
        self.weights + self.scales + self.zero_points + self.bias
    }

    /// The same and the `bytes` of an input scale.
    pub(crate) fn with_input_scale(self, bytes: usize) -> Self {
        Self { scales: self.scales + bytes, ..self }
    }
}

impl Add for Storage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            scales: self.scales + other.scales,
            zero_points: self.zero_points + other.zero_points,
            bias: self.bias + other.bias,
        }
    }
}

impl Sum for Storage {
    fn sum<I: Iterator<Item = Self>>(storages: I) -> Self {
        storages.fold(Self::default(), Self::add)
    }
}
