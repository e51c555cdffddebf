//! With a kept workspace a forward pass allocates nothing.

use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{ActivationCodes, FloatLinear, FloatMlp, QuantConfig, QuantWorkspace};

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
            let (mut logits, mut workspace) = (vec![0.0; 6000], QuantWorkspace::new());
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
