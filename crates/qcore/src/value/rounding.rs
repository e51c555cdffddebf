//! Rounding to the nearest integer by one addition, ties to even, and a form with ties away from
//! zero built on it.
//!
//! Adding 1.5 * 2^23 to a small f32 leaves no bits for a fraction, so the addition itself rounds,
//! in the mode that Rust guarantees: to nearest, ties to even. The integer is then in the low bits
//! of the sum. Unlike `f32::round_ties_even` this needs no instruction beyond SSE2, and unlike
//! `as i32` it needs no special handling of NaN. A loop around it becomes vector code on any
//! target.

/// 1.5 * 2^23: sums with `|v| <= 2^22` stay in one binade, where the spacing is 1.
const MAGIC_F32: f32 = 12_582_912.0;

/// 1.5 * 2^52, the same for f64. Its low 32 bits are 0, so the low 32 bits of the sum are the
/// integer in two's complement.
const MAGIC_F64: f64 = 6_755_399_441_055_744.0;

/// The largest bound that [`round_clamped`] takes.
pub(crate) const LIMIT: i32 = 1 << 22;

/// `round_ties_even(v)` clamped to `lo..=hi`. The bounds are integers within ±[`LIMIT`]. NaN
/// becomes `lo`.
///
/// Clamping before rounding gives the same result, because rounding keeps the order of values and
/// leaves integers unchanged.
#[inline(always)]
pub(crate) fn round_clamped(v: f32, lo: f32, hi: f32) -> i32 {
    // Written as comparisons these are the single instructions maxps and minps, and NaN takes the
    // same path.
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    ((v + MAGIC_F32).to_bits() as i32).wrapping_sub(MAGIC_F32.to_bits() as i32)
}

/// `round_ties_even(v)` for `|v| <= 2^22`, as a float and as an integer. NaN gives NaN and an
/// arbitrary integer.
#[inline(always)]
pub(crate) fn round_small(v: f32) -> (f32, i32) {
    let sum = v + MAGIC_F32;
    (sum - MAGIC_F32, (sum.to_bits() as i32).wrapping_sub(MAGIC_F32.to_bits() as i32))
}

/// [`round_clamped`] with ties away from zero.
#[inline(always)]
pub(crate) fn round_clamped_ties_away(v: f32, lo: f32, hi: f32) -> i32 {
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    let (even, code) = round_small(v);
    // This subtraction is exact. If a tie was rounded toward zero, what is left has the sign of the
    // value.
    let toward_zero = v - even == 0.5_f32.copysign(v);
    let away = 1 | v.to_bits().cast_signed() >> 31;
    code + if toward_zero { away } else { 0 }
}

/// [`round_clamped`] in f64, modulo 2^32. The bounds are integers within ±2^51.
#[inline(always)]
pub(crate) fn round_clamped_f64(v: f64, lo: f64, hi: f64) -> i32 {
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    (v + MAGIC_F64).to_bits() as i32
}

/// `v.round_ties_even()`, but for the sign of a 0. That is an instruction which not every CPU has,
/// and a call where the compiler may not use it.
#[inline(always)]
pub(crate) fn round_f64(v: f64) -> f64 {
    const EXACT: f64 = 2_251_799_813_685_248.0; // 2^51
    if v.abs() <= EXACT { v + MAGIC_F64 - MAGIC_F64 } else { v.round_ties_even() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the trick must compute.
    fn round_then_clamp(v: f32, lo: f32, hi: f32) -> i32 {
        v.round_ties_even().clamp(lo, hi) as i32
    }

    #[test]
    fn equals_rounding_then_clamping_around_every_tie() {
        let bounds = [
            (-128.0, 127.0),
            (0.0, 255.0),
            (-127.0, 127.0),
            (-255.0, 0.0),
            (-1.0, 0.0),
            (-2.0, 1.0),
            (0.0, 0.0),
        ];
        for (lo, hi) in bounds {
            for half_steps in -1100..=1100 {
                let tie = half_steps as f32 / 2.0;
                for v in [
                    tie,
                    tie.next_down(),
                    tie.next_up(),
                    tie.next_down().next_down(),
                    tie.next_up().next_up(),
                ] {
                    assert_eq!(round_clamped(v, lo, hi), round_then_clamp(v, lo, hi), "{v} in {lo}..={hi}");
                    let away = v.round().clamp(lo, hi) as i32;
                    assert_eq!(round_clamped_ties_away(v, lo, hi), away, "{v} in {lo}..={hi}");
                    assert_eq!(
                        round_clamped_f64(v.into(), lo.into(), hi.into()),
                        round_then_clamp(v, lo, hi),
                        "{v}"
                    );
                }
            }
        }
    }

    #[test]
    fn equals_rounding_then_clamping_over_all_magnitudes() {
        let limit = LIMIT as f32;
        // Every 251st bit pattern: all exponents, both signs, subnormals and infinities.
        for bits in (0..=u32::MAX).step_by(251) {
            let v = f32::from_bits(bits);
            if !v.is_nan() {
                assert_eq!(round_clamped(v, -limit, limit), round_then_clamp(v, -limit, limit), "{v}");
                let away = v.round().clamp(-limit, limit) as i32;
                assert_eq!(round_clamped_ties_away(v, -limit, limit), away, "{v}");
            }
        }
    }

    #[test]
    fn f64_is_rounded_as_the_standard_library_does() {
        let limit = 2_251_799_813_685_248.0_f64;
        let halves = (-2000..=2000).map(|i| f64::from(i) / 2.0);
        let ends = [limit, 2.0 * limit, 4.0 * limit, 1e300, f64::MIN_POSITIVE, f64::INFINITY];
        let near = halves.chain(ends).flat_map(|v| [v, v.next_up(), v.next_down(), -v]);
        let any = (0..1_000_000_u64).map(|i| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        for v in near.chain(any).filter(|v| !v.is_nan()) {
            assert_eq!(round_f64(v), v.round_ties_even(), "{v}");
        }
        assert!(round_f64(f64::NAN).is_nan());
    }

    #[test]
    fn nan_becomes_the_lower_bound() {
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)] {
            assert_eq!(round_clamped(nan, -128.0, 127.0), -128);
            assert_eq!(round_clamped_f64(nan.into(), -128.0, 127.0), -128);
        }
    }

    #[test]
    fn f64_covers_all_of_i32() {
        let (lo, hi) = (f64::from(i32::MIN), f64::from(i32::MAX));
        for v in [
            lo,
            lo + 0.5,
            lo + 1.5,
            -0.5,
            0.5,
            1.5,
            hi - 1.5,
            hi - 0.5,
            hi,
            hi * 2.0,
            lo * 2.0,
            f64::INFINITY,
        ] {
            assert_eq!(round_clamped_f64(v, lo, hi), v.round_ties_even().clamp(lo, hi) as i32, "{v}");
        }
    }
}
