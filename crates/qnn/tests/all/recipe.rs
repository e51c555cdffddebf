//! The steps that make quantized layers more accurate: what each gains where it is meant to, that
//! it is undone where it gains nothing, and that errors leave a model as it was.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;

use qkernels::{MatRef, Threads};
use qnn::{
    DynamicConfig, FloatLinear, FloatMlp, ForwardError, GptqConfig, GptqOrder, LayerFile, LayerPair, Layers,
    Linear, LinearWorkspace, Method, Mlp, PairError, PassConfig, PassError, Recipe, RecipeReport,
    SmoothQuant, StaticConfig, Step, WeightConfig, WeightGranularity, layers_to_bytes, quantize_model,
};

use crate::dataset::{Digits, PIXELS};

/// Values from -1 to 1, the same ones every time.
struct Values(u64);

impl Values {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn take(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// Query, key and a layer behind the key: two layers share an input.
struct Shared {
    layers: [Linear; 3],
}
qnn::layers!(Shared { layers });

const K: usize = 48;

impl Shared {
    fn new() -> Self {
        let mut values = Values(1);
        let mut layer = |name: &str, n, k| {
            let (weight, bias) = (values.take(n * k), values.take(n));
            FloatLinear::new(name, n, k, weight, bias).unwrap().into()
        };
        Self { layers: [layer("query", 32, K), layer("key", 24, K), layer("out", 16, 24)] }
    }

    fn run(&mut self, x: &[f32]) -> Result<(), ForwardError> {
        let (x, mut workspace) = (MatRef::new(x, x.len() / K, K).unwrap(), LinearWorkspace::new());
        let [query, key, out] = &self.layers;
        let [_, key] = Linear::forward_shared([query, key], x, Threads::Serial, &mut workspace)?;
        out.forward_vec(MatRef::new(&key, x.rows(), 24)?, Threads::Serial, &mut workspace).map(drop)
    }
}

/// Batches of 16 rows with `change` made to each value of an input.
fn batches(seed: u64, count: usize, change: impl Fn(usize, f32) -> f32) -> Vec<Vec<f32>> {
    let mut values = Values(seed);
    let mut batch = || values.take(16 * K).into_iter().enumerate().map(|(i, v)| change(i % K, v)).collect();
    (0..count).map(|_| batch()).collect()
}

/// Inputs of which three are 200 times as large as others.
fn outliers(channel: usize, value: f32) -> f32 {
    if channel % 17 == 5 { 200.0 * value } else { value }
}

/// Batches whose inputs have much in common with the inputs beside them.
fn correlated(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let mut batches = batches(seed, count, |_, value| value);
    for row in batches.iter_mut().flat_map(|batch| batch.chunks_exact_mut(K)) {
        for i in 1..K {
            row[i] = 0.4 * row[i] + 0.8 * row[i - 1];
        }
    }
    batches
}

fn steps(report: &RecipeReport, layer: &str) -> Vec<(Step, f64, f64, bool)> {
    let layer = report.layers.iter().find(|of| of.name == layer).unwrap();
    layer.steps.iter().map(|gain| (gain.step, gain.before_db, gain.after_db, gain.is_kept)).collect()
}

fn quantize<M: Layers>(
    recipe: &Recipe<'_>,
    model: &mut M,
    config: &PassConfig,
    (calibration, held_out): (&[Vec<f32>], &[Vec<f32>]),
    run: impl Fn(&mut M, &[f32]) -> Result<(), ForwardError>,
) -> Result<RecipeReport, PassError<ForwardError>> {
    let run = |model: &mut M, batch: &Vec<f32>| run(model, batch);
    recipe.quantize(model, config, calibration, held_out, run, |_| {})
}

fn of(method: Method) -> PassConfig {
    PassConfig { method, ..PassConfig::default() }
}

#[test]
fn planted_outliers_are_smoothed_for_all_layers_that_share_them() {
    let (calibration, held_out) = (batches(2, 8, outliers), batches(3, 2, outliers));
    let recipe = Recipe { smooth_quant: Some(SmoothQuant::default()), ..Recipe::none() };
    for (method, least) in [(Method::default(), 10.0), (dynamic(), 6.0)] {
        let mut model = Shared::new();
        let report =
            quantize(&recipe, &mut model, &of(method), (&calibration, &held_out), Shared::run).unwrap();
        let [query, key, _] = ["query", "key", "out"].map(|name| steps(&report, name));
        for layer in [&query, &key] {
            let [(Step::SmoothQuant { .. }, before, after, true)] = layer[..] else { panic!("{report}") };
            assert!(after > before + least, "{report}");
        }
        assert_eq!(query[0].0, key[0].0);
        assert_eq!(model.layers[0].input_scale(), model.layers[1].input_scale());
        // The figures of the pass are those of the last step, on the same rows.
        assert!((report.pass.layers[0].sqnr_db.unwrap() - query[0].2).abs() < 1e-9, "{report}");

        let bytes = layers_to_bytes(&model).unwrap();
        let mut file = LayerFile::parse(&bytes).unwrap();
        let again = file.take("query", None).unwrap();
        assert_eq!(again.input_scale(), model.layers[0].input_scale());
    }
}

fn dynamic() -> Method {
    Method::Dynamic(DynamicConfig::default())
}

#[test]
fn what_gains_nothing_is_undone() {
    // All inputs and weights are as large, and the only alpha makes inputs worse.
    let same = |channel: usize, value: f32| if channel == 0 { value.signum() } else { value };
    let (calibration, held_out) = (batches(4, 8, same), batches(5, 2, same));
    let alphas = vec![0.0];
    let recipe = Recipe { smooth_quant: Some(SmoothQuant { alphas }), ..Recipe::none() };
    let mut model = Shared::new();
    // One weight of an input is tiny for all layers: without the inputs, its scale is huge.
    let weight: Vec<f32> = (0..32 * K).map(|i| if i % K == 0 { 1e-4 } else { (i as f32).sin() }).collect();
    let Linear::Float(query) = &model.layers[0] else { panic!() };
    model.layers[0] = query.with_weight(weight.clone()).unwrap().into();
    let Linear::Float(key) = &model.layers[1] else { panic!() };
    model.layers[1] = key.with_weight(weight[..24 * K].to_vec()).unwrap().into();
    let data = (&calibration[..], &held_out[..]);
    let report = quantize(&recipe, &mut model, &of(Method::default()), data, Shared::run).unwrap();
    let [(Step::SmoothQuant { alpha: 0.0 }, before, after, false)] = steps(&report, "query")[..] else {
        panic!("{report}")
    };
    assert!(after < before && model.layers[0].input_scale().is_none(), "{report}");
    assert!(report.to_string().contains("SmoothQuant: kept in 0 of 3 layers"), "{report}");
}

#[test]
fn without_steps_the_model_is_that_of_the_pass() {
    let (calibration, held_out) = (batches(6, 8, outliers), batches(7, 2, outliers));
    let in_groups = Method::Dynamic(DynamicConfig::in_groups_of(16, 4).unwrap());
    let weight_only = Method::WeightOnly(WeightConfig::with_bits(4).unwrap());
    for method in [Method::default(), dynamic(), in_groups, weight_only] {
        let [mut by_recipe, mut by_pass] = [Shared::new(), Shared::new()];
        let data = (&calibration[..], &held_out[..]);
        let report = quantize(&Recipe::none(), &mut by_recipe, &of(method), data, Shared::run).unwrap();
        assert!(report.layers.is_empty());
        let run = |model: &mut Shared, batch: &Vec<f32>| model.run(batch);
        quantize_model(&mut by_pass, &of(method), &calibration, run, |_| {}).unwrap();
        assert_eq!(layers_to_bytes(&by_recipe).unwrap(), layers_to_bytes(&by_pass).unwrap());
    }
}

#[test]
fn threads_change_no_bit() {
    let (calibration, held_out) = (correlated(8, 8), correlated(9, 2));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let order = GptqOrder::Activations;
    let method = Method::WeightOnly(WeightConfig::with_bits(4).unwrap().in_groups_of(16));
    let bytes = [Threads::Serial, Threads::Pool(&pool)].map(|threads| {
        let gptq = Some(GptqConfig { order, ..GptqConfig::default() });
        let (recipe, mut model) = (Recipe { gptq, threads, ..Recipe::default() }, Shared::new());
        let data = (&calibration[..], &held_out[..]);
        let report = quantize(&recipe, &mut model, &of(method), data, Shared::run).unwrap();
        assert!(
            steps(&report, "query").iter().any(|(step, .., kept)| matches!(step, Step::Gptq { .. }) && *kept)
        );
        layers_to_bytes(&model).unwrap()
    });
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn bias_correction_restores_planted_shifts() {
    // Inputs have large means, so that the errors of weights do not cancel.
    let shifted = |channel: usize, value: f32| 3.0 + (channel % 3) as f32 + 0.1 * value;
    let (calibration, held_out) = (batches(10, 8, shifted), batches(11, 2, shifted));
    let recipe = Recipe { bias_correction: true, ..Recipe::none() };
    let method = Method::WeightOnly(WeightConfig::with_bits(3).unwrap());
    let mut model = Shared::new();
    let data = (&calibration[..], &held_out[..]);
    let report = quantize(&recipe, &mut model, &of(method), data, Shared::run).unwrap();
    for layer in ["query", "key", "out"] {
        let [(Step::BiasCorrection, before, after, true)] = steps(&report, layer)[..] else {
            panic!("{report}")
        };
        assert!(after > before + 15.0, "{report}");
    }
    // Layers without a bias get one.
    let mut model = Shared::new();
    let Linear::Float(query) = &model.layers[0] else { panic!() };
    let weight = query.weight().to_vec();
    model.layers[0] = FloatLinear::without_bias("query", 32, K, weight).unwrap().into();
    quantize(&recipe, &mut model, &of(method), data, Shared::run).unwrap();
    assert!(model.layers[0].has_bias());
}

fn images(name: &str) -> Digits {
    Digits::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist").join(name)).unwrap()
}

static CALIBRATION: LazyLock<Digits> = LazyLock::new(|| images("mnist_calib_500.safetensors"));

/// An MLP of the trained ones.
fn mlp(name: &str) -> Mlp {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist").join(name);
    Mlp::from(FloatMlp::load(path).unwrap())
}

const MLPS: [&str; 2] = ["mnist_mlp_784_256_128_10.safetensors", "mnist_mlp_784_512_512_10.safetensors"];

/// Quantizes an MLP with the first 400 digits, and holds out 100.
fn quantize_mlp(recipe: &Recipe<'_>, model: &mut Mlp, config: &PassConfig) -> RecipeReport {
    let batches: Vec<_> =
        CALIBRATION.inputs.chunks(100 * PIXELS).map(|x| MatRef::new(x, 100, PIXELS).unwrap()).collect();
    let (calibration, held_out) = batches.split_at(4);
    let (calibration, held_out) = (calibration.iter().copied(), held_out.iter().copied());
    recipe.quantize(model, config, calibration, held_out, Mlp::run_batch, |_| {}).unwrap()
}

/// The mean gain of a step in all layers, undone or not.
fn mean_gain(report: &RecipeReport) -> f64 {
    let gains = report.layers.iter().map(|layer| layer.steps[0].after_db - layer.steps[0].before_db);
    gains.sum::<f64>() / report.layers.len() as f64
}

#[test]
fn gptq_gains_two_decibels_at_four_bits() {
    for (name, group) in MLPS.into_iter().flat_map(|name| [(name, None), (name, Some(32))]) {
        let weights = WeightConfig::with_bits(4).unwrap();
        let weights = group.map_or(weights, |group| weights.in_groups_of(group));
        for order in [GptqOrder::Inputs, GptqOrder::Activations, GptqOrder::ActivationsStaticGroups] {
            let gptq = Some(GptqConfig { order, ..GptqConfig::default() });
            let (recipe, mut model) = (Recipe { gptq, ..Recipe::none() }, mlp(name));
            let report = quantize_mlp(&recipe, &mut model, &of(Method::WeightOnly(weights)));
            println!("{name} {group:?} {order:?} {:.2}", mean_gain(&report));
            assert!(mean_gain(&report) >= 2.0, "{name} {group:?} {order:?}\n{report}");
        }
    }
}

#[test]
fn clipping_and_equalization_gain_with_a_scale_per_tensor() {
    let granularity = WeightGranularity::PerTensor;
    for (name, bits) in MLPS.into_iter().flat_map(|name| [(name, 4), (name, 8)]) {
        let weights = WeightConfig { granularity, ..WeightConfig::with_bits(bits).unwrap() };
        let fixed = of(Method::Static(StaticConfig { weights, ..StaticConfig::default() }));
        let weight_only = of(Method::WeightOnly(weights));
        let clip = Recipe { clip_weights: true, ..Recipe::none() };
        for config in [&fixed, &weight_only] {
            let report = quantize_mlp(&clip, &mut mlp(name), config);
            assert!(mean_gain(&report) > if bits == 4 { 3.0 } else { 0.1 }, "{report}");
        }
        for config in [fixed, weight_only] {
            let mut model = mlp(name);
            let report = quantize_mlp(&equalization(), &mut model, &config);
            assert!(mean_gain(&report) > 0.0 || bits == 8, "{report}");
            // Where it costs more than it gains, everything is as without it.
            let kept = report.layers.iter().all(|layer| layer.steps[0].is_kept);
            assert_eq!(kept, mean_gain(&report) > 0.0, "{report}");
            let mut plain = mlp(name);
            quantize_mlp(&Recipe::none(), &mut plain, &config);
            assert_eq!(
                layers_to_bytes(&model).unwrap() == layers_to_bytes(&plain).unwrap(),
                !kept,
                "{report}"
            );
        }
    }
}

fn equalization() -> Recipe<'static> {
    let equalize = vec![LayerPair::new("fc1", "fc2"), LayerPair::new("fc2", "fc3")];
    Recipe { equalize, ..Recipe::none() }
}

#[test]
fn planted_imbalance_is_balanced() {
    // The same network, with hidden values from 1/32 of what they were to 32 times.
    let mut model = mlp(MLPS[0]);
    let factor = |channel: usize| 2.0_f32.powi((channel * 7 % 11) as i32 - 5);
    let scaled = |layer: &Linear, made: bool, read: bool| {
        let Linear::Float(layer) = layer else { panic!() };
        let k = layer.k();
        let of_made = |channel| if made { factor(channel) } else { 1.0 };
        let of_read = |input| if read { 1.0 / factor(input) } else { 1.0 };
        let weight = layer.weight().iter().enumerate().map(|(i, w)| w * of_made(i / k) * of_read(i % k));
        let bias = layer.bias().unwrap().iter().enumerate().map(|(channel, bias)| bias * of_made(channel));
        let scaled = FloatLinear::new(layer.name(), layer.n(), k, weight.collect(), bias.collect()).unwrap();
        Linear::from(scaled.with_activation(layer.activation()))
    };
    let [fc1, fc2, fc3] = [0, 1, 2].map(|i| scaled(&model.layers()[i], i < 2, i > 0));
    model = Mlp::new(vec![fc1, fc2, fc3]).unwrap();
    let weights = WeightConfig { granularity: WeightGranularity::PerTensor, ..WeightConfig::default() };
    let report = quantize_mlp(&equalization(), &mut model, &of(Method::WeightOnly(weights)));
    assert!(mean_gain(&report) > 10.0 && report.layers[0].steps[0].is_kept, "{report}");
}

#[test]
fn errors_leave_the_model_as_it_was() {
    let (calibration, held_out) = (batches(12, 4, outliers), batches(13, 1, outliers));
    let refused = |recipe: &Recipe<'_>, calibration: &[Vec<f32>], held_out: &[Vec<f32>]| {
        let mut model = Shared::new();
        let before = layers_to_bytes(&model).unwrap();
        let data = (calibration, held_out);
        let error = quantize(recipe, &mut model, &of(Method::default()), data, Shared::run).unwrap_err();
        assert_eq!(layers_to_bytes(&model).unwrap(), before, "{error}");
        error
    };
    let all = Recipe::default();
    assert!(matches!(refused(&all, &[], &held_out), PassError::NoBatches { .. }));
    let few = refused(&all, &calibration[..1], &held_out);
    assert_eq!(few.to_string(), "layer \"query\" saw 16 finite rows of calibration, and the recipe needs 32");
    let none = refused(&all, &calibration, &[]);
    assert_eq!(
        none.to_string(),
        "layer \"query\" saw 0 finite rows that are held out, and the recipe needs 4"
    );
    let not_finite: Vec<Vec<f32>> = calibration.iter().map(|batch| vec![f32::NAN; batch.len()]).collect();
    assert!(matches!(refused(&all, &not_finite, &held_out), PassError::FewRows { rows: 0, .. }));

    let with = |first: &str, second: &str| Recipe {
        equalize: vec![LayerPair::new(first, second), LayerPair::new(first, second)],
        ..Recipe::none()
    };
    let pair = |recipe: Recipe<'_>| match refused(&recipe, &calibration, &held_out) {
        PassError::Pair { error, .. } => error,
        error => panic!("{error}"),
    };
    assert_eq!(pair(with("key", "value")), PairError::NoSuchLayer { layer: "value".to_owned() });
    assert_eq!(pair(with("query", "out")), PairError::Width { n: 32, k: 24 });
    assert_eq!(pair(with("key", "out")), PairError::Twice);

    let setting = |recipe: Recipe<'_>| match refused(&recipe, &calibration, &held_out) {
        PassError::Recipe { setting, .. } => setting,
        error => panic!("{error}"),
    };
    for alpha in [-0.1, 1.1, f64::NAN] {
        let smooth_quant = Some(SmoothQuant { alphas: vec![0.5, alpha] });
        assert_eq!(setting(Recipe { smooth_quant, ..Recipe::none() }), "alpha");
    }
    let gptq = Some(GptqConfig { damping: -1.0, ..GptqConfig::default() });
    assert_eq!(setting(Recipe { gptq, ..Recipe::none() }), "damping");
    assert_eq!(setting(Recipe { rows: 0, ..Recipe::none() }), "rows");
}

#[test]
fn errors_and_panics_of_the_model_undo_every_step() {
    let (calibration, held_out) = (batches(14, 4, outliers), batches(15, 1, outliers));
    let recipe = Recipe { equalize: vec![LayerPair::new("key", "out")], min_rows: 1, ..Recipe::default() };
    let runs = Cell::new(0);
    let quantize_until = |last: usize, panics: bool| {
        let mut model = Shared::new();
        let before = layers_to_bytes(&model).unwrap();
        runs.set(0);
        let run = |model: &mut Shared, batch: &Vec<f32>| {
            runs.set(runs.get() + 1);
            match runs.get() > last {
                false => model.run(batch).map_err(|error| error.to_string()),
                true if panics => panic!("the engine's own"),
                true => Err("the engine's own".to_owned()),
            }
        };
        let done = catch_unwind(AssertUnwindSafe(|| {
            recipe.quantize(&mut model, &of(Method::default()), &calibration, &held_out, run, |_| {}).is_ok()
        }));
        if !matches!(done, Ok(true)) {
            assert_eq!(layers_to_bytes(&model).unwrap(), before, "after {last} runs");
        }
        (done.unwrap_or(false), runs.get())
    };
    let (done, all) = quantize_until(usize::MAX, false);
    assert!(done && all > 20, "{all}");
    for last in 0..all {
        assert!(!quantize_until(last, last % 3 == 0).0);
    }
}
