//! `cargo xtask`: everything around the library that is not the library.

#![forbid(unsafe_code)]

mod api;
mod cargo;
#[path = "../../crates/qnn/tests/all/dataset.rs"]
mod dataset;
mod flags;
#[cfg_attr(not(feature = "figures"), allow(dead_code, reason = "the demos that draw use all of it"))]
mod float_model;
mod kernels;
mod mnist;
mod pace;
mod tidy;

// What draws, and so takes longer to compile than all of the above.
#[cfg(feature = "figures")]
mod bench;
#[cfg(feature = "figures")]
mod demo;
#[cfg(feature = "figures")]
mod figure;
#[cfg(feature = "figures")]
mod machine;
#[cfg(feature = "figures")]
mod outcome;
#[cfg(feature = "figures")]
mod report;
#[cfg(feature = "figures")]
mod repro;
#[cfg(feature = "figures")]
mod table;
#[cfg(feature = "figures")]
mod tensor_file;

use std::io;
use std::process::ExitCode;

use clap::Parser;

#[cfg(not(feature = "figures"))]
use flags::Demo;
use flags::{Command, Flags};

fn main() -> ExitCode {
    match run(Flags::parse().command) {
        Ok(code) => code,
        // A reader such as `head` has read all it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Kernels(flags) => kernels::run(&flags)?,
        Command::Api(flags) => api::run(&flags)?,
        Command::Tidy => tidy::run()?,

        #[cfg(feature = "figures")]
        Command::Demo { demo } => demo::run(demo)?,
        #[cfg(feature = "figures")]
        Command::Repro(flags) => repro::run(&flags)?,
        #[cfg(feature = "figures")]
        Command::Bench(flags) => bench::run(&flags)?,

        #[cfg(not(feature = "figures"))]
        Command::Demo { demo: Demo::Mnist(flags) } => mnist::run(&flags)?,
        #[cfg(not(feature = "figures"))]
        Command::Demo { .. } | Command::Repro(_) | Command::Bench(_) => return cargo::run_with_figures(),
    }
    Ok(ExitCode::SUCCESS)
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
