//! Layers that share their input give the bits that each gives alone.

use qcore::{CodeRange, Range, Scheme};
use qkernels::{Dynamic, Kernel, MatRef, Threads};
use qnn::{
    DynamicLinear, ForwardError, Linear, LinearWorkspace, StaticLinear, WeightConfig, WeightOnlyLinear,
};

use crate::small::linear;

const K: usize = 37;

fn forms(name: &str, n: usize, kernel: Kernel) -> Vec<Linear> {
    let (float, weights) = (linear(name, n, K), WeightConfig::default());
    let dynamic = |how| Linear::from(DynamicLinear::quantize(&float, how, &weights, kernel).unwrap());
    let fixed = |scheme: Scheme, most| {
        let input = scheme.choose(Range::new(-1.0, most).unwrap()).unwrap();
        Linear::from(StaticLinear::quantize(&float, input, &weights, kernel).unwrap())
    };
    let seven_bits = Scheme { codes: CodeRange::unsigned(7).unwrap(), ..Scheme::activations_u8() };
    let weight_only = WeightOnlyLinear::quantize(&float, &WeightConfig::default(), kernel).unwrap();
    let groups = WeightConfig::default().in_groups_of(16);
    let four_bits = WeightConfig::with_bits(4).unwrap();
    let scaled = |how, weights: &WeightConfig| {
        Linear::from(DynamicLinear::quantize(&float, how, weights, kernel).unwrap())
    };
    vec![
        float.clone().into(),
        scaled(Dynamic::default(), &four_bits),
        scaled(Dynamic::PerToken(Scheme::weights_i8()), &groups),
        scaled(Dynamic::PerTensor(Scheme::activations_u8()), &four_bits.in_groups_of(16)),
        scaled(Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 16 }, &groups),
        scaled(
            Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 16 },
            &four_bits.in_groups_of(16),
        ),
        scaled(Dynamic::GgmlQ8_0, &four_bits.in_groups_of(32)),
        dynamic(Dynamic::default()),
        dynamic(Dynamic::PerToken(Scheme::weights_i8())),
        dynamic(Dynamic::PerTensor(Scheme::activations_u8())),
        dynamic(Dynamic::PerToken(seven_bits)),
        fixed(Scheme::activations_u8(), 1.0),
        fixed(Scheme::activations_i8(), 1.0),
        fixed(Scheme::activations_u8(), 0.9),
        weight_only.into(),
    ]
}

#[test]
fn the_bits_are_those_of_each_layer_alone() {
    let mut workspace = LinearWorkspace::new();
    let x: Vec<f32> = (0..9 * 2 * K).map(|i| (i as f32 * 0.37).sin()).collect();
    for kernel in Kernel::available() {
        let layers = [("query", 16), ("key", 16), ("value", 50)].map(|(name, n)| forms(name, n, kernel));
        for x in [
            MatRef::new(&x[..9 * K], 9, K).unwrap(),
            MatRef::with_strides(&x, 9, K, 2 * K, 2).unwrap(),
            MatRef::new(&x[..K], 1, K).unwrap(),
            MatRef::new(&[], 0, K).unwrap(),
        ] {
            for (i, query) in layers[0].iter().enumerate() {
                for (j, key) in layers[1].iter().enumerate() {
                    let value = &layers[2][i];
                    let all = [query, key, value];
                    let got = Linear::forward_shared(all, x, Threads::Serial, &mut workspace).unwrap();
                    let alone =
                        all.map(|layer| layer.forward_vec(x, Threads::Serial, &mut workspace).unwrap());
                    assert_eq!(got, alone, "{kernel}, {i} and {j}, {} rows", x.rows());
                }
            }
        }
    }
    let none = MatRef::new(&x[..K], 1, K).unwrap();
    assert_eq!(Linear::forward_shared([], none, Threads::Serial, &mut workspace), Ok([]));
}

#[test]
fn what_a_layer_refuses_is_refused() {
    let mut workspace = LinearWorkspace::new();
    let layers = ["query", "key"].map(|name| forms(name, 4, Kernel::select().unwrap()));
    for (query, key) in layers[0].iter().zip(&layers[1]) {
        let wide = [0.5; K + 1];
        let x = MatRef::new(&wide, 1, K + 1).unwrap();
        let error = Linear::forward_shared([query, key], x, Threads::Serial, &mut workspace);
        assert_eq!(error, Err(ForwardError::Width { expected: K, got: K + 1 }), "{query:?}");
        let nan = [f32::NAN; K];
        let x = MatRef::new(&nan, 1, K).unwrap();
        let together = Linear::forward_shared([query, key], x, Threads::Serial, &mut workspace);
        let alone = query.forward_vec(x, Threads::Serial, &mut workspace);
        assert_eq!(together.is_err(), alone.is_err());
    }
}

#[test]
fn a_layer_in_any_form_can_be_renamed() {
    for layer in forms("query", 4, Kernel::select().unwrap()) {
        let form = layer.form();
        let renamed = layer.with_name("blocks.0.q");
        assert_eq!((renamed.name(), renamed.form()), ("blocks.0.q", form));
    }
}
