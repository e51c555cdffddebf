//! `cargo bench --bench roofline [-- [--test] [--csv FILE] [FILTER]]`: every kernel of this CPU
//! beside rten-gemm, gemmkit, tract-linalg (`--features tract`) and the f32 product, on every
//! shape, one thread. `-- --help` says more.

mod contender;
mod flags;
mod float;
mod gemmkit;
mod kernels;
mod report;
mod rten;
#[cfg(feature = "tract")]
mod tract;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use qbenches::{Kind, Record, Selection, Shape, bytes, codes, fastest, is_product, shapes};
use qkernels::MatRef;

use contender::{Contender, Operands, Prepared, Problem, Result};
use flags::Flags;
use report::Report;

/// Largest number of operations of the shapes of `--test`.
const TEST_LIMIT: f64 = 1e8;

/// Shapes above this are timed in one slice for each contender, as one call is longer than a slice.
const LONG: f64 = 1e10;

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    // One thread for everybody: a pool whose only worker is this thread adds no way between threads
    // to small products.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;

    let selection = &flags.selection;
    let mut shapes = shapes();
    shapes.retain(|shape| !selection.test || shape.operations() <= TEST_LIMIT);
    let shapes = selection.shapes(shapes);
    if shapes.is_empty() {
        return Ok(());
    }
    let budget = if selection.test { Duration::ZERO } else { Duration::from_millis(200) };
    let memory = || Record::memory(selection.read_rate());
    let contenders = contenders(selection);
    let mut report = Report::new(flags.csv.open()?);
    report.add(memory())?;
    for shape in shapes {
        for record in compare(&contenders, shape, budget)? {
            report.add(record)?;
        }
    }
    report.add(memory())?;
    report.finish();
    Ok(())
}

/// Everybody, in the order of the table.
fn contenders(selection: &Selection) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    all.extend(selection.kernels().map(|kernel| Box::new(kernels::Ours(kernel)) as Box<dyn Contender>));
    all.push(Box::new(rten::Rten));
    all.push(Box::new(rten::RtenVector));
    all.push(Box::new(gemmkit::Gemmkit));
    all.push(Box::new(gemmkit::GemmkitUnpacked));
    #[cfg(feature = "tract")]
    all.push(Box::new(tract::Tract));
    all.push(Box::new(float::Float));
    all
}

/// A contender on its way through one shape.
struct Entry<'c, 'd> {
    contender: &'c dyn Contender,
    prepared: Box<dyn Prepared + 'd>,
    verdict: &'static str,
    seconds: f64,
    peak: Option<f64>,
}

/// Times all contenders on one shape, in turns, so that what disturbs the machine disturbs all of
/// them.
fn compare(contenders: &[Box<dyn Contender>], shape: Shape, budget: Duration) -> Result<Vec<Record>> {
    let a = bytes(shape.m * shape.k, 1);
    let a_i8 = codes(shape.m * shape.k, 1);
    let w = codes(shape.n * shape.k, 2);
    let problem = Problem { shape, a: &a, a_i8: &a_i8, w: &w };

    let mut entries = Vec::new();
    for contender in contenders.iter().map(Box::as_ref) {
        let Some(mut prepared) = contender.prepare(&problem)? else { continue };
        prepared.run()?;
        let verdict = verify(contender, &problem, &prepared.product())?;
        entries.push(Entry { contender, prepared, verdict, seconds: f64::INFINITY, peak: None });
    }
    let rounds = if budget.is_zero() || shape.operations() > LONG { 1 } else { 4 };
    for _ in 0..rounds {
        for entry in &mut entries {
            let before = entry.contender.peak(budget / 8 / rounds);
            let mut result = Ok(());
            let seconds = fastest(budget / rounds, || result = entry.prepared.run());
            result?;
            entry.seconds = entry.seconds.min(seconds);
            let after = entry.contender.peak(budget / 8 / rounds);
            entry.peak = [entry.peak, before, after].into_iter().flatten().reduce(f64::max);
        }
    }
    Ok(entries.iter().map(|entry| entry.record(&shape)).collect())
}

/// Whether the result is the mathematical sum. Ours has to be.
fn verify(contender: &dyn Contender, problem: &Problem<'_>, y: &[i32]) -> Result<&'static str> {
    let Shape { m, n, k, .. } = problem.shape;
    let w = MatRef::new(problem.w, n, k)?;
    let exact = match contender.operands() {
        Operands::F32 => return Ok("rounded"),
        Operands::U8I8 => is_product(MatRef::new(problem.a, m, k)?, w, y),
        Operands::I8I8 => is_product(MatRef::new(problem.a_i8, m, k)?, w, y),
    };
    match contender.kind() {
        _ if exact => Ok("exact"),
        Kind::Kernel => Err(format!("{} is wrong on {}", contender.name(), problem.shape).into()),
        _ if contender.may_saturate() => Ok("saturates"),
        _ => Ok("wrong"),
    }
}

impl Entry<'_, '_> {
    fn record(&self, shape: &Shape) -> Record {
        Record {
            kind: self.contender.kind(),
            contender: self.contender.name().into(),
            operands: self.contender.operands().name().into(),
            group: shape.group.into(),
            m: shape.m,
            n: shape.n,
            k: shape.k,
            gops: shape.operations() / self.seconds / 1e9,
            peak: self.peak,
            gigabytes: shape.bytes() / self.seconds / 1e9,
            over_per_channel: None,
            verdict: self.verdict.into(),
        }
    }
}
