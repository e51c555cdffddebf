//! Curves: points joined by lines, with a band around them if there is a spread.

use plotters::prelude::*;

use super::colours::PALETTE;
use super::frame::{Axis, Frame};
use super::words::{Anchor, Words};
use super::{Canvas, Drawn, GREY};

/// A line of the chart.
pub(crate) struct Line {
    /// The name in the legend.
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// The lowest and highest y at each point; may be empty.
    pub(crate) band: Vec<(f64, f64)>,
    /// Whether the points are small dots that are not joined.
    pub(crate) dots: bool,
    /// The index of its colour; `None` uses its place among the lines.
    pub(crate) colour: Option<usize>,
}

impl Line {
    /// A line without points.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.into(), points: Vec::new(), band: Vec::new(), dots: false, colour: None }
    }

    fn colour(&self, place: usize) -> RGBColor {
        PALETTE[self.colour.unwrap_or(place) % PALETTE.len()]
    }

    /// Draws its mark and name in the legend.
    fn explain(&self, canvas: &Canvas<'_>, place: usize, (x, y): (i32, i32)) -> Drawn {
        let colour = self.colour(place);
        if self.dots {
            canvas.draw(&Circle::new((x + 13, y), 4, colour.filled()))?;
        } else {
            canvas.draw(&PathElement::new(vec![(x, y), (x + 26, y)], colour.stroke_width(2)))?;
            mark(canvas, place, colour, (x + 13, y))?;
        }
        Words::NOTE.write(canvas, &self.name, (x + 34, y))
    }

    /// A line through points.
    pub(crate) fn through(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { points, ..Self::named(name) }
    }
}

/// A chart of curves in a rectangle of pixels.
pub(crate) struct Curve {
    /// Left, top, right and bottom, including labels.
    pub(crate) area: (i32, i32, i32, i32),
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// Dashed horizontal lines and their names.
    pub(crate) levels: Vec<(f64, String)>,
}

impl Curve {
    pub(crate) fn draw(&self, canvas: &Canvas<'_>) -> Drawn {
        let (left, top, right, bottom) = self.area;
        let columns = self.lines.len().clamp(1, 3) as i32;
        let legend = 22 * (self.lines.len() as i32 + columns - 1) / columns;
        let frame = Frame {
            left: left + 74,
            top: top + 30 + legend,
            right: right - 16,
            bottom: bottom - 50,
            x: self.x.clone(),
            y: self.y.clone(),
        };
        Words::PANEL.write(canvas, &self.title, (frame.left, top + 8))?;
        frame.draw(canvas)?;
        for (level, name) in &self.levels {
            let (_, y) = frame.at(self.x.range.0, *level);
            dashed(canvas, (frame.left, y), frame.right)?;
            let place = (frame.right, y + 12);
            Words::new(12.0).colour(GREY).at(Anchor::Right).write(canvas, name, place)?;
        }
        for (i, line) in self.lines.iter().enumerate() {
            let colour = line.colour(i);
            let upper = line.points.iter().zip(&line.band).map(|(&(x, _), &(_, high))| frame.at(x, high));
            let lower = line.points.iter().zip(&line.band).map(|(&(x, _), &(low, _))| frame.at(x, low)).rev();
            let outline: Vec<(i32, i32)> = upper.chain(lower).collect();
            if !outline.is_empty() {
                canvas.draw(&Polygon::new(outline, colour.mix(0.14).filled()))?;
            }
        }
        for (i, line) in self.lines.iter().enumerate() {
            let colour = line.colour(i);
            let points: Vec<(i32, i32)> = line.points.iter().map(|&(x, y)| frame.at(x, y)).collect();
            if line.dots {
                for &place in &points {
                    canvas.draw(&Circle::new(place, 2, colour.mix(0.6).filled()))?;
                }
            } else {
                canvas.draw(&PathElement::new(points.clone(), colour.stroke_width(2)))?;
                points.iter().try_for_each(|&place| mark(canvas, i, colour, place))?;
            }
            let (column, row) = (i as i32 % columns, i as i32 / columns);
            let place = (frame.left + column * (frame.right - frame.left) / columns, top + 32 + 22 * row);
            line.explain(canvas, i, place)?;
        }
        Ok(())
    }
}

/// Draws the mark of a line. Each line also has a shape of its own.
fn mark(canvas: &Canvas<'_>, line: usize, colour: RGBColor, (x, y): (i32, i32)) -> Drawn {
    let style = colour.filled();
    match line % 4 {
        0 => canvas.draw(&Circle::new((x, y), 4, style))?,
        1 => canvas.draw(&Polygon::new(vec![(x, y - 5), (x + 5, y + 4), (x - 5, y + 4)], style))?,
        2 => canvas.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], style))?,
        _ => canvas.draw(&Polygon::new(vec![(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)], style))?,
    }
    Ok(())
}

/// Draws a horizontal dashed line.
fn dashed(canvas: &Canvas<'_>, (left, y): (i32, i32), right: i32) -> Drawn {
    for start in (left..right).step_by(9) {
        let dash = vec![(start, y), ((start + 5).min(right), y)];
        canvas.draw(&PathElement::new(dash, GREY.stroke_width(1)))?;
    }
    Ok(())
}
