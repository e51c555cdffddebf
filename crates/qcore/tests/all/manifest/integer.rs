//! The integer path, group 06: products, biases, sums, zero points, requantization.

use qcore::{
    ChannelAxis, Code, CodeRange, ErrorMetrics, Q31Multiplier, QParams, RequantizeMode, Scheme,
    ZeroPointTerms, channel_params, check_accumulator, code_abs_sum, code_sum, compensate,
    compensate_wrapping, dequantize_acc_bias, dequantize_per_channel, dequantize_slice, fold_zero_points,
    output_multiplier, output_multiplier_f64, quantize_biases, quantize_biases_clamped, quantize_per_channel,
    quantize_slice, quantize_tensor, requantize, requantize_add_then_round, requantize_double_rounding,
    requantize_f64, requantize_per_channel, requantize_single_rounding, rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
};

use safetensors::Dtype;

use super::Outcome;
use crate::fixture::Case;

pub(crate) fn run(case: &Case) -> Outcome {
    let name = case.name.as_str();
    let starts = |prefix: &str| name.starts_with(prefix);
    match name {
        "qlinear_u8_activations_33x127x65" => unsigned_activations(case),
        "requantize_ties_odd_zero_point" => requantization_at_ties(case),
        "dynamic_linear_7x45x13" => dynamic_linear(case),
        "tutorial_quantized_linear_512x256" => tutorial_quantized_linear(case),
        "fixed_point_multiply" => fixed_point_multiply(case),
        "saturating_rounding_doubling_high_mul" => high_mul(case),
        "rounding_divide_by_pot" => divide_by_pot(case),
        _ if starts("qlinear_") => fully_quantized_linear(case),
        _ if starts("gemm_zero_points_") => zero_points_on_both_sides(case),
        _ if starts("gemm_") => products(case),
        _ => return Outcome::Unknown,
    }
    Outcome::Passed
}

/// Products of the codes as they are, of either sign.
fn products(case: &Case) {
    let (k, n) = (case.shape("a")[1], case.shape("b")[0]);
    let b = case.get::<i8>("b");
    let c = match case.dtype("a") {
        Dtype::I8 => gemm(&case.get::<i8>("a"), &b, &vec![0; n], k),
        Dtype::U8 => gemm(&case.get::<u8>("a"), &b, &vec![0; n], k),
        other => panic!("{}: type {other:?}", case.name),
    };
    case.check("c", &c);
}

/// `sum_k a[m, k] * b[n, k] + bias[n]`, with b as (out, in).
fn gemm<A: Code, B: Code>(a: &[A], b: &[B], bias: &[i32], k: usize) -> Vec<i32> {
    let mut acc = vec![];
    for row in a.chunks_exact(k) {
        for (o, w) in b.chunks_exact(k).enumerate() {
            let sum: i64 = row.iter().zip(w).map(|(x, w)| i64::from(x.widen() * w.widen())).sum();
            acc.push(i32::try_from(sum + i64::from(bias[o])).unwrap());
        }
    }
    acc
}

fn quantize_weight(case: &Case, scheme: &Scheme) -> (Vec<i8>, Vec<QParams>) {
    let w = case.get::<f32>("weight");
    let axis = ChannelAxis::new(case.shape("weight"), 0).unwrap();
    let params = channel_params(&w, axis, scheme).unwrap();
    let mut codes = vec![0_i8; w.len()];
    quantize_per_channel(&w, axis, &params, &mut codes).unwrap();
    (codes, params)
}

fn scales(params: &[QParams]) -> Vec<f32> {
    params.iter().map(QParams::scale).collect()
}

/// The five requantizations of the fixtures.
fn check_requantization(case: &Case, s_x: f64, s_w: &[f32], s_y: f64, z_y: i32, codes: CodeRange) {
    let n = s_w.len();
    let m32: Vec<f32> = s_w.iter().map(|&s| output_multiplier(s_x as f32, s, s_y as f32)).collect();
    let m64: Vec<f64> = s_w.iter().map(|&s| output_multiplier_f64(s_x, s.into(), s_y)).collect();
    case.check("multiplier_f32", &m32);
    case.check("multiplier_f64", &m64);
    let acc = case.get::<i32>("acc");
    let (lo, hi) = (codes.min(), codes.max());
    let all = |f: &dyn Fn(i32, usize) -> i32| -> Vec<i8> {
        acc.iter().enumerate().map(|(i, &acc)| i8::from_clamped(f(acc, i % n))).collect()
    };
    let exact = all(&|acc, o| requantize_f64(acc, m64[o], z_y, lo, hi));
    let lab = all(&|acc, o| requantize_add_then_round(acc, m32[o], z_y, lo, hi));
    let round_then_add = all(&|acc, o| requantize(acc, m32[o], z_y, lo, hi));
    case.check("y_round_then_add_f64", &exact);
    case.check("y_lab_f32", &lab);
    case.check("y_round_then_add_f32", &round_then_add);
    let q31: Vec<Q31Multiplier> = m64.iter().map(|&m| Q31Multiplier::from_real(m).unwrap()).collect();
    case.check("multiplier_q31", &q31.iter().map(|m| m.multiplier()).collect::<Vec<_>>());
    case.check("shift", &q31.iter().map(|m| m.shift()).collect::<Vec<_>>());
    let double = all(&|acc, o| requantize_double_rounding(acc, q31[o], z_y, lo, hi));
    let single = all(&|acc, o| requantize_single_rounding(acc, q31[o], z_y, lo, hi));
    case.check("y_tflite_double_rounding", &double);
    case.check("y_tflite_single_rounding", &single);
    // The same by its mode, over the whole slice.
    let axis = ChannelAxis::new(case.shape("acc"), 1).unwrap();
    for (mode, codes_by_hand) in [
        (RequantizeMode::RoundThenAddF64, &exact),
        (RequantizeMode::AddThenRound, &lab),
        (RequantizeMode::RoundThenAdd, &round_then_add),
        (RequantizeMode::DoubleRounding, &double),
        (RequantizeMode::SingleRounding, &single),
    ] {
        let by_channel: Vec<_> = s_w.iter().map(|&s| mode.requantizer(s_x, s.into(), s_y).unwrap()).collect();
        let mut y = vec![0_i8; acc.len()];
        requantize_per_channel(&acc, axis, &by_channel, z_y, codes, &mut y).unwrap();
        assert_eq!(&y, codes_by_hand, "{}: {mode:?}", case.name);
    }
    for (name, codes) in [
        ("y_lab_f32", &lab),
        ("y_round_then_add_f32", &round_then_add),
        ("y_tflite_double_rounding", &double),
        ("y_tflite_single_rounding", &single),
    ] {
        let differing = codes.iter().zip(&exact).filter(|(a, b)| a != b).count();
        case.check_value(&format!("codes_of_{name}_that_differ_from_y_round_then_add_f64"), differing as f64);
    }
}

fn fully_quantized_linear(case: &Case) {
    let codes = CodeRange::signed(case.int("bits") as u32).unwrap();
    let (k, n) = (case.int("k") as usize, case.int("n") as usize);
    let x = case.get::<f32>("x");
    let (q_x, p_x) = quantize_tensor::<i8>(&x, &Scheme::lab2_linear(codes)).unwrap();
    case.check("q_x", &q_x);
    case.check_scalar("x_scale", p_x.scale_f64());
    case.check_scalar("x_zero_point", p_x.zero_point());
    // A slice of any length follows the same definition, so a prefix of the tensor has a prefix of
    // its codes.
    for len in 0..=x.len().min(130) {
        let mut prefix = vec![0_i8; len];
        quantize_slice(&x[..len], &p_x, &mut prefix).unwrap();
        assert_eq!(prefix, q_x[..len]);
    }
    let (q_w, p_w) = quantize_weight(case, &Scheme::lab2_weights(codes));
    let s_w = scales(&p_w);
    case.check("q_w", &q_w);
    case.check("w_scales", &s_w);
    let sums: Vec<i64> = q_w.chunks_exact(k).map(code_sum).collect();
    case.check("w_row_sums", &sums);

    let q_bias = match case.has("bias") {
        true => quantize_biases(&case.get::<f32>("bias"), p_x.scale(), &s_w).unwrap(),
        false => vec![0; n],
    };
    if case.has("bias") {
        assert_eq!(quantize_biases_clamped(&case.get::<f32>("bias"), p_x.scale(), &s_w), Ok(q_bias.clone()));
    }
    case.check("q_bias", &q_bias);
    case.check("bias_scales", &s_w.iter().map(|s| s * p_x.scale()).collect::<Vec<_>>());
    let shifted = fold_zero_points(&q_bias, p_x.zero_point(), &sums).unwrap();
    case.check("shifted_bias", &shifted);
    for (channel, w) in q_w.chunks_exact(k).enumerate() {
        let largest = codes.largest_distance(p_x.zero_point());
        check_accumulator(channel, largest, code_abs_sum(w, 0), q_bias[channel]).unwrap();
    }
    case.check("acc", &gemm(&q_x, &q_w, &shifted, k));

    let (s_y, z_y) = (case.scalar::<f64>("y_scale"), case.scalar::<i32>("y_zero_point"));
    if case.name != "qlinear_saturating_output" {
        let p_y = Scheme::lab2_linear(codes)
            .choose(qcore::Range::of(&case.get::<f32>("y_float")).unwrap())
            .unwrap();
        assert_eq!((p_y.scale_f64(), p_y.zero_point()), (s_y, z_y), "{}", case.name);
    }
    check_requantization(case, p_x.scale_f64(), &s_w, s_y, z_y, codes);
    let p_y = QParams::with_f64_scale(s_y, z_y, codes).unwrap();
    let mut y = vec![0.0; case.get::<i8>("y_lab_f32").len()];
    dequantize_slice(&case.get::<i8>("y_lab_f32"), &p_y, &mut y).unwrap();
    case.check("y_dequantized_lab_f32", &y);
    let error = ErrorMetrics::of_in_f64(&y, &case.get::<f32>("y_float")).unwrap().max_abs_error;
    case.check_value("max_abs_error_vs_float_output", error);
}

fn requantization_at_ties(case: &Case) {
    let s_w: Vec<f32> =
        case.param("w_scales").as_array().unwrap().iter().map(|s| s.as_f64().unwrap() as f32).collect();
    let z_y = case.int("y_zero_point") as i32;
    check_requantization(case, case.float("x_scale"), &s_w, case.float("y_scale"), z_y, CodeRange::I8);
}

/// The same as with signed codes, 128 higher. Only the shifted bias changes.
fn unsigned_activations(case: &Case) {
    let (x, w) = (case.get::<u8>("q_x_u8"), case.get::<i8>("q_w"));
    let k = case.shape("q_w")[1];
    let sums: Vec<i64> = w.chunks_exact(k).map(code_sum).collect();
    let shifted =
        fold_zero_points(&case.get::<i32>("q_bias"), case.int("x_zero_point_u8") as i32, &sums).unwrap();
    case.check("shifted_bias", &shifted);
    case.check("acc", &gemm(&x, &w, &shifted, k));
}

fn zero_points_on_both_sides(case: &Case) {
    let (a, b) = (case.get::<i8>("a"), case.get::<i8>("b"));
    let (k, n) = (case.shape("a")[1], case.shape("b")[0]);
    let (za, zb) = (case.int("za") as i32, case.int("zb") as i32);
    let sums = |codes: &[i8]| codes.chunks_exact(k).map(|c| code_sum(c) as i32).collect::<Vec<_>>();
    let (sum_a, sum_b) = (sums(&a), sums(&b));
    case.check("a_row_sums", &sum_a);
    case.check("b_row_sums", &sum_b);
    let sum_ab = gemm(&a, &b, &vec![0; n], k);
    let expand = |zb: &dyn Fn(usize) -> i32| -> Vec<i32> {
        let cell = |(i, &sum_ab): (usize, &i32)| {
            let terms = ZeroPointTerms { k, za, zb: zb(i % n), sum_a: sum_a[i / n], sum_b: sum_b[i % n] };
            let exact = compensate(sum_ab, terms).unwrap();
            assert_eq!(compensate_wrapping(sum_ab, terms), exact);
            exact
        };
        sum_ab.iter().enumerate().map(cell).collect()
    };
    case.check("c", &expand(&|_| zb));
    let per_channel = case.get::<i32>("zb_per_channel");
    case.check("c_per_channel", &expand(&|o| per_channel[o]));
}

fn dynamic_linear(case: &Case) {
    let (q_x, p_x) =
        quantize_tensor::<u8>(&case.get::<f32>("x"), &Scheme::onnx_dynamic(CodeRange::U8)).unwrap();
    case.check("q_x", &q_x);
    case.check_scalar("x_scale", p_x.scale());
    case.check_scalar("x_zero_point", p_x.zero_point());
    let (q_w, p_w) = quantize_weight(case, &Scheme::tutorial_symmetric(CodeRange::I8));
    case.check("q_w", &q_w);
    case.check("w_scales", &scales(&p_w));
    let (k, n) = (case.shape("weight")[1], case.shape("weight")[0]);
    let sums: Vec<i64> = q_w.chunks_exact(k).map(code_sum).collect();
    let acc = gemm(&q_x, &q_w, &fold_zero_points(&vec![0; n], p_x.zero_point(), &sums).unwrap(), k);
    case.check("acc", &acc);
    let bias = case.get::<f32>("bias");
    let cell =
        |(i, &acc): (usize, &i32)| dequantize_acc_bias(acc, p_x.scale() * p_w[i % n].scale(), bias[i % n]);
    case.check("y", &acc.iter().enumerate().map(cell).collect::<Vec<_>>());
}

fn tutorial_quantized_linear(case: &Case) {
    let (q, params) = quantize_weight(case, &Scheme::tutorial_symmetric(CodeRange::I8));
    case.check("q", &q);
    case.check("scales", &scales(&params));
    let mut restored = vec![0.0; q.len()];
    dequantize_per_channel(&q, ChannelAxis::new(case.shape("weight"), 0).unwrap(), &params, &mut restored)
        .unwrap();
    let (x, bias) = (case.get::<f32>("x"), case.get::<f32>("bias"));
    let linear = |weight: &[f32]| -> Vec<f32> {
        let dot = |row: &[f32], w: &[f32]| {
            row.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()
        };
        let row = |row: &[f32]| -> Vec<f32> {
            weight.chunks_exact(512).zip(&bias).map(|(w, b)| (dot(row, w) + f64::from(*b)) as f32).collect()
        };
        x.chunks_exact(512).flat_map(row).collect()
    };
    let (y_fp32, y_int8) = (linear(&case.get::<f32>("weight")), linear(&restored));
    case.check("y_fp32", &y_fp32);
    case.check("y_int8", &y_int8);
    let metrics = ErrorMetrics::of_in_f64(&y_fp32, &y_int8).unwrap();
    case.check_value("max_abs_error", metrics.max_abs_error);
    case.check_value("mean_abs_error", metrics.mean_abs_error);
    case.check_value("mean_relative_error_pct", metrics.mean_relative_error_pct);
}

fn high_mul(case: &Case) {
    let (a, b) = (case.get::<i32>("a"), case.get::<i32>("b"));
    let products = a.iter().zip(&b).map(|(&a, &b)| saturating_rounding_doubling_high_mul(a, b));
    case.check("result", &products.collect::<Vec<_>>());
}

fn divide_by_pot(case: &Case) {
    let (x, exponents) = (case.get::<i32>("x"), case.get::<i32>("exponent"));
    let row = |&e: &i32| x.iter().map(move |&x| rounding_divide_by_pot(x, e as u32));
    case.check("result", &exponents.iter().flat_map(row).collect::<Vec<_>>());
}

fn fixed_point_multiply(case: &Case) {
    let multipliers: Vec<Q31Multiplier> =
        case.get::<f64>("real_multiplier").iter().map(|&m| Q31Multiplier::from_real(m).unwrap()).collect();
    case.check("multiplier_q31", &multipliers.iter().map(|m| m.multiplier()).collect::<Vec<_>>());
    case.check("shift", &multipliers.iter().map(|m| m.shift()).collect::<Vec<_>>());
    let (x, valid) = (case.get::<i32>("x"), case.get::<u8>("valid"));
    for (label, multiply) in [
        ("double_rounding", Q31Multiplier::multiply_double_rounding as fn(Q31Multiplier, i32) -> i32),
        ("single_rounding", Q31Multiplier::multiply_single_rounding),
    ] {
        let all = multipliers.iter().flat_map(|&m| x.iter().map(move |&x| multiply(m, x)));
        // The fixture does not specify entries that overflow. Here they saturate.
        let specified = |(i, got): (usize, i32)| if valid[i] == 1 { got } else { case.get::<i32>(label)[i] };
        case.check(label, &all.enumerate().map(specified).collect::<Vec<_>>());
    }
}
