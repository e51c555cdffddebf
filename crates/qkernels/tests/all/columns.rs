//! A product that is computed range by range of its columns is the whole product, whatever the
//! output stage.

use std::fmt::Debug;
use std::ops::Range;

use half::{bf16, f16};
use qcore::{CodeRange, Float, Q31Multiplier, QParams};
use qkernels::{
    Activations, Dequantize, DequantizeTo, FixedPointRounding, FloatActivations, GemmError, Int32, Kernel,
    Left, MatMut, MatRef, Output, OutputStage, PackedWeights, Requantize, RequantizeFixedPoint, Residual,
    Scales, StageError, Workspace, ZeroPoints, gemm_columns,
};

use crate::oracle::{CANARY, Noise, Right, TestCode, pack, product};

/// The ranges of up to seven parts cover the columns. Their products, each under its own stage, are
/// those of the whole product.
fn check<S: OutputStage>(
    a: impl Left + Copy,
    m: usize,
    w: &PackedWeights,
    stage: impl Fn(Range<usize>) -> S,
    canary: Output<S>,
    workspace: &mut Workspace,
) where
    Output<S>: PartialEq + Debug,
{
    let n = w.n();
    let whole = product(a, m, w, &stage(0..n), canary, workspace);
    for parts in 1..=7 {
        let mut y = vec![canary; m * (n + 2)];
        let mut rest = MatMut::with_stride(&mut y, m, n, n + 2).unwrap();
        let (mut next, mut ranges) = (0, 0);
        for columns in w.column_ranges(parts) {
            assert!(columns.start == next && !columns.is_empty(), "{columns:?} of {n} in {parts}");
            let (out, other) = rest.split_at_col(columns.len()).unwrap();
            gemm_columns(a, w, columns.clone(), &stage(columns.clone()), out, workspace).unwrap();
            (rest, next, ranges) = (other, columns.end, ranges + 1);
        }
        assert_eq!((next, ranges), (n, parts.min(n.div_ceil(w.kernel().desc().nr))));
        for (row, whole) in y.chunks(n + 2).zip(whole.chunks(n)) {
            assert_eq!(row[..n], *whole, "{}, n = {n}, {parts} parts", w.kernel());
            assert_eq!(row[n..], [canary; 2], "{}, n = {n}, {parts} parts", w.kernel());
        }
    }
}

/// Every stage, with operands for each channel and for all.
fn check_stages(noise: &mut Noise, a: impl Left + Copy, m: usize, w: &PackedWeights) {
    let (n, workspace) = (w.n(), &mut Workspace::new());
    let (bias, scales, float_bias) = (noise.integers(n, 9999), noise.floats(n, 0.002), noise.floats(n, 3.0));
    check(a, m, w, |_| Int32::new().with_bias(&bias), CANARY, workspace);
    for scales in [Scales::PerTensor(0.003), Scales::PerChannel(&scales)] {
        let reals = Dequantize::new(scales).unwrap().with_bias(&bias).with_float_bias(&float_bias).unwrap();
        check(a, m, w, |_| reals, 1e30, workspace);
        let reals = DequantizeTo::<f16>::new(scales).unwrap().with_float_bias(&float_bias).unwrap();
        check(a, m, w, |_| reals, f16::MAX, workspace);
        check(a, m, w, |_| DequantizeTo::<bf16>::new(scales).unwrap().with_bias(&bias), bf16::MAX, workspace);
        let codes = Requantize::<u8>::new(scales).unwrap().with_bias(&bias).with_zero_point(77);
        check(a, m, w, |_| codes, 0x5a, workspace);
        // The residual has the columns of the output.
        let residual = noise.codes::<i8>(m * n);
        let with_residual = |columns: Range<usize>| {
            let columns = MatRef::with_strides(&residual[columns.start..], m, columns.len(), n, 1).unwrap();
            codes.with_residual(Residual::new(columns, 3, 0.7).unwrap())
        };
        check(a, m, w, with_residual, 0x5a, workspace);
    }
    let multipliers: Vec<_> =
        scales.iter().map(|scale| Q31Multiplier::from_real(scale.abs().into()).unwrap()).collect();
    for multipliers in [&multipliers[..], &multipliers[..1]] {
        let codes = RequantizeFixedPoint::<i8>::new(multipliers, FixedPointRounding::Single).with_bias(&bias);
        check(a, m, w, |_| codes, 0x5a, workspace);
    }
}

/// All stages and kinds of operands on the ranges of a product.
fn check_product(noise: &mut Noise, kernel: Kernel, (m, n, k): (usize, usize, usize)) {
    let (a, w, zero_points) =
        (noise.codes::<i8>(m * k), noise.weights::<u8>(n, k), noise.zero_points::<u8>(n));
    let w = (MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points));
    let a = Activations::new(MatRef::new(&a, m, k).unwrap(), 5);
    check_stages(noise, a, m, &pack(kernel, w));

    let w = noise.weights::<i8>(n, k);
    let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
    check_stages(noise, a, m, &w);
    let x: Vec<_> = noise.floats(m * k, 1.0).into_iter().map(<bf16 as Float>::narrow).collect();
    let x = MatRef::new(&x, m, k).unwrap();
    let x = FloatActivations::new(x, QParams::new(0.02, 99, CodeRange::U8).unwrap()).unwrap();
    check(x, m, &w, |_| Int32::new(), CANARY, &mut Workspace::new());
}

#[test]
fn ranges_of_columns_are_the_whole_product() {
    let mut noise = Noise::new(80);
    for kernel in Kernel::available() {
        let nr = kernel.desc().nr;
        for n in [1, nr, nr + 1, 3 * nr - 1, 5 * nr + 2, 9 * nr] {
            let (m, k) = (1 + noise.below(9), 1 + noise.below(40));
            check_product(&mut noise, kernel, (m, n, k));
        }
    }
}

#[test]
fn a_range_of_a_few_products() {
    let mut noise = Noise::new(82);
    for kernel in Kernel::available() {
        let nr = kernel.desc().nr;
        for (m, n, k) in [(1, nr + 1, 1), (1, nr + 1, 4), (2, 2 * nr + 1, 2), (1, nr + 2, 2), (2, nr + 2, 1)]
        {
            check_product(&mut noise, kernel, (m, n, k));
        }
    }
}

#[test]
fn a_range_where_k_and_rows_are_cut_into_blocks() {
    fn sweep<A: TestCode>(noise: &mut Noise, (m, n, k): (usize, usize, usize)) {
        let (a, w, bias) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k), noise.integers(n, 9999));
        let (a, w) = (MatRef::new(&a, m, k).unwrap(), MatRef::new(&w, n, k).unwrap());
        for kernel in Kernel::available() {
            let w = pack(kernel, Right::from(w));
            check(a, m, &w, |_| Int32::new().with_bias(&bias), CANARY, &mut Workspace::new());
        }
    }
    let mut noise = Noise::new(81);
    sweep::<u8>(&mut noise, (9, 150, 6000));
    sweep::<i8>(&mut noise, (300, 100, 1024));
}

#[test]
fn a_range_of_no_columns_writes_nothing() {
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&[3i8; 10], 5, 2).unwrap());
        let a = MatRef::new(&[1u8; 6], 3, 2).unwrap();
        for column in [0, 5] {
            let out = MatMut::new(&mut [], 3, 0).unwrap();
            gemm_columns(a, &w, column..column, &Int32::new(), out, &mut Workspace::new()).unwrap();
        }
        assert_eq!(w.column_ranges(0).count(), 0);
        let none = pack(kernel, MatRef::new(&[0i8; 0], 0, 2).unwrap());
        assert_eq!(none.column_ranges(3).count(), 0);
    }
}

/// The error of these columns of a product (3, n). The product must leave the output as it was.
fn error(w: &PackedWeights, columns: Range<usize>, stage: &Int32<'_>, cols: usize) -> GemmError {
    let a = vec![255u8; 3 * w.k()];
    let a = MatRef::new(&a, 3, w.k()).unwrap();
    let mut y = vec![CANARY; 3 * cols];
    let out = MatMut::new(&mut y, 3, cols).unwrap();
    let error = gemm_columns(a, w, columns, stage, out, &mut Workspace::new()).unwrap_err();
    assert!(y.iter().all(|&y| y == CANARY), "{} wrote in spite of {error}", w.kernel());
    error
}

#[test]
fn columns_that_are_not_whole_panels() {
    for kernel in Kernel::available() {
        let nr = kernel.desc().nr;
        let n = 3 * nr + 1;
        let w = vec![1i8; n * 2];
        let w = pack(kernel, MatRef::new(&w, n, 2).unwrap());
        let mut ranges =
            vec![(0, n + 1), (n, n + 1), (n + nr, n + nr), (2 * nr, nr), (0, usize::MAX), (n, 0)];
        if nr > 1 {
            ranges.extend([(1, nr), (0, 1), (nr - 1, n), (nr, 2 * nr + 1), (1, 1), (n - 2, n)]);
        }
        for (start, end) in ranges {
            let error = error(&w, start..end, &Int32::new(), 2);
            assert_eq!(error, GemmError::Columns { start, end, n, panel: nr }, "{kernel}");
            let message = format!("columns {start}..{end} of n = {n} are not whole panels of {nr}");
            assert_eq!(error.to_string(), message);
        }
    }
}

#[test]
fn outputs_and_operands_that_do_not_fit_the_columns() {
    for kernel in Kernel::available() {
        let nr = kernel.desc().nr;
        let n = 2 * nr;
        let w = vec![1i8; n * 2];
        let w = pack(kernel, MatRef::new(&w, n, 2).unwrap());
        for cols in [nr - 1, nr + 1, n] {
            let expected = GemmError::OutputShape { m: 3, n: nr, rows: 3, cols };
            assert_eq!(error(&w, nr..n, &Int32::new(), cols), expected, "{kernel}");
        }
        // There are entries for all channels, whichever are computed.
        let bias = vec![1; nr];
        let expected = StageError::Length { operand: "bias", n, len: nr };
        assert_eq!(error(&w, nr..n, &Int32::new().with_bias(&bias), nr), GemmError::Stage(expected));
    }
}

#[test]
fn only_the_columns_at_hand_can_overflow() {
    for kernel in Kernel::available() {
        let nr = kernel.desc().nr;
        let w = vec![1i8; 2 * nr];
        let w = pack(kernel, MatRef::new(&w, 2 * nr, 1).unwrap());
        let mut bias = vec![i32::MAX - 255; 2 * nr];
        bias[nr] += 1;
        let (a, stage) = (MatRef::new(&[255u8], 1, 1).unwrap(), Int32::new().with_bias(&bias));
        let mut y = vec![CANARY; nr];
        gemm_columns(a, &w, 0..nr, &stage, MatMut::new(&mut y, 1, nr).unwrap(), &mut Workspace::new())
            .unwrap();
        assert_eq!(y, vec![i32::MAX; nr]);
        let GemmError::Overflow(overflow) = error(&w, nr..2 * nr, &stage, nr) else { panic!("{kernel}") };
        assert_eq!((overflow.channel, overflow.bound), (nr, 1 << 31), "{kernel}");
    }
}
