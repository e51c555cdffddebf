//! Per-channel quantization and its errors: groups 05 and 07.

use half::f16;
use qcore::{
    ChannelAxis, CodeRange, ErrorMetrics, QParams, Scheme, channel_params, dequantize_per_channel,
    dequantize_per_channel_into, dequantize_slice, quantize_per_channel, quantize_per_channel_from,
    quantize_per_channel_in_f16, quantize_tensor,
};

use super::Outcome;
use crate::fixture::{Case, Element};

struct Quantized {
    params: Vec<QParams>,
    codes: Vec<i8>,
    restored: Vec<f32>,
}

impl Quantized {
    fn of(x: &[f32], axis: ChannelAxis, scheme: &Scheme) -> Quantized {
        let params = channel_params(x, axis, scheme).unwrap();
        let (mut codes, mut restored) = (vec![0_i8; x.len()], vec![0.0; x.len()]);
        quantize_per_channel(x, axis, &params, &mut codes).unwrap();
        dequantize_per_channel(&codes, axis, &params, &mut restored).unwrap();
        Quantized { params, codes, restored }
    }

    fn scales(&self) -> Vec<f32> {
        self.params.iter().map(QParams::scale).collect()
    }
}

fn axis_of(case: &Case, label: &str, axis: usize) -> ChannelAxis {
    ChannelAxis::new(case.shape(label), axis).unwrap()
}

fn to_f16(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&v| f16::from_f32(v)).collect()
}

fn differing(a: &[i8], b: &[i8]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a != b).count() as f64
}

/// `x @ weight^T + bias` with weight as (out, in), in f64.
fn linear<T: Element>(x: &[T], weight: &[T], bias: Option<&[T]>, k: usize) -> Vec<f64> {
    let n = weight.len() / k;
    let mut y = vec![];
    for row in x.chunks_exact(k) {
        for (o, w) in weight.chunks_exact(k).enumerate() {
            let sum: f64 = row.iter().zip(w).map(|(x, w)| x.to_f64() * w.to_f64()).sum();
            y.push(sum + bias.map_or(0.0, |bias| bias[o].to_f64()));
        }
    }
    assert_eq!(y.len(), x.len() / k * n);
    y
}

/// Group 05, dispatched by the source of the case.
pub(crate) fn run(case: &Case) -> Outcome {
    match case.name.split('_').next() {
        Some("pc") => tutorial(case),
        Some("rowwise") => rowwise(case),
        Some("lab2") => lab2(case),
        Some("rotalabs") => rotalabs(case),
        _ => return Outcome::Unknown,
    }
    Outcome::Passed
}

fn tutorial(case: &Case) {
    let w = case.get::<f32>("weight");
    let scheme = Scheme::tutorial_symmetric(CodeRange::signed(case.int("num_bits") as u32).unwrap());
    let got = Quantized::of(&w, axis_of(case, "weight", case.int("axis") as usize), &scheme);
    case.check("q", &got.codes);
    case.check("scales", &got.scales());
    case.check("dequantized", &got.restored);
    if case.name == "pc_tutorial_varying_magnitudes" {
        check_varying_magnitudes(case, &w, &got.restored);
    } else {
        assert!(case.value_labels().is_empty());
    }
}

/// Per tensor against per channel, for rows that differ by two orders of magnitude.
fn check_varying_magnitudes(case: &Case, w: &[f32], per_channel: &[f32]) {
    let (codes, p) = quantize_tensor::<i8>(w, &Scheme::tutorial_symmetric(CodeRange::I8)).unwrap();
    let mut per_tensor = vec![0.0; w.len()];
    dequantize_slice(&codes, &p, &mut per_tensor).unwrap();
    case.check("per_tensor_q", &codes);
    case.check_scalar("per_tensor_scale", p.scale());
    case.check("per_tensor_dequantized", &per_tensor);
    for (tag, restored) in [("per_tensor", &per_tensor[..]), ("per_channel", per_channel)] {
        let all = ErrorMetrics::of(w, restored).unwrap();
        let row3 = ErrorMetrics::of(&w[24..], &restored[24..]).unwrap();
        case.check_value(&format!("{tag}_mean_error"), all.mean_abs_error);
        case.check_value(&format!("{tag}_max_error"), all.max_abs_error);
        case.check_value(&format!("{tag}_channel3_mean_error"), row3.mean_abs_error);
    }
    let mean = |restored: &[f32]| ErrorMetrics::of(w, restored).unwrap().mean_abs_error;
    case.check_value("error_ratio", mean(&per_tensor) / mean(per_channel));
    let abs_max = |row: &[f32]| f64::from(qcore::Range::of(row).unwrap().abs_max());
    case.check_value("channel0_max", abs_max(&w[..8]));
    case.check_value("channel3_max", abs_max(&w[24..]));
    assert_eq!(case.value_labels().len(), 9);
}

fn rowwise(case: &Case) {
    let w = case.get::<f32>("weight");
    let axis = axis_of(case, "weight", 0);
    let got = match case.param("variant").as_str() {
        Some("reference_solution") => {
            let got = Quantized::of(&w, axis, &Scheme::rowwise_epsilon());
            let (x, bias) = (case.get::<f32>("x"), case.get::<f32>("bias"));
            let y = linear(&x, &got.restored, Some(&bias), axis.inner());
            case.check("y", &y.iter().map(|&v| v as f32).collect::<Vec<_>>());
            case.check_value("max_abs_error", ErrorMetrics::of(&w, &got.restored).unwrap().max_abs_error);
            got
        }
        Some("description") => {
            let got = Quantized::of(&w, axis, &Scheme::rowwise_described());
            let other = Quantized::of(&w, axis, &Scheme::rowwise_epsilon());
            let label = "codes_that_differ_from_reference_solution";
            case.check_value(label, differing(&got.codes, &other.codes));
            got
        }
        other => panic!("{}: variant {other:?}", case.name),
    };
    case.check("q", &got.codes);
    case.check("scale", &got.scales());
    case.check("dequantized", &got.restored);
}

fn lab2(case: &Case) {
    let scheme = Scheme::lab2_weights(CodeRange::signed(case.int("bits") as u32).unwrap());
    let got = Quantized::of(&case.get::<f32>("weight"), axis_of(case, "weight", 0), &scheme);
    case.check("q", &got.codes);
    case.check("scales", &got.scales());
    case.check("dequantized", &got.restored);
}

/// f16 weights, both widened to f32 and in their own precision.
fn rotalabs(case: &Case) {
    let w16 = case.get::<f16>("weight");
    let w: Vec<f32> = w16.iter().map(|v| v.to_f32()).collect();
    let axis = axis_of(case, "weight", 0);
    let wide = Quantized::of(&w, axis, &Scheme::tutorial_symmetric(CodeRange::I8));
    let mut from_f16 = vec![0_i8; w.len()];
    quantize_per_channel_from(&w16, axis, &wide.params, &mut from_f16).unwrap();
    assert_eq!(from_f16, wide.codes);
    let got = match case.param("variant").as_str() {
        Some("widen_f32") => wide,
        Some("native_f16") => {
            let params = channel_params(&w, axis, &Scheme::rotalabs_native_f16()).unwrap();
            let (mut codes, mut restored) = (vec![0_i8; w.len()], vec![0.0; w.len()]);
            quantize_per_channel_in_f16(&w16, axis, &params, &mut codes).unwrap();
            dequantize_per_channel(&codes, axis, &params, &mut restored).unwrap();
            case.check_value("codes_that_differ_from_widen_f32", differing(&codes, &wide.codes));
            Quantized { params, codes, restored }
        }
        other => panic!("{}: variant {other:?}", case.name),
    };
    case.check("q", &got.codes);
    case.check("scales", &got.scales());
    let mut restored = vec![f16::ZERO; w.len()];
    dequantize_per_channel_into(&got.codes, axis, &got.params, &mut restored).unwrap();
    case.check("dequantized_f16", &restored);
}

/// Group 07.
pub(crate) fn errors(case: &Case) -> Outcome {
    match case.name.split('_').next() {
        // A tensor of 4096 x 4096 that is not stored.
        Some("metrics") if case.param("for_information") == true => return quick_start(case),
        Some("metrics") => metrics(case),
        Some("w8a16") => w8a16(case),
        _ => return Outcome::Unknown,
    }
    Outcome::Passed
}

fn metrics(case: &Case) {
    let half = case.dtype("x") == f16::DTYPE;
    let x: Vec<f32> = match half {
        true => case.get::<f16>("x").iter().map(|v| v.to_f32()).collect(),
        false => case.get("x"),
    };
    let shape = match case.param("granularity").as_str() {
        Some("per_channel") => case.shape("x").to_vec(),
        Some("per_tensor") => vec![1, x.len()],
        other => panic!("{}: granularity {other:?}", case.name),
    };
    let scheme = Scheme::tutorial_symmetric(CodeRange::I8);
    let got = Quantized::of(&x, ChannelAxis::new(&shape, 0).unwrap(), &scheme);
    case.check("q", &got.codes);
    case.check("scale", &got.scales());
    let metrics = if half {
        let restored = to_f16(&got.restored);
        case.check("restored", &restored);
        ErrorMetrics::of_f16(&case.get::<f16>("x"), &restored).unwrap()
    } else {
        case.check("restored", &got.restored);
        ErrorMetrics::of(&x, &got.restored).unwrap()
    };
    for label in case.value_labels() {
        // 0 / 0: the figure with epsilon is -inf and the one without is +inf, by both definitions.
        let figure = match label {
            "max_abs_error" => metrics.max_abs_error,
            "mean_abs_error" => metrics.mean_abs_error,
            "relative_error_pct" => metrics.relative_error_pct,
            "snr_db" => metrics.sqnr_db,
            "snr_db_eps" => metrics.snr_db_eps,
            _ => panic!("{}: what is {label}?", case.name),
        };
        case.check_value(label, figure);
    }
}

/// The figures of a normal f16 tensor of 4096 x 4096. Any draw gives nearly the same figures,
/// within the 5 % that the case allows. Only the largest error depends on the largest value of the
/// draw, and is left out. This draw uses the method of Box and Muller.
fn quick_start(case: &Case) -> Outcome {
    let mut state = 0_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let side = 4096;
    let x16: Vec<f16> = (0..side * side).map(|_| f16::from_f64(normal())).collect();
    let x: Vec<f32> = x16.iter().map(|v| v.to_f32()).collect();
    let scheme = Scheme::tutorial_symmetric(CodeRange::I8);
    for (granularity, shape) in [("per_tensor", [1, side * side]), ("per_channel", [side, side])] {
        let got = Quantized::of(&x, ChannelAxis::new(&shape, 0).unwrap(), &scheme);
        let metrics = ErrorMetrics::of_f16(&x16, &to_f16(&got.restored)).unwrap();
        let want = |label: &str| case.value(granularity)[label].as_f64().unwrap();
        for (label, figure) in [
            ("mean_abs_error", metrics.mean_abs_error),
            ("relative_error_pct", metrics.relative_error_pct),
            ("snr_db", metrics.sqnr_db),
            ("snr_db_eps", metrics.snr_db_eps),
        ] {
            let want = want(label);
            assert!((figure - want).abs() <= 0.05 * want, "{granularity} {label}: {figure}, {want}");
        }
    }
    Outcome::ForInformation
}

/// Weights restored to f16 before they are multiplied, f16 in and out.
fn w8a16(case: &Case) {
    let w: Vec<f32> = case.get::<f16>("weight").iter().map(|v| v.to_f32()).collect();
    let axis = axis_of(case, "weight", 0);
    let got = Quantized::of(&w, axis, &Scheme::tutorial_symmetric(CodeRange::I8));
    case.check("q", &got.codes);
    case.check("scales", &got.scales());
    let w16 = to_f16(&got.restored);
    case.check("w16", &w16);
    let (x, bias) = (case.get::<f16>("x"), case.get::<f16>("bias"));
    let round = |y: &[f64]| y.iter().map(|&v| f16::from_f64(v)).collect::<Vec<_>>();
    let y = linear(&x, &w16, Some(&bias), axis.inner());
    case.check("y_f64", &y);
    case.check("y", &round(&y));
    case.check("y_no_bias", &round(&linear(&x, &w16, None, axis.inner())));
    let widen = |v: &[f16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
    case.check("y_w32", &round(&linear(&widen(&x), &got.restored, Some(&widen(&bias)), axis.inner())));
}
