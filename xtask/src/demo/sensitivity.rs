//! `cargo xtask demo sensitivity`: how few bits each layer of a model tolerates.

use anyhow::Result;
use qcore::{agreement, sqnr_db};

use super::round_trip::WIDTHS;
use super::signed_codes;
use crate::dataset::CLASSES;
use crate::figure::{Figure, Matrix, Shades, Words};
use crate::float_model::{self, MLP_256, MLP_512};
use crate::outcome::Outcome;
use crate::table::Table;

/// The figures of one model: for each layer, and for all layers together, one for each number of
/// bits.
struct Sensitivity {
    layout: String,
    /// The names of the rows.
    rows: Vec<String>,
    /// The SQNR of the logits in dB, row by row.
    sqnr: Vec<f64>,
    /// The share of images with the same prediction as in f32, in %.
    agreement: Vec<f64>,
}

pub(crate) fn outcome(tick: &dyn Fn()) -> Result<Outcome> {
    let test = float_model::test_digits()?;
    let x = float_model::matrix(&test)?;
    let mut found = Vec::new();
    for file in [MLP_256, MLP_512] {
        let model = float_model::load(file)?;
        let reference = float_model::logits(&model, x)?;
        let layers = model.layers().len();
        let mut rows: Vec<String> = model.layers().iter().map(|layer| layer.name().to_owned()).collect();
        rows.push("all".into());
        let (mut sqnr, mut same) = (Vec::new(), Vec::new());
        for row in 0..=layers {
            for bits in WIDTHS {
                let codes = signed_codes(bits)?;
                let changed = float_model::with_codes(&model, codes, |layer| layer == row || row == layers)?;
                let logits = float_model::logits(&changed, x)?;
                sqnr.push(sqnr_db(&reference, &logits)?);
                same.push(100.0 * agreement(&reference, &logits, CLASSES)?);
                tick();
            }
        }
        found.push(Sensitivity { layout: float_model::layout(&model), rows, sqnr, agreement: same });
    }

    let mut outcome = Outcome::new("demo sensitivity", "Which layer bears how few bits");
    outcome.text(format!(
        "* Weights of one layer in n bits, one scale for each output channel, all else f32; {} test images",
        test.len()
    ));
    for model in &found {
        let tables =
            [("SQNR of the logits, dB", &model.sqnr, 1), ("same prediction as f32, %", &model.agreement, 2)];
        for (title, values, digits) in tables {
            outcome.text(format!("\n{}: {title}", model.layout));
            let mut table = Table::new(["layer"]);
            table.head.extend(WIDTHS.map(|bits| format!("{bits} bits")));
            for (name, values) in model.rows.iter().zip(values.chunks_exact(WIDTHS.len())) {
                let mut row = vec![name.clone()];
                row.extend(values.iter().map(|value| format!("{value:.digits$}")));
                table.rows.push(row);
            }
            outcome.table(table);
        }
    }
    outcome.figure(picture(&found)?);
    Ok(outcome)
}

/// The number of models that are run, for progress bars.
pub(crate) const STEPS: u64 = 2 * 4 * WIDTHS.len() as u64;

fn picture(found: &[Sensitivity]) -> Result<Figure> {
    let cell = (62, 42);
    let heads = WIDTHS.map(|bits| format!("{bits} bits"));
    let (wide, high) = (WIDTHS.len() as i32 * cell.0 + 84, 4 * cell.1 + 124);
    let caption = "Weights of one layer at a time in 2 to 8 bits: SQNR of the logits, and the share of test images with the \
                   same prediction as in f32.";
    Figure::draw("sensitivity", caption, ((2 * wide + 20) as u32, (2 * high + 84) as u32), |canvas| {
        Words::TITLE.write(canvas, "Which layer bears how few bits", (28, 34))?;
        let subtitle = "weights of one layer in n bits, a scale for each output channel; the rest in f32; 2,500 test images";
        Words::SUBTITLE.write(canvas, subtitle, (28, 60))?;
        let decibels = |value: f64| format!("{value:.1}");
        let percent = |value: f64| format!("{value:.2}");
        for (i, model) in found.iter().enumerate() {
            let top = 150 + i as i32 * high;
            let title = format!("{}: SQNR of the logits, dB", model.layout);
            let same = format!("{}: same prediction, %", model.layout);
            let (columns, rows) = (WIDTHS.len(), &model.rows);
            Matrix {
                title: &title,
                note: "more is better; each bit is worth 6 dB",
                values: &model.sqnr,
                columns,
                text: &decibels,
                shades: Shades::Sequential(0.0, 50.0),
                rows,
                heads: &heads,
                cell,
            }
            .draw(canvas, (64, top))?;
            Matrix {
                title: &same,
                note: "of all images, with the f32 model",
                values: &model.agreement,
                columns,
                text: &percent,
                shades: Shades::Sequential(97.0, 100.0),
                rows,
                heads: &heads,
                cell,
            }
            .draw(canvas, (64 + wide, top))?;
        }
        Ok(())
    })
}
