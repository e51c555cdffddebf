//! Rows that are quantized once give the bits of [`gemm_dynamic`] and [`gemm_scaled`], which
//! quantize them each time.

use half::f16;
use qcore::{CodeRange, Float, Scheme};
use qkernels::{
    DequantizeTo, Dynamic, DynamicError, FloatStage, Kernel, MatMut, MatRef, PackedNibbles, PackedWeights,
    QuantizedRows, ScaledWeights, Scales, StoredFloat, Threads, WeightScales, Workspace, gemm_dynamic,
    gemm_rows, gemm_scaled, gemm_scaled_rows,
};

use crate::oracle::Noise;

fn hows() -> [Dynamic; 7] {
    let seven_bits = Scheme { codes: CodeRange::unsigned(7).unwrap(), ..Scheme::activations_u8() };
    let affine_i8 = Scheme::tutorial_affine(CodeRange::I8);
    [
        Dynamic::PerToken(Scheme::activations_u8()),
        Dynamic::PerToken(Scheme::weights_i8()),
        Dynamic::PerToken(affine_i8),
        Dynamic::PerToken(seven_bits),
        Dynamic::PerTensor(Scheme::activations_u8()),
        Dynamic::PerTensor(Scheme::weights_i8()),
        Dynamic::PerTensor(affine_i8),
    ]
}

fn check<F: Float, T: StoredFloat + Default + PartialEq + std::fmt::Debug>(to: impl Fn(f32) -> F) {
    let mut noise = Noise::new(71);
    let (mut rows, mut workspace) = (QuantizedRows::new(), Workspace::new());
    for (m, n, k) in
        [(1, 1, 1), (1, 40, 64), (3, 17, 130), (7, 64, 33), (33, 50, 257), (2, 5, 0), (0, 5, 8), (4, 0, 8)]
    {
        let x: Vec<F> = noise.floats(m * k, 3.0).into_iter().map(|v| to(v + 0.5)).collect();
        let x = MatRef::new(&x, m, k).unwrap();
        let (w, scales, bias) = (noise.codes::<i8>(n * k), noise.floats(n, 0.01), noise.floats(n, 1.0));
        for kernel in Kernel::available() {
            let w = PackedWeights::from_nk(MatRef::new(&w, n, k).unwrap(), kernel).unwrap();
            let stage = DequantizeTo::<T>::new(Scales::PerChannel(&scales)).unwrap();
            let stage = stage.with_float_bias(&bias).unwrap();
            for how in hows() {
                let (mut expected, mut got) = (vec![T::default(); m * n], vec![T::default(); m * n]);
                let out = MatMut::new(&mut expected, m, n).unwrap();
                gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                rows.quantize(x, how, kernel).unwrap();
                assert_eq!((rows.rows(), rows.cols()), (m, k));
                // As often as one likes.
                for _ in 0..2 {
                    let out = MatMut::new(&mut got, m, n).unwrap();
                    gemm_rows(&rows, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    assert_eq!(got, expected, "{kernel}, {how:?}, {m} x {n} x {k}");
                }
            }
        }
    }
}

#[test]
fn the_bits_are_those_of_one_call() {
    check::<f32, f32>(|v| v);
    check::<f16, f16>(f16::from_f32);
}

#[test]
fn the_bits_are_those_of_one_call_with_weights_in_groups_too() {
    let mut noise = Noise::new(73);
    let (mut rows, mut workspace) = (QuantizedRows::new(), Workspace::new());
    for (m, n, k) in [(1, 1, 1), (1, 40, 64), (5, 17, 130), (17, 33, 96), (2, 5, 0), (0, 5, 8), (4, 0, 8)] {
        let x = noise.floats(m * k, 3.0);
        let x = MatRef::new(&x, m, k).unwrap();
        let groups = usize::div_ceil(k, 32);
        let (scales, bias) = (noise.floats(n * groups, 0.01), noise.floats(n, 1.0));
        let (w, zero_points) = (noise.codes::<i8>(n * k), noise.codes::<i8>(n * groups));
        let nibbles: Vec<u8> = w.iter().map(|w| w.cast_unsigned() >> 4).collect();
        let low_zero_points: Vec<i8> = zero_points.iter().map(|zero_point| zero_point & 15).collect();
        let scales = WeightScales::per_group(&scales, 32);
        let stage = FloatStage::new().with_bias(&bias).unwrap();
        for kernel in Kernel::available() {
            let bytes = PackedWeights::from_nk(MatRef::new(&w, n, k).unwrap(), kernel).unwrap();
            let nibbles = PackedNibbles::from_nk(MatRef::new(&nibbles, n, k).unwrap(), kernel).unwrap();
            for w in [
                ScaledWeights::new(bytes.clone(), scales),
                ScaledWeights::new(bytes, scales.with_zero_points(&zero_points)),
                ScaledWeights::of_nibbles(nibbles, scales.with_zero_points(&low_zero_points)),
            ] {
                let w = w.unwrap();
                for how in hows() {
                    let (mut expected, mut got) = (vec![0f32; m * n], vec![1f32; m * n]);
                    let out = MatMut::new(&mut expected, m, n).unwrap();
                    gemm_scaled(x, how, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    rows.quantize(x, how, kernel).unwrap();
                    let out = MatMut::new(&mut got, m, n).unwrap();
                    gemm_scaled_rows(&rows, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    assert_eq!(got, expected, "{kernel}, {} bits, {how:?}, {m} x {n} x {k}", w.bits());
                }
            }
        }
    }
    // Of another width, or for another output.
    let (kernel, stage) = (Kernel::select().unwrap(), FloatStage::new());
    rows.quantize(MatRef::new(&[1.0f32, 2.0], 1, 2).unwrap(), Dynamic::default(), kernel).unwrap();
    for (n, k, m) in [(1, 3, 1), (1, 2, 2)] {
        let w = PackedWeights::from_nk(MatRef::new(&vec![1i8; n * k], n, k).unwrap(), kernel).unwrap();
        let w = ScaledWeights::new(w, WeightScales::per_channel(&[1.0])).unwrap();
        let mut y = vec![7.0f32; m * n];
        let out = MatMut::new(&mut y, m, n).unwrap();
        let error = gemm_scaled_rows(&rows, &w, &stage, out, Threads::Serial, &mut workspace).unwrap_err();
        assert!(matches!(error, DynamicError::Gemm(_)), "{error}");
    }
}

#[test]
fn rows_and_columns_may_lie_apart() {
    let x = Noise::new(72).floats(200, 2.0);
    let kernel = Kernel::select().unwrap();
    let w = PackedWeights::from_nk(MatRef::new(&[1i8; 40], 4, 10).unwrap(), kernel).unwrap();
    let stage = DequantizeTo::<f32>::new(Scales::PerTensor(0.5)).unwrap();
    for x in [
        MatRef::with_strides(&x, 7, 10, 20, 2).unwrap(),
        MatRef::with_strides(&x, 5, 10, 0, 3).unwrap(),
        MatRef::with_strides(&x, 6, 10, 1, 10).unwrap(),
    ] {
        let (mut rows, m) = (QuantizedRows::new(), x.rows());
        let (mut expected, mut got) = (vec![0.0; 4 * m], vec![0.0; 4 * m]);
        let out = MatMut::new(&mut expected, m, 4).unwrap();
        gemm_dynamic(x, Dynamic::default(), &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
        rows.quantize(x, Dynamic::default(), kernel).unwrap();
        let out = MatMut::new(&mut got, m, 4).unwrap();
        gemm_rows(&rows, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
        assert_eq!(got, expected);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let kernel = Kernel::select().unwrap();
    let mut rows = QuantizedRows::new();
    // More rows than memory has, of one value that is repeated.
    let x = MatRef::with_strides(&[1.0f32], 1 << 60, 1, 0, 0).unwrap();
    let error = rows.quantize(x, Dynamic::default(), kernel).unwrap_err();
    assert_eq!(error, DynamicError::Memory { rows: 1 << 60, cols: 1 });
    assert_eq!(rows.rows(), 0);
    // As many rows as one likes where there are no values.
    let x = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    rows.quantize(x, Dynamic::default(), kernel).unwrap();
    assert_eq!(rows.rows(), usize::MAX);

    rows.quantize(MatRef::new(&[1.0f32, 2.0], 1, 2).unwrap(), Dynamic::default(), kernel).unwrap();
    let stage = DequantizeTo::<f32>::new(Scales::PerTensor(1.0)).unwrap();
    let product = |w: &[i8], stage: &DequantizeTo<'_, f32>, n, k, m| {
        let w = PackedWeights::from_nk(MatRef::new(w, n, k).unwrap(), kernel).unwrap();
        let mut y = vec![7.0; m * n];
        let out = MatMut::new(&mut y, m, n).unwrap();
        gemm_rows(&rows, &w, stage, out, Threads::Serial, &mut Workspace::new()).map(|()| y)
    };
    assert!((product(&[1, 1], &stage, 1, 2, 1).unwrap()[0] - 3.0).abs() < 0.01);
    assert!(matches!(product(&[1, 1, 1], &stage, 1, 3, 1), Err(DynamicError::Gemm(_))), "another k");
    assert!(matches!(product(&[1, 1], &stage, 1, 2, 2), Err(DynamicError::Gemm(_))), "another m");
    let huge = DequantizeTo::<f32>::new(Scales::PerTensor(f32::MAX)).unwrap();
    rows.quantize(MatRef::new(&[1e30f32, 0.0], 1, 2).unwrap(), Dynamic::default(), kernel).unwrap();
    let w = PackedWeights::from_nk(MatRef::new(&[1i8, 1], 1, 2).unwrap(), kernel).unwrap();
    let mut y = [0.0];
    let out = MatMut::new(&mut y, 1, 1).unwrap();
    let error = gemm_rows(&rows, &w, &huge, out, Threads::Serial, &mut Workspace::new()).unwrap_err();
    assert!(matches!(error, DynamicError::ScaleRange { row: 0, channel: 0, .. }), "{error}");
}
