//! The demonstrations, one file each.

pub(crate) mod asymmetric;
mod float_model;
pub(crate) mod linear;
pub(crate) mod linear_quantize;
pub(crate) mod mlp;
pub(crate) mod mnist;
pub(crate) mod per_channel;
pub(crate) mod quantized_fc;
pub(crate) mod questions;
mod round_trip;
pub(crate) mod sensitivity;
pub(crate) mod symmetric;
pub(crate) mod weight_histograms;

use anyhow::{Result, ensure};
use qcore::CodeRange;

/// The signed codes of this many bits.
fn signed_codes(bits: u32) -> Result<CodeRange> {
    ensure!((2..=8).contains(&bits), "bitwidth {bits}: expected 2 to 8");
    Ok(CodeRange::signed(bits)?)
}

/// Fails at the first element that differs from what is expected.
fn expect_equal<T: PartialEq + std::fmt::Display>(what: &str, got: &[T], expected: &[T]) -> Result<()> {
    ensure!(got.len() == expected.len(), "{what}: expected {} elements, got {}", expected.len(), got.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        ensure!(got == expected, "{what}: expected {expected} at index {i}, got {got}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitwidths_that_have_no_codes_are_errors() {
        assert_eq!(signed_codes(2).unwrap().min(), -2);
        for bits in [0, 1, 9, 32] {
            let error = signed_codes(bits).unwrap_err().to_string();
            assert_eq!(error, format!("bitwidth {bits}: expected 2 to 8"));
        }
    }

    #[test]
    fn a_difference_is_named() {
        assert!(expect_equal("codes", &[1, 2], &[1, 2]).is_ok());
        let error = expect_equal("codes", &[1, 2], &[1, 3]).unwrap_err().to_string();
        assert_eq!(error, "codes: expected 3 at index 1, got 2");
        assert!(expect_equal("codes", &[1], &[1, 3]).is_err());
    }
}
