//! `cargo xtask demo mlp`: the trained 784-512-512-10 network in f32, with int8 weights, and
//! entirely in int8.

use anyhow::Result;
use qcore::{CodeRange, ErrorMetrics, WeightStorage, agreement};
use qkernels::{MatMut, MatRef, Threads};
use qnn::{FloatMlp, LinearWorkspace, QuantConfig};

use crate::dataset::{CLASSES, Digits};
use crate::figure::{Axis, Bar, Bars, Curve, Figure, Line, Words};
use crate::float_model::{self, MLP_512};
use crate::outcome::Outcome;
use crate::table::Table;

pub(crate) fn outcome() -> Result<Outcome> {
    let model = float_model::load(MLP_512)?;
    let test = float_model::test_digits()?;
    let x = float_model::matrix(&test)?;
    let layout = float_model::layout(&model);
    let mut outcome = Outcome::new("demo mlp", format!("The {layout} network in int8"));
    outcome.text(format!("* The {layout} network, bytes of weights and biases"));
    let (table, bars, ratio) = memory(&model);
    outcome.table(table);

    let reference = float_model::logits(&model, x)?;
    let weights_only = float_model::logits(&float_model::with_codes(&model, CodeRange::I8, |_| true)?, x)?;
    let integer = int8_logits(&model, x)?;
    outcome.text(format!("\n* Logits of {} test images", test.len()));
    outcome.table(quality(&reference, [&weights_only, &integer], &test)?);
    outcome.figure(picture(&layout, &bars, ratio, &reference, &integer)?);
    Ok(outcome)
}

/// The logits of the int8 model, calibrated on the calibration images.
fn int8_logits(model: &FloatMlp, x: MatRef<'_, f32>) -> Result<Vec<f32>> {
    let calibration = float_model::calibration_digits()?;
    let calibrated = model.calibrate([float_model::matrix(&calibration)?])?;
    let quantized = calibrated.quantize(&QuantConfig::default())?;
    let (m, n) = (x.rows(), model.outputs());
    let mut logits = vec![0.0; m * n];
    quantized.forward(x, MatMut::new(&mut logits, m, n)?, Threads::Serial, &mut LinearWorkspace::new())?;
    Ok(logits)
}

/// The bytes of each layer and of all layers, as a table and as bars, and the factor saved.
fn memory(model: &FloatMlp) -> (Table, Vec<Bar>, f64) {
    let mut table = Table::new(["layer", "inputs", "outputs", "f32", "int8", "compression"]);
    let (mut bars, mut totals) = (Vec::new(), (0, 0));
    for layer in model.layers() {
        let (k, n) = (layer.k() as u64, layer.n() as u64);
        let bytes = (WeightStorage::F32.linear_bytes(k, n), WeightStorage::default().linear_bytes(k, n));
        totals = (totals.0 + bytes.0, totals.1 + bytes.1);
        table.row([
            layer.name().into(),
            k.to_string(),
            n.to_string(),
            bytes.0.to_string(),
            bytes.1.to_string(),
            format!("{:.2}x", bytes.0 as f64 / bytes.1 as f64),
        ]);
        for (kind, bytes, colour) in [("f32", bytes.0, 1), ("int8", bytes.1, 0)] {
            bars.push(Bar {
                name: format!("{} {kind}", layer.name()),
                value: bytes as f64,
                text: format!("{:.0} KiB", bytes as f64 / 1024.0),
                colour,
            });
        }
    }
    let ratio = totals.0 as f64 / totals.1 as f64;
    table.row([
        "all".into(),
        String::new(),
        String::new(),
        totals.0.to_string(),
        totals.1.to_string(),
        format!("{ratio:.2}x"),
    ]);
    (table, bars, ratio)
}

fn quality(reference: &[f32], others: [&[f32]; 2], test: &Digits) -> Result<Table> {
    let mut table = Table::new(["", "f32", "int8 weights", "int8 throughout"]);
    let errors = [ErrorMetrics::of(reference, others[0])?, ErrorMetrics::of(reference, others[1])?];
    let right = |logits| Ok::<_, anyhow::Error>(float_model::right(logits, test)?.to_string());
    table.row(["right".into(), right(reference)?, right(others[0])?, right(others[1])?]);
    let same =
        |logits| Ok::<_, anyhow::Error>(format!("{:.2}", 100.0 * agreement(reference, logits, CLASSES)?));
    table.row(["same prediction, %".into(), String::new(), same(others[0])?, same(others[1])?]);
    let mut row = |name: &str, figure: fn(&ErrorMetrics) -> String| {
        table.row([name.into(), String::new(), figure(&errors[0]), figure(&errors[1])]);
    };
    row("SQNR, dB", |error| format!("{:.2}", error.sqnr_db));
    row("largest error", |error| format!("{:.4}", error.max_abs_error));
    row("mean error", |error| format!("{:.4}", error.mean_abs_error));
    Ok(table)
}

fn picture(layout: &str, bars: &[Bar], ratio: f64, reference: &[f32], integer: &[f32]) -> Result<Figure> {
    // Every seventh logit is enough to see, and keeps the file small.
    let points = reference.iter().zip(integer).step_by(7).map(|(&y, &q)| (f64::from(y), f64::from(y - q)));
    let points: Vec<(f64, f64)> = points.collect();
    let worst = points.iter().map(|point| point.1.abs()).fold(0.0, f64::max);
    let (low, high) = points.iter().fold((0.0_f64, 0.0_f64), |(low, high), p| (low.min(p.0), high.max(p.0)));
    let chart = Curve {
        area: (10, 330, 850, 690),
        title: "error of the logits, int8 throughout".into(),
        x: Axis::linear("logit in f32", (low, high), 8),
        y: Axis::linear("error, f32 \u{2212} int8", (-1.1 * worst, 1.1 * worst), 6),
        lines: vec![Line { dots: true, ..Line::through("a logit of a test image", points) }],
        levels: Vec::new(),
    };
    let caption =
        format!("The {layout} network: bytes of each layer in f32 and in int8, and the error of its logits.");
    Figure::draw("mlp", caption, (860, 700), |canvas| {
        let title = format!("The {layout} network: {ratio:.2} times smaller");
        Words::TITLE.write(canvas, &title, (28, 34))?;
        let title = "bytes of weights, scales and biases";
        Bars { title, bars, area: (28, 66, 850), margins: (74, 110), mark: None }.draw(canvas)?;
        chart.draw(canvas)
    })
}
