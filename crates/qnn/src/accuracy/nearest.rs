//! The code nearest to a value in f64.

use qcore::{QParams, Rounding, ZeroPointOrder};

/// The code of a value, as [`QParams::quantize`] defines it, but in f64: a weight that makes up for
/// the errors of others is a sum, and rounding it to f32 first could put it on a tie.
pub(crate) fn nearest_code(params: &QParams, value: f64) -> i32 {
    let zero_point = f64::from(params.zero_point());
    let round = |v: f64| match params.rounding() {
        Rounding::TiesToEven => v.round_ties_even(),
        Rounding::TiesAway => v.round(),
    };
    let quotient = value / f64::from(params.divisor());
    let code = match params.order() {
        ZeroPointOrder::RoundThenAdd => round(quotient) + zero_point,
        ZeroPointOrder::AddThenRound => round(quotient + zero_point),
    };
    let code = if code.is_nan() { zero_point } else { code };
    // Both ends are integers, so the cast is exact.
    code.clamp(f64::from(params.codes().min()), f64::from(params.codes().max())) as i32
}

/// The value of a code in f64, where the product of a scale and a difference of codes is exact.
pub(crate) fn exact_value(params: &QParams, code: i32) -> f64 {
    f64::from(params.scale()) * (f64::from(code) - f64::from(params.zero_point()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcore::CodeRange;

    #[test]
    fn codes_of_f32_values_are_those_of_the_definition() {
        let orders = [ZeroPointOrder::RoundThenAdd, ZeroPointOrder::AddThenRound];
        for order in orders {
            for rounding in [Rounding::TiesToEven, Rounding::TiesAway] {
                for zero_point in [-8, -3, 0, 7] {
                    // Quotients by a power of two are exact in f32, so both have the same ties.
                    let params = QParams::new(0.25, zero_point, CodeRange::signed(4).unwrap()).unwrap();
                    let params = params.with_order(order).with_rounding(rounding);
                    let values = (-200..200).map(|i| i as f32 / 32.0);
                    for x in values.chain([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30]) {
                        let code = nearest_code(&params, f64::from(x));
                        assert_eq!(code, params.quantize(x), "{x} {params:?}");
                        assert_eq!(exact_value(&params, code) as f32, params.dequantize(code));
                    }
                }
            }
        }
        let constant = QParams::with_divisor(1.0, f32::INFINITY, 3, CodeRange::I8).unwrap();
        assert_eq!([5.0, f64::INFINITY].map(|x| nearest_code(&constant, x)), [3, 3]);
        let distant = QParams::with_distant_zero_point(0.5, -300, CodeRange::I8).unwrap();
        assert_eq!([f64::NAN, 100.0].map(|x| nearest_code(&distant, x)), [-128, -100]);
    }
}
