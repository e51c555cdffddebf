//! The demonstrations that draw, one file each.

pub(crate) mod asymmetric;
pub(crate) mod encoder;
pub(crate) mod linear;
pub(crate) mod linear_quantize;
pub(crate) mod mlp;
pub(crate) mod per_channel;
pub(crate) mod quantized_fc;
pub(crate) mod questions;
mod round_trip;
pub(crate) mod sensitivity;
pub(crate) mod symmetric;
pub(crate) mod weight_histograms;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use qcore::CodeRange;

use crate::flags::Demo;
use crate::mnist;
use crate::outcome::show;

/// Runs a demo from the command line.
pub(crate) fn run(demo: Demo) -> Result<()> {
    match demo {
        Demo::Mnist(flags) => mnist::run(&flags),
        Demo::LinearQuantize(flags) => show(&flags.out.out, || linear_quantize::outcome(flags.bitwidth)),
        Demo::QuantizedFc(flags) => show(&flags.out.out, quantized_fc::outcome),
        Demo::WeightHistograms(flags) => {
            show(&flags.out.out, || weight_histograms::outcome(&flags.model, flags.bitwidth))
        }
        Demo::Symmetric(flags) => show(&flags.out.out, || symmetric::outcome(flags.bitwidth)),
        Demo::Asymmetric(flags) => show(&flags.out.out, || asymmetric::outcome(flags.bitwidth)),
        Demo::PerChannel(flags) => show(&flags.out.out, per_channel::outcome),
        Demo::Linear(flags) => show(&flags.out.out, linear::outcome),
        Demo::Mlp(flags) => show(&flags.out.out, mlp::outcome),
        Demo::Questions(flags) => show(&flags.out.out, || questions::outcome(&|| ())),
        Demo::Sensitivity(flags) => show(&flags.out.out, || sensitivity::outcome(&|| ())),
        Demo::Encoder(flags) => {
            let bar =
                ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{elapsed}: {msg}")?);
            let outcome = show(&flags.out.out, || {
                encoder::outcome(&|what| {
                    bar.set_message(what.to_owned());
                    bar.tick();
                })
            });
            bar.finish_and_clear();
            outcome
        }
    }
}

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
