//! GGUF files: those that the format's own package wrote, and damaged ones.

mod codes;
mod replaced;
mod writer;

use std::fs;
use std::path::PathBuf;

use qcore::{ActivationFunction, BlockFormat, Scheme};
use qkernels::{Dynamic, Kernel, MatRef, Threads};
use qnn::{
    CodesForm, DynamicConfig, DynamicLinear, FloatLinear, FloatTensor, Form, GgufError, GgufFile, GgufType,
    GgufValue, LayerFile, Linear, LinearWorkspace, Source, SourceError, layers_to_bytes,
};
use safetensors::SafeTensors;

use self::writer::{Writer, entry, string};

const W8A8: CodesForm = CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8()));
const FORMS: [CodesForm; 3] = [CodesForm::Float, W8A8, CodesForm::WeightOnly];

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/gguf", name].iter().collect()
}

fn read(name: &str) -> Vec<u8> {
    fs::read(path(&format!("{name}.gguf"))).unwrap()
}

/// The values of a tensor, as the format's package has them.
fn dequantized(tensor: &str) -> Vec<f32> {
    let bytes = fs::read(path("dequantized.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(tensor).unwrap();
    data.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

fn take(bytes: &[u8], layer: &str, form: CodesForm, kernel: Kernel) -> Result<Linear, GgufError> {
    GgufFile::parse(bytes)?.take_linear(layer, form, ActivationFunction::Relu, kernel)
}

fn run(layer: &Linear, x: &[f32]) -> Vec<f32> {
    let x = MatRef::new(x, x.len() / layer.k(), layer.k()).unwrap();
    layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).unwrap()
}

#[test]
fn every_tensor_has_the_values_of_the_package() {
    for (name, tensors) in
        [("align32_default", 11), ("align32_explicit_mnist", 3), ("align64", 9), ("kquants", 6)]
    {
        let bytes = read(name);
        let mut file = GgufFile::parse(&bytes).unwrap();
        let names: Vec<String> = file.tensors().map(str::to_owned).collect();
        assert_eq!(names.len(), tensors, "{name}");
        for tensor in names {
            let (element, shape) = file.describe(&tensor).map(|(e, shape)| (e, shape.to_vec())).unwrap();
            if let GgufType::Other(_) = element {
                let error = file.take_tensor(&tensor, None).unwrap_err().to_string();
                assert_eq!(error, format!("tensor {tensor:?} is {element}, which is not read"));
                continue;
            }
            let got = file.take_tensor(&tensor, Some(&shape)).unwrap();
            let expected = dequantized(&format!("{name}/{tensor}"));
            assert_eq!(got.values(), expected, "{name} {tensor} {element}");
            let again = file.take_tensor(&tensor, None).unwrap_err();
            assert!(matches!(again, GgufError::Missing { taken: true, .. }), "{again}");
        }
        match file.finish() {
            Ok(()) => assert_ne!(name, "kquants"),
            Err(error) => {
                assert_eq!(error.to_string(), "tensor \"k.q2_k\" was not taken, and 2 more", "{name}")
            }
        }
    }
}

#[test]
fn the_metadata_are_what_was_written() {
    let bytes = read("align32_default");
    let file = GgufFile::parse(&bytes).unwrap();
    let value = |key: &str| file.value(key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(file.metadata().next().unwrap().0, "general.architecture");
    assert_eq!(value("general.architecture").as_str(), Some("fixture"));
    assert_eq!(value("t.utf8").as_str(), Some("größe ∑ 量化 🙂"));
    assert_eq!(value("t.with_nul"), GgufValue::String(b"a\0b"));
    for (key, expected) in [
        ("t.u8", GgufValue::Unsigned(255)),
        ("t.u16", GgufValue::Unsigned(65535)),
        ("t.u32", GgufValue::Unsigned(u32::MAX.into())),
        ("t.u64", GgufValue::Unsigned(u64::MAX)),
        ("t.i8", GgufValue::Signed(-128)),
        ("t.i16", GgufValue::Signed(-32768)),
        ("t.i32", GgufValue::Signed(i32::MIN.into())),
        ("t.i64", GgufValue::Signed(i64::MIN)),
        ("t.f32", GgufValue::Float(0.15625)),
        ("t.f64", GgufValue::Float(0.1)),
        ("t.true", GgufValue::Bool(true)),
        ("t.false", GgufValue::Bool(false)),
    ] {
        assert_eq!(value(key), expected, "{key}");
    }
    let array = |key: &str| match value(key) {
        GgufValue::Array(array) => {
            assert_eq!(array.len() as usize, array.iter().count(), "{key}");
            array.iter().collect::<Vec<_>>()
        }
        other => panic!("{key}: {other:?}"),
    };
    let strings: Vec<_> = array("t.arr_str").iter().map(|value| value.as_str().unwrap()).collect();
    assert_eq!(strings, ["a", "bb", "", "ü"]);
    assert_eq!(array("t.arr_i32"), [1, -2, 3].map(GgufValue::Signed));
    assert_eq!(array("t.arr_f32"), [0.5, -0.25].map(GgufValue::Float));
    assert_eq!(array("t.arr_bool"), [true, false, true].map(GgufValue::Bool));
    assert_eq!(array("t.arr_u64"), [1, 1 << 63].map(GgufValue::Unsigned));
    let inner: Vec<Vec<_>> = array("t.arr_nested")
        .iter()
        .map(|value| match value {
            GgufValue::Array(array) => array.iter().filter_map(|value| value.as_u64()).collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(inner, [vec![1, 2], vec![3]]);
    assert_eq!(file.value("t.none"), None);
    let bytes = read("no_tensors");
    let empty = GgufFile::parse(&bytes).unwrap();
    assert_eq!(empty.tensors().count(), 0);
    empty.finish().unwrap();
}

/// The codes of the file, not codes of its values: what the layer multiplies by is what the file
/// stands for, on every kernel, and it is saved as such.
#[test]
fn layers_have_the_codes_of_the_file() {
    let file = renamed(&read("align64"));
    let x: Vec<f32> = (0..5 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    for (tensor, bits) in [("w.q8_0", 8), ("w.q4_0", 4), ("w.q5_0", 8)] {
        let (name, expected) = (tensor.replace('.', "_"), dequantized(&format!("align64/{tensor}")));
        let mut outputs: Vec<Vec<f32>> = Vec::new();
        for kernel in Kernel::available() {
            let layer = take(&file, &name, CodesForm::WeightOnly, kernel).unwrap();
            let Linear::WeightOnly(weight_only) = &layer else { panic!("{}", layer.form()) };
            assert_eq!((weight_only.unpack(), weight_only.weights().bits()), (expected.clone(), bits));
            let layer = take(&file, &name, W8A8, kernel).unwrap();
            assert_eq!((layer.name(), layer.activation()), (&name[..], ActivationFunction::Relu));
            let Linear::Dynamic(dynamic) = &layer else { panic!("{}", layer.form()) };
            assert_eq!((dynamic.weights().bits(), dynamic.weights().group_len()), (bits, 32));
            let saved = layers_to_bytes(&layer).unwrap();
            let restored = LayerFile::parse(&saved).unwrap().take(&name, Some(kernel)).unwrap();
            assert_eq!(run(&restored, &x), run(&layer, &x));
            outputs.push(run(&layer, &x));
        }
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{tensor}");
        let Linear::Float(float) = take(&file, &name, CodesForm::Float, Kernel::select().unwrap()).unwrap()
        else {
            panic!("another form")
        };
        assert_eq!(float.weight(), expected);
    }
}

/// The same product as that of a layer which was quantized to the same codes here.
#[test]
fn a_layer_with_a_bias_is_the_one_that_is_quantized_here() {
    let bytes = read("align32_explicit_mnist");
    let kernel = Kernel::select().unwrap();
    let layer = take(&bytes, "fc2", W8A8, kernel).unwrap();
    let weight = dequantized("align32_explicit_mnist/fc2.weight");
    let float = FloatLinear::new("fc2", 16, 512, weight, dequantized("align32_explicit_mnist/fc2.bias"));
    let float = float.unwrap().with_activation(ActivationFunction::Relu);
    let x: Vec<f32> = (0..3 * 512).map(|i| (i as f32 * 0.71).cos()).collect();
    // Scales are rounded to f16 in the file, so the largest code is 127 of such a scale: the codes
    // are the same, and the scales nearly.
    let config = DynamicConfig::in_groups_of(32, 8).unwrap();
    let near = DynamicLinear::quantize(&float, config.activations, &config.weights, kernel).unwrap();
    let (y, near, exact) = (run(&layer, &x), run(&near.into(), &x), run(&float.into(), &x));
    assert!(y.iter().zip(&near).all(|(a, b)| (a - b).abs() < 1e-3));
    assert!(qcore::sqnr_db(&exact, &y).unwrap() > 35.0);
    let mut file = GgufFile::parse(&bytes).unwrap();
    file.take_tensor("fc2.bias", Some(&[16])).unwrap();
    let error = file.take_linear("fc2", W8A8, ActivationFunction::Identity, kernel).unwrap_err();
    assert!(matches!(error, GgufError::Missing { taken: true, .. }), "a bias is not lost: {error}");
}

/// The file with the first dots of its tensors' names replaced, `w.q8_0` as `w_q8_0.weight`.
fn renamed(bytes: &[u8]) -> Vec<u8> {
    let file = GgufFile::parse(bytes).unwrap();
    let tensors = file.tensors().map(|name| {
        let (element, shape) = file.describe(name).unwrap();
        let values = (name.replace('.', "_") + ".weight", element, shape.to_vec());
        (values, data_of(bytes, name))
    });
    Writer { tensors: tensors.collect(), ..Writer::default() }.bytes()
}

/// The bytes of a tensor of `align64`, by the offset that stands behind its name.
fn data_of(bytes: &[u8], name: &str) -> Vec<u8> {
    let file = GgufFile::parse(bytes).unwrap();
    let (element, shape) = file.describe(name).unwrap();
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() + name.len();
    let offset = u64::from_le_bytes(bytes[at + 4 + 8 * shape.len() + 4..][..8].try_into().unwrap());
    let start = 1280 + offset as usize; // where the data of this file begin
    bytes[start..start + bytes_of(element, shape.iter().product())].to_vec()
}

fn bytes_of(element: GgufType, elements: usize) -> usize {
    match element {
        GgufType::Blocks(format) => elements / format.block_len() * format.block_bytes(),
        GgufType::F32 => 4 * elements,
        _ => 2 * elements,
    }
}

#[test]
fn lies_are_named() {
    let kernel = Kernel::select().unwrap();
    let layer = take(&Writer::layer(2).bytes(), "q", W8A8, kernel).unwrap();
    assert_eq!(run(&layer, &[1.0; 32]), [32.0; 2]);
    let error = |writer: Writer| GgufFile::parse(&writer.bytes()).unwrap_err().to_string();
    let lie = |lie: fn(&mut Vec<u64>, &mut u32, &mut u64)| error(Writer { lie, ..Writer::layer(2) });
    assert_eq!(
        lie(|_, _, offset| *offset = 1),
        r#"damaged: tensor "q.weight" begins 1 bytes into the data, no multiple of the alignment 32"#
    );
    for error in [lie(|_, _, offset| *offset = 32), lie(|_, _, offset| *offset = 1 << 63)] {
        assert!(error.starts_with(r#"cut off, or damaged: tensor "q.weight" has 68 bytes, "#), "{error}");
    }
    assert_eq!(
        lie(|dimensions, _, _| dimensions[0] = 33),
        r#"damaged: tensor "q.weight" has rows of 33 elements, which are no whole Q8_0 blocks of 32"#
    );
    assert!(lie(|dimensions, _, _| *dimensions = vec![]).contains("has 0 dimensions"));
    assert!(lie(|dimensions, _, _| *dimensions = vec![32; 5]).contains("has 5 dimensions"));
    assert!(lie(|dimensions, _, _| *dimensions = vec![1 << 32; 3]).contains("too many elements"));
    assert!(lie(|dimensions, _, _| *dimensions = vec![32, 1 << 59]).contains("too many elements"));
    assert!(lie(|dimensions, kind, _| (*dimensions, *kind) = (vec![16, 5], 0)).contains("has 320 bytes"));
    for (counts, what) in [([Some(u64::MAX), None], "tensor"), ([None, Some(1 << 60)], "")] {
        let error = error(Writer { counts, ..Writer::layer(1) });
        assert!(error.contains(what) && error.contains("damaged"), "{error}");
    }
    let mut twice = Writer::layer(1);
    twice.tensors.push(twice.tensors[0].clone());
    assert!(error(twice).contains("\"q.weight\" is there twice"));
    let mut overlap = Writer::layer(3);
    overlap.tensors.push((("r".to_owned(), GgufType::F32, vec![1]), vec![0; 4]));
    overlap.lie = |_, _, offset| *offset = (*offset).min(32);
    assert!(error(overlap).contains(r#"tensors "q.weight" and "r" have bytes in common"#));
    for (version, text) in [
        (1, "a GGUF file of version 1; versions 2 and 3 are read"),
        (3 << 24, "a GGUF file of version 3 with big-endian numbers, which are not read"),
    ] {
        assert_eq!(error(Writer { version, ..Writer::layer(1) }), text);
    }
    let big_endian = read("big_endian_f32");
    assert!(matches!(GgufFile::parse(&big_endian), Err(GgufError::BigEndian { version: 3 })));
    for bytes in [&b""[..], b"GGU", b"PK\x03\x04", b"ggjt"] {
        assert!(matches!(GgufFile::parse(bytes), Err(GgufError::Magic { .. })));
    }
}

#[test]
fn lies_of_the_metadata_are_named() {
    let error = |entries: Vec<Vec<u8>>| {
        let writer = Writer { entries, ..Writer::layer(1) };
        GgufFile::parse(&writer.bytes()).unwrap_err().to_string()
    };
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let array = |kind: u32, len: u64, values: &[u8]| {
        entry("a", 9, &[&kind.to_le_bytes()[..], &len.to_le_bytes(), values].concat())
    };
    assert!(error(vec![entry("a", 13, &[])]).contains("is 13; there are types 0 to 12"));
    assert!(error(vec![entry("a", 7, &[2])]).contains("is 2, neither 0 nor 1"));
    assert!(error(vec![entry("a", 8, &numbers(&[1 << 63]))]).contains("needs 9223372036854775808 bytes"));
    assert!(error(vec![array(10, 1 << 62, &[])]).contains("needs 18446744073709551615 bytes"));
    for kind in [7, 8, 9] {
        let error = error(vec![array(kind, u64::MAX, &[])]);
        assert!(error.contains("damaged"), "{error}");
    }
    // An array in an array, and so on.
    let deep = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(10);
    assert!(error(vec![entry("a", 9, &deep)]).contains("lies in 4 others"));
    let one = entry("a", 0, &[1]);
    assert_eq!(error(vec![one.clone(), one]), "damaged: key \"a\" is there twice");
    let mut bad_key = entry("a", 0, &[1]);
    bad_key[8] = 0xff;
    assert!(error(vec![bad_key]).contains("a key of the metadata at byte 24 is no UTF-8"));
    for alignment in [entry("general.alignment", 4, &[0; 4]), entry("general.alignment", 4, &[24, 0, 0, 0])] {
        assert!(error(vec![alignment]).contains("must be a power of two"));
    }
    let text = entry("general.alignment", 8, &string("32"));
    assert!(error(vec![text]).contains("must be a power of two"));
    let huge = entry("general.alignment", 4, &[0, 0, 0, 0x80]);
    assert!(error(vec![huge]).contains("of which there are 0"));
}

#[test]
fn what_makes_no_layer_is_named() {
    let kernel = Kernel::select().unwrap();
    let error = |writer: &Writer, form| take(&writer.bytes(), "q", form, kernel).unwrap_err().to_string();
    let mut layer = Writer::layer(2);
    layer.tensors[0].1[..2].copy_from_slice(&[0, 0x7c]);
    for form in [W8A8, CodesForm::WeightOnly] {
        let infinite = r#"layer "q": the scale of group 0 of channel 0 is inf; it must be finite"#;
        assert_eq!(error(&layer, form), infinite);
    }
    assert!(error(&layer, CodesForm::Float).contains("inf"), "{}", error(&layer, CodesForm::Float));
    let of = |element, shape: &[usize], bytes: usize| Writer {
        tensors: vec![(("q.weight".to_owned(), element, shape.to_vec()), vec![0; bytes])],
        ..Writer::default()
    };
    let floats = of(GgufType::F16, &[2, 3], 12);
    assert!(error(&floats, W8A8).contains("is F16, which has no codes"));
    let three = of(GgufType::F32, &[1, 1, 1], 4);
    assert!(error(&three, CodesForm::Float).contains("has shape [1, 1, 1], expected a matrix"));
    for shape in [[0, 32], [32, 0], [1 << 60, 0]] {
        let empty = of(GgufType::Blocks(BlockFormat::Q8_0), &shape, 0);
        for form in FORMS {
            assert!(error(&empty, form).contains("must be at least 1"), "{shape:?}");
        }
    }
    let mut biased = Writer::layer(2);
    biased.tensors.push((("q.bias".to_owned(), GgufType::F32, vec![3]), vec![0; 12]));
    assert_eq!(error(&biased, W8A8), r#"tensor "q.bias" has shape [3], expected [2]"#);
    biased.tensors[1].0.2 = vec![2];
    let nan = f32::NAN.to_le_bytes();
    biased.tensors[1].1 = [nan, nan].concat();
    assert!(error(&biased, W8A8).contains("the bias of channel 0 is NaN"));
    let missing = take(&Writer::layer(1).bytes(), "k", W8A8, kernel).unwrap_err();
    assert_eq!(missing.to_string(), r#"tensor "k.weight" is missing"#);
}

/// One constructor for a GGUF file and for what is saved of it.
#[test]
fn a_model_is_made_of_a_file_and_of_what_is_saved_of_it() {
    struct Model {
        words: FloatTensor,
        norm: FloatTensor,
        up: Linear,
        head: Linear,
    }
    qnn::layers!(Model { words, norm, up, head });
    let new = |mut from: Source<'_>| -> Result<Model, SourceError> {
        let words = from.tensor("token_embd.weight", &[2, 32])?;
        let norm = from.pp("blk").pp(0).tensor_of_any_shape("norm.weight")?;
        let up = from.linear_then("q", ActivationFunction::Gelu)?;
        Ok(Model { words, norm, up, head: from.linear_tied("output", "token_embd.weight")? })
    };
    let mut writer = Writer::layer(3);
    let words = writer.tensors[0].1[..2 * 34].to_vec();
    let element = writer.tensors[0].0.1;
    writer.tensors.push((("token_embd.weight".to_owned(), element, vec![2, 32]), words));
    writer.tensors.push((("blk.0.norm.weight".to_owned(), GgufType::F32, vec![1]), vec![0; 4]));
    let bytes = writer.bytes();
    let untied = new(GgufFile::parse(&bytes).unwrap().source(W8A8)).err().unwrap();
    assert_eq!(untied.to_string(), r#"tensor "token_embd.weight" is missing: it was taken before"#);
    for (form, name) in [(W8A8, Form::Dynamic), (CodesForm::WeightOnly, Form::WeightOnly)] {
        let mut file = GgufFile::parse(&bytes).unwrap();
        file.tie("token_embd.weight").unwrap();
        let model = new(file.source(form)).unwrap();
        file.finish().unwrap();
        assert_eq!((model.up.form(), model.head.form(), model.head.name()), (name, name, "output"));
        assert_eq!((model.words.values().len(), model.norm.values()), (64, &[0.0][..]));
        let saved = layers_to_bytes(&model).unwrap();
        let mut saved = LayerFile::parse(&saved).unwrap();
        let restored = new(saved.source()).unwrap();
        saved.finish().unwrap();
        let x: Vec<f32> = (0..32).map(|i| (i as f32).sin()).collect();
        assert_eq!(run(&restored.up, &x), run(&model.up, &x));
        assert_eq!(run(&restored.head, &x), run(&model.head, &x));
    }
    // What has no codes stays in f32.
    writer.tensors[0].0.1 = GgufType::F32;
    writer.tensors[0].0.2 = vec![1, 8];
    writer.tensors[0].1 = vec![0; 32];
    let bytes = writer.bytes();
    let mut file = GgufFile::parse(&bytes).unwrap();
    assert_eq!(file.source(W8A8).linear("q").unwrap().form(), Form::Float);
    assert!(matches!(file.tie("q.weight"), Err(GgufError::Missing { taken: true, .. })));
    assert_eq!(file.describe("q.weight"), Some((GgufType::F32, &[1, 8][..])));
}

/// Cut off anywhere, and with any byte changed, there is an error or another file, and no more
/// memory than a few times the file.
#[test]
fn damaged_files_are_errors() {
    let kernel = Kernel::select().unwrap();
    let whole = read("align32_default");
    let check = |bytes: &[u8]| {
        let mut parsed = false;
        let counts = allocation_counter::measure(|| parsed = GgufFile::parse(bytes).is_ok());
        assert!(counts.bytes_max < 8 * whole.len() as u64, "{} bytes", counts.bytes_max);
        if !parsed {
            return false;
        }
        let mut file = GgufFile::parse(bytes).unwrap();
        for (_, value) in file.metadata() {
            if let GgufValue::Array(array) = value {
                assert_eq!(array.iter().count() as u64, array.len());
            }
        }
        for name in file.tensors().map(str::to_owned).collect::<Vec<_>>() {
            if let Some(name) = name.strip_suffix(".weight") {
                for form in FORMS {
                    let _ = file.clone().take_linear(name, form, ActivationFunction::Identity, kernel);
                }
            }
            let _ = file.take_tensor(&name, None);
        }
        true
    };
    assert!(check(&whole));
    for end in 0..whole.len() {
        let last = end + 32 > whole.len(); // nothing but padding is missing
        assert!(!check(&whole[..end]) || last, "{end}");
    }
    let mut changed = 0;
    for at in 0..1344 {
        for bit in [0, 4, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            changed += usize::from(!check(&bytes));
        }
    }
    assert!(changed > 1000, "{changed} of them are noticed");
}
