//! One model in a mapped file, shared by many threads: the weights are packed once, each thread has
//! a workspace of its own.
//!
//! `cargo run --release --package qnn --example shared`

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use memmap2::Mmap;
use qkernels::{MatMut, MatRef, Threads};
use qnn::{FloatMlp, LinearWorkspace, QuantConfig, QuantMlp, argmax_rows};

const REQUESTS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
    let float = FloatMlp::load(data.join("mnist_mlp_784_256_128_10.safetensors"))?;
    let pixels: Vec<f32> = (0..REQUESTS * 784).map(|i| (i * 31 % 256) as f32 / 255.0).collect();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    let quantized =
        float.calibrate([MatRef::new(&pixels, REQUESTS, 784)?])?.quantize(&QuantConfig::default())?;
    quantized.save(&path)?;

    // SAFETY: this program is the only one that knows the file, and nothing writes to it while it
    // is mapped.
    let bytes = unsafe { Mmap::map(&File::open(&path)?)? };
    let model = Arc::new(QuantMlp::from_bytes(&bytes, None)?);
    drop(bytes); // the layers are packed, the file is no longer needed

    let (pixels, mut workers) = (Arc::new(pixels), Vec::new());
    for worker in 0..4 {
        let (model, pixels) = (Arc::clone(&model), Arc::clone(&pixels));
        workers.push(thread::spawn(move || {
            let (mut workspace, mut logits) = (LinearWorkspace::new(), [0.0; 10]);
            let mut classes = Vec::new();
            for image in pixels.chunks_exact(784).skip(worker).step_by(4) {
                let x = MatRef::new(image, 1, 784).map_err(|error| error.to_string())?;
                let out = MatMut::new(&mut logits, 1, 10).map_err(|error| error.to_string())?;
                let ran = model.forward(x, out, Threads::Serial, &mut workspace);
                ran.map_err(|error| error.to_string())?;
                classes.extend(MatRef::new(&logits, 1, 10).ok().and_then(|row| argmax_rows(row).next()?));
            }
            Ok::<_, String>(classes.len())
        }));
    }
    let mut served = 0;
    for worker in workers {
        served += worker.join().map_err(|_| "a worker panicked")??;
    }
    println!("{served} of {REQUESTS} requests served by 4 threads from one model of {} bytes", model.bytes());
    Ok(())
}
