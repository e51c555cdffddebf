//! The same row has the same bits whatever the kernel, the threads, the rows beside it, the strides
//! and the type of the activations.

use qcore::{CodeRange, Q31Multiplier, QParams, Scheme};
use qkernels::{
    Activations, Dequantize, Dynamic, FixedPointRounding, FloatActivations, Int32, Kernel, MatMut, MatRef,
    Requantize, RequantizeFixedPoint, Residual, Scales, Threads, Workspace, ZeroPoints, gemm, gemm_dynamic,
};

use crate::oracle::{CANARY, Noise, TestCode, pack, product, sums};

/// The stages that end a layer. Each channel has another scale and bias, so a part of the columns
/// that took its neighbour's would show.
struct Stages {
    scales: Vec<f32>,
    bias: Vec<i32>,
    float_bias: Vec<f32>,
}

impl Stages {
    fn new(noise: &mut Noise, n: usize, k: usize) -> Self {
        let scales = noise.floats(n, 0.004 / (k as f32).sqrt());
        Self { scales, bias: noise.integers(n, 5000), float_bias: noise.floats(n, 0.5) }
    }

    fn int32(&self) -> Int32<'_> {
        Int32::new().with_bias(&self.bias)
    }

    fn dequantize(&self) -> Dequantize<'_> {
        let stage = Dequantize::new(Scales::PerChannel(&self.scales)).unwrap();
        stage.with_bias(&self.bias).with_float_bias(&self.float_bias).unwrap()
    }

    fn requantize(&self) -> Requantize<'_, u8> {
        let stage = Requantize::new(Scales::PerChannel(&self.scales)).unwrap();
        stage.with_bias(&self.bias).with_zero_point(120)
    }
}

/// Each row of a product, as the bits of its f32 results.
fn rows_of_bits(y: &[f32], n: usize) -> Vec<Vec<u32>> {
    y.chunks(n).map(|row| row.iter().map(|y| y.to_bits()).collect()).collect()
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    fn sweep<A: TestCode>() {
        let (mut noise, mut workspace) = (Noise::new(30), Workspace::new());
        for (n, k) in [(1, 5), (17, 64), (49, 131), (100, 1024), (18, 6000)] {
            let batch = 33;
            let (a, w) = (noise.codes::<A>(batch * k), noise.weights::<i8>(n, k));
            let stages = Stages::new(&mut noise, n, k);
            let stage = stages.dequantize();
            for kernel in Kernel::available() {
                let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
                let mut rows = |first: usize, count: usize| {
                    let a = MatRef::new(&a[first * k..], count, k).unwrap();
                    let a = Activations::new(a, 7);
                    rows_of_bits(&product(a, count, &w, &stage, f32::NAN, &mut workspace), n)
                };
                let alone: Vec<_> = (0..batch).flat_map(|i| rows(i, 1)).collect();
                for count in [2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 33] {
                    for first in [0, 1, (batch - count) / 2, batch - count] {
                        let first = first.min(batch - count);
                        assert_eq!(rows(first, count), alone[first..first + count], "{kernel}, {count} rows");
                    }
                }
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn a_row_of_floats_does_not_depend_on_the_rows_beside_it() {
    let (mut noise, mut workspace) = (Noise::new(36), Workspace::new());
    for (n, k) in [(17, 64), (49, 131), (18, 6000)] {
        let batch = 20;
        // These rows have many different ranges.
        let mut x = noise.floats(batch * k, 1.0);
        x.chunks_mut(k)
            .enumerate()
            .for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= (1 + i) as f32 - 0.5));
        let (w, zero_points) = (noise.weights::<u8>(n, k), noise.zero_points::<u8>(n));
        let stages = Stages::new(&mut noise, n, k);
        for how in [Dynamic::default(), Dynamic::PerToken(Scheme::activations_u8())] {
            for kernel in Kernel::available() {
                let w = (MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points));
                let w = pack(kernel, w);
                let mut rows = |first: usize, count: usize| {
                    let x = MatRef::new(&x[first * k..], count, k).unwrap();
                    let mut y = vec![f32::NAN; count * n];
                    let out = MatMut::new(&mut y, count, n).unwrap();
                    let stage = stages.dequantize();
                    gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    rows_of_bits(&y, n)
                };
                let alone: Vec<_> = (0..batch).flat_map(|i| rows(i, 1)).collect();
                for count in [2, 5, 6, 7, 8, 9, 20] {
                    for first in [0, 1, batch - count] {
                        let first = first.min(batch - count);
                        assert_eq!(rows(first, count), alone[first..first + count], "{kernel}, {count} rows");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_kernel() {
    fn sweep<A: TestCode>() {
        let (mut noise, mut workspace) = (Noise::new(31), Workspace::new());
        for (m, n, k) in [(1, 7, 33), (9, 50, 200), (20, 20, 5000)] {
            let (a, w) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k));
            let stages = Stages::new(&mut noise, n, k);
            let mut results = Kernel::available().map(|kernel| {
                let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
                let a = MatRef::new(&a, m, k).unwrap();
                let reals = product(a, m, &w, &stages.dequantize(), f32::NAN, &mut workspace);
                (
                    product(a, m, &w, &stages.int32(), CANARY, &mut workspace),
                    product(a, m, &w, &stages.requantize(), 0x5a, &mut workspace),
                    rows_of_bits(&reals, n),
                )
            });
            let first = results.next().unwrap();
            results.for_each(|y| assert_eq!(y, first));
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn a_row_does_not_depend_on_the_strides_of_its_matrix() {
    fn sweep<A: TestCode>() {
        let (mut noise, mut workspace) = (Noise::new(32), Workspace::new());
        for (m, n, k) in [(1, 17, 64), (8, 49, 64), (9, 5, 131), (13, 48, 4096)] {
            let (a, w) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k));
            let stages = Stages::new(&mut noise, n, k);
            for kernel in Kernel::available() {
                let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
                let mut run = |a: MatRef<'_, A>| {
                    let a = Activations::new(a, -3);
                    rows_of_bits(&product(a, m, &w, &stages.dequantize(), f32::NAN, &mut workspace), n)
                };
                let expected = run(MatRef::new(&a, m, k).unwrap());
                for (row_stride, col_stride) in
                    [(k + 1, 1), (k + 64, 1), (8192, 1), (1, m), (3, 3 * m + 1), (2 * k, 2)]
                {
                    let mut laid_out = noise.codes::<A>((m - 1) * row_stride + (k - 1) * col_stride + 1);
                    for (at, &code) in a.iter().enumerate() {
                        laid_out[at / k * row_stride + at % k * col_stride] = code;
                    }
                    let a = MatRef::with_strides(&laid_out, m, k, row_stride, col_stride).unwrap();
                    assert_eq!(run(a), expected, "{kernel}, strides ({row_stride}, {col_stride})");
                }
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn codes_as_u8_and_as_i8_give_the_same_row() {
    let (mut noise, mut workspace) = (Noise::new(33), Workspace::new());
    for (m, n, k) in [(1, 17, 64), (9, 49, 130), (3, 10, 7000)] {
        let (unsigned, w) = (noise.codes::<u8>(m * k), noise.weights::<i8>(n, k));
        let signed: Vec<i8> = unsigned.iter().map(|&q| (i32::from(q) - 128) as i8).collect();
        let stages = Stages::new(&mut noise, n, k);
        for kernel in Kernel::available() {
            let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
            let unsigned = Activations::new(MatRef::new(&unsigned, m, k).unwrap(), 100);
            let signed = Activations::new(MatRef::new(&signed, m, k).unwrap(), -28);
            let stage = stages.dequantize();
            let unsigned = product(unsigned, m, &w, &stage, f32::NAN, &mut workspace);
            let signed = product(signed, m, &w, &stage, f32::NAN, &mut workspace);
            assert_eq!(rows_of_bits(&unsigned, n), rows_of_bits(&signed, n), "{kernel}");
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn a_row_does_not_depend_on_the_threads() {
    use qkernels::{Output, OutputStage, PackedWeights};
    use rayon::{ThreadPool, ThreadPoolBuilder};

    /// The product with each pool, in a matrix with gaps between the rows. The gaps must stay as
    /// they are.
    fn check<A: TestCode, S: OutputStage>(
        pools: &[ThreadPool],
        a: MatRef<'_, A>,
        w: &PackedWeights,
        stage: &S,
        canary: Output<S>,
        workspace: &mut Workspace,
    ) where
        Output<S>: PartialEq + std::fmt::Debug,
    {
        let (m, n, stride) = (a.rows(), w.n(), w.n() + 3);
        let serial = product(a, m, w, stage, canary, workspace);
        for pool in pools {
            let mut y = vec![canary; m * stride];
            let out = MatMut::with_stride(&mut y, m, n, stride).unwrap();
            gemm(a, w, stage, out, Threads::Pool(pool), workspace).unwrap();
            for (i, (row, serial)) in y.chunks(stride).zip(serial.chunks(n)).enumerate() {
                let threads = pool.current_num_threads();
                assert_eq!(row[..n], *serial, "{}, {threads} threads, row {i}", w.kernel());
                assert_eq!(row[n..], [canary; 3], "{}, {threads} threads, row {i}", w.kernel());
            }
        }
    }

    fn sweep<A: TestCode>(pools: &[ThreadPool]) {
        let (mut noise, mut workspace) = (Noise::new(34), Workspace::new());
        let shapes = [
            (101, 203, 1307), // ragged in every direction
            (3, 2003, 4021),  // columns to share
            (2001, 3, 4096),  // rows to share
            (1, 1500, 16384), // one row
            (3, 40, 50_000),  // fewer tiles than threads
            (19, 60, 24001),  // and k cut into blocks
            (47, 47, 10000),  // either way
            (5, 30, 20),      // too little work to share
        ];
        for (m, n, k) in shapes {
            let (a, w) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k));
            let (a, w) = (MatRef::new(&a, m, k).unwrap(), MatRef::new(&w, n, k).unwrap());
            let stages = Stages::new(&mut noise, n, k);
            let mut expected = sums(a, 0, w);
            for row in expected.chunks_mut(n) {
                row.iter_mut().zip(&stages.bias).for_each(|(sum, bias)| *sum += bias);
            }
            for kernel in Kernel::available() {
                let w = pack(kernel, w);
                assert_eq!(product(a, m, &w, &stages.int32(), CANARY, &mut workspace), expected, "{kernel}");
                check(pools, a, &w, &stages.int32(), CANARY, &mut workspace);
                check(pools, a, &w, &stages.requantize(), 0x5a, &mut workspace);
                check(pools, a, &w, &stages.dequantize(), f32::MAX, &mut workspace);
            }
        }
    }

    let pools = [1, 2, 3, 5].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    sweep::<u8>(&pools);
    sweep::<i8>(&pools);
}

#[cfg(feature = "rayon")]
#[test]
fn a_row_does_not_depend_on_the_threads_through_any_route() {
    use rayon::ThreadPoolBuilder;

    let (mut noise, mut workspace) = (Noise::new(37), Workspace::new());
    let pools = [1, 2, 3].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    // The first has columns to share, the second rows.
    for (m, n, k) in [(9, 1403, 1307), (1201, 30, 401)] {
        let mut x = noise.floats(m * k, 1.0);
        x.chunks_mut(k)
            .enumerate()
            .for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= (1 + i % 9) as f32));
        let x = MatRef::new(&x, m, k).unwrap();
        let known = FloatActivations::new(x, QParams::new(0.05, 3, CodeRange::I8).unwrap()).unwrap();
        let (w, zero_points) = (noise.weights::<u8>(n, k), noise.zero_points::<u8>(n));
        let w = (MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points));
        let stages = Stages::new(&mut noise, n, k);
        let residual = noise.codes::<u8>(m * n);
        let residual = Residual::new(MatRef::new(&residual, m, n).unwrap(), 100, 0.25).unwrap();
        let with_residual = stages.requantize().with_residual(residual);
        let multipliers: Vec<_> =
            stages.scales.iter().map(|scale| Q31Multiplier::from_real(scale.abs().into()).unwrap()).collect();
        let in_fixed_point = RequantizeFixedPoint::<i8>::new(&multipliers, FixedPointRounding::Single);
        for kernel in Kernel::available() {
            let w = pack(kernel, w);
            let mut run = |threads: Threads<'_>| {
                let mut reals = [vec![f32::NAN; m * n], vec![f32::NAN; m * n]];
                let hows = [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())];
                for (y, how) in reals.iter_mut().zip(hows) {
                    let out = MatMut::new(y, m, n).unwrap();
                    gemm_dynamic(x, how, &w, &stages.dequantize(), out, threads, &mut workspace).unwrap();
                }
                let (mut codes, mut fixed) = (vec![0; m * n], vec![0; m * n]);
                let out = MatMut::new(&mut codes, m, n).unwrap();
                gemm(known, &w, &with_residual, out, threads, &mut workspace).unwrap();
                let out = MatMut::new(&mut fixed, m, n).unwrap();
                gemm(known, &w, &in_fixed_point, out, threads, &mut workspace).unwrap();
                (reals.map(|y| rows_of_bits(&y, n)), codes, fixed)
            };
            let serial = run(Threads::Serial);
            for pool in &pools {
                assert!(
                    run(Threads::Pool(pool)) == serial,
                    "{kernel}, {} threads",
                    pool.current_num_threads()
                );
            }
        }
    }
}

#[test]
fn weights_are_shared_by_threads_that_each_run_serially() {
    let mut noise = Noise::new(35);
    let (m, n, k) = (9, 50, 130);
    let (a, w) = (noise.codes::<u8>(m * k), noise.weights::<i8>(n, k));
    let (a, w) = (MatRef::new(&a, m, k).unwrap(), MatRef::new(&w, n, k).unwrap());
    let expected = sums(a, 0, w);
    for kernel in Kernel::available() {
        let w = pack(kernel, w);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    assert_eq!(product(a, m, &w, &Int32::new(), CANARY, &mut Workspace::new()), expected);
                });
            }
        });
    }
}
