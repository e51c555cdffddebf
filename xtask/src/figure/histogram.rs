//! Histograms side by side, one per panel, with counts on a log axis.

use plotters::prelude::*;

use super::frame::{Axis, Frame};
use super::words::Words;
use super::{Canvas, Drawn, GREY, PALETTE};

/// One panel: bars of equal width from `range.0` to `range.1`.
pub(crate) struct Histogram {
    pub(crate) title: String,
    /// A note below the title; may be empty.
    pub(crate) note: String,
    pub(crate) counts: Vec<u64>,
    pub(crate) range: (f64, f64),
    /// The share of the available width that a bar fills. It is less than 1 for codes, which are
    /// separate.
    pub(crate) fill: f64,
    /// The index of the colour.
    pub(crate) colour: usize,
}

/// Panels in rows.
pub(crate) struct Panels<'p> {
    pub(crate) panels: &'p [Histogram],
    pub(crate) columns: usize,
    /// What the values are, with the unit.
    pub(crate) x: &'p str,
    /// What is counted.
    pub(crate) y: &'p str,
    /// The ticks of x; round numbers if empty.
    pub(crate) ticks: &'p [f64],
}

impl Panels<'_> {
    /// The size of a panel in pixels, including labels.
    pub(crate) const SIZE: (i32, i32) = (372, 250);

    /// The number of rows of panels.
    pub(crate) fn rows(&self) -> i32 {
        self.panels.len().div_ceil(self.columns) as i32
    }

    /// Draws the panels from `top` down.
    pub(crate) fn draw(&self, canvas: &Canvas<'_>, top: i32) -> Drawn {
        for (i, panel) in self.panels.iter().enumerate() {
            let (column, row) = ((i % self.columns) as i32, (i / self.columns) as i32);
            self.draw_panel(canvas, panel, (8 + column * Self::SIZE.0, top + row * Self::SIZE.1))?;
        }
        Ok(())
    }

    fn draw_panel(&self, canvas: &Canvas<'_>, panel: &Histogram, (left, top): (i32, i32)) -> Drawn {
        let most = panel.counts.iter().copied().max().unwrap_or(1).max(1) as f64;
        let mut x = Axis::linear(self.x, panel.range, 5);
        if !self.ticks.is_empty() {
            x = x.with_ticks(self.ticks);
        }
        let frame = Frame {
            left: left + 78,
            top: top + 44,
            right: left + Self::SIZE.0 - 14,
            bottom: top + Self::SIZE.1 - 54,
            x,
            // A count of 1 is still a visible bar.
            y: Axis::log(self.y, (0.6, (most * 1.3).max(12.0))),
        };
        Words::PANEL.write(canvas, &panel.title, (frame.left, top + 8))?;
        Words::new(12.5).colour(GREY).write(canvas, &panel.note, (frame.left, top + 27))?;
        frame.draw(canvas)?;
        let (start, end) = panel.range;
        let width = (end - start) / panel.counts.len().max(1) as f64;
        let colour = PALETTE[panel.colour % PALETTE.len()];
        for (i, &count) in panel.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let middle = start + (i as f64 + 0.5) * width;
            let (from, top) = frame.at(middle - width * panel.fill / 2.0, count as f64);
            let (to, _) = frame.at(middle + width * panel.fill / 2.0, count as f64);
            canvas.draw(&Rectangle::new([(from, top), (to.max(from + 1), frame.bottom)], colour.filled()))?;
        }
        Ok(())
    }
}
