//! Products in groups: one cell for each kernel, shape and format of weights.

use std::fmt::Write;

use qbenches::{Kind, Record};

use super::rates::{gops, memory_rate, share};
use crate::table::Table;

/// What the cells are, in words.
const CELLS: &str = "Gop/s of f32 activations, quantized to i8 row by row, times packed weights. Per channel with the\n\
                     share of the kernel's peak, others with the median ratio to per channel.";

/// The records of the bench, by kernel, shape and format.
pub(crate) struct Groups<'r> {
    records: Vec<&'r Record>,
    /// GB/s at which memory was read.
    memory: f64,
}

impl<'r> Groups<'r> {
    pub(crate) fn new(records: &'r [Record]) -> Self {
        let memory = memory_rate(records);
        Self { records: records.iter().filter(|record| record.kind == Kind::Grouped).collect(), memory }
    }

    /// The kernels, in the order in which they were measured.
    pub(crate) fn kernels(&self) -> Vec<&'r str> {
        distinct(self.records.iter().map(|record| record.contender.as_str()))
    }

    /// What the kernel measured per channel: one record for each shape.
    pub(crate) fn per_channel(&self, kernel: &str) -> Vec<&'r Record> {
        let of_kernel = self.records.iter().copied().filter(|record| record.contender == kernel);
        of_kernel.filter(|record| record.over_per_channel.is_none()).collect()
    }

    /// All that took turns with a product per channel, and that product itself, which is the first.
    pub(crate) fn beside(&self, per_channel: &Record) -> Vec<&'r Record> {
        let with = |record: &&Record| {
            record.contender == per_channel.contender && record.shape() == per_channel.shape()
        };
        self.records.iter().copied().filter(with).collect()
    }

    /// The formats of weights, in the order in which they were measured.
    fn formats(&self) -> Vec<&'r str> {
        distinct(self.records.iter().map(|record| record.operands.as_str()))
    }

    /// The cells of the shape that the product per channel is of, one for each format.
    fn cells(&self, per_channel: &Record) -> Vec<String> {
        let beside = self.beside(per_channel);
        let of = |format: &&str| beside.iter().find(|record| record.operands == *format);
        self.formats().iter().map(|format| of(format).map_or("-".into(), |record| cell(record))).collect()
    }

    /// The table in Markdown: a row for each kernel and shape, a column for each format.
    pub(crate) fn markdown(&self) -> String {
        let formats = self.formats();
        let mut text = format!("{CELLS} Memory is read at {:.1} GB/s.\n\n", self.memory);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| kernel | m, n, k | {} |", formats.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---|".repeat(formats.len()));
        for kernel in self.kernels() {
            for per_channel in self.per_channel(kernel) {
                let Record { m, n, k, .. } = per_channel;
                let cells = self.cells(per_channel).join(" | ");
                let _ = writeln!(text, "| {kernel} | {m}, {n}, {k} | {cells} |");
            }
        }
        text
    }

    /// The same for a terminal, which is not as wide: a table for each kernel, a row for each
    /// format, a column for each shape.
    pub(crate) fn terminal(&self) -> String {
        let mut text = format!("{CELLS}\nMemory is read at {:.1} GB/s.\n", self.memory);
        for kernel in self.kernels() {
            let mut table = Table { head: vec![kernel.into()], rows: Vec::new() };
            table.rows.extend(self.formats().into_iter().map(|format| vec![format.into()]));
            for per_channel in self.per_channel(kernel) {
                let Record { m, n, k, .. } = per_channel;
                table.head.push(format!("{m}x{n}x{k}"));
                for (row, cell) in table.rows.iter_mut().zip(self.cells(per_channel)) {
                    row.push(cell);
                }
            }
            let _ = write!(text, "\n{table}");
        }
        text
    }
}

/// Gop/s, and the share of the peak or the ratio to the product per channel.
pub(crate) fn cell(record: &Record) -> String {
    let figure = gops(record.gops);
    match (record.over_per_channel, record.peak) {
        (Some(over), _) => format!("{figure} ({over:.2})"),
        (None, Some(peak)) => format!("{figure} {}", share(record.gops, peak)),
        (None, None) => figure,
    }
}

/// Each value once, in the order in which they come first.
fn distinct<'v>(values: impl Iterator<Item = &'v str>) -> Vec<&'v str> {
    let mut all = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Records of two kernels on two shapes; one of the cells was not measured.
    pub(crate) fn records() -> Vec<Record> {
        [
            "memory,read,,,0,0,0,0,,12,,",
            "grouped,avx2_6x16,8 bits per channel,decode,1,4096,4096,60,120,30,,exact",
            "grouped,avx2_6x16,4 bits in groups of 32,decode,1,4096,4096,84,,24,1.39,exact",
            "grouped,avx2_6x16,Q4_K,decode,1,4096,4096,75,,22,1.25,exact",
            "grouped,portable_4x1,8 bits per channel,decode,1,4096,4096,9,18,5,,exact",
            "grouped,portable_4x1,Q4_K,decode,1,4096,4096,4.5,,2,0.5,exact",
            "memory,read,,,0,0,0,0,,14,,",
            "grouped,avx2_6x16,8 bits per channel,bert,128,768,768,100,125,1,,exact",
            "grouped,avx2_6x16,4 bits in groups of 32,bert,128,768,768,90,,1,0.9,exact",
            "grouped,avx2_6x16,Q4_K,bert,128,768,768,80,,1,0.8,exact",
        ]
        .iter()
        .map(|line| line.parse().unwrap())
        .collect()
    }

    #[test]
    fn every_row_has_every_column() {
        let records = records();
        let text = Groups::new(&records).markdown();
        assert!(text.contains("14.0 GB/s"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 5);
        for row in &rows {
            assert_eq!(row.matches('|').count(), 6, "{row}");
        }
        assert_eq!(rows[2], "| avx2_6x16 | 1, 4096, 4096 | 60 (50 %) | 84 (1.39) | 75 (1.25) |");
        assert_eq!(rows[4], "| portable_4x1 | 1, 4096, 4096 | 9.00 (50 %) | - | 4.50 (0.50) |");
    }

    #[test]
    fn a_terminal_gets_a_table_for_each_kernel() {
        let records = records();
        let text = Groups::new(&records).terminal();
        for line in [
            "Memory is read at 14.0 GB/s.",
            "avx2_6x16               1x4096x4096  128x768x768",
            "4 bits in groups of 32    84 (1.39)    90 (0.90)",
            "portable_4x1            1x4096x4096",
            "8 bits per channel      9.00 (50 %)",
        ] {
            assert!(text.lines().any(|of| of == line), "{line}\n{text}");
        }
    }
}
