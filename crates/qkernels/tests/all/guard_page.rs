//! No kernel reads or writes one byte outside of the caller's slices. The slices begin right behind
//! a page that cannot be touched, or end right before one.
#![cfg(unix)]

use std::env;
use std::marker::PhantomData;
use std::os::unix::process::ExitStatusExt;

use bytemuck::Pod;
use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use qcore::{CodeRange, Float, Q31Multiplier, QParams, Scheme};
use qkernels::{
    Activations, Dequantize, DequantizeTo, Dynamic, FixedPointRounding, FloatActivations, FloatStage, Int32,
    Kernel, MatMut, MatRef, Requantize, RequantizeFixedPoint, Residual, ScaledWeights, Scales, Threads,
    WeightScales, Workspace, ZeroPoints, gemm, gemm_dynamic, gemm_scaled, quantize, weight_only,
};

use crate::oracle::in_parts::Layer;
use crate::oracle::{Noise, TestCode, around, pack, sums, this_program};

/// Where the elements lie between the two guard pages.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The first byte is the first one behind a guard page.
    Front,
    /// The last byte is the last one before a guard page.
    Back,
}

/// Elements in pages of their own, with an inaccessible page on either side.
struct Guarded<T> {
    mapping: *mut u8,
    bytes: usize,
    start: *mut T,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> Guarded<T> {
    fn new(values: &[T], place: Place) -> Self {
        // SAFETY: sysconf only reads its argument.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let inside = size_of_val(values).next_multiple_of(page).max(page);
        let bytes = inside + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a new anonymous mapping, which touches no memory that exists.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(mapping, libc::MAP_FAILED);
        let mapping = mapping.cast::<u8>();
        // SAFETY: one page is inside of the mapping of at least three.
        let first = unsafe { mapping.add(page) };
        // SAFETY: these are the pages between the first and the last of the mapping made above.
        let protected = unsafe { libc::mprotect(first.cast(), inside, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(protected, 0);
        let skipped = match place {
            Place::Front => 0,
            Place::Back => inside - size_of_val(values),
        };
        // SAFETY: skipped <= inside, so this stays in the accessible pages.
        let start = unsafe { first.add(skipped) }.cast::<T>();
        assert!(start.is_aligned());
        let mut guarded = Self { mapping, bytes, start, len: values.len(), elements: PhantomData };
        guarded.slice_mut().copy_from_slice(values);
        guarded
    }

    fn slice(&self) -> &[T] {
        // SAFETY: `new` placed `len` elements at `start` in accessible memory, and any bytes are a
        // T (Pod). `self` owns the mapping, so a shared borrow of `self` is one of the elements.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    fn slice_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `slice`, with an exclusive borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `new` made, and no borrow of it is left.
        let unmapped = unsafe { libc::munmap(self.mapping.cast(), self.bytes) };
        assert_eq!(unmapped, 0);
    }
}

/// Puts every operand of a product of this shape between guard pages, on every kernel and stage.
fn check<A: TestCode>(noise: &mut Noise, (m, n, k): (usize, usize, usize), place: Place) {
    let mut workspace = Workspace::new();
    for row_stride in [k, k + 1, k + 64] {
        let a = Guarded::new(&noise.codes::<A>((m - 1) * row_stride + k), place);
        let w = Guarded::new(&noise.codes::<i8>((n - 1) * row_stride + k), place);
        let kn = Guarded::new(&noise.codes::<i8>(k * n), place);
        let scales = Guarded::new(&noise.floats(n, 0.01), place);
        let bias = Guarded::new(&noise.integers(n, 1000), place);
        let float_bias = Guarded::new(&noise.floats(n, 1.0), place);
        let a_view = MatRef::with_strides(a.slice(), m, k, row_stride, 1).unwrap();
        for w in [
            MatRef::with_strides(w.slice(), n, k, row_stride, 1).unwrap(),
            MatRef::new(kn.slice(), k, n).unwrap().transposed(),
        ] {
            let mut expected = sums(a_view, 5, w);
            for row in expected.chunks_mut(n) {
                row.iter_mut().zip(bias.slice()).for_each(|(sum, bias)| *sum += bias);
            }
            let a = Activations::new(a_view, 5);
            for kernel in Kernel::available() {
                let w = pack(kernel, w);
                // The rows have gaps. The last row ends with its last element.
                for stride in [n, n + 1] {
                    let len = (m - 1) * stride + n;
                    let mut y = Guarded::new(&vec![0i32; len], place);
                    let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
                    let stage = Int32::new().with_bias(bias.slice());
                    gemm(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    for (row, expected) in y.slice().chunks(stride).zip(expected.chunks(n)) {
                        assert_eq!(row[..n], *expected, "{kernel} {m} x {n} x {k}");
                    }

                    let mut y = Guarded::new(&vec![0f32; len], place);
                    let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
                    let stage = Dequantize::new(Scales::PerChannel(scales.slice())).unwrap();
                    let stage = stage.with_bias(bias.slice()).with_float_bias(float_bias.slice()).unwrap();
                    gemm(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();

                    let mut y = Guarded::new(&vec![0u8; len], place);
                    let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
                    let stage = Requantize::new(Scales::PerChannel(scales.slice())).unwrap();
                    let stage = stage.with_bias(bias.slice());
                    gemm(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                }
            }
        }
    }
}

fn check_edges<A: TestCode>(place: Place) {
    let mut noise = Noise::new(40);
    for desc in Kernel::available().map(Kernel::desc) {
        for m in around(desc.mr).chain([1, 2]) {
            for n in around(desc.vector_columns).chain(around(desc.nr)) {
                let k =
                    noise.choose(&[1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]);
                check::<A>(&mut noise, (m, n, k), place);
            }
        }
    }
    for k in 1..=70 {
        check::<A>(&mut noise, (2, 9, k), place);
    }
    for (m, n, k) in [(9, 17, 4096), (3, 49, 6000)] {
        check::<A>(&mut noise, (m, n, k), place);
    }
}

#[test]
fn nothing_before_the_slices_is_touched() {
    check_edges::<u8>(Place::Front);
    check_edges::<i8>(Place::Front);
}

#[test]
fn nothing_behind_the_slices_is_touched() {
    check_edges::<u8>(Place::Back);
    check_edges::<i8>(Place::Back);
}

/// Puts floats, weights with zero points and the residual of a product of this shape between guard
/// pages, on every kernel.
fn check_floats(noise: &mut Noise, (m, n, k): (usize, usize, usize), place: Place) {
    let mut workspace = Workspace::new();
    let params = QParams::new(0.02, 99, CodeRange::U8).unwrap();
    let w = Guarded::new(&noise.weights::<u8>(n, k), place);
    let zero_points = Guarded::new(&noise.zero_points::<u8>(n), place);
    let scales = Guarded::new(&noise.floats(n, 0.01), place);
    let multipliers: Vec<_> =
        scales.slice().iter().map(|&s| Q31Multiplier::from_real(s.abs().into()).unwrap()).collect();
    let stage = Dequantize::new(Scales::PerChannel(scales.slice())).unwrap();
    for (row_stride, col_stride, gap) in [(k, 1, 0), (k + 1, 1, 1), (1, m, 0)] {
        let len = (m - 1) * row_stride + (k - 1) * col_stride + 1;
        let x = Guarded::new(&noise.floats(len, 1.0), place);
        let halves: Vec<_> = x.slice().iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        let halves = Guarded::new(&halves, place);
        let halves: &[bf16] = halves.slice().reinterpret_cast();
        let x = MatRef::with_strides(x.slice(), m, k, row_stride, col_stride).unwrap();
        let halves = MatRef::with_strides(halves, m, k, row_stride, col_stride).unwrap();
        let (stride, len) = (n + gap, (m - 1) * (n + gap) + n);
        let residual = Guarded::new(&noise.codes::<i8>(len), place);
        let residual = MatRef::with_strides(residual.slice(), m, n, stride, 1).unwrap();
        let residual = Residual::new(residual, 3, 0.5).unwrap();
        for kernel in Kernel::available() {
            let w = MatRef::new(w.slice(), n, k).unwrap();
            let w = pack(kernel, (w, ZeroPoints::PerChannel(zero_points.slice())));
            for how in [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())] {
                let mut y = Guarded::new(&vec![0f32; len], place);
                let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
                gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                let mut y = Guarded::new(&vec![0f32; len], place);
                let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
                gemm_dynamic(halves, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
            }
            let x = FloatActivations::new(halves, params).unwrap();
            let mut y = Guarded::new(&vec![0u16; len], place);
            let out = MatMut::with_stride(y.slice_mut().reinterpret_cast_mut(), m, n, stride).unwrap();
            let to_halves = DequantizeTo::<f16>::new(Scales::PerChannel(scales.slice())).unwrap();
            gemm(x, &w, &to_halves, out, Threads::Serial, &mut workspace).unwrap();
            let mut y = Guarded::new(&vec![0u8; len], place);
            let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
            let codes = Requantize::new(Scales::PerTensor(0.01)).unwrap().with_residual(residual);
            gemm(x, &w, &codes, out, Threads::Serial, &mut workspace).unwrap();
            let out = MatMut::with_stride(y.slice_mut(), m, n, stride).unwrap();
            let codes = RequantizeFixedPoint::new(&multipliers, FixedPointRounding::Double);
            gemm(x, &w, &codes, out, Threads::Serial, &mut workspace).unwrap();
        }
    }
}

#[test]
fn floats_and_residuals_are_read_inside_of_their_slices() {
    let mut noise = Noise::new(42);
    for place in [Place::Front, Place::Back] {
        for desc in Kernel::available().map(Kernel::desc) {
            for n in around(desc.vector_columns).chain(around(desc.nr)) {
                let (m, k) = (noise.choose(&[1, 2, desc.mr, desc.mr + 1]), 1 + noise.below(70));
                check_floats(&mut noise, (m, n, k), place);
            }
        }
        for (n, k) in (1..=20).zip([255, 256, 257, 511, 512, 513].into_iter().cycle()) {
            check_floats(&mut noise, (3, n, k), place);
        }
    }
}

/// Puts activations, bias and output of a weight-only product between guard pages, on every kernel.
fn check_weight_only<F: Float + Pod>(noise: &mut Noise, (m, n, k): (usize, usize, usize), place: Place) {
    let mut workspace = Workspace::new();
    let codes = noise.weights::<i8>(n, k);
    let (scales, zero_points) =
        (noise.floats(n * k.div_ceil(32), 0.01), noise.codes::<i8>(n * k.div_ceil(32)));
    let bias = Guarded::new(&noise.floats(n, 1.0), place);
    let stage = FloatStage::new().with_bias(bias.slice()).unwrap();
    for stride in [k, k + 1, k + 64] {
        let values: Vec<F> = noise.floats((m - 1) * stride + k, 1.0).into_iter().map(F::narrow).collect();
        let a = Guarded::new(&values, place);
        let a = MatRef::with_strides(a.slice(), m, k, stride, 1).unwrap();
        for kernel in Kernel::available() {
            for scales in [
                WeightScales::per_channel(&scales[..n]),
                WeightScales::per_group(&scales, 32).with_zero_points(&zero_points),
            ] {
                let w = pack(kernel, MatRef::new(&codes, n, k).unwrap());
                let w = ScaledWeights::new(w, scales).unwrap();
                let (nan, out_stride) = (F::narrow(f32::NAN), n + stride % 2);
                let mut y = Guarded::new(&vec![nan; (m - 1) * out_stride + n], place);
                let out = MatMut::with_stride(y.slice_mut(), m, n, out_stride).unwrap();
                weight_only(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                for row in y.slice().chunks(out_stride) {
                    assert!(row[..n].iter().all(|y| y.widen().is_finite()), "{kernel} {m} x {n} x {k}");
                    assert!(row[n..].iter().all(|y| y.widen().is_nan()), "{kernel} {m} x {n} x {k}");
                }
            }
        }
    }
}

#[test]
fn weight_only_products_stay_inside_of_their_slices() {
    let mut noise = Noise::new(42);
    for place in [Place::Front, Place::Back] {
        for desc in Kernel::available().map(Kernel::desc) {
            for (m, n) in (1..).zip(around(desc.vector_columns).chain(around(desc.nr))) {
                let k = noise.choose(&[1, 2, 3, 5, 8, 15, 31, 32, 33, 63, 65, 100, 127, 129]);
                check_weight_only::<f32>(&mut noise, (m, n, k), place);
                check_weight_only::<f16>(&mut noise, (m, n, k), place);
                check_weight_only::<bf16>(&mut noise, (m, n, k), place);
            }
        }
    }
}

#[test]
fn products_with_minimums_and_parts_stay_inside_of_their_slices() {
    let mut noise = Noise::new(43);
    for place in [Place::Front, Place::Back] {
        for desc in Kernel::available().map(Kernel::desc) {
            for (m, n) in (1..=9).cycle().zip(around(desc.vector_columns).chain(around(desc.nr))) {
                let k = noise.choose(&[1, 5, 15, 31, 32, 33, 63, 65, 100, 127, 129, 300]);
                let layer = Layer::new(&mut noise, n, k);
                let a = Guarded::new(&noise.floats(m * k, 1.0), place);
                let a = MatRef::new(a.slice(), m, k).unwrap();
                let how = Dynamic::PerToken(noise.choose(&[Scheme::weights_i8(), Scheme::activations_u8()]));
                for kernel in Kernel::available() {
                    let (w, mut workspace) = (layer.packed(kernel), Workspace::new());
                    let stage = FloatStage::new();
                    for integers in [false, true] {
                        let mut y = Guarded::new(&vec![f32::NAN; m * n], place);
                        let out = MatMut::new(y.slice_mut(), m, n).unwrap();
                        if integers {
                            gemm_scaled(a, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                        } else {
                            weight_only(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                        }
                        assert!(y.slice().iter().all(|y| y.is_finite()), "{kernel} {m} x {}", layer.form());
                    }
                }
            }
        }
    }
}

#[test]
fn quantizing_stays_inside_of_its_slices() {
    let mut noise = Noise::new(41);
    let params = QParams::new(0.1, 3, CodeRange::I8).unwrap();
    for (kernel, place) in
        Kernel::available().flat_map(|kernel| [(kernel, Place::Front), (kernel, Place::Back)])
    {
        for len in 1..=130 {
            let x = Guarded::new(&noise.floats(len, 2.0), place);
            let mut codes = Guarded::new(&vec![0i8; len], place);
            quantize(kernel, x.slice(), &params, codes.slice_mut()).unwrap();
            let expected: Vec<_> = x.slice().iter().map(|&x| params.quantize(x) as i8).collect();
            assert_eq!(codes.slice(), expected, "{kernel}");
        }
    }
}

/// The guard works: it kills a process that reads past the end. The test runs itself as that
/// process.
#[test]
fn a_read_past_the_end_is_fatal() {
    const TELL_TALE: &str = "QKERNELS_TEST_READS_PAST_THE_END";
    if env::var_os(TELL_TALE).is_some() {
        let guarded = Guarded::new(&[1u8; 5], Place::Back);
        let past_the_end = guarded.start.wrapping_add(5);
        // SAFETY: this is a volatile read of an address of this process that no Rust object has. It
        // is meant to fault.
        let byte = unsafe { past_the_end.read_volatile() };
        unreachable!("read {byte}");
    }
    let status = this_program()
        .args(["--exact", "guard_page::a_read_past_the_end_is_fatal", "--quiet"])
        .env(TELL_TALE, "")
        .output()
        .unwrap()
        .status;
    let signal = status.signal();
    assert!(signal == Some(libc::SIGSEGV) || signal == Some(libc::SIGBUS), "{status}");
}
