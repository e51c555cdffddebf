//! Products of floats refuse bad input with errors that contain the numbers, and nothing is
//! written.

use qcore::{AffineRange, CodeRange, Kind, QParams, Range, Scheme, SchemeError};
use qkernels::{
    CodesError, Dequantize, Dynamic, DynamicError, FloatActivations, GemmError, Int32, Kernel, MatMut,
    MatRef, PackedWeights, Scales, Threads, Workspace, gemm, gemm_dynamic,
};

use crate::oracle::{CANARY, pack};

/// The error of a product on every kernel. The product must leave the output as it was.
fn error(x: MatRef<'_, f32>, how: Dynamic, (n, k): (usize, usize), rows: usize) -> DynamicError {
    let w = vec![127i8; n * k];
    let mut errors = Kernel::available().map(|kernel| {
        let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
        let mut y = vec![0.5f32; rows * n];
        let (out, stage) =
            (MatMut::new(&mut y, rows, n).unwrap(), Dequantize::new(Scales::PerTensor(1.0)).unwrap());
        let error =
            gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap_err();
        assert_eq!(y, vec![0.5; rows * n], "{kernel} wrote in spite of {error}");
        error
    });
    let error = errors.next().unwrap();
    assert!(errors.all(|other| other == error));
    error
}

#[test]
fn values_without_a_scale() {
    let x = [[1.0f32, -2.0], [0.0, 0.0], [3.0, f32::NAN]].concat();
    let x = MatRef::new(&x, 3, 2).unwrap();
    let cause = SchemeError::ZeroScale { min: 0.0, max: 0.0 };
    let got = error(x, Dynamic::PerToken(Scheme::rowwise_described()), (4, 2), 3);
    assert_eq!(got, DynamicError::Scheme { row: 1, group: None, error: cause });
    assert_eq!(got.to_string(), format!("no scale for row 1: {cause}"));
    // All values together have parameters, unless none of them is finite.
    let per_tensor = Dynamic::PerTensor(Scheme::rowwise_described());
    assert_eq!(error(x, per_tensor, (4, 3), 3), DynamicError::Gemm(GemmError::Depth { expected: 3, got: 2 }));
    let x = MatRef::new(&[f32::NAN, f32::INFINITY], 1, 2).unwrap();
    assert_eq!(error(x, per_tensor, (4, 2), 1), DynamicError::Scheme { row: 0, group: None, error: cause });
    let wide = [1.0, 1.0, -3e38, 3e38f32];
    let onnx = Scheme::onnx_dynamic(CodeRange::U8);
    let expected = onnx.choose(Range::new(-3e38, 3e38).unwrap()).unwrap_err();
    let got = error(MatRef::new(&wide, 2, 2).unwrap(), Dynamic::PerToken(onnx), (4, 2), 2);
    assert_eq!(got, DynamicError::Scheme { row: 1, group: None, error: expected });
}

#[test]
fn codes_of_every_width_are_multiplied() {
    let x = MatRef::new(&[1.0f32, 2.0], 1, 2).unwrap();
    for codes in
        (2..=8).flat_map(|bits| [CodeRange::signed(bits).unwrap(), CodeRange::unsigned(bits).unwrap()])
    {
        for codes in [codes, codes.narrow()] {
            assert!(FloatActivations::new(x, QParams::new(0.1, 0, codes).unwrap()).is_ok(), "{codes:?}");
        }
    }
    // No other code ranges exist, so this message is only ever read here.
    let error = DynamicError::Codes(CodesError { min: -1, max: 128 });
    assert_eq!(error.to_string(), "codes -1..=128 fit neither u8 nor i8");
}

#[test]
fn what_the_product_refuses() {
    let x = MatRef::new(&[1.0f32, 2.0, 3.0, 4.0], 2, 2).unwrap();
    for how in [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())] {
        assert_eq!(error(x, how, (3, 5), 2), DynamicError::Gemm(GemmError::Depth { expected: 5, got: 2 }));
        let shape = GemmError::OutputShape { m: 2, n: 3, rows: 1, cols: 3 };
        assert_eq!(error(x, how, (3, 2), 1), DynamicError::Gemm(shape));
    }
    // Symmetric i8 reaches 128 steps, and 128 * 127 * 132105 is the first product to exceed int32.
    let x = MatRef::with_strides(&[1.0f32], 1, 132_105, 0, 0).unwrap();
    let DynamicError::Gemm(GemmError::Overflow(overflow)) =
        error(x, Dynamic::PerToken(Scheme::weights_i8()), (1, 132_105), 1)
    else {
        panic!()
    };
    assert_eq!((overflow.channel, overflow.bound), (0, 128 * 127 * 132_105));
}

#[test]
fn known_zero_points_are_part_of_the_bound() {
    let (n, k) = (2, 2000);
    let x = MatRef::with_strides(&[1.0f32], 1, k, 0, 0).unwrap();
    let w = vec![127i8; n * k];
    for (zero_point, distance) in [(10_000, 10_000), (-9000, 9255)] {
        let params = QParams::with_distant_zero_point(1.0, zero_point, CodeRange::U8).unwrap();
        for kernel in Kernel::available() {
            let (w, mut y) = (pack(kernel, MatRef::new(&w, n, k).unwrap()), [CANARY; 2]);
            let (x, out) = (FloatActivations::new(x, params).unwrap(), MatMut::new(&mut y, 1, n).unwrap());
            let error = gemm(x, &w, &Int32::new(), out, Threads::Serial, &mut Workspace::new());
            let Err(GemmError::Overflow(overflow)) = error else { panic!("{kernel}: {error:?}") };
            assert_eq!((overflow.channel, overflow.bound), (0, distance * 127 * k as u128), "{kernel}");
            assert_eq!(y, [CANARY; 2]);
        }
    }
}

/// A zero point far from the codes counts in the bound on the sums, row by row.
#[test]
fn distant_zero_points_are_part_of_the_bound() {
    let scheme = Scheme {
        kind: Kind::Affine { range: AffineRange::AsObservedDistantZero },
        ..Scheme::activations_u8()
    };
    let x = [[-1.0f32, 1.0], [1000.0, 1000.5]].concat();
    let k = 20_000;
    let x: Vec<_> = x.chunks(2).flat_map(|pair| (0..k).map(|p| pair[p % 2])).collect();
    let x = MatRef::new(&x, 2, k).unwrap();
    let params = [0, 1].map(|i| {
        let row = x.row_range(i..i + 1).unwrap();
        scheme.choose(Range::of_finite(row.row_slice(0).unwrap()).unwrap()).unwrap()
    });
    let distance = params[1].zero_point().unsigned_abs() + 255;
    let DynamicError::Gemm(GemmError::Overflow(overflow)) = error(x, Dynamic::PerToken(scheme), (1, k), 2)
    else {
        panic!()
    };
    assert_eq!(overflow.bound, u128::from(distance) * 127 * k as u128);
    let mut y = [0i32];
    let first = FloatActivations::new(x.row_range(0..1).unwrap(), params[0]).unwrap();
    let w =
        PackedWeights::from_nk(MatRef::with_strides(&[1i8], 1, k, 0, 0).unwrap(), Kernel::select().unwrap());
    let out = MatMut::new(&mut y, 1, 1).unwrap();
    gemm(first, &w.unwrap(), &Int32::new(), out, Threads::Serial, &mut Workspace::new()).unwrap();
    // There are as many codes of 0 as of 255 around the zero point.
    let distances = [-1.0, 1.0].map(|x| params[0].quantize(x) - params[0].zero_point());
    assert_eq!(y, [k as i32 / 2 * distances.iter().sum::<i32>()]);
}
