//! Horizontal bars, with the name before each and its figure after it.

use plotters::prelude::*;

use super::words::{Anchor, Words};
use super::{Canvas, Drawn, GREY, PALETTE};

/// One bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The text after the bar.
    pub(crate) text: String,
    /// The index of its colour.
    pub(crate) colour: usize,
}

/// Bars below each other, on one scale that begins at 0.
pub(crate) struct Bars<'b> {
    /// The title above the bars, with the unit.
    pub(crate) title: &'b str,
    pub(crate) bars: &'b [Bar],
    /// Left, top and right, including names and figures.
    pub(crate) area: (i32, i32, i32),
    /// The pixels for the names and for the figures.
    pub(crate) margins: (i32, i32),
    /// A dashed vertical line at a value, and its name.
    pub(crate) mark: Option<(f64, &'b str)>,
}

impl Bars<'_> {
    /// The pixels from one bar to the next.
    const STEP: i32 = 32;

    /// The height of `count` bars in pixels, including the title.
    pub(crate) const fn height(count: usize) -> i32 {
        34 + Self::STEP * count as i32
    }

    pub(crate) fn draw(&self, canvas: &Canvas<'_>) -> Drawn {
        let (left, top, right) = self.area;
        let (start, end) = (left + self.margins.0, right - self.margins.1);
        let most = self
            .bars
            .iter()
            .map(|bar| bar.value)
            .chain(self.mark.map(|(value, _)| value))
            .fold(0.0, f64::max);
        let at = |value: f64| start + (f64::from(end - start) * value / most).round() as i32;
        let mark = self.mark.map(|(value, _)| at(value));
        Words::PANEL.write(canvas, self.title, (left, top + 8))?;
        for (i, bar) in self.bars.iter().enumerate() {
            let y = top + 34 + Self::STEP * i as i32;
            let middle = y + 11;
            Words::NOTE.at(Anchor::Right).write(canvas, &bar.name, (start - 10, middle))?;
            let colour = PALETTE[bar.colour % PALETTE.len()];
            canvas.draw(&Rectangle::new(
                [(start, y), (at(bar.value).max(start + 1), y + 22)],
                colour.filled(),
            ))?;
            let (end, wide) = (at(bar.value), 8 * bar.text.chars().count() as i32);
            // Text does not cross the dashed line.
            let crosses = mark.is_some_and(|mark| (end - 4..end + 8 + wide).contains(&mark));
            match mark {
                Some(_) if crosses && end - start > wide + 20 => {
                    Words::NOTE.colour(WHITE).at(Anchor::Right).write(
                        canvas,
                        &bar.text,
                        (end - 10, middle),
                    )?;
                }
                Some(mark) if crosses => Words::NOTE.write(canvas, &bar.text, (mark + 10, middle))?,
                _ => Words::NOTE.write(canvas, &bar.text, (end + 8, middle))?,
            }
        }
        let bottom = top + Self::height(self.bars.len());
        canvas.draw(&PathElement::new(vec![(start, top + 28), (start, bottom - 4)], GREY.stroke_width(1)))?;
        if let (Some(x), Some((_, name))) = (mark, self.mark) {
            for y in (top + 28..bottom - 4).step_by(9) {
                let dash = vec![(x, y), (x, (y + 5).min(bottom - 4))];
                canvas.draw(&PathElement::new(dash, GREY.stroke_width(1)))?;
            }
            Words::new(12.0).colour(GREY).at(Anchor::Middle).write(canvas, name, (x, bottom + 6))?;
        }
        Ok(())
    }
}
