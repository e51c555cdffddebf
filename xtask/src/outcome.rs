//! The findings of a demo, for the terminal and for the report.

use std::env;
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::figure::{self, Figure};
use crate::table::Table;

/// A demo's findings, in the order in which they are shown.
pub(crate) struct Outcome {
    /// The command, such as `demo linear-quantize`.
    pub(crate) command: String,
    /// What it shows, in one line.
    pub(crate) title: String,
    pub(crate) parts: Vec<Part>,
}

pub(crate) enum Part {
    /// Lines for the terminal.
    Text(String),
    Table(Table),
    Figure(Figure),
}

impl Outcome {
    pub(crate) fn new(command: impl Into<String>, title: impl Into<String>) -> Self {
        Self { command: command.into(), title: title.into(), parts: Vec::new() }
    }

    /// Adds lines.
    pub(crate) fn text(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Text(text.into()));
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.parts.push(Part::Table(table));
    }

    pub(crate) fn figure(&mut self, figure: Figure) {
        self.parts.push(Part::Figure(figure));
    }

    /// The text for the terminal, without pictures.
    pub(crate) fn console(&self) -> String {
        let shown = self.parts.iter().map(|part| match part {
            Part::Text(text) => format!("{}\n", text.trim_end()),
            Part::Table(table) => table.to_string(),
            Part::Figure(_) => String::new(),
        });
        shown.collect()
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.parts.iter().filter_map(|part| match part {
            Part::Figure(figure) => Some(figure),
            _ => None,
        })
    }

    /// Writes the pictures to the folder.
    pub(crate) fn save(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        figure::save(self.figures(), folder)
    }
}

/// Runs a demo from the command line. A folder that cannot be written to is found before anything
/// is computed.
pub(crate) fn show(folder: &Path, demo: impl FnOnce() -> Result<Outcome>) -> Result<()> {
    make_folder(folder)?;
    let outcome = demo()?;
    write!(stdout(), "{}", outcome.console())?;
    for path in outcome.save(folder)? {
        writeln!(stdout(), "Saved: {}", from_here(&path))?;
    }
    Ok(())
}

/// Creates the folder if necessary, and checks that files can be created in it.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    let cannot = || format!("cannot write to {}", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    tempfile::tempfile_in(folder).with_context(cannot)?;
    Ok(())
}

/// The path relative to the current folder, if it is below that.
pub(crate) fn from_here(path: &Path) -> String {
    let here = env::current_dir().and_then(|here| here.canonicalize());
    match (here, path.canonicalize()) {
        (Ok(here), Ok(full)) => full.strip_prefix(&here).unwrap_or(path).display().to_string(),
        _ => path.display().to_string(),
    }
}
