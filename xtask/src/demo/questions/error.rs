//! How large is the error, and what is the signal to noise ratio?

use anyhow::{Context, Result};
use qcore::Scheme;

use crate::demo::round_trip::{Trip, WIDTHS};
use crate::demo::signed_codes;
use crate::figure::{Axis, Curve, Figure, Line, Words};
use crate::float_model::{self, MLP_256};
use crate::outcome::Outcome;
use crate::table::Table;

/// Values spread evenly from -0.5 to 0.5.
const COUNT: u32 = 100_001;

pub(crate) fn answer(outcome: &mut Outcome) -> Result<()> {
    let even: Vec<f32> = (0..COUNT).map(|i| (f64::from(i) / f64::from(COUNT - 1) - 0.5) as f32).collect();
    let model = float_model::load(MLP_256)?;
    let weights = model.layers().first().context("the model has no layers")?.weight();

    let trip = Trip::of(&even, &Scheme::tinytorch())?;
    let (scale, error) = (trip.params.scale_f64(), trip.error);
    outcome.text(format!(
        "\n* Question 2: how large is the error?\n    values spread evenly over [-0.5, 0.5], 8 bits, affine\n        scale: {scale:.6}\n        \
         largest error: {:.6} (half a step: {:.6})\n        SQNR: {:.2} dB (20 log10(255): {:.2})",
        error.max_abs_error,
        scale / 2.0,
        error.sqnr_db,
        20.0 * 255_f64.log10()
    ));
    let mut table = Table::new([
        "bits",
        "even values, dB",
        "gain",
        "trained weights, dB",
        "gain",
        "20 log10(2^bits - 1)",
    ]);
    let (mut of_even, mut of_weights, mut rule) = (Vec::new(), Vec::new(), Vec::new());
    let mut before: Option<(f64, f64)> = None;
    for bits in WIDTHS {
        let scheme = Scheme { codes: signed_codes(bits)?, ..Scheme::tinytorch() };
        let now = (Trip::of(&even, &scheme)?.error.sqnr_db, Trip::of(weights, &scheme)?.error.sqnr_db);
        let ideal = 20.0 * f64::from((1 << bits) - 1).log10();
        let gain = |now: f64, before: Option<f64>| {
            before.map_or(String::new(), |before| format!("{:+.2}", now - before))
        };
        table.row([
            bits.to_string(),
            format!("{:.2}", now.0),
            gain(now.0, before.map(|b| b.0)),
            format!("{:.2}", now.1),
            gain(now.1, before.map(|b| b.1)),
            format!("{ideal:.2}"),
        ]);
        let at = f64::from(bits);
        of_even.push((at, now.0));
        of_weights.push((at, now.1));
        rule.push((at, ideal));
        before = Some(now);
    }
    outcome.table(table);
    outcome.text("    48 dB hold for values that fill the range evenly; weights do not, but each bit is worth 6 dB to both.");
    let chart = Curve {
        area: (10, 72, 790, 450),
        title: String::new(),
        x: Axis::linear("bits of a code", (2.0, 8.0), 6),
        y: Axis::linear("SQNR, dB", (0.0, 50.0), 5),
        lines: vec![
            Line::through("20 log10(2^bits \u{2212} 1)", rule),
            Line::through("even values, measured", of_even),
            Line::through("trained weights", of_weights),
        ],
        levels: Vec::new(),
    };
    let caption = "Signal to quantization noise against bits: the rule of thumb holds for values that fill the range evenly.";
    outcome.figure(Figure::draw("questions-error", caption, (800, 460), |canvas| {
        Words::TITLE.write(
            canvas,
            "Each bit is worth 6 dB; where the line starts, the values decide",
            (28, 34),
        )?;
        let subtitle =
            "100,001 values spread evenly, and the 200,704 weights of the first layer; affine, one scale";
        Words::SUBTITLE.write(canvas, subtitle, (28, 60))?;
        chart.draw(canvas)
    })?);
    Ok(())
}
