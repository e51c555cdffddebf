//! Weight-only products on every kernel. They are within their bound of the f64 result, have the
//! same bits for the same row, touch nothing outside of the caller's slices, and treat floats as
//! IEEE 754 does.

use half::{bf16, f16};
use qcore::Float;
use qkernels::{
    FloatStage, Kernel, MatMut, MatRef, PackedWeights, ScaleError, ScaledWeights, Threads, WeightScales,
    Weights, Workspace, ZeroPoints, weight_only,
};

use crate::oracle::{Noise, around, codes_of, pack, pack_scaled};

/// The operands of one layer, as f64 would have them.
struct Layer {
    n: usize,
    k: usize,
    group_len: Option<usize>,
    bits: u32,
    codes: Vec<i8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<i8>>,
    bias: Option<Vec<f32>>,
    relu: bool,
}

impl Layer {
    fn new(noise: &mut Noise, n: usize, k: usize, group_len: Option<usize>, affine: bool) -> Self {
        let count = n * group_len.map_or(1, |len| k.div_ceil(len));
        let bits = noise.choose(&[8, 4]);
        let (codes, scales) = (codes_of(noise, bits, n * k), noise.floats(count, 0.01));
        let zero_points = affine.then(|| codes_of(noise, bits, count));
        let bias = (noise.below(2) == 0).then(|| noise.floats(n, 0.5));
        Self { n, k, group_len, bits, codes, scales, zero_points, bias, relu: noise.below(3) == 0 }
    }

    fn scaled(&self, kernel: Kernel) -> ScaledWeights {
        let w = MatRef::new(&self.codes, self.n, self.k).unwrap();
        pack_scaled(kernel, self.bits, w, self.group_len, &self.scales, self.zero_points.as_deref())
    }

    fn stage(&self) -> FloatStage<'_> {
        let stage = match &self.bias {
            None => FloatStage::new(),
            Some(bias) => FloatStage::new().with_bias(bias).unwrap(),
        };
        if self.relu { stage.with_relu() } else { stage }
    }

    /// The product in f64, and the error allowed for each element.
    fn exact(&self, a: &[f32]) -> Vec<(f64, f64)> {
        let groups = self.group_len.map_or(1, |len| self.k.div_ceil(len));
        let mut y = Vec::new();
        for row in a.chunks(self.k.max(1)) {
            for j in 0..self.n {
                let (mut sum, mut magnitude) = (0.0, 0.0);
                for (p, &a) in row.iter().enumerate().take(self.k) {
                    let group = j * groups + self.group_len.map_or(0, |len| p / len);
                    let zero_point = self.zero_points.as_ref().map_or(0, |z| i32::from(z[group]));
                    let w = f64::from(i32::from(self.codes[j * self.k + p]) - zero_point);
                    let term = f64::from(a) * w * f64::from(self.scales[group]);
                    sum += term;
                    magnitude += term.abs();
                }
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[j]));
                let allowed = (self.k + 8) as f64 * 2f64.powi(-24) * (magnitude + bias.abs());
                let sum = sum + bias;
                y.push((if self.relu { sum.max(0.0) } else { sum }, allowed));
            }
        }
        y
    }
}

/// The product on the calling thread, in a matrix that held NaN.
fn product<A: Float, Y: Float>(
    a: MatRef<'_, A>,
    w: &ScaledWeights,
    stage: &FloatStage<'_>,
    workspace: &mut Workspace,
) -> Vec<Y> {
    let (m, n) = (a.rows(), w.n());
    let mut y = vec![Y::narrow(f32::NAN); m * n];
    let out = MatMut::new(&mut y, m, n).unwrap();
    weight_only(a, w, stage, out, Threads::Serial, workspace).unwrap();
    y
}

fn bits<Y: Float>(y: &[Y]) -> Vec<u32> {
    y.iter().map(|y| y.widen().to_bits()).collect()
}

/// Activations of mixed magnitudes.
fn activations(noise: &mut Noise, len: usize) -> Vec<f32> {
    let large = noise.floats(len, 4.0);
    let small = noise.floats(len, 0.01);
    large.into_iter().zip(small).map(|(x, y)| if noise.below(8) == 0 { x } else { y }).collect()
}

/// All three types of `a` on all kernels, against f64.
fn check(noise: &mut Noise, workspace: &mut Workspace, m: usize, layer: &Layer) {
    fn one<A: Float>(a: &[f32], m: usize, layer: &Layer, workspace: &mut Workspace) {
        let typed: Vec<A> = a.iter().map(|&a| A::narrow(a)).collect();
        let widened: Vec<f32> = typed.iter().map(|a| a.widen()).collect();
        let exact = layer.exact(&widened);
        let a = MatRef::new(&typed, m, layer.k).unwrap();
        for kernel in Kernel::available() {
            let w = layer.scaled(kernel);
            let y: Vec<f32> = product(a, &w, &layer.stage(), workspace);
            for (at, (&y, &(exact, allowed))) in y.iter().zip(&exact).enumerate() {
                let error = (f64::from(y) - exact).abs();
                assert!(
                    error <= allowed,
                    "{kernel}, {m} x {} x {}, groups {:?}, affine {}: element ({}, {}) is {y}, exactly {exact}",
                    layer.n,
                    layer.k,
                    layer.group_len,
                    layer.zero_points.is_some(),
                    at / layer.n,
                    at % layer.n
                );
            }
            // Halves are the f32 results, rounded once.
            let halves: Vec<f16> = product(a, &w, &layer.stage(), workspace);
            assert_eq!(
                bits(&halves),
                bits(&y.iter().map(|&y| f16::from_f32(y)).collect::<Vec<_>>()),
                "{kernel}"
            );
            let halves: Vec<bf16> = product(a, &w, &layer.stage(), workspace);
            assert_eq!(
                bits(&halves),
                bits(&y.iter().map(|&y| bf16::from_f32(y)).collect::<Vec<_>>()),
                "{kernel}"
            );
        }
    }
    let a = activations(noise, m * layer.k);
    one::<f32>(&a, m, layer, workspace);
    one::<f16>(&a, m, layer, workspace);
    one::<bf16>(&a, m, layer, workspace);
}

#[test]
fn every_shape_is_within_the_bound() {
    let (mut noise, mut workspace) = (Noise::new(60), Workspace::new());
    for desc in Kernel::available().map(Kernel::desc) {
        for m in (1..=9).chain([17]) {
            for n in around(desc.vector_columns).chain(around(desc.nr)).chain([2 * desc.nr + 1]) {
                let k = 1 + noise.below(140);
                let layer = Layer::new(&mut noise, n, k, None, m % 2 == 0);
                check(&mut noise, &mut workspace, m, &layer);
            }
        }
    }
    for k in 0..=130 {
        let layer = Layer::new(&mut noise, 19, k, None, k % 2 == 0);
        check(&mut noise, &mut workspace, 1 + k % 4, &layer);
    }
}

#[test]
fn groups_have_their_own_scales_and_zero_points() {
    let (mut noise, mut workspace) = (Noise::new(61), Workspace::new());
    // There are whole groups, short last ones, one group longer than k, and lengths that no
    // kernel's step then divides.
    for (k, len) in [
        (64, 32),
        (96, 32),
        (100, 32),
        (33, 32),
        (31, 32),
        (5, 16),
        (16, 16),
        (17, 16),
        (35, 16),
        (130, 48),
        (256, 128),
        (257, 128),
        (300, 1000),
        (30, 31),
        (13, 13),
        (7, usize::MAX),
    ] {
        for affine in [false, true] {
            for m in [1, 2, 3, 7] {
                let n = 1 + noise.below(70);
                let layer = Layer::new(&mut noise, n, k, Some(len), affine);
                check(&mut noise, &mut workspace, m, &layer);
            }
        }
    }
}

#[test]
fn large_products_are_within_the_bound() {
    let (mut noise, mut workspace) = (Noise::new(62), Workspace::new());
    for (m, n, k, len) in
        [(1, 300, 4100, None), (40, 100, 1030, Some(128)), (3, 49, 20_001, Some(32)), (70, 60, 5000, None)]
    {
        let layer = Layer::new(&mut noise, n, k, len, m == 3);
        check(&mut noise, &mut workspace, m, &layer);
    }
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_nor_on_strides() {
    let (mut noise, mut workspace) = (Noise::new(63), Workspace::new());
    for (n, k, len, affine) in [
        (1, 5, None, true),
        (17, 64, Some(32), false),
        (49, 131, None, false),
        (100, 1024, Some(32), true),
        (145, 518, None, true),
    ] {
        let (batch, layer) = (33, Layer::new(&mut noise, n, k, len, affine));
        let a = activations(&mut noise, batch * k);
        for kernel in Kernel::available() {
            let w = layer.scaled(kernel);
            let mut rows = |first: usize, count: usize| {
                let a = MatRef::new(&a[first * k..], count, k).unwrap();
                bits(&product::<_, f32>(a, &w, &layer.stage(), &mut workspace))
            };
            let alone: Vec<u32> = (0..batch).flat_map(|i| rows(i, 1)).collect();
            for count in [2, 3, 4, 5, 6, 7, 8, 12, 13, 33] {
                for first in [0, 1, (batch - count) / 2, batch - count] {
                    let first = first.min(batch - count);
                    assert!(rows(first, count) == alone[first * n..][..count * n], "{kernel}, {count} rows");
                }
            }
            for (row_stride, col_stride) in
                [(k + 1, 1), (k + 64, 1), (4096, 1), (1, batch), (3, 3 * batch + 1), (2 * k, 2)]
            {
                let mut laid_out = vec![f32::NAN; (batch - 1) * row_stride + (k - 1) * col_stride + 1];
                for (at, &x) in a.iter().enumerate() {
                    laid_out[at / k * row_stride + at % k * col_stride] = x;
                }
                let a = MatRef::with_strides(&laid_out, batch, k, row_stride, col_stride).unwrap();
                let y = bits(&product::<_, f32>(a, &w, &layer.stage(), &mut workspace));
                assert!(y == alone, "{kernel}, strides ({row_stride}, {col_stride})");
            }
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn a_row_does_not_depend_on_the_threads() {
    use rayon::ThreadPoolBuilder;

    let pools = [1, 2, 3, 5].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let (mut noise, mut workspace) = (Noise::new(64), Workspace::new());
    for (m, n, k, len) in
        [(1, 2003, 8200, Some(128)), (101, 203, 1307, None), (1001, 3, 8192, Some(32)), (5, 30, 20, None)]
    {
        let layer = Layer::new(&mut noise, n, k, len, n == 203);
        let a = activations(&mut noise, m * k);
        let a = MatRef::new(&a, m, k).unwrap();
        for kernel in Kernel::available() {
            let w = layer.scaled(kernel);
            let serial = bits(&product::<_, f32>(a, &w, &layer.stage(), &mut workspace));
            for pool in &pools {
                let stride = n + 3;
                let mut y = vec![7.0f32; m * stride];
                let out = MatMut::with_stride(&mut y, m, n, stride).unwrap();
                weight_only(a, &w, &layer.stage(), out, Threads::Pool(pool), &mut workspace).unwrap();
                for (row, serial) in y.chunks(stride).zip(serial.chunks(n)) {
                    assert!(bits(&row[..n]) == serial, "{kernel}, {} threads", pool.current_num_threads());
                    assert_eq!(row[n..], [7.0; 3], "{kernel}");
                }
            }
        }
    }
}

#[test]
fn integers_are_exact() {
    // Sums of integers below 2^24 are exact in f32 in any order, so the kernels agree bit for bit,
    // and with qcore too.
    let (mut noise, mut workspace) = (Noise::new(65), Workspace::new());
    let (m, n, k) = (5, 50, 500);
    let (codes, scales) = (noise.weights::<i8>(n, k), noise.floats(n, 0.01));
    let integers = noise.integers(m * k, 127);
    let a: Vec<f32> = integers.iter().map(|&x| x as f32).collect();
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&codes, n, k).unwrap());
        let w = ScaledWeights::new(w, WeightScales::per_channel(&scales)).unwrap();
        let y: Vec<f32> = product(MatRef::new(&a, m, k).unwrap(), &w, &FloatStage::new(), &mut workspace);
        for (at, y) in y.into_iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let sum: i32 = (0..k).map(|p| integers[i * k + p] * i32::from(codes[j * k + p])).sum();
            assert_eq!(y.to_bits(), qcore::dequantize_acc(sum, scales[j]).to_bits(), "{kernel} ({i}, {j})");
        }
    }
}

#[test]
fn no_zero_point_and_a_zero_point_of_0_are_the_same() {
    let (mut noise, mut workspace) = (Noise::new(66), Workspace::new());
    let layer = Layer::new(&mut noise, 60, 100, Some(32), false);
    let with_zeros = Layer {
        zero_points: Some(vec![0; layer.scales.len()]),
        codes: layer.codes.clone(),
        scales: layer.scales.clone(),
        bias: layer.bias.clone(),
        ..layer
    };
    let a = activations(&mut noise, 8 * 100);
    for kernel in Kernel::available() {
        let [x, y] = [&layer, &with_zeros].map(|layer| {
            let a = MatRef::new(&a, 8, 100).unwrap();
            bits(&product::<_, f32>(a, &layer.scaled(kernel), &layer.stage(), &mut workspace))
        });
        assert!(x == y, "{kernel}");
    }
}

#[test]
fn non_finite_activations_reach_their_row_and_no_other() {
    let mut workspace = Workspace::new();
    let (m, n, k) = (7, 50, 37);
    let mut noise = Noise::new(67);
    let codes: Vec<i8> =
        (0..n * k).map(|at| if at % k == 5 { 0 } else { 1 + noise.below(100) as i8 }).collect();
    let scales = vec![0.5; n];
    for (value, p, expected) in [
        (f32::NAN, 3, f32::NAN),
        (f32::INFINITY, 3, f32::INFINITY),
        (f32::NEG_INFINITY, k - 1, f32::NEG_INFINITY),
        (f32::INFINITY, 5, f32::NAN), // times a weight of 0
    ] {
        for row in [0, 3, m - 1] {
            let mut a = vec![1.0f32; m * k];
            a[row * k + p] = value;
            for kernel in Kernel::available() {
                let w = pack(kernel, MatRef::new(&codes, n, k).unwrap());
                let w = ScaledWeights::new(w, WeightScales::per_channel(&scales)).unwrap();
                let y: Vec<f32> =
                    product(MatRef::new(&a, m, k).unwrap(), &w, &FloatStage::new(), &mut workspace);
                for (i, y) in y.chunks(n).enumerate() {
                    let as_expected =
                        |y: &f32| y.to_bits() == expected.to_bits() || (y.is_nan() && expected.is_nan());
                    let right =
                        if i == row { y.iter().all(as_expected) } else { y.iter().all(|y| y.is_finite()) };
                    assert!(right, "{kernel}, {value} at ({row}, {p}), row {i}: {y:?}");
                }
                let relu: Vec<f32> = product(
                    MatRef::new(&a, m, k).unwrap(),
                    &w,
                    &FloatStage::new().with_relu(),
                    &mut workspace,
                );
                let row = &relu[row * n..][..n];
                assert!(
                    row.iter().all(|y| if expected < 0.0 {
                        *y == 0.0
                    } else {
                        as_bits(*y) == as_bits(expected)
                    }),
                    "{kernel}"
                );
            }
        }
    }
}

/// The bits, with the same bits for every NaN.
fn as_bits(y: f32) -> u32 {
    if y.is_nan() { u32::MAX } else { y.to_bits() }
}

#[test]
fn extreme_magnitudes_neither_overflow_nor_vanish() {
    let mut workspace = Workspace::new();
    let codes = [1i8, 127, -128, 3, 5, -7, 0, 90];
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&codes, 1, 8).unwrap());
        let w = ScaledWeights::new(w, WeightScales::per_channel(&[1.0])).unwrap();
        let sum: i32 = codes.iter().map(|&w| i32::from(w)).sum();
        for x in [1e36f32, 1e30, 1e-30] {
            let y: Vec<f32> =
                product(MatRef::new(&[x; 8], 1, 8).unwrap(), &w, &FloatStage::new(), &mut workspace);
            let exact = f64::from(x) * f64::from(sum);
            let relative = (f64::from(y[0]) - exact).abs() / exact.abs();
            assert!(relative <= 1e-5, "{kernel}: {x:e} gives {:e}", y[0]);
        }
    }
}

#[test]
fn empty_products() {
    let mut workspace = Workspace::new();
    for kernel in Kernel::available() {
        for (m, n, k) in [(0, 3, 4usize), (2, 0, 4), (2, 3, 0), (0, 0, 0)] {
            for group_len in [None, Some(16)] {
                let count = n * group_len.map_or(1, |len| k.div_ceil(len));
                let scales = vec![1.0; count];
                let scales = match group_len {
                    None => WeightScales::per_channel(&scales),
                    Some(len) => WeightScales::per_group(&scales, len),
                };
                let w =
                    ScaledWeights::new(pack(kernel, MatRef::new(&vec![1i8; n * k], n, k).unwrap()), scales)
                        .unwrap();
                let bias = vec![-1.5; n];
                let stage = FloatStage::new().with_bias(&bias).unwrap();
                let a = vec![1.0f32; m * k];
                let y: Vec<f32> = product(MatRef::new(&a, m, k).unwrap(), &w, &stage, &mut workspace);
                assert_eq!(
                    y,
                    vec![if k == 0 { -1.5 } else { k as f32 - 1.5 }; m * n],
                    "{kernel} {m} x {n} x {k}"
                );
            }
        }
    }
}

#[test]
fn weights_with_zero_points_of_their_own() {
    // u8 weights are packed as 128 less, and so are their zero points: the values are the same.
    let (mut noise, mut workspace) = (Noise::new(69), Workspace::new());
    let (m, n, k) = (3, 50, 70);
    let (codes, zero_points) = (noise.weights::<u8>(n, k), noise.codes::<u8>(n));
    let signed: Vec<i8> = codes.iter().map(|&w| (w ^ 0x80).cast_signed()).collect();
    let signed_zeros: Vec<i8> = zero_points.iter().map(|&z| (z ^ 0x80).cast_signed()).collect();
    let zero_points: Vec<i32> = zero_points.into_iter().map(i32::from).collect();
    let (a, scales) = (activations(&mut noise, m * k), noise.floats(n * 3, 0.01));
    let a = MatRef::new(&a, m, k).unwrap();
    for kernel in Kernel::available() {
        for scales in [WeightScales::per_channel(&scales[..n]), WeightScales::per_group(&scales, 32)] {
            let own = Weights::new(MatRef::new(&codes, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points));
            let packed = PackedWeights::from_nk(own, kernel).unwrap();
            let own = ScaledWeights::new(packed.clone(), scales).unwrap();
            let groups = own.groups();
            let zeros: Vec<i8> = signed_zeros.iter().flat_map(|&z| vec![z; groups]).collect();
            let signed = pack(kernel, MatRef::new(&signed, n, k).unwrap());
            let beside = ScaledWeights::new(signed, scales.with_zero_points(&zeros)).unwrap();
            assert_eq!(
                (own.zero_points(), own.dequantize()),
                (Some(zeros.clone()), beside.dequantize()),
                "{kernel}"
            );
            let [x, y] =
                [&own, &beside].map(|w| bits(&product::<_, f32>(a, w, &FloatStage::new(), &mut workspace)));
            assert!(x == y, "{kernel}");
            let both = ScaledWeights::new(packed, scales.with_zero_points(&zeros));
            assert_eq!(both.unwrap_err(), ScaleError::ZeroPoints, "{kernel}");
        }
    }
}

#[test]
fn what_was_packed_can_be_read_back() {
    let mut noise = Noise::new(68);
    for (n, k, len) in [(1, 1, None), (50, 100, Some(32)), (97, 33, Some(16)), (3, 0, None)] {
        let layer = Layer::new(&mut noise, n, k, len, true);
        for kernel in Kernel::available() {
            let w = layer.scaled(kernel);
            assert_eq!(w.unpack(), layer.codes, "{kernel}");
            assert_eq!(
                (w.scales(), w.zero_points()),
                (layer.scales.clone(), layer.zero_points.clone()),
                "{kernel}"
            );
            let groups = len.map_or(1, |len| k.div_ceil(len));
            assert_eq!((w.groups(), w.dequantize().len()), (groups, n * k), "{kernel}");
            for (at, y) in w.dequantize().into_iter().enumerate() {
                let group = at / k * groups + len.map_or(0, |len| at % k / len);
                let zero_point = i32::from(layer.zero_points.as_ref().unwrap()[group]);
                assert_eq!(
                    y,
                    (i32::from(layer.codes[at]) - zero_point) as f32 * layer.scales[group],
                    "{kernel}"
                );
            }
            assert!(w.bytes() >= layer.codes.len() * w.bits() as usize / 8 + 5 * layer.scales.len());
            assert_eq!(w.bits(), layer.bits);
        }
    }
}
