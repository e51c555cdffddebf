//! With a kept workspace, a serial product allocates nothing, and neither does quantizing.

mod oracle;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use oracle::{Noise, TestCode, pack};
use qkernels::{
    Activations, Dequantize, Int32, Kernel, MatMut, MatRef, OutputStage, PackedWeights, Requantize, Scales,
    Threads, Workspace, gemm, quantize,
};

thread_local! {
    /// Allocations of this thread, so that tests beside this one do not count.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; counting allocates nothing.
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
        // SAFETY: the caller's promises about `block`, `layout` and `size`; all blocks come from the system allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `block` and `layout`; all blocks come from the system allocator.
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
        // Few rows and many, rows that a kernel can read in place and not, k in blocks, columns in blocks.
        for (m, n, k) in
            [(1, 17, 64), (9, 49, 131), (100, 60, 1024), (20, 50, 6000), (3, 300, 6000), (2, 3, 0)]
        {
            let (a, w, bias) = (noise.codes::<A>(m * k), noise.codes::<i8>(n * k), noise.integers(n, 99));
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
fn a_forward_pass_over_layers_of_many_shapes_allocates_nothing() {
    let mut noise = Noise::new(51);
    let shapes = [(16, 784, 256), (16, 256, 10), (1, 128, 512), (33, 7, 3), (4, 6000, 40)];
    for kernel in Kernel::available() {
        let mut workspace = Workspace::new();
        let mut layers: Vec<_> = shapes
            .map(|(m, k, n)| {
                let w = noise.codes::<i8>(n * k);
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
fn quantizing_allocates_nothing() {
    let x = Noise::new(52).floats(1000, 2.0);
    let mut codes = vec![0u8; x.len()];
    let params = qcore::QParams::new(0.02, 128, qcore::CodeRange::U8).unwrap();
    for kernel in Kernel::available() {
        assert_eq!(allocations(|| quantize(kernel, &x, &params, &mut codes).unwrap()), 0, "{kernel}");
    }
}
