//! A tensor at each step: original, quantized, reconstructed, and the error.

use anyhow::Result;
use qcore::QParams;

use super::words::Words;
use super::{Canvas, Drawn, Figure, Matrix, Shades, signed};

/// The four matrices of one tensor.
pub(crate) struct RoundTrip<'t> {
    pub(crate) title: &'t str,
    pub(crate) subtitle: String,
    pub(crate) columns: usize,
    pub(crate) original: &'t [f32],
    pub(crate) codes: &'t [i32],
    pub(crate) restored: &'t [f32],
    /// The parameters of the codes.
    pub(crate) params: QParams,
    /// The number of decimals of the values.
    pub(crate) digits: usize,
    /// The names of rows and columns; may be empty.
    pub(crate) rows: Vec<String>,
    pub(crate) heads: Vec<String>,
    /// How many matrices are side by side.
    pub(crate) across: i32,
    /// The size of a cell in pixels.
    pub(crate) cell: (i32, i32),
}

impl RoundTrip<'_> {
    const LEFT: i32 = 28;
    const TOP: i32 = 76;

    /// The pixels between two matrices side by side.
    fn gap(&self) -> i32 {
        if self.rows.is_empty() { 28 } else { 90 }
    }

    /// The pixels above the cells.
    fn head(&self) -> i32 {
        if self.heads.is_empty() { 40 } else { 62 }
    }

    /// The pixels from one matrix to the next, to the right and down.
    fn step(&self) -> (i32, i32) {
        let rows = self.original.len().div_ceil(self.columns) as i32;
        (self.columns as i32 * self.cell.0 + self.gap(), self.head() + rows * self.cell.1 + 48)
    }

    fn size(&self) -> (u32, u32) {
        let (wide, high) = self.step();
        let width = Self::LEFT + self.across * wide + if self.rows.is_empty() { 0 } else { -18 };
        (width as u32, (Self::TOP + 4 / self.across * high) as u32)
    }

    pub(crate) fn figure(&self, stem: impl Into<String>, caption: impl Into<String>) -> Result<Figure> {
        Figure::draw(stem, caption, self.size(), |canvas| self.draw(canvas))
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Drawn {
        let reach = self.original.iter().fold(0.0, |reach: f64, x| reach.max(x.abs().into()));
        let (scale, zero) = (self.params.scale_f64(), f64::from(self.params.zero_point()));
        let widened = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| v.into()).collect() };
        let (original, restored) = (widened(self.original), widened(self.restored));
        // A code has the colour of its value.
        let codes: Vec<f64> = self.codes.iter().map(|&q| (f64::from(q) - zero) * scale).collect();
        let errors: Vec<f64> = original.iter().zip(&restored).map(|(x, r)| x - r).collect();
        let worst = errors.iter().fold(0.0, |worst: f64, error| worst.max(error.abs()));
        let real = |value| signed(value, self.digits);
        let fine = |value| signed(value, if worst < 0.02 { 4 } else { self.digits.max(2) });
        let code = |value: f64| signed(value / scale + zero, 0);
        let range = self.params.codes();
        let range = format!("codes {} to {}", signed(range.min().into(), 0), range.max());
        let lost = format!("at most {worst:.4}");
        let error_reach = if worst < reach / 8.0 { 2.0 * worst } else { reach };
        let matrix = |title, note, values, text, reach| Matrix {
            title,
            note,
            values,
            columns: self.columns,
            text,
            shades: Shades::Diverging(reach),
            rows: &self.rows,
            heads: &self.heads,
            cell: self.cell,
        };
        let matrices = [
            matrix("original", "f32", &original, &real, reach),
            matrix("quantized", &range, &codes, &code, reach),
            matrix("reconstructed", "(code \u{2212} zero point) × scale", &restored, &real, reach),
            matrix("error", &lost, &errors, &fine, error_reach),
        ];
        Words::TITLE.write(canvas, self.title, (Self::LEFT, 34))?;
        Words::SUBTITLE.write(canvas, &self.subtitle, (Self::LEFT, 60))?;
        let (wide, high) = self.step();
        let left = if self.rows.is_empty() { Self::LEFT } else { Self::LEFT + 48 };
        for (i, matrix) in (0..).zip(&matrices) {
            let corner = (left + i % self.across * wide, Self::TOP + self.head() + i / self.across * high);
            matrix.draw(canvas, corner)?;
        }
        Ok(())
    }
}
