//! One measurement as a line of CSV, which the bench writes and `cargo xtask bench` reads.

use std::fmt;
use std::str::FromStr;

/// What a [`Record`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel of qkernels.
    Kernel,
    /// Another library's int8 product.
    Peer,
    /// The f32 product.
    Float,
    /// A kernel of qkernels on float activations and weights of one format, in groups or not.
    Grouped,
    /// Reading memory: only [`Record::gigabytes`] has a meaning.
    Memory,
}

/// Kinds and their names in CSV.
const KINDS: &[(Kind, &str)] = &[
    (Kind::Kernel, "kernel"),
    (Kind::Peer, "peer"),
    (Kind::Float, "f32"),
    (Kind::Grouped, "grouped"),
    (Kind::Memory, "memory"),
];

/// One contender on one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What this is about.
    pub kind: Kind,
    /// The kernel's or the library's name.
    pub contender: String,
    /// Types of activations and weights; of products in groups the format of the weights.
    pub operands: String,
    /// What such products occur in.
    pub group: String,
    /// Rows of activations.
    pub m: usize,
    /// Output channels.
    pub n: usize,
    /// Depth.
    pub k: usize,
    /// 10^9 operations per second, 2 m n k of them.
    pub gops: f64,
    /// Gop/s of the kernel's own instruction alone, measured beside it.
    pub peak: Option<f64>,
    /// 10^9 bytes per second, each operand and the int32 result counted once; of products in groups
    /// those of the weights.
    pub gigabytes: f64,
    /// How many times as fast as the product per channel that took turns with it; only of products
    /// in groups.
    pub over_per_channel: Option<f64>,
    /// `exact`, or what is the matter with the result.
    pub verdict: String,
}

impl Record {
    /// The names of the columns.
    pub const HEADER: &str =
        "kind,contender,operands,group,m,n,k,gops,peak_gops,gb_per_s,over_per_channel,result";

    /// The rate at which memory was read.
    pub fn memory(gigabytes: f64) -> Self {
        let nothing = String::new;
        Self {
            kind: Kind::Memory,
            contender: "read".into(),
            operands: nothing(),
            group: nothing(),
            m: 0,
            n: 0,
            k: 0,
            gops: 0.0,
            peak: None,
            gigabytes,
            over_per_channel: None,
            verdict: nothing(),
        }
    }

    /// Group and sizes, as in the table of shapes.
    pub fn shape(&self) -> String {
        format!("{} {}x{}x{}", self.group, self.m, self.n, self.k)
    }

    /// Operations per byte of operands and int32 result.
    pub fn intensity(&self) -> f64 {
        self.gops / self.gigabytes
    }

    /// Whether the result was found equal to the mathematical sum, or of products in groups to
    /// qcore's definition.
    pub fn is_exact(&self) -> bool {
        self.verdict == "exact"
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name);
        let Self { contender, operands, group, m, n, k, gops, gigabytes, verdict, .. } = self;
        let number = |number: Option<f64>| number.map(|number| format!("{number:.3}")).unwrap_or_default();
        let (peak, over) = (number(self.peak), number(self.over_per_channel));
        write!(
            f,
            "{kind},{contender},{operands},{group},{m},{n},{k},{gops:.5},{peak},{gigabytes:.6},{over},{verdict}"
        )
    }
}

/// A line that is not a record.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordError(String);

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a record ({}): {}", Record::HEADER, self.0)
    }
}

impl std::error::Error for RecordError {}

impl FromStr for Record {
    type Err = RecordError;

    fn from_str(line: &str) -> Result<Self, RecordError> {
        parse(line).ok_or_else(|| RecordError(line.into()))
    }
}

/// The record of a line. No field of it ever contains a comma.
fn parse(line: &str) -> Option<Record> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[kind, contender, operands, group, m, n, k, gops, peak, gigabytes, over, verdict] =
        fields.as_slice()
    else {
        return None;
    };
    // Some number, or none where there is no text; nothing where the text is no number.
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    Some(Record {
        kind: KINDS.iter().find(|(_, name)| *name == kind)?.0,
        contender: contender.into(),
        operands: operands.into(),
        group: group.into(),
        m: m.parse().ok()?,
        n: n.parse().ok()?,
        k: k.parse().ok()?,
        gops: gops.parse().ok()?,
        peak: number(peak)?,
        gigabytes: gigabytes.parse().ok()?,
        over_per_channel: number(over)?,
        verdict: verdict.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_line() {
        let record = Record {
            kind: Kind::Kernel,
            contender: "avx2_6x16".into(),
            operands: "u8 x i8".into(),
            group: "bert".into(),
            m: 128,
            n: 768,
            k: 3072,
            gops: 166.5,
            peak: Some(188.25),
            gigabytes: 0.5,
            over_per_channel: None,
            verdict: "exact".into(),
        };
        assert_eq!(record.to_string().parse(), Ok(record.clone()));
        assert_eq!(record.shape(), "bert 128x768x3072");
        assert_eq!(record.intensity(), 333.0);
        let grouped = Record {
            kind: Kind::Grouped,
            operands: "4 bits in groups of 128".into(),
            peak: None,
            over_per_channel: Some(1.5),
            ..record
        };
        assert_eq!(grouped.to_string().parse(), Ok(grouped));
        let memory = Record::memory(12.5);
        assert_eq!(memory.to_string().parse(), Ok(memory));
    }

    #[test]
    fn the_header_has_the_fields_of_a_line() {
        let line = Record::memory(1.0).to_string();
        assert_eq!(line.split(',').count(), Record::HEADER.split(',').count());
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            Record::HEADER,
            "kernel,a,b,c,1,2,3,x,,1,,exact",
            "cpu,a,b,c,1,2,3,4,,1,,exact",
            "grouped,a,b,c,1,2,3,4,,1,x,exact",
            "kernel,a,b,c,1,2,3,4,,1,exact",
        ] {
            assert!(line.parse::<Record>().is_err(), "{line}");
        }
    }
}
