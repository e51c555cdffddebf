//! Activation functions in every stage, on every kernel, against qcore's definitions, bit for bit.

use half::{bf16, f16};
use qcore::{ActivationFunction, Float, OnCodes, Q31Multiplier};
use qkernels::{
    Dequantize, DequantizeTo, FixedPointRounding, FloatStage, Kernel, MatMut, MatRef, PackedWeights,
    Requantize, RequantizeFixedPoint, Residual, ScaledWeights, Scales, StageError, StoredFloat, Threads,
    WeightScales, Workspace, weight_only,
};

use crate::oracle::sums::Sums;
use crate::oracle::{Noise, TestCode};

const FUNCTIONS: [ActivationFunction; 9] = [
    ActivationFunction::Identity,
    ActivationFunction::Relu,
    ActivationFunction::RELU6,
    ActivationFunction::Clamp { min: -1.5, max: f32::INFINITY },
    ActivationFunction::LeakyRelu { slope: 0.1 },
    ActivationFunction::Gelu,
    ActivationFunction::GeluTanh,
    ActivationFunction::Silu,
    ActivationFunction::HardSwish,
];

/// The scale of outputs that become codes.
const OUTPUT_SCALE: f32 = 0.05;

fn check_real<A: TestCode, W: TestCode, T: StoredFloat + core::fmt::Debug>(
    sums: &mut Sums<A, W>,
    scales: &[f32],
    float_bias: &[f32],
) {
    let bias = sums.bias.clone();
    for function in FUNCTIONS {
        for has_float_bias in [false, true] {
            let mut stage = DequantizeTo::<T>::new(Scales::PerChannel(scales)).unwrap().with_bias(&bias);
            if has_float_bias {
                stage = stage.with_float_bias(float_bias).unwrap();
            }
            let stage = stage.with_activation(function).unwrap();
            let unfused = |(channel, sum): (usize, i32)| {
                let y = match has_float_bias {
                    true => qcore::dequantize_acc_bias(sum, scales[channel], float_bias[channel]),
                    false => qcore::dequantize_acc(sum, scales[channel]),
                };
                T::narrow(function.apply(y)).widen().to_bits()
            };
            let expected: Vec<_> = sums.expected(true).map(unfused).collect();
            for (kernel, y) in sums.run(&stage, T::narrow(f32::NAN)) {
                let y: Vec<_> = y.into_iter().map(|y| y.widen().to_bits()).collect();
                assert_eq!(y, expected, "{kernel}, {function}, float bias {has_float_bias}");
            }
        }
    }
}

fn check_codes<A: TestCode, W: TestCode, C: TestCode>(
    sums: &mut Sums<A, W>,
    scales: &[f32],
    noise: &mut Noise,
) {
    let (min, max) = (C::RANGE.min(), C::RANGE.max());
    let (m, n, _) = sums.shape;
    let (bias, residual) = (sums.bias.clone(), noise.codes::<C>(m * n));
    let view = MatRef::new(&residual, m, n).unwrap();
    let distance = |at: usize| residual[at].widen() - 3;
    let multipliers: Vec<_> = scales.iter().map(|scale| scale / OUTPUT_SCALE).collect();
    for (function, zero_point) in
        FUNCTIONS.into_iter().flat_map(|function| [0, min, min + 100].map(|zero| (function, zero)))
    {
        for has_residual in [false, true] {
            // Straight to codes, for all functions that allow it.
            let stage = Requantize::<C>::new(Scales::PerChannel(&multipliers)).unwrap();
            let stage = stage.with_bias(&bias).with_zero_point(C::from_clamped(zero_point));
            let step = 0.75;
            let stage = match has_residual {
                true => stage.with_residual(Residual::new(view, 3, step).unwrap()),
                false => stage,
            };
            let bounds = function.as_code_bounds(OUTPUT_SCALE, zero_point, min, max);
            match stage.with_activation(function, OUTPUT_SCALE) {
                Ok(stage) => {
                    let (low, high) = bounds.unwrap_or((min, max));
                    let unfused = |(at, (channel, sum)): (usize, (usize, i32))| {
                        let v = match has_residual {
                            true => {
                                qcore::dequantize_acc_residual(sum, multipliers[channel], distance(at), step)
                            }
                            false => qcore::dequantize_acc(sum, multipliers[channel]),
                        };
                        let v = function.after_multiplier(v);
                        C::from_clamped(qcore::requantize_scaled(v, zero_point, low, high))
                    };
                    let expected: Vec<_> = sums.expected(true).enumerate().map(unfused).collect();
                    for (kernel, y) in sums.run(&stage, C::from_bits(0x5a)) {
                        assert_eq!(y, expected, "{kernel}, {function}, residual {has_residual}");
                    }
                }
                Err(error) => {
                    assert_eq!(function.on_codes(), OnCodes::RealValues);
                    assert!(matches!(error, StageError::NeedsRealValues { .. }), "{error}");
                }
            }

            // By way of real values, for all functions.
            let stage = Requantize::<C>::real(Scales::PerChannel(scales), function, OUTPUT_SCALE).unwrap();
            let stage = stage.with_bias(&bias).with_zero_point(C::from_clamped(zero_point));
            let step = step * OUTPUT_SCALE;
            let stage = match has_residual {
                true => stage.with_residual(Residual::new(view, 3, step).unwrap()),
                false => stage,
            };
            let unfused = |(at, (channel, sum)): (usize, (usize, i32))| {
                C::from_clamped(match has_residual {
                    true => {
                        let y = qcore::dequantize_acc_residual(sum, scales[channel], distance(at), step);
                        qcore::requantize_real(function.apply(y), OUTPUT_SCALE, zero_point, min, max)
                    }
                    false => qcore::requantize_activation(
                        sum,
                        scales[channel],
                        function,
                        OUTPUT_SCALE,
                        zero_point,
                        min,
                        max,
                    ),
                })
            };
            let expected: Vec<_> = sums.expected(true).enumerate().map(unfused).collect();
            for (kernel, y) in sums.run(&stage, C::from_bits(0x5a)) {
                assert_eq!(y, expected, "{kernel}, real {function}, residual {has_residual}");
            }
        }
    }
}

#[test]
fn every_function_in_every_stage_at_the_edges_of_tile_and_vector() {
    fn check<A: TestCode, W: TestCode>(zero_points: bool) {
        Sums::<A, W>::at_the_edges(41, zero_points, |sums, noise| {
            // Real values from -10 to 10 or so, where the curves bend.
            let scales = noise.floats(sums.shape.1, 4e-5);
            let float_bias = noise.floats(sums.shape.1, 3.0);
            check_real::<_, _, f32>(sums, &scales, &float_bias);
            check_real::<_, _, f16>(sums, &scales, &float_bias);
            check_real::<_, _, bf16>(sums, &scales, &float_bias);
            check_codes::<_, _, i8>(sums, &scales, noise);
            check_codes::<_, _, u8>(sums, &scales, noise);
        });
    }
    check::<u8, i8>(false);
    check::<i8, u8>(true);
}

#[test]
fn functions_of_a_few_products_and_where_k_is_cut_into_blocks() {
    let mut noise = Noise::new(42);
    for shape in [(1, 1, 1), (1, 2, 2), (2, 1, 2), (10, 50, 40_000)] {
        let mut sums = Sums::<u8, i8>::random(&mut noise, shape, false);
        let scales = noise.floats(shape.1, 1e-5);
        check_real::<_, _, f32>(&mut sums, &scales, &noise.floats(shape.1, 3.0));
        check_codes::<_, _, u8>(&mut sums, &scales, &mut noise);
    }
}

#[test]
fn sums_up_to_the_ends_of_int32() {
    let mut noise = Noise::new(43);
    let mut sums = vec![0, 1, -1, i32::MAX, -i32::MAX];
    sums.extend((0..31).flat_map(|bit| [1 << bit, -(1 << bit)]));
    for scale in [1e-30, 1e-9, 1.0 / 3.0, 1.0, 1e30] {
        let scales = vec![scale; sums.len()];
        let mut sums = Sums::<i8, i8>::given(&sums, 1);
        check_real::<_, _, f32>(&mut sums, &scales, &noise.floats(scales.len(), 3.0));
        check_codes::<_, _, i8>(&mut sums, &scales, &mut noise);
    }
}

#[test]
fn fixed_point_knows_bounds_alone() {
    let multipliers = [Q31Multiplier::from_real(0.02).unwrap()];
    let mut noise = Noise::new(44);
    let mut sums = Sums::<u8, i8>::random(&mut noise, (3, 20, 40), false);
    for (function, rounding) in FUNCTIONS
        .into_iter()
        .flat_map(|function| [FixedPointRounding::Single, FixedPointRounding::Double].map(|r| (function, r)))
    {
        let stage = RequantizeFixedPoint::<u8>::new(&multipliers, rounding).with_zero_point(40);
        let stage = match stage.with_activation(function, OUTPUT_SCALE) {
            Ok(stage) => stage,
            Err(error) => {
                assert_ne!(function.on_codes(), OnCodes::Bounds);
                let real = function.on_codes() == OnCodes::RealValues;
                let instead = if real { "Requantize::real" } else { "Requantize" };
                let message = format!(
                    "RequantizeFixedPoint cannot apply {function}, it has no real values: use {instead}"
                );
                assert_eq!(error.to_string(), message);
                continue;
            }
        };
        let requantize = match rounding {
            FixedPointRounding::Single => qcore::requantize_single_rounding,
            _ => qcore::requantize_double_rounding,
        };
        let (low, high) = function.as_code_bounds(OUTPUT_SCALE, 40, 0, 255).unwrap();
        let unfused = |(_, sum): (usize, i32)| requantize(sum, multipliers[0], 40, low, high) as u8;
        let expected: Vec<_> = sums.expected(false).map(unfused).collect();
        for (kernel, y) in sums.run(&stage, 7) {
            assert_eq!(y, expected, "{kernel}, {function}");
        }
    }
}

/// Kernels may sum in different orders, so the function is applied to each kernel's own sums.
#[test]
fn weight_only_products() {
    fn check<T: Float + Default + PartialEq>(noise: &mut Noise) {
        let (m, n, k) = (3, 37, 21);
        let (x, w) = (noise.floats(m * k, 2.0), noise.codes::<i8>(n * k));
        let (scales, bias) = (noise.floats(n, 0.01), noise.floats(n, 1.0));
        for kernel in Kernel::available() {
            let w = PackedWeights::from_nk(MatRef::new(&w, n, k).unwrap(), kernel).unwrap();
            let w = ScaledWeights::new(w, WeightScales::per_channel(&scales)).unwrap();
            let product = |stage: &FloatStage<'_>| {
                let mut y = vec![0.0f32; m * n];
                let out = MatMut::new(&mut y, m, n).unwrap();
                let x = MatRef::new(&x, m, k).unwrap();
                weight_only(x, &w, stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
                y
            };
            let stage = FloatStage::new().with_bias(&bias).unwrap();
            let plain = product(&stage);
            for function in FUNCTIONS {
                let stage = stage.with_activation(function).unwrap();
                let mut y = vec![T::default(); m * n];
                let out = MatMut::new(&mut y, m, n).unwrap();
                let x = MatRef::new(&x, m, k).unwrap();
                weight_only(x, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
                for (y, &plain) in y.iter().zip(&plain) {
                    let expected = T::narrow(function.apply(plain)).widen();
                    assert_eq!(y.widen().to_bits(), expected.to_bits(), "{kernel}, {function} of {plain}");
                }
            }
        }
    }
    let mut noise = Noise::new(45);
    check::<f32>(&mut noise);
    check::<f16>(&mut noise);
    check::<bf16>(&mut noise);
}

#[test]
fn functions_and_scales_that_make_no_sense_are_refused() {
    let scales = Scales::PerTensor(0.1);
    for function in [
        ActivationFunction::Clamp { min: 1.0, max: 0.0 },
        ActivationFunction::Clamp { min: f32::NAN, max: 0.0 },
        ActivationFunction::LeakyRelu { slope: f32::INFINITY },
    ] {
        let refused = |error: Option<StageError>| {
            assert!(
                matches!(error, Some(StageError::Activation { function: f }) if f.name() == function.name())
            );
        };
        refused(Dequantize::new(scales).unwrap().with_activation(function).err());
        refused(FloatStage::new().with_activation(function).err());
        let error = FloatStage::new().with_activation(function).unwrap_err().to_string();
        assert!(error.contains(&function.check().unwrap_err().to_string()), "{error}");
        refused(Requantize::<u8>::new(scales).unwrap().with_activation(function, 0.1).err());
        refused(Requantize::<u8>::real(scales, function, 0.1).err());
    }
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = Requantize::<u8>::real(scales, ActivationFunction::Gelu, scale).unwrap_err();
        assert_eq!(error.to_string(), format!("output scale {scale:e} is not positive and finite"));
        let stage = Requantize::<u8>::new(scales).unwrap();
        assert!(stage.with_activation(ActivationFunction::Relu, scale).is_err());
    }
    let error = Requantize::<i8>::new(scales).unwrap().with_activation(ActivationFunction::Gelu, 0.1);
    let message = "Requantize::new cannot apply gelu, it has no real values: use Requantize::real";
    assert_eq!(error.unwrap_err().to_string(), message);
    assert!(Requantize::<i8>::real(Scales::PerTensor(f32::NAN), ActivationFunction::Gelu, 0.1).is_err());
}
