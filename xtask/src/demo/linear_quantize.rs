//! `cargo xtask demo linear-quantize`: quantizes a 5x5 tensor to few bits and restores it, and
//! compares the codes with those that the source course expects.

use anyhow::Result;
use qcore::{ErrorMetrics, Range, Scheme, dequantize_slice, quantize_slice};

use super::{expect_equal, signed_codes};
use crate::figure::{Anchor, Canvas, Drawn, Figure, Matrix, Shades, Words, signed};
use crate::outcome::Outcome;
use crate::tensor_file::TensorFile;

pub(crate) fn outcome(bits: u32) -> Result<Outcome> {
    let codes = signed_codes(bits)?;
    let file = TensorFile::fixture("04_linear_nbit")?;
    let case = if bits == 2 { "lab2_toy_2bit".to_owned() } else { format!("lab2_toy_b{bits}") };
    let x = file.real(&format!("{case}/x"))?;

    let p = Scheme::lab2_linear(codes).choose(Range::of(&x.values)?)?;
    let mut q = vec![0_i8; x.values.len()];
    quantize_slice(&x.values, &p, &mut q)?;
    let mut restored = vec![0.0; q.len()];
    dequantize_slice(&q, &p, &mut restored)?;

    let (scale, zero_point) = (p.scale_f64(), p.zero_point());
    let mut outcome = Outcome::new("demo linear-quantize", format!("A 5x5 tensor in {bits} bits and back"));
    outcome.text(format!(
        "* Test linear_quantize()\n    target bitwidth: {bits} bits\n        scale: {scale}\n        zero point: {zero_point}"
    ));
    let expected = |label: &str| file.integer(&format!("{case}/{label}"));
    expect_equal("zero point", &[i64::from(zero_point)], &expected("zero_point")?.values)?;
    let widened_codes: Vec<i64> = q.iter().map(|&q| q.into()).collect();
    expect_equal("codes", &widened_codes, &expected("q")?.values)?;
    expect_equal("restored values", &restored, &file.real(&format!("{case}/dequantized"))?.values)?;
    outcome.text("* Test passed.");

    let error = ErrorMetrics::of(&x.values, &restored)?.max_abs_error;
    let caption = format!(
        "The tensor of MIT 6.5940 lab 2 in {bits} bits: scale {scale:.4}, zero point {zero_point}. \
         The largest error is {error:.4}."
    );
    let x: Vec<f64> = x.values.iter().map(|&x| x.into()).collect();
    let restored: Vec<f64> = restored.iter().map(|&x| x.into()).collect();
    let figure = Figure::draw("linear-quantize", caption, (1184, 392), |canvas| {
        let title = format!("Linear quantization in {bits} bits");
        Words::TITLE.write(canvas, &title, (40, 34))?;
        let zero = signed(f64::from(zero_point), 0);
        let subtitle = format!(
            "scale {scale:.4}, zero point {zero}, largest error {error:.4}, half a step {:.4}",
            scale / 2.0
        );
        Words::SUBTITLE.write(canvas, &subtitle, (40, 60))?;
        let top = 120;
        let reach = x.iter().fold(0.0, |reach: f64, x| reach.max(x.abs()));
        let places = [40, 432, 824];
        let range = format!("{bits} bits each, {} to {}", signed(codes.min().into(), 0), codes.max());
        let centred: Vec<f64> = q.iter().map(|&q| (f64::from(q) - f64::from(zero_point)) * scale).collect();
        for (place, title, note, values, digits) in [
            (places[0], "original", "f32, 32 bits each", &x, 4),
            (places[2], "reconstructed", "(code \u{2212} zero point) × scale", &restored, 4),
        ] {
            let text = |value| signed(value, digits);
            cells(title, note, values, &text, reach).draw(canvas, (place, top))?;
        }
        // A code has the colour of its value.
        let text = |value: f64| signed(value / scale + f64::from(zero_point), 0);
        cells("quantized", &range, &centred, &text, reach).draw(canvas, (places[1], top))?;
        arrow(canvas, places[0] + WIDE, places[1], top, ["÷ scale", "round", "+ zero"])?;
        arrow(canvas, places[1] + WIDE, places[2], top, ["\u{2212} zero", "× scale", ""])
    })?;
    outcome.figure(figure);
    Ok(outcome)
}

const CELL: (i32, i32) = (64, 44);

/// The width of a matrix in pixels.
const WIDE: i32 = 5 * CELL.0;

fn cells<'m>(
    title: &'m str,
    note: &'m str,
    values: &'m [f64],
    text: &'m dyn Fn(f64) -> String,
    reach: f64,
) -> Matrix<'m> {
    let shades = Shades::Diverging(reach);
    Matrix { title, note, values, columns: 5, text, shades, rows: &[], heads: &[], cell: CELL }
}

/// The arrow from one matrix to the next, with the steps between them.
fn arrow(canvas: &Canvas<'_>, from: i32, to: i32, top: i32, steps: [&str; 3]) -> Drawn {
    let middle = (from + to) / 2;
    let y = top + 5 * CELL.1 / 2;
    for (i, step) in steps.iter().enumerate().filter(|(_, step)| !step.is_empty()) {
        let above = y - 58 + 17 * i as i32;
        Words::new(12.5).at(Anchor::Middle).write(canvas, step, (middle, above))?;
    }
    Words::new(28.0).at(Anchor::Middle).write(canvas, "\u{2192}", (middle, y))
}
