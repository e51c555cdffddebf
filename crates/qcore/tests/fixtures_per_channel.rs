//! Per-channel quantization and error measures against the reference fixtures: groups 05 and 07.

mod fixture;

use fixture::{Case, Element, Group};
use half::f16;
use qcore::{
    ChannelAxis, CodeRange, ErrorMetrics, QParams, Scheme, channel_params, dequantize_per_channel,
    dequantize_slice, quantize_per_channel, quantize_per_channel_in_f16, quantize_tensor,
};

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

#[test]
fn group_05_tutorial() {
    let group = Group::load("05_per_channel");
    let mut run = 0;
    for case in group.starting("pc_") {
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
        run += 1;
    }
    assert_eq!(run, 19);
}

/// Per tensor against per channel where rows differ by two orders of magnitude.
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

#[test]
fn group_05_rowwise() {
    let group = Group::load("05_per_channel");
    let (mut solved, mut described) = (0, 0);
    for case in group.starting("rowwise_") {
        let w = case.get::<f32>("weight");
        let axis = axis_of(case, "weight", 0);
        let got = match case.param("variant").as_str() {
            Some("reference_solution") => {
                let got = Quantized::of(&w, axis, &Scheme::rowwise_epsilon());
                let y = linear(
                    &case.get::<f32>("x"),
                    &got.restored,
                    Some(&case.get::<f32>("bias")),
                    axis.inner(),
                );
                case.check("y", &y.iter().map(|&v| v as f32).collect::<Vec<_>>());
                case.check_value("max_abs_error", ErrorMetrics::of(&w, &got.restored).unwrap().max_abs_error);
                solved += 1;
                got
            }
            Some("description") => {
                let got = Quantized::of(&w, axis, &Scheme::rowwise_described());
                let other = Quantized::of(&w, axis, &Scheme::rowwise_epsilon());
                let label = "codes_that_differ_from_reference_solution";
                case.check_value(label, differing(&got.codes, &other.codes));
                described += 1;
                got
            }
            other => panic!("{}: variant {other:?}", case.name),
        };
        case.check("q", &got.codes);
        case.check("scale", &got.scales());
        case.check("dequantized", &got.restored);
    }
    assert_eq!((solved, described), (4, 3));
}

#[test]
fn group_05_lab2() {
    let group = Group::load("05_per_channel");
    let mut run = 0;
    for case in group.starting("lab2_") {
        let scheme = Scheme::lab2_weights(CodeRange::signed(case.int("bits") as u32).unwrap());
        let got = Quantized::of(&case.get::<f32>("weight"), axis_of(case, "weight", 0), &scheme);
        case.check("q", &got.codes);
        case.check("scales", &got.scales());
        case.check("dequantized", &got.restored);
        run += 1;
    }
    assert_eq!(run, 6);
}

#[test]
fn group_05_rotalabs_f16() {
    let group = Group::load("05_per_channel");
    let widened = group.case("rotalabs_pc_f16_widen");
    let w16 = widened.get::<f16>("weight");
    let w: Vec<f32> = w16.iter().map(|v| v.to_f32()).collect();
    let axis = axis_of(widened, "weight", 0);
    let wide = Quantized::of(&w, axis, &Scheme::tutorial_symmetric(CodeRange::I8));
    widened.check("q", &wide.codes);
    widened.check("scales", &wide.scales());
    widened.check("dequantized_f16", &to_f16(&wide.restored));

    let native = group.case("rotalabs_pc_f16_native");
    let params = channel_params(&w, axis, &Scheme::rotalabs_native_f16()).unwrap();
    let (mut codes, mut restored) = (vec![0_i8; w.len()], vec![0.0; w.len()]);
    quantize_per_channel_in_f16(&w16, axis, &params, &mut codes).unwrap();
    dequantize_per_channel(&codes, axis, &params, &mut restored).unwrap();
    native.check("q", &codes);
    native.check("scales", &params.iter().map(QParams::scale).collect::<Vec<_>>());
    native.check("dequantized_f16", &to_f16(&restored));
    native.check_value("codes_that_differ_from_widen_f32", differing(&codes, &wide.codes));
    assert_eq!(group.starting("rotalabs_").count(), 2);
}

#[test]
fn group_05_is_complete() {
    let group = Group::load("05_per_channel");
    let sum: usize =
        ["pc_", "rowwise_", "lab2_", "rotalabs_"].map(|prefix| group.starting(prefix).count()).iter().sum();
    assert_eq!((sum, group.cases().len()), (34, 34));
}

#[test]
fn group_07_error_metrics() {
    let group = Group::load("07_error_metrics");
    let (mut f32s, mut f16s) = (0, 0);
    for case in group.starting("metrics_") {
        if case.param("for_information") == true {
            continue; // its tensor of 4096 x 4096 is not stored
        }
        let half = case.dtype("x") == f16::DTYPE;
        let x: Vec<f32> = match half {
            true => case.get::<f16>("x").iter().map(|v| v.to_f32()).collect(),
            false => case.get("x"),
        };
        let scheme = Scheme::tutorial_symmetric(CodeRange::I8);
        let shape = match case.param("granularity").as_str() {
            Some("per_channel") => case.shape("x").to_vec(),
            Some("per_tensor") => vec![1, x.len()],
            other => panic!("{}: granularity {other:?}", case.name),
        };
        let got = Quantized::of(&x, ChannelAxis::new(&shape, 0).unwrap(), &scheme);
        case.check("q", &got.codes);
        case.check("scale", &got.scales());
        let metrics = if half {
            let restored = to_f16(&got.restored);
            case.check("restored", &restored);
            f16s += 1;
            ErrorMetrics::of_f16(&case.get::<f16>("x"), &restored).unwrap()
        } else {
            case.check("restored", &got.restored);
            f32s += 1;
            ErrorMetrics::of(&x, &got.restored).unwrap()
        };
        for label in case.value_labels() {
            // Nothing over nothing: the figure with epsilon is -inf, the one without +inf, in both definitions.
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
    assert_eq!((f32s, f16s), (12, 8));
}

/// Weights restored to f16 before they are multiplied, f16 in and out.
#[test]
fn group_07_w8a16() {
    let group = Group::load("07_error_metrics");
    let mut run = 0;
    for case in group.starting("w8a16_") {
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
        run += 1;
    }
    assert_eq!(run, 3);
}
