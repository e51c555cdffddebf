//! Files of weights of 4 bits, with minimums or with groups in parts, that are not what they should
//! be.

use proptest::prelude::*;
use proptest::sample::select;
use qcore::{CodeRange, Scheme};
use qkernels::{Dynamic, Kernel, MatRef, PackedNibbles, ScaledWeights, Threads, WeightScales};
use qnn::{
    DynamicLinear, LayerFile, Linear, LinearWorkspace, LoadError, WeightConfig, WeightOnlyLinear,
    layers_to_bytes,
};
use safetensors::Dtype;

use crate::contents::Contents;
use crate::small::linear;
use crate::tensor_files::f32s;

/// What is wrong after `alter` changed a good file's contents.
fn error(good: &Contents, alter: &dyn Fn(&mut Contents)) -> String {
    let mut contents = good.clone();
    alter(&mut contents);
    let bytes = contents.to_bytes();
    let mut file = match LayerFile::parse(&bytes) {
        Ok(file) => file,
        Err(error) => return error.to_string(),
    };
    let error = file.take("fc", None).and_then(|_| file.finish()).unwrap_err();
    error.to_string()
}

#[test]
fn weights_of_4_bits_are_checked() {
    let scheme = Scheme { codes: CodeRange::signed(4).unwrap(), ..Scheme::weights_i8() };
    let config = WeightConfig { scheme, ..WeightConfig::default() }.in_groups_of(16);
    let kernel = Kernel::select().unwrap();
    let layer = WeightOnlyLinear::quantize(&linear("fc", 2, 21), &config, kernel).unwrap();
    let good = Contents::of(&layers_to_bytes(&Linear::from(layer)).unwrap());
    let error = |alter: &dyn Fn(&mut Contents)| error(&good, alter);
    // The last byte of a row has one code, since 21 is odd.
    let padding = |c: &mut Contents| c.tensors.get_mut("fc.weight").unwrap().2[10] |= 0x10;
    assert!(error(&padding).contains(r#""fc.weight" has a code of 4 bits behind the last one"#));
    let shape = |c: &mut Contents| c.description["layers"][0]["nibbles"] = 23.into();
    assert_eq!(error(&shape), r#"tensor "fc.weight" has shape [2, 11], expected [2, 12]"#);
    let huge = |c: &mut Contents| c.description["layers"][0]["nibbles"] = usize::MAX.into();
    assert!(error(&huge).contains("expected [2, 9223372036854775808]"), "{}", error(&huge));
    let static_form = |c: &mut Contents| c.description["layers"][0]["form"] = "dynamic".into();
    assert!(error(&static_form).contains("fc"), "{}", error(&static_form));
    let zero_points = |c: &mut Contents| {
        c.tensors.insert("fc.weight_zero_point".to_owned(), (Dtype::I8, vec![2, 2], vec![8, 16, 8, 8]));
    };
    assert!(error(&zero_points).contains("the zero point of group 1 of channel 0 is 16"));
}

/// Both forms of a layer (2, 80) whose groups of 64 have parts of 32.
fn with_minimums() -> [Contents; 2] {
    let kernel = Kernel::select().unwrap();
    let codes: Vec<u8> = (0..2 * 80).map(|i| (i * 7 % 16) as u8).collect();
    let codes = PackedNibbles::from_nk(MatRef::new(&codes, 2, 80).unwrap(), kernel).unwrap();
    let scales = WeightScales::per_group(&[0.5, -0.25, 1.0, 2.0], 64).with_minimums(&[-1.0, 0.5, 0.0, -4.0]);
    let scales = scales.with_parts(32, &[1, 63, 0, 2, -5, 127]).with_part_minimums(&[0, 127, 5, 1, 2, 3]);
    let weights = ScaledWeights::of_nibbles(codes, scales).unwrap();
    let weight_only = WeightOnlyLinear::from_weights(weights.clone(), None).unwrap().with_name("fc");
    let per_token = Dynamic::PerToken(Scheme::weights_i8());
    let dynamic = DynamicLinear::from_weights(weights, None, per_token).unwrap().with_name("fc");
    [Linear::from(weight_only), dynamic.into()].map(|layer| Contents::of(&layers_to_bytes(&layer).unwrap()))
}

#[test]
fn the_format_of_minimums_and_parts_is_what_its_documentation_says() {
    for contents in with_minimums() {
        let tensors: Vec<_> = contents
            .tensors
            .iter()
            .map(|(name, (dtype, shape, _))| format!("{name} {dtype} {shape:?}"))
            .collect();
        let expected = [
            "fc.weight U8 [2, 40]",
            "fc.weight_minimum F32 [2, 2]",
            "fc.weight_part_minimum I8 [2, 3]",
            "fc.weight_part_scale I8 [2, 3]",
            "fc.weight_scale F32 [2, 2]",
        ];
        assert_eq!(tensors, expected);
        assert_eq!(contents.description["version"], 5);
        let layer = &contents.description["layers"][0];
        assert_eq!((&layer["group"], &layer["part"]), (&64.into(), &32.into()));
        assert_eq!((&layer["minimums"], &layer["nibbles"]), (&true.into(), &80.into()));
        let bytes = contents.to_bytes();
        let restored = LayerFile::parse(&bytes).unwrap().take("fc", None).unwrap();
        assert!(layers_to_bytes(&restored).unwrap() == bytes);
    }
}

#[test]
fn minimums_and_parts_are_checked() {
    for good in with_minimums() {
        let form = good.description["layers"][0]["form"].as_str().unwrap().to_owned();
        let fails = |alter: &dyn Fn(&mut Contents), message: &str| assert_eq!(error(&good, alter), message);
        for kind in ["minimum", "part_scale", "part_minimum"] {
            let tensor = format!("fc.weight_{kind}");
            let missing = format!("tensor {tensor:?} is missing");
            fails(&|c| drop(c.tensors.remove(&tensor)), &missing);
            let expected = if kind == "minimum" { "[2, 2]" } else { "[2, 3]" };
            for shape in [vec![3, 2], vec![6], vec![2, 2, 1], vec![0, 3]] {
                let shaped = format!("tensor {tensor:?} has shape {shape:?}, expected {expected}");
                let alter = |c: &mut Contents| {
                    let (dtype, of, data) = c.tensors.get_mut(&tensor).unwrap();
                    let bytes = if *dtype == Dtype::F32 { 4 } else { 1 };
                    data.resize(bytes * shape.iter().product::<usize>(), 0);
                    of.clone_from(&shape);
                };
                fails(&alter, &shaped);
            }
        }
        let typed = |tensor: &str, dtype, data: Vec<u8>| {
            let (tensor, shape) = (tensor.to_owned(), good.tensors[tensor].1.clone());
            move |c: &mut Contents| {
                drop(c.tensors.insert(tensor.clone(), (dtype, shape.clone(), data.clone())))
            }
        };
        fails(
            &typed("fc.weight_minimum", Dtype::I32, vec![0; 16]),
            r#"tensor "fc.weight_minimum" is I32, expected F32"#,
        );
        fails(
            &typed("fc.weight_part_scale", Dtype::U8, vec![0; 6]),
            r#"tensor "fc.weight_part_scale" is U8, expected I8"#,
        );
        for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let values = f32s(&[0.0, 0.0, bad, 0.0]);
            let message = |operand: &str| {
                format!(r#"layer "fc": the {operand} of group 0 of channel 1 is {text}; it must be finite"#)
            };
            fails(&typed("fc.weight_minimum", Dtype::F32, values.clone()), &message("minimum"));
            fails(&typed("fc.weight_scale", Dtype::F32, values), &message("scale"));
        }
        fails(
            &typed("fc.weight_part_minimum", Dtype::I8, vec![0, 1, 2, 3, 0x80, 5]),
            r#"layer "fc": the minimum of part 1 of channel 1 is -128; those of parts are 0 to 127"#,
        );
        // What the description says.
        let field = |field: &'static str, value: serde_json::Value| {
            move |c: &mut Contents| c.description["layers"][0][field] = value.clone()
        };
        let without = |field: &'static str| {
            move |c: &mut Contents| drop(c.description["layers"][0].as_object_mut().unwrap().remove(field))
        };
        for len in [16, 1, 0] {
            let parts = 80_usize.div_ceil(len.max(1));
            let message = format!(r#"tensor "fc.weight_part_scale" has shape [2, 3], expected [2, {parts}]"#);
            fails(&field("part", len.into()), &message);
        }
        fails(
            &field("part", 40.into()),
            r#"tensor "fc.weight_part_scale" has shape [2, 3], expected [2, 2]"#,
        );
        // Parts of 39 are as many as those of 32.
        fails(
            &field("part", 39.into()),
            r#"layer "fc": parts of 39 in groups of 64 along k; they must divide a group and be a multiple of 16, and not 0"#,
        );
        fails(&without("group"), &format!(r#"layer "fc" is {form}: "part" must not be there"#));
        fails(&without("part"), r#"tensor "fc.weight_part_minimum" is unexpected"#);
        fails(&without("minimums"), r#"tensor "fc.weight_minimum" is unexpected"#);
        let neither = |c: &mut Contents| {
            without("minimums")(c);
            without("part")(c);
        };
        fails(&neither, "version 5 of the format, expected 4");
        let older = |c: &mut Contents| c.description["version"] = 4.into();
        fails(&older, "version 4 of the format, expected 5");
        assert!(error(&good, &field("part", "32".into())).contains("invalid type: string"));
        assert!(error(&good, &field("minimums", 1.into())).contains("invalid type: integer `1`"));
    }
}

#[test]
fn groups_of_the_input_are_checked() {
    let [_, mut good] = with_minimums();
    good.description["version"] = 6.into();
    let groups = serde_json::json!({"per": "group", "group": 64, "scheme": "weights_i8"});
    good.description["layers"][0]["dynamic"] = groups;
    let bytes = good.to_bytes();
    let restored = LayerFile::parse(&bytes).unwrap().take("fc", None).unwrap();
    assert!(layers_to_bytes(&restored).unwrap() == bytes);
    let fails = |alter: &dyn Fn(&mut serde_json::Value), message: &str| {
        let alter = |c: &mut Contents| alter(&mut c.description["layers"][0]["dynamic"]);
        assert_eq!(error(&good, &alter), message);
    };
    let message = r#"layer "fc": activations in groups of 32, but weights in groups of 64 along k"#;
    fails(&|dynamic| dynamic["group"] = 32.into(), message);
    fails(&|dynamic| *dynamic = serde_json::json!({"per": "ggml_q8_0"}), message);
    fails(
        &|dynamic| dynamic["group"] = 0.into(),
        r#"layer "fc": activations in groups of 0 along k; their length must be a multiple of 16, and not 0"#,
    );
    let without = |field: &'static str| {
        move |dynamic: &mut serde_json::Value| drop(dynamic.as_object_mut().unwrap().remove(field))
    };
    fails(&without("group"), r#"group is "none", expected one beside "group""#);
    fails(&without("scheme"), r#"scheme is "none", expected one beside "group""#);
    fails(
        &|dynamic| dynamic["per"] = "ggml_q8_0".into(),
        r#"group is "64", expected none beside "ggml_q8_0""#,
    );
    fails(
        &|dynamic| {
            without("group")(dynamic);
            dynamic["per"] = "ggml_q8_0".into();
        },
        r#"scheme is "one", expected none beside "ggml_q8_0""#,
    );
    let unknown = |c: &mut Contents| {
        c.description["version"] = 5.into();
        c.description["layers"][0]["dynamic"]["per"] = "block".into();
    };
    let message = r#"per is "block", expected tensor or token or group or ggml_q8_0"#;
    assert_eq!(error(&good, &unknown), message);
    // Other inputs have no groups, and older versions no such inputs.
    let older = |c: &mut Contents| c.description["version"] = 5.into();
    assert_eq!(error(&good, &older), "version 5 of the format, expected 6");
    let of_token = |c: &mut Contents| {
        c.description["version"] = 5.into();
        c.description["layers"][0]["dynamic"]["per"] = "token".into();
    };
    assert_eq!(error(&good, &of_token), r#"group is "64", expected none beside "token""#);
}

#[test]
fn other_forms_have_neither_minimums_nor_parts() {
    let float = Contents::of(&layers_to_bytes(&Linear::from(linear("fc", 2, 16))).unwrap());
    for (field, value) in [("minimums", true.into()), ("part", serde_json::Value::from(16))] {
        let alter = |c: &mut Contents| {
            c.description["version"] = 5.into();
            c.description["layers"][0][field] = value.clone();
        };
        assert_eq!(error(&float, &alter), format!(r#"layer "fc" is float: "{field}" must not be there"#));
    }
    // Not even when it says that it has none: a file has one form.
    let alter = |c: &mut Contents| c.description["layers"][0]["minimums"] = false.into();
    let mut contents = float.clone();
    alter(&mut contents);
    let bytes = contents.to_bytes();
    assert!(matches!(LayerFile::parse(&bytes), Err(LoadError::Checksum { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any numbers, with tensors that have the shapes which they ask for: a layer, which then runs
    /// and is saved, or an error.
    #[test]
    fn hostile_numbers_never_panic(
        dynamic: bool,
        group in select(vec![0_usize, 1, 16, 32, 48, 64, 80, 96, 1 << 40, usize::MAX]),
        part in select(vec![0_usize, 1, 16, 24, 32, 48, 64, 80, 1 << 40, usize::MAX]),
        values: [f32; 4],
        bytes in proptest::collection::vec(any::<u8>(), 320),
    ) {
        let mut contents = with_minimums()[usize::from(dynamic)].clone();
        contents.description["layers"][0]["group"] = group.into();
        contents.description["layers"][0]["part"] = part.into();
        let groups = 80_usize.div_ceil(group.max(1));
        let parts = 80_usize.div_ceil(part.max(1));
        for kind in ["scale", "minimum"] {
            let data = f32s(&values).into_iter().cycle().take(8 * groups).collect();
            contents.tensors.insert(format!("fc.weight_{kind}"), (Dtype::F32, vec![2, groups], data));
            let data = bytes[..2 * parts].iter().map(|byte| byte & if kind == "scale" { 0xff } else { 0x7f });
            let part = (Dtype::I8, vec![2, parts], data.collect());
            contents.tensors.insert(format!("fc.weight_part_{kind}"), part);
        }
        let file = contents.to_bytes();
        match LayerFile::parse(&file).unwrap().take("fc", None) {
            Err(error) => prop_assert!(error.to_string().starts_with(r#"layer "fc": "#), "{error}"),
            Ok(layer) => {
                prop_assert!(layers_to_bytes(&layer).unwrap() == file);
                let x: Vec<f32> = bytes[..80].iter().map(|&byte| f32::from(byte) - 100.0).collect();
                let x = MatRef::new(&x, 1, 80).unwrap();
                let _ = layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new());
            }
        }
    }
}
