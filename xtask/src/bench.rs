//! `cargo xtask bench`: runs the roofline bench and the one of products in groups as children, and
//! turns their records into one CSV, tables and pictures.

mod groups;
mod groups_picture;
mod labels;
mod markdown;
mod measure;
mod rates;
mod roofline;

use std::fs::{self, File};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qbenches::{Record, Shape, geometric_mean, grouped_shapes, shapes, standings};

use crate::flags::{Bench, Only};
use crate::machine::Machine;
use groups::Groups;
use measure::{Csv, ROOFLINE, measure};

/// The benches use one thread for every contender.
const THREADS: usize = 1;

pub(crate) fn run(flags: &Bench) -> Result<()> {
    let machine = Machine::of_today();
    let filter = flags.filter.as_deref().unwrap_or_default();
    let count = |shapes: Vec<Shape>, bench: Only| {
        let shapes = shapes.iter().filter(|shape| shape.to_string().contains(filter)).count();
        if flags.only.is_none_or(|only| only == bench) { shapes } else { 0 }
    };
    let in_roofline = count(shapes(), Only::Roofline);
    let in_groups = count(grouped_shapes(), Only::Groups);
    ensure!(in_roofline + in_groups > 0, "no shape of the benches to run contains {filter:?}");

    // A file that cannot be written is found before minutes of measuring.
    let file = |end| flags.out.join(format!("{}{end}", machine.stem()));
    fs::create_dir_all(&flags.out).with_context(|| format!("cannot write to {}", flags.out.display()))?;
    let mut written = vec![file(".csv"), file(".md")];
    let mut csv = Csv::new(create(&written[0])?, &machine)?;

    let mut records = |bench, count| match count {
        0 => Ok(Vec::new()),
        _ => measure(flags, bench, count, &mut csv),
    };
    let (roofline, groups) = (records(ROOFLINE, in_roofline)?, records("groups", in_groups)?);

    write(&file(".md"), &markdown::document(&machine, &roofline, &groups))?;
    writeln!(stdout(), "{}, {}", machine.cpu, machine.date)?;
    if !roofline.is_empty() {
        summarize(&roofline, in_roofline)?;
        written.push(draw(file(".svg"), &roofline::picture(&machine, &roofline)?)?);
    }
    if !groups.is_empty() {
        let groups = Groups::new(&groups);
        writeln!(stdout(), "\n{}", groups.terminal())?;
        written.push(draw(file("-groups.svg"), &groups_picture::picture(&machine, &groups)?)?);
    }
    for path in written {
        writeln!(stdout(), "wrote {}", path.display())?;
    }
    Ok(())
}

/// Prints where our best kernel stands.
fn summarize(records: &[Record], count: usize) -> Result<()> {
    let standings = standings(records);
    let over_peer = geometric_mean(standings.iter().filter_map(|standing| standing.over_peer()));
    let over_float = geometric_mean(standings.iter().filter_map(|standing| standing.over_float()));
    if let (Some(peer), Some(float)) = (over_peer, over_float) {
        writeln!(
            stdout(),
            "our best kernel on {count} shape(s), geometric mean: {peer:.2} times the best exact peer, \
             {float:.2} times f32"
        )?;
    }
    Ok(())
}

/// Writes a picture and returns where it is.
fn draw(path: PathBuf, svg: &str) -> Result<PathBuf> {
    write(&path, svg)?;
    Ok(path)
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    create(path)?.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
