//! What the benches share: the table of shapes, operands, verification, the clock, and what a
//! measurement is.

#![forbid(unsafe_code)]

mod bandwidth;
mod record;
mod standing;
mod turns;

use std::time::{Duration, Instant};

use qkernels::{Activation, MatRef, reference};

pub use bandwidth::{BEYOND_CACHES, read_rate};
pub use record::{Kind, Record, RecordError};
pub use standing::{Standing, geometric_mean, standings};
pub use turns::{Contender, Run, Turns};

/// One row of `shapes.txt`: the product of (m, k) activations and (n, k) weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What such products occur in.
    pub group: &'static str,
    /// Rows of activations.
    pub m: usize,
    /// Output channels.
    pub n: usize,
    /// Depth.
    pub k: usize,
}

impl Shape {
    /// Multiplications and additions, of the shape as it is, without padding.
    pub fn operations(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// Bytes of the 8-bit operands and of the int32 result, each once: what must be moved at least.
    pub fn bytes(&self) -> f64 {
        (self.m * self.k + self.n * self.k + 4 * self.m * self.n) as f64
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{} {}x{}x{}", self.group, self.m, self.n, self.k))
    }
}

/// The table of shapes.
pub fn shapes() -> Vec<Shape> {
    let rows = include_str!("../shapes.txt").lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut fields = line.split_whitespace();
        let group = fields.next()?;
        let mut number = || fields.next()?.parse().ok();
        Some(Shape { group, m: number()?, n: number()?, k: number()? })
    })
    .collect()
}

/// `len` bytes over the whole range, the same for the same `seed`.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Whether `y` is the product, in 64 rows and columns spread over it (all of it where it is
/// smaller).
pub fn is_product<A: Activation + Into<i64>>(a: MatRef<'_, A>, w: MatRef<'_, i8>, y: &[i32]) -> bool {
    let n = w.rows();
    let spread = |total: usize| (0..total.min(64)).map(move |i| i * total / total.min(64));
    spread(a.rows()).all(|i| {
        let Some(row) = a.row_range(i..i + 1) else { return false };
        spread(n).all(|j| {
            let Some(channel) = w.row_range(j..j + 1) else { return false };
            reference::product(row, 0, channel) == [i64::from(y[i * n + j])]
        })
    })
}

/// Seconds of one call, the fastest of many within `budget`, after a call that warms up.
pub fn fastest(budget: Duration, mut call: impl FnMut()) -> f64 {
    call();
    let started = Instant::now();
    let mut calls = 1u32;
    let mut best = f64::INFINITY;
    loop {
        let slice = Instant::now();
        for _ in 0..calls {
            call();
        }
        let elapsed = slice.elapsed();
        // A slice must be long against the clock's resolution.
        if elapsed < Duration::from_micros(200) && elapsed < budget / 4 {
            calls *= 2;
            continue;
        }
        best = best.min(elapsed.as_secs_f64() / f64::from(calls));
        if started.elapsed() > budget {
            return best;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_a_shape() {
        let rows = include_str!("../shapes.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(shapes().len(), rows);
        assert!(shapes().contains(&Shape { group: "odd", m: 7, n: 13, k: 17 }));
    }

    #[test]
    fn a_wrong_product_is_noticed() {
        let (a, w) = ([1u8, 2], [3i8, 4]);
        let (a, w) = (MatRef::new(&a, 1, 2).unwrap(), MatRef::new(&w, 1, 2).unwrap());
        assert!(is_product(a, w, &[11]));
        assert!(!is_product(a, w, &[12]));
    }
}
