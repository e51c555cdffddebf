//! Whatever scheme a layer has, its file gives it back; whatever a file says of a scheme, there is
//! no panic.

use proptest::prelude::*;
use proptest::sample::select;
use qcore::{
    ActivationFunction, AffineRange, CodeRange, Kind, QParams, Range, Rounding, ScaleArithmetic, Scheme,
    SymmetricDivisor, ZeroPointOrder, ZeroScale,
};
use qkernels::{
    Dynamic, Kernel, MatMut, MatRef, PackedNibbles, PackedWeights, ScaledWeights, Threads, WeightScales,
};
use qnn::{
    DynamicLinear, DynamicParts, FloatLinear, LayerError, LayerFile, Linear, LinearWorkspace, LoadError, Mlp,
    StaticLinear, StaticParts, WeightConfig, WeightGranularity, WeightOnlyLinear, layers_to_bytes,
};
use safetensors::SafeTensors;

use crate::small::linear;
use crate::tensor_files::sealed;

fn code_ranges() -> Vec<CodeRange> {
    let widths = (2..=8).flat_map(|bits| [CodeRange::signed(bits), CodeRange::unsigned(bits)]).flatten();
    widths.flat_map(|codes| [codes, codes.narrow()]).collect()
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let kinds = vec![
        Kind::Symmetric { divisor: SymmetricDivisor::MaxCode },
        Kind::Symmetric { divisor: SymmetricDivisor::HalfRange },
        Kind::Affine { range: AffineRange::AsObserved },
        Kind::Affine { range: AffineRange::AsObservedDistantZero },
        Kind::Affine { range: AffineRange::ExtendedToZero },
    ];
    let arithmetics = vec![
        ScaleArithmetic::F32,
        ScaleArithmetic::F64,
        ScaleArithmetic::F64StoredF32,
        ScaleArithmetic::F64TiesAway,
        ScaleArithmetic::F16,
    ];
    // All bits, so NaN, infinities and subnormal numbers too.
    let zero_scales = prop_oneof![
        Just(ZeroScale::One),
        Just(ZeroScale::SubnormalIsOne),
        Just(ZeroScale::Reject),
        any::<u32>().prop_map(|bits| ZeroScale::AddEpsilon(f32::from_bits(bits))),
        any::<u32>().prop_map(|bits| ZeroScale::FloorMagnitude(f32::from_bits(bits))),
        any::<u32>().prop_map(|bits| ZeroScale::FloorScale(f32::from_bits(bits))),
        select(vec![f32::NAN, f32::INFINITY, -0.0, 1e-10, f32::EPSILON]).prop_map(ZeroScale::AddEpsilon),
        any::<u64>().prop_map(|bits| ZeroScale::ConstantIsZero { below: f64::from_bits(bits) }),
    ];
    let orders = vec![ZeroPointOrder::RoundThenAdd, ZeroPointOrder::AddThenRound];
    let roundings = vec![Rounding::TiesToEven, Rounding::TiesAway];
    let choices = (
        select(code_ranges()),
        select(kinds),
        select(arithmetics),
        zero_scales,
        select(orders),
        select(roundings),
    );
    choices.prop_map(|(codes, kind, scale, zero_scale, order, rounding)| Scheme {
        codes,
        kind,
        scale,
        zero_scale,
        order,
        rounding,
    })
}

fn kernel() -> Kernel {
    Kernel::available().last().unwrap()
}

/// The layer from its file, which gives the same file again.
fn saved(layer: &Linear) -> Linear {
    let bytes = layers_to_bytes(layer).unwrap();
    let mut file = LayerFile::parse(&bytes).unwrap();
    let restored = file.take(layer.name(), Some(kernel())).unwrap();
    file.finish().unwrap();
    assert!(layers_to_bytes(&restored).unwrap() == bytes);
    restored
}

fn run(layer: &Linear, x: &[f32]) -> Option<Vec<f32>> {
    let mut y = vec![0.0; layer.n()];
    let (x, out) = (MatRef::new(x, 1, layer.k()).unwrap(), MatMut::new(&mut y, 1, layer.n()).unwrap());
    layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).ok().map(|()| y)
}

/// The same bits; any NaN is any other.
fn same<T: core::fmt::Debug>(a: &T, b: &T) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn static_layer(input: QParams) -> Option<Linear> {
    let parts = StaticParts {
        name: "fc".to_owned(),
        weight: MatRef::new(&[100_i8, -50, 25, 1, 2, -128], 2, 3).unwrap(),
        weight_scales: vec![0.5, 0.25],
        weight_zero_points: None,
        bias: Some(vec![5, -7]),
        input,
        activation: ActivationFunction::Identity,
    };
    StaticLinear::new(parts, kernel()).ok().map(Linear::from)
}

fn dynamic_layer(activations: Dynamic) -> Linear {
    let parts = DynamicParts {
        name: "fc".to_owned(),
        weight: MatRef::new(&[100_i8, -50, 25, 1, 2, -128], 2, 3).unwrap(),
        weight_scales: vec![0.5, 0.25],
        weight_zero_points: None,
        bias: None,
        activations,
        activation: ActivationFunction::Relu,
    };
    DynamicLinear::new(parts, kernel()).unwrap().into()
}

fn dynamic_of(layer: &Linear) -> Dynamic {
    let Linear::Dynamic(layer) = layer else { panic!("{}", layer.form().name()) };
    *layer.activations()
}

fn input_of(layer: &Linear) -> QParams {
    let Linear::Static(layer) = layer else { panic!("{}", layer.form().name()) };
    *layer.input()
}

#[test]
fn seven_bits_are_saved() {
    for codes in code_ranges() {
        for scheme in [Scheme::activations_u8(), Scheme::weights_i8(), Scheme::pytorch_affine(CodeRange::U8)]
        {
            let scheme = Scheme { codes, ..scheme };
            for dynamic in [Dynamic::PerTensor(scheme), Dynamic::PerToken(scheme)] {
                assert_eq!(dynamic_of(&saved(&dynamic_layer(dynamic))), dynamic);
            }
        }
    }
}

/// They would be cut to eight bits, in silence, and stand for other weights.
#[test]
fn weights_whose_zero_points_are_no_codes_are_refused() {
    let kind = Kind::Affine { range: AffineRange::AsObservedDistantZero };
    let config = WeightConfig {
        scheme: Scheme { kind, ..Scheme::activations_i8() },
        granularity: WeightGranularity::PerChannel,
    };
    let float = FloatLinear::without_bias("fc", 2, 2, vec![-1.0, 1.0, 9.0, 10.0]).unwrap();
    let error = DynamicLinear::quantize(&float, Dynamic::default(), &config, kernel()).unwrap_err();
    assert_eq!(error.to_string(), "weights: the zero point -2423 of channel 1 is no i8");
}

#[test]
fn groups_of_the_input_are_saved() {
    let (float, i8s) = (linear("fc", 3, 40), Scheme::weights_i8());
    let x: Vec<f32> = (0..40).map(|i| (i as f32).cos()).collect();
    let seven_bits = Scheme { codes: CodeRange::unsigned(7).unwrap(), ..i8s };
    let per_group = |scheme, group_len| Dynamic::PerGroup { scheme, group_len };
    let head = "{\"per\":\"group\",\"scheme\":";
    for (dynamic, group_len, expected) in [
        (Dynamic::GgmlQ8_0, 32, "\"dynamic\":{\"per\":\"ggml_q8_0\"}".to_owned()),
        (per_group(i8s, 16), 16, format!("{head}\"weights_i8\",\"group\":16}}")),
        (per_group(seven_bits, 32), 32, format!("{head}{{\"codes\":[0,127],")),
        // A single group, however long.
        (per_group(i8s, 64), 48, format!("{head}\"weights_i8\",\"group\":64}}")),
    ] {
        for bits in [8, 4] {
            let config = WeightConfig::with_bits(bits).unwrap().in_groups_of(group_len);
            let layer = DynamicLinear::quantize(&float, dynamic, &config, kernel()).unwrap().into();
            let bytes = layers_to_bytes(&layer).unwrap();
            let text = description(&bytes);
            assert!(text.contains(&expected) && text.contains("\"version\":6,"), "{text}");
            let restored = saved(&layer);
            assert_eq!(dynamic_of(&restored), dynamic);
            assert!(same(&run(&restored, &x), &run(&layer, &x)));
            assert!(layers_to_bytes(&restored).unwrap() == bytes);
        }
    }
}

#[test]
fn presets_keep_their_names() {
    let presets = [
        ("weights_i8", Scheme::weights_i8()),
        ("activations_u8", Scheme::activations_u8()),
        ("onnx_dynamic_u8", Scheme::onnx_dynamic(CodeRange::U8)),
        ("pytorch_symmetric_i8", Scheme::pytorch_symmetric(CodeRange::I8)),
    ];
    for (name, scheme) in presets {
        let bytes = layers_to_bytes(&dynamic_layer(Dynamic::PerToken(scheme))).unwrap();
        let expected = format!("\"dynamic\":{{\"per\":\"token\",\"scheme\":\"{name}\"}}");
        assert!(description(&bytes).contains(&expected), "{}", description(&bytes));
    }
    let input = QParams::new(0.5, 3, CodeRange::U8).unwrap();
    let bytes = layers_to_bytes(&static_layer(input).unwrap()).unwrap();
    let expected = "\"input\":{\"codes\":[0,255],\"order\":\"round_then_add\",\"rounding\":\"ties_to_even\"}";
    assert!(description(&bytes).contains(expected), "{}", description(&bytes));
}

#[test]
fn inputs_with_another_divisor_or_a_distant_zero_point_are_saved() {
    let codes = CodeRange::unsigned(7).unwrap();
    let inputs = [
        QParams::with_divisor(0.5, 0.75, 3, codes),
        QParams::with_divisor(1.0, f32::INFINITY, 0, CodeRange::I8),
        QParams::with_divisor(0.1, 0.3, 0, CodeRange::I8),
        QParams::with_f64_scale(0.1, 1, CodeRange::I8_NARROW),
        QParams::with_distant_zero_point(5.0 / 255.0, -255, CodeRange::U8),
        QParams::with_distant_zero_point(0.1, 300, CodeRange::I8),
    ];
    for input in inputs {
        let layer = static_layer(input.unwrap()).unwrap();
        let restored = saved(&layer);
        assert_eq!(input_of(&restored), input.unwrap());
        let x = [0.3, -40.0, 0.7];
        assert_eq!(run(&restored, &x), run(&layer, &x));
    }
}

/// They were cut to the nearest code, and codes then stood for other values.
#[test]
fn a_distant_zero_point_is_no_output_of_codes() {
    let distant = QParams::with_distant_zero_point(0.5, 300, CodeRange::U8).unwrap();
    let Some(Linear::Static(mut layer)) = static_layer(distant) else { panic!() };
    let error = LayerError::OutputZeroPoint { zero_point: 300, min: 0, max: 255 };
    assert_eq!(layer.set_output(distant), Err(error));
    assert!(layer.output().is_none());
    let parts = |name: &str| StaticParts {
        name: name.to_owned(),
        weight: MatRef::new(&[3_i8, -5, 7, 1], 2, 2).unwrap(),
        weight_scales: vec![0.5, 0.25],
        weight_zero_points: None,
        bias: None,
        input: distant,
        activation: ActivationFunction::Identity,
    };
    let layers = ["a", "b"].map(|name| Linear::from(StaticLinear::new(parts(name), kernel()).unwrap()));
    let x = [-100.0, -30.5];
    let expected = run(&layers[1], &run(&layers[0], &x).unwrap()).unwrap();
    let model = Mlp::new(layers.to_vec()).unwrap();
    let model = Mlp::from_bytes(&layers_to_bytes(&model).unwrap(), Some(kernel())).unwrap();
    let mut y = [0.0; 2];
    let (x, out) = (MatRef::new(&x, 1, 2).unwrap(), MatMut::new(&mut y, 1, 2).unwrap());
    model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    assert_eq!(y, expected[..]);
}

/// The description in a file.
fn description(bytes: &[u8]) -> String {
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    metadata.metadata().as_ref().unwrap()["qnn"].clone()
}

/// The file of `layer` with `from` in its description replaced by `to`, and a checksum that is
/// right.
fn altered(layer: &Linear, from: &str, to: &str) -> Vec<u8> {
    let bytes = layers_to_bytes(layer).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let text = description(&bytes);
    assert!(text.contains(from), "{text}");
    let (body, _) = text.split_once("\"checksum\":").unwrap();
    let body = body.replace(from, to);
    let mut sorted = tensors.tensors();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let tensors: Vec<_> =
        sorted.iter().map(|(name, t)| (&name[..], t.dtype(), t.shape(), t.data())).collect();
    sealed(&tensors, |checksum| format!("{body}\"checksum\":\"{checksum}\"}}"), None)
}

fn take(bytes: &[u8]) -> Result<Linear, LoadError> {
    LayerFile::parse(bytes)?.take("fc", Some(kernel()))
}

#[test]
fn what_a_file_says_of_a_scheme_is_not_trusted() {
    let scheme = Scheme { zero_scale: ZeroScale::AddEpsilon(1e-10), ..Scheme::weights_i8() };
    let layer = dynamic_layer(Dynamic::PerToken(scheme));
    assert!(take(&altered(&layer, "1e-10", "0.5")).is_ok());
    let expect = |from: &str, to: &str, message: &str| {
        let error = take(&altered(&layer, from, to)).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    };
    let pairs = [
        ("[-128,127]", "[-1,1000]", "codes is \"-1..=1000\", expected those of 2 to 8 bits"),
        ("[-128,127]", "[-1,0]", "codes is \"-1..=0\", expected those of 2 to 8 bits"),
        ("symmetric_max_code", "x", "kind is \"x\", expected symmetric_max_code or "),
        ("f64_stored_f32", "f128", "scale is \"f128\", expected f32 or f64 or "),
        ("\"add_epsilon\"", "\"x\"", "zero_scale is \"x\", expected one or "),
        ("\"add_epsilon\"", "\"one\"", "zero_scale_number is \"1e-10\", expected none beside \"one\""),
        ("\"1e-10\"", "\"much\"", "zero_scale_number is \"much\", expected a number"),
        (
            "\"zero_scale_number\":\"1e-10\",",
            "",
            "zero_scale_number is \"\", expected a number beside \"add_epsilon\"",
        ),
        ("\"1e-10\"", "1e-10", "metadata \"qnn\": invalid type: floating point"),
        ("\"kind\"", "\"kinds\"", "metadata \"qnn\": unknown field `kinds`"),
        ("\"kind\":\"symmetric_max_code\",", "", "metadata \"qnn\": missing field `kind`"),
        ("round_then_add", "x", "order is \"x\""),
        ("ties_to_even", "x", "rounding is \"x\""),
    ];
    for (from, to, message) in pairs {
        expect(from, to, message);
    }
    let layer = dynamic_layer(Dynamic::PerToken(Scheme::weights_i8()));
    for (to, message) in [
        ("\"weights_i7\"", "scheme is \"weights_i7\", expected weights_i8 or "),
        ("8", "metadata \"qnn\": invalid type: integer `8`, expected the name of a scheme, or its choices"),
        ("null", "metadata \"qnn\": invalid type: null"),
        ("[]", "metadata \"qnn\": invalid type: sequence"),
    ] {
        let error = take(&altered(&layer, "\"weights_i8\"", to)).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn what_a_file_says_of_an_input_is_not_trusted() {
    let layer = static_layer(QParams::new(0.5, 3, CodeRange::U8).unwrap()).unwrap();
    let more = |more: &str| {
        let from = "\"rounding\":\"ties_to_even\"";
        take(&altered(&layer, from, &format!("{from},{more}")))
    };
    for good in [
        "\"scale_f64\":\"0.5\"",
        "\"scale_f64\":\"5.00000001e-1\",\"divisor\":\"0.25\"",
        "\"zero_point\":\"distant\"",
        "\"divisor\":\"inf\"",
    ] {
        assert!(more(good).is_ok(), "{good}");
    }
    let expect = |field: &str, message: &str| {
        assert_eq!(more(field).unwrap_err().to_string(), message, "{field}");
    };
    for (text, got) in [("0", "0e0"), ("-1", "-1e0"), ("NaN", "NaN"), ("-inf", "-inf"), ("1e-99", "0e0")] {
        let message = format!("input of layer \"fc\": the divisor must be greater than 0, got {got}");
        expect(&format!("\"divisor\":\"{text}\""), &message);
    }
    for text in ["0", "0.51", "NaN", "inf", "-0.5", "1e999"] {
        let message = format!("scale_f64 is \"{text}\", expected a number that f32 rounds to the scale 5e-1");
        expect(&format!("\"scale_f64\":\"{text}\""), &message);
    }
    expect("\"scale_f64\":\"half\"", "scale_f64 is \"half\", expected a number");
    expect("\"divisor\":\"\"", "divisor is \"\", expected a number");
    expect("\"zero_point\":\"near\"", "zero_point is \"near\", expected distant");
    expect(
        "\"divisor\":\"0.25\",\"zero_point\":\"distant\"",
        "divisor is \"0.25\", expected none beside a distant zero point",
    );
}

/// Codes with minimums, with parts, or with both: what a layer has besides, of these numbers.
#[derive(Debug)]
struct Scaled {
    n: usize,
    k: usize,
    /// The length of groups, in parts.
    group: usize,
    part_len: usize,
    minimums: bool,
    parts: bool,
    part_minimums: bool,
    zero_points: bool,
    nibbles: bool,
    seed: u64,
}

impl Scaled {
    fn weights(&self) -> ScaledWeights {
        let Self { n, k, part_len, .. } = *self;
        let mut state = self.seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let group_len = self.group * part_len;
        let (groups, parts) = (n * k.div_ceil(group_len), n * k.div_ceil(part_len));
        let codes: Vec<u8> = (0..n * k).map(|_| next() & 15).collect();
        let scales: Vec<f32> = (0..groups).map(|_| f32::from(next()) - 100.0).collect();
        let minimums: Vec<f32> = (0..groups).map(|_| f32::from(next()) - 100.0).collect();
        let zero_points: Vec<i8> = (0..groups).map(|_| (next() & 15).cast_signed()).collect();
        let part_scales: Vec<i8> = (0..parts).map(|_| next().cast_signed()).collect();
        let part_minimums: Vec<i8> = (0..parts).map(|_| (next() & 127).cast_signed()).collect();
        let mut all = WeightScales::per_group(&scales, group_len);
        if self.minimums {
            all = all.with_minimums(&minimums);
        }
        if self.parts {
            all = all.with_parts(part_len, &part_scales);
        }
        if self.part_minimums && self.parts && self.minimums {
            all = all.with_part_minimums(&part_minimums);
        }
        if self.zero_points {
            all = all.with_zero_points(&zero_points);
        }
        if self.nibbles {
            let codes = PackedNibbles::from_nk(MatRef::new(&codes, n, k).unwrap(), kernel()).unwrap();
            return ScaledWeights::of_nibbles(codes, all).unwrap();
        }
        let codes: Vec<i8> = codes.into_iter().map(u8::cast_signed).collect();
        let codes = PackedWeights::from_nk(MatRef::new(&codes, n, k).unwrap(), kernel()).unwrap();
        ScaledWeights::new(codes, all).unwrap()
    }
}

fn scaled() -> impl Strategy<Value = Scaled> {
    let lengths = (1..4_usize, 1..70_usize, 1..4_usize, select(vec![16_usize, 32]));
    let choices = (any::<[bool; 5]>(), any::<u64>());
    (lengths, choices).prop_map(|((n, k, group, part_len), (choices, seed))| {
        let [minimums, parts, part_minimums, zero_points, nibbles] = choices;
        Scaled { n, k, group, part_len, minimums, parts, part_minimums, zero_points, nibbles, seed }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_scheme_of_a_dynamic_layer_is_saved(scheme in schemes(), per_token: bool) {
        let dynamic = if per_token { Dynamic::PerToken(scheme) } else { Dynamic::PerTensor(scheme) };
        let layer = dynamic_layer(dynamic);
        let restored = saved(&layer);
        prop_assert!(same(&dynamic_of(&restored), &dynamic));
        let x = [1.5, -0.25, 100.0];
        prop_assert!(same(&run(&restored, &x), &run(&layer, &x)));
    }

    #[test]
    fn any_input_of_a_static_layer_is_saved(scheme in schemes(), low in -100.0_f32..100.0, width in 0.0_f32..10.0) {
        let range = Range::new(low, low + width).unwrap();
        if let Ok(input) = scheme.choose(range)
            && let Some(layer) = static_layer(input)
        {
            let restored = saved(&layer);
            prop_assert_eq!(input_of(&restored), input);
            let x = [low, low + width, 0.1];
            prop_assert!(same(&run(&restored, &x), &run(&layer, &x)));
        }
    }

    #[test]
    fn any_scheme_of_weights_is_saved(scheme in schemes(), which in 0..3_usize) {
        let float = linear("fc", 3, 20);
        let granularities =
            [WeightGranularity::PerTensor, WeightGranularity::PerChannel, WeightGranularity::PerGroup(16)];
        let config = WeightConfig { scheme, granularity: granularities[which] };
        let layers = [
            DynamicLinear::quantize(&float, Dynamic::default(), &config, kernel()).ok().map(Linear::from),
            WeightOnlyLinear::quantize(&float, &config, kernel()).ok().map(Linear::from),
        ];
        let x: Vec<f32> = (0..20).map(|i| (i as f32).cos()).collect();
        for layer in layers.into_iter().flatten() {
            let restored = saved(&layer);
            prop_assert!(same(&run(&restored, &x), &run(&layer, &x)));
        }
    }

    #[test]
    fn minimums_and_parts_are_saved(scaled in scaled()) {
        let weights = scaled.weights();
        let layers = [
            WeightOnlyLinear::from_weights(weights.clone(), None).unwrap().with_name("fc").into(),
            DynamicLinear::from_weights(weights.clone(), None, Dynamic::default()).unwrap().with_name("fc").into(),
        ];
        let x: Vec<f32> = (0..scaled.k).map(|i| (i as f32).cos()).collect();
        for layer in layers {
            let restored = saved(&layer);
            prop_assert!(same(&run(&restored, &x), &run(&layer, &x)));
            prop_assert_eq!(restored.storage(), layer.storage());
            let (minimums, part_len, part_scales) = match &restored {
                Linear::WeightOnly(layer) => {
                    let weights = layer.weights();
                    prop_assert_eq!(weights.dequantize(), scaled.weights().dequantize());
                    (weights.minimums(), weights.part_len(), weights.part_scales())
                }
                Linear::Dynamic(layer) => {
                    let weights = layer.weights();
                    (weights.minimums(), weights.part_len(), weights.part_scales())
                }
                other => panic!("{}", other.form()),
            };
            prop_assert_eq!(minimums, weights.minimums());
            prop_assert_eq!((part_len, part_scales), (weights.part_len(), weights.part_scales()));
        }
    }
}
