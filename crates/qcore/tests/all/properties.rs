//! Properties that hold for every input, tested by proptest.

use proptest::prelude::*;
use qcore::{
    CodeRange, QParams, Range, Rounding, Scheme, ZeroPointOrder, quantize_slice, quantize_tensor, requantize,
    requantize_add_then_round,
};

/// Any valid parameters, with scales over most of f32's range.
fn params() -> impl Strategy<Value = QParams> {
    let codes = prop_oneof![Just(CodeRange::I8), Just(CodeRange::U8), Just(CodeRange::I8_NARROW), signed()];
    (codes, 0.0..=1.0_f64, -36.0..36.0_f64, any::<bool>()).prop_map(|(codes, at, exponent, before)| {
        let zero_point = codes.min() + (at * f64::from(codes.steps())).round() as i32;
        let order = if before { ZeroPointOrder::AddThenRound } else { ZeroPointOrder::RoundThenAdd };
        QParams::with_f64_scale(10_f64.powf(exponent), zero_point, codes).unwrap().with_order(order)
    })
}

fn signed() -> impl Strategy<Value = CodeRange> {
    (2..=8_u32).prop_map(|bits| CodeRange::signed(bits).unwrap())
}

/// Any f32; every bit pattern is equally likely.
fn bits() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn finite() -> impl Strategy<Value = f32> {
    bits().prop_map(|v| if v.is_finite() { v } else { 1.0 })
}

/// The presets for f32 values: all but the one that computes in f16.
fn presets(bits: u32) -> Vec<(&'static str, Scheme)> {
    let (signed, unsigned) = (CodeRange::signed(bits).unwrap(), CodeRange::unsigned(bits).unwrap());
    let mut presets = vec![
        ("weights_i8", Scheme::weights_i8()),
        ("activations_u8", Scheme::activations_u8()),
        ("activations_i8", Scheme::activations_i8()),
        ("tinytorch", Scheme::tinytorch()),
        ("rowwise_epsilon", Scheme::rowwise_epsilon()),
        ("rowwise_described", Scheme::rowwise_described()),
        ("tflite_weights", Scheme::tflite_weights()),
    ];
    for codes in [signed, unsigned] {
        presets.extend([
            ("tutorial_affine", Scheme::tutorial_affine(codes)),
            ("onnx_dynamic", Scheme::onnx_dynamic(codes)),
            ("lab2_linear", Scheme::lab2_linear(codes)),
            ("pytorch_affine", Scheme::pytorch_affine(codes)),
            ("tflite_activations", Scheme::tflite_activations(codes)),
        ]);
    }
    presets.extend([
        ("tutorial_symmetric", Scheme::tutorial_symmetric(signed)),
        ("lab2_weights", Scheme::lab2_weights(signed)),
        ("pytorch_symmetric", Scheme::pytorch_symmetric(signed)),
        ("pytorch_symmetric, unsigned", Scheme::pytorch_symmetric(unsigned)),
    ]);
    presets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_input_becomes_a_code(p in params(), x in bits()) {
        prop_assert!(p.codes().contains(p.quantize(x)));
        prop_assert!(p.codes().contains(p.quantize_by_reciprocal(x)));
        if x.is_nan() {
            prop_assert_eq!(p.quantize(x), p.zero_point());
        }
    }

    #[test]
    fn quantize_is_its_formula(p in params(), x in bits()) {
        prop_assume!(!x.is_nan());
        let (lo, hi, z) = (p.codes().min() as f32, p.codes().max() as f32, p.zero_point() as f32);
        let expected = match p.order() {
            ZeroPointOrder::RoundThenAdd => ((x / p.scale()).round_ties_even() + z).clamp(lo, hi),
            ZeroPointOrder::AddThenRound => (x / p.scale() + z).round_ties_even().clamp(lo, hi),
        };
        prop_assert_eq!(p.quantize(x), expected as i32);
    }

    #[test]
    fn quantize_keeps_order(p in params(), x in finite(), y in finite()) {
        let (low, high) = if x <= y { (x, y) } else { (y, x) };
        prop_assert!(p.quantize(low) <= p.quantize(high));
    }

    #[test]
    fn every_code_survives_a_round_trip(p in params()) {
        for code in p.codes().min()..=p.codes().max() {
            prop_assert_eq!(p.quantize(p.dequantize(code)), code);
        }
        prop_assert_eq!(p.quantize(0.0), p.zero_point());
        prop_assert_eq!(p.dequantize(p.zero_point()), 0.0);
    }

    #[test]
    fn in_range_the_error_is_half_a_step(p in params(), at in 0.0..=1.0_f32) {
        let (low, high) = (p.dequantize(p.codes().min()), p.dequantize(p.codes().max()));
        let x = low * (1.0 - at) + high * at;
        let error = (f64::from(p.fake_quantize(x)) - f64::from(x)).abs();
        // The rounding of the quotient and of the product, relative to the value, is added.
        let rounding = f64::from(x.abs().max(p.scale())) * f64::from(f32::EPSILON) * 256.0;
        prop_assert!(error <= f64::from(p.scale()) * 0.5 + rounding);
    }

    /// Every preset, at every width it allows, over a range that contains 0 and `x`.
    #[test]
    fn under_every_preset_the_error_is_half_a_step(
        low in -100.0..0.0_f32, high in 1.0..100.0_f32, at in 0.0..=1.0_f32, bits in 2..=8_u32,
    ) {
        let range = Range::new(low, high).unwrap();
        let x = (low + (high - low) * at).clamp(low, high);
        for (name, scheme) in presets(bits) {
            let p = scheme.choose(range).unwrap();
            let error = (f64::from(p.fake_quantize(x)) - f64::from(x)).abs();
            // The error beyond half a step comes from two roundings. Each is half an ulp of the
            // largest magnitude or, just below a power of two, nearly one ulp.
            let rounding = f64::from(range.abs_max()) * f64::from(f32::EPSILON);
            prop_assert!(error <= p.scale_f64() / 2.0 + rounding, "{name}: {x} in {range:?}, {error}, {p:?}");
        }
    }

    #[test]
    fn every_preset_keeps_order(x in finite(), y in finite(), low in -100.0..0.0_f32, high in 0.0..100.0_f32) {
        let (below, above) = (x.min(y), x.max(y));
        for (name, scheme) in presets(8) {
            if let Ok(p) = scheme.choose(Range::new(low, high).unwrap()) {
                prop_assert!(p.quantize(below) <= p.quantize(above), "{name}");
            }
        }
    }

    #[test]
    fn default_schemes_restore_what_they_observed(x in prop::collection::vec(-1e20..1e20_f32, 1..200)) {
        for scheme in [Scheme::weights_i8(), Scheme::activations_i8()] {
            let (codes, p) = quantize_tensor::<i8>(&x, &scheme).unwrap();
            for (&q, &x) in codes.iter().zip(&x) {
                let error = (f64::from(p.dequantize(q.into())) - f64::from(x)).abs();
                prop_assert!(error <= f64::from(p.scale()) * 0.5001, "{x} {p:?}");
            }
        }
        let (unsigned, p) = quantize_tensor::<u8>(&x, &Scheme::activations_u8()).unwrap();
        let (signed, _) = quantize_tensor::<i8>(&x, &Scheme::activations_i8()).unwrap();
        prop_assert!(p.scale() > 0.0);
        // The zero points -128 - r and 0 - r round alike, so the codes have the same steps, 128
        // apart.
        prop_assert!(unsigned.iter().zip(&signed).all(|(&u, &i)| i32::from(u) == i32::from(i) + 128));
    }

    #[test]
    fn a_slice_is_its_elements(p in params(), x in prop::collection::vec(bits(), 0..300)) {
        let one_by_one: Vec<i32> = x.iter().map(|&v| p.quantize(v)).collect();
        let widened: Vec<i32> = if p.codes().min() < 0 {
            let mut codes = vec![0_i8; x.len()];
            quantize_slice(&x, &p, &mut codes).unwrap();
            codes.into_iter().map(i32::from).collect()
        } else {
            let mut codes = vec![0_u8; x.len()];
            quantize_slice(&x, &p, &mut codes).unwrap();
            codes.into_iter().map(i32::from).collect()
        };
        prop_assert_eq!(widened, one_by_one);
    }

    #[test]
    fn a_range_holds_its_values(x in prop::collection::vec(bits(), 0..300)) {
        let kept: Vec<f32> = x.iter().copied().filter(|v| v.is_finite()).collect();
        match Range::of_finite(&x) {
            Some(range) => {
                prop_assert_eq!(range.min(), kept.iter().copied().fold(f32::INFINITY, f32::min));
                prop_assert_eq!(range.max(), kept.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                prop_assert_eq!(Range::of(&x).is_ok(), kept.len() == x.len());
            }
            None => prop_assert!(kept.is_empty()),
        }
    }

    #[test]
    fn requantize_is_its_formula(acc: i32, exponent in -40.0..10.0_f32, z in -128..=255_i32, signed: bool) {
        let m = exponent.exp2();
        let (lo, hi) = if signed { (-128, 127) } else { (0, 255) };
        let product = acc as f32 * m;
        let rounded = f64::from(product).round_ties_even() + f64::from(z);
        prop_assert_eq!(requantize(acc, m, z, lo, hi), rounded.clamp(lo.into(), hi.into()) as i32);
        let rounded = f64::from(product + z as f32).round_ties_even();
        prop_assert_eq!(requantize_add_then_round(acc, m, z, lo, hi), rounded.clamp(lo.into(), hi.into()) as i32);
    }
}

/// The code of `x` by the functions of the standard library.
fn code_by_the_formula(p: &QParams, x: f32) -> i32 {
    let round = |v: f32| match p.rounding() {
        Rounding::TiesToEven => v.round_ties_even(),
        Rounding::TiesAway => v.round(),
    };
    let (quotient, z) = (x / p.divisor(), p.zero_point());
    let code = match p.order() {
        _ if quotient.is_nan() => f64::from(z),
        ZeroPointOrder::RoundThenAdd => f64::from(round(quotient)) + f64::from(z),
        ZeroPointOrder::AddThenRound => f64::from(round(quotient + z as f32)),
    };
    code.clamp(p.codes().min().into(), p.codes().max().into()) as i32
}

/// With all orders and roundings.
fn check_codes(p: QParams, x: &[f32]) {
    for order in [ZeroPointOrder::RoundThenAdd, ZeroPointOrder::AddThenRound] {
        for rounding in [Rounding::TiesToEven, Rounding::TiesAway] {
            let p = p.with_order(order).with_rounding(rounding);
            let mut codes = vec![i32::MIN; x.len()];
            p.quantize_each(x, &mut codes, |code| code);
            for (&x, code) in x.iter().zip(codes) {
                assert_eq!(code, code_by_the_formula(&p, x), "{x:e} {p:?}");
                assert_eq!(code, p.quantize(x), "{x:e} {p:?}");
            }
        }
    }
}

#[test]
fn slices_have_the_codes_of_the_formula_at_and_beside_every_tie() {
    let tiny = f32::from_bits(1);
    let specials = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, tiny, -tiny];
    let scales = [
        tiny,
        f32::from_bits(12_345),
        f32::MIN_POSITIVE,
        1e-30,
        4.0 / 255.0,
        0.1_f32.next_down(),
        0.1,
        0.25,
        1.0 / 3.0,
        1.0,
        7.77,
        1e30,
        f32::MAX / 256.0,
        f32::MAX,
    ];
    for scale in scales {
        let mut x = specials.to_vec();
        for half_steps in -530..=530 {
            let tie = half_steps as f32 / 2.0 * scale;
            let (mut up, mut down) = (tie, tie);
            x.push(tie);
            for _ in 0..4 {
                (up, down) = (up.next_up(), down.next_down());
                x.extend([up, down]);
            }
        }
        for (zero_point, codes) in [
            (0, CodeRange::U8),
            (1, CodeRange::U8),
            (128, CodeRange::U8),
            (255, CodeRange::U8),
            (-128, CodeRange::I8),
            (0, CodeRange::I8_NARROW),
            (5, CodeRange::signed(4).unwrap()),
        ] {
            check_codes(QParams::new(scale, zero_point, codes).unwrap(), &x);
        }
        check_codes(QParams::with_distant_zero_point(scale.into(), -300, CodeRange::U8).unwrap(), &x);
        check_codes(QParams::with_divisor(1.0, f32::INFINITY, 3, CodeRange::I8).unwrap(), &x);
    }
}

proptest! {
    #[test]
    fn slices_have_the_codes_of_the_formula(
        p in params(),
        quotients in prop::collection::vec(-300.0..300.0_f32, 0..100),
        any in prop::collection::vec(bits(), 0..100),
    ) {
        let near = quotients.iter().map(|q| q * p.scale());
        let x: Vec<f32> = near.chain(any.iter().copied()).collect();
        check_codes(p, &x);
    }
}
