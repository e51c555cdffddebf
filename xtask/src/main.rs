//! `cargo xtask`: everything around the library that is not the library.

#![forbid(unsafe_code)]

mod api;
mod bench;
mod cargo;
#[path = "../../crates/qnn/tests/all/dataset.rs"]
mod dataset;
mod demo;
mod figure;
mod flags;
mod kernels;
mod machine;
mod outcome;
mod pace;
mod report;
mod repro;
mod table;
mod tensor_file;
mod tidy;

use std::io::{self, Write, stdout};
use std::process::ExitCode;

use clap::Parser;

use flags::{Command, Demo, Flags};

fn main() -> ExitCode {
    let result = match Flags::parse().command {
        Command::Demo { demo } => run_demo(demo),
        Command::Repro(flags) => repro::run(&flags),
        Command::Bench(flags) => bench::run(&flags),
        Command::Kernels(flags) => kernels::run(&flags),
        Command::Api(flags) => api::run(&flags),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` has read all it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_demo(demo: Demo) -> anyhow::Result<()> {
    match demo {
        Demo::Mnist(flags) => {
            write!(stdout(), "{}", demo::mnist::outcome(&flags, true)?.console())?;
            Ok(())
        }
        Demo::LinearQuantize(flags) => {
            outcome::show(&flags.out.out, || demo::linear_quantize::outcome(flags.bitwidth))
        }
        Demo::QuantizedFc(flags) => outcome::show(&flags.out.out, demo::quantized_fc::outcome),
        Demo::WeightHistograms(flags) => {
            outcome::show(&flags.out.out, || demo::weight_histograms::outcome(&flags.model, flags.bitwidth))
        }
        Demo::Symmetric(flags) => outcome::show(&flags.out.out, || demo::symmetric::outcome(flags.bitwidth)),
        Demo::Asymmetric(flags) => {
            outcome::show(&flags.out.out, || demo::asymmetric::outcome(flags.bitwidth))
        }
        Demo::PerChannel(flags) => outcome::show(&flags.out.out, demo::per_channel::outcome),
        Demo::Linear(flags) => outcome::show(&flags.out.out, demo::linear::outcome),
        Demo::Mlp(flags) => outcome::show(&flags.out.out, demo::mlp::outcome),
        Demo::Questions(flags) => outcome::show(&flags.out.out, || demo::questions::outcome(&|| ())),
        Demo::Sensitivity(flags) => outcome::show(&flags.out.out, || demo::sensitivity::outcome(&|| ())),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The error and its causes without repetition: a cause that an earlier message already contains is
/// dropped, and so is a file that the cause names itself, as in `could not read FILE: ...`.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() || cause.contains(&format!(" {line}: ")) {
            line = cause;
        } else if !line.contains(&format!(": {cause}")) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_says_each_thing_once() {
        let not_found = || anyhow!("not found").context("could not read a b.bin: not found");
        assert_eq!(one_line(&not_found().context("a b.bin")), "could not read a b.bin: not found");
        assert_eq!(one_line(&not_found().context("fc1")), "fc1: could not read a b.bin: not found");
        assert_eq!(one_line(&anyhow!("value NaN").context("a").context("a.bin")), "a.bin: a: value NaN");
    }
}
