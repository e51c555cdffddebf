//! The colours of all pictures. They can be told apart with any kind of colour vision, and nothing
//! is expressed by colour alone.

use plotters::style::RGBColor;

/// The palette of Okabe and Ito, for series.
pub(crate) const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Text and frames.
pub(crate) const INK: RGBColor = RGBColor(33, 37, 41);

/// Secondary text.
pub(crate) const GREY: RGBColor = RGBColor(95, 99, 104);

/// The lines behind the data: the labelled ones, and those between.
pub(crate) const GRID: [RGBColor; 2] = [RGBColor(218, 220, 224), RGBColor(240, 241, 243)];

/// How a number is turned into the colour of a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shades {
    /// Orange below 0, white at 0, blue above. The colour is full at this magnitude.
    Diverging(f64),
    /// White at the first value, blue at the second.
    Sequential(f64, f64),
}

/// The ends of [`Shades`], which are light enough for dark numbers on top.
const LOW: RGBColor = RGBColor(233, 142, 72);
const HIGH: RGBColor = RGBColor(76, 156, 212);

impl Shades {
    /// The colour of `value`.
    pub(crate) fn of(self, value: f64) -> RGBColor {
        let (share, end) = match self {
            Shades::Diverging(reach) => (value.abs() / reach, if value < 0.0 { LOW } else { HIGH }),
            Shades::Sequential(min, max) => ((value - min) / (max - min), HIGH),
        };
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        let mix = |end: u8| (255.0 + (f64::from(end) - 255.0) * share).round() as u8;
        RGBColor(mix(end.0), mix(end.1), mix(end.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relative luminance, 0 to 1, as the web's rules for contrast define it.
    fn luminance(RGBColor(red, green, blue): RGBColor) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    #[test]
    fn numbers_can_be_read_on_every_shade() {
        for shades in [Shades::Diverging(1.0), Shades::Sequential(-1.0, 1.0)] {
            for step in -100..=100 {
                let colour = shades.of(f64::from(step) / 100.0);
                let contrast = (luminance(colour) + 0.05) / (luminance(INK) + 0.05);
                assert!(contrast >= 4.5, "{shades:?} at {step} %: contrast {contrast:.2}");
            }
        }
    }

    #[test]
    fn what_is_out_of_range_has_a_colour() {
        assert_eq!(Shades::Sequential(0.0, 1.0).of(9.0), HIGH);
        assert_eq!(Shades::Sequential(0.0, 0.0).of(f64::NAN), RGBColor(255, 255, 255));
        assert_eq!(Shades::Diverging(1.0).of(-9.0), LOW);
    }
}
