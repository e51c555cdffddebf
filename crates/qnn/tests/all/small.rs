//! The smallest models that have all parts.

use qkernels::MatRef;
use qnn::{
    FloatLinear, FloatMlp, Method, Mlp, PassConfig, QuantConfig, QuantMlp, WeightConfig, quantize_model,
};

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

/// A model with layers of every form: fc1 is dynamic, fc3 has float activations, fc4 is float, and
/// all others are static. Each has so many outputs, the first one the columns of `x` as inputs.
pub(crate) fn mixed_model(outputs: &[usize], x: MatRef<'_, f32>) -> Mlp {
    let mut inputs = x.cols();
    let layers = outputs.iter().enumerate().map(|(at, &n)| {
        let k = std::mem::replace(&mut inputs, n);
        linear(&format!("fc{}", at + 1), n, k)
    });
    let mut model = Mlp::from(FloatMlp::new(layers.collect()).unwrap());
    let config = PassConfig::default()
        .with_rule("fc1", Method::Dynamic(Default::default()))
        .with_rule("fc3", Method::WeightOnly(WeightConfig::default().in_groups_of(16)))
        .with_rule("fc4", Method::Float);
    quantize_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
    model
}
