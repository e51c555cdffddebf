//! Integer products with a scale for each group of k. On every kernel they have the bits of qcore's
//! definition: codes of the scalar quantizer, sums in i64, terms and their sum in f32.

use half::{bf16, f16};
use qcore::{ActivationFunction, Float, Range, Scheme, group_term, sum_group_terms};
use qkernels::{
    Dequantize, Dynamic, DynamicError, FloatStage, GemmError, Kernel, MatMut, MatRef, ScaledWeights, Scales,
    Threads, WeightScales, Workspace, gemm_dynamic, gemm_scaled,
};

use crate::oracle::{Noise, around, codes_of, pack, pack_scaled, perhaps_f16};

struct Layer {
    n: usize,
    k: usize,
    group_len: Option<usize>,
    bits: u32,
    codes: Vec<i8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<i8>>,
    bias: Vec<f32>,
}

impl Layer {
    fn new(noise: &mut Noise, n: usize, k: usize, group_len: Option<usize>) -> Self {
        let count = n * group_len.map_or(1, |len| k.div_ceil(len));
        let mut scales = noise.floats(count, 0.01);
        // Some formats have negative scales, and 0 for a group of zeros.
        scales.iter_mut().for_each(|scale| match noise.below(4) {
            0 => *scale = -*scale,
            1 if noise.below(8) == 0 => *scale = 0.0,
            _ => {}
        });
        let scales = perhaps_f16(noise, scales);
        let bits = noise.choose(&[8, 4]);
        // The same one for all groups is the usual case.
        let zero_points = match noise.below(3) {
            0 => None,
            1 => Some(vec![8; count]),
            _ => Some(codes_of(noise, bits, count)),
        };
        let codes = codes_of(noise, bits, n * k);
        Self { n, k, group_len, bits, codes, scales, zero_points, bias: noise.floats(n, 0.5) }
    }

    fn packed(&self, kernel: Kernel) -> ScaledWeights {
        let w = MatRef::new(&self.codes, self.n, self.k).unwrap();
        pack_scaled(kernel, self.bits, w, self.group_len, &self.scales, self.zero_points.as_deref())
    }

    fn stage(&self) -> FloatStage<'_> {
        FloatStage::new().with_bias(&self.bias).unwrap().with_relu()
    }

    /// The definition.
    fn expected(&self, x: &[f32], how: Dynamic) -> Vec<u32> {
        let range = |values: &[f32]| Range::of_finite(values).unwrap_or_default();
        let (Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme)) = how else { unreachable!() };
        let (len, groups) = match self.group_len {
            None => (self.k.max(1), 1),
            Some(len) => (len, self.k.div_ceil(len)),
        };
        let mut y = Vec::new();
        for row in x.chunks(self.k) {
            let of = if matches!(how, Dynamic::PerTensor(_)) { x } else { row };
            let params = scheme.choose(range(of)).unwrap();
            let codes: Vec<i64> = row.iter().map(|&x| params.quantize(x).into()).collect();
            for j in 0..self.n {
                let term = |g: usize| {
                    let zero_point = self.zero_points.as_ref().map_or(0, |of| of[j * groups + g].into());
                    let products = (g * len..self.k.min((g + 1) * len)).map(|p| {
                        let w = i64::from(self.codes[j * self.k + p]) - zero_point;
                        (codes[p] - i64::from(params.zero_point())) * w
                    });
                    let sum = i32::try_from(products.sum::<i64>()).unwrap();
                    group_term(params.scale(), self.scales[j * groups + g], sum)
                };
                let sum = sum_group_terms((0..groups).map(term));
                y.push(ActivationFunction::Relu.apply(sum + self.bias[j]).to_bits());
            }
        }
        y
    }
}

fn run<F: Float, Y: Float>(
    x: &[F],
    how: Dynamic,
    layer: &Layer,
    w: &ScaledWeights,
    threads: Threads<'_>,
) -> Vec<Y> {
    let m = x.len() / layer.k;
    let mut y = vec![Y::narrow(f32::NAN); m * layer.n];
    let (x, out) = (MatRef::new(x, m, layer.k).unwrap(), MatMut::new(&mut y, m, layer.n).unwrap());
    gemm_scaled(x, how, w, &layer.stage(), out, threads, &mut Workspace::new()).unwrap();
    y
}

fn bits<Y: Float>(y: &[Y]) -> Vec<u32> {
    y.iter().map(|y| y.widen().to_bits()).collect()
}

/// Symmetric and affine, of a row and of all.
fn schemes() -> [Dynamic; 4] {
    let schemes = [Scheme::weights_i8(), Scheme::activations_u8()];
    let [i8s, u8s] = schemes;
    [Dynamic::PerToken(i8s), Dynamic::PerToken(u8s), Dynamic::PerTensor(i8s), Dynamic::PerTensor(u8s)]
}

fn check(noise: &mut Noise, m: usize, layer: &Layer) {
    let mut x = noise.floats(m * layer.k, 1.0);
    // Rows have ranges of their own.
    x.chunks_mut(layer.k).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= (i + 1) as f32));
    let how = schemes()[noise.below(4)];
    let expected = layer.expected(&x, how);
    for kernel in Kernel::available() {
        let w = layer.packed(kernel);
        let y: Vec<f32> = run(&x, how, layer, &w, Threads::Serial);
        let which = format!(
            "{kernel}: {m} x {} x {}, groups {:?}, {} bits, {how:?}",
            layer.n, layer.k, layer.group_len, layer.bits
        );
        assert_eq!(bits(&y), expected, "{which}, zero points {}", layer.zero_points.is_some());
        // Sums may be kept, which changes nothing.
        for w in [w.clone().with_sums(), w.clone().for_activations(how)] {
            assert_eq!(bits(&run::<_, f32>(&x, how, layer, &w, Threads::Serial)), expected, "{which}");
        }
        let halves: Vec<f16> = run(&x, how, layer, &w, Threads::Serial);
        assert_eq!(bits(&halves), bits(&y.iter().map(|&y| f16::from_f32(y)).collect::<Vec<_>>()), "{which}");
    }
}

#[test]
fn every_shape_has_the_bits_of_the_definition() {
    let mut noise = Noise::new(70);
    for desc in Kernel::available().map(Kernel::desc) {
        for m in (1..=9).chain([17]) {
            for n in around(desc.vector_columns).chain(around(desc.nr)).chain([2 * desc.nr + 1]) {
                let (k, len) = (1 + noise.below(200), [None, Some(16), Some(32), Some(64)][noise.below(4)]);
                let layer = Layer::new(&mut noise, n, k, len);
                check(&mut noise, m, &layer);
            }
        }
    }
    for k in 1..=100 {
        let layer = Layer::new(&mut noise, 19, k, Some(32));
        check(&mut noise, 1 + k % 8, &layer);
    }
}

#[test]
fn long_groups_and_many_rows_are_cut_into_blocks() {
    let mut noise = Noise::new(71);
    for (m, n, k, len) in [(300, 33, 1000, Some(256)), (5, 20, 5000, None), (40, 70, 4096, Some(128))] {
        let layer = Layer::new(&mut noise, n, k, len);
        check(&mut noise, m, &layer);
    }
}

#[test]
fn a_row_has_the_same_bits_on_any_thread_and_in_any_batch() {
    let mut noise = Noise::new(72);
    let (m, layer) = (130, Layer::new(&mut noise, 200, 256, Some(32)));
    let x = noise.floats(m * layer.k, 1.0);
    let w = layer.packed(Kernel::select().unwrap());
    for how in schemes() {
        let y: Vec<f32> = run(&x, how, &layer, &w, Threads::Serial);
        for threads in 1..=8 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(bits(&run::<_, f32>(&x, how, &layer, &w, Threads::Pool(&pool))) == bits(&y));
        }
        if let Dynamic::PerToken(_) = how {
            for i in [0, 7, 129] {
                let row = &x[i * layer.k..(i + 1) * layer.k];
                let alone: Vec<f32> = run(row, how, &layer, &w, Threads::Serial);
                assert_eq!(bits(&alone), bits(&y[i * layer.n..(i + 1) * layer.n]));
            }
        }
    }
    // 16-bit activations are widened.
    let halves: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    let wide: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
    let how = schemes()[0];
    assert_eq!(
        bits(&run::<_, f32>(&halves, how, &layer, &w, Threads::Serial)),
        bits(&run::<_, f32>(&wide, how, &layer, &w, Threads::Serial))
    );
}

#[test]
fn with_one_group_it_is_the_dynamic_product() {
    let mut noise = Noise::new(73);
    let layer = Layer { zero_points: None, ..Layer::new(&mut noise, 50, 77, None) };
    let scales: Vec<f32> = layer.scales.iter().map(|scale| scale.abs() + 1e-3).collect();
    let layer = Layer { scales, ..layer };
    let x = noise.floats(9 * layer.k, 1.0);
    for how in schemes() {
        for kernel in Kernel::available() {
            let weights = pack(kernel, MatRef::new(&layer.codes, layer.n, layer.k).unwrap());
            let stage = Dequantize::new(Scales::PerChannel(&layer.scales)).unwrap();
            let stage = stage.with_float_bias(&layer.bias).unwrap().with_relu();
            let mut y = vec![0.0; 9 * layer.n];
            let (a, out) = (MatRef::new(&x, 9, layer.k).unwrap(), MatMut::new(&mut y, 9, layer.n).unwrap());
            gemm_dynamic(a, how, &weights, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
            let scaled: Vec<f32> = run(&x, how, &layer, &layer.packed(kernel), Threads::Serial);
            assert_eq!(bits(&scaled), bits(&y), "{kernel}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_writes_nothing() {
    let mut noise = Noise::new(74);
    let layer = Layer::new(&mut noise, 5, 40, Some(32));
    let kernel = Kernel::select().unwrap();
    let w = layer.packed(kernel);
    let how = schemes()[0];
    let product = |x: &[f32], k: usize, n: usize, w: &ScaledWeights, stage: &FloatStage<'_>| {
        let mut y = vec![7.0f32; n];
        let (x, out) = (MatRef::new(x, 1, k).unwrap(), MatMut::new(&mut y, 1, n).unwrap());
        let result = gemm_scaled(x, how, w, stage, out, Threads::Serial, &mut Workspace::new());
        assert!(result.is_ok() || y.iter().all(|&y| y == 7.0));
        result
    };
    let x = vec![1.0; 40];
    let error = product(&x[..39], 39, 5, &w, &layer.stage()).unwrap_err();
    assert_eq!(error, DynamicError::Gemm(GemmError::Depth { expected: 40, got: 39 }));
    let error = product(&x, 40, 6, &w, &layer.stage()).unwrap_err();
    assert_eq!(error.to_string(), "expected a 1 x 5 output, got 1 x 6");
    let short = FloatStage::new().with_bias(&layer.bias[..4]).unwrap();
    assert!(matches!(product(&x, 40, 5, &w, &short), Err(DynamicError::Gemm(GemmError::Stage(_)))));
    let huge = Layer { scales: vec![1e38; 10], zero_points: None, ..layer };
    let error = product(&[1e5; 40], 40, 5, &huge.packed(kernel), &huge.stage()).unwrap_err();
    assert!(
        matches!(error, DynamicError::ScaleRange { row: 0, channel: 0, channel_scale: 1e38, .. }),
        "{error}"
    );
    // Finite scales whose terms are not: their sum would be no number.
    let opposite: Vec<i8> = (0..40).map(|k| if k < 32 { 127 } else { -127 }).collect();
    for (scale, bits, fits) in [(1e36, 8, false), (1e36, 4, false), (1e30, 8, true), (1e30, 4, true)] {
        let codes: Vec<i8> = opposite.iter().map(|&code| if bits == 4 { code & 15 } else { code }).collect();
        let view = MatRef::new(&codes, 1, 40).unwrap();
        let w = pack_scaled(kernel, bits, view, Some(32), &[scale; 2], None);
        match product(&[1.0; 40], 40, 1, &w, &FloatStage::new()) {
            Ok(()) => assert!(fits),
            Err(error) => {
                assert!(!fits && matches!(error, DynamicError::GroupRange { row: 0, .. }), "{error}");
                assert!(error.to_string().contains("leaves the range of f32"), "{error}");
            }
        }
        // With a single group there is nothing to add up: the one term may be infinite.
        let w = pack_scaled(kernel, bits, view, None, &[scale], None);
        product(&[1.0; 40], 40, 1, &w, &FloatStage::new()).unwrap();
    }
    // 127 * 127 * 140,000 leaves int32.
    let k = 140_000;
    let weights = pack(kernel, MatRef::new(&vec![127i8; k], 1, k).unwrap());
    let one = ScaledWeights::new(weights, WeightScales::per_channel(&[1.0])).unwrap();
    let error = product(&vec![1.0; k], k, 1, &one, &FloatStage::new()).unwrap_err();
    assert!(matches!(error, DynamicError::Gemm(GemmError::Overflow(_))), "{error}");
    let weights = pack(kernel, MatRef::new(&vec![127i8; k], 1, k).unwrap());
    let groups = vec![1.0; k.div_ceil(64)];
    let in_groups = ScaledWeights::new(weights, WeightScales::per_group(&groups, 64)).unwrap();
    product(&vec![1.0; k], k, 1, &in_groups, &FloatStage::new()).unwrap();
}

#[test]
fn sums_are_kept_where_they_are_of_use() {
    let mut noise = Noise::new(75);
    let layer = Layer::new(&mut noise, 20, 100, Some(32));
    for kernel in Kernel::available() {
        let w = layer.packed(kernel);
        let kept = |how| w.clone().for_activations(how).bytes() - w.bytes();
        let nr = if w.bits() == 4 { 16 } else { kernel.desc().nr };
        let all = 4 * 4 * 20_usize.next_multiple_of(nr);
        assert_eq!(w.clone().with_sums().with_sums().bytes() - w.bytes(), all, "{kernel}");
        let [i8s, u8s, ..] = schemes();
        assert_eq!(kept(u8s), all, "{kernel}");
        // As they are, unless the kernel reads i8 in another form.
        assert!(kept(i8s) == 0 || w.bits() == 8, "{kernel}");
    }
    // Nothing to sum.
    let none = ScaledWeights::new(
        pack(Kernel::select().unwrap(), MatRef::new(&[0i8; 0], 3, 0).unwrap()),
        WeightScales::per_group(&[], 32),
    );
    let none = none.unwrap();
    assert_eq!(none.clone().with_sums().bytes(), none.bytes());
}

#[test]
fn packed_weights_take_the_bytes_of_their_files_where_f16_holds_the_scales() {
    let kernel = Kernel::select().unwrap();
    let (n, k) = (16 * kernel.desc().nr, 256); // whole panels of bytes, and of 4 bits
    let scales: Vec<f32> = (0..n * k / 32).map(|at| 0.25 + (at % 256) as f32 / 2048.0).collect();
    // Bytes of 32 weights: ggml's Q8_0 and Q4_0, whose blocks have one f16.
    for (bits, of_block) in [(8, 34), (4, 18)] {
        let codes = vec![5; n * k];
        let codes = MatRef::new(&codes, n, k).unwrap();
        let zero_points = (bits == 4).then(|| vec![8; scales.len()]);
        let packed =
            |scales: &[f32]| pack_scaled(kernel, bits, codes, Some(32), scales, zero_points.as_deref());
        let (halves, floats) = (packed(&scales), packed(&vec![0.1; scales.len()]));
        let of_file = n * k / 32 * of_block;
        // Weights of 8 bits keep sums of whole channels, too.
        let sums = if bits == 8 { halves.bytes() - of_file } else { 0 };
        assert!(sums <= 16 * n, "{sums}");
        assert_eq!(halves.bytes(), of_file + sums);
        assert_eq!(floats.bytes(), halves.bytes() + 2 * scales.len());
        assert_eq!((halves.scales(), halves.zero_points()), (scales.clone(), zero_points.clone()));
    }
}

#[test]
fn without_depth_there_is_the_bias_and_without_rows_nothing() {
    let kernel = Kernel::select().unwrap();
    for scales in [WeightScales::per_group(&[], 32), WeightScales::per_channel(&[1.0, 1.0, 1.0])] {
        let w = ScaledWeights::new(pack(kernel, MatRef::new(&[0i8; 0], 3, 0).unwrap()), scales).unwrap();
        let stage = FloatStage::new().with_bias(&[1.0, -2.0, 3.0]).unwrap();
        for how in schemes() {
            for m in [0, 2] {
                let mut y = vec![9.0f32; m * 3];
                let (x, out) = (MatRef::new(&[0f32; 0], m, 0).unwrap(), MatMut::new(&mut y, m, 3).unwrap());
                gemm_scaled(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
                assert_eq!(y, [1.0, -2.0, 3.0].repeat(m));
                let (x, out) = (MatRef::new(&[0f32; 0], m, 0).unwrap(), MatMut::new(&mut y, m, 3).unwrap());
                gemm_scaled(x, how, &w, &FloatStage::new(), out, Threads::Serial, &mut Workspace::new())
                    .unwrap();
                assert!(y.iter().all(|y| y.to_bits() == 0), "{y:?}");
            }
        }
    }
}
