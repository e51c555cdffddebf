//! Floats on the left, quantized by known parameters or by those of their own rows. They are
//! compared bit for bit with the unfused steps: qcore's range, scheme and codes, sums in i64, and
//! the scalar functions of the output stage.

use std::fmt::Debug;

use half::{bf16, f16};
use qcore::{AffineRange, CodeRange, Float, Kind, QParams, Range, Rounding, Scheme, ZeroPointOrder};
use qkernels::{
    Dequantize, DequantizeTo, Dynamic, DynamicError, FloatActivations, Int32, Kernel, MatMut, MatRef,
    PackedWeights, Requantize, Scales, Threads, Workspace, ZeroPoints, gemm_dynamic,
};

use crate::oracle::{CANARY, Noise, Right, TestCode, pack, product};

/// f32, f16 or bf16, on either side of a product.
trait Real: Float + Debug {
    fn bits(self) -> u32;

    fn run<F: Float>(
        x: MatRef<'_, F>,
        how: Dynamic,
        w: &PackedWeights,
        layer: &Layer<'_>,
        out: MatMut<'_, Self>,
        workspace: &mut Workspace,
    ) -> Result<(), DynamicError>;
}

macro_rules! real {
    ($real:ty) => {
        impl Real for $real {
            fn bits(self) -> u32 {
                self.to_bits().into()
            }

            fn run<F: Float>(
                x: MatRef<'_, F>,
                how: Dynamic,
                w: &PackedWeights,
                layer: &Layer<'_>,
                out: MatMut<'_, Self>,
                workspace: &mut Workspace,
            ) -> Result<(), DynamicError> {
                let mut stage = DequantizeTo::<$real>::new(layer.scales).unwrap();
                if let Some(bias) = layer.bias {
                    stage = stage.with_bias(bias);
                }
                if let Some(bias) = layer.float_bias {
                    stage = stage.with_float_bias(bias).unwrap();
                }
                if layer.relu {
                    stage = stage.with_relu();
                }
                gemm_dynamic(x, how, w, &stage, out, Threads::Serial, workspace)
            }
        }
    };
}
real!(f32);
real!(f16);
real!(bf16);

/// The steps of a layer after the sums.
#[derive(Clone, Copy, Debug)]
struct Layer<'l> {
    scales: Scales<'l>,
    bias: Option<&'l [i32]>,
    float_bias: Option<&'l [f32]>,
    relu: bool,
}

/// Every combination of the stage's options.
fn layers<'l>(scales: &'l [f32], bias: &'l [i32], float_bias: &'l [f32]) -> impl Iterator<Item = Layer<'l>> {
    (0..16).map(move |options| {
        let [per_channel, has_bias, has_float_bias, relu] = [0, 1, 2, 3].map(|bit| options >> bit & 1 == 1);
        Layer {
            scales: if per_channel { Scales::PerChannel(scales) } else { Scales::PerTensor(0.013) },
            bias: has_bias.then_some(bias),
            float_bias: has_float_bias.then_some(float_bias),
            relu,
        }
    })
}

fn row<F: Float>(x: MatRef<'_, F>, i: usize) -> Vec<f32> {
    (0..x.cols()).map(|p| x.get(i, p).unwrap().widen()).collect()
}

/// The parameters of each row.
fn params<F: Float>(x: MatRef<'_, F>, how: Dynamic) -> Result<Vec<QParams>, DynamicError> {
    let choose = |scheme: Scheme, row, values: &[f32]| {
        let range = Range::of_finite(values).unwrap_or_default();
        scheme.choose(range).map_err(|error| DynamicError::Scheme { row, group: None, error })
    };
    match how {
        Dynamic::PerTensor(scheme) => {
            let values: Vec<_> = (0..x.rows()).flat_map(|i| row(x, i)).collect();
            Ok(vec![choose(scheme, 0, &values)?; x.rows()])
        }
        Dynamic::PerToken(scheme) => (0..x.rows()).map(|i| choose(scheme, i, &row(x, i))).collect(),
        _ => unreachable!(),
    }
}

/// `sum_k (code(x[i][k]) - zero_point[i]) * (w[j][k] - w_zero_point[j])`, with the row's
/// parameters.
fn code_sums<F: Float, W: TestCode>(x: MatRef<'_, F>, params: &[QParams], w: Right<'_, W>) -> Vec<i32> {
    let mut sums = Vec::new();
    for (i, params) in params.iter().enumerate() {
        let values = row(x, i);
        for j in 0..w.view.rows() {
            let w_zero_point = match w.zero_points {
                ZeroPoints::PerTensor(zero_point) => zero_point,
                ZeroPoints::PerChannel(zero_points) => zero_points[j],
            };
            let term = |(p, &x): (usize, &f32)| {
                let w: i64 = w.view.get(j, p).unwrap().into();
                i64::from(params.quantize(x) - params.zero_point()) * (w - i64::from(w_zero_point))
            };
            sums.push(values.iter().enumerate().map(term).sum::<i64>().try_into().unwrap());
        }
    }
    sums
}

/// Every kernel restores the same values as the unfused steps, under every option of the stage.
fn check<F: Float, T: Real, W: TestCode>(noise: &mut Noise, x: MatRef<'_, F>, how: Dynamic, w: Right<'_, W>) {
    let n = w.view.rows();
    let params = params(x, how).unwrap();
    let sums = code_sums(x, &params, w);
    let (scales, bias, float_bias) = (noise.floats(n, 0.01), noise.integers(n, 3000), noise.floats(n, 2.0));
    let mut workspace = Workspace::new();
    let packed: Vec<_> = Kernel::available().map(|kernel| pack(kernel, w)).collect();
    for layer in layers(&scales, &bias, &float_bias) {
        let expected = sums.iter().enumerate().map(|(at, sum)| {
            let (i, j) = (at / n, at % n);
            let scale = match layer.scales {
                Scales::PerTensor(scale) => params[i].scale() * scale,
                Scales::PerChannel(scales) => params[i].scale() * scales[j],
            };
            let sum = sum + layer.bias.map_or(0, |bias| bias[j]);
            let y = match layer.float_bias {
                Some(bias) => qcore::dequantize_acc_bias(sum, scale, bias[j]),
                None => qcore::dequantize_acc(sum, scale),
            };
            T::narrow(if layer.relu && y < 0.0 { 0.0 } else { y }).bits()
        });
        let expected: Vec<_> = expected.collect();
        for w in &packed {
            let mut y = vec![T::narrow(f32::NAN); x.rows() * n];
            let out = MatMut::new(&mut y, x.rows(), n).unwrap();
            T::run(x, how, w, &layer, out, &mut workspace).unwrap();
            let y: Vec<_> = y.into_iter().map(T::bits).collect();
            assert_eq!(y, expected, "{}, {how:?}, {layer:?}", w.kernel());
        }
    }
}

/// Schemes of every kind, order and rounding; codes of all widths.
fn schemes() -> Vec<Scheme> {
    let [two_bits, four_bits, seven_bits] =
        [2, 4, 7].map(|bits| (CodeRange::signed(bits), CodeRange::unsigned(bits)));
    let distant = Kind::Affine { range: AffineRange::AsObservedDistantZero };
    vec![
        Scheme::weights_i8(),
        Scheme::activations_u8(),
        Scheme::activations_i8(),
        Scheme::onnx_dynamic(CodeRange::U8),
        Scheme::onnx_dynamic(four_bits.0.unwrap()),
        Scheme::pytorch_affine(seven_bits.1.unwrap()),
        Scheme::pytorch_symmetric(CodeRange::I8),
        Scheme::tutorial_affine(two_bits.0.unwrap().narrow()),
        Scheme::tflite_weights(),
        Scheme::tinytorch(),
        Scheme::rowwise_epsilon(),
        Scheme { codes: two_bits.1.unwrap(), rounding: Rounding::TiesAway, ..Scheme::activations_u8() },
        Scheme { kind: distant, ..Scheme::activations_u8() },
        Scheme { order: ZeroPointOrder::AddThenRound, ..Scheme::onnx_dynamic(CodeRange::U8) },
        Scheme { rounding: Rounding::TiesAway, ..Scheme::activations_i8() },
    ]
}

/// Rows of every kind: noise of growing magnitude, then values that are not finite, constants,
/// zeros and subnormals.
fn rows<F: Float>(noise: &mut Noise, m: usize, k: usize) -> Vec<F> {
    let row = |i: usize| {
        let mut row = noise.floats(k, 0.1 * (1 + i) as f32);
        let odd_block = |p: usize| p / 256 % 2 == 1;
        match i % 13 {
            1 => row.iter_mut().step_by(3).for_each(|x| *x = f32::NAN),
            2 => row.fill(0.0),
            3 => row.iter_mut().step_by(2).for_each(|x| *x = f32::INFINITY.copysign(*x)),
            4 => row.fill(5.0),
            5 => row.fill(f32::NAN),
            6 => row.iter_mut().for_each(|x| *x *= 1e-39),
            7 => row.iter_mut().for_each(|x| *x = -x.abs()),
            8 => row.fill(f32::NEG_INFINITY),
            9 => row.iter_mut().enumerate().for_each(|(p, x)| *x = (p % 64) as f32 / 2.0 - 16.0),
            10 => row.iter_mut().for_each(|x| *x = 3.0 + x.abs()),
            // There is no finite value among 256 that are widened together.
            11 | 12 => row.iter_mut().enumerate().for_each(|(p, x)| {
                *x = if odd_block(p) == (i % 13 == 11) { f32::NAN } else { 2.0 + x.abs() };
            }),
            _ => {}
        }
        row
    };
    (0..m).flat_map(row).map(F::narrow).collect()
}

/// `x` (m, k), row-major, laid out with these strides; the gaps hold NaN.
fn laid_out<F: Float>(x: &[F], k: usize, (row_stride, col_stride): (usize, usize)) -> Vec<F> {
    let m = x.len() / k;
    let mut laid_out = vec![F::narrow(f32::NAN); (m - 1) * row_stride + (k - 1) * col_stride + 1];
    for (at, &x) in x.iter().enumerate() {
        laid_out[at / k * row_stride + at % k * col_stride] = x;
    }
    laid_out
}

#[test]
fn every_scheme_kind_of_row_and_type() {
    fn sweep<F: Float, T: Real>(seed: u64) {
        let mut noise = Noise::new(seed);
        for scheme in schemes() {
            for how in [Dynamic::PerTensor(scheme), Dynamic::PerToken(scheme)] {
                let (m, n, k) = (13, 1 + noise.below(50), 1 + noise.below(70));
                let x = rows::<F>(&mut noise, m, k);
                let (w, unsigned) = (noise.weights::<i8>(n, k), noise.weights::<u8>(n, k));
                let zero_points = noise.zero_points::<u8>(n);
                let x = MatRef::new(&x, m, k).unwrap();
                check::<F, T, i8>(&mut noise, x, how, MatRef::new(&w, n, k).unwrap().into());
                let unsigned = MatRef::new(&unsigned, n, k).unwrap();
                let unsigned = Right::from((unsigned, ZeroPoints::PerChannel(&zero_points)));
                check::<F, T, u8>(&mut noise, x, how, unsigned);
            }
        }
    }
    sweep::<f32, f32>(90);
    sweep::<f16, f16>(91);
    sweep::<bf16, bf16>(92);
    sweep::<f32, bf16>(93);
    sweep::<bf16, f32>(94);
}

#[test]
fn rows_of_any_strides_and_lengths() {
    fn sweep<F: Float>() {
        let mut noise = Noise::new(95);
        // These are around the 256 values that are widened at a time.
        for (m, n, k) in [(1, 17, 255), (3, 5, 256), (14, 49, 257), (13, 16, 513), (2, 3, 1), (5, 50, 8000)] {
            let x = rows::<F>(&mut noise, m, k);
            let w = noise.weights::<i8>(n, k);
            let w = MatRef::new(&w, n, k).unwrap();
            for strides in [(k, 1), (k + 3, 1), (1, m), (1, m + 2), (2 * k, 2)] {
                let x = laid_out(&x, k, strides);
                let x = MatRef::with_strides(&x, m, k, strides.0, strides.1).unwrap();
                // This is the range as it is observed. A value that no row holds would change it.
                let as_observed = Scheme::tutorial_affine(CodeRange::U8);
                for how in [Dynamic::PerToken(as_observed), Dynamic::PerTensor(Scheme::activations_u8())] {
                    check::<F, f32, i8>(&mut noise, x, how, w.into());
                }
            }
        }
    }
    sweep::<f32>();
    sweep::<f16>();
    sweep::<bf16>();
}

#[test]
fn a_few_products() {
    fn sweep<F: Float, T: Real>(noise: &mut Noise) {
        for (m, n, k) in [(1, 1, 1), (1, 1, 4), (1, 2, 2), (2, 1, 2), (2, 2, 1), (4, 1, 1), (2, 2, 2)] {
            for scheme in schemes() {
                let x = rows::<F>(noise, m, k);
                let x = MatRef::new(&x, m, k).unwrap();
                let (w, zero_points) = (noise.weights::<u8>(n, k), noise.zero_points::<u8>(n));
                let w = Right::from((MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points)));
                check::<F, T, u8>(noise, x, Dynamic::PerToken(scheme), w);
                let w = noise.weights::<i8>(n, k);
                let w = MatRef::new(&w, n, k).unwrap();
                check::<F, T, i8>(noise, x, Dynamic::PerToken(scheme), w.into());
            }
        }
    }
    let mut noise = Noise::new(98);
    sweep::<f32, f32>(&mut noise);
    sweep::<bf16, f16>(&mut noise);
}

#[test]
fn rows_are_cut_into_blocks() {
    let mut noise = Noise::new(97);
    let (m, n, k) = (1100, 3, 1024);
    let (x, w) = (rows::<f32>(&mut noise, m, k), noise.weights::<u8>(n, k));
    let zero_points = noise.zero_points::<u8>(n);
    let w = Right::from((MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points)));
    let how = Dynamic::PerToken(Scheme::activations_u8());
    check::<f32, f32, u8>(&mut noise, MatRef::new(&x, m, k).unwrap(), how, w);
    // If the weights have no zero points, kernels apply the rows' terms themselves.
    let w = noise.weights::<i8>(n, k);
    let w = MatRef::new(&w, n, k).unwrap().into();
    check::<f32, f32, i8>(&mut noise, MatRef::new(&x, m, k).unwrap(), how, w);
}

#[test]
fn known_parameters_under_every_stage() {
    fn sweep<F: Float>() {
        let mut noise = Noise::new(96);
        let mut workspace = Workspace::new();
        for scheme in schemes() {
            let (m, n, k) = (13, 1 + noise.below(50), 1 + noise.below(300));
            let values = rows::<F>(&mut noise, m, k);
            let (w, zero_points) = (noise.weights::<u8>(n, k), noise.zero_points::<u8>(n));
            let w = Right::from((MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points)));
            let params = scheme.choose(Range::new(-0.7, 1.1).unwrap()).unwrap();
            for rounding in [Rounding::TiesToEven, Rounding::TiesAway] {
                let params = params.with_rounding(rounding);
                for strides in [(k, 1), (1, m), (2 * k + 1, 2)] {
                    let x = laid_out(&values, k, strides);
                    let x = MatRef::with_strides(&x, m, k, strides.0, strides.1).unwrap();
                    let expected = code_sums(x, &vec![params; m], w);
                    let codes: Vec<_> =
                        expected.iter().map(|&sum| qcore::requantize(sum, 1e-3, 9, 0, 255) as u8).collect();
                    let reals: Vec<_> =
                        expected.iter().map(|&sum| qcore::dequantize_acc(sum, 0.01)).collect();
                    let x = FloatActivations::new(x, params).unwrap();
                    for kernel in Kernel::available() {
                        let w = pack(kernel, w);
                        assert_eq!(
                            product(x, m, &w, &Int32::new(), CANARY, &mut workspace),
                            expected,
                            "{kernel}"
                        );
                        let stage = Requantize::new(Scales::PerTensor(1e-3)).unwrap().with_zero_point(9);
                        assert_eq!(product(x, m, &w, &stage, 0x5a, &mut workspace), codes, "{kernel}");
                        let stage = Dequantize::new(Scales::PerTensor(0.01)).unwrap();
                        assert_eq!(product(x, m, &w, &stage, f32::NAN, &mut workspace), reals, "{kernel}");
                    }
                }
            }
        }
    }
    sweep::<f32>();
    sweep::<f16>();
    sweep::<bf16>();
}

#[test]
fn no_rows_or_no_depth() {
    for (kernel, scheme) in
        Kernel::available().flat_map(|kernel| schemes().into_iter().map(move |s| (kernel, s)))
    {
        for how in [Dynamic::PerTensor(scheme), Dynamic::PerToken(scheme)] {
            let stage =
                Dequantize::new(Scales::PerTensor(0.5)).unwrap().with_float_bias(&[1.0, -2.0]).unwrap();
            let (mut y, workspace) = ([9.0f32; 4], &mut Workspace::new());
            let w = pack(kernel, (MatRef::new(&[0u8; 0], 2, 0).unwrap(), ZeroPoints::PerTensor(3)));
            let (x, out) = (MatRef::new(&[0f32; 0], 2, 0).unwrap(), MatMut::new(&mut y, 2, 2).unwrap());
            gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, workspace).unwrap();
            assert_eq!(y, [1.0, -2.0, 1.0, -2.0], "{kernel}, {how:?}");
            let w = pack(kernel, MatRef::new(&[1i8; 6], 2, 3).unwrap());
            let (x, out) = (MatRef::new(&[0f32; 0], 0, 3).unwrap(), MatMut::new(&mut [], 0, 2).unwrap());
            gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, workspace).unwrap();
        }
    }
}
