//! Text in pictures.

use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::colours::{GREY, INK};
use super::{Canvas, Drawn};

/// The SVG backend divides a font's size by this.
const BACKEND: f64 = 1.24;

/// The point of the text that its place refers to. Vertically it is the middle of the line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Left,
    Middle,
    Right,
}

/// Size, weight, colour and anchor of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    size: f64,
    bold: bool,
    colour: RGBColor,
    anchor: Anchor,
    upwards: bool,
}

impl Words {
    /// The title of a picture.
    pub(crate) const TITLE: Words = Words { bold: true, ..Words::new(19.0) };
    /// The line below the title.
    pub(crate) const SUBTITLE: Words = Words { colour: GREY, ..Words::new(13.5) };
    /// The title of a panel.
    pub(crate) const PANEL: Words = Words { bold: true, ..Words::new(14.5) };
    /// Notes and legends.
    pub(crate) const NOTE: Words = Words::new(13.0);

    /// Plain text of this many pixels.
    pub(crate) const fn new(size: f64) -> Self {
        Self { size, bold: false, colour: INK, anchor: Anchor::Left, upwards: false }
    }

    pub(crate) const fn colour(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }

    pub(crate) const fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The same, turned to read from bottom to top.
    pub(crate) const fn upwards(self) -> Self {
        Self { upwards: true, ..self }
    }

    /// Writes `text` at a place.
    pub(crate) fn write(self, canvas: &Canvas<'_>, text: &str, (x, y): (i32, i32)) -> Drawn {
        // The backend puts the middle of lower-case letters on the line. Digits and capitals are a
        // tenth higher.
        let down = (0.1 * self.size).round() as i32;
        let place = if self.upwards { (x + down, y) } else { (x, y + down) };
        canvas.draw_text(text, &self.style(), place)?;
        Ok(())
    }

    /// The style as plotters takes it, for the labels of axes.
    pub(crate) fn style(self) -> TextStyle<'static> {
        let weight = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        let font = FontDesc::new(FontFamily::SansSerif, self.size * BACKEND, weight);
        let font = if self.upwards { font.transform(FontTransform::Rotate270) } else { font };
        let h = match self.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        font.color(&self.colour).pos(Pos::new(h, VPos::Center))
    }
}
