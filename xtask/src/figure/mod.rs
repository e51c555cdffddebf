//! Pictures are drawn once, as SVG. A separate program (`xtask/render`) renders the PNGs from
//! these; it is compiled when a command draws for the first time.

mod bars;
mod colours;
mod curve;
mod dumbbell;
mod frame;
mod histogram;
mod matrix;
mod round_trip;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::cargo;

pub(crate) use bars::{Bar, Bars};
pub(crate) use colours::{GREY, PALETTE, Shades};
pub(crate) use curve::{Curve, Line};
pub(crate) use dumbbell::{Dumbbell, Pair};
pub(crate) use frame::Axis;
pub(crate) use histogram::{Histogram, Panels};
pub(crate) use matrix::Matrix;
pub(crate) use round_trip::RoundTrip;
pub(crate) use words::{Anchor, Words};

/// The surface that is drawn on.
pub(crate) type Canvas<'b> = DrawingArea<SVGBackend<'b>, Shift>;

/// The result of drawing.
pub(crate) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// A finished picture.
pub(crate) struct Figure {
    /// The name of its files, without extension.
    pub(crate) stem: String,
    /// What it shows, in a sentence.
    pub(crate) caption: String,
    /// The picture.
    pub(crate) svg: String,
}

impl Figure {
    /// Draws a picture of `size` pixels on white.
    pub(crate) fn draw(
        stem: impl Into<String>,
        caption: impl Into<String>,
        size: (u32, u32),
        draw: impl FnOnce(&Canvas<'_>) -> Drawn,
    ) -> Result<Self> {
        let mut svg = String::new();
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = canvas.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&canvas));
        drawn.and_then(|()| Ok(canvas.present()?)).map_err(|error| anyhow!("cannot draw: {error}"))?;
        drop(canvas);
        Ok(Self { stem: stem.into(), caption: caption.into(), svg })
    }

    /// The paths of its PNG and its SVG in a folder.
    pub(crate) fn files(&self, folder: &Path) -> [PathBuf; 2] {
        ["png", "svg"].map(|extension| folder.join(format!("{}.{extension}", self.stem)))
    }
}

/// Writes STEM.png and STEM.svg of each picture to the folder, which must exist.
pub(crate) fn save<'f>(figures: impl Iterator<Item = &'f Figure>, folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut pictures) = (Vec::new(), Vec::new());
    for figure in figures {
        let [png, svg] = figure.files(folder);
        fs::write(&svg, &figure.svg).with_context(|| format!("cannot write {}", svg.display()))?;
        pictures.push(svg.canonicalize()?);
        files.extend([png, svg]);
    }
    if !pictures.is_empty() {
        render(&pictures)?;
    }
    Ok(files)
}

/// Renders a PNG beside each SVG.
fn render(pictures: &[PathBuf]) -> Result<()> {
    let mut command = cargo::command();
    command.args(["run", "--quiet", "--profile", cargo::PROFILE, "--package", "render"]);
    let status = command.arg("--").args(pictures).status().context("cannot start cargo run")?;
    ensure!(status.success(), "rendering the pictures: {status}");
    Ok(())
}

/// A number with a real minus sign, and none before 0.
pub(crate) fn signed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|c| c == b'0' || c == b'.') => zero.to_owned(),
        Some(magnitude) => format!("\u{2212}{magnitude}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_signs() {
        assert_eq!(["\u{2212}0.25", "0.3", "0.0"], [signed(-0.25, 2), signed(0.26, 1), signed(-0.01, 1)]);
    }
}
