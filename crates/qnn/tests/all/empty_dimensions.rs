//! Dimensions of 0 beside ones that no memory holds, and views that claim any number of rows: a
//! result or a typed error, at once. All of it runs under a limit of memory and time, so that an
//! attempt at such a size ends the test and not the machine. A limit holds for a whole process, so
//! each test runs itself as a process of its own.

use std::env;
use std::ops::ControlFlow;
#[cfg(unix)]
use std::process::Command;

use qcore::{ActivationFunction, QParams, Range, Scheme};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::reference::{Int8Linear, QuantizedLinear};
use qnn::{
    CalibrateError, DynamicConfig, DynamicLinear, DynamicParts, FloatLinear, FloatLinearError, FloatMlp,
    ForwardError, LayerError, Layers, Linear, LinearWorkspace, Method, Mlp, ModelOutput, PassConfig,
    PassError, QuantConfig, QuantMlp, ReportError, StaticLinear, StaticParts, WeightConfig,
    WeightGranularity, WeightOnlyLinear, analyze_model_sizes, analyze_sensitivity, argmax_rows,
    calibrate_model, quantize_model,
};

use crate::small::{linear, quant_model, rows};

/// What a dimension may be said to be.
const SIZES: [usize; 5] = [0, 1, 1 << 33, 1 << 62, usize::MAX];

/// Whether this process is limited to a few GiB and two minutes of one CPU. Where it is not, `test`
/// passes in one that is.
#[cfg(unix)]
fn limited(test: &str) -> bool {
    use rlimit::Resource;

    const TELL_TALE: &str = "QNN_TEST_IS_LIMITED";
    if env::var_os(TELL_TALE).is_some() {
        for (resource, most) in [(Resource::AS, 4 << 30), (Resource::CPU, 120)] {
            let (_, hard) = resource.get().unwrap();
            resource.set(most.min(hard), hard).unwrap();
        }
        return true;
    }
    let test = format!("empty_dimensions::{test}");
    let mut program = Command::new(env::current_exe().unwrap());
    let output = program.args(["--exact", &test]).env(TELL_TALE, "").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    false
}

/// There are no limits to set.
#[cfg(not(unix))]
fn limited(_: &str) -> bool {
    true
}

/// Every shape of [`SIZES`] that a view of one element can have: with a stride of 0, any; without
/// elements, those with a 0.
fn views(element: &[f32; 1]) -> impl Iterator<Item = MatRef<'_, f32>> {
    let shapes = SIZES.into_iter().flat_map(|rows| SIZES.into_iter().map(move |cols| (rows, cols)));
    let repeated = shapes.clone().filter_map(|(m, k)| MatRef::with_strides(element, m, k, 0, 0).ok());
    repeated.chain(shapes.filter_map(|(m, k)| MatRef::new(&[], m, k).ok()))
}

/// Every output of [`SIZES`] without elements, and of one, shown to `each`.
fn outputs(mut each: impl FnMut(MatMut<'_, f32>)) {
    for m in SIZES {
        for n in SIZES {
            let mut one = [7.0];
            for out in [MatMut::new(&mut [], m, n), MatMut::new(&mut one, m, n)].into_iter().flatten() {
                each(out);
            }
        }
    }
}

/// Runs `forward` on every such input and output; what is a result has the shape (0 rows, n).
fn every_shape<E: std::fmt::Debug>(
    what: &str,
    (n, k): (usize, usize),
    mut forward: impl FnMut(MatRef<'_, f32>, MatMut<'_, f32>) -> Result<(), E>,
) {
    for x in views(&[0.5]) {
        outputs(|out| {
            let shapes = ((x.rows(), x.cols()), (out.rows(), out.cols()));
            let fits = shapes == ((out.rows(), k), (x.rows(), n));
            assert_eq!(forward(x, out).is_ok(), fits, "{what}: {shapes:?}");
        });
    }
}

fn input() -> QParams {
    Scheme::activations_u8().choose(Range::new(-1.0, 1.0).unwrap()).unwrap()
}

fn kernel() -> Kernel {
    Kernel::select().unwrap()
}

#[test]
fn float_layers_need_all_dimensions() {
    if !limited("float_layers_need_all_dimensions") {
        return;
    }
    for n in SIZES {
        for k in SIZES {
            let with_bias = FloatLinear::new("fc", n, k, vec![], vec![]);
            for error in [with_bias, FloatLinear::without_bias("fc", n, k, vec![])] {
                let error = error.unwrap_err();
                let empty = matches!(error, FloatLinearError::Empty { .. });
                assert_eq!(empty, n == 0 || k == 0, "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn integer_layers_need_all_dimensions() {
    if !limited("integer_layers_need_all_dimensions") {
        return;
    }
    let (weight, activation) = ([1_i8], ActivationFunction::Identity);
    for (n, k) in SIZES.into_iter().flat_map(|a| [(0, a), (a, 0)]) {
        for weight in [MatRef::new(&[], n, k).unwrap(), MatRef::with_strides(&weight, n, k, 0, 0).unwrap()] {
            let (name, weight_scales) = ("fc".to_owned(), vec![]);
            let parts = StaticParts {
                name: name.clone(),
                weight,
                weight_scales: weight_scales.clone(),
                weight_zero_points: None,
                bias: None,
                input: input(),
                activation,
            };
            let error = StaticLinear::new(parts, kernel()).unwrap_err();
            assert_eq!(error, LayerError::Empty { n, k });
            for activations in [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())] {
                let parts = DynamicParts {
                    name: name.clone(),
                    weight,
                    weight_scales: weight_scales.clone(),
                    weight_zero_points: None,
                    bias: None,
                    activations,
                    activation,
                };
                let error = DynamicLinear::new(parts, kernel()).unwrap_err();
                assert_eq!(error, LayerError::Empty { n, k });
            }
        }
        for group_len in SIZES.map(Some).into_iter().chain([None]) {
            let granularity = group_len.map_or(WeightGranularity::PerChannel, WeightGranularity::PerGroup);
            let config = WeightConfig { granularity, ..WeightConfig::default() };
            for bias in [None, Some(&[][..])] {
                assert!(WeightOnlyLinear::new(&[], n, k, bias, &config, kernel()).is_err());
            }
        }
    }
    // More channels than scales, of one weight that repeats.
    for n in [1 << 33, 1 << 62, usize::MAX] {
        let parts = StaticParts {
            name: "fc".to_owned(),
            weight: MatRef::with_strides(&weight, n, 1, 0, 0).unwrap(),
            weight_scales: vec![1.0],
            weight_zero_points: None,
            bias: None,
            input: input(),
            activation,
        };
        let error = StaticLinear::new(parts, kernel()).unwrap_err();
        assert_eq!(error, LayerError::Length { tensor: "the weight scales", n, len: 1 });
    }
}

#[test]
fn layers_run_on_no_rows_and_on_no_other_empty_shape() {
    if !limited("layers_run_on_no_rows_and_on_no_other_empty_shape") {
        return;
    }
    let (float, weights) = (linear("fc", 1, 1), WeightConfig::default());
    let mut static_linear = StaticLinear::quantize(&float, input(), &weights, kernel()).unwrap();
    static_linear.set_output(input()).unwrap();
    let dynamic = [Dynamic::default(), Dynamic::PerTensor(Scheme::activations_u8())]
        .map(|how| DynamicLinear::quantize(&float, how, &weights, kernel()).unwrap());
    let weight_only = WeightOnlyLinear::quantize(&float, &WeightConfig::default(), kernel()).unwrap();
    let (int8, quantized) = (
        Int8Linear::quantize(&float, &Scheme::weights_i8()).unwrap(),
        QuantizedLinear::quantize(&float).unwrap(),
    );
    let (mut workspace, mut gemm) = (LinearWorkspace::new(), LinearWorkspace::new());
    let (threads, one) = (Threads::Serial, (1, 1));
    every_shape("float", one, |x, out| float.forward(x, out, threads));
    every_shape("static", one, |x, out| static_linear.forward(x, out, threads, &mut workspace));
    every_shape("int8", one, |x, out| int8.forward(x, out));
    every_shape("quantized", one, |x, out| quantized.forward(x, out));
    every_shape("weight-only", one, |x, out| weight_only.forward(x, out, threads, &mut gemm));
    let layers = dynamic.into_iter().map(Linear::from);
    let layers = layers.chain([float.into(), static_linear.clone().into(), weight_only.into()]);
    for layer in layers {
        every_shape(layer.form().name(), one, |x, out| layer.forward(x, out, threads, &mut workspace));
    }
    for m in SIZES {
        let codes = MatRef::with_strides(&[1_u8], m, 1, 0, 0).unwrap();
        let none = |n| MatMut::<f32>::new(&mut [], if n == 0 { m } else { 0 }, n).unwrap();
        for n in SIZES {
            let fits = (m, n) == (0, 1);
            assert_eq!(static_linear.forward_values(codes, none(n), threads, &mut gemm).is_ok(), fits);
            let mut sums = [0; 0];
            let out = MatMut::new(&mut sums, if n == 0 { m } else { 0 }, n).unwrap();
            assert_eq!(static_linear.forward_sums(codes, out, threads, &mut gemm).is_ok(), fits);
            let mut codes_out = [0_u8; 0];
            let out = MatMut::new(&mut codes_out, if n == 0 { m } else { 0 }, n).unwrap();
            assert_eq!(static_linear.forward_codes(codes, out, threads, &mut gemm).is_ok(), fits);
        }
    }
}

/// No columns have room for any number of rows: the answer does not wait for all of them.
#[test]
fn no_columns_of_any_number_of_rows() {
    if !limited("no_columns_of_any_number_of_rows") {
        return;
    }
    let layer =
        StaticLinear::quantize(&linear("fc", 1, 1), input(), &WeightConfig::default(), kernel()).unwrap();
    for x in views(&[f32::NAN]).filter(|x| x.cols() == 1) {
        let out = MatMut::<f32>::new(&mut [], x.rows(), 0).unwrap();
        let _ = layer.forward_columns(x, 0..0, out, &mut LinearWorkspace::new());
        let out = MatMut::<f32>::new(&mut [], 0, 1).unwrap();
        let error = layer.forward_columns(x, 0..1, out, &mut LinearWorkspace::new());
        assert_eq!(error.is_ok(), x.rows() == 0);
    }
}

fn mlp() -> FloatMlp {
    FloatMlp::new(vec![linear("fc1", 3, 1), linear("fc2", 1, 3)]).unwrap()
}

#[test]
fn models_run_on_no_rows_and_on_no_other_empty_shape() {
    if !limited("models_run_on_no_rows_and_on_no_other_empty_shape") {
        return;
    }
    let (float, one) = (mlp(), (1, 1));
    let quant = float.calibrate([rows(&[0.5, 1.0], 1)]).unwrap().quantize(&QuantConfig::default()).unwrap();
    let (mut floats, mut workspace) = (LinearWorkspace::new(), LinearWorkspace::new());
    every_shape("FloatMlp", one, |x, out| float.forward(x, out, Threads::Serial, &mut floats));
    every_shape("QuantMlp", one, |x, out| quant.forward(x, out, Threads::Serial, &mut workspace));
    let per_tensor = Dynamic::PerTensor(Scheme::activations_u8());
    for method in [
        Method::Float,
        Method::default(),
        Method::Dynamic(DynamicConfig::default()),
        Method::Dynamic(DynamicConfig { activations: per_tensor, ..DynamicConfig::default() }),
        Method::WeightOnly(WeightConfig::default()),
    ] {
        let (mut model, config) = (Mlp::from(float.clone()), PassConfig { method, ..PassConfig::default() });
        quantize_model(&mut model, &config, [rows(&[0.5, 1.0], 1)], Mlp::run_batch, |_| {}).unwrap();
        every_shape(method.form().name(), one, |x, out| {
            model.forward(x, out, Threads::Serial, &mut workspace)
        });
        for x in views(&[0.5]) {
            let result = model.run_batch(x);
            match (x.rows(), x.cols()) {
                (0 | 1, 1) => assert_eq!(result, Ok(())),
                (m, 1) => assert_eq!(result, Err(ForwardError::Memory { rows: m, cols: 1 })),
                (_, got) => assert_eq!(result, Err(ForwardError::Width { expected: 1, got })),
            }
        }
    }
    for x in views(&[0.5]).filter(|x| x.rows() < 2 || x.cols() != 1) {
        let traced = float.trace(x, Threads::Serial, &mut floats, |_| {});
        assert_eq!(traced.is_ok(), x.cols() == 1);
        match quant.report(&float, x) {
            Ok(report) => assert_eq!((report.rows, x.cols()), (1, 1)),
            Err(ReportError::NoRows) => assert_eq!((x.rows(), x.cols()), (0, 1)),
            Err(error) => {
                assert_eq!(error, ReportError::Forward(ForwardError::Width { expected: 1, got: x.cols() }));
            }
        }
    }
}

#[test]
fn calibration_takes_no_rows_and_refuses_what_no_memory_holds() {
    if !limited("calibration_takes_no_rows_and_refuses_what_no_memory_holds") {
        return;
    }
    let float = mlp();
    for x in views(&[0.5]) {
        let result = float.calibrate([x]).map(|calibrated| calibrated.rows());
        match (x.rows(), x.cols()) {
            (1, 1) => assert_eq!(result, Ok(1)),
            (0, 1) => assert_eq!(result, Err(CalibrateError::Empty { batches: 1 })),
            (rows, 1) => {
                let error = ForwardError::Memory { rows, cols: 1 };
                assert_eq!(result, Err(CalibrateError::Forward(error)));
            }
            (_, got) => assert!(matches!(result, Err(CalibrateError::Width { got: k, .. }) if k == got)),
        }
        let mut model = Mlp::from(float.clone());
        let config = PassConfig { evidence_rows: usize::MAX, ..PassConfig::default() };
        let result = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {});
        assert_eq!(result.is_ok(), x.rows() < 2 && x.cols() == 1);
        assert!(!matches!(result, Err(PassError::Layer(_))));
        assert!(model.layers().iter().all(|layer| matches!(layer, Linear::Float(_))));
    }
}

/// A layer that is being watched looks at the output's shape before it believes the input's.
#[test]
fn a_watched_layer_checks_shapes_first() {
    if !limited("a_watched_layer_checks_shapes_first") {
        return;
    }
    let mut model = vec![Linear::from(linear("fc", 1, 1))];
    let run = |model: &mut Vec<Linear>, ()| {
        assert!(matches!(&model[0], Linear::Float(layer) if layer.is_watched()));
        let mut workspace = LinearWorkspace::new();
        every_shape("calibrating", (1, 1), |x, out| {
            model[0].forward(x, out, Threads::Serial, &mut workspace)
        });
        model[0].forward(
            rows(&[0.5, 1.0], 1),
            MatMut::new(&mut [0.0; 2], 2, 1)?,
            Threads::Serial,
            &mut workspace,
        )
    };
    let report = quantize_model(&mut model, &PassConfig::default(), [()], run, |_| {}).unwrap();
    // Nothing of what was refused was observed: the largest value is that of the last call.
    assert_eq!(report.layers[0].input.unwrap().scale(), 1.0 / 255.0);
}

#[test]
fn analyses_take_any_output() {
    if !limited("analyses_take_any_output") {
        return;
    }
    let mut model = Mlp::from(mlp());
    let calibration = calibrate_model(
        &mut model,
        &PassConfig { min_weights: 0, ..PassConfig::default() },
        [rows(&[0.5, 1.0], 1)],
        Mlp::run_batch,
        |_| {},
    );
    let calibration = calibration.unwrap();
    for len in [0, 1, 2] {
        for cols in SIZES {
            let evaluate = |_: &mut Mlp| Ok::<_, ForwardError>(ModelOutput { values: vec![1.0; len], cols });
            let report =
                analyze_sensitivity(&mut model, &calibration, None, evaluate, |_| ControlFlow::Continue(()));
            assert_eq!(report.is_ok(), len > 0 && cols == 1, "{len} values in rows of {cols}");
        }
    }
    let everything_small = PassConfig { min_weights: usize::MAX, ..PassConfig::default() };
    let no_batches: [MatRef<'_, f32>; 0] = [];
    let report = quantize_model(&mut model, &everything_small, no_batches, Mlp::run_batch, |_| {}).unwrap();
    assert!(report.layers.iter().all(|layer| layer.form == qnn::Form::Float), "{report}");
    let none: Vec<Linear> = Vec::new();
    assert_eq!(analyze_model_sizes(&none).stored().total(), 0);
    none.visit(&mut |_| unreachable!());
    assert_eq!(Mlp::new(vec![]).unwrap_err(), qnn::ChainError::NoLayers);
    let restored = QuantMlp::from_bytes(&quant_model().to_bytes().unwrap(), None).unwrap();
    assert_eq!(restored.layers().count(), 2);
}

#[test]
fn the_largest_of_nothing_is_nothing() {
    if !limited("the_largest_of_nothing_is_nothing") {
        return;
    }
    for x in views(&[0.5]).filter(|x| x.rows() == 0 || x.cols() < 2) {
        let mut classes = argmax_rows(x);
        let expected = (x.rows() > 0).then_some((x.cols() > 0).then_some(0));
        assert_eq!(classes.next(), expected, "{} x {}", x.rows(), x.cols());
    }
}
