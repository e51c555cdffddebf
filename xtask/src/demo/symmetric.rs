//! `cargo xtask demo symmetric`: part 1 of the tutorial. One scale, with zero in the middle.

use anyhow::Result;
use qcore::Scheme;

use super::round_trip::{Trip, WIDTHS};
use super::signed_codes;
use crate::figure::{Axis, Curve, Figure, Line, RoundTrip, Words};
use crate::outcome::Outcome;
use crate::table::Table;
use crate::tensor_file::TensorFile;

pub(crate) fn outcome(bits: u32) -> Result<Outcome> {
    let codes = signed_codes(bits)?;
    let file = TensorFile::fixture("01_symmetric")?;
    let x = file.real("sym_seed42_4x4_b8/x")?.values;
    let trip = Trip::of(&x, &Scheme::tutorial_symmetric(codes))?;

    let mut outcome = Outcome::new("demo symmetric", "Symmetric quantization");
    outcome.text(format!(
        "* Part 1: symmetric quantization\n    target bitwidth: {bits} bits, codes {} to {}\n{}",
        codes.min(),
        codes.max(),
        trip.lines()
    ));
    trip.expect(&file, &format!("sym_seed42_4x4_b{bits}"))?;
    outcome.text("* Equal to the reference, bit for bit.");

    let picture = RoundTrip {
        title: &format!("Symmetric quantization in {bits} bits"),
        subtitle: format!(
            "scale = max|x| / {} = {:.4}, zero point 0; half a step is {:.4}",
            codes.max(),
            trip.params.scale(),
            trip.params.scale() / 2.0
        ),
        columns: 4,
        original: &x,
        codes: &trip.codes,
        restored: &trip.restored,
        params: trip.params,
        digits: 3,
        rows: Vec::new(),
        heads: Vec::new(),
        across: 4,
        cell: (62, 44),
    };
    let caption = format!(
        "A 4x4 tensor of normal numbers, in {bits} bits and back: no error is larger than half a step, {:.4}.",
        trip.params.scale() / 2.0
    );
    outcome.figure(picture.figure("symmetric", caption)?);
    bits_matter(&x, &mut outcome)?;
    Ok(outcome)
}

/// The same tensor in 2 to 8 bits.
fn bits_matter(x: &[f32], outcome: &mut Outcome) -> Result<()> {
    let mut table = Table::new(["bits", "codes", "scale", "largest error", "mean error", "SQNR, dB"]);
    let (mut largest, mut mean, mut half) = (Vec::new(), Vec::new(), Vec::new());
    for bits in WIDTHS {
        let Trip { params, error, .. } = Trip::of(x, &Scheme::tutorial_symmetric(signed_codes(bits)?))?;
        table.row([
            bits.to_string(),
            (params.codes().steps() + 1).to_string(),
            format!("{:.6}", params.scale()),
            format!("{:.6}", error.max_abs_error),
            format!("{:.6}", error.mean_abs_error),
            format!("{:.2}", error.sqnr_db),
        ]);
        let at = f64::from(bits);
        largest.push((at, error.max_abs_error));
        mean.push((at, error.mean_abs_error));
        half.push((at, f64::from(params.scale()) / 2.0));
    }
    outcome.text("\n* Each bit halves the error");
    outcome.table(table);
    let chart = Curve {
        area: (10, 72, 790, 450),
        title: String::new(),
        x: Axis::linear("bits of a code", (2.0, 8.0), 6),
        y: Axis::log("error, units of the tensor", (0.003, 3.0)),
        lines: vec![
            Line::through("half a step", half),
            Line::through("largest error", largest),
            Line::through("mean error", mean),
        ],
        levels: Vec::new(),
    };
    let caption =
        "The error of symmetric quantization against the number of bits: each bit more halves the step.";
    outcome.figure(Figure::draw("symmetric-bits", caption, (800, 460), |canvas| {
        Words::TITLE.write(canvas, "Each bit halves the error", (28, 34))?;
        Words::SUBTITLE.write(canvas, "the 4x4 tensor, symmetric, one scale", (28, 60))?;
        chart.draw(canvas)
    })?);
    Ok(())
}
