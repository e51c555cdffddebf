//! `cargo xtask`: everything around the library that is not the library.

#![forbid(unsafe_code)]

mod api;
mod bench;
mod cargo;
#[path = "../../crates/qnn/tests/dataset/mod.rs"]
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
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_demo(demo: Demo) -> anyhow::Result<()> {
    match demo {
        Demo::Mnist(flags) => {
            print!("{}", demo::mnist::outcome(&flags, true)?.console());
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

/// The error and its causes, without those that an earlier message already contains.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line
}
