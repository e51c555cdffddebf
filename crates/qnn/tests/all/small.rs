//! The smallest models that have all parts.

use qkernels::MatRef;
use qnn::{FloatLinear, FloatMlp, QuantConfig, QuantMlp};

pub(crate) fn linear(name: &str, n: usize, k: usize) -> FloatLinear {
    let weight = (0..n * k).map(|i| (i as f32 * 0.7).sin()).collect();
    FloatLinear::new(name, n, k, weight, vec![0.1; n]).unwrap()
}

pub(crate) fn float_model() -> FloatMlp {
    FloatMlp::new(vec![linear("fc1", 3, 2), linear("fc2", 2, 3)]).unwrap()
}

pub(crate) fn rows(values: &[f32], cols: usize) -> MatRef<'_, f32> {
    MatRef::new(values, values.len() / cols, cols).unwrap()
}

pub(crate) fn quant_model() -> QuantMlp {
    let float = float_model();
    let calibrated = float.calibrate([rows(&[0.0, 1.0, 0.5, -0.5], 2)]).unwrap();
    calibrated.quantize(&QuantConfig::default()).unwrap()
}
