//! `cargo bench --bench groups [-- [--test] [FILTER]]`: integer products of weights of 8 and 4 bits
//! that have a scale for each group of k, beside those with a scale per channel, one thread.
//! Activations are f32, quantized to i8 per row in each call. Few rows take turns with so many
//! copies of the weights that none is left in a cache.
//!
//! The contenders take turns, see [`Turns`]. The filter is a part of a kernel's name and shape.

use std::time::Duration;

use qbenches::{BEYOND_CACHES, Contender, Turns, bytes, fastest, read_rate};
use qcore::Scheme;
use qkernels::{
    DequantizeTo, Dynamic, FloatStage, Kernel, MatMut, MatRef, PackedNibbles, PackedWeights, ScaledWeights,
    Scales, Threads, WeightScales, Workspace, gemm_dynamic, gemm_scaled,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// m, n, k.
const SHAPES: &[(usize, usize, usize)] = &[
    (1, 4096, 4096),
    (1, 11008, 4096),
    (4, 4096, 4096),
    (8, 4096, 4096),
    (32, 4096, 4096),
    (128, 4096, 4096),
    (512, 4096, 4096),
];

/// Rows up to which weights are taken from memory.
const FEW_ROWS: usize = 4;

fn main() -> Result<()> {
    let test = std::env::args().any(|argument| argument == "--test");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let shapes: &[_] = if test { &[(1, 100, 64), (5, 50, 32)] } else { SHAPES };
    for &(m, n, k) in shapes {
        let kernels = Kernel::available().filter(|kernel| format!("{kernel} {m}x{n}x{k}").contains(&filter));
        let kernels: Vec<_> = kernels.collect();
        if !test && !kernels.is_empty() {
            println!("read: {:.1} GB/s", read_rate(BEYOND_CACHES, Duration::from_millis(300)));
        }
        for kernel in kernels {
            one_shape(kernel, (m, n, k), Turns::new(test))?;
        }
    }
    Ok(())
}

fn one_shape(kernel: Kernel, (m, n, k): (usize, usize, usize), turns: Turns) -> Result<()> {
    let cold = m <= FEW_ROWS;
    let operands = Operands::new(kernel, (n, k))?;
    let a: Vec<f32> = bytes(m * k, 4).into_iter().map(|byte| f32::from(byte) / 128.0 - 1.0).collect();
    let a = MatRef::new(&a, m, k)?;

    let per_channel = vec![operands.codes.clone(); turns.copies(n * k, cold)];
    let stage = DequantizeTo::<f32>::new(Scales::PerChannel(&operands.scales[..n]))?;
    let (mut workspace, mut out) = (Workspace::new(), vec![0.0; m * n]);
    let mut contenders = vec![Contender {
        name: "8 bits per channel".into(),
        bytes: n * k,
        run: Box::new(|copy| {
            let (w, out) = (&per_channel[copy % per_channel.len()], MatMut::new(&mut out, m, n)?);
            Ok(gemm_dynamic(a, activations(), w, &stage, out, Threads::Serial, &mut workspace)?)
        }),
    }];
    for format in FORMATS {
        let w = operands.weights(format)?;
        let copies = vec![w; turns.copies(n * k * format.bits / 8, cold)];
        let (mut workspace, mut out) = (Workspace::new(), vec![0.0; m * n]);
        contenders.push(Contender {
            name: format.name.into(),
            bytes: copies[0].bytes(),
            run: Box::new(move |copy| {
                let (w, out) = (&copies[copy % copies.len()], MatMut::new(&mut out, m, n)?);
                let stage = FloatStage::new();
                Ok(gemm_scaled(a, activations(), w, &stage, out, Threads::Serial, &mut workspace)?)
            }),
        });
    }
    let operations = 2.0 * (m * n * k) as f64;
    let peak_operations = kernel.run_peak_loop(PEAK_ITERATIONS) as f64;
    let peak = fastest(Duration::from_millis(1), || {
        kernel.run_peak_loop(PEAK_ITERATIONS);
    });
    let from = if cold { ", weights from memory" } else { "" };
    let title = format!("{kernel}, {m} x {n} x {k}{from} (peak: {:.0} Gop/s)", peak_operations / peak / 1e9);
    turns.run(&title, operations, &mut contenders)
}

/// Iterations of a peak loop that take some microseconds.
const PEAK_ITERATIONS: u64 = 1000;

/// How rows are quantized.
fn activations() -> Dynamic {
    Dynamic::PerToken(Scheme::weights_i8())
}

/// What weights have besides their codes.
struct Format {
    name: &'static str,
    /// Of a code as it is packed.
    bits: usize,
    group_len: usize,
    /// As long as a group, if groups have no parts.
    part_len: usize,
    minimums: bool,
}

/// The usual groups, then the formats of GGUF files that are more than that.
const FORMATS: &[Format] = &[
    Format { name: "8 bits, groups of 128", bits: 8, group_len: 128, part_len: 128, minimums: false },
    Format { name: "8 bits, groups of 32", bits: 8, group_len: 32, part_len: 32, minimums: false },
    Format { name: "4 bits, groups of 128", bits: 4, group_len: 128, part_len: 128, minimums: false },
    Format { name: "4 bits, groups of 32", bits: 4, group_len: 32, part_len: 32, minimums: false },
    Format { name: "Q4_1", bits: 4, group_len: 32, part_len: 32, minimums: true },
    Format { name: "Q4_K", bits: 4, group_len: 256, part_len: 32, minimums: true },
    Format { name: "Q5_1, as 8 bits", bits: 8, group_len: 32, part_len: 32, minimums: true },
    Format { name: "Q5_K, as 8 bits", bits: 8, group_len: 256, part_len: 32, minimums: true },
    Format { name: "Q6_K, as 8 bits", bits: 8, group_len: 256, part_len: 16, minimums: false },
];

/// What weights are made of.
struct Operands {
    codes: PackedWeights,
    nibbles: PackedNibbles,
    /// As many as the smallest groups need.
    scales: Vec<f32>,
    /// As many as the smallest parts need.
    part_scales: Vec<i8>,
}

impl Operands {
    fn new(kernel: Kernel, (n, k): (usize, usize)) -> Result<Self> {
        let codes = bytes(n * k, 1);
        let nibbles: Vec<u8> = codes.iter().map(|code| code & 15).collect();
        let codes: Vec<i8> = codes.into_iter().map(u8::cast_signed).collect();
        // As in files, these are f16.
        let scales = bytes(n * k.div_ceil(32), 2)
            .into_iter()
            .map(|byte| (256.0 + f32::from(byte)) / f32::from(1u16 << 15) / 8.0);
        Ok(Self {
            codes: PackedWeights::from_nk(MatRef::new(&codes, n, k)?, kernel)?,
            nibbles: PackedNibbles::from_nk(MatRef::new(&nibbles, n, k)?, kernel)?,
            scales: scales.collect(),
            part_scales: bytes(n * k.div_ceil(16), 3).into_iter().map(|byte| (byte & 63) as i8).collect(),
        })
    }

    /// Weights of 8 bits or of 4, the signed codes of -8 to 7, as the format says.
    fn weights(&self, format: &Format) -> Result<ScaledWeights> {
        let (n, k) = (self.codes.n(), self.codes.k());
        let (groups, parts) = (n * k.div_ceil(format.group_len), n * k.div_ceil(format.part_len));
        let mut scales = WeightScales::per_group(&self.scales[..groups], format.group_len);
        let zero_points = vec![8; groups];
        if format.bits == 4 && !format.minimums {
            scales = scales.with_zero_points(&zero_points);
        }
        if format.minimums {
            scales = scales.with_minimums(&self.scales[..groups]);
        }
        if format.part_len < format.group_len {
            scales = scales.with_parts(format.part_len, &self.part_scales[..parts]);
            if format.minimums {
                scales = scales.with_part_minimums(&self.part_scales[..parts]);
            }
        }
        let w = match format.bits {
            8 => ScaledWeights::new(self.codes.clone(), scales)?,
            _ => ScaledWeights::of_nibbles(self.nibbles.clone(), scales)?,
        };
        Ok(w.for_activations(activations()))
    }
}
