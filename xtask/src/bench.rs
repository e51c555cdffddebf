//! `cargo xtask bench`: runs the roofline bench as a child and turns its records into a CSV, a
//! table and a picture.

mod labels;
mod markdown;
mod roofline;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use qbenches::{Kind, Record, geometric_mean, shapes, standings};

use crate::cargo;
use crate::flags::Bench;
use crate::machine::Machine;

/// The bench uses one thread for every contender.
const THREADS: usize = 1;

pub(crate) fn run(flags: &Bench) -> Result<()> {
    let machine = Machine::of_today();
    let filter = flags.filter.as_deref().unwrap_or_default();
    let count = shapes().iter().filter(|shape| shape.to_string().contains(filter)).count();
    ensure!(count > 0, "no shape contains {filter:?}");

    // A file that cannot be written is found before minutes of measuring.
    let file = |extension| flags.out.join(format!("{}.{extension}", machine.stem()));
    fs::create_dir_all(&flags.out).with_context(|| format!("cannot write to {}", flags.out.display()))?;
    let mut csv = create(&file("csv"))?;

    let records = measure(flags, &machine, count, &mut csv)?;
    ensure!(records.iter().any(|record| record.kind == Kind::Kernel), "the bench measured nothing");
    write(&file("md"), &markdown::table(&machine, &records))?;
    write(&file("svg"), &roofline::picture(&machine, &records)?)?;

    let standings = standings(&records);
    let over_peer = geometric_mean(standings.iter().filter_map(|standing| standing.over_peer()));
    let over_float = geometric_mean(standings.iter().filter_map(|standing| standing.over_float()));
    writeln!(stdout(), "{}, {}: {count} shape(s)", machine.cpu, machine.date)?;
    if let (Some(peer), Some(float)) = (over_peer, over_float) {
        writeln!(
            stdout(),
            "our best kernel, geometric mean: {peer:.2} times the best exact peer, {float:.2} times f32"
        )?;
    }
    for extension in ["csv", "md", "svg"] {
        writeln!(stdout(), "wrote {}", file(extension).display())?;
    }
    Ok(())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    create(path)?.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the bench, and writes each record to `csv` when it arrives.
fn measure(flags: &Bench, machine: &Machine, count: usize, csv: &mut File) -> Result<Vec<Record>> {
    let mut command = cargo::command();
    command.args(["bench", "--package", "qbenches", "--bench", "roofline"]);
    if flags.tract {
        command.args(["--features", "tract"]);
    }
    command.args(["--", "--csv", "-"]).args(&flags.filter);
    // The output of cargo's build stays visible. The bar appears with the first line of the bench.
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo bench")?;
    let output = child.stdout.take().context("cargo bench has no output")?;

    let bar = ProgressBar::hidden();
    let mut records: Vec<Record> = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line == Record::HEADER {
            writeln!(csv, "cpu,date,threads,{line}")?;
            bar.set_length(count as u64);
            bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} shapes, {elapsed}: {msg}")?);
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            bar.set_message("reading memory");
            continue;
        }
        let record: Record = line.parse()?;
        writeln!(csv, "{},{},{THREADS},{line}", machine.cpu, machine.date)?;
        // The lines of a shape arrive together, after all contenders were measured on it.
        if record.kind != Kind::Memory && records.last().map(Record::shape) != Some(record.shape()) {
            bar.inc(1);
            bar.set_message(record.shape());
        }
        records.push(record);
    }
    bar.finish_and_clear();
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo bench: {status}");
    }
    Ok(records)
}
