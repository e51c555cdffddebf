//! Pictures: drawn once, as SVG; the PNG is rendered from that with a font of our own, so that both look the same
//! everywhere.

mod bars;
mod colours;
mod curve;
mod dumbbell;
mod frame;
mod histogram;
mod matrix;
mod png;
mod round_trip;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

pub(crate) use bars::{Bar, Bars};
pub(crate) use colours::{GREY, PALETTE, Shades};
pub(crate) use curve::{Curve, Line};
pub(crate) use dumbbell::{Dumbbell, Pair};
pub(crate) use frame::Axis;
pub(crate) use histogram::{Histogram, Panels};
pub(crate) use matrix::Matrix;
pub(crate) use round_trip::RoundTrip;
pub(crate) use words::{Anchor, Words};

/// What is drawn on.
pub(crate) type Canvas<'b> = DrawingArea<SVGBackend<'b>, Shift>;

/// What drawing gives.
pub(crate) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// A finished picture.
pub(crate) struct Figure {
    /// Name of its files, without extension.
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

    /// The picture as PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        png::render(&self.svg)
    }

    /// Writes STEM.png and STEM.svg to the folder, which exists.
    pub(crate) fn save(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        let files = ["png", "svg"].map(|extension| folder.join(format!("{}.{extension}", self.stem)));
        let [png, svg] = &files;
        fs::write(png, self.png()?).with_context(|| format!("cannot write {}", png.display()))?;
        fs::write(svg, &self.svg).with_context(|| format!("cannot write {}", svg.display()))?;
        Ok(files)
    }
}

/// A number with a real minus, and none before 0.
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

    #[test]
    fn a_picture_becomes_pixels() {
        let figure =
            Figure::draw("a", "b", (40, 20), |canvas| Words::NOTE.write(canvas, "m", (10, 10))).unwrap();
        let png = figure.png().unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        // The letter is there: with the font that came with it, not with one of the machine.
        let empty = Figure::draw("a", "b", (40, 20), |_| Ok(())).unwrap();
        assert_ne!(empty.png().unwrap(), png);
    }
}
