//! Output stages that no kernel applies to its registers: f16 and bf16, fixed point and residuals.
//! They are compared bit for bit with the oracle's sums and qcore's scalar functions.

use std::fmt::Debug;

use half::{bf16, f16};
use qcore::{Float, Q31Multiplier};
use qkernels::{
    DequantizeTo, FixedPointRounding, Kernel, MatRef, Requantize, RequantizeFixedPoint, Residual, Scales,
};

use crate::oracle::sums::Sums;
use crate::oracle::{Noise, TestCode};

/// f16 or bf16 as an output.
trait Half: Float + Debug {
    fn bits(self) -> u16;

    /// The bits that every kernel stores.
    fn run<A: TestCode, W: TestCode>(
        sums: &mut Sums<A, W>,
        stage: &DequantizeTo<'_, Self>,
    ) -> Vec<(Kernel, Vec<u16>)>;
}

macro_rules! half {
    ($half:ident) => {
        impl Half for $half {
            fn bits(self) -> u16 {
                self.to_bits()
            }

            fn run<A: TestCode, W: TestCode>(
                sums: &mut Sums<A, W>,
                stage: &DequantizeTo<'_, $half>,
            ) -> Vec<(Kernel, Vec<u16>)> {
                let bits = |(kernel, y): (_, Vec<$half>)| (kernel, y.into_iter().map(Half::bits).collect());
                sums.run(stage, $half::NAN).map(bits).collect()
            }
        }
    };
}
half!(f16);
half!(bf16);

/// Every combination of the options of `DequantizeTo<T>`.
fn check_dequantize<A: TestCode, W: TestCode, T: Half>(sums: &mut Sums<A, W>, noise: &mut Noise, low: f32) {
    let (bias, n) = (sums.bias.clone(), sums.shape.1);
    let (scales, float_bias) = (noise.floats(n, low), noise.floats(n, 3.0));
    for options in 0..16 {
        let [has_bias, has_float_bias, relu, per_channel] = [0, 1, 2, 3].map(|bit| options >> bit & 1 == 1);
        let scale = if per_channel { Scales::PerChannel(&scales) } else { Scales::PerTensor(low) };
        let mut stage = DequantizeTo::<T>::new(scale).unwrap();
        if has_bias {
            stage = stage.with_bias(&bias);
        }
        if has_float_bias {
            stage = stage.with_float_bias(&float_bias).unwrap();
        }
        if relu {
            stage = stage.with_relu();
        }
        let unfused = |(channel, sum): (usize, i32)| {
            let scale = if per_channel { scales[channel] } else { low };
            let y = match has_float_bias {
                true => qcore::dequantize_acc_bias(sum, scale, float_bias[channel]),
                false => qcore::dequantize_acc(sum, scale),
            };
            T::narrow(if relu && y < 0.0 { 0.0 } else { y }).bits()
        };
        let expected: Vec<_> = sums.expected(has_bias).map(unfused).collect();
        for (kernel, y) in T::run(sums, &stage) {
            assert_eq!(y, expected, "{kernel}, {stage:?}");
        }
    }
}

/// The zero point, the bounds and ReLU of requantized output.
#[derive(Clone, Copy, Debug)]
struct Codes<C> {
    zero_point: C,
    low: C,
    high: C,
    relu: bool,
}

impl<C: TestCode> Codes<C> {
    /// ReLU or not, with zero points and bounds of all kinds.
    fn kinds(noise: &mut Noise) -> Vec<Self> {
        let (min, max) = (C::RANGE.min(), C::RANGE.max());
        let clamps = [(min, max), (min + 28, max - 3), (min + 60, min + 60), (min, max - 200)];
        let kinds = clamps.map(|(low, high)| {
            let zero_point = noise.choose(&[0, min, max, 7, min + 99]);
            let [zero_point, low, high] = [zero_point, low, high].map(C::from_clamped);
            [false, true].map(|relu| Codes { zero_point, low, high, relu })
        });
        kinds.concat()
    }

    /// Applies the bounds to a code that was computed without them.
    fn of(self, code: i32) -> C {
        let code = if self.relu { code.max(self.zero_point.widen()) } else { code };
        C::from_clamped(code.clamp(self.low.widen(), self.high.widen()))
    }
}

/// Every combination of the options of `RequantizeFixedPoint`.
fn check_fixed_point<A: TestCode, W: TestCode, C: TestCode>(
    sums: &mut Sums<A, W>,
    noise: &mut Noise,
    real: f64,
) {
    let (bias, n) = (sums.bias.clone(), sums.shape.1);
    let near = Q31Multiplier::from_real(real).unwrap();
    let others =
        [(0, 0), (1 << 30, 1), (1 << 30, 0), (i32::MAX, -31), (i32::MAX, 30), (1, 30), (1 << 30, -4)];
    let others = others.map(|(multiplier, shift)| Q31Multiplier::new(multiplier, shift).unwrap());
    let per_channel: Vec<_> =
        (0..n).map(|_| if noise.below(2) == 0 { near } else { noise.choose(&others) }).collect();
    let one = [if noise.below(2) == 0 { near } else { noise.choose(&others) }];
    let (min, max) = (C::RANGE.min(), C::RANGE.max());
    for (rounding, multipliers) in [FixedPointRounding::Double, FixedPointRounding::Single]
        .into_iter()
        .flat_map(|rounding| [(rounding, &one[..]), (rounding, &per_channel)])
    {
        for codes in Codes::<C>::kinds(noise) {
            let Codes { zero_point, low, high, relu } = codes;
            let has_bias = noise.below(4) > 0;
            let mut stage = RequantizeFixedPoint::new(multipliers, rounding).with_zero_point(zero_point);
            stage = stage.with_clamp(low, high).unwrap();
            if has_bias {
                stage = stage.with_bias(&bias);
            }
            if relu {
                stage = stage.with_relu();
            }
            let unfused = |(channel, sum): (usize, i32)| {
                let m = if multipliers.len() == 1 { multipliers[0] } else { multipliers[channel] };
                codes.of(match rounding {
                    FixedPointRounding::Double => {
                        qcore::requantize_double_rounding(sum, m, zero_point.widen(), min, max)
                    }
                    FixedPointRounding::Single => {
                        qcore::requantize_single_rounding(sum, m, zero_point.widen(), min, max)
                    }
                })
            };
            let expected: Vec<_> = sums.expected(has_bias).map(unfused).collect();
            for (kernel, y) in sums.run(&stage, C::from_bits(0x5a)) {
                assert_eq!(y, expected, "{kernel}, {stage:?}");
            }
        }
    }
}

/// Every combination of the options of `Requantize`, with a residual of type `R`.
fn check_residual<A: TestCode, W: TestCode, C: TestCode, R: TestCode>(
    sums: &mut Sums<A, W>,
    noise: &mut Noise,
    low: f32,
) {
    let (bias, (m, n, _)) = (sums.bias.clone(), sums.shape);
    let scales = noise.floats(n, low);
    let (min, max) = (C::RANGE.min(), C::RANGE.max());
    for codes in Codes::<C>::kinds(noise) {
        let Codes { zero_point, low: lowest, high, relu } = codes;
        let [has_bias, per_channel] = [noise.below(4) > 0, noise.below(2) > 0];
        let scale = if per_channel { Scales::PerChannel(&scales) } else { Scales::PerTensor(low) };
        let step = noise.choose(&[0.5, 0.25, -1.0, 2.0, 0.013, 0.0, 3e38]);
        let residual_zero = noise.choose(&[0, 3, R::RANGE.min(), R::RANGE.max(), i32::MIN, i32::MAX]);
        // The rows have gaps. A single column may have any stride.
        let row_stride = n + noise.below(4);
        let col_stride = if n == 1 { 7 } else { 1 };
        let residual = noise.codes::<R>(m * row_stride);
        let view = MatRef::with_strides(&residual, m, n, row_stride, col_stride).unwrap();
        let mut stage = Requantize::new(scale).unwrap().with_zero_point(zero_point);
        stage = stage.with_clamp(lowest, high).unwrap();
        stage = stage.with_residual(Residual::new(view, residual_zero, step).unwrap());
        if has_bias {
            stage = stage.with_bias(&bias);
        }
        if relu {
            stage = stage.with_relu();
        }
        let unfused = |(at, (channel, sum)): (usize, (usize, i32))| {
            let scale = if per_channel { scales[channel] } else { low };
            let distance = view.get(at / n, channel).unwrap().widen().saturating_sub(residual_zero);
            codes.of(qcore::requantize_residual(sum, scale, distance, step, zero_point.widen(), min, max))
        };
        let expected: Vec<_> = sums.expected(has_bias).enumerate().map(unfused).collect();
        for (kernel, y) in sums.run(&stage, C::from_bits(0x5a)) {
            assert_eq!(y, expected, "{kernel}, {stage:?}");
        }
    }
}

/// Every stage on these sums, with scales of this magnitude.
fn check_stages<A: TestCode, W: TestCode>(sums: &mut Sums<A, W>, noise: &mut Noise, low: f32) {
    check_dequantize::<A, W, f16>(sums, noise, low);
    check_dequantize::<A, W, bf16>(sums, noise, low);
    check_fixed_point::<A, W, i8>(sums, noise, low.into());
    check_fixed_point::<A, W, u8>(sums, noise, low.into());
    check_residual::<A, W, i8, i8>(sums, noise, low);
    check_residual::<A, W, i8, u8>(sums, noise, low);
    check_residual::<A, W, u8, i8>(sums, noise, low);
    check_residual::<A, W, u8, u8>(sums, noise, low);
}

#[test]
fn every_option_of_every_stage_at_the_edges_of_tile_and_vector() {
    Sums::<u8, i8>::at_the_edges(70, false, |sums, noise| check_stages(sums, noise, 0.002));
    Sums::<i8, i8>::at_the_edges(70, true, |sums, noise| check_stages(sums, noise, 0.002));
    Sums::<u8, u8>::at_the_edges(70, true, |sums, noise| check_stages(sums, noise, 0.002));
}

#[test]
fn every_number_of_channels_up_to_50() {
    let mut noise = Noise::new(71);
    for n in 1..=50 {
        // These are ties between two codes, and ReLU cuts at them.
        let ties: Vec<_> = (0..n).map(|j| 2 * j - 49).collect();
        check_stages(&mut Sums::<u8, u8>::given_by_zero_points(&mut noise, &ties, 3), &mut noise, 0.5);
    }
}

#[test]
fn a_stage_is_applied_once_where_rows_and_k_are_cut_into_blocks() {
    let mut noise = Noise::new(72);
    for shape in [(10, 100, 24_000), (1100, 3, 1024)] {
        let mut sums = Sums::<i8, u8>::random(&mut noise, shape, true);
        check_dequantize::<_, _, f16>(&mut sums, &mut noise, 1e-5);
        check_fixed_point::<_, _, u8>(&mut sums, &mut noise, 1e-5);
        check_residual::<_, _, i8, u8>(&mut sums, &mut noise, 1e-5);
    }
}

#[test]
fn sums_up_to_the_ends_of_int32_under_any_multiplier() {
    let mut noise = Noise::new(73);
    // 2^24 + 1 is the first integer that f32 does not hold.
    let mut sums = vec![0, 1, -1, 16_777_217, -16_777_219, i32::MAX, i32::MAX - 64, -i32::MAX];
    sums.extend((0..31).flat_map(|bit| [1 << bit, -(1 << bit)]));
    for multiplier in [f32::from_bits(1), 1e-30, 1e-9, 5.9e-8, 1.0 / 3.0, 1.0, 1e8] {
        check_stages(&mut Sums::<i8, i8>::given(&sums, 1), &mut noise, multiplier);
        check_stages(&mut Sums::<u8, i8>::given_by_zero_points(&mut noise, &sums, 1), &mut noise, multiplier);
    }
}

#[test]
fn halves_overflow_to_infinity_and_reach_into_the_subnormals() {
    let sums = [65_519, 65_520, -65_519, -65_520, i32::MAX, -i32::MAX, 0, 1, 3, -1];
    for (scale, expected) in [
        (
            1.0,
            [
                65_504.0,
                f32::INFINITY,
                -65_504.0,
                f32::NEG_INFINITY,
                f32::INFINITY,
                f32::NEG_INFINITY,
                0.0,
                1.0,
                3.0,
                -1.0,
            ],
        ),
        // 2^-25 is half of f16's smallest number, a tie that goes to 0. Beside it is one that goes
        // to 2.
        (
            2.0f32.powi(-25),
            [
                65_504.0,
                65_536.0,
                -65_504.0,
                -65_536.0,
                2_147_483_648.0,
                -2_147_483_648.0,
                0.0,
                0.0,
                4.0,
                -0.0,
            ]
            .map(|y: f32| y * 2.0f32.powi(-25)),
        ),
    ] {
        let mut sums = Sums::<u8, i8>::given(&sums, 1);
        let bias = sums.bias.clone();
        let stage = DequantizeTo::<f16>::new(Scales::PerTensor(scale)).unwrap().with_bias(&bias);
        for (kernel, y) in f16::run(&mut sums, &stage) {
            let y: Vec<_> = y.into_iter().map(|bits| f16::from_bits(bits).to_f32().to_bits()).collect();
            assert_eq!(y, expected.map(f32::to_bits), "{kernel}");
        }
    }
    // f32::MAX is beyond bf16 as well.
    let mut sums = Sums::<u8, i8>::given(&[i32::MAX, -i32::MAX], 1);
    let bias = sums.bias.clone();
    let stage =
        DequantizeTo::<bf16>::new(Scales::PerTensor(f32::MAX / 2.0f32.powi(31))).unwrap().with_bias(&bias);
    for (_, y) in bf16::run(&mut sums, &stage) {
        assert_eq!(y, [bf16::INFINITY.to_bits(), bf16::NEG_INFINITY.to_bits()]);
    }
}
