//! Layers whose inputs are in groups in any order (act-order): in checkpoints, side by side, and in
//! files.

use qcore::Scheme;
use qkernels::{Dynamic, Kernel, MatRef, PackedWeights, ScaledWeights, Threads, WeightScales};
use qnn::{
    CodesForm, DynamicLinear, GptqZeros, LayerFile, Linear, LinearWorkspace, PackedLayout, WeightOnlyLinear,
    layers_to_bytes,
};
use safetensors::Dtype;

use crate::contents::Contents;
use crate::packed::{FORMS, W4A8, run, take};
use crate::small::linear;
use crate::tensor_files::{Tensors, f32s, i32s, i64s};

/// A GPTQ layer of n = 8 and k = `of_inputs.len()` in groups of 16: codes that differ from input to
/// input, a scale for each group.
fn gptq(of_inputs: &[i32]) -> Tensors {
    let (k, groups) = (of_inputs.len(), of_inputs.len().div_ceil(16));
    let word = |at: usize| (0x7531_8642_u32.rotate_left(4 * at as u32)).cast_signed();
    let words: Vec<i32> = (0..k).map(word).collect(); // k / 8 rows of 8
    let scales: Vec<f32> = (0..8 * groups).map(|at| 0.5 + at as f32).collect();
    vec![
        ("q.qweight", Dtype::I32, vec![k / 8, 8], i32s(&words)),
        ("q.qzeros", Dtype::I32, vec![groups, 1], i32s(&vec![0x8888_8888_u32.cast_signed(); groups])),
        ("q.scales", Dtype::F32, vec![groups, 8], f32s(&scales)),
        ("q.g_idx", Dtype::I32, vec![k], i32s(of_inputs)),
    ]
}

const LAYOUT: PackedLayout = PackedLayout::Gptq { bits: 4, group: Some(16), zeros: GptqZeros::Plain };

fn weights(layer: &Linear) -> &ScaledWeights {
    match layer {
        Linear::WeightOnly(layer) => layer.weights(),
        Linear::Dynamic(layer) => match layer.weights() {
            qnn::DynamicWeights::Scaled(weights) => weights,
            other => panic!("{other:?}"),
        },
        other => panic!("{}", other.form()),
    }
}

#[test]
fn inputs_are_packed_group_after_group_as_they_lie_within_each() {
    let kernel = Kernel::select().unwrap();
    let in_turn: Vec<i32> = (0..32).map(|input| 1 - input % 2).collect();
    let order: Vec<u32> = (0..32).map(|p| if p < 16 { 2 * p + 1 } else { 2 * (p - 16) }).collect();
    for form in [CodesForm::WeightOnly, W4A8] {
        let layer = take(&gptq(&in_turn), LAYOUT, form, kernel).unwrap();
        assert_eq!(weights(&layer).input_order(), Some(&order[..]));
        // Where groups follow each other there is no order.
        let in_place: Vec<i32> = (0..32).map(|input| input / 16).collect();
        let plain = take(&gptq(&in_place), LAYOUT, form, kernel).unwrap();
        assert_eq!(weights(&plain).input_order(), None);
        assert_eq!(layer.storage().total(), plain.storage().total() + 4 * 32);
        assert_eq!(weights(&layer).bytes(), weights(&plain).bytes() + 4 * 32);
    }
    // Codes of the dynamic form in the order of columns.
    let Linear::Dynamic(layer) = take(&gptq(&in_turn), LAYOUT, W4A8, kernel).unwrap() else { panic!() };
    let in_place: Vec<i32> = (0..32).map(|input| input / 16).collect();
    let Linear::Dynamic(plain) = take(&gptq(&in_place), LAYOUT, W4A8, kernel).unwrap() else { panic!() };
    assert_eq!(layer.weights().input_order(), Some(&order[..]));
    for (codes, plain) in layer.weights().unpack().chunks(32).zip(plain.weights().unpack().chunks(32)) {
        let expected: Vec<i8> = order.iter().map(|&input| plain[input as usize]).collect();
        assert_eq!(codes, expected);
    }
}

#[test]
fn the_last_group_may_be_short_and_no_other() {
    let kernel = Kernel::select().unwrap();
    // 24 inputs in groups of 16: the first group has every third input but 8.
    let of = |short: i32| (0..24).map(|input| if input % 3 == 0 { short } else { 1 - short }).collect();
    let (good, bad): (Vec<i32>, Vec<i32>) = (of(1), of(0));
    let layer = take(&gptq(&good), LAYOUT, W4A8, kernel).unwrap();
    assert_eq!(weights(&layer).input_order().unwrap()[16..], [0, 3, 6, 9, 12, 15, 18, 21]);
    for form in FORMS {
        let error = take(&gptq(&bad), LAYOUT, form, kernel).unwrap_err();
        assert_eq!(error, r#"tensor "q.g_idx": group 0 has 8 inputs, expected 16"#);
    }
}

#[test]
fn groups_that_are_none_are_refused_with_numbers() {
    let kernel = Kernel::select().unwrap();
    let fails = |at: usize, group: i32, message: &str| {
        let mut of_inputs: Vec<i32> = (0..48).map(|input| input / 16).collect();
        of_inputs[at] = group;
        for form in FORMS {
            assert_eq!(take(&gptq(&of_inputs), LAYOUT, form, kernel).unwrap_err(), message);
        }
    };
    fails(5, 3, r#"tensor "q.g_idx": input 5 is in group 3, which is none of 0..3"#);
    fails(47, -1, r#"tensor "q.g_idx": input 47 is in group -1, which is none of 0..3"#);
    fails(0, i32::MIN, r#"tensor "q.g_idx": input 0 is in group -2147483648, which is none of 0..3"#);
    fails(5, 1, r#"tensor "q.g_idx": group 0 has 15 inputs, expected 16"#);
    // What other programs write where there is no order to speak of.
    let error = take(&gptq(&[0; 48]), LAYOUT, W4A8, kernel).unwrap_err();
    assert_eq!(error, r#"tensor "q.g_idx": group 0 has 48 inputs, expected 16"#);
    let mut typed = gptq(&[0; 16]);
    typed[3] = ("q.g_idx", Dtype::F32, vec![16], f32s(&[0.0; 16]));
    let error = take(&typed, LAYOUT, W4A8, kernel).unwrap_err();
    assert_eq!(error, r#"tensor "q.g_idx" is F32, expected I32"#);
    // One group for all takes any number of inputs.
    let whole = PackedLayout::Gptq { bits: 4, group: None, zeros: GptqZeros::Plain };
    let mut one = gptq(&[0; 48]);
    one[1] = ("q.qzeros", Dtype::I32, vec![1, 1], i32s(&[0]));
    one[2] = ("q.scales", Dtype::F32, vec![1, 8], f32s(&[0.5; 8]));
    let layer = take(&one, whole, W4A8, kernel).unwrap();
    assert_eq!(weights(&layer).input_order(), None);
    let two: Tensors = vec![
        ("q.weight_packed", Dtype::I32, vec![1, 4], i32s(&[0; 4])),
        ("q.weight_shape", Dtype::I64, vec![2], i64s(&[1, 32])),
        ("q.weight_scale", Dtype::F32, vec![1, 2], f32s(&[0.5; 2])),
        ("q.weight_g_idx", Dtype::I64, vec![32], i64s(&[2; 32])),
    ];
    let layout = PackedLayout::PackQuantized { bits: 4, group: Some(16) };
    let error = take(&two, layout, W4A8, kernel).unwrap_err();
    assert_eq!(error, r#"tensor "q.weight_g_idx": input 0 is in group 2, which is none of 0..2"#);
    // As compressed-tensors says that there is no order.
    let mut unset = two;
    unset[3].3 = i64s(&[-1; 32]);
    assert_eq!(weights(&take(&unset, layout, W4A8, kernel).unwrap()).input_order(), None);
    unset[3].3 = i64s(&[&[0][..], &[-1; 31]].concat());
    let error = take(&unset, layout, W4A8, kernel).unwrap_err();
    assert_eq!(error, r#"tensor "q.weight_g_idx": input 1 is in group -1, which is none of 0..2"#);
}

/// Weights of 8 bits in groups of 16 whose k is in the reverse order.
fn reversed(kernel: Kernel, scale: f32) -> ScaledWeights {
    let codes: Vec<i8> = (0..3 * 40).map(|i| (i * 37 % 256) as u8 as i8).collect();
    let weights = PackedWeights::from_nk(MatRef::new(&codes, 3, 40).unwrap(), kernel).unwrap();
    let scales: Vec<f32> = (1..=9).map(|i| scale * i as f32).collect();
    let weights = ScaledWeights::new(weights, WeightScales::per_group(&scales, 16)).unwrap();
    weights.with_input_order(&(0..40).rev().collect::<Vec<u32>>()).unwrap()
}

#[test]
fn layers_of_several_orders_share_their_input() {
    let mut workspace = LinearWorkspace::new();
    let x: Vec<f32> = (0..5 * 40).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = MatRef::new(&x, 5, 40).unwrap();
    for kernel in Kernel::available() {
        for scheme in [Scheme::weights_i8(), Scheme::activations_u8()] {
            let how = Dynamic::PerToken(scheme);
            let of = |weights| Linear::from(DynamicLinear::from_weights(weights, None, how).unwrap());
            let rotated: Vec<u32> = (0..40).map(|p| (p + 7) % 40).collect();
            let layers = [
                of(reversed(kernel, 0.5)),
                of(reversed(kernel, 0.25).with_input_order(&rotated).unwrap()),
                of(reversed(kernel, 1.0).with_input_order(&(0..40).collect::<Vec<u32>>()).unwrap()),
            ];
            let [a, b, c] = &layers;
            let shared = Linear::forward_shared([a, b, c], x, Threads::Serial, &mut workspace).unwrap();
            let alone = [a, b, c].map(|layer| layer.forward_vec(x, Threads::Serial, &mut workspace).unwrap());
            assert_eq!(shared, alone, "{kernel}");
        }
    }
}

/// Both forms.
fn saved() -> [Contents; 2] {
    let weights = reversed(Kernel::select().unwrap(), 0.5);
    let weight_only = WeightOnlyLinear::from_weights(weights.clone(), None).unwrap().with_name("fc");
    let dynamic = DynamicLinear::from_weights(weights, None, Dynamic::default()).unwrap().with_name("fc");
    [Linear::from(weight_only), dynamic.into()].map(|layer| Contents::of(&layers_to_bytes(&layer).unwrap()))
}

#[test]
fn the_format_of_orders_is_what_its_documentation_says() {
    let x: Vec<f32> = (0..40).map(|i| (i as f32 * 0.37).sin()).collect();
    for contents in saved() {
        let (dtype, shape, data) = &contents.tensors["fc.input_order"];
        let expected: Vec<u8> = (0..40_u32).rev().flat_map(u32::to_le_bytes).collect();
        assert_eq!((*dtype, &shape[..], data), (Dtype::U32, &[40][..], &expected));
        assert_eq!(contents.description["version"], 6);
        assert_eq!(contents.description["layers"][0]["input_order"], true);
        let bytes = contents.to_bytes();
        let mut outputs = Vec::new();
        for kernel in Kernel::available() {
            let restored = LayerFile::parse(&bytes).unwrap().take("fc", Some(kernel)).unwrap();
            assert!(layers_to_bytes(&restored).unwrap() == bytes);
            outputs.push(run(&restored, &x));
        }
        if contents.description["layers"][0]["form"] == "dynamic" {
            assert!(outputs.iter().all(|output| *output == outputs[0]));
        }
    }
    // Scales per channel have no group, and may have an order.
    let kernel = Kernel::select().unwrap();
    let codes = MatRef::new(&[1_i8, 2, 3], 1, 3).unwrap();
    let weights =
        ScaledWeights::new(PackedWeights::from_nk(codes, kernel).unwrap(), WeightScales::per_channel(&[0.5]));
    let weights = weights.unwrap().with_input_order(&[1, 2, 0]).unwrap();
    let layer = Linear::from(WeightOnlyLinear::from_weights(weights.clone(), None).unwrap().with_name("fc"));
    let dynamic = DynamicLinear::from_weights(weights, None, Dynamic::default()).unwrap().with_name("fc");
    for layer in [layer, dynamic.into()] {
        let bytes = layers_to_bytes(&layer).unwrap();
        let restored = LayerFile::parse(&bytes).unwrap().take("fc", None).unwrap();
        assert!(layers_to_bytes(&restored).unwrap() == bytes);
        assert_eq!(run(&restored, &[1.0, 10.0, 100.0]), run(&layer, &[1.0, 10.0, 100.0]));
    }
}

#[test]
fn orders_in_files_are_checked() {
    for good in saved() {
        let error = |alter: &dyn Fn(&mut Contents)| {
            let mut contents = good.clone();
            alter(&mut contents);
            let bytes = contents.to_bytes();
            let mut file = match LayerFile::parse(&bytes) {
                Ok(file) => file,
                Err(error) => return error.to_string(),
            };
            file.take("fc", None).and_then(|_| file.finish()).unwrap_err().to_string()
        };
        let order = |dtype, shape: Vec<usize>, order: Vec<u32>| {
            move |c: &mut Contents| {
                let data = order.iter().flat_map(|v| v.to_le_bytes()).collect();
                drop(c.tensors.insert("fc.input_order".to_owned(), (dtype, shape.clone(), data)));
            }
        };
        let of = |alter: &dyn Fn(&mut Vec<u32>)| {
            let mut inputs: Vec<u32> = (0..40).rev().collect();
            alter(&mut inputs);
            order(Dtype::U32, vec![inputs.len()], inputs)
        };
        let refused = "of the order is none of 0..40";
        assert_eq!(error(&of(&|o| o[3] = 40)), format!(r#"layer "fc": input 40 at position 3 {refused}"#));
        assert_eq!(
            error(&of(&|o| o[0] = u32::MAX)),
            format!(r#"layer "fc": input 4294967295 at position 0 {refused}"#)
        );
        assert_eq!(
            error(&of(&|o| o[39] = 39)),
            r#"layer "fc": input 39 is in the order twice, the second time at position 39"#
        );
        assert_eq!(
            error(&of(&|o| o.truncate(39))),
            r#"tensor "fc.input_order" has shape [39], expected [40]"#
        );
        assert_eq!(
            error(&order(Dtype::U32, vec![1, 40], (0..40).collect())),
            r#"tensor "fc.input_order" has shape [1, 40], expected [40]"#
        );
        assert_eq!(
            error(&order(Dtype::I32, vec![40], (0..40).rev().collect())),
            r#"tensor "fc.input_order" is I32, expected U32"#
        );
        assert_eq!(
            error(&|c| drop(c.tensors.remove("fc.input_order"))),
            r#"tensor "fc.input_order" is missing"#
        );
        let without = |c: &mut Contents| {
            drop(c.description["layers"][0].as_object_mut().unwrap().remove("input_order"));
        };
        assert!(error(&without).starts_with("version 6 of the format, expected"), "{}", error(&without));
        assert_eq!(error(&|c| c.description["version"] = 5.into()), "version 5 of the format, expected 6");
    }
    let float = Contents::of(&layers_to_bytes(&Linear::from(linear("fc", 2, 16))).unwrap());
    let mut contents = float.clone();
    contents.description["version"] = 6.into();
    contents.description["layers"][0]["input_order"] = true.into();
    let bytes = contents.to_bytes();
    let error = LayerFile::parse(&bytes).unwrap().take("fc", None).unwrap_err();
    assert_eq!(error.to_string(), r#"layer "fc" is float: "input_order" must not be there"#);
}
