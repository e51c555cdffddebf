//! Values for tests.

/// A generator of the same numbers every time (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of 0 to `count` - 1.
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % count as u64) as usize
    }

    /// From -1 to 1.
    pub(super) fn value(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    /// Rows of `k` inputs that are mixed of a few common causes, of different sizes, and a little
    /// noise.
    pub(super) fn correlated_rows(&mut self, rows: usize, k: usize) -> Vec<f32> {
        let causes = k.div_ceil(8);
        let mix = self.values(causes * k);
        let sizes: Vec<f32> = (0..k).map(|_| 0.2 + 2.0 * self.value().abs()).collect();
        let mut x = Vec::with_capacity(rows * k);
        for _ in 0..rows {
            let row = self.values(causes);
            for (j, &size) in sizes.iter().enumerate() {
                let mixed: f32 = row.iter().zip(&mix[j * causes..]).map(|(a, b)| a * b).sum();
                x.push(size * (mixed + 0.1 * self.value()));
            }
        }
        x
    }
}
