//! `cargo bench --bench roofline [-- [--test] [FILTER]]`: every kernel of this CPU on every shape, one thread, weights
//! packed, int32 output, in Gop/s and as a share of the peak of the kernel's own instruction, which is measured right
//! beside it; and the f32 product. FILTER picks shapes whose group or size contains it. With `--test` each runs once.

use std::time::Duration;

use qbenches::{Shape, bytes, fastest, is_product, shapes};
use qkernels::{Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, float, gemm};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Largest number of operations that a kernel far below this speed is given.
const SLOW_KERNEL_LIMIT: f64 = 1e9;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let test = arguments.iter().any(|argument| argument == "--test");
    let filter = arguments.iter().find(|argument| !argument.starts_with("--"));
    let budget = if test { Duration::ZERO } else { Duration::from_millis(200) };

    println!("{:26} {:18} {:>9} {:>9} {:>7}", "shape (m x n x k)", "kernel", "Gop/s", "peak", "share");
    for shape in shapes() {
        let chosen = filter.is_none_or(|filter| shape.to_string().contains(filter.as_str()));
        if !chosen || test && shape.operations() > SLOW_KERNEL_LIMIT {
            continue;
        }
        let a = bytes(shape.m * shape.k, 1);
        let w: Vec<i8> = bytes(shape.n * shape.k, 2).into_iter().map(|byte| byte as i8).collect();
        println!("{shape:26} {:18} {:9.1}", "f32 (gemm crate)", float_rate(&shape, &a, &w, budget)?);
        for kernel in Kernel::available() {
            if kernel.desc().features.is_empty() && shape.operations() > SLOW_KERNEL_LIMIT {
                continue;
            }
            let before = peak_rate(kernel, budget / 8);
            let rate = int8_rate(kernel, &shape, &a, &w, budget)?;
            let peak = before.max(peak_rate(kernel, budget / 8));
            println!("{shape:26} {:18} {rate:9.1} {peak:9.1} {:6.1}%", kernel.name(), 100.0 * rate / peak);
        }
    }
    Ok(())
}

/// Gop/s of the kernel's instruction alone.
fn peak_rate(kernel: Kernel, budget: Duration) -> f64 {
    let mut operations = 0;
    let seconds = fastest(budget, || operations = kernel.run_peak_loop(2000));
    operations as f64 / seconds / 1e9
}

/// Gop/s of the int8 product, after its result was verified.
fn int8_rate(kernel: Kernel, shape: &Shape, a: &[u8], w: &[i8], budget: Duration) -> Result<f64> {
    let &Shape { m, n, k, .. } = shape;
    let (a, w) = (MatRef::new(a, m, k)?, MatRef::new(w, n, k)?);
    let weights = PackedWeights::from_nk(w, kernel)?;
    let (mut y, mut workspace) = (vec![0i32; m * n], Workspace::new());
    let mut product = |y: &mut [i32]| {
        gemm(a, &weights, &Int32::new(), MatMut::new(y, m, n)?, Threads::Serial, &mut workspace)
            .map_err(Box::<dyn std::error::Error>::from)
    };
    product(&mut y)?;
    if !is_product(a, w, &y) {
        return Err(format!("{kernel} is wrong on {shape}").into());
    }
    let mut result = Ok(());
    let seconds = fastest(budget, || result = product(&mut y));
    result?;
    Ok(shape.operations() / seconds / 1e9)
}

/// Gop/s of the same product in f32.
fn float_rate(shape: &Shape, a: &[u8], w: &[i8], budget: Duration) -> Result<f64> {
    let &Shape { m, n, k, .. } = shape;
    let a: Vec<f32> = a.iter().map(|&x| f32::from(x)).collect();
    let w: Vec<f32> = w.iter().map(|&x| f32::from(x)).collect();
    let (a, w) = (MatRef::new(&a, m, k)?, MatRef::new(&w, n, k)?);
    let mut y = vec![0f32; m * n];
    MatMut::new(&mut y, m, n)?;
    let seconds = fastest(budget, || {
        if let Ok(y) = MatMut::new(&mut y, m, n) {
            // The shapes fit by construction, so there is no error to lose.
            let _ = float::matmul(a, w, y, Threads::Serial);
        }
    });
    Ok(shape.operations() / seconds / 1e9)
}
