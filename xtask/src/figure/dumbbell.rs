//! Two values for each row, as dots on a line, to show what changed and by how much.

use plotters::prelude::*;

use super::colours::{GRID, PALETTE};
use super::frame::{Axis, Frame};
use super::words::{Anchor, Words};
use super::{Canvas, Drawn};

/// One row.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) values: (f64, f64),
    /// The text on the right.
    pub(crate) text: String,
}

/// Rows below each other, on one axis.
pub(crate) struct Dumbbell<'d> {
    pub(crate) title: &'d str,
    /// Left, top and right, including names and texts.
    pub(crate) area: (i32, i32, i32),
    /// The pixels for the names and for the texts.
    pub(crate) margins: (i32, i32),
    /// The names of the two values.
    pub(crate) names: (&'d str, &'d str),
    pub(crate) x: Axis,
    pub(crate) pairs: &'d [Pair],
}

impl Dumbbell<'_> {
    const STEP: i32 = 34;

    pub(crate) fn draw(&self, canvas: &Canvas<'_>) -> Drawn {
        let (left, top, right) = self.area;
        let frame = Frame {
            left: left + self.margins.0,
            top: top + 54,
            right: right - self.margins.1,
            bottom: top + 60 + Self::STEP * self.pairs.len() as i32,
            x: self.x.clone(),
            y: Axis { label: String::new(), range: (0.0, 1.0), log: false, ticks: Vec::new() },
        };
        Words::PANEL.write(canvas, self.title, (left, top + 8))?;
        frame.draw(canvas)?;
        let mut x = frame.left;
        for (i, name) in [self.names.0, self.names.1].into_iter().enumerate() {
            dot(canvas, i, (x, top + 34))?;
            Words::NOTE.write(canvas, name, (x + 14, top + 34))?;
            x += 14 + 8 * name.chars().count() as i32 + 26;
        }
        for (i, pair) in self.pairs.iter().enumerate() {
            let y = frame.top + Self::STEP / 2 + 3 + Self::STEP * i as i32;
            let (from, to) = (frame.at(pair.values.0, 0.0).0, frame.at(pair.values.1, 0.0).0);
            canvas
                .draw(&PathElement::new(vec![(frame.left, y), (frame.right, y)], GRID[1].stroke_width(1)))?;
            canvas.draw(&PathElement::new(vec![(from, y), (to, y)], GRID[0].stroke_width(4)))?;
            dot(canvas, 0, (from, y))?;
            dot(canvas, 1, (to, y))?;
            Words::NOTE.at(Anchor::Right).write(canvas, &pair.name, (frame.left - 12, y))?;
            Words::NOTE.write(canvas, &pair.text, (frame.right + 12, y))?;
        }
        Ok(())
    }
}

/// A disc for the first value, a diamond for the second.
fn dot(canvas: &Canvas<'_>, series: usize, (x, y): (i32, i32)) -> Drawn {
    if series == 0 {
        canvas.draw(&Circle::new((x, y), 6, PALETTE[1].filled()))?;
    } else {
        let corners = vec![(x, y - 7), (x + 7, y), (x, y + 7), (x - 7, y)];
        canvas.draw(&Polygon::new(corners, PALETTE[0].filled()))?;
    }
    Ok(())
}
