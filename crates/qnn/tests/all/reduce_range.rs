//! PyTorch's `reduce_range`: activations of 7 bits. (That models with it have the same bits
//! everywhere, those of the scalar steps, is in `mnist.rs`, `digest.rs` and `scalar.rs`, beside
//! those without it.)

use qcore::{CodeRange, Scheme};
use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, FloatLinear, FloatMlp, ForwardError, LinearWorkspace, Method, Mlp, PassConfig,
    QuantConfig, QuantMlp, StaticConfig, quantize_model,
};
use safetensors::Dtype;

use crate::contents::Contents;
use crate::mnist::{FLOAT, FLOAT_LOGITS, MODELS, TEST, images, logits, quantize, same_class};
use crate::small::{float_model, rows};

fn reduced(activations: ActivationCodes) -> QuantConfig {
    QuantConfig { activations, reduce_range: true, ..QuantConfig::default() }
}

/// The codes that are left.
fn seven_bits(activations: ActivationCodes) -> CodeRange {
    match activations {
        ActivationCodes::I8 => CodeRange::signed(7).unwrap(),
        _ => CodeRange::unsigned(7).unwrap(),
    }
}

/// Whether the kernel has faster forms.
fn proofs(kernel: Kernel) -> bool {
    !kernel.desc().proven.is_empty() || kernel.desc().ordered.is_some()
}

#[test]
fn it_costs_a_bit_of_resolution() {
    for ((float, reference), (name, _)) in FLOAT.iter().zip(FLOAT_LOGITS.iter()).zip(MODELS) {
        for activations in ActivationCodes::ALL {
            let [eight, seven] = [false, true].map(|reduce_range| {
                let model = quantize(float, &QuantConfig { reduce_range, ..reduced(activations) });
                let logits = logits(&model, TEST.len(), Threads::Serial);
                (qcore::sqnr_db(reference, &logits).unwrap(), logits)
            });
            let (cost, agree) = (eight.0 - seven.0, same_class(reference, &seven.1));
            println!(
                "{name} {activations}: {:.2} dB less {cost:.2} dB, {agree} of {} agree",
                eight.0,
                TEST.len()
            );
            assert!((3.0..=9.0).contains(&cost), "{name} {activations}: {cost} dB");
            assert!(100 * agree >= 99 * TEST.len(), "{name} {activations}: {agree} agree");
        }
    }
}

/// Weights all over their range, for which packing finds no order of k that is worth it.
fn uniform() -> FloatMlp {
    let mut state = 1_u64;
    let weight = (0..64 * 96).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    FloatMlp::new(vec![FloatLinear::new("fc1", 64, 96, weight.collect(), vec![0.0; 64]).unwrap()]).unwrap()
}

/// What it is for.
#[test]
fn any_weights_are_proven_for_u8() {
    let float = uniform();
    let x: Vec<f32> = (0..96).map(|i| i as f32).collect();
    let calibrated = float.calibrate([rows(&x, 96)]).unwrap();
    for kernel in Kernel::available() {
        let proven = |activations, reduce_range| {
            let config = QuantConfig { reduce_range, kernel: Some(kernel), ..reduced(activations) };
            let report = calibrated.quantize(&config).unwrap().report(&float, rows(&x, 96)).unwrap();
            report.layers[0].proven_channels
        };
        let [u8s, i8s] = ActivationCodes::ALL.map(|codes| [false, true].map(|reduce| proven(codes, reduce)));
        println!("{kernel}: u8 {u8s:?}, i8 {i8s:?}, with codes of 8 and of 7 bits");
        assert_eq!(u8s[1], proofs(kernel).then_some(64), "{kernel}");
        if kernel.name() == "avx2_6x16" {
            assert_eq!(u8s[0], Some(0), "codes of 8 bits need the slower form");
        }
    }
}

#[test]
fn trained_weights_are_proven_for_u8() {
    for float in FLOAT.iter() {
        for activations in ActivationCodes::ALL {
            let models = [false, true].map(|reduce_range| {
                let config = QuantConfig { reduce_range, ..reduced(activations) };
                quantize(float, &config).to_bytes().unwrap()
            });
            for kernel in Kernel::available() {
                // The file alone has to say it.
                let [eight, seven] =
                    models.each_ref().map(|model| QuantMlp::from_bytes(model, Some(kernel)).unwrap());
                for (eight, seven) in eight.layers().zip(seven.layers()) {
                    assert_eq!(seven.input().codes(), seven_bits(activations));
                    let [before, proven] = [eight, seven].map(|layer| layer.weights().proven_columns());
                    println!("{kernel} {activations} {}: {before}, {proven} of {}", seven.name(), seven.n());
                    match (activations, proofs(kernel)) {
                        (_, false) => assert_eq!(proven, 0, "{kernel}"),
                        (ActivationCodes::U8, true) => assert_eq!(proven, seven.n(), "{kernel}"),
                        (_, true) => assert!(proven >= before, "{kernel}: {before} {proven}"),
                    }
                }
            }
        }
    }
}

#[test]
fn all_codes_are_those_that_are_left() {
    let images = images(&TEST).row_range(0..500).unwrap();
    for activations in ActivationCodes::ALL {
        let model = quantize(&FLOAT[0], &reduced(activations));
        let report = model.report(&FLOAT[0], images).unwrap();
        assert!(report.layers.iter().all(|layer| layer.input_codes == seven_bits(activations)));
        let text = format!("int8 model, {activations} activations of 7 bits, kernel ");
        assert!(report.to_string().starts_with(&text), "{report}");
        let eight = quantize(&FLOAT[0], &QuantConfig { reduce_range: false, ..reduced(activations) });
        let text = format!("int8 model, {activations} activations, kernel ");
        assert!(eight.report(&FLOAT[0], images).unwrap().to_string().starts_with(&text));
        match activations {
            ActivationCodes::I8 => check_codes::<i8>(&model, images),
            _ => check_codes::<u8>(&model, images),
        }
    }
}

/// Runs `x` through the model, layer by layer, and looks at all codes between them.
fn check_codes<C: qkernels::Activation>(model: &QuantMlp, x: MatRef<'_, f32>) {
    let (mut values, mut workspace) = (Vec::new(), LinearWorkspace::new());
    (0..x.rows()).for_each(|i| values.extend_from_slice(x.row_slice(i).unwrap()));
    let input = *model.layers().next().unwrap().input();
    let mut codes: Vec<C> = values.iter().map(|&v| C::from_clamped(input.quantize(v))).collect();
    for layer in model.layers() {
        let range = layer.input().codes();
        let ends = codes
            .iter()
            .fold((0, 0), |(min, max): (i32, i32), code| (min.min(code.widen()), max.max(code.widen())));
        assert!(range.contains(ends.0) && range.contains(ends.1), "{}: {ends:?}", layer.name());
        assert!(2 * ends.1 > range.max(), "{}: {ends:?} is little of the range", layer.name());
        if layer.output().is_some() {
            let mut next = vec![C::from_clamped(0); x.rows() * layer.n()];
            let (a, out) =
                (MatRef::new(&codes, x.rows(), layer.k()), MatMut::new(&mut next, x.rows(), layer.n()));
            layer.forward_codes(a.unwrap(), out.unwrap(), Threads::Serial, &mut workspace).unwrap();
            codes = next;
        }
    }
}

/// Weights are packed for codes of 7 bits, so that others would saturate.
#[test]
fn codes_of_8_bits_are_refused() {
    let calibrated = float_model();
    let calibrated = calibrated.calibrate([rows(&[0.0, 1.0, 0.5, -0.5], 2)]).unwrap();
    for kernel in Kernel::available() {
        let config = QuantConfig { kernel: Some(kernel), ..reduced(ActivationCodes::U8) };
        let model = calibrated.quantize(&config).unwrap();
        let (layer, mut sums) = (model.layers().next().unwrap(), [7; 9]);
        let codes = [127_u8, 0, 3, 128, 200, 1];
        let mut run = |codes: &[u8], m| {
            let out = MatMut::new(&mut sums[..3 * m], m, 3).unwrap();
            let x = MatRef::new(codes, m, 2).unwrap();
            layer.forward_sums(x, out, Threads::Serial, &mut LinearWorkspace::new())
        };
        let error = run(&codes, 3).unwrap_err();
        assert!(matches!(error, ForwardError::OutsideCode(_)), "{kernel}: {error}");
        assert_eq!(error.to_string(), "code 128 in row 1, column 1 is not in 0..=127", "{kernel}");
        run(&codes[..2], 1).unwrap();
        assert_eq!(sums[3..], [7; 6], "nothing was written");
    }
}

/// A pass and [`qnn::CalibratedMlp::quantize`] make the same model, which a scheme with codes of 7
/// bits makes, too.
#[test]
fn a_pass_makes_the_same_model() {
    for activations in ActivationCodes::ALL {
        let x = [0.0, 1.0, 0.5, -0.5];
        let expected = float_model();
        let expected = expected.calibrate([rows(&x, 2)]).unwrap().quantize(&reduced(activations)).unwrap();
        let scheme = match activations {
            ActivationCodes::I8 => Scheme::activations_i8(),
            _ => Scheme::activations_u8(),
        };
        let by_name = StaticConfig { activations: scheme, reduce_range: true, ..StaticConfig::default() };
        let codes = seven_bits(activations);
        let by_codes =
            StaticConfig { activations: Scheme { codes, ..scheme }, reduce_range: false, ..by_name };
        let both = StaticConfig { reduce_range: true, ..by_codes };
        let names = [by_name, by_codes, both].map(|config| {
            let mut model = Mlp::from(float_model());
            let method = Method::Static(config);
            let config = PassConfig { method, ..PassConfig::default() };
            quantize_model(&mut model, &config, [rows(&x, 2)], Mlp::run_batch, |_| {}).unwrap();
            let model = QuantMlp::try_from(model).unwrap();
            assert!(model.to_bytes().unwrap() == expected.to_bytes().unwrap(), "{method}");
            method.to_string()
        });
        let name = match activations {
            ActivationCodes::I8 => "static i7 affine, min-max",
            _ => "static u7, min-max",
        };
        assert_eq!(names, [name; 3]);
        let eight_bits = Method::Static(StaticConfig { reduce_range: false, ..by_name }).to_string();
        assert_ne!(eight_bits, name);
    }
}

#[test]
fn files_keep_it_and_what_does_not_fit_it_is_refused() {
    let float = float_model();
    let calibrated = float.calibrate([rows(&[0.0, 1.0, 0.5, -0.5], 2)]).unwrap();
    let bytes = calibrated.quantize(&reduced(ActivationCodes::U8)).unwrap().to_bytes().unwrap();
    let restored = QuantMlp::from_bytes(&bytes, None).unwrap();
    assert!(restored.to_bytes().unwrap() == bytes);
    let contents = Contents::of(&bytes);
    for layer in contents.description["layers"].as_array().unwrap() {
        assert_eq!(layer["input"]["codes"], serde_json::json!([0, 127]));
    }
    let mut altered = contents.clone();
    altered.set("fc1.input_zero_point", Dtype::I32, &[], [i32::to_le_bytes(200)]);
    let error = QuantMlp::from_bytes(&altered.to_bytes(), None).unwrap_err().to_string();
    assert!(error.contains("fc1") && error.contains("the zero point must be 0 to 127, got 200"), "{error}");
    let mut altered = contents;
    altered.description["layers"][0]["input"]["codes"] = serde_json::json!([0, 126]);
    let error = QuantMlp::from_bytes(&altered.to_bytes(), None).unwrap_err().to_string();
    assert!(error.starts_with("codes is \"0..=126\""), "{error}");
}

/// Layers may differ: each gives the codes that the next one takes.
#[test]
fn one_layer_of_a_model_may_have_it() {
    let x = [0.0, 1.0, 0.5, -0.5];
    for layer in ["fc1", "fc2"] {
        let mut model = Mlp::from(float_model());
        let method = Method::Static(StaticConfig { reduce_range: true, ..StaticConfig::default() });
        let config = PassConfig::default().with_rule(layer, method);
        quantize_model(&mut model, &config, [rows(&x, 2)], Mlp::run_batch, |_| {}).unwrap();
        let model = QuantMlp::try_from(model).unwrap();
        let codes = model.layers().map(|l| (l.name().to_owned(), l.input().codes()));
        for (name, codes) in codes {
            let expected = if name == layer { CodeRange::U8.reduced() } else { CodeRange::U8 };
            assert_eq!(codes, expected, "{name}");
        }
        let report = model.report(&float_model(), rows(&x, 2)).unwrap().to_string();
        assert!(report.starts_with("int8 model, u8 activations, kernel "), "{report}");
        let bytes = model.to_bytes().unwrap();
        let restored = QuantMlp::from_bytes(&bytes, None).unwrap();
        assert!(restored.to_bytes().unwrap() == bytes);
        let [a, b] = [&model, &restored].map(|model| {
            let mut out = [f32::NAN; 4];
            let view = MatMut::new(&mut out, 2, 2).unwrap();
            model.forward(rows(&x, 2), view, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
            out.map(f32::to_bits)
        });
        assert_eq!(a, b);
    }
}
