//! `cargo bench --bench mlp`: whole forward passes of the MNIST networks, f32 beside int8, at batch
//! 1, 32 and 256, one thread. Throughput is in images.

use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qbenches::bytes;
use qkernels::{MatMut, MatRef, Threads};
use qnn::{FloatMlp, LinearWorkspace, QuantConfig};

fn forward_passes(criterion: &mut Criterion) {
    for name in ["mnist_mlp_784_256_128_10", "mnist_mlp_784_512_512_10"] {
        if let Err(error) = one_model(criterion, name) {
            panic!("{name}: {error}");
        }
    }
}

fn one_model(criterion: &mut Criterion, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/qnn/data/mnist");
    let float = FloatMlp::load(data.join(name).with_extension("safetensors"))?;
    let (k, n) = (float.inputs(), float.outputs());
    // Speed does not depend on what the pixels show.
    let pixels: Vec<f32> = bytes(256 * k, 3).into_iter().map(|byte| f32::from(byte) / 255.0).collect();
    let quantized = float.calibrate([MatRef::new(&pixels, 256, k)?])?.quantize(&QuantConfig::default())?;

    let mut group = criterion.benchmark_group(name);
    let (mut float_workspace, mut workspace) = (LinearWorkspace::new(), LinearWorkspace::new());
    for batch in [1, 32, 256] {
        let x = MatRef::new(&pixels, batch, k)?;
        let mut logits = vec![0.0; batch * n];
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_with_input(BenchmarkId::new("f32", batch), &x, |bencher, x| {
            bencher.iter(|| {
                float.forward(
                    *x,
                    MatMut::new(&mut logits, batch, n)?,
                    Threads::Serial,
                    &mut float_workspace,
                )?;
                Ok::<(), Box<dyn std::error::Error>>(())
            });
        });
        group.bench_with_input(BenchmarkId::new(quantized.kernel().name(), batch), &x, |bencher, x| {
            bencher.iter(|| {
                quantized.forward(
                    *x,
                    MatMut::new(&mut logits, batch, n)?,
                    Threads::Serial,
                    &mut workspace,
                )?;
                Ok::<(), Box<dyn std::error::Error>>(())
            });
        });
    }
    group.finish();
    Ok(())
}

criterion_group!(benches, forward_passes);
criterion_main!(benches);
