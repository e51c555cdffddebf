//! The axes around data: the mapping from values to pixels, ticks at round numbers, and labels.

use plotters::prelude::*;

use super::colours::{GREY, GRID};
use super::words::{Anchor, Words};
use super::{Canvas, Drawn};

/// One axis.
#[derive(Clone)]
pub(crate) struct Axis {
    /// What the axis measures, with the unit; may be empty.
    pub(crate) label: String,
    /// The values at its ends.
    pub(crate) range: (f64, f64),
    /// Whether the axis is logarithmic.
    pub(crate) log: bool,
    /// The values of its ticks.
    pub(crate) ticks: Vec<f64>,
}

impl Axis {
    /// An axis from `min` to `max` with about `count` ticks.
    pub(crate) fn linear(label: impl Into<String>, (min, max): (f64, f64), count: usize) -> Self {
        Self { label: label.into(), range: (min, max), log: false, ticks: round_ticks(min, max, count) }
    }

    /// An axis from `min` to `max`, both greater than 0, with ticks at powers of ten.
    pub(crate) fn log(label: impl Into<String>, (min, max): (f64, f64)) -> Self {
        let (low, high) = (min.log10().ceil() as i32, max.log10().floor() as i32);
        let ticks = (low..=high).map(|power| 10_f64.powi(power)).collect();
        Self { label: label.into(), range: (min, max), log: true, ticks }
    }

    /// The axis with these ticks.
    pub(crate) fn with_ticks(self, ticks: &[f64]) -> Self {
        Self { ticks: ticks.to_vec(), ..self }
    }

    /// The position of `value` on the axis, 0 to 1 if it is inside.
    fn share(&self, value: f64) -> f64 {
        let (min, max) = self.range;
        let on = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).log10() } else { v };
        (on(value) - on(min)) / (on(max) - on(min))
    }

    /// The texts of the ticks. All have as many digits as the one that needs most.
    fn texts(&self) -> Vec<String> {
        let step = self.ticks.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(f64::INFINITY, f64::min);
        let digits =
            if self.log || !step.is_finite() { 0 } else { (-step.log10() - 0.001).ceil().max(0.0) as usize };
        self.ticks.iter().map(|&tick| number(tick, digits)).collect()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn round_ticks(min: f64, max: f64, count: usize) -> Vec<f64> {
    let raw = (max - min) / count.max(1) as f64;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&step| step >= raw * 0.999);
    let Some(step) = step.filter(|step| step.is_finite() && *step > 0.0) else { return vec![min] };
    let (first, last) = ((min / step - 1e-9).ceil() as i64, (max / step + 1e-9).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The number with separated thousands and a real minus sign.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let fraction =
        if value > 0.0 && value < 1.0 && digits == 0 { format!("{value}") } else { grouped + fraction };
    if value < 0.0 { format!("\u{2212}{fraction}") } else { fraction }
}

/// Axes around a rectangle of pixels.
pub(crate) struct Frame {
    pub(crate) left: i32,
    pub(crate) top: i32,
    pub(crate) right: i32,
    pub(crate) bottom: i32,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Frame {
    /// The pixel of a point.
    pub(crate) fn at(&self, x: f64, y: f64) -> (i32, i32) {
        let along = |from: i32, to: i32, share: f64| {
            f64::from(from) + f64::from(to - from) * share.clamp(-0.01, 1.01)
        };
        (
            along(self.left, self.right, self.x.share(x)).round() as i32,
            along(self.bottom, self.top, self.y.share(y)).round() as i32,
        )
    }

    /// Draws grid, ticks and labels. The data is drawn on top.
    pub(crate) fn draw(&self, canvas: &Canvas<'_>) -> Drawn {
        let line = |from, to, colour: RGBColor| {
            canvas.draw(&PathElement::new(vec![from, to], colour.stroke_width(1)))
        };
        let ticks = Words::new(12.0).colour(GREY);
        for (&tick, text) in self.y.ticks.iter().zip(self.y.texts()) {
            let (_, y) = self.at(self.x.range.0, tick);
            line((self.left, y), (self.right, y), GRID[1])?;
            ticks.at(Anchor::Right).write(canvas, &text, (self.left - 8, y))?;
        }
        for (&tick, text) in self.x.ticks.iter().zip(self.x.texts()) {
            let (x, _) = self.at(tick, self.y.range.0);
            line((x, self.bottom), (x, self.bottom + 4), GRID[0])?;
            ticks.at(Anchor::Middle).write(canvas, &text, (x, self.bottom + 15))?;
        }
        line((self.left, self.bottom), (self.right, self.bottom), GREY)?;
        let label = Words::new(13.0).at(Anchor::Middle);
        label.write(canvas, &self.x.label, ((self.left + self.right) / 2, self.bottom + 36))?;
        label.upwards().write(canvas, &self.y.label, (self.left - 64, (self.top + self.bottom) / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(round_ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(round_ticks(-0.3, 0.25, 3), [-0.2, 0.0, 0.2]);
        assert_eq!(round_ticks(1.0, 1.0, 3), [1.0]);
        let axis = Axis::linear("", (95.0, 98.0), 6);
        assert_eq!(axis.texts()[..2], ["95.0", "95.5"]);
        assert_eq!(Axis::linear("", (2.0, 4.0), 2).texts(), ["2", "3", "4"]);
        assert_eq!(Axis::log("", (0.5, 20_000.0)).texts(), ["1", "10", "100", "1,000", "10,000"]);
        assert_eq!(number(-0.25, 2), "\u{2212}0.25");
    }

    #[test]
    fn corners_are_where_they_should_be() {
        let axis = |log| Axis { label: String::new(), range: (1.0, 100.0), log, ticks: vec![] };
        let frame = Frame { left: 10, top: 0, right: 110, bottom: 50, x: axis(true), y: axis(false) };
        assert_eq!(frame.at(1.0, 1.0), (10, 50));
        assert_eq!(frame.at(10.0, 100.0), (60, 0));
    }
}
