//! `cargo xtask`: everything around the library that is not the library.

#![forbid(unsafe_code)]

mod bench;
#[path = "../../crates/qnn/tests/dataset/mod.rs"]
mod dataset;
mod demo;
mod flags;
mod kernels;
mod pace;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

use flags::{Command, Demo, Flags};

fn main() -> ExitCode {
    let result = match Flags::parse().command {
        Command::Demo { demo: Demo::Mnist(flags) } => demo::mnist::run(&flags),
        Command::Bench(flags) => bench::run(&flags),
        Command::Kernels(flags) => kernels::run(&flags),
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
