//! Rows that are divided by scales of their channels as they are read. Every product has the bits
//! of the same product of the quotients, computed beforehand in f32.

use half::{bf16, f16};
use qcore::{CodeRange, Float, QParams, Scheme};
use qkernels::{
    Dequantize, Dynamic, DynamicError, FloatActivations, FloatRows, FloatStage, GemmError, InputScaleError,
    Kernel, MatMut, MatRef, PackedWeights, QuantizedRows, Requantize, ScaledWeights, Scales, Threads,
    WeightScales, Workspace, first_non_finite, gemm, gemm_columns, gemm_dynamic, gemm_rows, gemm_scaled,
    gemm_scaled_rows, weight_only,
};

use crate::oracle::in_parts::Layer;
use crate::oracle::{Noise, pack};

/// Scales of both sides of 1, far apart.
fn scales(noise: &mut Noise, k: usize) -> Vec<f32> {
    let scales = noise.floats(k, 1.0);
    scales.into_iter().map(|scale| scale.abs() * noise.choose(&[0.01, 0.5, 1.0, 30.0])).collect()
}

/// Rows whose channels have ranges like the scales, so that quotients do not.
fn values<F: Float>(noise: &mut Noise, m: usize, scales: &[f32]) -> Vec<F> {
    let x = noise.floats(m * scales.len(), 1.0);
    x.into_iter().zip(scales.iter().cycle()).map(|(x, scale)| F::narrow(x * scale)).collect()
}

/// The quotients, one after the other.
fn quotients<F: Float>(x: MatRef<'_, F>, scales: &[f32]) -> Vec<f32> {
    let of_row = |i| scales.iter().enumerate().map(move |(j, scale)| x.get(i, j).unwrap().widen() / scale);
    (0..x.rows()).flat_map(of_row).collect()
}

fn bits<Y: Float>(y: Vec<Y>) -> Vec<u32> {
    y.into_iter().map(|y| y.widen().to_bits()).collect()
}

/// All products of weights with a scale for each channel.
struct PerChannel<'t> {
    w: &'t PackedWeights,
    scales: &'t [f32],
    threads: Threads<'t>,
}

impl PerChannel<'_> {
    fn products<'x, F: Float>(&self, x: impl Into<FloatRows<'x, F>>) -> Vec<Vec<u32>> {
        let (x, w, mut workspace, mut all) = (x.into(), self.w, Workspace::new(), Vec::new());
        let (m, n) = (x.rows(), w.n());
        let stage = Dequantize::new(Scales::PerChannel(self.scales)).unwrap();
        let [u8s, i8s] = [Scheme::activations_u8(), Scheme::weights_i8()];
        let mut rows = QuantizedRows::new();
        for how in [u8s, i8s].into_iter().flat_map(|s| [Dynamic::PerToken(s), Dynamic::PerTensor(s)]) {
            let mut y = vec![f32::NAN; m * n];
            let out = MatMut::new(&mut y, m, n).unwrap();
            gemm_dynamic(x, how, w, &stage, out, self.threads, &mut workspace).unwrap();
            all.push(bits(std::mem::take(&mut y)));
            y.resize(m * n, f32::NAN);
            rows.quantize(x, how, w.kernel()).unwrap();
            let out = MatMut::new(&mut y, m, n).unwrap();
            gemm_rows(&rows, w, &stage, out, self.threads, &mut workspace).unwrap();
            all.push(bits(y));
        }
        let codes = Requantize::<i8>::new(Scales::PerTensor(1e-3)).unwrap();
        for (zero_point, range) in [(120, CodeRange::U8), (-3, CodeRange::I8)] {
            let a = FloatActivations::new(x, QParams::new(0.015, zero_point, range).unwrap()).unwrap();
            let mut y = vec![f32::NAN; m * n];
            gemm(a, w, &stage, MatMut::new(&mut y, m, n).unwrap(), self.threads, &mut workspace).unwrap();
            all.push(bits(y));
            let mut y = vec![77i8; m * n];
            gemm(a, w, &codes, MatMut::new(&mut y, m, n).unwrap(), self.threads, &mut workspace).unwrap();
            all.push(y.into_iter().map(|y| u32::from(y.cast_unsigned())).collect());
            for columns in w.column_ranges(2) {
                let mut y = vec![f32::NAN; m * columns.len()];
                let out = MatMut::new(&mut y, m, columns.len()).unwrap();
                gemm_columns(a, w, columns, &stage, out, &mut workspace).unwrap();
                all.push(bits(y));
            }
        }
        all
    }
}

/// The products of weights with other scales: integers, integers of rows that are quantized before,
/// floats.
pub(crate) fn scaled_products<'x, F: Float, Y: Float>(
    x: impl Into<FloatRows<'x, F>>,
    how: Dynamic,
    (w, bias): (&ScaledWeights, &[f32]),
    threads: Threads<'_>,
) -> [Vec<u32>; 3] {
    let (x, stage) = (x.into(), FloatStage::new().with_bias(bias).unwrap());
    let (mut rows, mut workspace) = (QuantizedRows::new(), Workspace::new());
    rows.quantize(x, how, w.kernel()).unwrap();
    [0, 1, 2].map(|which| {
        let (m, n) = (x.rows(), w.n());
        let mut y = vec![Y::narrow(f32::NAN); m * n];
        let out = MatMut::new(&mut y, m, n).unwrap();
        match which {
            0 => gemm_scaled(x, how, w, &stage, out, threads, &mut workspace).unwrap(),
            1 => gemm_scaled_rows(&rows, w, &stage, out, threads, &mut workspace).unwrap(),
            _ => weight_only(x, w, &stage, out, threads, &mut workspace).unwrap(),
        }
        bits(y)
    })
}

/// The strides in which a matrix (m, k) is laid out.
fn strides(m: usize, k: usize) -> [(usize, usize); 4] {
    [(k, 1), (k + 3, 1), (1, m), (2 * k, 2)]
}

fn laid_out<F: Float>(x: &[F], m: usize, k: usize, (row, col): (usize, usize)) -> Vec<F> {
    let mut data = vec![F::narrow(f32::NAN); (m - 1) * row + (k - 1) * col + 1];
    for (at, &x) in x.iter().enumerate() {
        data[at / k * row + at % k * col] = x;
    }
    data
}

fn check_per_channel<F: Float>(noise: &mut Noise, m: usize, n: usize, k: usize) {
    let divisors = scales(noise, k);
    let x = values::<F>(noise, m, &divisors);
    let (w, w_scales) = (noise.weights::<i8>(n, k), noise.floats(n, 0.01));
    let by_hand = quotients(MatRef::new(&x, m, k).unwrap(), &divisors);
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
        let products = PerChannel { w: &w, scales: &w_scales, threads: Threads::Serial };
        let expected = products.products(MatRef::new(&by_hand, m, k).unwrap());
        for strides in strides(m, k) {
            let data = laid_out(&x, m, k, strides);
            let view = MatRef::with_strides(&data, m, k, strides.0, strides.1).unwrap();
            let got = products.products(FloatRows::divided_by(view, &divisors).unwrap());
            assert_eq!(got.len(), expected.len());
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!(got == expected, "{kernel}, product {at}: {m} x {n} x {k}, strides {strides:?}");
            }
        }
        if m * k > 64 {
            assert!(products.products(MatRef::new(&x, m, k).unwrap()) != expected, "nothing was divided");
        }
    }
}

#[test]
fn products_have_the_bits_of_quotients() {
    let mut noise = Noise::new(301);
    for (m, n, k) in [(1, 1, 1), (1, 50, 64), (2, 17, 33), (3, 20, 256), (5, 64, 257), (9, 33, 130)] {
        check_per_channel::<f32>(&mut noise, m, n, k);
        check_per_channel::<f16>(&mut noise, m, n, k);
        check_per_channel::<bf16>(&mut noise, m, n, k);
    }
    check_per_channel::<f32>(&mut noise, 130, 40, 600);
    check_per_channel::<bf16>(&mut noise, 70, 20, 515);
}

/// Activations that a layer can have, in groups if its inputs are in their own order.
fn how(noise: &mut Noise, layer: &Layer, ordered: bool) -> Dynamic {
    let scheme = Scheme::weights_i8();
    match layer.group_len.filter(|&len| len < layer.k) {
        Some(32) if !ordered && noise.below(2) == 0 => Dynamic::GgmlQ8_0,
        Some(group_len) if !ordered && noise.below(2) == 0 => Dynamic::PerGroup { scheme, group_len },
        None if layer.k <= 32 && noise.below(2) == 0 => Dynamic::GgmlQ8_0,
        None if noise.below(3) == 0 => Dynamic::PerGroup { scheme, group_len: layer.k.next_multiple_of(16) },
        _ => noise.choose(&[
            Dynamic::PerToken(scheme),
            Dynamic::PerToken(Scheme::activations_u8()),
            Dynamic::PerTensor(scheme),
        ]),
    }
}

fn check_scaled<F: Float, Y: Float>(noise: &mut Noise, m: usize, layer: &Layer) {
    let k = layer.k;
    let divisors = scales(noise, k);
    let x = values::<F>(noise, m, &divisors);
    let by_hand = quotients(MatRef::new(&x, m, k).unwrap(), &divisors);
    let by_hand = MatRef::new(&by_hand, m, k).unwrap();
    let mut order: Vec<u32> = (0..k as u32).collect();
    (1..k).for_each(|at| order.swap(at, noise.below(at + 1)));
    for ordered in [false, true] {
        let how = how(noise, layer, ordered);
        for kernel in Kernel::available() {
            let w = layer.packed(kernel);
            let w = if ordered { w.with_input_order(&order).unwrap() } else { w };
            for w in [w.clone(), w.with_sums()] {
                let w = (&w, &layer.bias[..]);
                let expected = scaled_products::<f32, Y>(by_hand, how, w, Threads::Serial);
                for strides in strides(m, k) {
                    let data = laid_out(&x, m, k, strides);
                    let view = MatRef::with_strides(&data, m, k, strides.0, strides.1).unwrap();
                    let x = FloatRows::divided_by(view, &divisors).unwrap();
                    let got = scaled_products::<F, Y>(x, how, w, Threads::Serial);
                    for which in 0..3 {
                        assert!(
                            got[which] == expected[which],
                            "{kernel}, product {which}: {m} x {}, {how:?}, in order {ordered}, strides {strides:?}",
                            layer.form()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn products_in_groups_have_the_bits_of_quotients_in_any_order() {
    let mut noise = Noise::new(302);
    for at in 0..24 {
        let (m, n, k) = (1 + at % 9, 1 + noise.below(40), 1 + noise.below(320));
        let layer = Layer::new(&mut noise, n, k);
        check_scaled::<f32, f32>(&mut noise, m, &layer);
        check_scaled::<f16, f32>(&mut noise, m, &layer);
        check_scaled::<bf16, f16>(&mut noise, m, &layer);
    }
    // Blocks of ggml, and one or many rows of long groups.
    for (m, n, k, bits, group_len) in [
        (1, 20, 256, 8, Some(32)),
        (6, 33, 160, 4, Some(32)),
        (130, 20, 600, 8, None),
        (67, 24, 700, 4, Some(320)),
    ] {
        for _ in 0..3 {
            let layer =
                Layer { minimums: None, ..Layer::of_format(&mut noise, (n, k), bits, group_len, None) };
            let layer = Layer { part_minimums: None, ..layer };
            check_scaled::<f32, f32>(&mut noise, m, &layer);
            check_scaled::<f16, f32>(&mut noise, m, &layer);
        }
    }
}

#[test]
fn threads_change_nothing() {
    let mut noise = Noise::new(303);
    let pools =
        [1, 2, 5].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for (m, n, k) in [(1, 500, 64), (40, 100, 520)] {
        let divisors = scales(&mut noise, k);
        let x = values::<f16>(&mut noise, m, &divisors);
        let x = MatRef::new(&x, m, k).unwrap();
        let by_hand = quotients(x, &divisors);
        let by_hand = MatRef::new(&by_hand, m, k).unwrap();
        let x = FloatRows::divided_by(x, &divisors).unwrap();
        let layer = Layer::new(&mut noise, n, k);
        let (codes, w_scales) = (noise.weights::<i8>(n, k), noise.floats(n, 0.01));
        let how = Dynamic::PerToken(Scheme::weights_i8());
        for kernel in Kernel::available() {
            let packed = pack(kernel, MatRef::new(&codes, n, k).unwrap());
            let products = |threads| PerChannel { w: &packed, scales: &w_scales, threads };
            let w = layer.packed(kernel);
            let w = (&w, &layer.bias[..]);
            let expected = products(Threads::Serial).products(by_hand);
            let scaled = scaled_products::<f32, f32>(by_hand, how, w, Threads::Serial);
            for pool in &pools {
                let threads = Threads::Pool(pool);
                assert!(products(threads).products(x) == expected, "{kernel}");
                assert!(scaled_products::<f16, f32>(x, how, w, threads) == scaled, "{kernel}");
            }
        }
    }
}

/// Repeated columns have quotients of their own, though they are one value.
#[test]
fn repeated_rows_and_columns_are_divided_each() {
    let mut noise = Noise::new(304);
    let (m, n, k) = (6, 20, 96);
    let divisors = scales(&mut noise, k);
    let layer = Layer { group_len: None, ..Layer::of_format(&mut noise, (n, k), 8, None, None) };
    let x = noise.floats(m + k, 1.0);
    for (rows, cols) in [(0, 1), (1, 0), (0, 0)] {
        let view = MatRef::with_strides(&x, m, k, rows, cols).unwrap();
        let by_hand = quotients(view, &divisors);
        let by_hand = MatRef::new(&by_hand, m, k).unwrap();
        let divided = FloatRows::divided_by(view, &divisors).unwrap();
        for kernel in Kernel::available() {
            let w = layer.packed(kernel);
            let w = (&w, &layer.bias[..]);
            let expected = scaled_products::<f32, f32>(by_hand, Dynamic::default(), w, Threads::Serial);
            let got = scaled_products::<f32, f32>(divided, Dynamic::default(), w, Threads::Serial);
            assert!(got == expected, "{kernel}, strides ({rows}, {cols})");
        }
    }
    // All quotients but the first are so large that sums leave f32, though they cancel.
    let codes: Vec<i8> = (0..64).map(|k| [0, 127, -127][usize::from(k > 0) + usize::from(k > 32)]).collect();
    let divisors: Vec<f32> = (0..64).map(|k| if k == 0 { 1.0 } else { 1e-36 }).collect();
    let view = MatRef::with_strides(&[2.0f32], 1, 64, 0, 0).unwrap();
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&codes, 1, 64).unwrap());
        let w = ScaledWeights::new(w, WeightScales::per_channel(&[1.0])).unwrap();
        let (mut y, stage) = ([0.0f32], FloatStage::new());
        let (x, out) = (FloatRows::divided_by(view, &divisors).unwrap(), MatMut::new(&mut y, 1, 1).unwrap());
        let done = weight_only(x, &w, &stage, out, Threads::Serial, &mut Workspace::new());
        assert_eq!(done, Err(GemmError::FloatRange { row: 0, channel: 0 }), "{kernel}");
    }
}

#[test]
fn scales_that_divide_nothing_are_refused_with_numbers() {
    let x = [1.0f32; 12];
    let x = MatRef::new(&x, 3, 4).unwrap();
    let error = |scales: &[f32]| FloatRows::divided_by(x, scales).unwrap_err();
    assert_eq!(error(&[1.0; 3]), InputScaleError::Length { k: 4, len: 3 });
    assert_eq!(error(&[1.0; 5]).to_string(), "expected input scales of k = 4 channels, got 5");
    assert_eq!(error(&[]), InputScaleError::Length { k: 4, len: 0 });
    let zero = "input scale 0e0 of channel 2 must be finite and greater than 0";
    assert_eq!(error(&[1.0, 2.0, 0.0, 0.0]).to_string(), zero);
    let unusable =
        [0.0, -0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, -f32::MIN_POSITIVE];
    for scale in unusable.into_iter().chain([f32::from_bits(0x8000_0001), f32::from_bits(0x7f80_0001)]) {
        for channel in 0..4 {
            let mut scales = [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), 1.0];
            assert!(FloatRows::divided_by(x, &scales).is_ok());
            scales[channel] = scale;
            let InputScaleError::Scale { channel: found, scale: value } = error(&scales) else { panic!() };
            assert_eq!((found, value.to_bits()), (channel, scale.to_bits()));
        }
    }
    // Without columns there is nothing to divide, and nothing to look at in rows that are none.
    let none = MatRef::<f32>::new(&[], 5, 0).unwrap();
    assert_eq!(FloatRows::divided_by(none, &[]).unwrap().get(0, 0), None);
    assert_eq!(FloatRows::divided_by(none, &[1.0]).unwrap_err(), InputScaleError::Length { k: 0, len: 1 });
    let none = FloatRows::divided_by(MatRef::<f16>::new(&[], 0, 4).unwrap(), &[2.0; 4]).unwrap();
    assert_eq!((none.rows(), none.cols(), none.get(0, 0)), (0, 4, None));
}

#[test]
fn a_quotient_that_is_infinite_is_found() {
    let k = 600;
    for kernel in Kernel::available() {
        for (at, value, scale) in
            [(0, 4.0f32, 1e-38), (259, -3e38, 0.5), (k - 1, 1.0, f32::MIN_POSITIVE / 8.0)]
        {
            let (mut x, mut scales) = (vec![1.0f32; 3 * k], vec![2.0; k]);
            (x[k + at], scales[at]) = (value, scale);
            (x[at], x[2 * k + at]) = (0.0, 0.0);
            let view = MatRef::new(&x, 3, k).unwrap();
            assert_eq!(first_non_finite(kernel, view), None);
            let by_reference = &view;
            assert_eq!(first_non_finite(kernel, by_reference), None);
            let divided = FloatRows::divided_by(view, &scales).unwrap();
            let infinite = f32::INFINITY.copysign(value);
            assert_eq!(first_non_finite(kernel, divided), Some((1, at, infinite)), "{kernel}");
            assert_eq!(divided.get(1, at), Some(infinite));
            // It does not count for the range, as other infinities do not.
            let mut rows = QuantizedRows::new();
            let lost = Dynamic::PerToken(Scheme::activations_u8());
            assert_eq!(rows.quantize(divided, lost, kernel), Ok::<_, DynamicError>(()));
        }
    }
}

/// f16 reaches no sum that leaves f32. Its quotients do.
#[test]
fn sums_of_quotients_that_leave_the_range_of_floats_are_errors() {
    let k = 64;
    let order: Vec<u32> = (0..k as u32).rev().collect();
    for kernel in Kernel::available() {
        let w = pack(kernel, MatRef::new(&[127i8; 64], 1, k).unwrap());
        let w = ScaledWeights::new(w, WeightScales::per_channel(&[1.0])).unwrap();
        for w in [w.clone(), w.with_input_order(&order).unwrap()] {
            fn product<F: Float>(x: FloatRows<'_, F>, w: &ScaledWeights) -> Result<u32, GemmError> {
                let (mut y, stage) = ([7.0f32], FloatStage::new());
                let out = MatMut::new(&mut y, 1, 1).unwrap();
                let done = weight_only(x, w, &stage, out, Threads::Serial, &mut Workspace::new());
                done.map(|()| y[0].to_bits())
            }
            // The positive ones come first, or last, and all but one cancel.
            let x: Vec<f16> = (0..k).map(|at| f16::from_f32([2.0, -2.0][at / 32])).collect();
            let x = [&[f16::ZERO][..], &x[1..]].concat();
            let view = MatRef::new(&x, 1, k).unwrap();
            let (mut finite, mut lost) = (0, 0);
            for scale in (20..=37).map(|digits| 10f32.powi(-digits)) {
                let by_hand = quotients(view, &[scale; 64]);
                let expected = product(MatRef::new(&by_hand, 1, k).unwrap().into(), &w);
                let got = product(FloatRows::divided_by(view, &[scale; 64]).unwrap(), &w);
                assert_eq!(got, expected, "{kernel}, {scale:e}");
                match got {
                    Ok(y) if f32::from_bits(y).is_finite() => finite += 1,
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error, GemmError::FloatRange { row: 0, channel: 0 });
                        lost += 1;
                    }
                }
            }
            assert!(finite > 10 && lost > 0, "{kernel}: {finite} finite, {lost} lost");
        }
    }
}
