//! What belongs to a batch as a whole: scales that its rows share, and what an observer calls a
//! batch. Neither depends on how many rows run through a model together.

use std::sync::Mutex;

use qcore::{CodeRange, MinMaxObserver, MovingAverageObserver, Observer, ObserverError, Range, Scheme};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::{
    DynamicLinear, FloatLinear, FloatMlp, ForwardError, Linear, LinearWorkspace, Method, Mlp, ObserverChoice,
    PassConfig, StaticConfig, StaticLinear, WeightConfig, WeightOnlyLinear, quantize_model,
};

use crate::small::linear;

const WIDTH: usize = 12;
const ROWS: usize = 600;

/// Rows of growing size, so that no block of them has the range of another.
fn inputs() -> Vec<f32> {
    (0..ROWS * WIDTH).map(|i| (i as f32 * 0.61).sin() * (1 + i / WIDTH) as f32 / 25.0).collect()
}

fn matrix(x: &[f32]) -> MatRef<'_, f32> {
    MatRef::new(x, ROWS, WIDTH).unwrap()
}

fn layers() -> Vec<FloatLinear> {
    (0..4).map(|i| linear(&format!("fc{i}"), WIDTH, WIDTH)).collect()
}

fn dynamic(layer: &FloatLinear, how: Dynamic) -> Linear {
    let kernel = Kernel::select().unwrap();
    DynamicLinear::quantize(layer, how, &WeightConfig::default(), kernel).unwrap().into()
}

fn run(model: &Mlp, x: MatRef<'_, f32>, threads: Threads<'_>) -> Result<Vec<f32>, ForwardError> {
    let mut y = vec![f32::NAN; x.rows() * WIDTH];
    let out = MatMut::new(&mut y, x.rows(), WIDTH)?;
    model.forward(x, out, threads, &mut LinearWorkspace::new())?;
    Ok(y)
}

fn one_after_the_other(layers: &[Linear], x: &[f32]) -> Vec<f32> {
    layers.iter().fold(x.to_vec(), |x, layer| {
        let mut y = vec![f32::NAN; ROWS * WIDTH];
        let out = MatMut::new(&mut y, ROWS, WIDTH).unwrap();
        layer.forward(matrix(&x), out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
        y
    })
}

#[test]
fn rows_that_share_a_scale_share_it_whatever_the_threads() {
    let (x, kernel) = (inputs(), Kernel::select().unwrap());
    let [a, b, c, d] = &layers()[..] else { unreachable!() };
    let onnx = Dynamic::PerTensor(Scheme::onnx_dynamic(CodeRange::U8));
    let symmetric = Dynamic::PerTensor(Scheme::weights_i8());
    let input = Scheme::activations_u8().choose(Range::new(-30.0, 30.0).unwrap()).unwrap();
    let fixed = StaticLinear::quantize(b, input, &WeightConfig::default(), kernel).unwrap();
    let weight_only = WeightOnlyLinear::quantize(c, &WeightConfig::default(), kernel).unwrap();
    let pools = [2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    let in_groups = |float: &FloatLinear, activations, bits| {
        let weights = WeightConfig::with_bits(bits).unwrap().in_groups_of(32);
        Linear::from(DynamicLinear::quantize(float, activations, &weights, kernel).unwrap())
    };
    let per_group = Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 32 };
    let models: [Vec<Linear>; 5] = [
        vec![in_groups(a, Dynamic::GgmlQ8_0, 4), in_groups(b, per_group, 8)],
        vec![dynamic(a, onnx)],
        vec![dynamic(a, Dynamic::default()), dynamic(b, symmetric), dynamic(c, Dynamic::default())],
        vec![dynamic(a, symmetric), fixed.into(), weight_only.into(), dynamic(d, onnx)],
        vec![a.clone().into(), dynamic(b, onnx), c.clone().into()],
    ];
    for layers in models {
        let expected = one_after_the_other(&layers, &x);
        let in_f32 = layers.iter().any(|layer| matches!(layer, Linear::Float(_)));
        let model = Mlp::new(layers).unwrap();
        assert!(run(&model, matrix(&x), Threads::Serial).unwrap() == expected, "serial");
        // The last bits of f32 products may depend on the threads.
        for pool in pools.iter().filter(|_| !in_f32) {
            let got = run(&model, matrix(&x), Threads::Pool(pool)).unwrap();
            assert!(got == expected, "{} threads", pool.current_num_threads());
        }
    }
}

#[test]
fn a_value_without_a_code_is_named_by_its_row_of_the_batch() {
    let input = Scheme::activations_u8().choose(Range::new(-30.0, 30.0).unwrap()).unwrap();
    let (float, kernel) = (linear("fc", WIDTH, WIDTH), Kernel::select().unwrap());
    let fixed = StaticLinear::quantize(&float, input, &WeightConfig::default(), kernel).unwrap();
    for layer in [fixed.into(), dynamic(&float, Dynamic::default())] {
        let (model, mut x) = (Mlp::new(vec![layer]).unwrap(), inputs());
        x[577 * WIDTH + 5] = f32::INFINITY;
        let error = run(&model, matrix(&x), Threads::Serial).unwrap_err();
        assert_eq!(error, ForwardError::NonFinite { row: 577, col: 5, value: f32::INFINITY });
    }
}

/// How many values each call of `observe` had, of all observers together.
static SEEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Counting(MinMaxObserver);

impl Observer for Counting {
    fn observe(&mut self, values: &[f32]) {
        SEEN.lock().unwrap().push(values.len());
        self.0.observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        self.0.range()
    }

    fn finite(&self) -> u64 {
        self.0.finite()
    }

    fn non_finite(&self) -> u64 {
        self.0.non_finite()
    }
}

fn by(observer: ObserverChoice) -> PassConfig {
    let method = Method::Static(StaticConfig { observer, ..StaticConfig::default() });
    PassConfig { method, ..PassConfig::default() }
}

#[test]
fn a_batch_is_observed_once_by_every_layer() {
    let (x, float) = (inputs(), FloatMlp::new(layers()).unwrap());
    let batches = || [matrix(&x), matrix(&x).row_range(0..0).unwrap(), matrix(&x).row_range(7..8).unwrap()];
    let expected = [vec![ROWS * WIDTH; 4], vec![WIDTH; 4]].concat();
    float.calibrate_with(batches(), Counting::default).unwrap();
    assert_eq!(std::mem::take(&mut *SEEN.lock().unwrap()), expected, "calibrate_with");
    let config = by(ObserverChoice::Custom(|_| Box::<Counting>::default()));
    quantize_model(&mut Mlp::from(float), &config, batches(), Mlp::run_batch, |_| {}).unwrap();
    assert_eq!(std::mem::take(&mut *SEEN.lock().unwrap()), expected, "quantize_model");
}

#[test]
fn both_ways_of_calibration_see_the_same_bits() {
    let (x, float) = (inputs(), FloatMlp::new(layers()).unwrap());
    let batches =
        || [matrix(&x), matrix(&x).row_range(100..500).unwrap(), matrix(&x).row_range(0..3).unwrap()];
    let scheme = Scheme::activations_u8();
    for choice in [ObserverChoice::MovingAverage(0.01), ObserverChoice::MinMax, ObserverChoice::Histogram] {
        // Observers chosen at run time go where those of one type go.
        let calibrated = float.calibrate_with(batches(), || choice.observer(&scheme).unwrap()).unwrap();
        let mut model = Mlp::from(float.clone());
        let report = quantize_model(&mut model, &by(choice), batches(), Mlp::run_batch, |_| {}).unwrap();
        for (range, layer) in calibrated.input_ranges().iter().zip(&report.layers) {
            assert_eq!(layer.input, Some(scheme.choose(*range).unwrap()), "{choice:?} {}", layer.name);
        }
    }
    let mut observer = MovingAverageObserver::default();
    batches().iter().for_each(|x| {
        observer.observe(&(0..x.rows()).flat_map(|i| x.row_slice(i).unwrap().to_vec()).collect::<Vec<_>>());
    });
    let calibrated = float.calibrate_with(batches(), MovingAverageObserver::default).unwrap();
    assert_eq!(calibrated.input_ranges()[0], observer.range().unwrap());
}

#[test]
fn a_model_that_is_watched_gives_the_bits_that_it_gave() {
    let (x, mut model) = (inputs(), Mlp::from(FloatMlp::new(layers()).unwrap()));
    let expected = run(&model, matrix(&x), Threads::Serial).unwrap();
    let config = PassConfig::default().with_rule("fc1", Method::Float);
    let watched = |model: &mut Mlp, x| {
        assert!(run(model, x, Threads::Serial)? == expected);
        Ok::<_, ForwardError>(())
    };
    quantize_model(&mut model, &config, [matrix(&x)], watched, |_| {}).unwrap();
}
