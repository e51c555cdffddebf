//! Per-tensor quantization: groups 00 to 04.

use std::path::Path;

use qcore::{
    ChannelAxis, Code, CodeRange, ErrorMetrics, MinMaxObserver, Observer, QParams, Range, Scheme,
    SchemeError, channel_params, dequantize_slice, quantize_per_channel, quantize_slice, quantize_tensor,
};

use super::Outcome;
use crate::fixture::{Case, load_tensors};

fn signed(case: &Case, bits: &str) -> CodeRange {
    CodeRange::signed(case.int(bits) as u32).unwrap()
}

fn restore<C: Code>(codes: &[C], p: &QParams) -> Vec<f32> {
    let mut restored = vec![0.0; codes.len()];
    dequantize_slice(codes, p, &mut restored).unwrap();
    restored
}

fn check_figures(case: &Case, x: &[f32], restored: &[f32]) {
    let in_f32 = ErrorMetrics::of(x, restored).unwrap();
    let in_f64 = ErrorMetrics::of_in_f64(x, restored).unwrap();
    for label in case.value_labels() {
        let figure = match label {
            "max_abs_error" => in_f32.max_abs_error,
            "mean_abs_error" => in_f32.mean_abs_error,
            "mean_relative_error_pct" => in_f32.mean_relative_error_pct,
            "max_abs_error_f64" => in_f64.max_abs_error,
            _ => panic!("{}: what is {label}?", case.name),
        };
        case.check_value(label, figure);
    }
}

/// Ties to even, and away from zero for comparison.
pub(crate) fn rounding(case: &Case) -> Outcome {
    let x = case.get::<f32>("x");
    case.check("half_even", &x.iter().map(|v| v.round_ties_even()).collect::<Vec<_>>());
    case.check("half_away", &x.iter().map(|v| v.round()).collect::<Vec<_>>());
    // The rounding of the crate, seen through a scale of 1.
    let p = QParams::new(1.0, 0, CodeRange::I8).unwrap();
    for (x, want) in x.iter().zip(case.get::<f32>("half_even")) {
        assert_eq!(p.quantize(*x), want.clamp(-128.0, 127.0) as i32, "{x}");
    }
    Outcome::Passed
}

pub(crate) fn symmetric(case: &Case) -> Outcome {
    let x = case.get::<f32>("x");
    let (codes, p) =
        quantize_tensor::<i8>(&x, &Scheme::tutorial_symmetric(signed(case, "num_bits"))).unwrap();
    case.check_scalar("scale", p.scale());
    case.check("q", &codes);
    let restored = restore(&codes, &p);
    case.check("dequantized", &restored);
    check_figures(case, &x, &restored);
    Outcome::Passed
}

pub(crate) fn affine_unsigned(case: &Case) -> Outcome {
    let codes = CodeRange::unsigned(case.int("num_bits") as u32).unwrap();
    let scheme = match case.param("variant").as_str() {
        Some("PyTorch tutorial") => Scheme::tutorial_affine(codes),
        Some("range_includes_zero") => Scheme::onnx_dynamic(codes),
        other => panic!("{}: variant {other:?}", case.name),
    };
    let x = case.get::<f32>("x");
    if case.name.starts_with("asym_range_overflow") {
        // By the formula the scale is inf and every value NaN. Here it is an error.
        assert!(matches!(scheme.choose(Range::of(&x).unwrap()), Err(SchemeError::Overflow { .. })));
        assert_eq!(case.scalar::<f32>("scale"), f32::INFINITY);
        return Outcome::Undefined;
    }
    let (codes, p) = quantize_tensor::<u8>(&x, &scheme).unwrap();
    case.check_scalar("scale", p.scale());
    case.check_scalar("zero_point", p.zero_point());
    case.check("q", &codes);
    let restored = restore(&codes, &p);
    case.check("dequantized", &restored);
    check_figures(case, &x, &restored);
    Outcome::Passed
}

pub(crate) fn tinytorch(case: &Case) -> Outcome {
    match case.name.as_str() {
        "tinytorch_dequantize_example" => {
            let zero_point = case.int("zero_point") as i32;
            let p = QParams::with_f64_scale(case.float("scale"), zero_point, CodeRange::I8).unwrap();
            case.check("dequantized", &restore(&case.get::<i8>("q"), &p));
        }
        "tinytorch_calibrate" => {
            let mut observer = MinMaxObserver::default();
            for sample in 0..5 {
                observer.observe(&case.get::<f32>(&format!("sample{sample}")));
            }
            let p = Scheme::tinytorch().choose(observer.range().unwrap()).unwrap();
            case.check_scalar("scale", p.scale_f64());
            case.check_scalar("zero_point", p.zero_point());
        }
        "tinytorch_quantized_linear" => check_tinytorch_linear(case),
        _ => {
            let x = case.get::<f32>("x");
            let (codes, p) = quantize_tensor::<i8>(&x, &Scheme::tinytorch()).unwrap();
            case.check_scalar("scale", p.scale_f64());
            case.check_scalar("zero_point", p.zero_point());
            case.check("q", &codes);
            let restored = restore(&codes, &p);
            case.check("dequantized", &restored);
            check_figures(case, &x, &restored);
        }
    }
    Outcome::Passed
}

/// A weight stored (in, out), with the bias quantized as a tensor of its own.
fn check_tinytorch_linear(case: &Case) {
    let quantize = |label: &str, q: &str, scale: &str, zero_point: &str| {
        let (codes, p) = quantize_tensor::<i8>(&case.get::<f32>(label), &Scheme::tinytorch()).unwrap();
        case.check(q, &codes);
        case.check_scalar(scale, p.scale_f64());
        case.check_scalar(zero_point, p.zero_point());
        restore(&codes, &p)
    };
    let weight = quantize("weight_in_out", "q_weight", "weight_scale", "weight_zero_point");
    let bias = quantize("bias", "q_bias", "bias_scale", "bias_zero_point");
    let (k, n) = (case.shape("weight_in_out")[0], case.shape("weight_in_out")[1]);
    let x = case.get::<f32>("x");
    let cell = |row: &[f32], o: usize| {
        let products = (0..k).map(|i| f64::from(row[i]) * f64::from(weight[i * n + o]));
        (products.sum::<f64>() + f64::from(bias[o])) as f32
    };
    let y: Vec<f32> =
        x.chunks_exact(k).flat_map(|row| (0..n).map(move |o| (row, o))).map(|(r, o)| cell(r, o)).collect();
    case.check("y", &y);
}

pub(crate) fn lab2_linear(case: &Case) -> Outcome {
    match case.name.as_str() {
        "lab2_ranges" => check_ranges(case),
        "lab2_saturate_given_params" => {
            let zero_point = case.int("zero_point") as i32;
            let p = QParams::with_f64_scale(case.float("scale"), zero_point, signed(case, "bits")).unwrap();
            let x = case.get::<f32>("x");
            let mut codes = vec![0_i8; x.len()];
            quantize_slice(&x, &p, &mut codes).unwrap();
            case.check("q", &codes);
        }
        "lab2_constant_undefined" => {
            let range = Range::of(&case.get::<f32>("x")).unwrap();
            let chosen = Scheme::lab2_linear(signed(case, "bits")).choose(range);
            assert_eq!(chosen, Err(SchemeError::ZeroScale { min: 5.0, max: 5.0 }));
            return Outcome::Undefined;
        }
        "lab2_vgg_weight_histograms" => check_histograms(case),
        _ => {
            let x = case.get::<f32>("x");
            let (codes, p) = quantize_tensor::<i8>(&x, &Scheme::lab2_linear(signed(case, "bits"))).unwrap();
            case.check_scalar("scale", p.scale_f64());
            case.check_scalar("zero_point", p.zero_point());
            case.check("q", &codes);
            case.check("dequantized", &restore(&codes, &p));
        }
    }
    Outcome::Passed
}

fn check_ranges(case: &Case) {
    let (qmin, qmax) = (case.get::<i64>("qmin"), case.get::<i64>("qmax"));
    let mut supported = 0;
    for (i, bits) in case.get::<i32>("bits").into_iter().enumerate() {
        match CodeRange::signed(bits as u32) {
            Ok(codes) => {
                assert_eq!((i64::from(codes.min()), i64::from(codes.max())), (qmin[i], qmax[i]));
                supported += 1;
            }
            Err(_) => assert!(!(2..=8).contains(&bits)),
        }
    }
    assert_eq!(supported, 7);
}

/// Counts the codes of a trained network's weights, and makes a histogram of the weights.
fn check_histograms(case: &Case) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qnn/data/mnist/mnist_vgg_quarter.safetensors");
    let checkpoint = load_tensors(&path);
    let layers = case.value("layers").as_array().unwrap();
    let weights: Vec<_> = layers.iter().map(|name| &checkpoint[name.as_str().unwrap()]).collect();
    assert_eq!(weights.len(), 9);
    for bits in [2, 4, 8] {
        let codes = CodeRange::signed(bits).unwrap();
        let mut counts = vec![];
        for weight in &weights {
            let w = weight.f32();
            let axis = ChannelAxis::new(&weight.shape, 0).unwrap();
            let params = channel_params(&w, axis, &Scheme::lab2_weights(codes)).unwrap();
            let mut q = vec![0_i8; w.len()];
            quantize_per_channel(&w, axis, &params, &mut q).unwrap();
            counts.extend(
                (codes.min()..=codes.max())
                    .map(|code| q.iter().filter(|&&c| i32::from(c) == code).count() as i64),
            );
        }
        case.check(&format!("counts_b{bits}"), &counts);
    }
    let ranges: Vec<Range> = weights.iter().map(|weight| Range::of(&weight.f32()).unwrap()).collect();
    case.check("fp32_min", &ranges.iter().map(|r| r.min()).collect::<Vec<_>>());
    case.check("fp32_max", &ranges.iter().map(|r| r.max()).collect::<Vec<_>>());
    let mut histograms = vec![];
    for (weight, range) in weights.iter().zip(&ranges) {
        let mut bins = [0_i64; 256];
        let (min, max) = (f64::from(range.min()), f64::from(range.max()));
        for w in weight.f32() {
            bins[(((f64::from(w) - min) / (max - min) * 256.0) as usize).min(255)] += 1;
        }
        histograms.extend(bins);
    }
    case.check("fp32_hist256", &histograms);
}
