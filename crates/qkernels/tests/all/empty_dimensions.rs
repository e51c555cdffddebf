//! If a dimension is 0 the other one may be anything, because no element stands against it. A
//! stride of 0 allows the same with a single element. Whatever a shape says, a call returns at once
//! and with the memory that there is: it does nothing, or it is refused.
//!
//! The tests run under limits on memory and time that a loop or a buffer of such a length would
//! exceed. Limits hold for a whole process, so each test runs itself as a process of its own.
#![cfg(unix)]

use std::env;
use std::sync::LazyLock;

use half::f16;
use qcore::{CodeRange, Q31Multiplier, QParams, Scheme};
use qkernels::{
    Activations, Dequantize, DequantizeTo, Dynamic, DynamicError, FixedPointRounding, FloatActivations,
    FloatStage, GemmError, Int32, Kernel, Left, MatMut, MatRef, OutputStage, PackError, PackedNibbles,
    PackedWeights, Requantize, RequantizeFixedPoint, Residual, ScaleError, ScaledWeights, Scales, StageError,
    Threads, WeightScales, Weights, Workspace, ZeroPoints, gemm, gemm_columns, gemm_dynamic, gemm_scaled,
    reference, weight_only,
};
use rlimit::Resource;

use crate::oracle::{TestCode, this_program};

/// The values of a dimension beside one of 0.
const LENGTHS: [usize; 6] = [0, 3, 1 << 33, 1 << 50, 1 << 62, usize::MAX];

/// A dimension longer than any slice. Only a repeated element can have it.
const LONG: usize = 1 << 33;

/// Whether this process is limited to a few GiB and five minutes of one CPU. An emulated build of
/// these tests needs no more either. Where it is not limited, `test` passes in one that is.
fn limited(test: &str) -> bool {
    const TELL_TALE: &str = "QKERNELS_TEST_IS_LIMITED";
    if env::var_os(TELL_TALE).is_some() {
        for (resource, most) in [(Resource::AS, 4 << 30), (Resource::CPU, 300)] {
            let (_, hard) = resource.get().unwrap();
            resource.set(most.min(hard), hard).unwrap();
        }
        return true;
    }
    let test = format!("empty_dimensions::{test}");
    let output = this_program().args(["--exact", &test]).env(TELL_TALE, "").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    false
}

/// All views (rows, cols) without an element, or with `element` everywhere.
fn views_of<T: Copy>(element: &[T; 1], rows: usize, cols: usize) -> Vec<MatRef<'_, T>> {
    let long = usize::MAX;
    let strides = [(cols, 1), (1, rows), (0, 0), (long, 1), (1, long), (long, long), (0, 1), (1, 0)];
    let view = |(row_stride, col_stride)| MatRef::with_strides(element, rows, cols, row_stride, col_stride);
    strides.into_iter().filter_map(|strides| view(strides).ok()).collect()
}

/// An output (rows, cols), one of which is 0.
fn nothing<T>(rows: usize, cols: usize) -> MatMut<'static, T> {
    MatMut::with_stride(&mut [], rows, cols, cols).unwrap()
}

/// (m, n, k) of products that write nothing.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let sides = LENGTHS.into_iter().flat_map(|length| [(length, 0), (0, length)]);
    sides.flat_map(|(m, n)| LENGTHS.map(|k| (m, n, k)))
}

#[test]
fn views() {
    if !limited("views") {
        return;
    }
    for (rows, cols) in LENGTHS.into_iter().flat_map(|length| [(length, 0), (0, length)]) {
        for view in views_of(&[7u8], rows, cols) {
            assert_eq!((view.rows(), view.cols()), (rows, cols));
            assert_eq!((view.transposed().rows(), view.transposed().cols()), (cols, rows));
            assert_eq!(view.get(0, 0), None);
            for end in [0, 1, 3, rows.min(5), rows / 2, rows] {
                for start in [0, end / 2, end] {
                    let part = view.row_range(start..end).map(|part| (part.rows(), part.cols()));
                    assert_eq!(part, (end <= rows).then_some((end - start, cols)));
                }
                assert_eq!(
                    view.row_slice(end).is_some(),
                    end < rows && (view.col_stride() == 1 || cols <= 1)
                );
            }
        }
        for stride in [cols, usize::MAX] {
            let whole = || MatMut::<u8>::with_stride(&mut [], rows, cols, stride).unwrap();
            for row in [0, 1, rows / 2, rows] {
                assert_eq!(whole().row_mut(row).map(|row| row.len()), (row < rows).then_some(0));
                let split = whole().split_at_row(row).map(|(above, below)| (above.rows(), below.rows()));
                assert_eq!(split, (row <= rows).then(|| (row, rows - row)));
                assert_eq!(whole().block(0..row, 0..cols).is_some(), row <= rows);
            }
            for col in [0, 1, cols / 2, cols] {
                let split = whole().split_at_col(col).map(|(left, right)| (left.cols(), right.cols()));
                assert_eq!(split, (col <= cols).then(|| (col, cols - col)));
            }
            assert!(whole().block(rows / 2..rows, cols / 2..cols).is_some());
        }
    }
}

/// Looks at the weights of `packed`, which has none, by every function that asks for them.
fn look_at(packed: &PackedWeights, n: usize, k: usize) {
    assert_eq!((packed.n(), packed.k(), packed.unpack()), (n, k, vec![]));
    assert_eq!((packed.channel_sums().len(), packed.channel_abs_sums().len()), (n, n));
    assert_eq!((packed.largest_abs_sum(), packed.proven_columns()), (0, 0));
    assert_eq!(packed.column_kernels().count(), usize::from(n > 0));
    for parts in [0, 1, 3, usize::MAX] {
        let ranges: Vec<_> = packed.column_ranges(parts).take(4).collect();
        assert!(ranges.iter().all(|range| !range.is_empty() && range.end <= n), "{ranges:?}");
        assert_eq!(ranges.is_empty(), n == 0 || parts == 0);
    }
    for bias in [None, Some(&[][..]), Some(&[i32::MAX]), Some(&[i32::MIN, 3])] {
        let fits = n == 0 || bias.is_none_or(|bias| !bias.contains(&i32::MIN));
        assert_eq!(packed.check_accumulators(u32::MAX, bias).is_ok(), fits);
    }
    assert!(packed.bytes() <= 8 * n + 64 && format!("{packed:?}").contains("PackedWeights"));
}

#[test]
fn weights() {
    fn sweep<W: TestCode>() {
        let codes = CodeRange::unsigned(7).unwrap();
        for (kernel, (n, k)) in Kernel::available().flat_map(|kernel| {
            LENGTHS.into_iter().flat_map(move |length| [(kernel, (length, 0)), (kernel, (0, length))])
        }) {
            for view in views_of(&[W::from_bits(1)], n, k) {
                for zero_points in [
                    ZeroPoints::PerTensor(0),
                    ZeroPoints::PerTensor(100),
                    ZeroPoints::PerChannel(&[]),
                    ZeroPoints::PerChannel(&[1, 2, 3]),
                ] {
                    let w = Weights::new(view, zero_points).for_activations(codes);
                    let kn = Weights::new(view.transposed(), zero_points);
                    for packed in [PackedWeights::from_nk(w, kernel), PackedWeights::from_kn(kn, kernel)] {
                        match packed {
                            Ok(packed) => look_at(&packed, n, k),
                            Err(PackError::ZeroPoints { .. }) => {
                                assert!(
                                    !matches!(zero_points, ZeroPoints::PerChannel(all) if all.len() == n)
                                );
                            }
                            // There is no place for the sums of so many channels, but there is one
                            // for three.
                            Err(error) => {
                                let (large, none) =
                                    (PackError::TooLarge { n, k }, PackError::OutOfMemory { n, k });
                                assert!(n >= LONG && [large, none].contains(&error), "{error}");
                            }
                        }
                    }
                }
            }
        }
    }
    if !limited("weights") {
        return;
    }
    sweep::<i8>();
    sweep::<u8>();
}

/// There must be memory for as many weights as a stride of 0 says there are, before any is looked
/// at.
#[test]
fn weights_that_one_element_stands_for() {
    if !limited("weights_that_one_element_stands_for") {
        return;
    }
    for (kernel, weight) in Kernel::available().flat_map(|kernel| [0i8, 127].map(|weight| (kernel, weight))) {
        // This is more than any process has addresses for, with the limit or without it.
        for (n, k) in [(1 << 46, 3), (3, 1 << 46), (1 << 25, 1 << 25), (1 << 50, 1), (1, 1 << 50)] {
            let w = [weight];
            let w = MatRef::with_strides(&w, n, k, 0, 0).unwrap();
            let none = PackError::OutOfMemory { n, k };
            assert_eq!(PackedWeights::from_nk(w, kernel).unwrap_err(), none);
            assert_eq!(PackedWeights::from_kn(w.transposed(), kernel).unwrap_err(), none);
            assert_eq!(none.to_string(), format!("no memory for packed weights of n = {n} by k = {k}"));
        }
    }
}

#[test]
fn scales() {
    if !limited("scales") {
        return;
    }
    let operands =
        |n: usize, groups: usize, len: usize, operand| ScaleError::Length { operand, n, groups, len };
    for (n, k) in LENGTHS.into_iter().flat_map(|length| [(length, 0), (0, length)]) {
        let packed = || {
            let view = MatRef::with_strides(&[0i8; 0], n, k, 0, 0).unwrap();
            PackedWeights::from_nk(view, Kernel::select().unwrap())
        };
        let Ok(weights) = packed() else { continue };
        let ones = [1.0; 3];
        let w = ScaledWeights::new(weights, WeightScales::per_channel(&ones[..n])).unwrap();
        assert_eq!((w.groups(), w.scales().len(), w.dequantize().len()), (1, n, 0));
        for group_len in [16, 32, 1 << 62, usize::MAX] {
            let groups = k.div_ceil(group_len);
            let scales = |scales, zero_points| {
                let scales = WeightScales::per_group(scales, group_len).with_zero_points(zero_points);
                ScaledWeights::new(packed().unwrap(), scales)
            };
            let w = scales(&[], &[]).unwrap();
            assert_eq!((w.groups(), w.scales(), w.dequantize()), (groups, vec![], vec![]));
            assert!(w.bytes() < 1 << 10);
            let error = scales(&ones, &[]).unwrap_err();
            assert_eq!(error, operands(n, groups, 3, "scales"));
            let error = scales(&[], &[0]).unwrap_err();
            assert_eq!(error, operands(n, groups, 1, "zero points"));
        }
    }
}

/// Weights (n, k), one of which is 0; `None` if there is no memory for what is kept of them.
fn no_weights(kernel: Kernel, n: usize, k: usize) -> Option<PackedWeights> {
    PackedWeights::from_nk(MatRef::new(&[0i8; 0], n, k).unwrap(), kernel).ok()
}

/// A product with weights (n, k) whose output is empty if it is (m, n).
fn check<S: OutputStage>(a: impl Left + Copy, (m, n): (usize, usize), w: &PackedWeights, stage: &S) {
    let mut workspace = Workspace::new();
    static POOL: LazyLock<rayon::ThreadPool> =
        LazyLock::new(|| rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    for threads in [Threads::Serial, Threads::Pool(&POOL)] {
        gemm(a, w, stage, nothing(m, n), threads, &mut workspace).unwrap();
        for (rows, cols) in [(m ^ 1, 0), (0, n ^ 1), (usize::MAX - m, 0), (0, usize::MAX - n)] {
            let shape = GemmError::OutputShape { m, n, rows, cols };
            let error = gemm(a, w, stage, nothing(rows, cols), threads, &mut workspace);
            assert_eq!(error, if (rows, cols) == (m, n) { Ok(()) } else { Err(shape) });
        }
    }
    gemm_columns(a, w, 0..n, stage, nothing(m, n), &mut workspace).unwrap();
    for columns in [0..0, n..n] {
        let result = gemm_columns(a, w, columns, stage, nothing(m, 0), &mut workspace);
        assert!(result.is_ok() || matches!(result, Err(GemmError::Stage(StageError::ResidualShape { .. }))));
    }
    let error = gemm_columns(a, w, 0..usize::MAX, stage, nothing(m, n), &mut workspace);
    assert_eq!(error.is_ok(), n == usize::MAX);
}

#[test]
fn integer_products_that_write_nothing() {
    if !limited("integer_products_that_write_nothing") {
        return;
    }
    let (multipliers, params) = ([Q31Multiplier::default()], QParams::new(0.5, 3, CodeRange::U8).unwrap());
    for (m, n, k) in shapes().filter(|&(_, n, k)| n == 0 || k == 0) {
        for kernel in Kernel::available() {
            let Some(w) = no_weights(kernel, n, k) else { continue };
            for view in views_of(&[1u8], m, k) {
                check(view, (m, n), &w, &Int32::new());
                let within = Activations::within(view, 3, CodeRange::unsigned(2).unwrap()).unwrap();
                check(within, (m, n), &w, &Dequantize::new(Scales::PerTensor(0.5)).unwrap());
                let stage = Requantize::<i8>::new(Scales::PerTensor(0.5)).unwrap();
                check(Activations::new(view, -1), (m, n), &w, &stage);
                let residual = Residual::new(MatRef::new(&[0u8; 0], m, n).unwrap(), 0, 1.0).unwrap();
                check(view, (m, n), &w, &stage.with_residual(residual));
            }
            let stage = RequantizeFixedPoint::<u8>::new(&multipliers, FixedPointRounding::Single);
            for view in views_of(&[f16::ONE], m, k) {
                check(FloatActivations::new(view, params).unwrap(), (m, n), &w, &stage);
            }
        }
    }
}

/// One element is looked at once, however often a view repeats it, and is named where it comes
/// first.
#[test]
fn codes_that_one_element_stands_for() {
    if !limited("codes_that_one_element_stands_for") {
        return;
    }
    let bits = CodeRange::unsigned(7).unwrap();
    for (rows, cols) in [(LONG, 3), (3, LONG), (1 << 50, 1 << 12), (1, 1 << 62)] {
        let view = |code| MatRef::with_strides(code, rows, cols, 0, 0).unwrap();
        assert!(Activations::within(view(&[127u8]), 0, bits).is_ok());
        let error = Activations::within(view(&[128u8]), 0, bits).unwrap_err();
        assert_eq!((error.row, error.col, error.code), (0, 0, 128));
    }
    let rows = [1u8, 2, 130];
    let repeated = MatRef::with_strides(&rows, 1 << 60, 3, 0, 1).unwrap();
    let error = Activations::within(repeated, 0, bits).unwrap_err();
    assert_eq!((error.row, error.col), (0, 2));
    let error = Activations::within(repeated.transposed(), 0, bits).unwrap_err();
    assert_eq!((error.row, error.col), (2, 0));
}

#[test]
fn dynamic_products_that_write_nothing() {
    if !limited("dynamic_products_that_write_nothing") {
        return;
    }
    let (mut workspace, scheme) = (Workspace::new(), Scheme::activations_u8());
    // A scheme that has no parameters for values of 0 is not asked for any.
    let schemes = [scheme, Scheme::rowwise_described()];
    let stage = DequantizeTo::<f16>::new(Scales::PerTensor(0.5)).unwrap();
    for (m, n, k) in shapes().filter(|&(_, n, k)| n == 0 || k == 0) {
        let Some(w) = no_weights(Kernel::select().unwrap(), n, k) else { continue };
        for (view, scheme) in
            views_of(&[0f32], m, k).into_iter().flat_map(|view| schemes.map(|scheme| (view, scheme)))
        {
            for how in [Dynamic::PerTensor(scheme), Dynamic::PerToken(scheme)] {
                let mut run = |out| gemm_dynamic(view, how, &w, &stage, out, Threads::Serial, &mut workspace);
                run(nothing(m, n)).unwrap();
                let (rows, cols) = (m ^ 1, 0);
                let shape = GemmError::OutputShape { m, n, rows, cols };
                if n > 0 || m ^ 1 != m {
                    assert_eq!(run(nothing(rows, cols)), Err(DynamicError::Gemm(shape)));
                }
            }
        }
    }
}

/// Shapes are compared before scales are chosen for as many rows as a view says there are.
#[test]
fn dynamic_products_of_another_shape() {
    if !limited("dynamic_products_of_another_shape") {
        return;
    }
    let w = PackedWeights::from_nk(MatRef::new(&[1i8; 6], 2, 3).unwrap(), Kernel::select().unwrap()).unwrap();
    let stage = Dequantize::new(Scales::PerTensor(0.5)).unwrap();
    for how in [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())] {
        let run = |x: MatRef<'_, f32>| {
            let mut y = [9.0f32; 2];
            let out = MatMut::new(&mut y, 1, 2).unwrap();
            let error = gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new());
            assert_eq!(y, [9.0; 2]);
            error.unwrap_err()
        };
        for m in [LONG, 1 << 50, usize::MAX] {
            let x = MatRef::with_strides(&[1.0f32; 3], m, 3, 0, 1).unwrap();
            let shape = GemmError::OutputShape { m, n: 2, rows: 1, cols: 2 };
            assert_eq!(run(x), DynamicError::Gemm(shape));
            let x = MatRef::new(&[0f32; 0], m, 0).unwrap();
            assert_eq!(run(x), DynamicError::Gemm(GemmError::Depth { expected: 3, got: 0 }));
        }
    }
}

#[test]
fn weight_only_products_that_write_nothing() {
    if !limited("weight_only_products_that_write_nothing") {
        return;
    }
    let mut workspace = Workspace::new();
    for (m, n, k) in shapes().filter(|&(_, n, k)| n == 0 || k == 0) {
        let Some(w) = no_weights(Kernel::select().unwrap(), n, k) else { continue };
        let scales = WeightScales::per_group(&[], 16);
        let bytes = ScaledWeights::new(w, scales).unwrap();
        let codes = MatRef::new(&[0u8; 0], n, k).unwrap();
        let nibbles = PackedNibbles::from_nk(codes, Kernel::select().unwrap()).unwrap();
        let nibbles = ScaledWeights::of_nibbles(nibbles, scales).unwrap();
        for w in [&bytes, &nibbles] {
            assert_eq!((w.n(), w.k(), w.unpack().len(), w.dequantize().len()), (n, k, 0, 0));
            for view in views_of(&[f32::MAX], m, k) {
                let mut run = |out: MatMut<'_, f32>| {
                    let stage = FloatStage::new();
                    weight_only(view, w, &stage, out, Threads::Serial, &mut workspace)
                };
                run(nothing(m, n)).unwrap();
                let (rows, cols) = (m ^ 1, 0);
                let shape = GemmError::OutputShape { m, n, rows, cols };
                assert_eq!(run(nothing(rows, cols)), Err(shape));
                let mut run = |out: MatMut<'_, f32>| {
                    let (how, stage) = (Dynamic::default(), FloatStage::new());
                    gemm_scaled(view, how, w, &stage, out, Threads::Serial, &mut workspace)
                };
                run(nothing(m, n)).unwrap();
                assert_eq!(run(nothing(rows, cols)), Err(DynamicError::Gemm(shape)));
            }
        }
    }
}

/// Results without depth are those of a sum of 0, and rows without elements take no memory.
#[test]
fn products_without_depth() {
    if !limited("products_without_depth") {
        return;
    }
    let (m, n, mut workspace) = (1 << 23, 3, Workspace::new());
    let mut y = vec![9u8; m * n];
    for kernel in Kernel::available() {
        let w = no_weights(kernel, n, 0).unwrap();
        let a = MatRef::with_strides(&[0i8; 0], m, 0, usize::MAX, 1).unwrap();
        let stage =
            Requantize::new(Scales::PerTensor(0.5)).unwrap().with_bias(&[3, -4, 5]).with_zero_point(7);
        let out = MatMut::new(&mut y, m, n).unwrap();
        gemm(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
        assert!(y.chunks(n).all(|row| row == [9, 5, 9]), "{kernel}");
        let bias = [0.5, -1.0, 2.0];
        let stage = Dequantize::new(Scales::PerTensor(0.5)).unwrap().with_float_bias(&bias).unwrap();
        let x = MatRef::new(&[0f32; 0], 5, 0).unwrap();
        for how in [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())] {
            let mut y = [9f32; 15];
            let out = MatMut::new(&mut y, 5, n).unwrap();
            gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
            assert!(y.chunks(n).all(|row| row == bias), "{kernel}");
        }
        for scales in [WeightScales::per_channel(&[1.0; 3]), WeightScales::per_group(&[], 16)] {
            let w = ScaledWeights::new(w.clone(), scales).unwrap();
            let stage = FloatStage::new().with_bias(&bias).unwrap().with_relu();
            let mut y = [9f32; 15];
            let out = MatMut::new(&mut y, 5, n).unwrap();
            weight_only(x, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
            assert!(y.chunks(n).all(|row| row == [0.5, 0.0, 2.0]), "{kernel}");
        }
    }
}

#[test]
fn the_definition() {
    if !limited("the_definition") {
        return;
    }
    for (m, n, k) in shapes() {
        for (a, w) in views_of(&[1u8], m, k).into_iter().zip(views_of(&[1i8], n, k)) {
            assert_eq!(reference::product(a, 3, w), [0i64; 0]);
        }
    }
}

#[test]
fn slices() {
    let (kernel, params) = (Kernel::select().unwrap(), QParams::new(0.5, 3, CodeRange::U8).unwrap());
    qkernels::quantize::<u8>(kernel, &[], &params, &mut []).unwrap();
    qkernels::dequantize::<u8>(kernel, &[], &params, &mut []).unwrap();
    assert!(qkernels::quantize::<u8>(kernel, &[], &params, &mut [0]).is_err());
    assert!(qkernels::dequantize::<u8>(kernel, &[0], &params, &mut []).is_err());
    assert!(qkernels::range(kernel, &[]).is_err());
    let rows = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    assert_eq!(qkernels::first_non_finite(kernel, rows), None);
}

#[cfg(feature = "float")]
#[test]
fn float_products() {
    use qkernels::float::matmul;
    if !limited("float_products") {
        return;
    }
    for (m, n, k) in shapes() {
        for (a, w) in views_of(&[1f32], m, k).into_iter().zip(views_of(&[1f32], n, k)) {
            matmul(a, w, nothing(m, n), Threads::Serial).unwrap();
            assert!(matmul(a, w, nothing(m ^ 1, 0), Threads::Serial).is_err());
            assert!(
                k == 0 || matmul(a, views_of(&[1f32], n, k - 1)[0], nothing(m, n), Threads::Serial).is_err()
            );
        }
    }
    let mut y = [9f32; 6];
    for k in [0, 1 << 50] {
        let (a, w) = (MatRef::with_strides(&[0.5f32], 2, k, 0, 0), MatRef::with_strides(&[2f32], 3, k, 0, 0));
        matmul(a.unwrap(), w.unwrap(), MatMut::new(&mut y, 2, 3).unwrap(), Threads::Serial).unwrap();
        assert_eq!(y, [k as f32; 6]);
    }
}
