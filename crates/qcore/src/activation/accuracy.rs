//! Compares the curves with their formulas in f64, and checks their results for every kind of
//! value.

use super::ActivationFunction::{Clamp, Gelu, GeluTanh, HardSwish, Identity, LeakyRelu, Relu, Silu};
use super::{ActivationError, ActivationFunction};

const ALL: [ActivationFunction; 8] =
    [Identity, Relu, ActivationFunction::RELU6, LeakyRelu { slope: 0.01 }, Gelu, GeluTanh, Silu, HardSwish];

/// The distribution function of the normal distribution at -a for a >= 0, with a relative error of
/// about 1e-14.
fn phi_below(a: f64) -> f64 {
    let density = (-a * a / 2.0).exp() / core::f64::consts::TAU.sqrt();
    if a < 3.0 {
        // 1/2 - density * (a + a^3 / 3 + a^5 / (3 * 5) + ...). All terms have one sign.
        let (mut term, mut sum, mut k) = (a, a, 1.0);
        while term > sum * 1e-18 {
            k += 2.0;
            term *= a * a / k;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    phi_far_below(a)
}

/// The same by the continued fraction 1 / (a + 1 / (a + 2 / (a + 3 / ...))), which converges unless
/// a is small.
fn phi_far_below(a: f64) -> f64 {
    let density = (-a * a / 2.0).exp() / core::f64::consts::TAU.sqrt();
    density / (1..=150).rev().fold(a, |rest, k| a + f64::from(k) / rest)
}

fn times_sigmoid(y: f64, x: f64) -> f64 {
    if x < 0.0 { y * x.exp() / (1.0 + x.exp()) } else { y / (1.0 + (-x).exp()) }
}

/// The formula in f64.
fn exact(function: ActivationFunction, y: f32) -> f64 {
    let y = f64::from(y);
    match function {
        Gelu if y < 0.0 => y * phi_below(-y),
        Gelu => y * (1.0 - phi_below(y)),
        GeluTanh => times_sigmoid(y, 2.0 * core::f64::consts::FRAC_2_PI.sqrt() * (y + 0.044715 * y.powi(3))),
        Silu => times_sigmoid(y, y),
        HardSwish => y * ((y + 3.0).clamp(0.0, 6.0) / 6.0),
        _ => unreachable!("{function} is no curve"),
    }
}

/// The largest relative error for `y >= from`, and the largest absolute error of all other finite
/// values. Tries every `step`th float of both signs and all exponents.
fn worst(function: ActivationFunction, from: f32, step: usize) -> (f64, f64) {
    let (mut relative, mut absolute) = (0.0_f64, 0.0_f64);
    for bits in (0..0x7f80_0000_u32).step_by(step) {
        for y in [f32::from_bits(bits), -f32::from_bits(bits)] {
            let exact = exact(function, y);
            let error = (f64::from(function.apply(y)) - exact).abs();
            // A subnormal result has fewer digits, so only its absolute error counts.
            if y >= from && exact.abs() >= f64::from(f32::MIN_POSITIVE) {
                relative = relative.max(error / exact.abs());
            } else {
                absolute = absolute.max(error);
            }
        }
    }
    (relative, absolute)
}

#[test]
fn both_forms_of_the_reference_agree() {
    for i in 200..=300 {
        let a = f64::from(i) / 100.0;
        let (near, far) = (phi_below(a - 1e-9), phi_far_below(a - 1e-9));
        assert!((near - far).abs() < 2e-13 * far, "{a}: {near:e} {far:e}");
    }
    // From a computation in 40 digits.
    assert!((phi_below(1.0) / 0.158_655_253_931_457_05 - 1.0).abs() < 1e-14);
    assert!((phi_below(10.0) / 7.619_853_024_160_527e-24 - 1.0).abs() < 1e-12);
}

/// The bounds that the documentation of [`ActivationFunction`] states.
#[test]
fn the_errors_of_the_curves_are_as_stated() {
    for (function, from, relative_bound, absolute_bound) in [
        (Gelu, -13.0, 5e-7, 1e-43),
        (GeluTanh, -3.0, 1.2e-6, 4e-9),
        (GeluTanh, -9.0, 1.3e-5, 2e-33),
        (Silu, -85.0, 2.5e-7, 2e-42),
        (HardSwish, -3.0, 2e-7, 1e-45),
    ] {
        let (relative, absolute) = worst(function, from, 4099);
        assert!(relative <= relative_bound, "{function} from {from}: {relative:e}");
        assert!(absolute <= absolute_bound, "{function} below {from}: {absolute:e}");
    }
}

/// A curve lies between 0 and y. Checked at every multiple of 1/64.
#[test]
fn curves_are_bounded_by_what_they_bend() {
    for i in -1280..1280 {
        let y = i as f32 / 64.0;
        for function in [Gelu, GeluTanh, Silu, HardSwish] {
            let f = function.apply(y);
            assert!(y.min(0.0) <= f && f <= y.max(0.0), "{function}({y}) = {f}");
        }
    }
}

#[test]
fn every_value_has_a_result() {
    for function in ALL {
        assert!(function.apply(f32::NAN).is_nan(), "{function}");
        assert!(function.apply(f32::from_bits(0xff80_0001)).is_nan(), "{function}");
        let bits = |y: f32| function.apply(y).to_bits();
        // 0 and -0.0 stay as they are.
        assert_eq!(bits(0.0), 0, "{function}");
        assert_eq!(bits(-0.0), (-0.0_f32).to_bits(), "{function}");
        if !matches!(function, Clamp { .. }) {
            assert_eq!(bits(f32::INFINITY), f32::INFINITY.to_bits(), "{function}");
            assert_eq!(bits(f32::MAX), f32::MAX.to_bits(), "{function}");
        }
    }
    for curve in [Gelu, GeluTanh, Silu, HardSwish] {
        for y in [-200.0, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(curve.apply(y).to_bits(), (-0.0_f32).to_bits(), "{curve}({y})");
        }
    }
    for (function, low) in [
        (Identity, f32::NEG_INFINITY),
        (Relu, 0.0),
        (ActivationFunction::RELU6, 0.0),
        (LeakyRelu { slope: 0.01 }, f32::NEG_INFINITY),
        (LeakyRelu { slope: 0.0 }, 0.0),
        (LeakyRelu { slope: -1.0 }, f32::INFINITY),
        (Clamp { min: f32::NEG_INFINITY, max: 1.0 }, f32::NEG_INFINITY),
    ] {
        assert_eq!(function.apply(f32::NEG_INFINITY).to_bits(), low.to_bits(), "{function}");
    }
}

#[test]
fn a_slice_is_every_value_of_it() {
    let values: Vec<f32> = (0..=u32::MAX).step_by(1_000_003).map(f32::from_bits).collect();
    for function in ALL {
        let mut applied = values.clone();
        function.apply_slice(&mut applied);
        for (&y, applied) in values.iter().zip(applied) {
            let alone = function.apply(y);
            assert!(
                alone.to_bits() == applied.to_bits() || alone.is_nan() && applied.is_nan(),
                "{function}({y})"
            );
        }
    }
}

#[test]
fn names_and_parameters_come_back() {
    for function in ALL {
        let parameters: Vec<f32> = function.parameters().collect();
        assert_eq!(ActivationFunction::from_name(function.name(), &parameters), Ok(function));
        let more = [parameters, vec![1.0]].concat();
        assert!(matches!(
            ActivationFunction::from_name(function.name(), &more),
            Err(ActivationError::Parameters { got, .. }) if got == more.len()
        ));
    }
    assert_eq!(ActivationFunction::RELU6.to_string(), "clamp(0, 6)");
    assert_eq!(Gelu.to_string(), "gelu");
    let error = ActivationFunction::from_name("mish", &[]).unwrap_err();
    assert_eq!(error.to_string(), "there is no activation function \"mish\"");
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    for (min, max) in [(f32::NAN, 0.0), (0.0, f32::NAN), (1.0, 0.0), (f32::INFINITY, f32::NEG_INFINITY)] {
        assert!(matches!(Clamp { min, max }.check(), Err(ActivationError::Clamp { .. })), "{min} {max}");
        assert!(ActivationFunction::from_name("clamp", &[min, max]).is_err());
    }
    for (min, max) in [(0.0, 0.0), (f32::NEG_INFINITY, f32::INFINITY), (-1.0, 1.0)] {
        assert!(Clamp { min, max }.check().is_ok(), "{min} {max}");
    }
    for slope in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(LeakyRelu { slope }.check().is_err(), "{slope}");
    }
    assert!(LeakyRelu { slope: -2.0 }.check().is_ok());
}
