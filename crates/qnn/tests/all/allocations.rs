//! With a kept workspace a forward pass allocates nothing.

use half::bf16;
use qcore::{CodeRange, Range, Scheme};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, DynamicLinear, FloatLinear, FloatMlp, LinearWorkspace, QuantConfig, StaticLinear,
    WeightConfig,
};

#[test]
fn a_forward_pass_with_a_kept_workspace_allocates_nothing() {
    let weight = |n: usize, k: usize| (0..n * k).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
    let layer = |name, n, k| FloatLinear::new(name, n, k, weight(n, k), vec![0.1; n]).unwrap();
    let float =
        FloatMlp::new(vec![layer("fc1", 70, 33), layer("fc2", 41, 70), layer("fc3", 10, 41)]).unwrap();
    let x = weight(600, 33);
    let x = MatRef::new(&x, 600, 33).unwrap();
    let calibrated = float.calibrate([x]).unwrap();
    for activations in ActivationCodes::ALL {
        for kernel in Kernel::available() {
            let config = QuantConfig { activations, kernel: Some(kernel), ..QuantConfig::default() };
            let model = calibrated.quantize(&config).unwrap();
            let (mut logits, mut workspace) = (vec![0.0; 6000], LinearWorkspace::new());
            let mut run = |m| {
                let (x, out) = (x.row_range(0..m).unwrap(), MatMut::new(&mut logits, m, 10).unwrap());
                model.forward(x, out, Threads::Serial, &mut workspace).unwrap();
            };
            run(600);
            for m in [600, 1, 7, 0, 256] {
                let counts = allocation_counter::measure(|| run(m));
                assert_eq!(counts.count_total, 0, "{activations} {} m = {m}", kernel.name());
            }
        }
    }
}

#[test]
fn layers_with_a_kept_workspace_allocate_nothing() {
    let (n, k) = (70, 33);
    let weight = (0..n * k).map(|i| (i as f32 * 0.37).sin()).collect();
    let float = FloatLinear::new("fc1", n, k, weight, vec![0.1; n]).unwrap();
    let input = Scheme::activations_u8().choose(Range::new(-1.0, 1.0).unwrap()).unwrap();
    // Columns apart, so that rows are gathered.
    let x: Vec<f32> = (0..2 * 300 * k).map(|i| (i as f32 * 0.41).cos()).collect();
    let x = MatRef::with_strides(&x, 300, k, 2 * k, 2).unwrap();
    let halves: Vec<bf16> = (0..300 * k).map(|i| bf16::from_f32((i as f32 * 0.41).cos())).collect();
    let halves = MatRef::new(&halves, 300, k).unwrap();
    let (mut y, mut half_y) = (vec![0.0; 300 * n], vec![bf16::ZERO; 300 * n]);
    let weights = WeightConfig::default();
    for kernel in Kernel::available() {
        let layer = StaticLinear::quantize(&float, input, &weights, kernel).unwrap();
        let onnx = Dynamic::PerTensor(Scheme::onnx_dynamic(CodeRange::U8));
        let dynamic = [Dynamic::default(), onnx]
            .map(|how| DynamicLinear::quantize(&float, how, &weights, kernel).unwrap());
        let in_groups =
            [Dynamic::GgmlQ8_0, Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 32 }]
                .map(|how| DynamicLinear::quantize(&float, how, &weights.in_groups_of(32), kernel).unwrap());
        let mut workspace = LinearWorkspace::new();
        let mut run = |m| {
            let (x, halves) = (x.row_range(0..m).unwrap(), halves.row_range(0..m).unwrap());
            let out = MatMut::new(&mut y, m, n).unwrap();
            layer.forward(x, out, Threads::Serial, &mut workspace).unwrap();
            let out = MatMut::new(&mut half_y, m, n).unwrap();
            layer.forward(halves, out, Threads::Serial, &mut workspace).unwrap();
            for layer in dynamic.iter().chain(&in_groups) {
                let out = MatMut::new(&mut y, m, n).unwrap();
                layer.forward(x, out, Threads::Serial, &mut workspace).unwrap();
                let out = MatMut::new(&mut half_y, m, n).unwrap();
                layer.forward(halves, out, Threads::Serial, &mut workspace).unwrap();
            }
        };
        run(300);
        for m in [300, 1, 7, 0] {
            let counts = allocation_counter::measure(|| run(m));
            assert_eq!(counts.count_total, 0, "{} m = {m}", kernel.name());
        }
    }
}
