//! Finds values that are not finite. Every checked form calls this on all of its input, so it is
//! fast.

/// Index and value of the first of `values` that is NaN or infinite.
///
/// ```
/// assert_eq!(qcore::first_non_finite(&[1.0, f32::MAX, -0.0]), None);
/// assert_eq!(qcore::first_non_finite(&[1.0, f32::INFINITY, f32::NAN]), Some((1, f32::INFINITY)));
/// ```
///
/// The loop is always inlined, so a caller compiled for AVX2 or AVX-512 gets it as vector
/// instructions.
#[inline(always)]
pub fn first_non_finite(values: &[f32]) -> Option<(usize, f32)> {
    // A value that is not finite has an exponent of all ones. Once the sign bit is cleared, adding
    // one to that exponent carries into the sign bit. The loop has no early exit, so it becomes
    // three instructions per vector.
    const EXPONENT_ONE: u32 = f32::MIN_POSITIVE.to_bits();
    let carry = |v: &f32| v.abs().to_bits() + EXPONENT_ONE;
    for (chunk_index, chunk) in values.chunks(256).enumerate() {
        if chunk.iter().fold(0, |bits, v| bits | carry(v)) >> 31 != 0 {
            let at = chunk.iter().position(|v| !v.is_finite())?;
            return Some((chunk_index * 256 + at, chunk[at]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_everywhere() {
        for len in [0, 1, 255, 256, 257, 600] {
            let mut values = vec![-f32::MAX; len];
            assert_eq!(first_non_finite(&values), None);
            for at in 0..len {
                for bad in [f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    assert_eq!(first_non_finite(&values), Some((at, bad)));
                }
                for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
                    values[at] = nan;
                    assert!(first_non_finite(&values).is_some_and(|(i, v)| i == at && v.is_nan()));
                }
                values[at] = f32::from_bits(1);
            }
        }
    }
}
