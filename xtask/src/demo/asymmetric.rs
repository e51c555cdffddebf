//! `cargo xtask demo asymmetric`: part 2 of the tutorial. With a zero point, values of one sign use
//! every code.

use anyhow::{Result, ensure};
use qcore::{CodeRange, Scheme};

use super::round_trip::{Trip, WIDTHS};
use super::signed_codes;
use crate::figure::{Axis, Curve, Figure, Line, RoundTrip, Words};
use crate::outcome::Outcome;
use crate::table::Table;
use crate::tensor_file::TensorFile;

fn codes(bits: u32) -> Result<CodeRange> {
    ensure!((2..=8).contains(&bits), "bitwidth {bits}: expected 2 to 8");
    Ok(CodeRange::unsigned(bits)?)
}

pub(crate) fn outcome(bits: u32) -> Result<Outcome> {
    let codes = codes(bits)?;
    let file = TensorFile::fixture("02_asymmetric_u8")?;
    let x = file.real("asym_seed42_relu_4x4_b8/x")?.values;
    let trip = Trip::of(&x, &Scheme::tutorial_affine(codes))?;
    let symmetric = Trip::of(&x, &Scheme::tutorial_symmetric(signed_codes(bits)?))?;
    let ratio = symmetric.error.mean_abs_error / trip.error.mean_abs_error;

    let mut outcome = Outcome::new("demo asymmetric", "Asymmetric quantization");
    outcome.text(format!(
        "* Part 2: asymmetric quantization of activations after ReLU\n    target bitwidth: {bits} bits, codes {} to {}\n{}",
        codes.min(),
        codes.max(),
        trip.lines()
    ));
    trip.expect(&file, &format!("asym_seed42_relu_4x4_b{bits}"))?;
    outcome.text("* Equal to the reference, bit for bit.");
    outcome
        .text(format!("* Against symmetric quantization of the same tensor: reduces error by {ratio:.1}x"));

    let picture = RoundTrip {
        title: &format!("Asymmetric quantization in {bits} bits"),
        subtitle: format!(
            "after ReLU; scale = (max \u{2212} min) / {} = {:.4}, zero point {}; half a step is {:.4}",
            codes.steps(),
            trip.params.scale(),
            trip.params.zero_point(),
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
        "A 4x4 tensor after ReLU, in {bits} unsigned bits and back: values of one sign use every code, and 0 is exact."
    );
    outcome.figure(picture.figure("asymmetric", caption)?);
    against_symmetric(&x, &mut outcome)?;
    Ok(outcome)
}

/// Both schemes on the same tensor in 2 to 8 bits.
fn against_symmetric(x: &[f32], outcome: &mut Outcome) -> Result<()> {
    let mut table = Table::new([
        "bits",
        "symmetric scale",
        "asymmetric scale",
        "symmetric error",
        "asymmetric error",
        "ratio",
    ]);
    let (mut symmetric, mut asymmetric) = (Vec::new(), Vec::new());
    for bits in WIDTHS {
        let one = Trip::of(x, &Scheme::tutorial_symmetric(signed_codes(bits)?))?;
        let two = Trip::of(x, &Scheme::tutorial_affine(codes(bits)?))?;
        let (one_error, two_error) = (one.error.mean_abs_error, two.error.mean_abs_error);
        table.row([
            bits.to_string(),
            format!("{:.6}", one.params.scale()),
            format!("{:.6}", two.params.scale()),
            format!("{one_error:.6}"),
            format!("{two_error:.6}"),
            format!("{:.2}", one_error / two_error),
        ]);
        symmetric.push((f64::from(bits), one_error));
        asymmetric.push((f64::from(bits), two_error));
    }
    outcome.text("\n* Mean error of both schemes on the same values, all of one sign");
    outcome.table(table);
    let chart = Curve {
        area: (10, 72, 790, 430),
        title: String::new(),
        x: Axis::linear("bits of a code", (2.0, 8.0), 6),
        y: Axis::log("mean error, units of the tensor", (0.0005, 1.0)),
        lines: vec![Line::through("symmetric", symmetric), Line::through("asymmetric", asymmetric)],
        levels: Vec::new(),
    };
    let caption = "Mean error of symmetric and asymmetric quantization on values of one sign, by bits.";
    outcome.figure(Figure::draw("asymmetric-bits", caption, (800, 440), |canvas| {
        Words::TITLE.write(canvas, "A zero point is worth a bit, where values have one sign", (28, 34))?;
        Words::SUBTITLE.write(
            canvas,
            "the 4x4 tensor after ReLU; symmetric codes below 0 are never used",
            (28, 60),
        )?;
        chart.draw(canvas)
    })?);
    Ok(())
}
