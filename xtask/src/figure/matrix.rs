//! A matrix as coloured cells with their numbers.

use plotters::prelude::*;

use super::colours::{GRID, Shades};
use super::words::{Anchor, Words};
use super::{Canvas, Drawn, GREY};

/// A matrix: the values that colour its cells, the text in them, and the text around it.
pub(crate) struct Matrix<'m> {
    /// The title above it.
    pub(crate) title: &'m str,
    /// A note below it; may be empty.
    pub(crate) note: &'m str,
    /// The values, row-major.
    pub(crate) values: &'m [f64],
    pub(crate) columns: usize,
    /// A cell's text.
    pub(crate) text: &'m dyn Fn(f64) -> String,
    pub(crate) shades: Shades,
    /// The names of the rows, on the left, and of the columns, above; may be empty.
    pub(crate) rows: &'m [String],
    pub(crate) heads: &'m [String],
    /// The size of a cell in pixels.
    pub(crate) cell: (i32, i32),
}

impl Matrix<'_> {
    /// Draws it with the top left corner of its cells at `corner`.
    pub(crate) fn draw(&self, canvas: &Canvas<'_>, (left, top): (i32, i32)) -> Drawn {
        let (width, height) = self.cell;
        let wide = self.columns as i32 * width;
        let middle = left + wide / 2;
        let title = Words::PANEL.at(Anchor::Middle);
        let above = if self.heads.is_empty() { 16 } else { 36 };
        title.write(canvas, self.title, (middle, top - above))?;
        let names = Words::new(12.5).colour(GREY);
        for (j, head) in self.heads.iter().enumerate() {
            let x = left + j as i32 * width + width / 2;
            names.at(Anchor::Middle).write(canvas, head, (x, top - 12))?;
        }
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + i as i32 * height + height / 2;
            names.at(Anchor::Right).write(canvas, row, (left - 10, y))?;
        }
        // The font is as large as the longest number allows.
        let texts: Vec<String> = self.values.iter().map(|&value| (self.text)(value)).collect();
        let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(1).max(1);
        let size = (f64::from(width - 10) / (0.6 * longest as f64)).min(15.0);
        for (i, (value, text)) in self.values.iter().zip(&texts).enumerate() {
            let (x, y) = (left + (i % self.columns) as i32 * width, top + (i / self.columns) as i32 * height);
            let corners = [(x, y), (x + width, y + height)];
            canvas.draw(&Rectangle::new(corners, self.shades.of(*value).filled()))?;
            canvas.draw(&Rectangle::new(corners, GRID[0].stroke_width(1)))?;
            Words::new(size).at(Anchor::Middle).write(canvas, text, (x + width / 2, y + height / 2))?;
        }
        let rows = self.values.len().div_ceil(self.columns.max(1)) as i32;
        let note = Words::SUBTITLE.at(Anchor::Middle);
        note.write(canvas, self.note, (middle, top + rows * height + 18))
    }
}
