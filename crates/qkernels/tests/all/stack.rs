//! How much stack a call takes: threads of an engine may have little.

use std::thread;

use half::f16;
use qcore::{CodeRange, Q31Multiplier, QParams, Scheme};
use qkernels::{
    Activations, Dequantize, DequantizeTo, Dynamic, FixedPointRounding, FloatActivations, FloatRows,
    FloatStage, Int32, Kernel, MatMut, MatRef, Output, OutputStage, PackedNibbles, PackedWeights, Requantize,
    RequantizeFixedPoint, Residual, ScaledWeights, Scales, Threads, WeightScales, Weights, Workspace,
    ZeroPoints, gemm, gemm_dynamic, gemm_scaled, weight_only,
};

/// The stack that `Threads` and docs/guides/threads.md promise to be enough for optimized code. The
/// tests of this workspace are optimized.
const STACK: usize = 64 << 10;

/// Runs `work` on a thread with such a stack.
fn on_a_small_stack(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap();
    });
}

fn codes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * at % 251) as u8).collect()
}

/// These are small, with ragged edges, in many tiles, and with k in blocks.
const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (7, 100, 65), (40, 200, 700), (9, 70, 40_000)];

#[test]
fn packing() {
    let w = codes(40_000 * 70);
    for (kernel, (_, n, k)) in Kernel::available().flat_map(|kernel| SHAPES.map(|shape| (kernel, shape))) {
        on_a_small_stack(|| {
            for (row_stride, col_stride) in [(k, 1), (1, n), (0, 2)] {
                let view = MatRef::with_strides(&w, n, k, row_stride, col_stride).unwrap();
                for zero_points in [ZeroPoints::PerTensor(128), ZeroPoints::PerTensor(100)] {
                    let packed = PackedWeights::from_nk(Weights::new(view, zero_points), kernel).unwrap();
                    let scales = vec![1.0; n];
                    assert_eq!(packed.unpack().len(), n * k);
                    ScaledWeights::new(packed, WeightScales::per_channel(&scales)).unwrap();
                }
            }
        });
    }
}

/// A stage on activations of every kind, whether they lie in rows or not.
fn run<S: OutputStage>(
    (m, n, k): (usize, usize, usize),
    w: &PackedWeights,
    stage: &S,
    (codes, floats): (&[u8], &[f32]),
    zero: Output<S>,
) where
    Output<S>: Send,
{
    let params = QParams::new(0.5, 3, CodeRange::U8).unwrap();
    let (mut y, mut workspace) = (vec![zero; m * n], Workspace::new());
    let signed: &[i8] = bytemuck::cast_slice(codes);
    on_a_small_stack(|| {
        for strides in [(k, 1), (1, m)] {
            let view = MatRef::with_strides(codes, m, k, strides.0, strides.1).unwrap();
            let mut out = MatMut::new(&mut y, m, n).unwrap();
            gemm(Activations::new(view, 3), w, stage, out.reborrow(), Threads::Serial, &mut workspace)
                .unwrap();
            let view = MatRef::with_strides(signed, m, k, strides.0, strides.1).unwrap();
            gemm(view, w, stage, out.reborrow(), Threads::Serial, &mut workspace).unwrap();
            let view = MatRef::with_strides(floats, m, k, strides.0, strides.1).unwrap();
            let view = FloatActivations::new(view, params).unwrap();
            gemm(view, w, stage, out, Threads::Serial, &mut workspace).unwrap();
        }
    });
}

#[test]
fn products() {
    let (codes, floats) = (codes(40_000 * 100), vec![0.75; 40_000 * 9]);
    let half = [Q31Multiplier::from_real(0.5).unwrap()];
    for (kernel, shape) in Kernel::available().flat_map(|kernel| SHAPES.map(|shape| (kernel, shape))) {
        let (m, n, k) = shape;
        // Weights of 5 bits stand beside weights of 8, which makes panels of both kinds. Then come
        // zero points.
        let small: Vec<i8> = codes.iter().map(|code| (code % 32) as i8 - 16).collect();
        let mut mixed = small.clone();
        mixed[0] = 127;
        mixed[1.min(k - 1)] = 127;
        let operands = (&codes[..], &floats[..]);
        for zero_points in [0, -3] {
            let w = Weights::new(MatRef::new(&mixed, n, k).unwrap(), ZeroPoints::PerTensor(zero_points));
            let w = &PackedWeights::from_nk(w, kernel).unwrap();
            run(shape, w, &Int32::new(), operands, 0);
            run(shape, w, &Dequantize::new(Scales::PerTensor(1e-3)).unwrap(), operands, 0.0);
            run(shape, w, &DequantizeTo::<f16>::new(Scales::PerTensor(1e-3)).unwrap(), operands, f16::ONE);
            let stage = Requantize::<i8>::new(Scales::PerTensor(1e-3)).unwrap();
            run(shape, w, &stage, operands, 0);
            let residual = Residual::new(MatRef::new(&codes, m, n).unwrap(), 3, 0.5).unwrap();
            run(shape, w, &stage.with_residual(residual), operands, 0);
            run(shape, w, &Requantize::<u8>::new(Scales::PerTensor(1.0)).unwrap(), operands, 0);
            for rounding in [FixedPointRounding::Single, FixedPointRounding::Double] {
                run(shape, w, &RequantizeFixedPoint::<u8>::new(&half, rounding), operands, 0);
            }
        }
    }
}

#[test]
fn products_of_floats() {
    let (codes, floats) = (codes(40_000 * 70), vec![0.75f32; 40_000 * 9]);
    let halves = vec![f16::ONE; 40_000 * 9];
    let signed: &[i8] = bytemuck::cast_slice(&codes);
    for (kernel, (m, n, k)) in Kernel::available().flat_map(|kernel| SHAPES.map(|shape| (kernel, shape))) {
        let w = PackedWeights::from_nk(MatRef::new(&signed[..n * k], n, k).unwrap(), kernel);
        let Ok(w) = w else { continue };
        let groups = k.div_ceil(32);
        let (scales, zero_points) = (vec![1e-3; n * groups], vec![3i8; n * groups]);
        let scales = WeightScales::per_group(&scales, 32).with_zero_points(&zero_points);
        let scaled = ScaledWeights::new(w.clone(), scales).unwrap();
        let stage = Dequantize::new(Scales::PerTensor(1e-3)).unwrap();
        let (mut y, mut workspace) = (vec![0f32; m * n], Workspace::new());
        on_a_small_stack(|| {
            for strides in [(k, 1), (1, m)] {
                let mut out = MatMut::new(&mut y, m, n).unwrap();
                let x = MatRef::with_strides(&floats, m, k, strides.0, strides.1).unwrap();
                let halves = MatRef::with_strides(&halves, m, k, strides.0, strides.1).unwrap();
                for scheme in [Scheme::weights_i8(), Scheme::activations_u8()] {
                    for how in [Dynamic::PerTensor(scheme), Dynamic::PerToken(scheme)] {
                        gemm_dynamic(x, how, &w, &stage, out.reborrow(), Threads::Serial, &mut workspace)
                            .unwrap();
                        gemm_dynamic(
                            halves,
                            how,
                            &w,
                            &stage,
                            out.reborrow(),
                            Threads::Serial,
                            &mut workspace,
                        )
                        .unwrap();
                    }
                }
                let divisors = vec![0.5; k];
                let divided = FloatRows::divided_by(halves, &divisors).unwrap();
                let (how, to) = (Dynamic::default(), out.reborrow());
                gemm_dynamic(divided, how, &w, &stage, to, Threads::Serial, &mut workspace).unwrap();
                let stage = FloatStage::new();
                weight_only(divided, &scaled, &stage, out.reborrow(), Threads::Serial, &mut workspace)
                    .unwrap();
                weight_only(x, &scaled, &stage, out.reborrow(), Threads::Serial, &mut workspace).unwrap();
                weight_only(halves, &scaled, &stage, out.reborrow(), Threads::Serial, &mut workspace)
                    .unwrap();
                let nibbles =
                    PackedNibbles::from_nk(MatRef::new(&vec![9; n * k], n, k).unwrap(), kernel).unwrap();
                let per_channel = vec![1.0; n];
                let nibbles =
                    ScaledWeights::of_nibbles(nibbles, WeightScales::per_channel(&per_channel)).unwrap();
                for w in [&scaled, &nibbles] {
                    for scheme in [Scheme::weights_i8(), Scheme::activations_u8()] {
                        let (how, out) = (Dynamic::PerToken(scheme), out.reborrow());
                        gemm_scaled(x, how, w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    }
                }
                weight_only(x, &nibbles, &stage, out, Threads::Serial, &mut workspace).unwrap();
            }
        });
    }
}

#[test]
fn loops_over_slices() {
    let params = QParams::new(0.5, 3, CodeRange::U8).unwrap();
    for kernel in Kernel::available() {
        on_a_small_stack(|| {
            let (mut x, mut q) = (vec![0.75f32; 10_001], vec![0u8; 10_001]);
            qkernels::quantize(kernel, &x, &params, &mut q).unwrap();
            qkernels::dequantize(kernel, &q, &params, &mut x).unwrap();
            qkernels::range(kernel, &x).unwrap();
            assert!(qkernels::first_non_finite(kernel, MatRef::new(&x, 73, 137).unwrap()).is_none());
        });
    }
}
