//! Layers that divide their input by a scale of each channel. Each gives the bits that the same
//! layer without one gives for the quotients, computed in f32 beforehand.

use half::{bf16, f16};
use qcore::{CodeRange, Float, QParams, Scheme};
use qkernels::{Activation, Dynamic, InputScaleError, Kernel, MatMut, MatRef, PackEffort, Threads};
use qnn::{
    ActivationCodes, DynamicLinear, FloatLinear, FloatMlp, Form, ForwardError, LayerError, Layers, Linear,
    LinearWorkspace, LoadError, Mlp, QuantConfig, QuantMlp, SaveOptions, StaticLinear, WeightConfig,
    WeightOnlyLinear, layers_to_bytes,
};
use safetensors::Dtype;

use crate::contents::Contents;
use crate::small::linear;

const K: usize = 70;

fn kernel() -> Kernel {
    Kernel::select().unwrap()
}

/// Scales of both sides of 1.
fn scale(k: usize) -> Vec<f32> {
    (0..k).map(|i| [0.02, 1.7, 0.4, 25.0, 1.0][i % 5] * (1.0 + (i as f32 * 0.83).sin() / 3.0)).collect()
}

/// Rows whose channels are as large as their scales.
fn values<F: Float>(m: usize, k: usize) -> Vec<F> {
    let scale = scale(k);
    (0..m * k).map(|i| F::narrow((i as f32 * 0.37).sin() * scale[i % k])).collect()
}

fn quotients<F: Float>(x: MatRef<'_, F>, scale: &[f32]) -> Vec<f32> {
    let row = |i| scale.iter().enumerate().map(move |(j, scale)| x.get(i, j).unwrap().widen() / scale);
    (0..x.rows()).flat_map(row).collect()
}

fn forms(name: &str, (n, k): (usize, usize), kernel: Kernel) -> Vec<Linear> {
    let float = linear(name, n, k);
    let weights = |bits, group: usize| {
        let weights = WeightConfig::with_bits(bits).unwrap();
        if group == 0 { weights } else { weights.in_groups_of(group) }
    };
    let dynamic = |how, weights: WeightConfig| {
        Linear::from(DynamicLinear::quantize(&float, how, &weights, kernel).unwrap())
    };
    let fixed = |codes, zero_point| {
        let input = QParams::new(0.01, zero_point, codes).unwrap();
        Linear::from(StaticLinear::quantize(&float, input, &weights(8, 0), kernel).unwrap())
    };
    let only = |weights| Linear::from(WeightOnlyLinear::quantize(&float, &weights, kernel).unwrap());
    let (i8s, u8s) = (Scheme::weights_i8(), Scheme::activations_u8());
    let order: Vec<u32> = (0..k as u32).rev().collect();
    let Linear::WeightOnly(grouped) = only(weights(4, 32)) else { unreachable!() };
    let ordered = grouped.weights().clone().with_input_order(&order).unwrap();
    vec![
        dynamic(Dynamic::PerToken(u8s), weights(8, 0)),
        dynamic(Dynamic::PerToken(i8s), weights(8, 0)),
        dynamic(Dynamic::PerTensor(u8s), weights(8, 0)),
        dynamic(Dynamic::PerToken(i8s), weights(4, 0)),
        dynamic(Dynamic::PerTensor(i8s), weights(8, 32)),
        dynamic(Dynamic::PerGroup { scheme: i8s, group_len: 16 }, weights(8, 16)),
        dynamic(Dynamic::GgmlQ8_0, weights(4, 32)),
        DynamicLinear::from_weights(ordered.clone(), None, Dynamic::default())
            .unwrap()
            .with_name(name)
            .into(),
        fixed(CodeRange::U8, 128),
        fixed(CodeRange::I8, -3),
        fixed(CodeRange::unsigned(7).unwrap(), 64),
        only(weights(8, 0)),
        only(weights(4, 32)),
        WeightOnlyLinear::from_weights(ordered, None).unwrap().with_name(name).into(),
    ]
}

fn scaled(layer: &Linear, scale: &[f32]) -> Result<Linear, LayerError> {
    let scale = scale.to_vec();
    Ok(match layer.clone() {
        Linear::Static(layer) => layer.with_input_scale(scale)?.into(),
        Linear::Dynamic(layer) => layer.with_input_scale(scale)?.into(),
        Linear::WeightOnly(layer) => layer.with_input_scale(scale)?.into(),
        _ => panic!("a quantized layer"),
    })
}

fn forward<F: Float>(
    layer: &Linear,
    x: MatRef<'_, F>,
    threads: Threads<'_>,
) -> Result<Vec<f32>, ForwardError> {
    let mut y = vec![f32::NAN; x.rows() * layer.n()];
    let out = MatMut::new(&mut y, x.rows(), layer.n()).unwrap();
    let workspace = &mut LinearWorkspace::new();
    match layer {
        Linear::Static(layer) => layer.forward(x, out, threads, workspace)?,
        Linear::Dynamic(layer) => layer.forward(x, out, threads, workspace)?,
        Linear::WeightOnly(layer) => layer.forward(x, out, threads, workspace)?,
        _ => panic!("a quantized layer"),
    }
    Ok(y)
}

fn check<F: Float>(layers: &[Linear], m: usize) {
    let (pool, scale) = (rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap(), scale(K));
    let x = values::<F>(m, K);
    let by_hand = quotients(MatRef::new(&x, m, K).unwrap(), &scale);
    let by_hand = MatRef::new(&by_hand, m, K).unwrap();
    // The same rows with their columns apart.
    let mut apart = vec![F::narrow(f32::NAN); 2 * m * K];
    x.iter().enumerate().for_each(|(at, &x)| apart[2 * at] = x);
    let (x, apart) = (MatRef::new(&x, m, K).unwrap(), MatRef::with_strides(&apart, m, K, 2 * K, 2).unwrap());
    for (at, plain) in layers.iter().enumerate() {
        let layer = scaled(plain, &scale).unwrap();
        let expected = forward(plain, by_hand, Threads::Serial).unwrap();
        assert_eq!(forward(&layer, x, Threads::Serial).unwrap(), expected, "layer {at}, {m} rows");
        assert_eq!(forward(&layer, apart, Threads::Serial).unwrap(), expected, "layer {at}, {m} rows apart");
        assert_eq!(
            forward(&layer, x, Threads::Pool(&pool)).unwrap(),
            expected,
            "layer {at}, {m} rows, threads"
        );
        assert_ne!(forward(plain, x, Threads::Serial).unwrap(), expected, "layer {at}: nothing was divided");
        if let (Linear::Static(layer), Linear::Static(plain)) = (&layer, plain) {
            for columns in layer.weights().column_ranges(2) {
                let [mut y, mut expected] = [0.0, 1.0].map(|before| vec![before; m * columns.len()]);
                let out = MatMut::new(&mut y, m, columns.len()).unwrap();
                layer.forward_columns(x, columns.clone(), out, &mut LinearWorkspace::new()).unwrap();
                let out = MatMut::new(&mut expected, m, columns.len()).unwrap();
                plain.forward_columns(by_hand, columns.clone(), out, &mut LinearWorkspace::new()).unwrap();
                assert_eq!(y, expected, "layer {at}, {m} rows, columns {columns:?}");
            }
        }
    }
}

#[test]
fn layers_have_the_bits_of_quotients() {
    for kernel in Kernel::available() {
        let layers = forms("fc1", (37, K), kernel);
        for m in [1, 5, 67] {
            check::<f32>(&layers, m);
            check::<f16>(&layers, m);
            check::<bf16>(&layers, m);
        }
    }
}

#[test]
fn a_scale_is_counted_and_replaced() {
    for plain in forms("fc1", (5, K), kernel()) {
        let bytes = |layer: &Linear| match layer {
            Linear::Static(layer) => layer.bytes(),
            Linear::Dynamic(layer) => layer.bytes(),
            Linear::WeightOnly(layer) => layer.bytes(),
            _ => 0,
        };
        let layer = scaled(&plain, &[7.0; K]).unwrap();
        let layer = scaled(&layer, &scale(K)).unwrap();
        assert_eq!((plain.input_scale(), layer.input_scale()), (None, Some(&scale(K)[..])));
        assert_eq!(bytes(&layer), bytes(&plain) + 4 * K);
        let mut storage = plain.storage();
        storage.scales += 4 * K;
        assert_eq!(layer.storage(), storage);
        assert_eq!((layer.name(), layer.form(), layer.n(), layer.k()), ("fc1", plain.form(), 5, K));
    }
    assert_eq!(Linear::from(linear("fc1", 2, 3)).input_scale(), None);
}

#[test]
fn scales_that_divide_nothing_are_refused() {
    for layer in forms("fc1", (5, K), kernel()) {
        for len in [0, 1, K - 1, K + 1] {
            let error = scaled(&layer, &vec![1.0; len]).unwrap_err();
            assert_eq!(error, LayerError::InputScale(InputScaleError::Length { k: K, len }));
        }
        for bad in [0.0, -0.0, -1.0, f32::INFINITY, -f32::MIN_POSITIVE] {
            let mut scale = scale(K);
            scale[K - 1] = bad;
            let error = scaled(&layer, &scale).unwrap_err();
            let expected = InputScaleError::Scale { channel: K - 1, scale: bad };
            assert_eq!(error, LayerError::InputScale(expected));
        }
        let mut scale = scale(K);
        scale[3] = f32::NAN;
        let text = "input scale NaN of channel 3 must be finite and greater than 0";
        assert_eq!(scaled(&layer, &scale).unwrap_err().to_string(), text);
    }
}

/// An integer layer refuses an infinite quotient; others pass it on, as they do any infinity.
#[test]
fn quotients_that_are_not_finite_are_refused() {
    let mut scale = vec![1.0; K];
    scale[40] = 1e-38;
    let mut x = vec![0.25f32; 3 * K];
    (x[40], x[K + 40], x[2 * K + 40]) = (0.0, 0.0, -8.0);
    let x = MatRef::new(&x, 3, K).unwrap();
    let expected = ForwardError::NonFinite { row: 2, col: 40, value: f32::NEG_INFINITY };
    for plain in forms("fc1", (5, K), kernel()) {
        let layer = scaled(&plain, &scale).unwrap();
        let y = forward(&layer, x, Threads::Serial);
        let shared =
            Linear::forward_shared([&layer, &layer], x, Threads::Serial, &mut LinearWorkspace::new());
        assert!(forward(&plain, x, Threads::Serial).is_ok());
        if layer.form() == Form::WeightOnly {
            let y = y.unwrap();
            let is_infinite = |y: &[f32]| y.iter().any(|y| !y.is_finite());
            assert!(!is_infinite(&y[..10]) && is_infinite(&y[10..]), "{y:?}");
        } else {
            assert_eq!((y, shared), (Err(expected), Err(expected)));
        }
        if let Linear::Static(layer) = &layer {
            let (mut y, mut workspace) = ([0.0f32; 15], LinearWorkspace::new());
            let out = MatMut::new(&mut y, 3, 5).unwrap();
            assert_eq!(layer.forward_columns(x, 0..5, out, &mut workspace), Err(expected));
        }
    }
}

/// Codes are those of quotients, so nothing divides them.
#[test]
fn codes_are_taken_as_they_are() {
    fn check<C: Activation + std::fmt::Debug + PartialEq>(plain: &StaticLinear) {
        let mut plain = plain.clone();
        plain.set_output(QParams::new(0.02, 3, CodeRange::I8).unwrap()).unwrap();
        let layer = plain.clone().with_input_scale(scale(K)).unwrap();
        let codes: Vec<C> = (0..4 * K).map(|i| C::from_clamped((i % 90) as i32)).collect();
        let x = MatRef::new(&codes, 4, K).unwrap();
        let run = |layer: &StaticLinear| {
            let (mut values, mut sums, mut codes) = (vec![0f32; 20], vec![0i32; 20], vec![0i8; 20]);
            let (ws, threads) = (&mut LinearWorkspace::new(), Threads::Serial);
            layer.forward_values(x, MatMut::new(&mut values, 4, 5).unwrap(), threads, ws).unwrap();
            layer.forward_sums(x, MatMut::new(&mut sums, 4, 5).unwrap(), threads, ws).unwrap();
            layer.forward_codes(x, MatMut::new(&mut codes, 4, 5).unwrap(), threads, ws).unwrap();
            (values, sums, codes)
        };
        assert_eq!(run(&layer), run(&plain));
        assert!(run(&plain).1.iter().any(|&sum| sum != 0));
    }
    for layer in forms("fc1", (5, K), kernel()) {
        let Linear::Static(layer) = layer else { continue };
        match layer.input_codes() {
            ActivationCodes::I8 => check::<i8>(&layer),
            _ => check::<u8>(&layer),
        }
    }
}

#[test]
fn layers_share_codes_where_they_divide_alike() {
    let (x, mut workspace) = (values::<f32>(9, K), LinearWorkspace::new());
    let x = MatRef::new(&x, 9, K).unwrap();
    let (one, other) = (scale(K), scale(K).into_iter().rev().collect::<Vec<_>>());
    for kernel in Kernel::available() {
        let [query, key] = ["query", "key"].map(|name| forms(name, (16, K), kernel));
        for (query, key) in query.iter().zip(&key) {
            let with = |layer: &Linear, scale: &[f32]| scaled(layer, scale).unwrap();
            let pairs = [
                [with(query, &one), with(key, &one)],
                [with(query, &one), with(key, &other)],
                [with(query, &one), key.clone()],
                [query.clone(), with(key, &one)],
            ];
            for (at, [query, key]) in pairs.iter().enumerate() {
                let alone = [query, key].map(|layer| forward(layer, x, Threads::Serial).unwrap());
                let got = Linear::forward_shared([query, key], x, Threads::Serial, &mut workspace).unwrap();
                assert_eq!(got, alone, "{kernel}, pair {at}, {:?}", query.form());
            }
        }
    }
}

/// The values of layers one after the other.
fn one_after_the_other(layers: &[Linear], x: &[f32], m: usize) -> Vec<f32> {
    let run = |x: Vec<f32>, layer: &Linear| {
        forward(layer, MatRef::new(&x, m, layer.k()).unwrap(), Threads::Serial).unwrap()
    };
    layers.iter().fold(x.to_vec(), run)
}

fn fixed(name: &str, zero_point: i32, codes: CodeRange) -> Linear {
    let input = QParams::new(0.05, zero_point, codes).unwrap();
    StaticLinear::quantize(&linear(name, K, K), input, &WeightConfig::default(), kernel()).unwrap().into()
}

#[test]
fn models_hand_real_values_to_layers_with_a_scale() {
    let (m, scale) = (600, scale(K));
    let x = values::<f32>(m, K);
    let x = MatRef::new(&x, m, K).unwrap();
    let rows: Vec<f32> = values(m, K);
    let run = |model: &Mlp| model.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    for codes in [CodeRange::U8, CodeRange::I8] {
        let [fc1, fc2, fc3] = ["fc1", "fc2", "fc3"].map(|name| fixed(name, 7, codes));
        let divides = |layer: &Linear| scaled(layer, &scale).unwrap();
        let (config, how) = (WeightConfig::default(), Dynamic::default());
        let dynamic = DynamicLinear::quantize(&linear("fc0", K, K), how, &config, kernel()).unwrap().into();
        let only = WeightOnlyLinear::quantize(&linear("fc4", K, K), &config, kernel()).unwrap().into();
        for layers in [
            vec![fc1.clone(), divides(&fc2)],
            vec![divides(&fc1), divides(&fc2)],
            vec![fc1.clone(), divides(&fc2), divides(&fc3)],
            vec![divides(&dynamic), divides(&fc2), Linear::clone(&only)],
            vec![fc1.clone(), divides(&only), divides(&fc3)],
        ] {
            let model = Mlp::new(layers.clone()).unwrap();
            assert_eq!(model.unlinked().count(), 0);
            let got = run(&model);
            let expected = one_after_the_other(&layers, &rows, m);
            let names: Vec<_> = layers.iter().map(Linear::name).collect();
            assert!(got == expected, "{names:?}");
        }
        // A layer behind one with a scale takes its codes.
        let model = Mlp::new(vec![fc1.clone(), divides(&fc2), fc3.clone()]).unwrap();
        let between = forward(&fc1, x, Threads::Serial).unwrap();
        let rest = Mlp::new(vec![divides(&fc2), fc3.clone()]).unwrap();
        let between = MatRef::new(&between, m, K).unwrap();
        let expected = rest.forward_vec(between, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
        assert!(run(&model) == expected);
        // A model that handed on codes before, until its second layer got a scale.
        let mut model = Mlp::new(vec![fc1.clone(), fc2.clone()]).unwrap();
        let linked = run(&model);
        model.visit_mut(&mut |layer| {
            if layer.name() == "fc2" {
                *layer = divides(layer);
            }
        });
        let expected = one_after_the_other(&[fc1.clone(), divides(&fc2)], &rows, m);
        assert!(run(&model) == expected && expected != linked, "before it was told");
        model.replaced();
        assert!(run(&model) == expected, "after it was told");
    }
}

#[test]
fn a_model_names_the_row_whose_quotient_is_not_finite() {
    let (m, mut scale) = (600, vec![1.0; K]);
    scale[2] = 1e-38;
    // The first layer leaves its values where they are.
    let identity = (0..K * K).map(|at| f32::from(at % (K + 1) == 0)).collect();
    let identity = FloatLinear::without_bias("fc1", K, K, identity).unwrap();
    let input = QParams::new(0.05, 0, CodeRange::I8).unwrap();
    let fc1 = StaticLinear::quantize(&identity, input, &WeightConfig::default(), kernel()).unwrap();
    let fc2 = scaled(&fixed("fc2", 0, CodeRange::I8), &scale).unwrap();
    let mut x = vec![0.0; m * K];
    x[300 * K + 2] = 4.0;
    let x = MatRef::new(&x, m, K).unwrap();
    let expected = Err(ForwardError::NonFinite { row: 300, col: 2, value: f32::INFINITY });
    for layers in [vec![fc1.into(), fc2.clone()], vec![fc2]] {
        let model = Mlp::new(layers).unwrap();
        let y = model.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new());
        assert_eq!(y.map(drop), expected);
    }
}

/// Powers of two, so that an f32 model has the same bits with the scales in its weights.
#[test]
fn integer_models_may_divide_their_input_and_nothing_else() {
    let (n, k) = (24, 12);
    let scale: Vec<f32> = (0..k).map(|i| [0.25, 1.0, 8.0][i % 3]).collect();
    let x: Vec<f32> = (0..300 * k).map(|i| (i as f32 * 0.37).sin() * scale[i % k]).collect();
    let (x, second) = (MatRef::new(&x, 300, k).unwrap(), linear("fc2", 5, n));
    let by_hand = quotients(x, &scale);
    let by_hand = MatRef::new(&by_hand, 300, k).unwrap();
    let float = FloatMlp::new(vec![linear("fc1", n, k), second.clone()]).unwrap();
    let weight = float.layers()[0].weight().iter().zip(scale.iter().cycle()).map(|(w, s)| w * s).collect();
    let smoothed = FloatLinear::new("fc1", n, k, weight, vec![0.1; n]).unwrap();
    let smoothed = FloatMlp::new(vec![smoothed, second]).unwrap();
    let plain = smoothed.calibrate([by_hand]).unwrap().quantize(&QuantConfig::default()).unwrap();
    let [fc1, fc2] = plain.as_mlp().layers() else { unreachable!() };
    let model = Mlp::new(vec![scaled(fc1, &scale).unwrap(), fc2.clone()]).unwrap();
    let model = QuantMlp::try_from(model).unwrap();

    let run = |model: &QuantMlp, x: MatRef<'_, f32>| {
        let mut y = vec![0.0; 300 * 5];
        let out = MatMut::new(&mut y, 300, 5).unwrap();
        model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
        y
    };
    assert_eq!(run(&model, x), run(&plain, by_hand));
    let (got, mut expected) = (model.report(&float, x).unwrap(), plain.report(&smoothed, by_hand).unwrap());
    expected.quantized_bytes += 4 * k;
    expected.layers[0].quantized_bytes += 4 * k;
    assert_eq!(got, expected);
    assert!(got.logits_sqnr_db > 20.0, "{got}");
    let error = model.report(&float, MatRef::new(&[f32::MAX; 12], 1, k).unwrap()).unwrap_err().to_string();
    assert!(error.contains("row 0, column 0"), "{error}");

    let second = scaled(fc2, &vec![2.0; n]).unwrap();
    let error = QuantMlp::try_from(Mlp::new(vec![fc1.clone(), second]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "layer \"fc2\" is static with one, expected static without an input scale");
}

/// All forms after each other, each with a scale.
fn model() -> Mlp {
    let layers = forms("", (K, K), kernel());
    let layers = layers.iter().enumerate().map(|(at, layer)| {
        let scale: Vec<f32> = scale(K).into_iter().map(|scale| scale * (1 + at) as f32).collect();
        scaled(layer, &scale).unwrap().with_name(format!("fc{at}"))
    });
    Mlp::new(layers.collect()).unwrap()
}

#[test]
fn files_keep_the_scales() {
    let (model, x) = (model(), values::<f32>(4, K));
    let x = MatRef::new(&x, 4, K).unwrap();
    let run = |model: &Mlp| model.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    let (expected, count) = (run(&model), model.layers().len());
    let plain = layers_to_bytes(&model).unwrap();
    let ordered = SaveOptions::new().with_k_orders(PackEffort::Usual).to_bytes(&model).unwrap();
    assert!(plain != ordered);
    for bytes in [&plain, &ordered] {
        let contents = Contents::of(bytes);
        assert!(contents.to_bytes() == *bytes);
        assert_eq!(contents.description["version"], 8);
        let scales = contents.tensors.iter().filter(|(name, _)| name.ends_with(".input_channel_scale"));
        assert!(scales.clone().all(|(_, (dtype, shape, _))| (*dtype, &shape[..]) == (Dtype::F32, &[K][..])));
        assert_eq!(scales.count(), count);
        for kernel in Kernel::available() {
            let restored = Mlp::from_bytes(bytes, Some(kernel)).unwrap();
            for (restored, layer) in restored.layers().iter().zip(model.layers()) {
                assert_eq!(restored.input_scale(), layer.input_scale(), "{kernel}, {}", layer.name());
            }
            assert!(layers_to_bytes(&restored).unwrap() == plain, "{kernel}");
            // The last bits of weight-only products are those of the kernel.
            if kernel == self::kernel() {
                assert_eq!(run(&restored), expected);
            }
        }
    }
    // Files without scales have the version that they had.
    let without = Mlp::new(forms("fc1", (K, K), kernel()).into_iter().take(1).collect()).unwrap();
    let contents = Contents::of(&layers_to_bytes(&without).unwrap());
    assert_eq!(contents.description["version"], 2);
    assert!(contents.description["layers"][0].get("input_scale").is_none());
}

#[test]
fn bytes_that_are_no_scales_are_refused() {
    let good = Contents::of(&layers_to_bytes(&model()).unwrap());
    let error = |alter: &dyn Fn(&mut Contents)| {
        let mut contents = good.clone();
        alter(&mut contents);
        Mlp::from_bytes(&contents.to_bytes(), None).unwrap_err()
    };
    assert!(Mlp::from_bytes(&good.to_bytes(), None).is_ok());
    for layer in 0..model().layers().len() {
        let tensor = format!("fc{layer}.input_channel_scale");
        let missing = error(&|c| drop(c.tensors.remove(&tensor)));
        assert_eq!(missing.to_string(), format!("tensor {tensor:?} is missing"));
        let short = error(&|c| c.set(&tensor, Dtype::F32, &[K - 1], vec![1f32.to_le_bytes(); K - 1]));
        let expected = format!("tensor {tensor:?} has shape [{}], expected [{K}]", K - 1);
        assert_eq!(short.to_string(), expected);
        let integers = error(&|c| c.set(&tensor, Dtype::I32, &[K], vec![[1, 0, 0, 0]; K]));
        assert!(integers.to_string().contains("I32"), "{integers}");
        for bad in [0.0, -0.0, -2.0, f32::INFINITY, f32::NAN] {
            let value = |i: usize| if i == 9 { bad } else { 1.0 };
            let values: Vec<[u8; 4]> = (0..K).map(|i| value(i).to_le_bytes()).collect();
            let error = error(&|c| c.set(&tensor, Dtype::F32, &[K], values.clone()));
            let LoadError::Layer { layer: name, error } = error else { panic!("{error}") };
            assert_eq!(name, format!("fc{layer}"));
            let LayerError::InputScale(InputScaleError::Scale { channel: 9, scale }) = error else {
                panic!("{error}")
            };
            assert!(scale == bad || scale.is_nan() && bad.is_nan());
        }
        let field =
            error(&|c| drop(c.description["layers"][layer].as_object_mut().unwrap().remove("input_scale")));
        assert_eq!(field.to_string(), format!("tensor {tensor:?} is unexpected"));
    }
    let version = error(&|c| c.description["version"] = 7.into());
    assert_eq!(version.to_string(), "version 7 of the format, expected 8");
    let float = Contents::of(&layers_to_bytes(&Linear::from(linear("fc1", 2, 3))).unwrap());
    let mut contents = float;
    contents.description["version"] = 8.into();
    contents.description["layers"][0]["input_scale"] = true.into();
    let error = Mlp::from_bytes(&contents.to_bytes(), None).unwrap_err();
    assert_eq!(error.to_string(), "layer \"fc1\" is float: \"input_scale\" must not be there");
}
