//! The figures that the sources state. Every one that is right is computed again here, and every
//! one that is wrong or loose is named in the documentation.

use std::fs;
use std::path::Path;

use qcore::{
    CodeRange, ErrorMetrics, QParams, Range, Scheme, WeightStorage, dequantize_slice, packed_bytes,
    quantize_tensor,
};
use serde_json::Value;

use crate::fixture;

/// The layers of TinyTorch's example: inputs and outputs.
const MLP: [(u64, u64); 3] = [(784, 256), (256, 128), (128, 10)];

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;

/// Counts codes only, of weights and biases alike, and leaves out scales.
const INT8_CODES: WeightStorage =
    WeightStorage { bits: 8, group: None, scale_bytes: 0, zero_point_bytes: 0, bias_bytes: 1 };

fn bytes(layers: &[(u64, u64)], storage: WeightStorage) -> f64 {
    layers.iter().map(|&(k, n)| storage.linear_bytes(k, n)).sum::<u64>() as f64
}

fn parameters(layers: &[(u64, u64)]) -> Vec<f64> {
    layers.iter().map(|layer| bytes(&[*layer], INT8_CODES)).collect()
}

/// A million values, evenly spaced from -0.5 to 0.5, quantized and restored.
fn evenly_spaced() -> ErrorMetrics {
    let x: Vec<f32> = (0..=1_000_000).map(|i| (f64::from(i) / 1e6 - 0.5) as f32).collect();
    let (codes, p) = quantize_tensor::<i8>(&x, &Scheme::tinytorch()).unwrap();
    let mut restored = vec![0.0; x.len()];
    dequantize_slice(&codes, &p, &mut restored).unwrap();
    ErrorMetrics::of_in_f64(&x, &restored).unwrap()
}

fn tinytorch(min: f32, max: f32) -> QParams {
    Scheme::tinytorch().choose(Range::new(min, max).unwrap()).unwrap()
}

fn toy() -> QParams {
    let codes = CodeRange::signed(2).unwrap();
    Scheme::lab2_linear(codes).choose(Range::new(-0.25, 0.75).unwrap()).unwrap()
}

/// The figures that answer a question; `None` if there is no answer here.
fn answer(question: &str) -> Option<Vec<f64>> {
    let (f32_bytes, int8_bytes) = (bytes(&MLP, WeightStorage::F32), bytes(&MLP, INT8_CODES));
    let lanes = |bits: u64| 512 / bits;
    let of_7b = |bits| packed_bytes(7_000_000_000, bits) as f64 / 1e9;
    let simple_mlp = [(784, 512), (512, 512), (512, 10)];
    let one = match question {
        "Q1 parameters per layer" => return Some(parameters(&MLP)),
        "Q1 parameters in all" => parameters(&MLP).iter().sum(),
        "Q1 FP32 bytes" => f32_bytes,
        "Q1 FP32 MB" => f32_bytes / MIB,
        "Q1 INT8 bytes" => int8_bytes,
        "Q1 INT8 MB" => int8_bytes / MIB,
        "Q1 savings MB" => (f32_bytes - int8_bytes) / MIB,
        "Q1 reduction percent, compression" => {
            return Some(vec![100.0 * (1.0 - int8_bytes / f32_bytes), f32_bytes / int8_bytes]);
        }
        "Q1 INT8 bytes with f32 per-channel scales and f32 bias" => bytes(&MLP, WeightStorage::default()),
        "Q2 scale" => tinytorch(-0.5, 0.5).scale_f64(),
        "Q2 maximum error" => tinytorch(-0.5, 0.5).scale_f64() / 2.0,
        "Q2 SNR dB" => 20.0 * f64::from(CodeRange::I8.steps()).log10(),
        "Q2 SNR dB measured on 1,000,001 evenly spaced values" => evenly_spaced().sqnr_db,
        "Q2 measured maximum error" => evenly_spaced().max_abs_error,
        "dB per bit" => 20.0 * 2_f64.log10(),
        "Q4 FP32 size MB, 100M parameters" => packed_bytes(100_000_000, 32) as f64 / MIB,
        "Q4 INT8 size MB" => packed_bytes(100_000_000, 8) as f64 / MIB,
        "Q4 FP32 load seconds" => 381.0 / 500.0,
        "Q4 INT8 load seconds" => 95.0 / 500.0,
        "Q4 speedup" => packed_bytes(100_000_000, 32) as f64 / packed_bytes(100_000_000, 8) as f64,
        "Q5 FP32 lanes in 512 bits" => lanes(32) as f64,
        "Q5 INT8 lanes in 512 bits" => lanes(8) as f64,
        "Q5 theoretical speedup" => (lanes(8) / lanes(32)) as f64,
        "zero point of [-1, 3]" => tinytorch(-1.0, 3.0).zero_point().into(),
        "zero point of [-2, 2]" => tinytorch(-2.0, 2.0).zero_point().into(),
        "round trip of 1.5 with scale 0.02, zero point -25" => {
            let p = QParams::with_f64_scale(0.02, -25, CodeRange::I8).unwrap();
            assert_eq!(p.fake_quantize(1.5), 1.5);
            p.quantize(1.5).into()
        }
        "BERT-base MB" => packed_bytes(110_000_000, 32) as f64 / MIB,
        "GPT-3 GB" => packed_bytes(175_000_000_000, 32) as f64 / GIB,
        "GPT-2 GB" => packed_bytes(1_500_000_000, 32) as f64 / GIB,
        "linear 512x256 FP32 bytes" => bytes(&[(512, 256)], WeightStorage::F32),
        "linear 512x256 INT8 bytes" => bytes(&[(512, 256)], WeightStorage::default()),
        "linear 512x256 compression" => {
            bytes(&[(512, 256)], WeightStorage::F32) / bytes(&[(512, 256)], WeightStorage::default())
        }
        "SimpleMLP 784-512-512-10 FP32 bytes" => bytes(&simple_mlp, WeightStorage::F32),
        "SimpleMLP INT8 bytes" => bytes(&simple_mlp, WeightStorage::default()),
        "SimpleMLP compression" => {
            bytes(&simple_mlp, WeightStorage::F32) / bytes(&simple_mlp, WeightStorage::default())
        }
        "7B parameters GB: FP32, FP16, INT8, INT4" => return Some([32, 16, 8, 4].map(of_7b).to_vec()),
        "INT8 memory reduction against FP16" => {
            100.0 * (1.0 - packed_bytes(1000, 8) as f64 / packed_bytes(1000, 16) as f64)
        }
        "largest possible relative error of a significant value (> 10% of max)" => {
            let p = Scheme::weights_i8().choose(Range::new(-127.0, 127.0).unwrap()).unwrap();
            100.0 * (p.scale_f64() / 2.0) / (0.1 * 127.0)
        }
        "toy demo scale" => toy().scale_f64(),
        "toy demo zero point" => toy().zero_point().into(),
        _ => return None,
    };
    Some(vec![one])
}

/// Statements that are not numbers.
fn is_reproduced(question: &str) -> bool {
    match question {
        // `x.matmul(weight)` with the layout (in, out) runs in the manifest, as
        // tinytorch_quantized_linear.
        "weight layout" => true,
        _ => false,
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => value.as_f64().into_iter().collect(),
    }
}

fn answers() -> Vec<Value> {
    let answers: Value =
        serde_json::from_slice(&fs::read(fixture::dir().join("answers.json")).unwrap()).unwrap();
    answers["answers"].as_array().unwrap().clone()
}

#[test]
fn every_figure_that_is_right() {
    let (mut right, mut others) = (0, 0);
    for entry in answers() {
        let question = entry["question"].as_str().unwrap();
        let ok = entry["status"] == "ok";
        let (Some(got), want) = (answer(question), numbers(&entry["computed"])) else {
            assert!(!ok || is_reproduced(question), "nothing computes {question:?}");
            right += usize::from(ok);
            continue;
        };
        let tolerance = entry["computed_relative_tolerance"].as_f64().unwrap_or(0.0);
        assert_eq!(got.len(), want.len(), "{question}");
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= tolerance * want.abs(), "{question}: {got}, expected {want}");
        }
        *if ok { &mut right } else { &mut others } += 1;
    }
    assert_eq!((right, others), (29, 12));
}

#[test]
fn every_figure_that_is_wrong_or_loose_is_in_the_documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/quantization.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut listed = 0;
    for entry in answers() {
        if entry["status"] == "wrong" || entry["status"] == "loose" {
            let question = entry["question"].as_str().unwrap();
            assert!(text.contains(&format!("| {question} |")), "{question:?} is not in {}", path.display());
            listed += 1;
        }
    }
    assert_eq!(listed, 13);
}
