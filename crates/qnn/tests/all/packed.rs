//! Packed weights of other programs: what these stand for, and what is wrong with some.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use qcore::{ActivationFunction, Range, Scheme};
use qkernels::{Dynamic, Kernel, MatRef, Threads};
use qnn::{
    Checkpoint, CodesForm, GptqZeros, LayerFile, Linear, LinearWorkspace, PackedLayout, layers_to_bytes,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::tensor_files::{Tensors, f32s, file, i32s, i64s};

pub(crate) const W4A8: CodesForm = CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8()));
pub(crate) const FORMS: [CodesForm; 3] = [CodesForm::Float, W4A8, CodesForm::WeightOnly];

/// The numbers of the packages for a layer, `dequantized` or others, by their names.
type Expected = HashMap<String, Vec<f64>>;

/// The tensors of each layer of the file, by the layer's name, and what they stand for.
fn layers() -> Vec<(String, Tensors, Expected)> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/packed/packed.safetensors"].iter().collect();
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<&str> = tensors.names();
    names.sort_unstable();
    let mut layers: Vec<(String, Tensors, Expected)> = Vec::new();
    for name in names {
        let (layer, part) = name.rsplit_once('/').unwrap();
        if layers.last().is_none_or(|(last, ..)| last != layer) {
            layers.push((layer.to_owned(), Tensors::new(), Expected::new()));
        }
        let (_, parts, expected) = layers.last_mut().unwrap();
        let tensor = tensors.tensor(name).unwrap();
        if ["dequantized", "x", "y", "y_abs"].contains(&part) {
            expected.insert(part.to_owned(), values(&tensor));
            continue;
        }
        let part: &'static str = format!("q.{part}").leak();
        parts.push((part, tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()));
    }
    layers
}

/// f32 or f64.
pub(crate) fn values(tensor: &TensorView<'_>) -> Vec<f64> {
    match tensor.dtype() {
        Dtype::F32 => tensor.data().as_chunks().0.iter().map(|v| f32::from_le_bytes(*v).into()).collect(),
        Dtype::F64 => tensor.data().as_chunks().0.iter().map(|v| f64::from_le_bytes(*v)).collect(),
        other => panic!("{other}"),
    }
}

/// Values of f32 that were read as f64.
pub(crate) fn narrowed(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// The product of rows with values (n, k) in f64, and that of their magnitudes.
pub(crate) fn product(x: &[f32], values: &[f64], k: usize) -> Vec<(f64, f64)> {
    let of_row = |x: &[f32]| {
        let sums = values.chunks(k).map(|values| {
            let terms = x.iter().zip(values).map(|(&x, value)| f64::from(x) * value);
            terms.fold((0.0, 0.0), |(sum, of_magnitudes), term| (sum + term, of_magnitudes + term.abs()))
        });
        sums.collect::<Vec<_>>()
    };
    x.chunks(k).flat_map(of_row).collect()
}

/// Rows as a symmetric i8 for each token has them.
pub(crate) fn quantized(x: &[f32], k: usize) -> Vec<f32> {
    let of_row = |row: &[f32]| {
        let params = Scheme::weights_i8().choose(Range::of_finite(row).unwrap()).unwrap();
        row.iter().map(|&x| params.dequantize(params.quantize(x))).collect::<Vec<f32>>()
    };
    x.chunks(k).flat_map(of_row).collect()
}

/// The results are those expected, but for the roundings of f32.
pub(crate) fn assert_close(got: &[f32], expected: &[(f64, f64)], which: &str) {
    assert_eq!(got.len(), expected.len(), "{which}");
    for (at, (&got, (y, of_magnitudes))) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - y).abs();
        assert!(error <= 1e-5 * of_magnitudes + 1e-30, "{which}: {at} is {got}, expected {y}");
    }
}

/// The layout that a layer's name states.
fn layout(name: &str) -> PackedLayout {
    let parts: Vec<&str> = name.split(['/', '.']).collect();
    let number =
        |prefix: &str| parts.iter().find_map(|part| part.strip_prefix(prefix)?.parse::<usize>().ok());
    let group = number("group").or_else(|| number("g"));
    let bits = number("w").unwrap() as u32;
    match parts[0] {
        "compressed-tensors" => PackedLayout::PackQuantized { bits, group },
        "gptq" => {
            let zeros = match parts[1] {
                "v1" => GptqZeros::LessOne,
                "v1sub" => GptqZeros::LessOneInWords,
                _ => GptqZeros::Plain,
            };
            PackedLayout::Gptq { bits, group, zeros }
        }
        _ => PackedLayout::Awq { group },
    }
}

pub(crate) fn take(
    tensors: &Tensors,
    layout: PackedLayout,
    form: CodesForm,
    kernel: Kernel,
) -> Result<Linear, String> {
    let bytes = file(tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).map_err(|error| error.to_string())?;
    let layer = checkpoint.take_packed("q", layout, form, ActivationFunction::Identity, kernel);
    if layer.is_err() {
        assert_eq!(checkpoint.tensors().count(), tensors.len(), "a failed take changes nothing");
    }
    let layer = layer.map_err(|error| error.to_string())?;
    checkpoint.finish().map_err(|error| error.to_string())?;
    Ok(layer)
}

pub(crate) fn run(layer: &Linear, x: &[f32]) -> Vec<f32> {
    let x = MatRef::new(x, x.len() / layer.k(), layer.k()).unwrap();
    layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).unwrap()
}

#[test]
fn layers_stand_for_the_values_of_the_packages() {
    let mut counts = [0; 2];
    for (name, tensors, expected) in layers() {
        let (layout, values) = (layout(&name), &expected["dequantized"]);
        let bits = if name.contains("w8") { 8 } else { 4 };
        let in_order = !(name.contains("g_idx") || name.contains("act_order"));
        let mut outputs: Vec<Vec<f32>> = Vec::new();
        for kernel in Kernel::available() {
            let layer = take(&tensors, layout, CodesForm::WeightOnly, kernel);
            let layer = layer.unwrap_or_else(|error| panic!("{name}: {error}"));
            let Linear::WeightOnly(layer) = layer else { panic!("another form") };
            assert_eq!(layer.unpack(), narrowed(values), "{name}");
            assert_eq!(layer.weights().input_order().is_none(), in_order, "{name}");
            // Zero points of 16 have no place among 4 bits; no case here has one.
            assert_eq!(layer.weights().bits(), bits, "{name}");
            let layer = take(&tensors, layout, W4A8, kernel).unwrap();
            let x: Vec<f32> = (0..3 * layer.k()).map(|i| (i as f32 * 0.37).sin()).collect();
            let saved = layers_to_bytes(&layer).unwrap();
            let restored = LayerFile::parse(&saved).unwrap().take("q", Some(kernel)).unwrap();
            assert_eq!(run(&restored, &x), run(&layer, &x), "{name}");
            outputs.push(run(&layer, &x));
            assert_close(&run(&layer, &x), &product(&quantized(&x, layer.k()), values, layer.k()), &name);
            if let Some(x) = expected.get("x").map(|x| narrowed(x)) {
                let y: Vec<_> =
                    expected["y"].iter().copied().zip(expected["y_abs"].iter().copied()).collect();
                let layer = take(&tensors, layout, CodesForm::WeightOnly, kernel).unwrap();
                assert_close(&run(&layer, &x), &y, &name);
                let saved = layers_to_bytes(&layer).unwrap();
                let restored = LayerFile::parse(&saved).unwrap().take("q", Some(kernel)).unwrap();
                assert_eq!(run(&restored, &x), run(&layer, &x), "{name}");
            }
        }
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{name}");
        let Linear::Float(float) =
            take(&tensors, layout, CodesForm::Float, Kernel::select().unwrap()).unwrap()
        else {
            panic!("another form")
        };
        assert_eq!(float.weight(), narrowed(values));
        counts[usize::from(!in_order)] += 1;
    }
    assert_eq!(counts, [31, 7]);
}

/// A GPTQ layer of n = 8 and k = 16: all codes 9, all scales 0.5, zero points as they are stored.
fn gptq(zero: i32) -> Tensors {
    vec![
        ("q.qweight", Dtype::I32, vec![2, 8], i32s(&[0x9999_9999_u32.cast_signed(); 16])),
        ("q.qzeros", Dtype::I32, vec![1, 1], i32s(&[zero])),
        ("q.scales", Dtype::F32, vec![1, 8], f32s(&[0.5; 8])),
    ]
}

#[test]
fn zero_points_of_gptq_are_those_that_the_caller_says() {
    let kernel = Kernel::select().unwrap();
    let first = |zero: u32, zeros| {
        let layout = PackedLayout::Gptq { bits: 4, group: Some(16), zeros };
        let Linear::WeightOnly(layer) =
            take(&gptq(zero.cast_signed()), layout, CodesForm::WeightOnly, kernel).unwrap()
        else {
            panic!("another form")
        };
        (layer.unpack()[0], layer.weights().bits())
    };
    assert_eq!(first(0x7777_7777, GptqZeros::LessOne), (0.5, 4));
    assert_eq!(first(0x7777_7777, GptqZeros::LessOneInWords), (0.5, 4));
    assert_eq!(first(0x8888_8888, GptqZeros::Plain), (0.5, 4));
    // 16 is no code of 4 bits, so the codes take bytes.
    assert_eq!(first(0xffff_ffff, GptqZeros::LessOne), (0.5 * (9.0 - 16.0), 8));
    assert_eq!(first(0xeeee_eeef, GptqZeros::LessOneInWords), (0.5 * 9.0, 4));
    // 256 is no code of 8 bits less 128.
    let eight = vec![
        ("q.qweight", Dtype::I32, vec![4, 4], i32s(&[0; 16])),
        ("q.qzeros", Dtype::I32, vec![1, 1], i32s(&[-1])),
        ("q.scales", Dtype::F32, vec![1, 4], f32s(&[0.5; 4])),
    ];
    let layout = PackedLayout::Gptq { bits: 8, group: None, zeros: GptqZeros::LessOne };
    let error = take(&eight, layout, W4A8, kernel).unwrap_err();
    assert_eq!(error, r#"layer "q": weights: the zero point 128 of channel 0 is no i8"#);
}

#[test]
fn what_does_not_fit_is_named() {
    let kernel = Kernel::select().unwrap();
    let plain = |group| PackedLayout::Gptq { bits: 4, group, zeros: GptqZeros::Plain };
    let fails = |alter: &dyn Fn(&mut Tensors), layout, message: &str| {
        let mut tensors = gptq(0);
        alter(&mut tensors);
        for form in FORMS {
            assert_eq!(take(&tensors, layout, form, kernel).unwrap_err(), message);
        }
    };
    let none = |_: &mut Tensors| ();
    fails(
        &none,
        PackedLayout::Gptq { bits: 3, group: None, zeros: GptqZeros::Plain },
        r#"layer "q": codes of 3 bits in words of 32; those of 4 and 8 are read"#,
    );
    fails(&|t| drop(t.remove(0)), plain(None), r#"tensor "q.qweight" is missing"#);
    fails(&|t| drop(t.remove(1)), plain(None), r#"tensor "q.qzeros" is missing"#);
    fails(&|t| drop(t.remove(2)), plain(None), r#"tensor "q.scales" is missing"#);
    fails(
        &|t| t.push(("q.lora", Dtype::F32, vec![1], f32s(&[0.0]))),
        plain(None),
        r#"tensor "q.lora" is unexpected"#,
    );
    fails(
        &|t| t[1] = ("q.qzeros", Dtype::I32, vec![2, 1], i32s(&[0, 0])),
        plain(None),
        r#"tensor "q.qzeros" has shape [2, 1], expected [1, 1]"#,
    );
    fails(
        &|t| t[2] = ("q.scales", Dtype::F32, vec![2, 4], f32s(&[0.5; 8])),
        plain(None),
        r#"tensor "q.scales" has shape [2, 4], expected [1, 8]"#,
    );
    fails(
        &|t| t[2] = ("q.scales", Dtype::I32, vec![1, 8], i32s(&[1; 8])),
        plain(None),
        r#"tensor "q.scales" is I32, expected F32, F16 or BF16"#,
    );
    fails(
        &|t| {
            t[2] = ("q.scales", Dtype::F32, vec![1, 8], f32s(&[0.5, f32::NAN, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]))
        },
        plain(None),
        r#"layer "q": the scale of channel 1 is NaN; it must be finite"#,
    );
    fails(
        &|t| t.push(("q.g_idx", Dtype::I32, vec![15], i32s(&[0; 15]))),
        plain(None),
        r#"tensor "q.g_idx" has shape [15], expected [16]"#,
    );
    let bias = |t: &mut Tensors| t.push(("q.bias", Dtype::F32, vec![7], f32s(&[0.0; 7])));
    fails(&bias, plain(None), r#"tensor "q.bias" has shape [7], expected [8]"#);
    for group in [0, 5] {
        let mut tensors = gptq(0);
        tensors[1] = ("q.qzeros", Dtype::I32, vec![4, 1], i32s(&[0; 4]));
        tensors[2] = ("q.scales", Dtype::F32, vec![4, 8], f32s(&[0.5; 32]));
        let error = take(&tensors, plain(Some(group)), W4A8, kernel).unwrap_err();
        assert!(error.contains(&format!("groups of {group} along k")), "{error}");
    }
    // A matrix without elements may claim anything.
    for shape in [vec![0, 8], vec![1 << 60, 0], vec![0, 1 << 60]] {
        let mut tensors = gptq(0);
        tensors[0] = ("q.qweight", Dtype::I32, shape, Vec::new());
        for layout in [plain(None), PackedLayout::Awq { group: None }] {
            let error = take(&tensors, layout, W4A8, kernel).unwrap_err();
            assert!(error.contains("both must be at least 1"), "{error}");
        }
    }
}

#[test]
fn the_shape_of_packed_weights_is_checked() {
    let kernel = Kernel::select().unwrap();
    let layout = PackedLayout::PackQuantized { bits: 4, group: None };
    let of = |shape: &[i64], words: Vec<usize>| -> Tensors {
        let count: usize = words.iter().product();
        vec![
            ("q.weight_packed", Dtype::I32, words, i32s(&vec![0; count])),
            ("q.weight_shape", Dtype::I64, vec![shape.len()], i64s(shape)),
            ("q.weight_scale", Dtype::F32, vec![2, 1], f32s(&[0.5, 1.0])),
        ]
    };
    let error = |tensors: &Tensors| take(tensors, layout, W4A8, kernel).unwrap_err();
    take(&of(&[2, 9], vec![2, 2]), layout, W4A8, kernel).unwrap();
    let wrong = r#"tensor "q.weight_packed" has shape [2, 2], expected [2, 3]"#;
    assert_eq!(error(&of(&[2, 17], vec![2, 2])), wrong);
    for shape in [&[2_i64][..], &[2, 9, 1], &[-2, 9]] {
        let text = r#"tensor "q.weight_shape" does not have two integers that are the shape of a matrix"#;
        assert_eq!(error(&of(shape, vec![2, 2])), text);
    }
    assert!(error(&of(&[0, i64::MAX], vec![2, 2])).contains("both must be at least 1"));
    assert!(error(&of(&[i64::MAX, i64::MAX], vec![2, 2])).contains("expected [9223372036854775807,"));
    // What follows the layer is the caller's to say.
    for form in FORMS {
        let bytes = file(&of(&[2, 9], vec![2, 2]));
        let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
        let layer = checkpoint.take_packed("q", layout, form, ActivationFunction::Relu, kernel).unwrap();
        assert_eq!((layer.name(), layer.activation()), ("q", ActivationFunction::Relu));
    }
    // Whoever takes it as another layer is told how to.
    let bytes = file(&of(&[2, 9], vec![2, 2]));
    let error = Checkpoint::parse(&bytes).unwrap().take_float("q").unwrap_err().to_string();
    assert!(error.ends_with("says; `Checkpoint::take_packed` takes it"), "{error}");
}
