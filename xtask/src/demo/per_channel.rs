//! `cargo xtask demo per-channel`: part 3 of the tutorial. Channels of very different size, with
//! one scale for all and with one scale each.

use anyhow::Result;
use qcore::{ChannelAxis, CodeRange, ErrorMetrics, Scheme, channel_params, fake_quantize_per_channel};

use super::expect_equal;
use super::round_trip::Trip;
use crate::figure::{Axis, Dumbbell, Figure, Matrix, Pair, Shades, Words, signed};
use crate::outcome::Outcome;
use crate::table::Table;
use crate::tensor_file::TensorFile;

const CASE: &str = "pc_tutorial_varying_magnitudes";

pub(crate) fn outcome() -> Result<Outcome> {
    let file = TensorFile::fixture("05_per_channel")?;
    let weight = file.real(&format!("{CASE}/weight"))?;
    let (w, channels) = (&weight.values, weight.shape[0]);
    let scheme = Scheme::tutorial_symmetric(CodeRange::I8);
    let rows = ChannelAxis::new(&weight.shape, 0)?;

    let per_tensor = Trip::of(w, &scheme)?;
    let params = channel_params(w, rows, &scheme)?;
    let mut restored = vec![0.0; w.len()];
    fake_quantize_per_channel(w, rows, &params, &mut restored)?;
    let reference = |label: &str| file.real(&format!("{CASE}/{label}"));
    expect_equal("per-tensor values", &per_tensor.restored, &reference("per_tensor_dequantized")?.values)?;
    expect_equal("per-channel values", &restored, &reference("dequantized")?.values)?;

    let of_channel = ErrorMetrics::per_channel(w, &restored, rows)?;
    let of_tensor = ErrorMetrics::per_channel(w, &per_tensor.restored, rows)?;
    let per_channel = ErrorMetrics::of(w, &restored)?;
    let ratio = per_tensor.error.mean_abs_error / per_channel.mean_abs_error;

    let mut outcome = Outcome::new("demo per-channel", "Per-tensor against per-channel");
    let mut table = Table::new([
        "channel",
        "largest |w|",
        "per-tensor scale",
        "per-channel scale",
        "per-tensor error",
        "per-channel error",
        "reduces error by",
    ]);
    let mut pairs = Vec::new();
    for channel in 0..channels {
        let largest =
            w[channel * rows.inner()..][..rows.inner()].iter().fold(0.0, |max: f32, w| max.max(w.abs()));
        let (before, after) = (of_tensor[channel].mean_abs_error, of_channel[channel].mean_abs_error);
        table.row([
            channel.to_string(),
            format!("{largest:.4}"),
            format!("{:.6}", per_tensor.params.scale()),
            format!("{:.6}", params[channel].scale()),
            format!("{before:.6}"),
            format!("{after:.6}"),
            format!("{:.1}x", before / after),
        ]);
        pairs.push(Pair {
            name: format!("channel {channel}, max|w| {largest:.2}"),
            values: (before, after),
            text: if before > 1.05 * after {
                format!("{:.0} times smaller", before / after)
            } else {
                "the same".into()
            },
        });
    }
    outcome.text("* Part 3: per-tensor against per-channel, 8 bits, channels of very different size");
    outcome.table(table);
    outcome.text(format!(
        "    mean error, per-tensor:  {:.6}\n    mean error, per-channel: {:.6}\n* Per-channel quantization reduces error by {ratio:.1}x",
        per_tensor.error.mean_abs_error, per_channel.mean_abs_error
    ));
    outcome.text("* Equal to the reference, bit for bit.");
    outcome.figure(picture(w, [&per_tensor.restored, &restored], channels, &pairs, ratio)?);
    Ok(outcome)
}

fn picture(w: &[f32], restored: [&[f32]; 2], channels: usize, pairs: &[Pair], ratio: f64) -> Result<Figure> {
    let columns = w.len() / channels;
    let cell = (64, 40);
    let errors = restored.map(|restored| -> Vec<f64> {
        w.iter()
            .zip(restored)
            .map(|(&w, &r)| 100.0 * (f64::from(w) - f64::from(r)).abs() / f64::from(w.abs()))
            .collect()
    });
    let values: Vec<f64> = w.iter().map(|&w| w.into()).collect();
    let rows: Vec<String> = (0..channels).map(|i| format!("channel {i}")).collect();
    let real = |value| signed(value, 3);
    let percent = |value: f64| if value < 9.995 { format!("{value:.2}") } else { format!("{value:.0}") };
    let high = channels as i32 * cell.1 + 96;
    let wide = columns as i32 * cell.0;
    let top = 128;
    let caption = format!(
        "A weight with channels of very different size in 8 bits: the relative error of each weight with one scale and \
         with a scale for each channel, which reduces the mean error {ratio:.1} times."
    );
    let size = ((2 * wide + 300) as u32, (top + 2 * high - 48) as u32);
    Figure::draw("per-channel", caption, size, |canvas| {
        let title = format!("A scale for each channel reduces the mean error {ratio:.1} times");
        Words::TITLE.write(canvas, &title, (28, 34))?;
        let subtitle = "8 bits, symmetric; one large channel decides the only scale, and the small ones lose their digits";
        Words::SUBTITLE.write(canvas, subtitle, (28, 60))?;
        let matrix = |title, note, values, text, shades| Matrix {
            title,
            note,
            values,
            columns,
            text,
            shades,
            rows: &rows,
            heads: &[],
            cell,
        };
        let (left, right) = (110, 110 + wide + 140);
        let shades = Shades::Diverging(3.0);
        matrix("weights", "f32; rows are output channels", &values, &real, shades)
            .draw(canvas, (left, top))?;
        let shades = Shades::Sequential(0.0, 20.0);
        let note = "error in % of each weight";
        matrix("one scale", note, &errors[0], &percent, shades).draw(canvas, (left, top + high))?;
        matrix("a scale for each channel", note, &errors[1], &percent, shades)
            .draw(canvas, (right, top + high))?;
        Dumbbell {
            title: "mean error of each channel",
            area: (right - 82, top - 30, right + wide),
            margins: (168, 130),
            names: ("one scale", "a scale for each channel"),
            x: Axis::log("mean error, units of the weights", (5e-5, 0.2)),
            pairs,
        }
        .draw(canvas)
    })
}
