//! Where measurements go: the tables for people, the lines of CSV for programs.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use qbenches::{Kind, Record, geometric_mean, standings};

use crate::contender::Result;

/// Takes records as they are made.
pub(crate) struct Report {
    csv: Option<Box<dyn Write>>,
    tables: bool,
    records: Vec<Record>,
}

impl Report {
    /// Opens `csv` before anything is measured, so that a name that cannot be written costs no
    /// time.
    pub(crate) fn new(csv: Option<&Path>) -> Result<Self> {
        let to_stdout = csv.is_some_and(|path| path.as_os_str() == "-");
        let csv: Option<Box<dyn Write>> = match csv {
            None => None,
            Some(_) if to_stdout => Some(Box::new(io::stdout())),
            Some(path) => {
                let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Some(Box::new(file))
            }
        };
        let mut report = Self { csv, tables: !to_stdout, records: Vec::new() };
        report.line(Record::HEADER)?;
        if report.tables {
            let (shape, contender, operands) = ("shape (m x n x k)", "contender", "operands");
            println!(
                "{shape:26} {contender:20} {operands:8} {:>9} {:>9} {:>7} {:>8}  result",
                "Gop/s", "peak", "share", "GB/s"
            );
        }
        Ok(report)
    }

    /// Prints and keeps one measurement.
    pub(crate) fn add(&mut self, record: Record) -> Result<()> {
        self.line(&record.to_string())?;
        if self.tables {
            print(&record);
        }
        self.records.push(record);
        Ok(())
    }

    /// Prints how our best kernel stands on each shape.
    pub(crate) fn finish(self) {
        let standings = standings(&self.records);
        if !self.tables || standings.is_empty() {
            return;
        }
        let (shape, ours, peer) = ("shape (m x n x k)", "our best kernel", "best exact peer");
        println!("\n{shape:26} {ours:20} {peer:20} {:>9} {:>9}", "over peer", "over f32");
        let ratio = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        for standing in &standings {
            println!(
                "{:26} {:20} {:20} {:>9} {:>9}",
                standing.ours.shape(),
                standing.ours.contender,
                standing.peer.map_or("-", |peer| &peer.contender),
                ratio(standing.over_peer()),
                ratio(standing.over_float()),
            );
        }
        println!(
            "{:68} {:>9} {:>9}",
            "geometric mean",
            ratio(geometric_mean(standings.iter().filter_map(|standing| standing.over_peer()))),
            ratio(geometric_mean(standings.iter().filter_map(|standing| standing.over_float()))),
        );
    }

    /// A line of CSV, visible to whoever waits for it at once.
    fn line(&mut self, line: &str) -> io::Result<()> {
        let Some(csv) = &mut self.csv else { return Ok(()) };
        writeln!(csv, "{line}")?;
        csv.flush()
    }
}

fn print(record: &Record) {
    let Record { contender, operands, gops, gigabytes, verdict, .. } = record;
    if record.kind == Kind::Memory {
        println!("{:26} {contender:20} {operands:8} {:>9} {:>9} {:>7} {gigabytes:8.2}", "memory", "", "", "");
        return;
    }
    let shape = record.shape();
    let (peak, share) = record
        .peak
        .map(|peak| (format!("{peak:.1}"), format!("{:.1}%", 100.0 * gops / peak)))
        .unwrap_or_default();
    println!(
        "{shape:26} {contender:20} {operands:8} {gops:9.2} {peak:>9} {share:>7} {gigabytes:8.2}  {verdict}"
    );
}
