//! The tables of results. That of int32 products has a row for each shape and a column for each
//! contender.

use std::fmt::Write;

use qbenches::{Kind, Record, geometric_mean, standings};

use super::groups::Groups;
use super::rates::{gops, memory_rate, peaks, share};
use crate::machine::Machine;

/// One document with the table of each bench that has records.
pub(crate) fn document(machine: &Machine, roofline: &[Record], groups: &[Record]) -> String {
    let mut text = format!("# int8 products on {}\n\n{}, one thread.\n", machine.cpu, machine.date);
    if !roofline.is_empty() {
        text += &format!("\n## int32 products\n\n{}", table(roofline));
    }
    if !groups.is_empty() {
        text += &format!("\n## Products in groups\n\n{}", Groups::new(groups).markdown());
    }
    text
}

fn table(records: &[Record]) -> String {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    let of = |kind| records.iter().filter(move |record| record.kind == kind);
    for record in of(Kind::Kernel).chain(of(Kind::Peer)).chain(of(Kind::Float)) {
        let column = (record.contender.as_str(), record.operands.as_str());
        if !columns.contains(&column) {
            columns.push(column);
        }
    }

    let memory = memory_rate(records);
    let mut text = format!(
        "Weights packed before (unless it says unpacked), int32 output. Gop/s of 2 m n k operations; for our\n\
         kernels with the share of the peak of their own instruction. Memory is read at {memory:.1} GB/s.\n\n"
    );
    // Writing to a string cannot fail.
    for (kernel, peak) in peaks(records) {
        let _ = writeln!(text, "- {kernel}: peak {peak:.0} Gop/s");
    }

    let headings: Vec<String> =
        columns.iter().map(|(contender, operands)| format!("{contender}, {operands}")).collect();
    let _ =
        writeln!(text, "\n| group | m, n, k | {} | over best exact peer | over f32 |", headings.join(" | "));
    let _ = writeln!(text, "|---|---|{}---|---|", "---|".repeat(columns.len()));
    let standings = standings(records);
    for standing in &standings {
        let Record { group, m, n, k, .. } = standing.ours;
        let of_shape = || records.iter().filter(|record| record.shape() == standing.ours.shape());
        let cells: Vec<String> = columns
            .iter()
            .map(|&(contender, operands)| {
                let record = of_shape().find(|r| r.contender == contender && r.operands == operands);
                record.map_or("-".into(), cell)
            })
            .collect();
        let (peer, float) = (ratio(standing.over_peer()), ratio(standing.over_float()));
        let _ = writeln!(text, "| {group} | {m}, {n}, {k} | {} | {peer} | {float} |", cells.join(" | "));
    }
    let peer = ratio(geometric_mean(standings.iter().filter_map(|standing| standing.over_peer())));
    let float = ratio(geometric_mean(standings.iter().filter_map(|standing| standing.over_float())));
    let _ = writeln!(text, "| | geometric mean | {}{peer} | {float} |", "| ".repeat(columns.len()));
    text
}

/// Gop/s, the share of the peak, and a remark if something is wrong.
fn cell(record: &Record) -> String {
    let mut cell = gops(record.gops);
    if let Some(peak) = record.peak {
        let _ = write!(cell, " {}", share(record.gops, peak));
    }
    if record.kind != Kind::Float && !record.is_exact() {
        let _ = write!(cell, " {}", record.verdict);
    }
    cell
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_every_column() {
        let lines = [
            "memory,read,,,0,0,0,0,,12,,",
            "kernel,avx2_6x16,u8 x i8,odd,7,13,17,20,200,1,,exact",
            "peer,other,i8 x i8,odd,7,13,17,10,,1,,saturates",
            "f32,gemm crate,f32,odd,7,13,17,5,,1,,rounded",
        ];
        let records: Vec<Record> = lines.iter().map(|line| line.parse().unwrap()).collect();
        let table = table(&records);
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 4);
        for row in &rows {
            assert_eq!(row.matches('|').count(), 8, "{row}");
        }
        assert_eq!(rows[2], "| odd | 7, 13, 17 | 20 (10 %) | 10 saturates | 5.00 | - | 4.00 |");
    }

    #[test]
    fn a_document_has_the_tables_of_what_was_measured() {
        let machine = Machine { cpu: "CPU".into(), date: "2026-01-31".into() };
        let record = |line: &str| vec![line.parse::<Record>().unwrap()];
        let roofline = record("kernel,avx2_6x16,u8 x i8,odd,7,13,17,20,200,1,,exact");
        let groups = record("grouped,avx2_6x16,8 bits per channel,bert,128,768,768,100,125,1,,exact");
        let headings = |text: String| text.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(headings(document(&machine, &roofline, &groups)), 3);
        assert_eq!(headings(document(&machine, &roofline, &[])), 2);
        let only_groups = document(&machine, &[], &groups);
        assert!(only_groups.contains("## Products in groups"), "{only_groups}");
        assert!(!only_groups.contains("## int32 products"), "{only_groups}");
    }
}
