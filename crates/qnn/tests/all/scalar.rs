//! The int8 model equals, bit for bit, the unfused computation with qcore's scalar functions on
//! what it holds.

use proptest::prelude::*;
use qcore::{
    MinMaxObserver, Observer, ObserverError, Range, dequantize_acc, output_multiplier, quantize_bias,
    requantize,
};
use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, FloatLinear, FloatMlp, LinearWorkspace, QuantConfig, QuantMlp, WeightGranularity,
};

/// One row through the model: a triple loop over rows, layers and channels, sums in i64, qcore for
/// the rest.
fn scalar_forward(model: &QuantMlp, row: &[f32]) -> Vec<f32> {
    let layers: Vec<_> = model.layers().collect();
    let mut codes: Vec<i32> = row.iter().map(|&v| layers[0].input().quantize(v)).collect();
    for (index, layer) in layers.iter().enumerate() {
        let (weights, input) = (layer.weights().unpack(), layer.input());
        let sums: Vec<i32> = weights
            .chunks_exact(layer.k())
            .zip(layer.bias().unwrap())
            .map(|(w, &bias)| {
                let products =
                    w.iter().zip(&codes).map(|(&w, &q)| i64::from(w) * i64::from(q - input.zero_point()));
                i32::try_from(products.sum::<i64>() + i64::from(bias)).expect("the model was proven")
            })
            .collect();
        let channels = sums.into_iter().zip(layer.weight_scales());
        let Some(next) = layers.get(index + 1).map(|next| next.input()) else {
            return channels.map(|(acc, scale)| dequantize_acc(acc, input.scale() * scale)).collect();
        };
        let code = |(acc, &scale): (i32, &f32)| {
            let multiplier = output_multiplier(input.scale(), scale, next.scale());
            let relu = next.codes().min().max(next.zero_point());
            requantize(acc, multiplier, next.zero_point(), relu, next.codes().max())
        };
        codes = channels.map(code).collect();
    }
    unreachable!("a model has a layer")
}

fn float_model(widths: &[usize], mut random: impl FnMut() -> f32) -> FloatMlp {
    let layers = widths.windows(2).enumerate().map(|(i, pair)| {
        let (k, n) = (pair[0], pair[1]);
        let weight = (0..n * k).map(|_| random()).collect();
        FloatLinear::new(format!("fc{i}"), n, k, weight, (0..n).map(|_| random()).collect()).unwrap()
    });
    FloatMlp::new(layers.collect()).unwrap()
}

/// Numbers in -1..1 (a linear congruence, so that failures repeat).
fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Ranges to both sides of 0, so that hidden zero points are not the smallest code and ReLU is not
/// just the clamp.
#[derive(Default)]
struct BothSides(MinMaxObserver);

impl Observer for BothSides {
    fn observe(&mut self, values: &[f32]) {
        self.0.observe(values);
    }

    fn range(&self) -> Result<Range, ObserverError> {
        let range = self.0.range()?;
        Ok(range.merge(Range::new(-0.5 * range.abs_max(), 0.0).expect("finite and in order")))
    }

    fn finite(&self) -> u64 {
        self.0.finite()
    }

    fn non_finite(&self) -> u64 {
        self.0.non_finite()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fused_equals_unfused(
        widths in proptest::collection::vec(1_usize..70, 2..6),
        m in 0_usize..9,
        seed: u64,
        scale in -3..3,
        (i8_activations, per_tensor, both_sides, reduce_range) in any::<(bool, bool, bool, bool)>(),
    ) {
        let mut random = random(seed);
        let float = float_model(&widths, || random() * 10_f32.powi(scale));
        let (k, n) = (float.inputs(), float.outputs());
        let calibration: Vec<f32> = (0..5 * k).map(|_| random()).collect();
        let batches = [MatRef::new(&calibration, 5, k).unwrap()];
        let calibrated = match both_sides {
            true => float.calibrate_with(batches, BothSides::default).unwrap(),
            false => float.calibrate(batches).unwrap(),
        };
        // Wider than what was calibrated, so that codes saturate; columns apart, so that strides
        // count.
        let x: Vec<f32> = (0..3 * m * k).map(|_| 1.5 * random()).collect();
        let view = MatRef::with_strides(&x, m, k, 3 * k, 3).unwrap();
        for kernel in Kernel::available() {
            let model = calibrated.quantize(&QuantConfig {
                activations: if i8_activations { ActivationCodes::I8 } else { ActivationCodes::U8 },
                weights: if per_tensor { WeightGranularity::PerTensor } else { WeightGranularity::PerChannel },
                reduce_range,
                kernel: Some(kernel),
            }).unwrap();
            let mut logits = vec![f32::NAN; m * n];
            let out = MatMut::new(&mut logits, m, n).unwrap();
            model.forward(view, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
            for (i, logits) in logits.chunks(n).enumerate() {
                let row: Vec<f32> = (0..k).map(|j| view.get(i, j).unwrap()).collect();
                let expected: Vec<u32> = scalar_forward(&model, &row).iter().map(|v| v.to_bits()).collect();
                let got: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
                prop_assert_eq!(got, expected, "row {} on {}", i, kernel.name());
            }
        }
    }
}

#[test]
fn biases_are_in_units_of_the_sums() {
    let mut random = random(7);
    let float = float_model(&[8, 16, 4], &mut random);
    let x: Vec<f32> = (0..80).map(|_| random()).collect();
    let model = float.calibrate([MatRef::new(&x, 10, 8).unwrap()]).unwrap();
    let model = model.quantize(&QuantConfig::default()).unwrap();
    for (layer, float) in model.layers().zip(float.layers()) {
        for ((&q, &scale), &bias) in
            layer.bias().unwrap().iter().zip(layer.weight_scales()).zip(float.bias().unwrap())
        {
            assert_eq!(quantize_bias(bias, layer.input().scale(), scale), Ok(q));
        }
    }
}

/// A neuron with weights near 0 and an ordinary bias: the bias survives, and the report says what
/// it took.
#[test]
fn a_dead_neuron_keeps_its_bias_and_is_noted() {
    let weight = vec![1e-12, -1e-12, 0.5, 0.25, 0.0, 0.0];
    let fc1 = FloatLinear::new("fc1", 3, 2, weight, vec![0.75, -0.1, 0.3]).unwrap();
    let fc2 = FloatLinear::new("fc2", 2, 3, vec![1.0, 0.5, -0.5, -1.0, 0.25, 1.0], vec![0.0; 2]).unwrap();
    let float = FloatMlp::new(vec![fc1, fc2]).unwrap();
    let x: Vec<f32> = (0..40).map(|i| i as f32 / 40.0).collect();
    let x = MatRef::new(&x, 20, 2).unwrap();
    for activations in ActivationCodes::ALL {
        let config = QuantConfig { activations, ..QuantConfig::default() };
        let model = float.calibrate([x]).unwrap().quantize(&config).unwrap();
        let fc1 = model.layers().next().unwrap();
        for channel in [0, 2] {
            let bias =
                fc1.bias().unwrap()[channel] as f32 * fc1.weight_scales()[channel] * fc1.input().scale();
            let expected = float.layers()[0].bias().unwrap()[channel];
            assert!((bias - expected).abs() < 2e-5, "channel {channel}: {bias} {expected}");
        }
        let report = model.report(&float, x).unwrap();
        assert_eq!(report.layers[0].raised_channels, [0]);
        assert_eq!(report.layers[0].constant_channels, [0, 2]);
        assert_eq!(
            (report.layers[1].raised_channels.len(), report.layers[1].constant_channels.len()),
            (0, 0)
        );
        assert!(report.logits_sqnr_db > 35.0, "{report}");
        let text = report.to_string();
        assert!(text.contains("note: fc1: weight scale raised") && text.contains("1 channel (0)"), "{text}");
        // What a file keeps is enough to say so again.
        let restored = QuantMlp::from_bytes(&model.to_bytes().unwrap(), None).unwrap();
        assert_eq!(restored.report(&float, x).unwrap(), report);
    }
}

/// Weights that are proven as they lie, and weights at the end of their codes, which an order of k
/// keeps apart: the report says so where it matters.
#[test]
fn proven_channels_are_counted() {
    // Two large weights side by side, and windows enough to make up for what a tile takes.
    let weight = (0..128).map(|k| if k < 2 { 1.0 } else { 0.1 }).collect();
    let fc1 = FloatLinear::new("fc1", 1, 128, weight, vec![0.0]).unwrap();
    let fc2 = FloatLinear::new("fc2", 3, 1, vec![1.0, -1.0, 0.5], vec![0.0; 3]).unwrap();
    let float = FloatMlp::new(vec![fc1, fc2]).unwrap();
    let x: Vec<f32> = (0..256).map(|at| at as f32 / 255.0).collect();
    let x = MatRef::new(&x, 2, 128).unwrap();
    let model = float.calibrate([x]).unwrap().quantize(&QuantConfig::default()).unwrap().to_bytes().unwrap();
    for kernel in Kernel::available() {
        let report = QuantMlp::from_bytes(&model, Some(kernel)).unwrap().report(&float, x).unwrap();
        let proven: Vec<_> = report.layers.iter().map(|layer| layer.proven_channels).collect();
        let windows: Vec<_> =
            report.layers.iter().map(|layer| layer.windows.map(|windows| windows.quads)).collect();
        let (line, second) = (
            "4 of 4 channels run on a faster form of the kernel",
            "windows of 16 k in an order of their own: ",
        );
        let desc = kernel.desc();
        let proofs = !desc.proven.is_empty() || desc.ordered.is_some();
        assert_eq!(proven, if proofs { [Some(1), Some(3)] } else { [None; 2] }, "{kernel}");
        let expected = match desc.ordered {
            None => [None; 2],
            Some(_) => [Some(8), Some(usize::from(desc.proven.is_empty()))],
        };
        assert_eq!(windows, expected, "{kernel}");
        assert_eq!(report.to_string().contains(line), proofs, "{report}");
        assert_eq!(report.to_string().contains(second), desc.ordered.is_some(), "{report}");
    }
}

/// The report sees what lies beyond the calibrated range.
#[test]
fn clipping_and_saturation_are_counted() {
    let layer = |name| FloatLinear::new(name, 1, 1, vec![1.0], vec![0.0]).unwrap();
    let float = FloatMlp::new(vec![layer("fc1"), layer("fc2")]).unwrap();
    let model = float.calibrate([MatRef::new(&[0.0, 1.0], 2, 1).unwrap()]).unwrap();
    let model = model.quantize(&QuantConfig::default()).unwrap();
    let x = [0.5, 1.0, 1.001, 1.003, 2.0, -0.001, -1.0, 0.25]; // a step is 1/255
    let report = model.report(&float, MatRef::new(&x, 8, 1).unwrap()).unwrap();
    assert_eq!(report.layers[0].clipped, 3.0 / 8.0);
    assert_eq!(report.layers[0].saturated, Some(0.0)); // the input was clipped before
    assert_eq!(report.layers[1].clipped, 2.0 / 8.0); // ReLU took the negative one
    assert_eq!(report.layers[1].saturated, None);
}
