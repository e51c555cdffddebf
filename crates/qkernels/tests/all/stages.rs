//! Fused output stages against the unfused steps: the oracle's sums, then qcore's scalar functions,
//! bit for bit.

use qkernels::{Dequantize, Int32, Kernel, MatRef, PackedWeights, Requantize, Scales, Workspace};

use crate::oracle::sums::Sums;
use crate::oracle::{CANARY, Noise, TestCode, product};

fn scale(scales: Scales<'_>, channel: usize) -> f32 {
    match scales {
        Scales::PerTensor(scale) => scale,
        Scales::PerChannel(scales) => scales[channel],
    }
}

fn check_int32<A: TestCode, W: TestCode>(sums: &mut Sums<A, W>) {
    let bias = sums.bias.clone();
    for (stage, has_bias) in [(Int32::new(), false), (Int32::new().with_bias(&bias), true)] {
        let expected: Vec<_> = sums.expected(has_bias).map(|(_, sum)| sum).collect();
        for (kernel, y) in sums.run(&stage, CANARY) {
            assert_eq!(y, expected, "{kernel}, bias {has_bias}");
        }
    }
}

/// Every combination of the options of `Dequantize`.
fn check_dequantize<A: TestCode, W: TestCode>(sums: &mut Sums<A, W>, scales: Scales<'_>, float_bias: &[f32]) {
    let bias = sums.bias.clone();
    for options in 0..8 {
        let [has_bias, has_float_bias, relu] = [0, 1, 2].map(|bit| options >> bit & 1 == 1);
        let mut stage = Dequantize::new(scales).unwrap();
        if has_bias {
            stage = stage.with_bias(&bias);
        }
        if has_float_bias {
            stage = stage.with_float_bias(float_bias).unwrap();
        }
        if relu {
            stage = stage.with_relu();
        }
        let unfused = |(channel, sum)| {
            let scale = scale(scales, channel);
            let y = match has_float_bias {
                true => qcore::dequantize_acc_bias(sum, scale, float_bias[channel]),
                false => qcore::dequantize_acc(sum, scale),
            };
            if relu && y < 0.0 { 0.0f32.to_bits() } else { y.to_bits() }
        };
        let expected: Vec<_> = sums.expected(has_bias).map(unfused).collect();
        for (kernel, y) in sums.run(&stage, f32::NAN) {
            let y: Vec<_> = y.into_iter().map(f32::to_bits).collect();
            assert_eq!(y, expected, "{kernel}, {stage:?}");
        }
    }
}

/// Every combination of the options of `Requantize`.
fn check_requantize<A: TestCode, W: TestCode, C: TestCode>(sums: &mut Sums<A, W>, multipliers: Scales<'_>) {
    let bias = sums.bias.clone();
    let (min, max) = (C::RANGE.min(), C::RANGE.max());
    let clamps = [(min, max), (min + 28, max - 3), (min + 100, max), (min + 60, min + 60), (min, max - 200)];
    for (zero_point, (low, high)) in
        [0, min, max, 7, min + 99].into_iter().flat_map(|zero_point| clamps.map(|clamp| (zero_point, clamp)))
    {
        for options in 0..4 {
            let [has_bias, relu] = [0, 1].map(|bit| options >> bit & 1 == 1);
            let mut stage = Requantize::<C>::new(multipliers).unwrap();
            if has_bias {
                stage = stage.with_bias(&bias);
            }
            if relu {
                stage = stage.with_relu();
            }
            if zero_point != 0 {
                stage = stage.with_zero_point(C::from_clamped(zero_point));
            }
            if (low, high) != (min, max) {
                stage = stage.with_clamp(C::from_clamped(low), C::from_clamped(high)).unwrap();
            }
            let unfused = |(channel, sum)| {
                let code = qcore::requantize(sum, scale(multipliers, channel), zero_point, min, max);
                let code = if relu { code.max(zero_point) } else { code };
                C::from_clamped(code.clamp(low, high))
            };
            let expected: Vec<_> = sums.expected(has_bias).map(unfused).collect();
            for (kernel, y) in sums.run(&stage, C::from_bits(0x5a)) {
                assert_eq!(y, expected, "{kernel}, {stage:?}");
            }
        }
    }
}

/// Every stage, with scales of this magnitude that are the same for all channels, and with
/// different ones for each channel.
fn check_stages<A: TestCode, W: TestCode>(sums: &mut Sums<A, W>, noise: &mut Noise, magnitude: f32) {
    let n = sums.shape.1;
    let scales = noise.floats(n, magnitude);
    let float_bias = noise.floats(n, 3.0);
    check_int32(sums);
    for scales in [Scales::PerTensor(magnitude), Scales::PerChannel(&scales)] {
        check_dequantize(sums, scales, &float_bias);
        check_requantize::<A, W, i8>(sums, scales);
        check_requantize::<A, W, u8>(sums, scales);
    }
}

#[test]
fn every_option_of_every_stage_at_the_edges_of_tile_and_vector() {
    Sums::<u8, i8>::at_the_edges(20, false, |sums, noise| check_stages(sums, noise, 0.002));
    Sums::<i8, i8>::at_the_edges(20, false, |sums, noise| check_stages(sums, noise, 0.002));
    Sums::<u8, u8>::at_the_edges(20, true, |sums, noise| check_stages(sums, noise, 0.002));
    Sums::<i8, i8>::at_the_edges(20, true, |sums, noise| check_stages(sums, noise, 0.002));
}

#[test]
fn every_stage_of_a_few_products() {
    fn sweep<A: TestCode, W: TestCode>(noise: &mut Noise, zero_points: bool) {
        for shape in [(1, 1, 1), (1, 1, 4), (1, 2, 2), (2, 1, 2), (2, 2, 1), (1, 4, 1), (4, 1, 1), (2, 2, 2)]
        {
            check_stages(&mut Sums::<A, W>::random(noise, shape, zero_points), noise, 0.01);
        }
    }
    let mut noise = Noise::new(24);
    sweep::<u8, i8>(&mut noise, false);
    sweep::<i8, i8>(&mut noise, true);
    sweep::<u8, u8>(&mut noise, true);
}

#[test]
fn every_number_of_channels_up_to_130() {
    let mut noise = Noise::new(21);
    for n in 1..=130 {
        // The body and the tail of a row round alike. All sums are ties between two codes, and ReLU
        // cuts at them.
        let ties: Vec<_> = (0..n as i32).map(|j| 2 * j - 131).collect();
        let (mut sums, float_bias) = (Sums::<u8, i8>::given(&ties, 2), noise.floats(n, 7.5));
        check_dequantize(&mut sums, Scales::PerTensor(0.5), &float_bias);
        check_dequantize(&mut sums, Scales::PerChannel(&vec![0.5; n]), &float_bias);
        let expected: Vec<_> =
            sums.expected(true).map(|(_, sum)| (f64::from(sum) / 2.0).round_ties_even()).collect();
        let bias = sums.bias.clone();
        let multipliers = vec![0.5; n];
        for multiplier in [Scales::PerTensor(0.5), Scales::PerChannel(&multipliers)] {
            let stage = Requantize::<i8>::new(multiplier).unwrap().with_bias(&bias);
            for (kernel, y) in sums.run(&stage, 90) {
                let y: Vec<_> = y.into_iter().map(f64::from).collect();
                assert_eq!(y, expected, "{kernel}");
            }
        }
    }
}

#[test]
fn a_stage_is_applied_once_where_k_is_cut_into_blocks() {
    let mut noise = Noise::new(22);
    let mut sums = Sums::<u8, i8>::random(&mut noise, (10, 50, 40_000), false);
    check_int32(&mut sums);
    let (scales, float_bias) = (noise.floats(50, 1e-5), noise.floats(50, 3.0));
    check_dequantize(&mut sums, Scales::PerChannel(&scales), &float_bias);
    let stage = Requantize::<u8>::new(Scales::PerChannel(&scales)).unwrap().with_zero_point(99);
    let unfused = |(channel, sum): (usize, i32)| qcore::requantize(sum, scales[channel], 99, 0, 255) as u8;
    let expected: Vec<_> = sums.expected(false).map(unfused).collect();
    for (kernel, y) in sums.run(&stage, 0) {
        assert_eq!(y, expected, "{kernel}");
    }
}

#[test]
fn ties_and_their_neighbours_under_small_multipliers() {
    let mut noise = Noise::new(23);
    let sums: Vec<_> = (-70..70).collect();
    for multiplier in [0.5, 0.25, 0.125, 1.5, -0.5, 0.5f32.next_up(), 0.5f32.next_down(), 0.0, -0.0] {
        check_stages(&mut Sums::<u8, i8>::given(&sums, 1), &mut noise, multiplier);
    }
}

#[test]
fn sums_up_to_the_ends_of_int32_under_any_multiplier() {
    let mut noise = Noise::new(24);
    // 2^24 + 1 is the first integer that f32 does not hold.
    let mut sums = vec![0, 1, -1, 16_777_216, 16_777_217, -16_777_219, i32::MAX, i32::MAX - 64, -i32::MAX];
    sums.extend((0..31).flat_map(|bit| [1 << bit, -(1 << bit)]));
    let multipliers = [
        f32::from_bits(1),
        f32::MIN_POSITIVE,
        1e-30,
        1e-9,
        5.9e-8,
        1.0 / 3.0,
        1.0,
        1e9,
        1e30,
        f32::MAX / 2.0,
    ];
    for multiplier in multipliers {
        check_stages(&mut Sums::<i8, i8>::given(&sums, 1), &mut noise, multiplier);
    }
}

#[test]
fn stages_of_a_product_without_depth_store_the_bias() {
    let mut workspace = Workspace::new();
    for kernel in Kernel::available() {
        let a = MatRef::new(&[0u8; 0], 2, 0).unwrap();
        let w = PackedWeights::from_nk(MatRef::new(&[0i8; 0], 3, 0).unwrap(), kernel).unwrap();
        let stage = Dequantize::new(Scales::PerTensor(0.5)).unwrap().with_bias(&[3, -4, 5]);
        assert_eq!(product(a, 2, &w, &stage, 9.0, &mut workspace), [1.5, -2.0, 2.5, 1.5, -2.0, 2.5]);
        let stage = Requantize::<u8>::new(Scales::PerTensor(0.5)).unwrap().with_zero_point(1);
        let stage = stage.with_bias(&[3, -4, 5]);
        assert_eq!(product(a, 2, &w, &stage, 9, &mut workspace), [3, 0, 3, 3, 0, 3]);
    }
}
