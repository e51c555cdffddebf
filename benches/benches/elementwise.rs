//! `cargo bench --bench elementwise [-- --test]`: quantize, dequantize and min/max of a slice
//! larger than the caches, on every vector level of this CPU, against the machine's own rates of
//! copying and reading memory, measured in alternation. Rates count the bytes read and written.

use std::hint::black_box;
use std::time::Duration;

use qbenches::fastest;
use qcore::{CodeRange, QParams};
use qkernels::{Kernel, dequantize, quantize, range};

/// Elements of the slices: 256 MiB of f32, beyond any L3.
const LEN: usize = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let test = std::env::args().any(|argument| argument == "--test");
    let (len, budget) = if test { (1 << 12, Duration::ZERO) } else { (LEN, Duration::from_millis(600)) };
    let mut x: Vec<f32> = (0..len).map(|i| (i % 1000) as f32 / 1000.0 - 0.5).collect();
    let mut codes = vec![0u8; len];
    let mut copy = vec![0f32; len];
    let params = QParams::new(1.0 / 255.0, 128, CodeRange::U8)?;

    println!("{:18} {:12} {:>8} {:>8} {:>8}", "kernel's level", "", "GB/s", "memory", "share");
    for kernel in Kernel::available() {
        let gigabytes = |bytes: usize, seconds: f64| bytes as f64 / seconds / 1e9;
        let print = |what: &str, rate: f64, memory: f64| {
            let share = 100.0 * rate / memory;
            println!("{:18} {what:12} {rate:8.2} {memory:8.2} {share:7.1}%", kernel.name());
        };
        // Each slice of work is timed between two slices of the memory rate that bounds it; the
        // better of those counts.
        let copying = |x: &[f32], copy: &mut [f32]| {
            gigabytes(8 * len, fastest(budget, || copy.copy_from_slice(black_box(x))))
        };
        let before = copying(&x, &mut copy);
        let mut result = Ok(());
        let seconds = fastest(budget, || result = quantize(kernel, black_box(&x), &params, &mut codes));
        result?;
        print("quantize", gigabytes(5 * len, seconds), before.max(copying(&x, &mut copy)));

        let before = copying(&x, &mut copy);
        let mut result = Ok(());
        let seconds = fastest(budget, || result = dequantize(kernel, black_box(&codes), &params, &mut x));
        result?;
        print("dequantize", gigabytes(5 * len, seconds), before.max(copying(&x, &mut copy)));

        let reading = |x: &[f32]| {
            let seconds = fastest(budget, || {
                black_box(read(black_box(x)));
            });
            gigabytes(4 * len, seconds)
        };
        let before = reading(&x);
        let mut result = Ok(());
        let seconds = fastest(budget, || result = range(kernel, black_box(&x)).map(drop));
        result?;
        print("min and max", gigabytes(4 * len, seconds), before.max(reading(&x)));
    }
    Ok(())
}

/// Touches every element with as little arithmetic as there can be: sixteen sums of its bits.
fn read(x: &[f32]) -> u32 {
    let mut sums = [0u32; 16];
    for chunk in x.as_chunks::<16>().0 {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum ^= x.to_bits();
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}
