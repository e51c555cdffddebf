//! `cargo bench --bench proven [-- --test]`: products with weights that are proven at pack time to
//! fit narrow sums, beside the same product without the proof. The larger the weights and the
//! activations, the fewer products are summed in 16 bits. Weights like trained ones are proven in
//! an order of k.
//!
//! Both alternate, round after round, one thread, int32 results, which are verified first. The
//! times are the fastest of each, the peak is that of the instructions of the kernel that the
//! panels run on, measured in the same rounds.

use std::time::Duration;

use qbenches::{bytes, fastest, is_product, peak_gops};
use qcore::CodeRange;
use qkernels::{
    Activations, Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Weights, Workspace, gemm,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// m, n, k.
const SHAPES: &[(usize, usize, usize)] =
    &[(512, 512, 512), (1024, 1024, 1024), (1, 4096, 4096), (4, 4096, 4096), (128, 768, 3072)];

/// What weights are like.
#[derive(Clone, Copy)]
enum Weighted {
    /// All the signed numbers of so many bits, each as often.
    Uniform(u32),
    /// Normal numbers, the largest of each channel at 127.
    Normal,
}

/// Weights, and the bits of activations, which are all the unsigned numbers.
const CASES: &[(Weighted, u32)] = &[
    (Weighted::Normal, 8),
    (Weighted::Uniform(8), 8),
    (Weighted::Uniform(7), 8),
    (Weighted::Uniform(6), 8),
    (Weighted::Uniform(5), 8),
    (Weighted::Uniform(8), 7),
];

impl Weighted {
    fn weights(self, n: usize, k: usize) -> Vec<i8> {
        match self {
            Weighted::Uniform(bits) => {
                bytes(n * k, 2).into_iter().map(|byte| byte.cast_signed() >> (8 - bits)).collect()
            }
            Weighted::Normal => {
                // Sums of twelve bytes are nearly normal.
                let sums = bytes(12 * n * k, 2);
                let sum = |bytes: &[u8]| bytes.iter().map(|&byte| f32::from(byte) - 127.5).sum::<f32>();
                let values: Vec<f32> = sums.chunks(12).map(sum).collect();
                let scaled = |row: &[f32]| {
                    let largest = row.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
                    row.iter().map(|x| (127.0 * x / largest).round() as i8).collect::<Vec<_>>()
                };
                values.chunks(k).flat_map(scaled).collect()
            }
        }
    }

    fn name(self) -> String {
        match self {
            Weighted::Uniform(bits) => bits.to_string(),
            Weighted::Normal => "normal".into(),
        }
    }
}

fn main() -> Result<()> {
    let test = std::env::args().any(|argument| argument == "--test");
    let (rounds, slice) = if test { (1, Duration::ZERO) } else { (40, Duration::from_millis(10)) };
    let shapes: &[_] = if test { &[(7, 40, 64)] } else { SHAPES };
    let with_proofs = Kernel::available().filter(|kernel| !kernel.desc().proven.is_empty());
    for kernel in with_proofs {
        // The same body for any weights: what the kernel itself is where nothing is proven.
        let family = format!("{}_madd", kernel.desc().family);
        let Some(plain) = Kernel::available().find(|plain| plain.desc().family == family) else { continue };
        println!("| m, n, k | bits of weights, activations | {plain} | {kernel} | ratio | columns |");
        println!("|---|---|---|---|---|---|");
        for &shape in shapes {
            for &case in CASES {
                one_shape([plain, kernel], shape, case, rounds, slice)?;
            }
        }
    }
    Ok(())
}

/// The weights packed for one kernel, and what was measured.
struct Contender {
    weights: PackedWeights,
    seconds: f64,
    /// Gop/s of the first column's kernel.
    peak: f64,
}

fn one_shape(
    kernels: [Kernel; 2],
    (m, n, k): (usize, usize, usize),
    (weights, a_bits): (Weighted, u32),
    rounds: usize,
    slice: Duration,
) -> Result<()> {
    let a: Vec<u8> = bytes(m * k, 1).into_iter().map(|byte| byte >> (8 - a_bits)).collect();
    let (w, bits) = (weights.weights(n, k), weights.name());
    let (a, w) = (MatRef::new(&a, m, k)?, MatRef::new(&w, n, k)?);
    let codes = CodeRange::unsigned(a_bits)?;
    let known = Activations::within(a, 0, codes)?;
    let mut workspace = Workspace::new();
    let mut y = vec![0; m * n];
    let mut contenders = Vec::new();
    for kernel in kernels {
        let weights = PackedWeights::from_nk(Weights::from(w).for_activations(codes), kernel)?;
        gemm(known, &weights, &Int32::new(), MatMut::new(&mut y, m, n)?, Threads::Serial, &mut workspace)?;
        if !is_product(a, w, &y) {
            return Err(format!("{kernel} is wrong on {m}x{n}x{k}, {bits} and {a_bits} bits").into());
        }
        contenders.push(Contender { weights, seconds: f64::INFINITY, peak: 0.0 });
    }
    for _ in 0..rounds {
        for Contender { weights, seconds, peak } in &mut contenders {
            let mut result = Ok(());
            let product = fastest(slice, || {
                let Ok(y) = MatMut::new(&mut y, m, n) else { return };
                result = gemm(known, weights, &Int32::new(), y, Threads::Serial, &mut workspace);
            });
            result?;
            *seconds = seconds.min(product);
            if let Some((_, kernel)) = weights.column_kernels().next() {
                *peak = peak.max(peak_gops(kernel, slice / 8));
            }
        }
    }
    let operations = 2.0 * m as f64 * n as f64 * k as f64;
    let figure = |contender: &Contender| {
        let rate = operations / contender.seconds / 1e9;
        format!("{rate:.0} ({:.0} %)", 100.0 * rate / contender.peak)
    };
    let [plain, proven] = contenders.as_slice() else { return Ok(()) };
    let columns: Vec<_> =
        proven.weights.column_kernels().map(|(columns, kernel)| (columns.len(), kernel)).collect();
    let columns: Vec<_> = columns.iter().map(|(count, kernel)| format!("{count} on {kernel}")).collect();
    let ratio = plain.seconds / proven.seconds;
    let windows = proven.weights.window_counts(0..n);
    let columns = match windows.total() {
        0 => columns.join(", "),
        _ => format!("{}, windows: {windows}", columns.join(", ")),
    };
    let (plain, proven) = (figure(plain), figure(proven));
    println!("| {m}, {n}, {k} | {bits}, {a_bits} | {plain} | {proven} | {ratio:.2} | {columns} |");
    Ok(())
}
