//! Layers equal, bit for bit, the unfused steps of qcore's scalar functions: on every kernel,
//! serial and threaded, for f32, f16 and bf16 on both sides, whatever the batch.

use half::{bf16, f16};
use proptest::prelude::*;
use qcore::{ActivationFunction, GgmlQ8_0, Range, Scheme, dequantize_acc, group_term, sum_group_terms};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, StoredFloat, Threads};
use qnn::{DynamicLinear, FloatLinear, Linear, LinearWorkspace, StaticLinear, WeightConfig};

/// `sum_k (codes[k] - zero_point) * (w[k] - w_zero_point)` of one row and all channels, in i64.
fn sums(codes: &[i32], zero_point: i32, w: &[i8], w_zero_points: &[i32]) -> Vec<i32> {
    let channel = |(channel, w): (usize, &[i8])| {
        let w_zero_point = w_zero_points.get(channel).copied().unwrap_or(0);
        let products = codes
            .iter()
            .zip(w)
            .map(|(&q, &w)| i64::from(q - zero_point) * i64::from(i32::from(w) - w_zero_point));
        i32::try_from(products.sum::<i64>()).expect("the layer was proven")
    };
    w.chunks_exact(codes.len()).enumerate().map(channel).collect()
}

fn relu(activation: ActivationFunction, y: f32) -> f32 {
    if activation == ActivationFunction::Relu && y < 0.0 { 0.0 } else { y }
}

fn scalar_static(layer: &StaticLinear, x: &[f32]) -> Vec<f32> {
    let input = layer.input();
    let codes: Vec<i32> = x.iter().map(|&v| input.quantize(v)).collect();
    let acc = sums(&codes, input.zero_point(), &layer.weights().unpack(), layer.weights().zero_points());
    let value = |(channel, acc): (usize, i32)| {
        let acc = acc + layer.bias().map_or(0, |bias| bias[channel]);
        relu(layer.activation(), dequantize_acc(acc, input.scale() * layer.weight_scales()[channel]))
    };
    acc.into_iter().enumerate().map(value).collect()
}

/// `values` are those of the whole batch.
fn scalar_dynamic(layer: &DynamicLinear, values: &[f32], x: &[f32]) -> Vec<f32> {
    let (distances, row_scales) = quantized(layer.activations(), values, x);
    let (codes, scales, k) = (layer.weights().unpack(), layer.weights().scales(), layer.k());
    let (group_len, groups) = (layer.weights().group_len(), scales.len() / layer.n());
    let zero_points = layer.weights().zero_points();
    let value = |channel: usize| {
        let terms = (0..groups).map(|g| {
            let sum = (g * group_len..((g + 1) * group_len).min(k)).map(|at| {
                let zero_point = zero_points.as_ref().map_or(0, |all| all[channel * groups + g]);
                let w = i64::from(codes[channel * k + at]) - i64::from(zero_point);
                distances[at] * w
            });
            let sum = i32::try_from(sum.sum::<i64>()).expect("the layer was proven");
            group_term(row_scales[g.min(row_scales.len() - 1)], scales[channel * groups + g], sum)
        });
        let y = sum_group_terms(terms);
        relu(layer.activation(), layer.bias().map_or(y, |bias| y + bias[channel]))
    };
    (0..layer.n()).map(value).collect()
}

/// The distances of a row's codes from the zero point, and the scales of its groups or the one that
/// it has.
fn quantized(how: &Dynamic, values: &[f32], x: &[f32]) -> (Vec<i64>, Vec<f32>) {
    let of_group = |group: &[f32]| -> (Vec<i64>, f32) {
        let scheme = match how {
            Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) | Dynamic::PerGroup { scheme, .. } => {
                scheme
            }
            _ => {
                let block = GgmlQ8_0::of(group);
                return (group.iter().map(|&x| block.quantize(x).into()).collect(), block.scale());
            }
        };
        let of = if matches!(how, Dynamic::PerTensor(_)) { values } else { group };
        let params = scheme.choose(Range::of(of).unwrap()).unwrap();
        let distance = |&x: &f32| i64::from(params.quantize(x) - params.zero_point());
        (group.iter().map(distance).collect(), params.scale())
    };
    let (distances, scales): (Vec<_>, Vec<_>) =
        x.chunks(how.group_len().unwrap_or(x.len())).map(of_group).unzip();
    (distances.concat(), scales)
}

/// What `forward` gives for `x` in the type `F`, as bits of the values in f32.
fn forward<F: StoredFloat>(layer: &Linear, x: &[f32], m: usize, threads: Threads<'_>) -> Vec<u32> {
    let x: Vec<F> = x.iter().map(|&v| F::narrow(v)).collect();
    let mut y = vec![F::default(); m * layer.n()];
    let (x, out) = (MatRef::new(&x, m, layer.k()).unwrap(), MatMut::new(&mut y, m, layer.n()).unwrap());
    let mut workspace = LinearWorkspace::new();
    match layer {
        Linear::Static(layer) => layer.forward(x, out, threads, &mut workspace).unwrap(),
        Linear::Dynamic(layer) => layer.forward(x, out, threads, &mut workspace).unwrap(),
        _ => unreachable!("integer layers only"),
    }
    y.iter().map(|y| y.widen().to_bits()).collect()
}

fn check<F: StoredFloat>(layer: &Linear, x: &[f32], m: usize, pool: &rayon::ThreadPool) {
    let rounded: Vec<f32> = x.iter().map(|&v| F::narrow(v).widen()).collect();
    let rows = || rounded.chunks_exact(layer.k());
    let expected: Vec<f32> = match layer {
        Linear::Static(layer) => rows().flat_map(|row| scalar_static(layer, row)).collect(),
        Linear::Dynamic(layer) => rows().flat_map(|row| scalar_dynamic(layer, &rounded, row)).collect(),
        _ => unreachable!("integer layers only"),
    };
    let expected: Vec<u32> = expected.iter().map(|&y| F::narrow(y).widen().to_bits()).collect();
    for threads in [Threads::Serial, Threads::Pool(pool)] {
        assert_eq!(forward::<F>(layer, x, m, threads), expected, "{} {threads:?}", layer.form().name());
    }
    let per_tensor = matches!(layer, Linear::Dynamic(l) if matches!(l.activations(), Dynamic::PerTensor(_)));
    if !per_tensor {
        let alone = x.chunks_exact(layer.k()).flat_map(|x| forward::<F>(layer, x, 1, Threads::Serial));
        assert_eq!(alone.collect::<Vec<_>>(), expected, "row by row");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fused_equals_unfused(
        (n, k, m) in (1_usize..70, 1_usize..140, 1_usize..6),
        seed in 1_u64..1 << 40,
        (affine_weights, affine_input, bias, relu) in any::<(bool, bool, bool, bool)>(),
        bits in 2_u32..=8,
        group_len in prop_oneof![Just(None), Just(Some(16)), Just(Some(48))],
    ) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let weight: Vec<f32> = (0..n * k).map(|_| random() + 0.2).collect();
        let float = match bias {
            true => FloatLinear::new("fc", n, k, weight, (0..n).map(|_| random()).collect()),
            false => FloatLinear::without_bias("fc", n, k, weight),
        };
        let activation = if relu { ActivationFunction::Relu } else { ActivationFunction::Identity };
        let float = float.unwrap().with_activation(activation);
        let x: Vec<f32> = (0..m * k).map(|_| random() * 1.5).collect();
        let weights = match affine_weights {
            true => WeightConfig { scheme: Scheme::activations_i8(), ..WeightConfig::default() },
            false => WeightConfig::with_bits(bits).unwrap(),
        };
        let (scheme, dynamic) = match affine_input {
            true => (Scheme::activations_u8(), Scheme::activations_u8()),
            false => (Scheme::activations_i8(), Scheme::weights_i8()),
        };
        let input = scheme.choose(Range::new(-1.0, 1.25).unwrap()).unwrap();
        for kernel in Kernel::available() {
            let dynamic = [Dynamic::PerTensor(dynamic), Dynamic::PerToken(dynamic)];
            let mut layers: Vec<Linear> =
                vec![StaticLinear::quantize(&float, input, &weights, kernel).unwrap().into()];
            let weights = group_len.map_or(weights, |len| weights.in_groups_of(len));
            if let Some(group_len) = group_len {
                let how = Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len };
                layers.push(DynamicLinear::quantize(&float, how, &weights, kernel).unwrap().into());
                let blocks = weights.in_groups_of(GgmlQ8_0::BLOCK_LEN);
                let how = Dynamic::GgmlQ8_0;
                layers.push(DynamicLinear::quantize(&float, how, &blocks, kernel).unwrap().into());
            }
            layers.extend(
                dynamic.map(|how| DynamicLinear::quantize(&float, how, &weights, kernel).unwrap().into()),
            );
            for layer in &layers {
                check::<f32>(layer, &x, m, &pool);
                check::<f16>(layer, &x, m, &pool);
                check::<bf16>(layer, &x, m, &pool);
            }
        }
    }
}

/// Values that have no code are named, and nothing is written.
#[test]
fn values_that_are_not_finite_are_refused() {
    let float = FloatLinear::new("fc", 1, 2, vec![1.0, 0.5], vec![0.0]).unwrap();
    let (kernel, weights) = (Kernel::select().unwrap(), WeightConfig::default());
    let input = Scheme::activations_u8().choose(Range::new(0.0, 1.0).unwrap()).unwrap();
    let four_bits = WeightConfig::with_bits(4).unwrap().in_groups_of(16);
    let layers: [Linear; 3] = [
        DynamicLinear::quantize(&float, Dynamic::default(), &four_bits, kernel).unwrap().into(),
        StaticLinear::quantize(&float, input, &weights, kernel).unwrap().into(),
        DynamicLinear::quantize(&float, Dynamic::default(), &weights, kernel).unwrap().into(),
    ];
    for layer in &layers {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (x, mut y) = ([0.5, 0.5, 0.5, bad], [7.0; 2]);
            let (x, out) = (MatRef::new(&x, 2, 2).unwrap(), MatMut::new(&mut y, 2, 1).unwrap());
            let error = layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap_err();
            assert!(error.to_string().ends_with("at row 1, column 1 is not finite"), "{error}");
            assert_eq!(y, [7.0; 2]);
        }
    }
}
