//! How much memory a quantized layer takes.

/// The bytes of `count` codes of `bits` bits, packed without gaps: `ceil(count * bits / 8)`.
/// Saturates.
///
/// ```
/// use qcore::packed_bytes;
///
/// assert_eq!(packed_bytes(784 * 256, 8), 200_704);
/// assert_eq!([2, 3, 4].map(|bits| packed_bytes(5, bits)), [2, 2, 3]);
/// let gigabytes = |bits| packed_bytes(7_000_000_000, bits) as f64 / 1e9;
/// assert_eq!([32, 16, 8, 4].map(gigabytes), [28.0, 14.0, 7.0, 3.5]);
/// ```
#[must_use]
pub const fn packed_bytes(count: u64, bits: u32) -> u64 {
    let bytes = (count as u128 * bits as u128).div_ceil(8);
    if bytes > u64::MAX as u128 { u64::MAX } else { bytes as u64 }
}

/// How a layer's weights and biases are stored. The default is 8 bits, one f32 scale per output
/// channel, no zero points, and biases of four bytes (f32 or int32).
///
/// ```
/// use qcore::WeightStorage;
///
/// assert_eq!(WeightStorage::F32.linear_bytes(512, 256), 525_312);
/// assert_eq!(WeightStorage::default().linear_bytes(512, 256), 133_120);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightStorage {
    /// The number of bits of a weight's code.
    pub bits: u32,
    /// How many weights along k share a scale; `None` for a whole output channel.
    pub group: Option<u64>,
    /// The bytes of a scale; 0 leaves scales out of the count, as some sources do.
    pub scale_bytes: u64,
    /// The bytes of a zero point; 0 for symmetric weights.
    pub zero_point_bytes: u64,
    /// The bytes of a bias; 0 for none.
    pub bias_bytes: u64,
}

impl Default for WeightStorage {
    fn default() -> WeightStorage {
        WeightStorage { bits: 8, group: None, scale_bytes: 4, zero_point_bytes: 0, bias_bytes: 4 }
    }
}

impl WeightStorage {
    /// f32 weights and biases, nothing quantized.
    ///
    /// ```
    /// use qcore::WeightStorage;
    ///
    /// assert_eq!(WeightStorage::F32.linear_bytes(2, 3), 4 * (2 * 3 + 3));
    /// ```
    pub const F32: WeightStorage =
        WeightStorage { bits: 32, group: None, scale_bytes: 0, zero_point_bytes: 0, bias_bytes: 4 };

    /// The bytes of a linear layer of `k` inputs and `n` outputs: `ceil(k * n * bits / 8) + n *
    /// ceil(k / group) * (scale_bytes + zero_point_bytes) + n * bias_bytes`. Saturates.
    ///
    /// ```
    /// use qcore::WeightStorage;
    ///
    /// // 784-256-128-10, as a course has it, and with all that must be stored.
    /// let layers = [(784, 256), (256, 128), (128, 10)];
    /// let bytes = |storage: WeightStorage| layers.iter().map(|&(k, n)| storage.linear_bytes(k, n)).sum::<u64>();
    /// assert_eq!(bytes(WeightStorage::F32), 940_584);
    /// assert_eq!(bytes(WeightStorage { scale_bytes: 0, bias_bytes: 1, ..Default::default() }), 235_146);
    /// assert_eq!(bytes(WeightStorage::default()), 237_904);
    /// // Four bits, an f16 scale for each group of 32: 4.5 bits a weight.
    /// let four = WeightStorage { bits: 4, group: Some(32), scale_bytes: 2, zero_point_bytes: 0, bias_bytes: 0 };
    /// assert_eq!(four.linear_bytes(4096, 4096), 4096 * 4096 * 9 / 16);
    /// ```
    #[must_use]
    pub const fn linear_bytes(self, k: u64, n: u64) -> u64 {
        let groups = match self.group {
            Some(0) | None => 1,
            Some(group) => k.div_ceil(group),
        };
        let codes = packed_bytes(k.saturating_mul(n), self.bits);
        let group_bytes = self.scale_bytes.saturating_add(self.zero_point_bytes);
        let scales = n.saturating_mul(groups).saturating_mul(group_bytes);
        codes.saturating_add(scales).saturating_add(n.saturating_mul(self.bias_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overflows() {
        assert_eq!(packed_bytes(u64::MAX, u32::MAX), u64::MAX);
        assert_eq!(packed_bytes(u64::MAX, 8), u64::MAX);
        assert_eq!(WeightStorage::default().linear_bytes(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(WeightStorage { group: Some(0), ..Default::default() }.linear_bytes(0, 0), 0);
    }

    #[test]
    fn a_short_last_group_has_a_scale_too() {
        let storage = WeightStorage { bits: 4, group: Some(32), ..Default::default() };
        assert_eq!(storage.linear_bytes(33, 2), 33 + 2 * 2 * 4 + 2 * 4);
    }
}
