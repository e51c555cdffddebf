//! GGUF files written as copies of others, with tensors quantized here.

use std::io::{self, Write};

use half::f16;
use qcore::{ActivationFunction, BlockFormat, CodeRange, ScaleArithmetic, Scheme};
use qkernels::{Dynamic, Kernel, MatRef, PackedNibbles, PackedWeights, ScaledWeights, WeightScales};
use qnn::{
    CodesForm, DynamicLinear, FloatLinear, GgufFile, GgufType, GgufValue, GgufWriteError, GgufWriter, Linear,
    WeightConfig, WeightOnlyLinear,
};

use super::writer::{self, entry, string};
use super::{W8A8, read, run, take};

const PACKAGE: [&str; 5] = ["align32_default", "align32_explicit_mnist", "align64", "kquants", "no_tensors"];

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(n: usize, k: usize) -> Vec<f32> {
    (0..n * k).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect()
}

/// A file with metadata of every type and these tensors in f32, besides others.
fn source(version: u32, alignment: u32, layers: &[(&str, usize, usize)]) -> Vec<u8> {
    let array = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &string("a"), &string("")].concat();
    let nested =
        [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &0u32.to_le_bytes(), &2u64.to_le_bytes(), &[7, 8]];
    let mut tensors = vec![(("norm".to_owned(), GgufType::F32, vec![3]), bytes_of(&[1.0, f32::NAN, -0.0]))];
    for &(name, n, k) in layers {
        let values = floats(n, k);
        tensors.push(((format!("{name}.weight"), GgufType::F32, vec![n, k]), bytes_of(&values)));
    }
    tensors.push((("empty".to_owned(), GgufType::F16, vec![0, 5]), vec![]));
    tensors.push((("cube".to_owned(), GgufType::Bf16, vec![2, 1, 3]), (0..12).collect()));
    writer::Writer {
        version,
        entries: vec![
            entry("general.file_type", 4, &0u32.to_le_bytes()),
            entry("u8", 0, &[9]),
            entry("i8", 1, &[0xf7]),
            entry("u16", 2, &[1, 2]),
            entry("i16", 3, &[1, 0x82]),
            entry("i32", 5, &[1, 2, 3, 0x84]),
            entry("f32", 6, &f32::NAN.to_le_bytes()),
            entry("general.alignment", 4, &alignment.to_le_bytes()),
            entry("bool", 7, &[1]),
            entry("string", 8, &string("größe")),
            entry("array", 9, &array),
            entry("nested", 9, &nested.concat()),
            entry("u64", 10, &[0xff; 8]),
            entry("i64", 11, &[0xff; 8]),
            entry("f64", 12, &(-0.0f64).to_le_bytes()),
        ],
        alignment: alignment as usize,
        tensors,
        ..writer::Writer::default()
    }
    .bytes()
}

/// The metadata as text: NaN is no value that is equal to itself.
fn entries_of(bytes: &[u8]) -> String {
    format!("{:?}", GgufFile::parse(bytes).unwrap().metadata().collect::<Vec<_>>())
}

fn in_f16(codes: CodeRange) -> WeightConfig {
    let scheme = Scheme { scale: ScaleArithmetic::F16, ..Scheme::weights_i8() };
    WeightConfig { scheme: Scheme { codes, ..scheme }, ..WeightConfig::default() }.in_groups_of(32)
}

fn float(file: &GgufFile<'_>, name: &str) -> FloatLinear {
    let (mut file, kernel) = (file.clone(), Kernel::select().unwrap());
    let taken = file.take_linear(name, CodesForm::Float, ActivationFunction::Identity, kernel).unwrap();
    let Linear::Float(layer) = taken else { panic!("another form") };
    layer
}

fn nibbles(n: usize, k: usize, scales: WeightScales<'_>) -> ScaledWeights {
    let codes: Vec<u8> = (0..n * k).map(|i| (i * 7 % 16) as u8).collect();
    let packed = PackedNibbles::from_nk(MatRef::new(&codes, n, k).unwrap(), Kernel::select().unwrap());
    ScaledWeights::of_nibbles(packed.unwrap(), scales).unwrap()
}

fn bytes(n: usize, k: usize, scales: WeightScales<'_>) -> ScaledWeights {
    let codes: Vec<i8> = (0..n * k).map(|i| (i * 37 % 256) as u8 as i8).collect();
    let packed = PackedWeights::from_nk(MatRef::new(&codes, n, k).unwrap(), Kernel::select().unwrap());
    ScaledWeights::new(packed.unwrap(), scales).unwrap()
}

/// The format's own package wrote these files, with types that are not read among the tensors.
#[test]
fn copies_of_the_package_s_files_are_the_same_bytes() {
    for name in PACKAGE {
        let bytes = read(name);
        let file = GgufFile::parse(&bytes).unwrap();
        assert!(GgufWriter::new(&file).unwrap().to_bytes().unwrap() == bytes, "{name}");
    }
}

/// Blocks taken apart and put together again are the same bytes in the file, too.
#[test]
fn layers_of_the_package_s_blocks_make_the_same_bytes() {
    let (kernel, mut replaced) = (Kernel::select().unwrap(), 0);
    for name in PACKAGE {
        let bytes = read(name);
        let file = GgufFile::parse(&bytes).unwrap();
        let mut writer = GgufWriter::new(&file).unwrap();
        for tensor in file.tensors() {
            let Some((GgufType::Blocks(format @ (BlockFormat::Q8_0 | BlockFormat::Q4_0)), &[_, _])) =
                file.describe(tensor)
            else {
                continue;
            };
            for form in [CodesForm::WeightOnly, W8A8] {
                let mut again = file.clone();
                again.tie(tensor).unwrap();
                let layer = again.take_tied("q", tensor, form, ActivationFunction::Identity, kernel);
                let mut writer_of_one = writer.clone();
                let got = match &layer {
                    Ok(Linear::WeightOnly(layer)) => writer_of_one.replace(tensor, layer.weights()),
                    Ok(Linear::Dynamic(layer)) => match layer.weights() {
                        qnn::DynamicWeights::Scaled(weights) => writer_of_one.replace(tensor, weights),
                        other => panic!("{other:?}"),
                    },
                    Ok(other) => panic!("{}", other.form()),
                    Err(_) => continue, // scales that are not finite
                };
                assert_eq!(got.unwrap(), format, "{name} {tensor}");
                assert!(writer_of_one.to_bytes().unwrap() == bytes, "{name} {tensor}");
                replaced += 1;
                if let CodesForm::Dynamic(_) = form {
                    writer = writer_of_one;
                }
            }
        }
        assert!(writer.to_bytes().unwrap() == bytes, "{name}");
    }
    assert!(replaced >= 4, "{replaced} of them");
}

#[test]
fn quantized_tensors_are_read_again_and_all_else_is_the_source_s() {
    let kernel = Kernel::select().unwrap();
    let layers = [("a", 3, 64), ("b", 5, 32), ("c", 1, 96), ("d", 2, 32), ("kept", 2, 9)];
    for (version, alignment) in [(2, 32), (3, 1), (3, 8), (3, 64), (3, 1 << 13)] {
        let before = source(version, alignment, &layers);
        let file = GgufFile::parse(&before).unwrap();
        let tokens = Dynamic::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| float(&file, name));
        let nibbles = in_f16(CodeRange::signed(4).unwrap());
        let whole = WeightConfig { granularity: qnn::WeightGranularity::PerChannel, ..in_f16(CodeRange::I8) };
        let made: [(Linear, BlockFormat); 4] = [
            (
                WeightOnlyLinear::quantize(&a, &in_f16(CodeRange::I8), kernel).unwrap().into(),
                BlockFormat::Q8_0,
            ),
            (DynamicLinear::quantize(&b, tokens, &nibbles, kernel).unwrap().into(), BlockFormat::Q4_0),
            (WeightOnlyLinear::quantize(&c, &nibbles, kernel).unwrap().into(), BlockFormat::Q4_0),
            // A channel of 32 inputs is a group.
            (DynamicLinear::quantize(&d, tokens, &whole, kernel).unwrap().into(), BlockFormat::Q8_0),
        ];
        let mut writer = GgufWriter::new(&file).unwrap();
        for (layer, format) in &made {
            assert_eq!(writer.replace_layer(layer).unwrap(), *format);
        }
        let after = writer.to_bytes().unwrap();
        assert!(after.len() <= before.len() && after.len().is_multiple_of(alignment as usize));
        assert_eq!(after[4..8], version.to_le_bytes());
        assert_eq!(entries_of(&after), entries_of(&before));
        let read = GgufFile::parse(&after).unwrap();
        assert_eq!(read.value("general.file_type"), Some(GgufValue::Unsigned(0)));
        assert!(read.tensors().eq(file.tensors()));
        for (layer, format) in &made {
            let name = format!("{}.weight", layer.name());
            let expected = Some((GgufType::Blocks(*format), &[layer.n(), layer.k()][..]));
            assert_eq!(read.describe(&name), expected);
            let again = take(&after, layer.name(), CodesForm::WeightOnly, kernel).unwrap();
            let Linear::WeightOnly(again) = again else { panic!("another form") };
            let (codes, scales) = match layer {
                Linear::WeightOnly(layer) => (layer.weights().unpack(), layer.weights().scales()),
                Linear::Dynamic(layer) => (layer.weights().unpack(), layer.weights().scales()),
                other => panic!("{}", other.form()),
            };
            assert_eq!((again.weights().unpack(), again.weights().scales()), (codes, scales), "{name}");
        }
        for name in ["norm", "kept.weight", "empty", "cube"] {
            assert_eq!(read.describe(name), file.describe(name));
            let values = |file: &GgufFile<'_>| {
                let tensor = file.clone().take_tensor(name, None).unwrap();
                tensor.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(values(&read), values(&file), "{name}");
        }
        // The layer of the file computes the same, and a copy is the same file.
        let x: Vec<f32> = (0..32).map(|i| (i as f32).cos()).collect();
        let mut read_again = read.clone();
        let form = CodesForm::Dynamic(tokens);
        let b = read_again.take_linear("b", form, ActivationFunction::Identity, kernel).unwrap();
        assert_eq!(run(&b, &x), run(&made[1].0, &x));
        assert_eq!(GgufWriter::new(&read).unwrap().to_bytes().unwrap(), after);
    }
}

#[test]
fn what_has_no_place_in_blocks_is_refused() {
    let before = source(3, 32, &[("q", 2, 64), ("odd", 2, 48), ("p", 2, 256)]);
    let file = GgufFile::parse(&before).unwrap();
    let mut writer = GgufWriter::new(&file).unwrap();
    let (ones, eights) = ([0.5f32; 16], [8i8; 16]);
    let rounded = [1.0, 0.5, 0.25, 0.1];
    let in_groups = |len| WeightScales::per_group(&ones[..2 * 64_usize.div_ceil(len)], len);
    let with = |zero_points| in_groups(32).with_zero_points(zero_points);
    let minimums = in_groups(32).with_minimums(&[0.0; 4]);
    let parts = WeightScales::per_group(&ones[..4], 32).with_parts(16, &[1; 8]);
    let per_channel = WeightScales::per_channel(&ones[..2]);
    let reversed =
        bytes(2, 64, in_groups(32)).with_input_order(&(0..64).rev().collect::<Vec<u32>>()).unwrap();
    for (weights, expected) in [
        (reversed, "has inputs in an order of its own (act-order), which GGUF does not have"),
        (bytes(2, 64, in_groups(16)), "has groups of 16, blocks have 32"),
        (nibbles(2, 64, in_groups(48)), "has groups of 48, blocks have 32"),
        (bytes(2, 64, per_channel), "has groups of 64, blocks have 32"),
        (bytes(2, 64, minimums), "has 4 minimums, and Q8_0 and Q4_0 have none"),
        (nibbles(2, 64, minimums), "has 4 minimums, and Q8_0 and Q4_0 have none"),
        (bytes(2, 64, parts), "has groups in parts of 16, and Q8_0 and Q4_0 have no parts"),
    ] {
        let error = writer.replace("q.weight", &weights).unwrap_err().to_string();
        assert_eq!(error, format!(r#"tensor "q.weight" {expected}"#));
    }
    for (weights, expected) in [
        (
            bytes(2, 64, with(&[0, 0, 0, -3])),
            "the zero point of group 1 of channel 1 is -3; codes of 8 bits have 0",
        ),
        (
            nibbles(2, 64, with(&[8, 8, 7, 8])),
            "the zero point of group 0 of channel 1 is 7; codes of 4 bits have 8",
        ),
        (
            nibbles(2, 64, in_groups(32)),
            "the zero point of group 0 of channel 0 is 0; codes of 4 bits have 8",
        ),
        (
            bytes(2, 64, WeightScales::per_group(&rounded, 32)),
            "the scale of group 1 of channel 1 is 0.1, not exact in f16",
        ),
        (
            nibbles(2, 64, WeightScales::per_group(&[7e4, 1.0, 1.0, 1.0], 32).with_zero_points(&eights[..4])),
            "the scale of group 0 of channel 0 is 70000.0, not exact in f16",
        ),
    ] {
        let error = writer.replace("q.weight", &weights).unwrap_err().to_string();
        assert_eq!(error, format!(r#"tensor "q.weight": {expected}"#));
    }
    let good = bytes(2, 64, in_groups(32));
    let odd = bytes(2, 48, WeightScales::per_group(&ones[..4], 32));
    for (tensor, weights, expected) in [
        ("r.weight", &good, r#"tensor "r.weight" is not in the source"#),
        ("p.weight", &good, r#"tensor "p.weight" has shape [2, 256] in the source, its replacement (2, 64)"#),
        ("norm", &good, r#"tensor "norm" has shape [3] in the source, its replacement (2, 64)"#),
        ("cube", &good, r#"tensor "cube" has shape [2, 1, 3] in the source, its replacement (2, 64)"#),
        (
            "odd.weight",
            &odd,
            r#"tensor "odd.weight" has rows of 48 weights, which are no whole blocks of 32"#,
        ),
    ] {
        assert_eq!(writer.replace(tensor, weights).unwrap_err().to_string(), expected);
    }
    // Nothing was replaced until now. Zero points of 0 that are stated are none.
    assert_eq!(writer.to_bytes().unwrap(), before);
    writer.replace("q.weight", &bytes(2, 64, with(&[0; 4]))).unwrap();
    let twice = writer.replace("q.weight", &good).unwrap_err();
    assert_eq!(twice.to_string(), r#"tensor "q.weight" was replaced before"#);
}

#[test]
fn layers_that_the_source_does_not_have_are_refused() {
    let kernel = Kernel::select().unwrap();
    let bias = |element, values: &[f32]| {
        let data = match element {
            GgufType::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            _ => bytes_of(values),
        };
        (("q.bias".to_owned(), element, vec![values.len()]), data)
    };
    let file_with = |bias: Option<_>| {
        let weight = (("q.weight".to_owned(), GgufType::F32, vec![2, 32]), bytes_of(&floats(2, 32)));
        let tensors = std::iter::once(weight).chain(bias).collect();
        writer::Writer { tensors, ..writer::Writer::default() }.bytes()
    };
    let replace = |file: &[u8], layer: &Linear| {
        let file = GgufFile::parse(file).unwrap();
        GgufWriter::new(&file).unwrap().replace_layer(layer)
    };
    let layer = |bias: Option<&[f32]>| -> Linear {
        let layer = WeightOnlyLinear::new(&floats(2, 32), 2, 32, bias, &in_f16(CodeRange::I8), kernel);
        layer.unwrap().with_name("q").into()
    };
    for element in [GgufType::F32, GgufType::F16] {
        let file = file_with(Some(bias(element, &[0.5, -0.25])));
        assert_eq!(replace(&file, &layer(Some(&[0.5, -0.25]))).unwrap(), BlockFormat::Q8_0);
        let error = replace(&file, &layer(Some(&[0.5, 0.75]))).unwrap_err().to_string();
        assert_eq!(error, r#"tensor "q.bias" has -0.25 for channel 1, the layer has 0.75"#);
        let error = replace(&file, &layer(None)).unwrap_err().to_string();
        assert_eq!(error, r#"tensor "q.bias" is there in the source, and the layer has no bias"#);
    }
    let error = replace(&file_with(None), &layer(Some(&[0.5, 0.75]))).unwrap_err().to_string();
    assert_eq!(error, r#"tensor "q.bias" is not in the source, and the layer has a bias"#);
    let long = file_with(Some(bias(GgufType::F32, &[0.0; 3])));
    let error = replace(&long, &layer(Some(&[0.5, 0.75]))).unwrap_err().to_string();
    assert_eq!(error, r#"tensor "q.bias" has shape [3], the layer 2 outputs"#);
    let float = Linear::from(FloatLinear::without_bias("q", 2, 32, floats(2, 32)).unwrap());
    let error = replace(&file_with(None), &float).unwrap_err();
    assert!(matches!(&error, GgufWriteError::Form { layer, .. } if layer == "q"), "{error}");
    let Linear::WeightOnly(plain) = layer(None) else { unreachable!() };
    assert!(replace(&file_with(None), &plain.clone().into()).is_ok());
    let divides = plain.with_input_scale(vec![2.0; 32]).unwrap().into();
    let error = replace(&file_with(None), &divides).unwrap_err().to_string();
    assert_eq!(error, r#"layer "q" divides its k = 32 inputs by scales, which GGUF does not have"#);
}

#[test]
fn tensors_of_unknown_lengths_are_copied_or_refused() {
    // Types that are not read: I8 and one that nobody knows.
    let mut made = writer::Writer::layer(2);
    let mut second = made.tensors[0].clone();
    second.0.0 = "r.weight".to_owned();
    made.tensors.push(second);
    made.lie = |_, kind, offset| *kind = if *offset == 0 { 24 } else { 1000 };
    let before = made.bytes();
    let file = GgufFile::parse(&before).unwrap();
    let mut writer = GgufWriter::new(&file).unwrap();
    assert_eq!(writer.to_bytes().unwrap(), before);
    writer.replace("q.weight", &bytes(2, 32, WeightScales::per_group(&[1.0, 0.5], 32))).unwrap();
    let after = writer.to_bytes().unwrap();
    let read = GgufFile::parse(&after).unwrap();
    assert_eq!(read.describe("q.weight"), Some((GgufType::Blocks(BlockFormat::Q8_0), &[2, 32][..])));
    assert_eq!(read.describe("r.weight"), Some((GgufType::Other(1000), &[2, 32][..])));
    assert_eq!(after[after.len() - 96..], before[before.len() - 96..]);

    made.lie = |_, kind, offset| (*kind, *offset) = (1000, 32);
    let shared = made.bytes();
    let error = GgufWriter::new(&GgufFile::parse(&shared).unwrap()).unwrap_err().to_string();
    let start = "damaged source: tensor";
    let expected = format!(
        r#"{start} "r.weight" (type 1000) begins 32 bytes into the data, among the bytes of "q.weight""#
    );
    assert_eq!(error, expected);
    made.lie = |_, kind, offset| (*kind, *offset) = if *offset > 0 { (1000, 192) } else { (*kind, 0) };
    let behind = made.bytes();
    let error = GgufWriter::new(&GgufFile::parse(&behind).unwrap()).unwrap_err().to_string();
    let expected =
        format!(r#"{start} "r.weight" (type 1000) begins 192 bytes into the data, where they end"#);
    assert_eq!(error, expected);
}

/// Cut off anywhere, and with any byte changed, a file is refused or copied, and a copy takes no
/// more than a few times the file, whatever lengths and alignments it claims.
#[test]
fn copies_of_damaged_files_are_whole_files() {
    let (mut copied, mut refused) = (0, 0);
    for name in ["kquants", "align64"] {
        let whole = read(name);
        let mut check = |bytes: &[u8]| {
            let Ok(file) = GgufFile::parse(bytes) else { return };
            let mut written = None;
            let counts = allocation_counter::measure(|| {
                written = GgufWriter::new(&file).and_then(|writer| writer.to_bytes()).ok();
            });
            assert!(counts.bytes_max < 16 * whole.len() as u64, "{} bytes", counts.bytes_max);
            let Some(written) = written else {
                refused += 1;
                return;
            };
            assert!(written.len() <= 2 * whole.len() + 64);
            let read = GgufFile::parse(&written).unwrap();
            assert_eq!(entries_of(&written), format!("{:?}", file.metadata().collect::<Vec<_>>()));
            assert!(read.tensors().eq(file.tensors()));
            assert!(file.tensors().all(|tensor| read.describe(tensor) == file.describe(tensor)));
            copied += 1;
        };
        for end in (0..whole.len()).rev().take(200).chain((0..whole.len()).step_by(97)) {
            check(&whole[..end]);
        }
        for at in 0..whole.len().min(1500) {
            for bit in [0, 4, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                check(&bytes);
            }
        }
    }
    assert!(copied > 500 && refused > 0, "{copied} copied, {refused} refused");
    // An alignment far longer than the file, whose tensors have no data.
    for alignment in [1u32 << 31, 1 << 20] {
        let tensors = vec![(("t".to_owned(), GgufType::F32, vec![0]), vec![])];
        let entries = vec![entry("general.alignment", 4, &alignment.to_le_bytes())];
        let made = writer::Writer { entries, tensors, alignment: 1, ..writer::Writer::default() };
        let before = made.bytes();
        let file = GgufFile::parse(&before).unwrap();
        assert_eq!(GgufWriter::new(&file).unwrap().to_bytes().unwrap(), before);
    }
}

/// A device that is full, after so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 && !bytes.is_empty() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_to_write_are_errors() {
    let bytes = source(3, 32, &[("q", 2, 32)]);
    let file = GgufFile::parse(&bytes).unwrap();
    let writer = GgufWriter::new(&file).unwrap();
    for room in 0..bytes.len() {
        let error = writer.write(Full(room)).unwrap_err();
        assert!(matches!(error, GgufWriteError::Write(_)), "{room}: {error}");
    }
    writer.write(Full(bytes.len())).unwrap();
}
