//! `cargo bench --bench weight_only [-- --test]`: weight-only products beside the int8 product and
//! the f32 product of the same shape, one thread. Few rows take turns with so many copies of the
//! weights that none is left in a cache.
//!
//! The contenders take turns, see [`Turns`].

use std::time::Duration;

use half::{bf16, f16};
use qbenches::{BEYOND_CACHES, Contender, Turns, bytes, read_rate};
use qcore::Float;
use qkernels::{
    Dequantize, FloatStage, Kernel, MatMut, MatRef, PackedWeights, ScaledWeights, Scales, Threads,
    WeightScales, Workspace, float, gemm, weight_only,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// m, n, k.
const SHAPES: &[(usize, usize, usize)] =
    &[(1, 4096, 4096), (1, 11008, 4096), (4, 4096, 4096), (16, 4096, 4096), (128, 768, 768)];

/// Rows up to which a product is bound by memory, and weights are taken from there.
const FEW_ROWS: usize = 16;

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
    let copies = |bytes: usize| turns.copies(bytes, cold);
    let codes: Vec<i8> = bytes(n * k, 1).into_iter().map(u8::cast_signed).collect();
    let packed = PackedWeights::from_nk(MatRef::new(&codes, n, k)?, kernel)?;
    let scales: Vec<f32> =
        bytes(n * k.div_ceil(32), 2).into_iter().map(|b| 1e-3 + f32::from(b) * 1e-5).collect();
    let zero_points: Vec<i8> = bytes(n * k.div_ceil(32), 3).into_iter().map(u8::cast_signed).collect();
    let many = |scales: WeightScales<'_>| -> Result<Vec<ScaledWeights>> {
        let weights = || Ok(ScaledWeights::new(packed.clone(), scales)?);
        (0..copies(n * k)).map(|_| weights()).collect()
    };
    let per_channel = many(WeightScales::per_channel(&scales[..n]))?;
    let int8_copies = vec![packed.clone(); per_channel.len()];
    let groups_32 = WeightScales::per_group(&scales, 32);
    let per_32 = many(groups_32)?;
    let affine_32 = many(groups_32.with_zero_points(&zero_points))?;
    let per_128 = many(WeightScales::per_group(&scales[..n * k.div_ceil(128)], 128))?;

    let a_codes = bytes(m * k, 4);
    let a: Vec<f32> = a_codes.iter().map(|&byte| f32::from(byte) / 128.0 - 1.0).collect();
    let a_f16: Vec<f16> = a.iter().map(|&x| f16::from_f32(x)).collect();
    let a_bf16: Vec<bf16> = a.iter().map(|&x| bf16::from_f32(x)).collect();
    let w: Vec<f32> = codes.iter().map(|&w| f32::from(w)).collect();
    let float_copies = vec![w; copies(4 * n * k)];
    let stage = Dequantize::new(Scales::PerChannel(&scales[..n]))?;
    let (mut workspace, mut out, mut float_out) = (Workspace::new(), vec![0.0; m * n], vec![0.0; m * n]);

    let int8 = Contender {
        name: "u8 x i8".into(),
        bytes: n * k,
        run: Box::new(|copy| {
            let w = &int8_copies[copy % int8_copies.len()];
            let (a, out) = (MatRef::new(&a_codes, m, k)?, MatMut::new(&mut out, m, n)?);
            Ok(gemm(a, w, &stage, out, Threads::Serial, &mut workspace)?)
        }),
    };
    let mut contenders = vec![
        int8,
        contender("f32 x i8", &a, &per_channel, m)?,
        contender("f16 x i8", &a_f16, &per_channel, m)?,
        contender("bf16 x i8", &a_bf16, &per_channel, m)?,
        contender("f32 x i8, groups of 128", &a, &per_128, m)?,
        contender("f32 x i8, groups of 32", &a, &per_32, m)?,
        contender("f32 x i8, affine groups of 32", &a, &affine_32, m)?,
    ];
    // Once is enough.
    if Some(kernel) == Kernel::available().next() {
        contenders.push(Contender {
            name: "f32 x f32, gemm crate".into(),
            bytes: 4 * n * k,
            run: Box::new(|copy| {
                let w = MatRef::new(&float_copies[copy % float_copies.len()], n, k)?;
                let out = MatMut::new(&mut float_out, m, n)?;
                Ok(float::matmul(MatRef::new(&a, m, k)?, w, out, Threads::Serial)?)
            }),
        });
    }

    let title = format!("{kernel}, {m} x {n} x {k}{}", if cold { ", weights from memory" } else { "" });
    turns.run(&title, 2.0 * (m * n * k) as f64, &mut contenders)
}

/// The product of `a` (m, k) with each of the `copies` in turn, to the type of `a`.
fn contender<'c, A: Float>(
    name: &str,
    a: &'c [A],
    copies: &'c [ScaledWeights],
    m: usize,
) -> Result<Contender<'c>> {
    let (n, k) = (copies[0].n(), copies[0].k());
    let (mut workspace, mut out) = (Workspace::new(), vec![A::default(); m * n]);
    let a = MatRef::new(a, m, k)?;
    Ok(Contender {
        name: name.into(),
        bytes: n * k,
        run: Box::new(move |copy| {
            let (w, out) = (&copies[copy % copies.len()], MatMut::new(&mut out, m, n)?);
            Ok(weight_only(a, w, &FloatStage::new(), out, Threads::Serial, &mut workspace)?)
        }),
    })
}
