//! Layers with quantized weights and float activations: trained models on digits that they have not
//! seen, and their limits.

use std::path::PathBuf;

use half::{bf16, f16};
use qcore::{ActivationFunction, AffineRange, CodeRange, Float, Kind, Scheme};
use qkernels::{
    Dynamic, Kernel, MatMut, MatRef, PackedNibbles, ScaleError, ScaledWeights, Threads, WeightScales,
};
use qnn::{
    DynamicLinear, FloatLinear, FloatMlp, LayerError, LayerFile, Linear, LinearWorkspace, Storage,
    WeightConfig, WeightGranularity, WeightOnlyLinear, argmax_rows, layers_to_bytes,
};

use crate::dataset::{CLASSES, Digits, PIXELS};

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "data/mnist", &format!("{name}.safetensors")].iter().collect()
}

/// Affine codes that use all of i8.
fn affine() -> Scheme {
    Scheme {
        codes: CodeRange::I8,
        kind: Kind::Affine { range: AffineRange::ExtendedToZero },
        ..Scheme::weights_i8()
    }
}

fn configs() -> [WeightConfig; 4] {
    let symmetric = WeightConfig::default();
    let grouped = symmetric.in_groups_of(64);
    [
        symmetric,
        grouped,
        WeightConfig { scheme: affine(), ..symmetric },
        WeightConfig { scheme: affine(), ..grouped },
    ]
}

/// Symmetric, affine and unsigned codes of 4 bits, and some of 3, which are packed alike.
fn four_bits() -> [WeightConfig; 4] {
    let [signed, unsigned] = [CodeRange::signed(4), CodeRange::unsigned(4)].map(Result::unwrap);
    let symmetric = Scheme { codes: signed, ..Scheme::weights_i8() };
    let of = |scheme| WeightConfig { scheme, ..WeightConfig::default() };
    [
        of(symmetric).in_groups_of(32),
        of(Scheme { codes: signed, ..affine() }).in_groups_of(16),
        of(Scheme { codes: unsigned, ..affine() }),
        of(Scheme { codes: CodeRange::signed(3).unwrap(), ..symmetric }).in_groups_of(64),
    ]
}

fn group_len(config: &WeightConfig) -> Option<usize> {
    match config.granularity {
        WeightGranularity::PerGroup(len) => Some(len),
        _ => None,
    }
}

fn quantize(model: &FloatMlp, config: &WeightConfig, kernel: Kernel) -> Vec<WeightOnlyLinear> {
    let last = model.layers().len() - 1;
    let layers = model.layers().iter().enumerate().map(|(i, layer)| {
        let (n, k) = (layer.n(), layer.k());
        let layer = WeightOnlyLinear::new(layer.weight(), n, k, layer.bias(), config, kernel).unwrap();
        if i == last { layer } else { layer.with_activation(ActivationFunction::Relu) }
    });
    layers.collect()
}

/// Logits of `x`, `batch` rows at a time, with activations of type `F` between the layers.
fn logits<F: Float>(layers: &[WeightOnlyLinear], x: &[f32], batch: usize, threads: Threads<'_>) -> Vec<f32> {
    let mut workspace = LinearWorkspace::new();
    let mut logits = Vec::new();
    for rows in x.chunks(batch * PIXELS) {
        let m = rows.len() / PIXELS;
        let mut x: Vec<F> = rows.iter().map(|&x| F::narrow(x)).collect();
        for layer in layers {
            let mut y = vec![F::default(); m * layer.n()];
            let out = MatMut::new(&mut y, m, layer.n()).unwrap();
            layer.forward(MatRef::new(&x, m, layer.k()).unwrap(), out, threads, &mut workspace).unwrap();
            x = y;
        }
        logits.extend(x.iter().map(|x| x.widen()));
    }
    logits
}

/// That the model `name` decides alike with its weights quantized in any way.
fn decides_as_the_f32_model_does(name: &str) {
    let test = Digits::read(&file("mnist_test_2500")).unwrap();
    let images = MatRef::new(&test.inputs, test.len(), PIXELS).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let float = FloatMlp::load(file(name)).unwrap();
    let mut expected = vec![0.0; test.len() * CLASSES];
    let out = MatMut::new(&mut expected, test.len(), CLASSES).unwrap();
    float.forward(images, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    let right = |logits: &[f32]| test.correct(argmax_rows(MatRef::new(logits, test.len(), CLASSES).unwrap()));
    for kernel in Kernel::available() {
        for config in configs() {
            let layers = quantize(&float, &config, kernel);
            let y = logits::<f32>(&layers, &test.inputs, test.len(), Threads::Serial);
            let (correct, sqnr) = (right(&y), qcore::sqnr_db(&expected, &y).unwrap());
            let which = format!("{name} {kernel} {} {:?}", config.granularity, config.scheme.kind);
            println!("{which}: {correct} right, logits SQNR {sqnr:.2} dB");
            assert!(correct >= 2442 && sqnr >= 49.0, "{which}: {correct} {sqnr}");
            if group_len(&config).is_some() {
                continue;
            }
            // The same bits in any batch, on any number of threads.
            assert!(y == logits::<f32>(&layers, &test.inputs, test.len(), Threads::Pool(&pool)), "{which}");
            assert!(
                y[..100 * CLASSES]
                    == logits::<f32>(&layers, &test.inputs[..100 * PIXELS], 1, Threads::Serial)
            );
        }
        let layers = quantize(&float, &WeightConfig::default(), kernel);
        for (y, least) in [
            (logits::<f16>(&layers, &test.inputs, test.len(), Threads::Serial), 49.0),
            (logits::<bf16>(&layers, &test.inputs, test.len(), Threads::Serial), 40.0), // eight bits of mantissa
        ] {
            let (correct, sqnr) = (right(&y), qcore::sqnr_db(&expected, &y).unwrap());
            println!("{name} {kernel}, 16-bit activations: {correct} right, logits SQNR {sqnr:.2} dB");
            assert!(correct >= 2440 && sqnr >= least, "{name} {kernel}: {correct} {sqnr}");
        }
    }
}

#[test]
fn the_small_model_decides_as_in_f32() {
    decides_as_the_f32_model_does("mnist_mlp_784_256_128_10");
}

#[test]
fn the_large_model_decides_as_in_f32() {
    decides_as_the_f32_model_does("mnist_mlp_784_512_512_10");
}

#[test]
fn a_layer_is_the_float_layer_of_its_unpacked_weights() {
    let (n, k) = (21, 100);
    let weight: Vec<f32> = (0..n * k).map(|i| ((i * i) % 97) as f32 / 50.0 - 0.7).collect();
    for kernel in Kernel::available() {
        for config in configs().into_iter().chain(four_bits()) {
            let layer = WeightOnlyLinear::new(&weight, n, k, None, &config, kernel).unwrap();
            let restored = layer.unpack();
            let groups = qcore::Groups::new(n, k, group_len(&config).unwrap_or(k)).unwrap();
            let params = qcore::group_params(&weight, groups, &config.scheme).unwrap();
            for (i, (&w, restored)) in weight.iter().zip(&restored).enumerate() {
                let group = i / k * groups.per_row() + i % k / group_len(&config).unwrap_or(k);
                assert_eq!(params[group].fake_quantize(w), *restored, "{kernel}");
            }
            // A row of the unit matrix reads a column of the weights.
            for p in [0, 37, k - 1] {
                let mut x = vec![0.0f32; k];
                x[p] = 1.0;
                let mut y = vec![0.0f32; n];
                let (x, out) = (MatRef::new(&x, 1, k).unwrap(), MatMut::new(&mut y, 1, n).unwrap());
                layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
                assert_eq!(y, (0..n).map(|j| restored[j * k + p]).collect::<Vec<_>>(), "{kernel}");
            }
            assert!(layer.bytes() > n * k / 2 && layer.bytes() < 4 * n * k);
            assert_eq!((layer.n(), layer.k(), layer.bias()), (n, k, None));
        }
    }
}

#[test]
fn layers_of_4_bits_take_half_of_the_bytes_and_are_saved_so() {
    let (n, k) = (21, 101);
    let weight: Vec<f32> = (0..n * k).map(|i| ((i * i) % 97) as f32 / 50.0 - 0.7).collect();
    let x: Vec<f32> = (0..3 * k).map(|i| (i as f32).sin()).collect();
    let run = |layer: &Linear| {
        let x = MatRef::new(&x, 3, k).unwrap();
        layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).unwrap()
    };
    for kernel in Kernel::available() {
        for (config, zero_points) in four_bits().into_iter().zip([0, 21 * 7, 21, 0]) {
            let layer = WeightOnlyLinear::new(&weight, n, k, None, &config, kernel).unwrap().with_name("fc");
            let groups = group_len(&config).map_or(1, |len| k.div_ceil(len));
            assert_eq!(layer.weights().bits(), 4);
            let expected = Storage { weights: n * 51, scales: 4 * n * groups, zero_points, bias: 0 };
            assert_eq!(layer.storage(), expected, "{config:?}");
            let float = FloatLinear::without_bias("fc", n, k, weight.clone()).unwrap();
            let dynamic = DynamicLinear::quantize(&float, Dynamic::default(), &config, kernel).unwrap();
            assert_eq!((dynamic.weights().bits(), dynamic.storage()), (4, expected), "{config:?}");
            for layer in [Linear::from(layer), dynamic.into()] {
                let bytes = layers_to_bytes(&layer).unwrap();
                let mut file = LayerFile::parse(&bytes).unwrap();
                let restored = file.take("fc", Some(kernel)).unwrap();
                file.finish().unwrap();
                assert!(run(&restored) == run(&layer), "{kernel} {config:?}");
                assert_eq!(layers_to_bytes(&restored).unwrap(), bytes, "{config:?}");
            }
        }
    }
}

/// Files mean 8 where they have no zero points, and such weights mean 0.
#[test]
fn codes_of_4_bits_without_zero_points_are_saved_as_such() {
    let kernel = Kernel::select().unwrap();
    let nibbles = PackedNibbles::from_nk(MatRef::new(&[1, 15, 8, 0, 3, 9], 2, 3).unwrap(), kernel).unwrap();
    let weights = ScaledWeights::of_nibbles(nibbles, WeightScales::per_channel(&[0.5, 2.0])).unwrap();
    let layer = WeightOnlyLinear::from_weights(weights, None).unwrap().with_name("fc");
    assert_eq!(layer.storage().zero_points, 2);
    let bytes = layers_to_bytes(&Linear::from(layer.clone())).unwrap();
    let Linear::WeightOnly(restored) = LayerFile::parse(&bytes).unwrap().take("fc", None).unwrap() else {
        panic!("another form")
    };
    assert_eq!(restored.unpack(), layer.unpack());
}

#[test]
fn bad_weights_are_refused_with_numbers() {
    let kernel = Kernel::select().unwrap();
    let config = WeightConfig::default();
    let new = |weight: &[f32], n, k, bias: Option<&[f32]>, config: &WeightConfig| {
        WeightOnlyLinear::new(weight, n, k, bias, config, kernel).unwrap_err()
    };
    assert_eq!(new(&[], 0, 3, None, &config), LayerError::Empty { n: 0, k: 3 });
    assert_eq!(new(&[1.0; 5], 2, 3, None, &config).to_string(), "the groups have 6 elements, the data 5");
    let error = new(&[1.0, f32::NAN], 1, 2, None, &config);
    assert_eq!(error.to_string(), "channel 0: value NaN at index 1 is not finite");
    // Of one scale for all, too, the channel is named.
    let whole = WeightConfig { granularity: WeightGranularity::PerTensor, ..config };
    for config in [config, whole] {
        let error = new(&[1.0, 2.0, 3.0, f32::INFINITY], 2, 2, None, &config);
        assert_eq!(error.to_string(), "channel 1: value inf at index 3 is not finite");
    }
    let error = new(&[f32::NAN; 64], 1, 64, None, &config.in_groups_of(32));
    assert_eq!(error.to_string(), "group 0: value NaN at index 0 is not finite");
    let error = new(&[1.0; 64], 1, 64, None, &config.in_groups_of(0));
    assert_eq!(error.to_string(), "groups of 0 along k; their length must be a multiple of 16, and not 0");
    let error = new(&[1.0; 6], 2, 3, Some(&[1.0]), &config);
    assert_eq!(error, LayerError::Length { tensor: "the bias", n: 2, len: 1 });
    assert!(matches!(
        new(&[1.0; 2], 1, 2, Some(&[f32::INFINITY]), &config),
        LayerError::Bias { channel: 0, .. }
    ));
    let odd = config.in_groups_of(5);
    assert_eq!(
        new(&[1.0; 40], 1, 40, None, &odd),
        LayerError::Scale(ScaleError::GroupLength { group_len: 5 })
    );
    let unsigned = WeightConfig { scheme: Scheme::activations_u8(), ..config };
    assert!(matches!(new(&[1.0; 2], 1, 2, None, &unsigned), LayerError::Channel(_)));
    let kind = Kind::Affine { range: AffineRange::AsObservedDistantZero };
    let distant = WeightConfig { scheme: Scheme { kind, ..affine() }, ..config };
    assert!(matches!(new(&[9.0, 10.0], 1, 2, None, &distant), LayerError::ZeroPoint { channel: 0, .. }));
}
