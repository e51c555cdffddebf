//! The cases of the reference fixtures that describe layers, run on the layers.

use half::f16;
use qcore::{ActivationFunction, CodeRange, ErrorMetrics, QParams, Scheme};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, PackedNibbles, ScaledWeights, Threads, WeightScales};
use qnn::reference::{Int8Linear, QuantizedLinear};
use qnn::{
    DynamicLinear, DynamicWeights, FloatLinear, LayerError, LinearWorkspace, StaticLinear, StaticParts,
    WeightConfig,
};

use crate::fixture::{Case, Group};

/// A layer of the tensors `weight` (n, k) and, if the case has one, `bias`.
fn float_layer(case: &Case) -> FloatLinear {
    let (n, k) = (case.shape("weight")[0], case.shape("weight")[1]);
    match case.has("bias") {
        true => FloatLinear::new(&case.name, n, k, case.get("weight"), case.get("bias")).unwrap(),
        false => FloatLinear::without_bias(&case.name, n, k, case.get("weight")).unwrap(),
    }
}

fn matrix<T: Copy>(values: &[T], cols: usize) -> MatRef<'_, T> {
    MatRef::new(values, values.len() / cols, cols).unwrap()
}

fn run<T: Copy + Default>(m: usize, n: usize, forward: impl FnOnce(MatMut<'_, T>)) -> Vec<T> {
    let mut out = vec![T::default(); m * n];
    forward(MatMut::new(&mut out, m, n).unwrap());
    out
}

/// Lab 2's fully quantized layer: codes in, int32 sums, codes out, at 2, 4 and 8 bits.
#[test]
fn static_linear_is_the_fully_quantized_layer() {
    let group = Group::load("06_quantized_linear");
    let mut cases = 0;
    for case in group.starting("qlinear_").filter(|case| case.name != "qlinear_u8_activations_33x127x65") {
        cases += 1;
        let codes = CodeRange::signed(case.int("bits") as u32).unwrap();
        let input =
            QParams::with_f64_scale(case.scalar("x_scale"), case.scalar("x_zero_point"), codes).unwrap();
        let output =
            QParams::with_f64_scale(case.scalar("y_scale"), case.scalar("y_zero_point"), codes).unwrap();
        let weights = WeightConfig { scheme: Scheme::lab2_weights(codes), ..WeightConfig::default() };
        for kernel in Kernel::available() {
            let mut layer = match &case.name[..] {
                // Here a channel of zeros takes the scale of the whole tensor, the lab has one of
                // its own.
                "qlinear_zero_weight_row" => {
                    let (weight, k) = (case.get::<i8>("q_w"), case.int("k") as usize);
                    let parts = StaticParts {
                        name: case.name.clone(),
                        weight: matrix(&weight, k),
                        weight_scales: case.get("w_scales"),
                        weight_zero_points: None,
                        bias: Some(case.get("q_bias")),
                        input,
                        activation: ActivationFunction::Identity,
                    };
                    StaticLinear::new(parts, kernel).unwrap()
                }
                _ => StaticLinear::quantize(&float_layer(case), input, &weights, kernel).unwrap(),
            };
            layer.set_output(output).unwrap();
            case.check("q_w", &layer.weights().unpack());
            case.check("w_scales", layer.weight_scales());
            case.check("q_bias", layer.bias().unwrap_or(&vec![0; layer.n()]));
            let q_x = case.get::<i8>("q_x");
            let (m, n) = (q_x.len() / layer.k(), layer.n());
            let (x, mut workspace) = (matrix(&q_x, layer.k()), LinearWorkspace::new());
            let sums = run(m, n, |out| layer.forward_sums(x, out, Threads::Serial, &mut workspace).unwrap());
            let y = run(m, n, |out| layer.forward_codes(x, out, Threads::Serial, &mut workspace).unwrap());
            case.check("acc", &sums);
            case.check::<i8>("y_round_then_add_f32", &y);
        }
    }
    assert_eq!(cases, 8);
}

/// The same layer on u8 activations.
#[test]
fn static_linear_takes_unsigned_codes() {
    let group = Group::load("06_quantized_linear");
    let case = group.case("qlinear_u8_activations_33x127x65");
    let (codes, weight, n, k) = (case.get::<u8>("q_x_u8"), case.get::<i8>("q_w"), 65, 127);
    let parts = StaticParts {
        name: case.name.clone(),
        weight: matrix(&weight, k),
        weight_scales: vec![1.0; n],
        weight_zero_points: None,
        bias: Some(case.get("q_bias")),
        input: QParams::new(1.0, case.int("x_zero_point_u8") as i32, CodeRange::U8).unwrap(),
        activation: ActivationFunction::Identity,
    };
    let layer = StaticLinear::new(parts, Kernel::select().unwrap()).unwrap();
    let (x, mut workspace) = (matrix(&codes, k), LinearWorkspace::new());
    let acc = run(33, n, |out| layer.forward_sums(x, out, Threads::Serial, &mut workspace).unwrap());
    case.check("acc", &acc);
}

/// Zero points on both sides, of the weights one for all or one for each channel.
#[test]
fn static_linear_takes_affine_weights() {
    let group = Group::load("06_quantized_linear");
    for case in group.starting("gemm_zero_points_") {
        let (a, b) = (case.get::<i8>("a"), case.get::<i8>("b"));
        let (k, n) = (case.shape("a")[1], case.shape("b")[0]);
        let per_channel: Vec<i8> = case.get::<i32>("zb_per_channel").iter().map(|&z| z as i8).collect();
        for (zero_points, label) in [(vec![case.int("zb") as i8; n], "c"), (per_channel, "c_per_channel")] {
            for kernel in Kernel::available() {
                let parts = StaticParts {
                    name: case.name.clone(),
                    weight: matrix(&b, k),
                    weight_scales: vec![1.0; n],
                    weight_zero_points: Some(zero_points.clone()),
                    bias: None,
                    input: QParams::new(1.0, case.int("za") as i32, CodeRange::I8).unwrap(),
                    activation: ActivationFunction::Identity,
                };
                let layer = StaticLinear::new(parts, kernel).unwrap();
                let mut workspace = LinearWorkspace::new();
                let acc = run(a.len() / k, n, |out| {
                    layer.forward_sums(matrix(&a, k), out, Threads::Serial, &mut workspace).unwrap();
                });
                case.check(label, &acc);
            }
        }
    }
}

#[test]
fn dynamic_linear_is_onnx_s() {
    let group = Group::load("06_quantized_linear");
    let case = group.case("dynamic_linear_7x45x13");
    let scheme = Scheme::tutorial_symmetric(CodeRange::I8);
    let weights = WeightConfig { scheme, ..WeightConfig::default() };
    let activations = Dynamic::PerTensor(Scheme::onnx_dynamic(CodeRange::U8));
    for kernel in Kernel::available() {
        let layer = DynamicLinear::quantize(&float_layer(case), activations, &weights, kernel).unwrap();
        case.check("q_w", &layer.weights().unpack());
        case.check("w_scales", &layer.weights().scales());
        let (x, mut workspace) = (case.get::<f32>("x"), LinearWorkspace::new());
        let x = matrix(&x, layer.k());
        let y = run::<f32>(7, 13, |out| layer.forward(x, out, Threads::Serial, &mut workspace).unwrap());
        case.check("y", &y);
    }
}

/// PyTorch's `reduce_range`: kernels with faster forms run all columns on one of them, with the
/// same bits as the others.
#[test]
fn dynamic_linear_of_7_bits_is_proven_for_all_weights() {
    let group = Group::load("06_quantized_linear");
    let case = group.case("dynamic_linear_7x45x13");
    let (x, codes) = (case.get::<f32>("x"), CodeRange::unsigned(7).unwrap());
    let activations = Dynamic::PerToken(Scheme { codes, ..Scheme::onnx_dynamic(CodeRange::U8) });
    let outputs: Vec<Vec<f32>> = Kernel::available()
        .map(|kernel| {
            let weights = WeightConfig::default();
            let layer = DynamicLinear::quantize(&float_layer(case), activations, &weights, kernel).unwrap();
            let proofs = !kernel.desc().proven.is_empty() || kernel.desc().ordered.is_some();
            let DynamicWeights::PerChannel { codes, .. } = layer.weights() else { panic!("another kind") };
            assert_eq!(codes.proven_columns(), if proofs { layer.n() } else { 0 }, "{kernel}");
            let (x, mut workspace) = (matrix(&x, layer.k()), LinearWorkspace::new());
            run::<f32>(7, 13, |out| layer.forward(x, out, Threads::Serial, &mut workspace).unwrap())
        })
        .collect();
    assert!(outputs.iter().all(|y| *y == outputs[0]));
    let error = ErrorMetrics::of(&case.get::<f32>("y"), &outputs[0]).unwrap();
    assert!(error.sqnr_db > 30.0, "{error:?}");
}

#[test]
fn groups_that_no_layer_can_have_are_refused() {
    let float = FloatLinear::without_bias("fc", 1, 40, vec![0.5; 40]).unwrap();
    let kernel = Kernel::select().unwrap();
    let groups = WeightConfig::default().in_groups_of(16);
    let input = Scheme::activations_u8().choose(qcore::Range::new(0.0, 1.0).unwrap()).unwrap();
    let error = StaticLinear::quantize(&float, input, &groups, kernel).unwrap_err();
    assert_eq!(error, LayerError::Groups { group_len: 16 });
    for len in [0, 5] {
        let groups = WeightConfig::with_bits(4).unwrap().in_groups_of(len);
        let error = DynamicLinear::quantize(&float, Dynamic::default(), &groups, kernel).unwrap_err();
        let text = format!("groups of {len} along k; their length must be a multiple of 16, and not 0");
        assert_eq!(error.to_string(), text);
    }
    let per_channel = WeightConfig::default();
    let blocks = WeightConfig::with_bits(4).unwrap().in_groups_of(32);
    let in_groups = |scheme, group_len| Dynamic::PerGroup { scheme, group_len };
    for (activations, weights, text) in [
        (
            Dynamic::GgmlQ8_0,
            per_channel,
            "activations in groups of 32 are multiplied by weights in groups (gemm_scaled, gemm_scaled_rows), not by weights with a scale for each channel",
        ),
        (Dynamic::GgmlQ8_0, groups, "activations in groups of 32, but weights in groups of 16 along k"),
        (
            in_groups(Scheme::weights_i8(), 24),
            blocks,
            "activations in groups of 24 along k; their length must be a multiple of 16, and not 0",
        ),
        (
            in_groups(Scheme::activations_u8(), 32),
            blocks,
            "groups of activations must have the same zero point, as symmetric schemes have, not those of Affine { range: ExtendedToZero } with SubnormalIsOne",
        ),
    ] {
        let error = DynamicLinear::quantize(&float, activations, &weights, kernel).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, LayerError::Activations(_)));
    }
    let nibbles = PackedNibbles::from_nk(MatRef::new(&[7; 40], 1, 40).unwrap(), kernel).unwrap();
    let weights = ScaledWeights::of_nibbles(nibbles, WeightScales::per_channel(&[0.5])).unwrap();
    let error = DynamicLinear::from_weights(weights, Some(vec![f32::NAN]), Dynamic::default()).unwrap_err();
    assert!(matches!(error, LayerError::Bias { channel: 0, .. }), "{error}");
}

#[test]
fn int8_linear_is_the_tutorial_s_layer() {
    let group = Group::load("06_quantized_linear");
    let case = group.case("tutorial_quantized_linear_512x256");
    let float = float_layer(case);
    let layer = Int8Linear::quantize(&float, &Scheme::tutorial_symmetric(CodeRange::I8)).unwrap();
    case.check("q", layer.weight());
    case.check("scales", &layer.params().iter().map(QParams::scale).collect::<Vec<_>>());
    case.check_value("fp32_bytes", float.bytes() as f64);
    case.check_value("int8_bytes", layer.stored_bytes() as f64);
    case.check_value("compression", float.bytes() as f64 / layer.stored_bytes() as f64);
    let x = case.get::<f32>("x");
    let y = run(4, 256, |out| layer.forward(matrix(&x, 512), out).unwrap());
    case.check("y_int8", &y);
    let error = ErrorMetrics::of(&case.get::<f32>("y_fp32"), &y).unwrap();
    case.check_value("max_abs_error", error.max_abs_error);
    case.check_value("mean_abs_error", error.mean_abs_error);
    case.check_value("mean_relative_error_pct", error.mean_relative_error_pct);
}

#[test]
fn int8_linear_is_the_rowwise_exercise() {
    let group = Group::load("05_per_channel");
    let cases: Vec<_> = group.starting("rowwise_").filter(|case| case.has("y")).collect();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let layer = Int8Linear::quantize(&float_layer(case), &Scheme::rowwise_epsilon()).unwrap();
        case.check("q", layer.weight());
        case.check("scale", &layer.params().iter().map(QParams::scale).collect::<Vec<_>>());
        let x = case.get::<f32>("x");
        let (m, n) = (x.len() / layer.k(), layer.n());
        case.check("y", &run(m, n, |out| layer.forward(matrix(&x, layer.k()), out).unwrap()));
    }
}

#[test]
fn int8_linear_takes_f16_activations() {
    let group = Group::load("07_error_metrics");
    let cases: Vec<_> = group.starting("w8a16_").collect();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let widen = |label: &str| case.get::<f16>(label).iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        let (n, k) = (case.shape("weight")[0], case.shape("weight")[1]);
        let quantize = |float: FloatLinear| {
            Int8Linear::quantize(&float, &Scheme::tutorial_symmetric(CodeRange::I8)).unwrap()
        };
        let layer = quantize(FloatLinear::new("w", n, k, widen("weight"), widen("bias")).unwrap());
        let bare = quantize(FloatLinear::without_bias("w", n, k, widen("weight")).unwrap());
        case.check("q", layer.weight());
        case.check("scales", &layer.params().iter().map(QParams::scale).collect::<Vec<_>>());
        let (x, wide_x) = (case.get::<f16>("x"), widen("x"));
        let m = x.len() / k;
        case.check("y", &run(m, n, |out| layer.forward(matrix(&x, k), out).unwrap()));
        case.check("y_no_bias", &run(m, n, |out| bare.forward(matrix(&x, k), out).unwrap()));
        let wide = run(m, n, |out| layer.forward(matrix(&wide_x, k), out).unwrap());
        case.check("y_w32", &wide.iter().map(|&y| f16::from_f32(y)).collect::<Vec<_>>());
    }
}

#[test]
fn quantized_linear_is_tinytorch_s_layer() {
    let group = Group::load("03_affine_i8");
    let case = group.case("tinytorch_quantized_linear");
    let (k, n) = (case.shape("weight_in_out")[0], case.shape("weight_in_out")[1]);
    let (weight, codes) = (case.get::<f32>("weight_in_out"), case.get::<i8>("q_weight"));
    let transposed = |o: usize, i: usize| i * n + o;
    let weight = (0..n).flat_map(|o| (0..k).map(move |i| (o, i))).map(|(o, i)| weight[transposed(o, i)]);
    let float = FloatLinear::new("fc", n, k, weight.collect(), case.get("bias")).unwrap();
    let layer = QuantizedLinear::quantize(&float).unwrap();
    let expected = (0..n).flat_map(|o| (0..k).map(move |i| (o, i))).map(|(o, i)| codes[transposed(o, i)]);
    assert_eq!(layer.weight(), expected.collect::<Vec<_>>());
    case.check_scalar("weight_scale", layer.weight_params().scale_f64());
    case.check_scalar("weight_zero_point", layer.weight_params().zero_point());
    let (bias, params) = layer.bias().unwrap();
    case.check("q_bias", bias);
    case.check_scalar("bias_scale", params.scale_f64());
    case.check_scalar("bias_zero_point", params.zero_point());
    let x = case.get::<f32>("x");
    case.check("y", &run(x.len() / k, n, |out| layer.forward(matrix(&x, k), out).unwrap()));
    assert_eq!(layer.stored_bytes(), n * k + n + 16);
}
