//! Compares requantization with exact rational arithmetic: every step of each definition in 128-bit
//! integers.

use proptest::prelude::*;
use qcore::{
    CodeRange, Q31Multiplier, RequantizeMode, Requantizer, requantize, requantize_add_then_round,
    requantize_add_then_round_f64, requantize_f64, requantize_power_of_two,
};

/// `mantissa * 2^exponent`, exactly.
#[derive(Clone, Copy, Debug)]
struct Rational {
    mantissa: i128,
    exponent: i32,
}

impl Rational {
    fn of_f64(v: f64) -> Rational {
        let bits = v.abs().to_bits();
        let (field, fraction) = ((bits >> 52) as i32, (bits & ((1 << 52) - 1)) as i128);
        let mantissa = if field == 0 { fraction } else { fraction | 1 << 52 };
        let zeros = mantissa.trailing_zeros().min(52);
        let sign = if v < 0.0 { -1 } else { 1 };
        Rational { mantissa: sign * (mantissa >> zeros), exponent: field.max(1) - 1075 + zeros as i32 }
    }

    fn of_int(v: i32) -> Rational {
        Rational { mantissa: v.into(), exponent: 0 }
    }

    fn times(self, other: Rational) -> Rational {
        Rational { mantissa: self.mantissa * other.mantissa, exponent: self.exponent + other.exponent }
    }

    fn plus(self, integer: i32) -> Rational {
        assert!((-90..=60).contains(&self.exponent), "{self:?}");
        match self.exponent {
            e @ ..0 => Rational { mantissa: self.mantissa + (i128::from(integer) << -e), exponent: e },
            e => Rational { mantissa: (self.mantissa << e) + i128::from(integer), exponent: 0 },
        }
    }

    /// Rounded to this many significant bits, ties to even, as a float is.
    fn to_bits(self, bits: u32) -> Rational {
        let length = 128 - self.mantissa.unsigned_abs().leading_zeros();
        let drop = length.saturating_sub(bits);
        Rational { mantissa: divided(self.mantissa, drop, Tie::Even), exponent: self.exponent + drop as i32 }
    }

    fn rounded(self, tie: Tie) -> i128 {
        match self.exponent {
            e @ ..0 => divided(self.mantissa, e.unsigned_abs(), tie),
            e => self.mantissa << e,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Tie {
    Even,
    Up,
    Away,
}

/// `v / 2^shift`, rounded to nearest.
fn divided(v: i128, shift: u32, tie: Tie) -> i128 {
    if shift == 0 || shift > 126 {
        return if shift == 0 { v } else { 0 };
    }
    let (floor, left, half) = (v >> shift, v & ((1 << shift) - 1), 1_i128 << (shift - 1));
    let up = match tie {
        _ if left != half => left > half,
        Tie::Even => floor & 1 == 1,
        Tie::Up => true,
        Tie::Away => v > 0,
    };
    floor + i128::from(up)
}

fn clamped(v: i128, z: i32, codes: CodeRange) -> i32 {
    (v + i128::from(z)).clamp(codes.min().into(), codes.max().into()) as i32
}

fn saturated(v: i128) -> i128 {
    v.clamp(i32::MIN.into(), i32::MAX.into())
}

/// The exact definitions.
fn reference(acc: i32, requantizer: Requantizer, z: i32, codes: CodeRange) -> i32 {
    let exact = Rational::of_int(acc);
    match requantizer {
        Requantizer::RoundThenAdd(m) => {
            let product = exact.to_bits(24).times(Rational::of_f64(m.into())).to_bits(24);
            clamped(product.rounded(Tie::Even), z, codes)
        }
        Requantizer::AddThenRound(m) => {
            let product = exact.to_bits(24).times(Rational::of_f64(m.into())).to_bits(24);
            clamped(product.plus(z).to_bits(24).rounded(Tie::Even), 0, codes)
        }
        Requantizer::RoundThenAddF64(m) => {
            let product = exact.times(Rational::of_f64(m)).to_bits(53);
            clamped(product.rounded(Tie::Even), z, codes)
        }
        Requantizer::AddThenRoundF64(m) => {
            let product = exact.times(Rational::of_f64(m)).to_bits(53);
            clamped(product.plus(z).to_bits(53).rounded(Tie::Even), 0, codes)
        }
        Requantizer::DoubleRounding(m) => {
            let shifted = saturated(i128::from(acc) << m.shift().max(0));
            let high = saturated(divided(shifted * i128::from(m.multiplier()), 31, Tie::Up));
            clamped(divided(high, m.shift().min(0).unsigned_abs(), Tie::Away), z, codes)
        }
        Requantizer::SingleRounding(m) => {
            let product = i128::from(acc) * i128::from(m.multiplier());
            clamped(saturated(divided(product, (31 - m.shift()) as u32, Tie::Up)), z, codes)
        }
        Requantizer::PowerOfTwo(shift) => clamped(divided(acc.into(), shift, Tie::Up), z, codes),
        new => panic!("{new:?} has no exact form here yet"),
    }
}

fn accumulators() -> impl Strategy<Value = i32> {
    let edges = prop::sample::select(vec![i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX - 1, i32::MAX]);
    prop_oneof![any::<i32>(), -70_000..70_000_i32, edges]
}

fn codes() -> impl Strategy<Value = CodeRange> {
    let bits = 2..=8_u32;
    prop_oneof![
        bits.clone().prop_map(|bits| CodeRange::signed(bits).unwrap()),
        bits.prop_map(|bits| CodeRange::unsigned(bits).unwrap()),
        Just(CodeRange::I8_NARROW),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn every_mode_is_its_definition(
        acc in accumulators(), mantissa in 1.0..2.0_f64, exponent in -31..4_i32, z in -128..=255_i32, codes in codes(),
    ) {
        for mode in RequantizeMode::ALL {
            let multiplier = match mode {
                RequantizeMode::PowerOfTwo => f64::from(exponent.min(0)).exp2(),
                _ => mantissa * f64::from(exponent).exp2(),
            };
            let requantizer = mode.requantizer(1.0, 1.0, multiplier.recip()).unwrap();
            prop_assert_eq!(
                requantizer.requantize(acc, z, codes), reference(acc, requantizer, z, codes), "{:?}", requantizer
            );
        }
    }

    #[test]
    fn ties_are_where_modes_differ(acc in -200..200_i32, shift in 0..5_u32, z in -9..9_i32) {
        let m = (-f64::from(shift)).exp2();
        for mode in RequantizeMode::ALL {
            let requantizer = mode.requantizer(m, 1.0, 1.0).unwrap();
            let got = requantizer.requantize(acc, z, CodeRange::I8);
            prop_assert_eq!(got, reference(acc, requantizer, z, CodeRange::I8), "{:?}", requantizer);
            let distance = (f64::from(got - z) - f64::from(acc) * m).abs();
            // Only two roundings can miss the nearest integer: 83 / 8 is 10.375, but 41.5 becomes
            // 42 and then 10.5 becomes 11.
            let bound = if mode == RequantizeMode::DoubleRounding { 0.75 } else { 0.5 };
            prop_assert!(distance <= bound || got == 127 || got == -128, "{:?}", requantizer);
        }
    }

    #[test]
    fn fixed_point_is_within_its_bound(acc: i32, multiplier in 1 << 30..=i32::MAX, shift in -31..=0_i32) {
        let m = Q31Multiplier::new(multiplier, shift).unwrap();
        // The value is below 2^62 and compared in units of 2^-62, so this is exact.
        let exact = (i128::from(acc) * i128::from(multiplier)) << (31 + shift);
        let unit = 1_i128 << 62;
        let single = i128::from(m.multiply_single_rounding(acc)) * unit;
        prop_assert!(2 * (single - exact).abs() <= unit);
        let double = i128::from(m.multiply_double_rounding(acc)) * unit;
        // Half a unit of the first rounding, then half a unit of the second.
        let bound = unit + (unit >> -shift);
        prop_assert!(2 * (double - exact).abs() <= bound);
    }
}

#[test]
fn the_ends_of_i32_are_exact() {
    for acc in [i32::MIN, i32::MAX] {
        for mode in RequantizeMode::ALL {
            for multiplier in [1.0, 0.5, (-8_f64).exp2(), (-24_f64).exp2(), (-31_f64).exp2()] {
                let requantizer = mode.requantizer(multiplier, 1.0, 1.0).unwrap();
                for (z, codes) in [(0, CodeRange::I8), (255, CodeRange::U8), (-128, CodeRange::I8)] {
                    let got = requantizer.requantize(acc, z, codes);
                    assert_eq!(got, reference(acc, requantizer, z, codes), "{acc} {requantizer:?}");
                }
            }
        }
    }
    // The integer forms and the f64 form are not limited to codes; they cover all of i32.
    assert_eq!(requantize_f64(i32::MIN, 1.0, 0, i32::MIN, i32::MAX), i32::MIN);
    assert_eq!(requantize_add_then_round_f64(i32::MAX, 1.0, 0, i32::MIN, i32::MAX), i32::MAX);
    assert_eq!(requantize_power_of_two(i32::MIN, 0, -1, i32::MIN, i32::MAX), i32::MIN);
    assert_eq!(requantize(i32::MAX, 1.0, 1, -128, 127), 127);
    assert_eq!(requantize_add_then_round(i32::MIN, 1.0, -1, -128, 127), -128);
}
