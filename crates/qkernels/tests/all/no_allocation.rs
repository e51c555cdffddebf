//! With a kept workspace, a serial product allocates nothing, and neither does quantizing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use half::{bf16, f16};
use qcore::{CodeRange, Float, Q31Multiplier, QParams, Scheme};
use qkernels::{
    Activations, Dequantize, DequantizeTo, Dynamic, FixedPointRounding, FloatActivations, FloatRows,
    FloatStage, Int32, Kernel, MatMut, MatRef, OutputStage, PackedWeights, QuantizedRows, Requantize,
    RequantizeFixedPoint, Residual, Scales, Threads, Workspace, ZeroPoints, gemm, gemm_columns, gemm_dynamic,
    gemm_scaled, gemm_scaled_rows, quantize, weight_only,
};

use crate::oracle::in_parts::Layer;
use crate::oracle::{Noise, TestCode, pack, pack_scaled};

thread_local! {
    /// Counts the allocations of this thread, so tests beside this one do not count.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises about `block`, `layout` and `size`; all blocks come from
        // the system allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `block` and `layout`; all blocks come from the system
        // allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A scale for each row and group, of signed and of unsigned codes.
fn in_groups_of(group_len: usize) -> [Dynamic; 2] {
    let signed = Scheme::weights_i8();
    [signed, Scheme { codes: CodeRange::U8, ..signed }].map(|scheme| Dynamic::PerGroup { scheme, group_len })
}

fn run<A: TestCode, S: OutputStage>(
    a: MatRef<'_, A>,
    w: &PackedWeights,
    stage: &S,
    out: MatMut<'_, qkernels::Output<S>>,
    workspace: &mut Workspace,
) {
    gemm(Activations::new(a, 3), w, stage, out, Threads::Serial, workspace).unwrap();
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(9)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn the_second_product_of_a_shape_allocates_nothing() {
    fn sweep<A: TestCode>() {
        let mut noise = Noise::new(50);
        // These have few rows and many, rows that a kernel can and cannot read in place, k in
        // blocks and columns in blocks.
        for (m, n, k) in
            [(1, 17, 64), (9, 49, 131), (100, 60, 1024), (20, 50, 6000), (3, 300, 6000), (2, 3, 0)]
        {
            let (a, w, bias) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k), noise.integers(n, 99));
            let (scales, float_bias) = (noise.floats(n, 0.01), noise.floats(n, 1.0));
            let row_major = MatRef::new(&a, m, k).unwrap();
            let column_major = MatRef::with_strides(&a, m, k, 1, m).unwrap();
            let int32 = Int32::new().with_bias(&bias);
            let dequantize = Dequantize::new(Scales::PerChannel(&scales)).unwrap().with_bias(&bias);
            let dequantize = dequantize.with_float_bias(&float_bias).unwrap();
            let requantize = Requantize::<u8>::new(Scales::PerChannel(&scales)).unwrap().with_bias(&bias);
            let (mut sums, mut reals, mut codes) = (vec![0; m * n], vec![0.0; m * n], vec![0; m * n]);
            for kernel in Kernel::available() {
                let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
                let mut workspace = Workspace::new();
                let mut products = || {
                    for a in [row_major, column_major] {
                        run(a, &w, &int32, MatMut::new(&mut sums, m, n).unwrap(), &mut workspace);
                        run(a, &w, &dequantize, MatMut::new(&mut reals, m, n).unwrap(), &mut workspace);
                        run(a, &w, &requantize, MatMut::new(&mut codes, m, n).unwrap(), &mut workspace);
                    }
                };
                assert!(allocations(&mut products) > 0, "{kernel}: a new workspace is empty");
                assert_eq!(allocations(&mut products), 0, "{kernel}, m = {m}, n = {n}, k = {k}");
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn the_second_product_through_any_route_allocates_nothing() {
    let mut noise = Noise::new(53);
    for (m, n, k) in [(1, 17, 64), (9, 49, 131), (20, 50, 6000), (3, 300, 6000)] {
        let (x, w, codes) = (noise.floats(m * k, 1.0), noise.weights::<u8>(n, k), noise.codes::<i8>(m * n));
        let (scales, zero_points) = (noise.floats(n, 0.01), noise.zero_points::<u8>(n));
        let halves: Vec<_> = x.iter().map(|&x| <bf16 as Float>::narrow(x)).collect();
        let x = MatRef::new(&x, m, k).unwrap();
        let column_major = MatRef::with_strides(&halves, m, k, 1, m).unwrap();
        let params = QParams::new(0.02, 99, CodeRange::U8).unwrap();
        let known = FloatActivations::new(column_major, params).unwrap();
        let divisors: Vec<f32> = noise.floats(k, 0.5).into_iter().map(f32::abs).collect();
        let divided = FloatRows::divided_by(column_major, &divisors).unwrap();
        let known_divided = FloatActivations::new(divided, params).unwrap();
        let per_channel = Scales::PerChannel(&scales);
        let (reals, to_halves) =
            (Dequantize::new(per_channel).unwrap(), DequantizeTo::new(Scales::PerTensor(0.01)).unwrap());
        let multiplier = [Q31Multiplier::from_real(0.01).unwrap()];
        let in_fixed_point = RequantizeFixedPoint::<u8>::new(&multiplier, FixedPointRounding::Double);
        let residual = Residual::new(MatRef::new(&codes, m, n).unwrap(), 3, 0.5).unwrap();
        let with_residual = Requantize::<u8>::new(per_channel).unwrap().with_residual(residual);
        let (mut y, mut y_halves, mut y_codes) = (vec![0.0; m * n], vec![f16::ZERO; m * n], vec![0; m * n]);
        for kernel in Kernel::available() {
            let w = MatRef::new(&w, n, k).unwrap();
            let w = &pack(kernel, (w, ZeroPoints::PerChannel(&zero_points)));
            let (columns, ws) = (w.column_ranges(2).next().unwrap(), &mut Workspace::new());
            let mut products = || {
                for how in [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())] {
                    let out = MatMut::new(&mut y, m, n).unwrap();
                    gemm_dynamic(x, how, w, &reals, out, Threads::Serial, ws).unwrap();
                    let out = MatMut::new(&mut y_halves, m, n).unwrap();
                    gemm_dynamic(column_major, how, w, &to_halves, out, Threads::Serial, ws).unwrap();
                    let out = MatMut::new(&mut y, m, n).unwrap();
                    gemm_dynamic(divided, how, w, &reals, out, Threads::Serial, ws).unwrap();
                }
                let out = MatMut::new(&mut y_codes, m, n).unwrap();
                gemm(known, w, &in_fixed_point, out, Threads::Serial, ws).unwrap();
                let out = MatMut::new(&mut y_codes, m, n).unwrap();
                gemm(known, w, &with_residual, out, Threads::Serial, ws).unwrap();
                let out = MatMut::new(&mut y, m, columns.len()).unwrap();
                gemm_columns(known, w, columns.clone(), &reals, out, ws).unwrap();
                let out = MatMut::new(&mut y, m, n).unwrap();
                gemm(known_divided, w, &reals, out, Threads::Serial, ws).unwrap();
            };
            assert!(allocations(&mut products) > 0, "{kernel}: a new workspace is empty");
            assert_eq!(allocations(&mut products), 0, "{kernel}, m = {m}, n = {n}, k = {k}");
        }
    }
}

#[test]
fn a_forward_pass_over_layers_of_many_shapes_allocates_nothing() {
    let mut noise = Noise::new(51);
    let shapes = [(16, 784, 256), (16, 256, 10), (1, 128, 512), (33, 7, 3), (4, 6000, 40)];
    for kernel in Kernel::available() {
        let mut workspace = Workspace::new();
        let mut layers: Vec<_> = shapes
            .map(|(m, k, n)| {
                let w = noise.weights::<i8>(n, k);
                (m, noise.codes::<i8>(m * k), pack(kernel, MatRef::new(&w, n, k).unwrap()), vec![0; m * n])
            })
            .into();
        let mut pass = || {
            for (m, a, w, y) in &mut layers {
                let (a, out) = (MatRef::new(a, *m, w.k()).unwrap(), MatMut::new(y, *m, w.n()).unwrap());
                run(a, w, &Int32::new(), out, &mut workspace);
            }
        };
        pass();
        assert_eq!(allocations(pass), 0, "{kernel}");
    }
}

#[test]
fn the_second_product_of_scaled_weights_of_a_shape_allocates_nothing() {
    fn sweep<F: Float>() {
        let mut noise = Noise::new(53);
        for (m, n, k) in [(1, 17, 64), (9, 49, 131), (100, 60, 1024), (3, 300, 6000), (2, 3, 0)] {
            let (codes, bias) = (noise.weights::<i8>(n, k), noise.floats(n, 1.0));
            let (count, len) = (n * k.div_ceil(32), m * k);
            let (scales, zero_points) = (noise.floats(count, 0.01), noise.codes::<i8>(count));
            let small = |codes: &[i8]| codes.iter().map(|code| code & 15).collect::<Vec<_>>();
            let (small_codes, small_zero_points) = (small(&codes), small(&zero_points));
            let a: Vec<F> = noise.floats(len, 1.0).into_iter().map(F::narrow).collect();
            let (mut y, stage) = (vec![F::default(); m * n], FloatStage::new().with_bias(&bias).unwrap());
            for kernel in Kernel::available() {
                for (bits, codes, zero_points) in
                    [(8, &codes, &zero_points), (4, &small_codes, &small_zero_points)]
                {
                    let w = MatRef::new(codes, n, k).unwrap();
                    let w = pack_scaled(kernel, bits, w, Some(32), &scales, Some(zero_points));
                    let mut workspace = Workspace::new();
                    let mut multiply = || {
                        let (a, out) = (MatRef::new(&a, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
                        weight_only(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    };
                    assert!(allocations(&mut multiply) > 0, "{kernel}: a new workspace is empty");
                    assert_eq!(allocations(&mut multiply), 0, "{kernel}, m = {m}, n = {n}, k = {k}");
                    let (mut workspace, mut rows) = (Workspace::new(), QuantizedRows::new());
                    let mut multiply = || {
                        let (a, out) = (MatRef::new(&a, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
                        let how = Dynamic::default();
                        gemm_scaled(a, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                        for how in in_groups_of(32).into_iter().chain([Dynamic::GgmlQ8_0]) {
                            let out = MatMut::new(&mut y, m, n).unwrap();
                            gemm_scaled(a, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                            rows.quantize(a, how, kernel).unwrap();
                            let out = MatMut::new(&mut y, m, n).unwrap();
                            gemm_scaled_rows(&rows, &w, &stage, out, Threads::Serial, &mut workspace)
                                .unwrap();
                        }
                    };
                    assert!(allocations(&mut multiply) > 0, "{kernel}: a new workspace is empty");
                    assert_eq!(allocations(&mut multiply), 0, "{kernel}, m = {m}, n = {n}, k = {k}");
                }
            }
        }
    }
    sweep::<f32>();
    sweep::<f16>();
    sweep::<bf16>();
}

#[test]
fn the_second_product_with_minimums_and_parts_allocates_nothing() {
    let mut noise = Noise::new(54);
    for (m, n, k) in [(1, 17, 64), (9, 49, 131), (50, 60, 1024), (3, 300, 2000)] {
        for (bits, part) in [(8, None), (4, None), (8, Some(16)), (4, Some(32))] {
            let layer = Layer::of_format(&mut noise, (n, k), bits, Some(64), part);
            let (a, mut y, stage) = (noise.floats(m * k, 1.0), vec![0f32; m * n], FloatStage::new());
            for kernel in Kernel::available() {
                let (w, mut workspace) = (layer.packed(kernel), Workspace::new());
                // The inputs may be in another order, too.
                let order: Vec<u32> = (0..k as u32).rev().collect();
                let ordered = w.clone().with_input_order(&order).unwrap();
                let mut multiply = || {
                    let a = MatRef::new(&a, m, k).unwrap();
                    for w in [&w, &ordered] {
                        let out = MatMut::new(&mut y, m, n).unwrap();
                        weight_only(a, w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                        let out = MatMut::new(&mut y, m, n).unwrap();
                        let how = Dynamic::default();
                        gemm_scaled(a, how, w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    }
                    for how in in_groups_of(64) {
                        let out = MatMut::new(&mut y, m, n).unwrap();
                        gemm_scaled(a, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    }
                };
                assert!(allocations(&mut multiply) > 0, "{kernel}: a new workspace is empty");
                assert_eq!(allocations(&mut multiply), 0, "{kernel}, {m} x {}", layer.form());
            }
        }
    }
}

#[test]
fn quantizing_allocates_nothing() {
    let x = Noise::new(52).floats(1000, 2.0);
    let mut codes = vec![0u8; x.len()];
    let params = QParams::new(0.02, 128, CodeRange::U8).unwrap();
    for kernel in Kernel::available() {
        assert_eq!(allocations(|| quantize(kernel, &x, &params, &mut codes).unwrap()), 0, "{kernel}");
    }
}
