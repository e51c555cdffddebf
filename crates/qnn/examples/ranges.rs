//! An engine with threads of its own: it hands out ranges of rows (many rows) or of columns (one
//! row) and joins once.
//!
//! `cargo run --release --package qnn --example ranges`

use std::error::Error;
use std::thread;

use qcore::{Range, Scheme};
use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{FloatLinear, LinearWorkspace, StaticLinear, WeightConfig};

const WORKERS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let (m, n, k) = (64, 1000, 512);
    let weight = (0..n * k).map(|i| (i as f32 * 0.37).sin()).collect();
    let float = FloatLinear::without_bias("up_proj", n, k, weight)?;
    let input = Scheme::activations_u8().choose(Range::new(-1.0, 1.0)?)?;
    let layer = StaticLinear::quantize(&float, input, &WeightConfig::default(), Kernel::select()?)?;
    let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.41).cos()).collect();
    let x = MatRef::new(&x, m, k)?;

    let mut serial = vec![0.0; m * n];
    layer.forward(x, MatMut::new(&mut serial, m, n)?, Threads::Serial, &mut LinearWorkspace::new())?;

    // Rows: each worker runs the whole layer on some of them.
    let mut by_rows = vec![0.0; m * n];
    thread::scope(|scope| {
        let mut rest = MatMut::new(&mut by_rows, m, n)?;
        let (layer, mut workers) = (&layer, Vec::new());
        for worker in 0..WORKERS {
            let rows = worker * m / WORKERS..(worker + 1) * m / WORKERS;
            let (out, after) = rest.split_at_row(rows.len()).ok_or("rows that are there")?;
            let x = x.row_range(rows).ok_or("rows that are there")?;
            rest = after;
            workers.push(
                scope.spawn(move || layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())),
            );
        }
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;

    // Columns: each worker runs some output channels on the same row.
    let (x, mut by_columns) = (x.row_range(0..1).ok_or("a row that is there")?, vec![0.0; n]);
    thread::scope(|scope| {
        let mut rest = MatMut::new(&mut by_columns, 1, n)?;
        let (layer, mut workers) = (&layer, Vec::new());
        for columns in layer.weights().column_ranges(WORKERS) {
            let (out, after) = rest.split_at_col(columns.len()).ok_or("columns that are there")?;
            rest = after;
            workers.push(
                scope.spawn(move || layer.forward_columns(x, columns, out, &mut LinearWorkspace::new())),
            );
        }
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;

    assert!(serial == by_rows && serial[..n] == by_columns);
    println!("({m} x {k}) by ({k} x {n}): rows and columns on {WORKERS} threads, the same bits as on one");
    Ok(())
}
