//! Every activation function after a layer of every form: its value, the codes of static layers,
//! and its name in files.

use qcore::{ActivationFunction, OnCodes, Range, Scheme, requantize_activation, requantize_scaled};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::{
    DynamicLinear, FloatLinear, LayerError, LayerFile, Linear, LinearWorkspace, Mlp, QuantMlp, StaticLinear,
    WeightConfig, WeightOnlyLinear, layers_to_bytes,
};
use safetensors::Dtype;

use crate::small::{linear, rows};
use crate::tensor_files::{f32s, sealed};

const FUNCTIONS: [ActivationFunction; 9] = [
    ActivationFunction::Identity,
    ActivationFunction::Relu,
    ActivationFunction::RELU6,
    ActivationFunction::Clamp { min: -0.3, max: f32::INFINITY },
    ActivationFunction::LeakyRelu { slope: 0.1 },
    ActivationFunction::Gelu,
    ActivationFunction::GeluTanh,
    ActivationFunction::Silu,
    ActivationFunction::HardSwish,
];

const WIDTH: usize = 20;

fn float(function: ActivationFunction) -> FloatLinear {
    linear("fc", WIDTH, WIDTH).with_activation(function)
}

/// Rows whose outputs are small and large, on both sides of 0.
fn inputs() -> Vec<f32> {
    (0..33 * WIDTH).map(|i| (i as f32 * 0.61).sin() * (1 + i / 200) as f32).collect()
}

fn static_layer(layer: &FloatLinear, kernel: Kernel) -> StaticLinear {
    let input = Scheme::activations_u8().choose(Range::new(-4.0, 4.0).unwrap()).unwrap();
    StaticLinear::quantize(layer, input, &WeightConfig::default(), kernel).unwrap()
}

/// The layer in every form.
fn forms(layer: &FloatLinear, kernel: Kernel) -> [Linear; 4] {
    [
        layer.clone().into(),
        static_layer(layer, kernel).into(),
        DynamicLinear::quantize(layer, Dynamic::default(), &WeightConfig::default(), kernel).unwrap().into(),
        WeightOnlyLinear::quantize(layer, &WeightConfig::default(), kernel).unwrap().into(),
    ]
}

fn forward(layer: &Linear, x: MatRef<'_, f32>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.rows() * layer.n()];
    let out = MatMut::new(&mut y, x.rows(), layer.n()).unwrap();
    layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_form_applies_every_function_to_what_it_gives_without_one() {
    let x = inputs();
    let x = rows(&x, WIDTH);
    for kernel in Kernel::available() {
        let plain = forms(&float(ActivationFunction::Identity), kernel).map(|layer| forward(&layer, x));
        for function in FUNCTIONS {
            for (layer, plain) in forms(&float(function), kernel).iter().zip(&plain) {
                let expected: Vec<f32> = plain.iter().map(|&y| function.apply(y)).collect();
                let got = forward(layer, x);
                assert_eq!(bits(&got), bits(&expected), "{function} {} {kernel}", layer.form());
            }
        }
    }
}

#[test]
fn codes_are_those_of_the_scalar_functions_and_the_report_counts_them() {
    let x = inputs();
    let x = rows(&x, WIDTH);
    let input = Scheme::activations_u8().choose(Range::new(-1.0, 3.0).unwrap()).unwrap();
    for (function, kernel) in FUNCTIONS.into_iter().flat_map(|f| Kernel::available().map(move |k| (f, k))) {
        let mut layer = static_layer(&float(function), kernel);
        layer.set_output(input).unwrap();
        let codes: Vec<u8> = (0..x.rows() * WIDTH).map(|i| (i * 37 % 256) as u8).collect();
        let codes = MatRef::new(&codes, x.rows(), WIDTH).unwrap();
        let (mut sums, mut got) = (vec![0; x.rows() * WIDTH], vec![0_u8; x.rows() * WIDTH]);
        let mut workspace = LinearWorkspace::new();
        let out = MatMut::new(&mut sums, x.rows(), WIDTH).unwrap();
        layer.forward_sums(codes, out, Threads::Serial, &mut workspace).unwrap();
        let out = MatMut::new(&mut got, x.rows(), WIDTH).unwrap();
        layer.forward_codes(codes, out, Threads::Serial, &mut workspace).unwrap();
        let (scale, zero_point) = (input.scale(), input.zero_point());
        for (i, (&sum, &got)) in sums.iter().zip(&got).enumerate() {
            let weight_scale = layer.weight_scales()[i % WIDTH];
            let expected = match function.on_codes() {
                OnCodes::RealValues => {
                    let factor = layer.input().scale() * weight_scale;
                    requantize_activation(sum, factor, function, scale, zero_point, 0, 255)
                }
                _ => {
                    let multiplier = qcore::output_multiplier(layer.input().scale(), weight_scale, scale);
                    let (low, high) = function.as_code_bounds(scale, zero_point, 0, 255).unwrap_or((0, 255));
                    let scaled = function.after_multiplier(sum as f32 * multiplier);
                    requantize_scaled(scaled, zero_point, low, high)
                }
            };
            assert_eq!(i32::from(got), expected, "{function} {kernel}: sum {sum} at {i}");
        }

        let last = linear("head", 3, WIDTH);
        let last = StaticLinear::quantize(&last, input, &WeightConfig::default(), kernel).unwrap();
        let model = QuantMlp::try_from(Mlp::new(vec![layer.into(), last.into()]).unwrap()).unwrap();
        let restored = QuantMlp::from_bytes(&model.to_bytes().unwrap(), Some(kernel)).unwrap();
        let run = |model: &QuantMlp| {
            let mut y = vec![f32::NAN; x.rows() * 3];
            let out = MatMut::new(&mut y, x.rows(), 3).unwrap();
            model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
            bits(&y)
        };
        assert_eq!(run(&model), run(&restored), "{function} {kernel}");
    }
}

#[test]
fn files_name_functions_and_their_parameters() {
    let kernel = Kernel::select().unwrap();
    for function in FUNCTIONS {
        for layer in forms(&float(function), kernel) {
            let bytes = layers_to_bytes(&layer).unwrap();
            let restored = LayerFile::parse(&bytes).unwrap().take("fc", Some(kernel)).unwrap();
            assert_eq!((restored.activation(), restored.form()), (function, layer.form()));
            assert_eq!(layers_to_bytes(&restored).unwrap(), bytes);
            let text = String::from_utf8_lossy(&bytes);
            let has_parameters = function.parameters().count() > 0;
            assert_eq!(text.contains("activation_parameters"), has_parameters, "{function}");
        }
    }
}

/// A file with one f32 layer of one weight, with this activation function.
fn read(activation: &str) -> Result<ActivationFunction, String> {
    let weight = f32s(&[1.0]);
    let description = |checksum: &str| {
        format!(
            "{{\"format\":\"qnn.layers\",\"version\":2,\"requantize\":\"f32_round_ties_even_then_zero_point\",\
             \"layers\":[{{\"name\":\"q\",\"form\":\"float\",{activation}}}],\"checksum\":\"{checksum}\"}}"
        )
    };
    let bytes = sealed(&[("q.weight", Dtype::F32, &[1, 1], &weight)], description, None);
    let layer = LayerFile::parse(&bytes).and_then(|mut file| file.take("q", None));
    layer.map(|layer| layer.activation()).map_err(|error| error.to_string())
}

#[test]
fn what_is_no_function_is_refused() {
    let leaky = "\"activation\":\"leaky_relu\",\"activation_parameters\":[\"5e-1\"]";
    assert_eq!(read(leaky), Ok(ActivationFunction::LeakyRelu { slope: 0.5 }));
    assert_eq!(read("\"activation\":\"silu\""), Ok(ActivationFunction::Silu));
    assert_eq!(
        read("\"activation\":\"identity\"").unwrap_err(),
        "activation is \"identity\", expected none or the name of an activation function"
    );
    for (activation, message) in [
        ("\"activation\":\"clamp\"", "activation_parameters is \"\", expected those of clamp"),
        (
            "\"activation\":\"relu\",\"activation_parameters\":[\"1e0\"]",
            "activation_parameters is \"1e0\", expected those of relu",
        ),
        (
            "\"activation\":\"clamp\",\"activation_parameters\":[\"1e0\",\"0e0\"]",
            "activation_parameters is \"1e0, 0e0\", expected those of clamp",
        ),
        (
            "\"activation\":\"leaky_relu\",\"activation_parameters\":[\"NaN\"]",
            "activation_parameters is \"NaN\", expected those of leaky_relu",
        ),
        (
            "\"activation\":\"leaky_relu\",\"activation_parameters\":[\"half\"]",
            "activation_parameters is \"half\", expected a number",
        ),
    ] {
        let error = read(activation).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    // Quantized layers are checked when they are made.
    let bad = float(ActivationFunction::Clamp { min: 1.0, max: 0.0 });
    let error = DynamicLinear::quantize(
        &bad,
        Dynamic::default(),
        &WeightConfig::default(),
        Kernel::select().unwrap(),
    );
    assert!(matches!(error, Err(LayerError::Activation(_))));
    // F32 layers are checked when they are run, or saved.
    let x = vec![0.0; bad.k()];
    let mut y = vec![7.0; bad.n()];
    let (input, out) = (MatRef::new(&x, 1, bad.k()).unwrap(), MatMut::new(&mut y, 1, bad.n()).unwrap());
    let message = "clamp bounds 1.0 and 0.0 are not in order";
    let error = bad.forward(input, out, Threads::Serial).unwrap_err().to_string();
    assert!(error.ends_with(message), "{error}");
    assert!(y.iter().all(|&y| y == 7.0));
    let error = layers_to_bytes(&Linear::from(bad)).unwrap_err().to_string();
    assert!(error.ends_with(message), "{error}");
}
