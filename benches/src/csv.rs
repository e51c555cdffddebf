//! Where records go as lines of CSV.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::Record;

/// The option that asks for CSV.
#[derive(Clone, Debug, Args)]
pub struct CsvFlag {
    /// Also write every measurement to this file as it is made; `-` is standard output, in place of
    /// the tables.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl CsvFlag {
    /// Opens the file and writes the names of the columns. To do so before anything is measured
    /// costs no time where the file cannot be written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(&self) -> io::Result<Csv> {
        let (lines, tables): (Option<Box<dyn Write>>, bool) = match &self.csv {
            None => (None, true),
            Some(path) if path.as_os_str() == "-" => (Some(Box::new(io::stdout())), false),
            Some(path) => {
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                (Some(Box::new(File::create(path).map_err(named)?)), true)
            }
        };
        let mut csv = Csv { lines, tables };
        csv.line(Record::HEADER)?;
        Ok(csv)
    }
}

/// A file or standard output that takes records, or nothing.
pub struct Csv {
    lines: Option<Box<dyn Write>>,
    tables: bool,
}

impl Csv {
    /// Writes a record, if CSV was asked for.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        self.line(&record.to_string())
    }

    /// Whether standard output is free for tables.
    pub fn leaves_room_for_tables(&self) -> bool {
        self.tables
    }

    /// A line of CSV, visible to whoever waits for it at once.
    fn line(&mut self, line: &str) -> io::Result<()> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        writeln!(lines, "{line}")?;
        lines.flush()
    }
}
