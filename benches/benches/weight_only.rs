//! `cargo bench --bench weight_only [-- [--test] [FILTER]]`: weight-only products beside the int8
//! product and the f32 product of the same shape, one thread. Few rows take turns with so many
//! copies of the weights that none is left in a cache.
//!
//! The contenders take turns, see [`Turns`].

use clap::Parser;
use half::{bf16, f16};
use qbenches::{Contender, Selection, Shape, Turns, bytes, floats, print_table, weight_only_shapes};
use qcore::Float;
use qkernels::{
    Dequantize, FloatStage, Kernel, MatMut, MatRef, PackedWeights, ScaledWeights, Scales, Threads,
    WeightScales, Workspace, float, gemm, weight_only,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Rows up to which a product is bound by memory, and weights are taken from there.
const FEW_ROWS: usize = 16;

/// Weight-only products beside the int8 product and the f32 product of the same shape.
///
/// One thread. Few rows take their weights from memory. The contenders take turns: the time is that
/// of the fastest round, the ratio the median of the rounds' ratios to the int8 product.
#[derive(Debug, Parser)]
#[command(name = "weight_only", bin_name = "cargo bench --bench weight_only --")]
struct Flags {
    #[command(flatten)]
    selection: Selection,
}

fn main() -> Result<()> {
    let selection = Flags::parse().selection;
    for (shape, kernels) in selection.cases(weight_only_shapes()) {
        println!("read: {:.1} GB/s", selection.read_rate());
        for kernel in kernels {
            one_shape(kernel, shape, selection.turns())?;
        }
    }
    Ok(())
}

fn one_shape(kernel: Kernel, shape: Shape, turns: Turns) -> Result<()> {
    let Shape { m, n, k, .. } = shape;
    let cold = m <= FEW_ROWS;
    let copies = |bytes: usize| turns.copies(bytes, cold);
    let codes = qbenches::codes(n * k, 1);
    let packed = PackedWeights::from_nk(MatRef::new(&codes, n, k)?, kernel)?;
    let scales: Vec<f32> =
        bytes(n * k.div_ceil(32), 2).into_iter().map(|b| 1e-3 + f32::from(b) * 1e-5).collect();
    let zero_points = qbenches::codes(n * k.div_ceil(32), 3);
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
    let a = floats(m * k, 4);
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
    let timings = turns.run(&mut contenders)?;
    print_table(&title, shape.operations(), &contenders, &timings);
    Ok(())
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
