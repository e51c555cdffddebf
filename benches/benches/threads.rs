//! `cargo bench --bench threads [-- FILTER] [--test]`: int32 products on all threads of a pool
//! beside one thread, called from outside the pool and from one of its threads.
//!
//! The three alternate, round after round, and are verified first; the times are the fastest of
//! each.

use std::thread::available_parallelism;
use std::time::Duration;

use qbenches::{Shape, bytes, codes, fastest, is_product, shapes};
use qkernels::{Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, gemm};
use rayon::{ThreadPool, ThreadPoolBuilder};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let test = std::env::args().any(|argument| argument == "--test");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let (rounds, slice) = if test { (1, Duration::ZERO) } else { (10, Duration::from_millis(15)) };
    // One product is cut, another one is not worth it.
    let tests = [(16, 512, 1030), (7, 13, 17)].map(|(m, n, k)| Shape { group: "test", m, n, k });
    let shapes = if test { tests.to_vec() } else { shapes() };
    let threads = available_parallelism()?.get().max(2);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
    println!("{}, µs", Kernel::select()?);
    println!("| m, n, k | one thread | {threads}, from outside | from inside | ratio | ratio |");
    println!("|---|---|---|---|---|---|");
    for shape in shapes.iter().filter(|shape| shape.to_string().contains(&filter)) {
        one_shape(*shape, &pool, rounds, slice)?;
    }
    Ok(())
}

fn one_shape(shape: Shape, pool: &ThreadPool, rounds: usize, slice: Duration) -> Result<()> {
    let Shape { m, n, k, .. } = shape;
    let a = bytes(m * k, 1);
    let w = codes(n * k, 2);
    let (a, w) = (MatRef::new(&a, m, k)?, MatRef::new(&w, n, k)?);
    let weights = PackedWeights::from_nk(w, Kernel::select()?)?;
    let mut y = vec![0; m * n];
    let (mut serial, mut parallel) = (Workspace::new(), Workspace::new());
    let product = |threads, y: &mut [i32], workspace: &mut Workspace| -> Result<()> {
        Ok(gemm(a, &weights, &Int32::new(), MatMut::new(y, m, n)?, threads, workspace)?)
    };
    let time = |threads, y: &mut [i32], workspace: &mut Workspace| {
        let mut result = Ok(());
        let seconds = fastest(slice, || result = product(threads, y, workspace));
        result.map(|()| seconds)
    };
    for threads in [Threads::Serial, Threads::Pool(pool)] {
        y.fill(0);
        product(threads, &mut y, &mut parallel)?;
        if !is_product(a, w, &y) {
            return Err(format!("{shape} is wrong").into());
        }
    }
    let [mut one, mut outside, mut inside] = [f64::INFINITY; 3];
    for _ in 0..rounds {
        one = one.min(time(Threads::Serial, &mut y, &mut serial)?);
        outside = outside.min(time(Threads::Pool(pool), &mut y, &mut parallel)?);
        inside = inside.min(pool.install(|| time(Threads::Pool(pool), &mut y, &mut parallel))?);
    }
    let micros = |seconds: f64| format!("{:.*}", if seconds < 1e-5 { 2 } else { 0 }, seconds * 1e6);
    println!(
        "| {m}, {n}, {k} | {} | {} | {} | {:.2} | {:.2} |",
        micros(one),
        micros(outside),
        micros(inside),
        one / outside,
        one / inside
    );
    Ok(())
}
