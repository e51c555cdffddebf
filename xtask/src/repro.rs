//! `cargo xtask repro`: runs every demonstration, writes its pictures, and makes one report of all.

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::demo;
use crate::figure;
use crate::flags::{Codes, DATA, Mnist, Model, Repro, VGG};
use crate::machine::Machine;
use crate::mnist;
use crate::outcome::{Outcome, from_here, make_folder};
use crate::report;

/// A demonstration. It calls the function at each of its steps.
type Demo = fn(&dyn Fn()) -> Result<Outcome>;

/// The name of each demonstration, its number of steps for the progress bar, and how to run it.
const DEMOS: [(&str, u64, Demo); 14] = [
    ("linear-quantize", 0, |_| demo::linear_quantize::outcome(2)),
    ("quantized-fc", 0, |_| demo::quantized_fc::outcome()),
    ("symmetric", 0, |_| demo::symmetric::outcome(8)),
    ("asymmetric", 0, |_| demo::asymmetric::outcome(8)),
    ("per-channel", 0, |_| demo::per_channel::outcome()),
    ("weight-histograms, f32", 0, |_| demo::weight_histograms::outcome(Path::new(VGG), 32)),
    ("weight-histograms, 8 bits", 0, |_| demo::weight_histograms::outcome(Path::new(VGG), 8)),
    ("weight-histograms, 4 bits", 0, |_| demo::weight_histograms::outcome(Path::new(VGG), 4)),
    ("weight-histograms, 2 bits", 0, |_| demo::weight_histograms::outcome(Path::new(VGG), 2)),
    ("linear", 0, |_| demo::linear::outcome()),
    ("mlp", 0, |_| demo::mlp::outcome()),
    ("sensitivity", demo::sensitivity::STEPS, |tick| demo::sensitivity::outcome(tick)),
    ("questions", demo::questions::STEPS, |tick| demo::questions::outcome(tick)),
    ("mnist", 0, |_| {
        let (model, activations) = (Model::Mlp256, Codes::U8);
        let (per_tensor, reduce_range) = (false, false);
        let (threads, save, data) = (1, None, DATA.into());
        let flags = Mnist { model, activations, per_tensor, reduce_range, threads, save, data };
        let mut outcome = Outcome::new("demo mnist", "A trained network as an integer-only model");
        outcome.text(mnist::text(&flags, false)?);
        Ok(outcome)
    }),
];

pub(crate) fn run(flags: &Repro) -> Result<()> {
    let figures = flags.out.join("figures");
    make_folder(&flags.out)?;
    make_folder(&figures)?;

    let steps = DEMOS.iter().map(|(_, steps, _)| steps + 1).sum();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {elapsed}: {msg}")?;
    let bar = ProgressBar::new(steps).with_style(style);
    let mut outcomes = Vec::new();
    for (name, _, demo) in DEMOS {
        bar.set_message(name);
        let outcome = demo(&|| bar.inc(1)).with_context(|| format!("demo {name}"))?;
        outcomes.push(outcome);
        bar.inc(1);
    }
    bar.finish_and_clear();
    figure::save(outcomes.iter().flat_map(Outcome::figures), &figures)?;

    let path = flags.out.join("report.html");
    let html = report::html(&Machine::of_today(), &outcomes, &figures)?;
    fs::write(&path, html).with_context(|| format!("cannot write {}", path.display()))?;
    let pictures: usize = outcomes.iter().map(|outcome| outcome.figures().count()).sum();
    writeln!(stdout(), "{} demos, {pictures} figures", outcomes.len())?;
    writeln!(stdout(), "Saved: {}", from_here(&figures))?;
    writeln!(stdout(), "Saved: {}", from_here(&path))?;
    Ok(())
}
