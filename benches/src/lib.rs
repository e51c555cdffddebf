//! What the benches share: options, the table of shapes, operands, verification, the clock, and
//! what a measurement is.

#![forbid(unsafe_code)]

mod bandwidth;
mod csv;
mod record;
mod selection;
mod shape;
mod standing;
mod turns;

use std::time::{Duration, Instant};

use qkernels::{Activation, Kernel, MatRef, reference};

pub use bandwidth::{BEYOND_CACHES, read_rate};
pub use csv::{Csv, CsvFlag};
pub use record::{Kind, Record, RecordError};
pub use selection::{Selection, is_in_time};
pub use shape::{Shape, grouped_shapes, shapes, weight_only_shapes};
pub use standing::{Standing, geometric_mean, standings};
pub use turns::{Contender, Run, Timing, Turns, print_table};

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

/// These bytes as weights.
pub fn codes(len: usize, seed: u64) -> Vec<i8> {
    bytes(len, seed).into_iter().map(u8::cast_signed).collect()
}

/// These bytes as activations of -1 to 1.
pub fn floats(len: usize, seed: u64) -> Vec<f32> {
    bytes(len, seed).into_iter().map(|byte| f32::from(byte) / 128.0 - 1.0).collect()
}

/// 64 of the indices below `total`, spread over them; all of them where there are fewer.
pub fn spread(total: usize) -> impl Iterator<Item = usize> {
    (0..total.min(64)).map(move |i| i * total / total.min(64))
}

/// Whether `y` is the product, in 64 rows and columns spread over it (all of it where it is
/// smaller).
pub fn is_product<A: Activation + Into<i64>>(a: MatRef<'_, A>, w: MatRef<'_, i8>, y: &[i32]) -> bool {
    let n = w.rows();
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

/// Gop/s of the kernel's own instruction on registers.
pub fn peak_gops(kernel: Kernel, budget: Duration) -> f64 {
    let mut operations = 0;
    let seconds = fastest(budget, || operations = kernel.run_peak_loop(2000));
    operations as f64 / seconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_product_is_noticed() {
        let (a, w) = ([1u8, 2], [3i8, 4]);
        let (a, w) = (MatRef::new(&a, 1, 2).unwrap(), MatRef::new(&w, 1, 2).unwrap());
        assert!(is_product(a, w, &[11]));
        assert!(!is_product(a, w, &[12]));
    }
}
