//! Whatever bytes a file has, reading it gives a typed error with names and numbers, never a panic.

use proptest::prelude::*;
use qkernels::{Kernel, MatMut, Threads};
use qnn::{
    Checkpoint, FloatMlp, LayerError, LayerFile, LinearWorkspace, LoadError, Mlp, PassLayerError,
    QuantConfig, QuantMlp, QuantizeModelError, Refusal, SaveError, TensorFileError,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::contents::Contents;
use crate::small::{linear, quant_model, rows};
use crate::tensor_files::with_header;

fn set_codes(contents: &mut Contents, codes: &str) {
    for layer in contents.description["layers"].as_array_mut().unwrap() {
        layer["input"]["codes"] = if codes == "i8" { vec![-128, 127] } else { vec![0, 255] }.into();
    }
}

/// The error after `alter` changed a good file's contents, its checksum still right.
fn error(alter: impl FnOnce(&mut Contents)) -> LoadError {
    let mut contents = Contents::of(&quant_model().to_bytes().unwrap());
    alter(&mut contents);
    QuantMlp::from_bytes(&contents.to_bytes(), None).unwrap_err()
}

fn f32s<const N: usize>(values: [f32; N]) -> [[u8; 4]; N] {
    values.map(f32::to_le_bytes)
}

#[test]
fn the_format_is_what_its_documentation_says() {
    let bytes = quant_model().to_bytes().unwrap();
    let contents = Contents::of(&bytes);
    assert!(contents.to_bytes() == bytes, "checksum and layout, computed here anew");
    let shapes: Vec<_> =
        contents.tensors.iter().map(|(name, (d, s, _))| format!("{name} {d} {s:?}")).collect();
    let of_layer = |name: &str, n: usize, k: usize| {
        [
            format!("{name}.bias I32 [{n}]"),
            format!("{name}.input_scale F32 []"),
            format!("{name}.input_zero_point I32 []"),
            format!("{name}.weight I8 [{n}, {k}]"),
            format!("{name}.weight_scale F32 [{n}]"),
        ]
    };
    assert_eq!(shapes, [of_layer("fc1", 3, 2), of_layer("fc2", 2, 3)].concat());
    for kernel in Kernel::available() {
        let restored = QuantMlp::from_bytes(&bytes, Some(kernel)).unwrap();
        assert!(restored.to_bytes().unwrap() == bytes, "{}", kernel.name());
    }
}

/// A model whose file's header is padded with spaces, which JSON would let become other white
/// space.
fn padded_file() -> Vec<u8> {
    let names = ["a", "ab", "abc"].into_iter();
    let files = names.map(|name| {
        let float = FloatMlp::new(vec![linear(name, 2, 3), linear("fc2", 1, 2)]).unwrap();
        let calibrated = float.calibrate([rows(&[0.0, 1.0, 0.5], 3)]).unwrap();
        calibrated.quantize(&QuantConfig::default()).unwrap().to_bytes().unwrap()
    });
    let padded = |bytes: &Vec<u8>| {
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes[8 + length - 1] == b' '
    };
    files.into_iter().find(padded).unwrap()
}

/// Every other value of every byte.
#[test]
fn any_altered_byte_is_noticed() {
    let good = padded_file();
    let kernel = Kernel::available().last();
    let mut bytes = good.clone();
    for at in 0..good.len() {
        for change in 1..=255 {
            bytes[at] = good[at] ^ change;
            let error = QuantMlp::from_bytes(&bytes, kernel);
            assert!(error.is_err(), "byte {at} of {} as {:#04x}", good.len(), bytes[at]);
        }
        bytes[at] = good[at];
    }
    assert!(QuantMlp::from_bytes(&bytes, kernel).is_ok());
}

#[test]
fn any_cut_and_any_addition_is_noticed() {
    let good = quant_model().to_bytes().unwrap();
    for len in 0..good.len() {
        assert!(QuantMlp::from_bytes(&good[..len], None).is_err(), "cut off at {len}");
    }
    assert!(QuantMlp::from_bytes(&[&good[..], &[0]].concat(), None).is_err());
    assert!(QuantMlp::from_bytes(&[&[0], &good[..]].concat(), None).is_err());
    let error = QuantMlp::from_bytes(&good[..good.len() - 3], None).unwrap_err();
    assert!(matches!(error, LoadError::File(TensorFileError::DataLength { .. })), "{error}");
    assert_eq!(
        QuantMlp::from_bytes(&good[..100], None).unwrap_err().to_string(),
        format!(
            "not a safetensors file, or cut off: the header ends at byte {}, the file at 100",
            8 + u64::from_le_bytes(*good.first_chunk().unwrap())
        )
    );
    let huge = u64::MAX.to_le_bytes();
    assert_eq!(
        QuantMlp::from_bytes(&huge, None).unwrap_err().to_string(),
        "not a safetensors file: a header of 18446744073709551615 bytes, more than 100000000"
    );
}

#[test]
fn a_wrong_checksum_gives_both() {
    let mut bytes = quant_model().to_bytes().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let LoadError::Checksum { expected, got } = QuantMlp::from_bytes(&bytes, None).unwrap_err() else {
        panic!("another error")
    };
    assert!(expected.len() == 8 && got.len() == 8 && expected != got);
}

#[test]
fn another_program_s_file_is_told_apart() {
    let view = TensorView::new(Dtype::U8, vec![1], &[0]).unwrap();
    let foreign = safetensors::serialize([("x", view)], None).unwrap();
    assert!(matches!(QuantMlp::from_bytes(&foreign, None), Err(LoadError::NoDescription)));
    let more = Some(("author".to_owned(), "me".to_owned()));
    assert_eq!(error(|c| c.more_metadata = more).to_string(), "unexpected metadata \"author\"");
    assert_eq!(
        error(|c| c.description["format"] = "gguf".into()).to_string(),
        "format is \"gguf\", expected qnn.layers"
    );
    let next = |c: &mut Contents| {
        c.description["version"] = 9.into();
        c.description["groups"] = 32.into(); // what only the next version knows must not come first
    };
    assert_eq!(error(next).to_string(), "version 9 of the format, expected 8");
    assert!(matches!(error(|c| c.description["groups"] = 32.into()), LoadError::Description(_)));
    assert!(matches!(error(|c| c.description["layers"] = "fc1".into()), LoadError::Description(_)));
    for (field, expected) in [
        ("form", "float or static or dynamic or weight_only"),
        ("activation", "none or the name of an activation function"),
    ] {
        let error = error(|c| c.description["layers"][0][field] = "x".into()).to_string();
        assert_eq!(error, format!("{field} is \"x\", expected {expected}"));
    }
    for (field, expected) in
        [("order", "round_then_add or add_then_round"), ("rounding", "ties_to_even or ties_away")]
    {
        let error = error(|c| c.description["layers"][1]["input"][field] = "x".into()).to_string();
        assert_eq!(error, format!("{field} is \"x\", expected {expected}"));
    }
    let codes = error(|c| c.description["layers"][0]["input"]["codes"] = vec![0, 256].into()).to_string();
    assert_eq!(codes, "codes is \"0..=256\", expected those of 2 to 8 bits, signed, unsigned or narrow");
    assert_eq!(
        error(|c| c.description["layers"][0]["form"] = "dynamic".into()).to_string(),
        "layer \"fc1\" is dynamic: \"input\" must not be there"
    );
    assert_eq!(
        error(|c| drop(c.description["layers"][0].as_object_mut().unwrap().remove("input"))).to_string(),
        "layer \"fc1\" is static: \"input\" must be there"
    );
    assert!(
        error(|c| c.description["requantize"] = "x".into()).to_string().starts_with("requantize is \"x\"")
    );
}

#[test]
fn tensors_must_be_those_of_the_layers() {
    let expect = |alter: &dyn Fn(&mut Contents), message: &str| assert_eq!(error(alter).to_string(), message);
    for kind in ["weight", "weight_scale", "input_scale", "input_zero_point"] {
        let name = format!("fc1.{kind}");
        let remove = |c: &mut Contents| drop(c.tensors.remove(&name));
        expect(&remove, &format!("tensor \"{name}\" is missing"));
    }
    expect(&|c| c.set("fc3.bias", Dtype::I32, &[1], [[0; 4]]), "tensor \"fc3.bias\" is unexpected");
    expect(
        &|c| c.set("fc1.bias", Dtype::I32, &[2], [[0; 4]; 2]),
        "tensor \"fc1.bias\" has shape [2], expected [3]",
    );
    expect(
        &|c| c.set("fc1.input_scale", Dtype::F32, &[1], [[0; 4]]),
        "tensor \"fc1.input_scale\" has shape [1], expected []",
    );
    expect(&|c| c.set("fc1.bias", Dtype::F32, &[3], [[0; 4]; 3]), "tensor \"fc1.bias\" is F32, expected I32");
    expect(
        &|c| c.set("fc1.weight", Dtype::I8, &[4], [[0; 4]]),
        "tensor \"fc1.weight\" has 1 dimensions, [4], expected 2",
    );
    expect(
        &|c| {
            c.set("fc1.weight", Dtype::I8, &[0, 2], []);
            c.set("fc1.weight_scale", Dtype::F32, &[0], []);
            c.set("fc1.bias", Dtype::I32, &[0], []);
        },
        "layer \"fc1\": n = 0 outputs and k = 2 inputs; both must be at least 1",
    );
}

#[test]
fn layers_must_make_a_chain() {
    assert_eq!(
        error(|c| {
            c.tensors.clear();
            c.description["layers"] = Vec::<String>::new().into();
        })
        .to_string(),
        "a model needs at least one layer, got none"
    );
    let twice = error(|c| c.description["layers"][1] = c.description["layers"][0].clone()).to_string();
    assert_eq!(twice, "layers 0 and 1 are both named \"fc1\"");
    assert_eq!(
        error(|c| c.set("fc2.weight", Dtype::I8, &[2, 2], [[0; 4]])).to_string(),
        "layer \"fc2\" takes k = 2 inputs, but \"fc1\" before it has n = 3 outputs"
    );
}

#[test]
fn values_must_be_usable() {
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let input = error(|c| c.set("fc2.input_scale", Dtype::F32, &[], f32s([bad])));
        assert!(matches!(&input, LoadError::Input { layer, .. } if layer == "fc2"), "{input}");
        let weight = error(|c| c.set("fc1.weight_scale", Dtype::F32, &[3], f32s([1.0, bad, 1.0])));
        let LoadError::Layer { layer, error: LayerError::WeightScale { channel: 1, scale } } = weight else {
            panic!("{weight}")
        };
        assert!(layer == "fc1" && scale.to_bits() == bad.to_bits());
    }
    for (bad, activations) in [(-1, "u8"), (256, "u8"), (i32::MIN, "u8"), (-129, "i8"), (128, "i8")] {
        let error = error(|c| {
            set_codes(c, activations);
            c.set("fc1.input_zero_point", Dtype::I32, &[], [i32::to_le_bytes(bad)]);
        });
        assert!(error.to_string().ends_with(&format!("got {bad}")), "{error}");
    }
    let tiny = error(|c| c.set("fc1.weight_scale", Dtype::F32, &[3], f32s([1.0, 1.0, 1e-38])));
    assert!(
        matches!(tiny, LoadError::Layer { error: LayerError::SumScale { channel: 2, .. }, .. }),
        "{tiny}"
    );
    let huge = error(|c| {
        c.set("fc1.weight_scale", Dtype::F32, &[3], f32s([1e37; 3]));
        c.set("fc2.input_scale", Dtype::F32, &[], f32s([1e-9]));
    });
    let LoadError::Model(error) = huge else { panic!("{huge}") };
    let QuantizeModelError::Layer(Refusal { layer, error, .. }) = *error else { panic!("{error}") };
    assert!(
        layer == "fc1" && matches!(error, PassLayerError::Quantize(LayerError::Multiplier { .. })),
        "{error}"
    );
}

/// A program that prints an error and its causes should not print anything twice.
#[test]
fn causes_are_said_once() {
    let scale = error(|c| c.set("fc1.weight_scale", Dtype::F32, &[3], f32s([1.0, -1.0, 1.0])));
    let input = error(|c| c.set("fc2.input_scale", Dtype::F32, &[], f32s([0.0])));
    let missing = QuantMlp::load("no such file", None).unwrap_err();
    for error in [scale, input, missing] {
        let text = error.to_string();
        let mut cause = core::error::Error::source(&error);
        while let Some(error) = cause {
            assert!(!text.contains(&error.to_string()), "{text}");
            cause = error.source();
        }
    }
}

#[test]
fn sums_that_could_overflow_are_refused() {
    let bias = error(|c| c.set("fc1.bias", Dtype::I32, &[3], [0, i32::MIN, 0].map(i32::to_le_bytes)));
    assert!(
        bias.to_string().starts_with("layer \"fc1\": channel 1: the accumulator can reach 2147"),
        "{bias}"
    );
    let deep = error(|c| {
        let k = 100_000; // times 170 (the zero point is 85) times 127 is more than int32 holds
        c.set("fc1.weight", Dtype::I8, &[3, k], vec![[127; 4]; 3 * k / 4]);
    });
    assert!(matches!(deep, LoadError::Layer { error: LayerError::Overflow(_), .. }), "{deep}");
}

/// Offsets that add up to nearly 2^64: a sum of them and the header's length would overflow.
#[test]
fn claims_of_huge_tensors_do_not_overflow() {
    let size = (1_u64 << 61) - 1;
    for count in 1..=8 {
        let tensors: Vec<_> = (0..count)
            .map(|i| {
                let offsets = format!("[{},{}]", size * i, size * (i + 1));
                format!("\"t{i}\":{{\"dtype\":\"I8\",\"shape\":[{size}],\"data_offsets\":{offsets}}}")
            })
            .collect();
        let header = format!("{{{}}}", tensors.join(","));
        let bytes = with_header(&header, &[0; 16]);
        let error = QuantMlp::from_bytes(&bytes, None).unwrap_err();
        assert!(matches!(error, LoadError::File(TensorFileError::DataLength { got: 16, .. })), "{error}");
    }
}

/// A map would keep the last of them.
#[test]
fn a_key_that_is_there_twice_is_refused_by_every_reader() {
    let entry = |fields: &str| format!("\"fc.weight\":{{{fields}}}");
    let good = "\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]";
    let twice = [
        (format!("{{{},{}}}", entry(good), entry(good)), "fc.weight"),
        (format!("{{{},\"fc.w\\u0065ight\":{{{good}}}}}", entry(good)), "fc.weight"),
        (format!("{{{}}}", entry(&format!("{good},\"shape\":[1,1]"))), "fc.weight: shape"),
        (format!("{{{}}}", entry(&format!("{good},\"note\":0,\"note\":0"))), "fc.weight: note"),
        (
            format!("{{\"__metadata__\":{{\"qnn\":\"\",\"a\":\"\",\"qnn\":\"\"}},{}}}", entry(good)),
            "__metadata__: qnn",
        ),
        (format!("{{\"__metadata__\":{{}},{},\"__metadata__\":{{}}}}", entry(good)), "__metadata__"),
    ];
    assert!(FloatMlp::from_safetensors(&with_header(&format!("{{{}}}", entry(good)), &[0; 4])).is_ok());
    for (header, key) in twice {
        let bytes = with_header(&header, &[0; 4]);
        let message = format!("not a safetensors file, or damaged: the header has {key:?} twice");
        let errors = [
            Checkpoint::parse(&bytes).unwrap_err().to_string(),
            FloatMlp::from_safetensors(&bytes).unwrap_err().to_string(),
            LayerFile::parse(&bytes).unwrap_err().to_string(),
            QuantMlp::from_bytes(&bytes, None).unwrap_err().to_string(),
            Mlp::from_bytes(&bytes, None).unwrap_err().to_string(),
        ];
        assert_eq!(errors, [(); 5].map(|()| message.clone()));
    }
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let model = quant_model();
    let missing = folder.path().join("no").join("model.safetensors");
    let error = model.save(&missing).unwrap_err();
    assert!(matches!(&error, SaveError::Write { path, .. } if *path == missing), "{error}");
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(model.save(&taken).is_err() && taken.is_dir());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    assert!(matches!(QuantMlp::load(&missing, None), Err(LoadError::File(TensorFileError::Read { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(bytes: Vec<u8>, header in "\\PC{0,80}") {
        prop_assert!(QuantMlp::from_bytes(&bytes, None).is_err());
        let framed = with_header(&header, &bytes);
        prop_assert!(QuantMlp::from_bytes(&framed, None).is_err());
        prop_assert!(FloatMlp::from_safetensors(&framed).is_err());
    }

    /// Several bytes at once, some of them in the checksum: refused, or by luck the same model.
    #[test]
    fn several_altered_bytes_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let good = quant_model().to_bytes().unwrap();
        let mut bytes = good.clone();
        for (at, value) in changes {
            bytes[at.index(good.len())] = value;
        }
        let kernel = Kernel::available().last();
        if bytes != good {
            prop_assert!(QuantMlp::from_bytes(&bytes, kernel).is_err());
        }
    }

    /// Any contents with a checksum that is right: a proven model, which then runs, or an error.
    #[test]
    fn hostile_values_never_panic(
        scales: [u32; 3], biases: [i32; 3], input_scale: u32, zero_point in -200..300, i8_activations: bool,
    ) {
        let mut contents = Contents::of(&quant_model().to_bytes().unwrap());
        contents.set("fc1.weight_scale", Dtype::F32, &[3], scales.map(u32::to_le_bytes));
        contents.set("fc1.bias", Dtype::I32, &[3], biases.map(i32::to_le_bytes));
        contents.set("fc2.input_scale", Dtype::F32, &[], [input_scale.to_le_bytes()]);
        contents.set("fc2.input_zero_point", Dtype::I32, &[], [i32::to_le_bytes(zero_point)]);
        set_codes(&mut contents, if i8_activations { "i8" } else { "u8" });
        if let Ok(model) = QuantMlp::from_bytes(&contents.to_bytes(), None) {
            let mut out = [0.0; 4];
            let view = MatMut::new(&mut out, 2, 2).unwrap();
            let x = rows(&[1e9, -1e9, 0.0, 1.0], 2);
            model.forward(x, view, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
        }
    }
}
