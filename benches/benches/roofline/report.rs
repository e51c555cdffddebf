//! Where measurements go: the tables for people, the lines of CSV for programs.

use qbenches::{Csv, Kind, Record, geometric_mean, standings};

use crate::contender::Result;

/// Takes records as they are made.
pub(crate) struct Report {
    csv: Csv,
    records: Vec<Record>,
}

impl Report {
    /// Prints the heads of the tables, if there is to be any.
    pub(crate) fn new(csv: Csv) -> Self {
        if csv.leaves_room_for_tables() {
            let (shape, contender, operands) = ("shape (m x n x k)", "contender", "operands");
            println!(
                "{shape:26} {contender:20} {operands:8} {:>9} {:>9} {:>7} {:>8}  result",
                "Gop/s", "peak", "share", "GB/s"
            );
        }
        Self { csv, records: Vec::new() }
    }

    /// Prints and keeps one measurement.
    pub(crate) fn add(&mut self, record: Record) -> Result<()> {
        self.csv.add(&record)?;
        if self.csv.leaves_room_for_tables() {
            print(&record);
        }
        self.records.push(record);
        Ok(())
    }

    /// Prints how our best kernel stands on each shape.
    pub(crate) fn finish(self) {
        let standings = standings(&self.records);
        if !self.csv.leaves_room_for_tables() || standings.is_empty() {
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
