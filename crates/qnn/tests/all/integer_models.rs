//! Which MLPs compute with integers only, and what is said about those that do not.

use qcore::{ActivationFunction, CodeRange, QParams, Scheme};
use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{
    LayerError, Linear, LinearWorkspace, Method, Mlp, PassConfig, PassLayerError, QuantMlp,
    QuantizeModelError, StaticConfig, StaticLinear, StaticParts, layers_to_bytes, quantize_model,
};

use crate::small::{float_model, rows};

/// The model of two layers as a pass by `config` leaves it.
fn quantized(config: &PassConfig) -> Mlp {
    let mut model = Mlp::from(float_model());
    let x = [0.0, 1.0, 0.5, -0.5];
    quantize_model(&mut model, config, [rows(&x, 2)], Mlp::run_batch, |_| {}).unwrap();
    model
}

#[test]
fn a_model_of_static_layers_has_integers_only() {
    let mlp = quantized(&PassConfig::default());
    assert_eq!(mlp.unlinked().count(), 0);
    let model = QuantMlp::try_from(mlp.clone()).unwrap();
    assert_eq!(model.to_bytes().unwrap(), layers_to_bytes(&mlp).unwrap());
    assert_eq!(model.layers().map(StaticLinear::name).collect::<Vec<_>>(), ["fc1", "fc2"]);
    let (x, mut workspace) = ([0.25, -0.75, 0.5, 1.0], LinearWorkspace::new());
    let (mut a, mut b) = ([0.0; 4], [0.0; 4]);
    let out = MatMut::new(&mut a, 2, 2).unwrap();
    mlp.forward(rows(&x, 2), out, Threads::Serial, &mut workspace).unwrap();
    let out = MatMut::new(&mut b, 2, 2).unwrap();
    model.forward(rows(&x, 2), out, Threads::Serial, &mut workspace).unwrap();
    assert_eq!(a.map(f32::to_bits), b.map(f32::to_bits));
}

#[test]
fn other_models_are_refused_by_name() {
    let error = |mlp: Mlp| QuantMlp::try_from(mlp).unwrap_err().to_string();
    let float = PassConfig::default().with_rule("fc2", Method::Float);
    assert_eq!(error(quantized(&float)), "layer \"fc2\" is float, expected static");
    let codes = StaticConfig { activations: Scheme::activations_i8(), ..StaticConfig::default() };
    let codes = PassConfig::default().with_rule("fc2", Method::Static(codes));
    assert_eq!(error(quantized(&codes)), "layer \"fc2\" is i8, expected u8");
    let kernels: Vec<_> = Kernel::available().collect();
    if let [first, .., last] = kernels[..] {
        let [a, b] = [first, last].map(|kernel| {
            quantized(&PassConfig { kernel: Some(kernel), ..PassConfig::default() }).layers().to_vec()
        });
        let mixed = Mlp::new(vec![a[0].clone(), b[1].clone()]).unwrap();
        let expected = format!("layer \"fc2\" is {}, expected {}", last.name(), first.name());
        assert_eq!(error(mixed), expected);
    }
}

fn one_weight(name: &str, weight_scale: f32, input_scale: f32) -> Linear {
    let parts = StaticParts {
        name: name.to_owned(),
        weight: MatRef::new(&[1_i8], 1, 1).unwrap(),
        weight_scales: vec![weight_scale],
        weight_zero_points: None,
        bias: None,
        input: QParams::new(input_scale, 0, CodeRange::U8).unwrap(),
        activation: ActivationFunction::Identity,
    };
    StaticLinear::new(parts, Kernel::select().unwrap()).unwrap().into()
}

#[test]
fn layers_that_hand_on_values_are_named() {
    let layers = vec![one_weight("a", 1.0, 1.0), one_weight("b", 1e37, 1.0), one_weight("c", 1e-20, 1e-9)];
    let mlp = Mlp::new(layers).unwrap();
    let unlinked: Vec<_> = mlp.unlinked().collect();
    let [(name, LayerError::Multiplier { channel: 0, sum_scale, output_scale })] = unlinked[..] else {
        panic!("{unlinked:?}")
    };
    assert_eq!((name, *sum_scale, *output_scale), ("b", 1e37, 1e-9));
    // It runs all the same: 3 * 1e37 is beyond the codes of `c`, so it becomes the largest one.
    let mut y = [0.0];
    let (x, out) = (MatRef::new(&[3.0], 1, 1).unwrap(), MatMut::new(&mut y, 1, 1).unwrap());
    mlp.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    assert_eq!(y, [255.0 * (1e-9_f32 * 1e-20)]);
    let error = QuantMlp::try_from(mlp).unwrap_err();
    let QuantizeModelError::Layer(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.layer, "b");
    assert!(matches!(refusal.error, PassLayerError::Quantize(LayerError::Multiplier { .. })), "{refusal}");
}
