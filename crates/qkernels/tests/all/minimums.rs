//! Products of weights with minimums and of groups in parts. With integers they have the bits of
//! qcore's definition on every kernel; with floats they are within their bound of the f64 result.

use half::{bf16, f16};
use proptest::prelude::*;
use qcore::{AffineRange, Float, Kind, Scheme};
use qkernels::{
    Dynamic, DynamicError, FloatStage, GemmError, Kernel, MatMut, MatRef, ScaleError, ScaledWeights, Threads,
    WeightScales, Workspace, gemm_scaled, weight_only,
};

use crate::oracle::in_parts::Layer;
use crate::oracle::{Noise, around, pack};

fn schemes() -> [Dynamic; 4] {
    let [i8s, u8s] = [Scheme::weights_i8(), Scheme::activations_u8()];
    [Dynamic::PerToken(i8s), Dynamic::PerToken(u8s), Dynamic::PerTensor(i8s), Dynamic::PerTensor(u8s)]
}

fn integer_product(
    x: &[f32],
    how: Dynamic,
    layer: &Layer,
    w: &ScaledWeights,
    threads: Threads<'_>,
) -> Vec<u32> {
    let m = x.len() / layer.k;
    let mut y = vec![f32::NAN; m * layer.n];
    let (x, out) = (MatRef::new(x, m, layer.k).unwrap(), MatMut::new(&mut y, m, layer.n).unwrap());
    let stage = FloatStage::new().with_bias(&layer.bias).unwrap();
    gemm_scaled(x, how, w, &stage, out, threads, &mut Workspace::new()).unwrap();
    bits(&y)
}

fn float_product<A: Float>(a: &[A], layer: &Layer, w: &ScaledWeights, threads: Threads<'_>) -> Vec<f32> {
    let m = a.len() / layer.k;
    let mut y = vec![f32::NAN; m * layer.n];
    let (a, out) = (MatRef::new(a, m, layer.k).unwrap(), MatMut::new(&mut y, m, layer.n).unwrap());
    let stage = FloatStage::new().with_bias(&layer.bias).unwrap();
    weight_only(a, w, &stage, out, threads, &mut Workspace::new()).unwrap();
    y
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

fn check_integers(noise: &mut Noise, m: usize, layer: &Layer) {
    let mut x = noise.floats(m * layer.k, 1.0);
    // Rows have ranges of their own.
    x.chunks_mut(layer.k).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= (i + 1) as f32));
    let how = schemes()[noise.below(4)];
    let expected = layer.expected(&x, how);
    for kernel in Kernel::available() {
        let w = layer.packed(kernel);
        // Sums may be kept, which changes nothing.
        for w in [w.clone(), w.clone().with_sums(), w.for_activations(how)] {
            let y = integer_product(&x, how, layer, &w, Threads::Serial);
            assert_eq!(y, expected, "{kernel}: {m} x {}, {how:?}", layer.form());
        }
    }
}

fn check_floats<A: Float>(noise: &mut Noise, m: usize, layer: &Layer) {
    let a: Vec<A> = noise.floats(m * layer.k, 1.0).into_iter().map(A::narrow).collect();
    let exact = layer.exact(&a.iter().map(|a| a.widen()).collect::<Vec<_>>());
    for kernel in Kernel::available() {
        let y = float_product(&a, layer, &layer.packed(kernel), Threads::Serial);
        for (at, (&y, &(exact, allowed))) in y.iter().zip(&exact).enumerate() {
            let error = (f64::from(y) - exact).abs();
            let form = layer.form();
            assert!(error <= allowed, "{kernel}: {m} x {form}: element {at} is {y}, exactly {exact}");
        }
    }
}

#[test]
fn integer_products_of_every_shape_have_the_bits_of_the_definition() {
    let mut noise = Noise::new(170);
    for desc in Kernel::available().map(Kernel::desc) {
        for m in (1..=9).chain([17]) {
            for n in around(desc.vector_columns).chain(around(desc.nr)).chain([2 * desc.nr + 1]) {
                let k = 1 + noise.below(300);
                let layer = Layer::new(&mut noise, n, k);
                check_integers(&mut noise, m, &layer);
            }
        }
    }
    for k in 1..=100 {
        let layer = Layer::new(&mut noise, 19, k);
        check_integers(&mut noise, 1 + k % 8, &layer);
    }
}

#[test]
fn formats_of_ggml() {
    let mut noise = Noise::new(171);
    for (bits, group, part) in [
        (4, 32, None),      // Q4_1
        (8, 32, None),      // Q5_1
        (4, 256, Some(32)), // Q4_K
        (8, 256, Some(32)), // Q5_K
        (8, 256, Some(16)), // Q6_K, which has no minimums
    ] {
        for m in 1..=9 {
            for k in [256, 512, 768 + 40] {
                let layer = Layer::of_format(&mut noise, (33, k), bits, Some(group), part);
                let layer = if part == Some(16) {
                    Layer { minimums: None, part_minimums: None, ..layer }
                } else {
                    layer
                };
                let zero_points = layer.zero_points.clone().filter(|_| m % 2 == 0);
                let layer = Layer { zero_points, ..layer };
                check_integers(&mut noise, m, &layer);
                check_floats::<f32>(&mut noise, m, &layer);
            }
        }
    }
}

/// A zero point far from the codes makes values that are no bytes, and sums that words do not hold.
#[test]
fn distant_zero_points_of_rows_have_the_bits_of_the_definition() {
    let mut noise = Noise::new(173);
    let kind = Kind::Affine { range: AffineRange::AsObservedDistantZero };
    let scheme = Scheme { kind, ..Scheme::activations_u8() };
    for how in [Dynamic::PerToken(scheme), Dynamic::PerTensor(scheme)] {
        for (bits, m, k) in [(4, 1, 64), (4, 9, 100), (8, 2, 64), (8, 7, 100)] {
            let mut layer = Layer::of_format(&mut noise, (19, k), bits, Some(64), Some(16));
            let few = |of: &mut Vec<i8>| of.iter_mut().for_each(|of| *of &= 3);
            layer.parts.iter_mut().for_each(|(_, parts)| few(parts));
            layer.part_minimums.iter_mut().for_each(few);
            let x: Vec<f32> = noise.floats(m * k, 0.5).into_iter().map(|x| 8.0 + x.abs()).collect();
            let expected = layer.expected(&x, how);
            for kernel in Kernel::available() {
                let y = integer_product(&x, how, &layer, &layer.packed(kernel), Threads::Serial);
                assert_eq!(y, expected, "{kernel}: {m} x {}, {how:?}", layer.form());
            }
        }
    }
}

#[test]
fn float_products_of_every_shape_are_within_the_bound() {
    let mut noise = Noise::new(172);
    for desc in Kernel::available().map(Kernel::desc) {
        for m in [1, 2, 5, 8, 17] {
            for n in around(desc.vector_columns).chain(around(desc.nr)).chain([2 * desc.nr + 1]) {
                let k = 1 + noise.below(300);
                let layer = Layer::new(&mut noise, n, k);
                check_floats::<f32>(&mut noise, m, &layer);
                check_floats::<bf16>(&mut noise, m, &layer);
            }
        }
    }
    for k in 1..=100 {
        let layer = Layer::new(&mut noise, 19, k);
        check_floats::<f32>(&mut noise, 1 + k % 8, &layer);
        check_floats::<f16>(&mut noise, 1 + k % 3, &layer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_layer(seed: u64, m in 1usize..20, n in 1usize..70, k in 1usize..600) {
        let mut noise = Noise::new(seed);
        let layer = Layer::new(&mut noise, n, k);
        check_integers(&mut noise, m, &layer);
        check_floats::<f32>(&mut noise, m, &layer);
    }
}

#[test]
fn many_rows_columns_and_threads() {
    let mut noise = Noise::new(173);
    for (width, part) in [(4, None), (8, None), (4, Some(32)), (8, Some(16))] {
        let layer = Layer::of_format(&mut noise, (200, 1000), width, Some(256), part);
        let m = 130;
        check_integers(&mut noise, m, &layer);
        let x = noise.floats(m * layer.k, 1.0);
        let w = layer.packed(Kernel::select().unwrap());
        let floats = float_product(&x, &layer, &w, Threads::Serial);
        for how in schemes() {
            let y = integer_product(&x, how, &layer, &w, Threads::Serial);
            for threads in [1, 2, 3, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(integer_product(&x, how, &layer, &w, Threads::Pool(&pool)) == y, "{}", layer.form());
                let y = float_product(&x, &layer, &w, Threads::Pool(&pool));
                assert!(bits(&y) == bits(&floats), "{}", layer.form());
            }
            let i = 7;
            let row = &x[i * layer.k..][..layer.k];
            if let Dynamic::PerToken(_) = how {
                let alone = integer_product(row, how, &layer, &w, Threads::Serial);
                assert_eq!(alone, y[i * layer.n..][..layer.n]);
            }
            let alone = float_product(row, &layer, &w, Threads::Serial);
            assert_eq!(bits(&alone), bits(&floats[i * layer.n..][..layer.n]));
        }
    }
}

#[test]
fn the_largest_sums_fit() {
    // 255 * 255 * 128 * 256 is just below 2^31.
    let (n, k) = (17, 256);
    let layer = |code: i8, zero_point: i8, part: i8| Layer {
        n,
        k,
        group_len: Some(256),
        bits: 8,
        codes: vec![code; n * k],
        scales: vec![0.5; n],
        zero_points: Some(vec![zero_point; n]),
        minimums: Some(vec![-0.25; n]),
        parts: Some((32, vec![part; n * k / 32])),
        part_minimums: Some(vec![127; n * k / 32]),
        bias: vec![0.0; n],
    };
    let mut noise = Noise::new(174);
    for layer in [layer(-128, 127, -128), layer(127, -128, -128)] {
        for x in [[1.0f32; 512], [-1.0; 512], core::array::from_fn(|i| if i % 300 == 0 { -1.0 } else { 1.0 })]
        {
            for how in schemes() {
                let expected = layer.expected(&x, how);
                for kernel in Kernel::available() {
                    let w = layer.packed(kernel);
                    assert!(w.check_accumulators(255).is_ok() && w.check_accumulators(260).is_err());
                    let y = integer_product(&x, how, &layer, &w, Threads::Serial);
                    assert_eq!(y, expected, "{kernel} {how:?}");
                }
            }
        }
        check_floats::<f32>(&mut noise, 3, &layer);
    }
}

#[test]
fn what_was_packed_can_be_read_back() {
    let mut noise = Noise::new(175);
    for (n, k) in [(1, 1), (50, 100), (97, 333), (3, 512)] {
        for _ in 0..8 {
            let layer = Layer::new(&mut noise, n, k);
            for kernel in Kernel::available() {
                let w = layer.packed(kernel);
                let form = layer.form();
                assert_eq!(w.unpack(), layer.codes, "{kernel} {form}");
                assert_eq!(
                    (w.scales(), w.zero_points(), w.minimums(), w.part_minimums()),
                    (
                        layer.scales.clone(),
                        layer.zero_points.clone(),
                        layer.minimums.clone(),
                        layer.part_minimums.clone()
                    )
                );
                let parts = w.part_len().zip(w.part_scales());
                assert_eq!(parts, layer.parts.clone(), "{kernel} {form}");
                for (at, value) in w.dequantize().into_iter().enumerate() {
                    let expected = layer.value(at / k, at % k);
                    assert_eq!(value.to_bits(), expected.to_bits(), "{kernel} {form}: {at}");
                }
                // Codes, floats, and a byte for whatever else there is.
                let bytes = layer.codes.len() * layer.bits as usize / 8;
                assert!(w.bytes() >= bytes + 4 * layer.scales.len());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    for kernel in Kernel::available() {
        let packed = || pack(kernel, MatRef::new(&[1i8; 2 * 80], 2, 80).unwrap());
        let refused = |scales: WeightScales<'_>| ScaledWeights::new(packed(), scales).unwrap_err();
        let scales = WeightScales::per_group(&[1.0; 4], 64);
        let ten = [1i8; 10];
        assert_eq!(
            refused(scales.with_minimums(&[0.0; 3])),
            ScaleError::Length { operand: "minimums", n: 2, groups: 2, len: 3 }
        );
        assert_eq!(
            refused(scales.with_parts(16, &ten[1..])),
            ScaleError::Length { operand: "scales of parts", n: 2, groups: 5, len: 9 }
        );
        let in_parts = scales.with_minimums(&[1.0; 4]).with_parts(16, &ten);
        assert_eq!(
            refused(in_parts.with_part_minimums(&ten[2..])),
            ScaleError::Length { operand: "minimums of parts", n: 2, groups: 5, len: 8 }
        );
        for part_len in [0, 8, 24, 48, 65, 128] {
            let error = refused(scales.with_parts(part_len, &ten));
            assert_eq!(error, ScaleError::PartLength { part_len, group_len: 64 });
            assert!(error.to_string().contains(&format!("parts of {part_len} in groups of 64")), "{error}");
        }
        assert_eq!(refused(scales.with_parts(16, &ten).with_part_minimums(&ten)), ScaleError::Parts);
        assert_eq!(refused(scales.with_minimums(&[1.0; 4]).with_part_minimums(&ten)), ScaleError::Parts);
        let mut negative = ten;
        negative[7] = -1;
        assert_eq!(
            refused(in_parts.with_part_minimums(&negative)),
            ScaleError::PartMinimum { channel: 1, part: 2, minimum: -1 }
        );
        let error = refused(scales.with_minimums(&[1.0, 2.0, 3.0, f32::NEG_INFINITY]));
        assert_eq!(error.to_string(), "the minimum of group 1 of channel 1 is -inf; it must be finite");
        // Finite by itself, but not times that of the part.
        let mut large = [1.0; 4];
        large[3] = 3e38;
        let mut twice = ten;
        twice[9] = -2;
        let is = |operand, value| ScaleError::NotFinite { operand, channel: 1, group: Some(1), value };
        let scales = WeightScales::per_group(&large, 64).with_parts(16, &twice);
        assert_eq!(refused(scales), is("scale of a part", f32::NEG_INFINITY));
        twice[9] = 2;
        let scales = WeightScales::per_group(&[1.0; 4], 64).with_parts(16, &ten);
        let scales = scales.with_minimums(&large).with_part_minimums(&twice);
        assert_eq!(refused(scales), is("minimum of a part", f32::INFINITY));
    }
}

#[test]
fn what_leaves_its_range_is_an_error_and_writes_nothing() {
    let how = schemes()[0];
    for kernel in Kernel::available() {
        let product = |k: usize, w: &ScaledWeights| {
            let (x, mut y) = (vec![1.0f32; k], [7.0f32]);
            let (x, out) = (MatRef::new(&x, 1, k).unwrap(), MatMut::new(&mut y, 1, 1).unwrap());
            let stage = FloatStage::new();
            let result = gemm_scaled(x, how, w, &stage, out, Threads::Serial, &mut Workspace::new());
            assert!(result.is_ok() || y == [7.0]);
            result
        };
        let weights = |k: usize, scales: WeightScales<'_>| {
            ScaledWeights::new(pack(kernel, MatRef::new(&vec![127i8; k], 1, k).unwrap()), scales).unwrap()
        };
        // The sum of a long group in parts, and of activations times minimums of parts.
        let k = 2048;
        let (large, small) = (vec![127i8; k / 16], vec![1i8; k / 16]);
        let scales = WeightScales::per_group(&[1.0], k).with_minimums(&[1.0]);
        let error = product(k, &weights(k, scales.with_parts(16, &large))).unwrap_err();
        assert!(matches!(error, DynamicError::Gemm(GemmError::Overflow(_))), "{error}");
        let w = weights(k, scales.with_parts(16, &small).with_part_minimums(&large));
        product(k, &w).unwrap();
        assert!(w.check_accumulators(10_000).is_err());
        // Terms of opposite signs in one group. Together they would be no number.
        for (minimum, fits) in [(-1e38, false), (-1e30, true)] {
            let scales = WeightScales::per_channel(&[1e30]);
            let result = product(32, &weights(32, scales.with_minimums(&[minimum])));
            match result {
                Ok(()) => assert!(fits),
                Err(error) => {
                    let is = |scale| matches!(error, DynamicError::GroupRange { row: 0, scale: of, .. } if of == scale);
                    assert!(!fits && is(1e38), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_minimum_beyond_the_range_of_a_row_is_named() {
    let kernel = Kernel::select().unwrap();
    let w = pack(kernel, MatRef::new(&[1i8; 40], 2, 20).unwrap());
    let scales = WeightScales::per_channel(&[1.0, 2.0]);
    let w = ScaledWeights::new(w, scales.with_minimums(&[1.0, -3e38])).unwrap();
    let (x, mut y) = ([1e5f32; 20], [7.0f32; 2]);
    let (x, out) = (MatRef::new(&x, 1, 20).unwrap(), MatMut::new(&mut y, 1, 2).unwrap());
    let stage = FloatStage::new();
    let error =
        gemm_scaled(x, schemes()[0], &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap_err();
    assert!(
        matches!(error, DynamicError::ScaleRange { row: 0, channel: 1, channel_scale: -3e38, .. }),
        "{error}"
    );
}

#[test]
fn without_depth_there_is_the_bias_and_without_rows_or_columns_nothing() {
    for kernel in Kernel::available() {
        for (m, n, k) in [(2, 3, 0usize), (0, 3, 0), (0, 3, 40), (2, 0, 40), (0, 0, 0)] {
            for in_groups in [false, true] {
                let (groups, parts) = (if in_groups { k.div_ceil(32) } else { 1 }, k.div_ceil(16));
                let (floats, bytes) = (vec![1.0; n * groups], vec![1i8; n * parts]);
                let scales = match in_groups {
                    true => WeightScales::per_group(&floats, 32),
                    false => WeightScales::per_channel(&floats),
                };
                let scales = scales.with_minimums(&floats);
                for scales in [scales, scales.with_parts(16, &bytes).with_part_minimums(&bytes)] {
                    let w = pack(kernel, MatRef::new(&vec![1i8; n * k], n, k).unwrap());
                    let w = ScaledWeights::new(w, scales).unwrap();
                    let bias = vec![-1.5; n];
                    let stage = FloatStage::new().with_bias(&bias).unwrap();
                    let x = vec![1.0f32; m * k];
                    let x = MatRef::new(&x, m, k).unwrap();
                    let expected = vec![-1.5f32; m * n];
                    for how in schemes() {
                        let mut y = vec![9.0f32; m * n];
                        let out = MatMut::new(&mut y, m, n).unwrap();
                        gemm_scaled(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
                        assert_eq!(y, expected);
                    }
                    let mut y = vec![9.0f32; m * n];
                    let out = MatMut::new(&mut y, m, n).unwrap();
                    weight_only(x, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
                    assert_eq!(y, expected);
                }
            }
        }
    }
}

#[test]
fn sums_of_floats_that_leave_their_range_are_an_error() {
    let kernel = Kernel::select().unwrap();
    let w = pack(kernel, MatRef::new(&[0i8; 64], 1, 64).unwrap());
    let scales = WeightScales::per_group(&[1.0, 1.0], 32).with_minimums(&[1e2, 1e2]);
    let w = ScaledWeights::new(w, scales).unwrap();
    // 32 * 100 * 3e35 is too large, less the same it is 0.
    let a: Vec<f32> = (0..64).map(|k| if k < 32 { 3e35 } else { -3e35 }).collect();
    let product = |a: &[f32]| {
        let mut y = [7.0f32];
        let (a, out) = (MatRef::new(a, 1, 64).unwrap(), MatMut::new(&mut y, 1, 1).unwrap());
        let stage = FloatStage::new();
        weight_only(a, &w, &stage, out, Threads::Serial, &mut Workspace::new()).map(|()| y[0])
    };
    assert_eq!(product(&a).unwrap_err(), GemmError::FloatRange { row: 0, channel: 0 });
    assert_eq!(product(&[3e35; 64]).unwrap(), f32::INFINITY);
    let small: Vec<f32> = a.iter().map(|a| a / 100.0).collect();
    assert_eq!(product(&small).unwrap(), 0.0);
}

#[test]
fn parts_of_a_single_group_need_not_divide_it() {
    let codes: Vec<i8> = (0..40).collect();
    let packed = || pack(Kernel::select().unwrap(), MatRef::new(&codes, 1, 40).unwrap());
    let per_channel = WeightScales::per_channel(&[0.5]).with_parts(32, &[3, -2]);
    let per_channel = ScaledWeights::new(packed(), per_channel).unwrap();
    // What a file says of a channel: its length.
    let per_group = WeightScales::per_group(&[0.5], per_channel.group_len()).with_parts(32, &[3, -2]);
    let per_group = ScaledWeights::new(packed(), per_group).unwrap();
    assert_eq!(per_channel.dequantize(), per_group.dequantize());
    assert_eq!(per_group.dequantize()[31..33], [46.5, -32.0]);
}
