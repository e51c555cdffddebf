//! How many samples does calibration need?

use anyhow::{Context, Result};
use qcore::agreement;
use qkernels::{MatMut, MatRef, Threads};
use qnn::{FloatMlp, LinearWorkspace, QuantConfig};

use crate::dataset::CLASSES;
use crate::figure::{Axis, Curve, Figure, Line, Words};
use crate::float_model::{self, MLP_256};
use crate::outcome::Outcome;
use crate::table::Table;

/// The numbers of images that are tried.
const SIZES: [usize; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];

/// How many draws of images there are for each number. A draw is a run of neighbours; draws are
/// spread over the set.
const DRAWS: usize = 20;

pub(crate) fn answer(outcome: &mut Outcome) -> Result<()> {
    let model = float_model::load(MLP_256)?;
    let (calibration, test) = (float_model::calibration_digits()?, float_model::test_digits()?);
    let (samples, x) = (float_model::matrix(&calibration)?, float_model::matrix(&test)?);
    let reference = float_model::logits(&model, x)?;
    let count = test.len() as f64;
    let of_f32 = 100.0 * float_model::right(&reference, &test)? as f64 / count;

    let mut table = Table::new([
        "images",
        "draws",
        "right, %: least",
        "median",
        "most",
        "same as f32, %: least",
        "median",
    ]);
    let (mut accuracy, mut same) = (Line::named("right"), Line::named("same prediction as f32"));
    for size in SIZES {
        let draws = if size >= samples.rows() { 1 } else { DRAWS };
        let (mut right, mut agreed) = (Vec::new(), Vec::new());
        for draw in 0..draws {
            let start = draw * (samples.rows() - size) / DRAWS.max(2).saturating_sub(1);
            let rows = samples.row_range(start..start + size).context("no such images")?;
            let logits = int8_logits(&model, rows, x)?;
            right.push(100.0 * float_model::right(&logits, &test)? as f64 / count);
            agreed.push(100.0 * agreement(&reference, &logits, CLASSES)?);
        }
        let (right, agreed) = (Spread::of(right), Spread::of(agreed));
        table.row([
            size.to_string(),
            draws.to_string(),
            format!("{:.2}", right.least),
            format!("{:.2}", right.median),
            format!("{:.2}", right.most),
            format!("{:.2}", agreed.least),
            format!("{:.2}", agreed.median),
        ]);
        for (line, spread) in [(&mut accuracy, right), (&mut same, agreed)] {
            line.points.push((size as f64, spread.median));
            line.band.push((spread.least, spread.most));
        }
    }
    outcome.text(format!(
        "\n* Question 3: how many samples does calibration need? ({}, f32 recognizes {of_f32:.2} %)",
        float_model::layout(&model)
    ));
    outcome.table(table);
    let figure = picture(accuracy, same, of_f32)?;
    outcome.figure(figure);
    Ok(())
}

fn int8_logits(model: &FloatMlp, samples: MatRef<'_, f32>, x: MatRef<'_, f32>) -> Result<Vec<f32>> {
    let quantized = model.calibrate([samples])?.quantize(&QuantConfig::default())?;
    let (m, n) = (x.rows(), model.outputs());
    let mut logits = vec![0.0; m * n];
    quantized.forward(x, MatMut::new(&mut logits, m, n)?, Threads::Serial, &mut LinearWorkspace::new())?;
    Ok(logits)
}

/// The results of the draws of one size.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// The spread of at least one value.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { least: values[0], median: values[values.len() / 2], most: values[values.len() - 1] }
    }
}

fn picture(accuracy: Line, same: Line, of_f32: f64) -> Result<Figure> {
    let lows = accuracy.band.iter().chain(&same.band).map(|band| band.0);
    let low = lows.fold(of_f32, f64::min).floor();
    let chart = Curve {
        area: (10, 72, 850, 490),
        title: String::new(),
        x: Axis::log("calibration images", (1.0, 500.0)).with_ticks(&SIZES.map(|size| size as f64)),
        y: Axis::linear("share of 2,500 test images, %", (low, 100.0), 6),
        lines: vec![accuracy, same],
        levels: vec![(of_f32, format!("f32: {of_f32:.2} % right"))],
    };
    let caption = "Accuracy of the int8 network against the number of calibration images: median of 20 draws, and the band \
                   from the worst to the best.";
    Figure::draw("questions-calibration", caption, (860, 500), |canvas| {
        Words::TITLE.write(canvas, "How many images calibration needs", (28, 34))?;
        let subtitle = "784-256-128-10 in int8, ranges by minimum and maximum; median of 20 draws, band from worst to best";
        Words::SUBTITLE.write(canvas, subtitle, (28, 60))?;
        chart.draw(canvas)
    })
}
