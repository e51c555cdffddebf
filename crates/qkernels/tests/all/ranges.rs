//! Finite operands whose products leave the range of f32. Products that would give NaN are refused,
//! and nothing is written.

use half::bf16;
use qcore::{CodeRange, Scheme};
use qkernels::{
    Activations, Dequantize, DequantizeTo, Dynamic, DynamicError, FloatStage, GemmError, Kernel, MatMut,
    MatRef, Requantize, Residual, ScaledWeights, Scales, StageError, Threads, WeightScales, Workspace, gemm,
    gemm_dynamic, weight_only,
};

use crate::oracle::{Noise, pack};

/// The results of a dynamic product, or its error. In case of an error nothing was written.
fn dynamic(
    (x, m): (&[f32], usize),
    how: Dynamic,
    (w, n): (&[i8], usize),
    scales: Scales<'_>,
    kernel: Kernel,
) -> Result<Vec<f32>, DynamicError> {
    let k = x.len() / m;
    let w = pack(kernel, MatRef::new(w, n, k).unwrap());
    let stage = Dequantize::new(scales).unwrap();
    let mut y = vec![9f32; m * n];
    let (x, out) = (MatRef::new(x, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
    let result = gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new());
    assert!(result.is_ok() || y == vec![9f32; m * n], "{kernel} wrote in spite of {result:?}");
    result.map(|()| y)
}

#[test]
fn scales_of_rows_and_channels_without_a_product() {
    // Per token, the second row's scale is 1e38 / 127. Per tensor, all rows have that scale.
    let (x, w) = ([1.0, -1.0, 1e38, -1e38, 0.5, 0.0], [0i8; 6]);
    let scales = [1e-3, 1e4, 1e4];
    let row_scale = 1e38f32 / 127.0;
    for kernel in Kernel::available() {
        let run = |how, scales| dynamic((&x, 3), how, (&w, 3), scales, kernel);
        let per_token = Dynamic::PerToken(Scheme::weights_i8());
        let error = run(per_token, Scales::PerChannel(&scales)).unwrap_err();
        assert_eq!(
            error,
            DynamicError::ScaleRange { row: 1, group: None, row_scale, channel: 1, channel_scale: 1e4 }
        );
        assert_eq!(
            error.to_string(),
            format!("the scale {row_scale:e} of row 1 times 1e4 of channel 1 leaves the range of f32")
        );
        let error = run(per_token, Scales::PerTensor(-1e4)).unwrap_err();
        assert_eq!(
            error,
            DynamicError::ScaleRange { row: 1, group: None, row_scale, channel: 0, channel_scale: -1e4 }
        );
        let per_tensor = Dynamic::PerTensor(Scheme::weights_i8());
        let error = run(per_tensor, Scales::PerChannel(&scales)).unwrap_err();
        assert_eq!(
            error,
            DynamicError::ScaleRange { row: 0, group: None, row_scale, channel: 1, channel_scale: 1e4 }
        );
        // The largest scales that have a finite product are multiplied.
        let most = f32::MAX / row_scale;
        let most = if (most * row_scale).is_finite() { most } else { most.next_down() };
        for how in [per_token, per_tensor] {
            assert_eq!(run(how, Scales::PerTensor(most)).unwrap(), [0.0; 9]);
            assert!(run(how, Scales::PerTensor(most.next_up().next_up())).is_err());
        }
    }
}

#[test]
fn scales_of_rows_with_zero_points_and_other_types() {
    let x = [1e38f32, -3e38].map(bf16::from_f32);
    let scheme = Scheme::activations_u8();
    for (kernel, how) in Kernel::available()
        .flat_map(|kernel| [Dynamic::PerTensor(scheme), Dynamic::PerToken(scheme)].map(|how| (kernel, how)))
    {
        let w = pack(kernel, MatRef::new(&[0i8; 100], 50, 2).unwrap());
        let stage = DequantizeTo::<bf16>::new(Scales::PerTensor(1e6)).unwrap();
        let (mut y, x) = ([bf16::ONE; 50], MatRef::new(&x, 1, 2).unwrap());
        let out = MatMut::new(&mut y, 1, 50).unwrap();
        let error = gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new());
        assert!(matches!(error, Err(DynamicError::ScaleRange { row: 0, channel: 0, .. })), "{kernel}");
        assert_eq!(y, [bf16::ONE; 50]);
    }
}

/// The results of a weight-only product of f32, or its error. In case of an error nothing was
/// written.
fn floats((x, m): (&[f32], usize), w: &ScaledWeights, stage: &FloatStage<'_>) -> Result<Vec<f32>, GemmError> {
    let (n, k) = (w.n(), w.k());
    let mut y = vec![9f32; m * n];
    let (x, out) = (MatRef::new(x, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
    let result = weight_only(x, w, stage, out, Threads::Serial, &mut Workspace::new());
    assert!(result.is_ok() || y == vec![9f32; m * n], "wrote in spite of {result:?}");
    result.map(|()| y)
}

#[test]
fn float_sums_that_leave_f32_on_their_way() {
    let (m, n, k) = (5, 50, 64);
    for kernel in Kernel::available() {
        // Channel 7 has a sum of 0 from products of 3e40. The other channels have one product
        // alone.
        let mut w = vec![0i8; n * k];
        w.iter_mut().step_by(k).for_each(|w| *w = 1);
        w[7 * k..8 * k].fill(100);
        let packed = || pack(kernel, MatRef::new(&w, n, k).unwrap());
        let mut x = vec![1.0; m * k];
        x[3 * k..4 * k].iter_mut().enumerate().for_each(|(p, x)| *x = [3e38, 3e38, -3e38, -3e38][p / 4 % 4]);
        for scales in [WeightScales::per_channel(&[1e-6; 50]), WeightScales::per_group(&[0.0; 100], 32)] {
            let w = ScaledWeights::new(packed(), scales).unwrap();
            for stage in [FloatStage::new(), FloatStage::new().with_bias(&[1.0; 50]).unwrap().with_relu()] {
                let error = floats((&x, m), &w, &stage).unwrap_err();
                assert_eq!(error, GemmError::FloatRange { row: 3, channel: 7 }, "{kernel}");
                assert_eq!(
                    error.to_string(),
                    "the sums of row 3 and channel 7 leave the range of f32 before they are complete"
                );
            }
        }
        // These are as large, but no sum leaves f32: the results are what they are.
        let w = ScaledWeights::new(packed(), WeightScales::per_channel(&[1.0; 50])).unwrap();
        let large = |x: f32| if x.abs() == 3e38 { x / 1e4 } else { x };
        let x: Vec<f32> = x.into_iter().map(large).collect();
        let y = floats((&x, m), &w, &FloatStage::new()).unwrap();
        assert!(y[3 * n + 7].abs() < 1e32 && y[3 * n] == 3e34, "{kernel}: {}", y[3 * n + 7]);
        // A sum beyond f32 is an infinity, as it always was. So is what infinities and NaN make of
        // their row.
        let y = floats((&vec![3e38; k], 1), &w, &FloatStage::new()).unwrap();
        assert_eq!((y[7], y[0]), (f32::INFINITY, 3e38), "{kernel}");
        for x in [[f32::INFINITY, f32::NEG_INFINITY].repeat(k / 2), [3e38, f32::NAN].repeat(k / 2)] {
            assert!(floats((&x, 1), &w, &FloatStage::new()).unwrap()[7].is_nan(), "{kernel}");
        }
    }
}

/// A row that is checked beforehand has the same results as one that is not.
#[test]
fn large_rows_have_the_results_of_small_ones() {
    let (m, n, k) = (7, 33, 100);
    let mut noise = Noise::new(130);
    for kernel in Kernel::available() {
        let w = noise.weights::<i8>(n, k);
        let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
        let scales = noise.floats(n, 1e-3);
        let w = ScaledWeights::new(w, WeightScales::per_channel(&scales)).unwrap();
        let x = noise.floats(m * k, 1.0);
        let power = 2f32.powi(113);
        let large: Vec<f32> = x.iter().map(|x| x * power).collect();
        let small = floats((&x, m), &w, &FloatStage::new()).unwrap();
        let expected: Vec<f32> = small.into_iter().map(|y| y * power).collect();
        assert_eq!(floats((&large, m), &w, &FloatStage::new()).unwrap(), expected, "{kernel}");
    }
}

#[test]
fn residuals_and_sums_that_both_leave_f32() {
    let (a, skip) = ([255u8, 255], [-128i8; 3]);
    let residual = |multiplier| Residual::new(MatRef::new(&skip, 1, 3).unwrap(), 0, multiplier).unwrap();
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&[1i8, 1, 127, 127, -1, 3], 3, 2).unwrap());
        let run = |multiplier, residual_multiplier| {
            let stage =
                Requantize::<u8>::new(multiplier).unwrap().with_residual(residual(residual_multiplier));
            let mut y = [9u8; 3];
            let (a, out) = (MatRef::new(&a, 1, 2).unwrap(), MatMut::new(&mut y, 1, 3).unwrap());
            let result = gemm(a, &w, &stage, out, Threads::Serial, &mut Workspace::new());
            assert!(result.is_ok() || y == [9; 3]);
            result.map(|()| y)
        };
        let multipliers = [1e30, 1e35, 1e30];
        let error = run(Scales::PerChannel(&multipliers), 3e38).unwrap_err();
        let expected = StageError::ResidualRange { channel: 1, multiplier: 1e35, residual_multiplier: 3e38 };
        assert_eq!(error, GemmError::Stage(expected), "{kernel}");
        assert_eq!(error.to_string(), expected.to_string());
        assert!(run(Scales::PerTensor(-3e38), 3e38).is_err());
        // One of the two may be infinite.
        assert_eq!(run(Scales::PerChannel(&multipliers), 1e36).unwrap(), [0, 255, 0], "{kernel}");
        assert_eq!(run(Scales::PerTensor(1e33), -3e38).unwrap(), [255; 3], "{kernel}");
    }
    let a = Activations::within(MatRef::new(&a, 1, 2).unwrap(), 0, CodeRange::U8).unwrap();
    let w = pack(Kernel::select().unwrap(), MatRef::new(&[0i8; 6], 3, 2).unwrap());
    let stage = Requantize::<i8>::new(Scales::PerTensor(3e38)).unwrap().with_bias(&[0, 0, 5]);
    let mut y = [9i8; 3];
    let out = MatMut::new(&mut y, 1, 3).unwrap();
    let error =
        gemm(a, &w, &stage.with_residual(residual(3e38)), out, Threads::Serial, &mut Workspace::new());
    assert!(matches!(error, Err(GemmError::Stage(StageError::ResidualRange { channel: 2, .. }))));
}
