//! Runs a bench as a child, keeps its records and writes them to a file as they come.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qbenches::{Kind, Record};

use super::THREADS;
use crate::cargo;
use crate::flags::Bench;
use crate::machine::Machine;

/// The name of the bench that has other libraries.
pub(crate) const ROOFLINE: &str = "roofline";

/// A file of records, each with the machine that it is of.
pub(crate) struct Csv<'m> {
    file: File,
    machine: &'m Machine,
}

impl<'m> Csv<'m> {
    /// Writes the names of the columns.
    pub(crate) fn new(mut file: File, machine: &'m Machine) -> Result<Self> {
        writeln!(file, "cpu,date,threads,{}", Record::HEADER)?;
        Ok(Self { file, machine })
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let Machine { cpu, date } = self.machine;
        Ok(writeln!(self.file, "{cpu},{date},{THREADS},{line}")?)
    }
}

/// The records of the bench called `name` on `count` shapes.
pub(crate) fn measure(flags: &Bench, name: &str, count: usize, csv: &mut Csv<'_>) -> Result<Vec<Record>> {
    let mut command = cargo::command();
    command.args(["bench", "--package", "qbenches", "--bench", name]);
    if flags.tract && name == ROOFLINE {
        command.args(["--features", "tract"]);
    }
    command.args(["--", "--csv", "-"]).args(&flags.filter);
    // The output of cargo's build stays visible. The bar appears with the first line of the bench.
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo bench")?;
    let output = child.stdout.take().context("cargo bench has no output")?;

    let bar = ProgressBar::hidden();
    let mut records: Vec<Record> = Vec::new();
    let mut shape = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line == Record::HEADER {
            bar.set_length(count as u64);
            let template = format!("{name} {{bar:30}} {{pos}}/{{len}} shapes, {{elapsed}}: {{msg}}");
            bar.set_style(ProgressStyle::with_template(&template)?);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_message("reading memory");
            continue;
        }
        let record: Record = line.parse()?;
        csv.add(&line)?;
        // The lines of a shape arrive together, after contenders were measured on it.
        if record.kind != Kind::Memory && record.shape() != shape {
            shape = record.shape();
            bar.inc(1);
            bar.set_message(shape.clone());
        }
        records.push(record);
    }
    bar.finish_and_clear();
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo bench --bench {name}: {status}");
    }
    ensure!(
        records.iter().any(|record| matches!(record.kind, Kind::Kernel | Kind::Grouped)),
        "the bench {name} measured nothing"
    );
    Ok(records)
}
