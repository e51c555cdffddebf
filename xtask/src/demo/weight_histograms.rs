//! `cargo xtask demo weight-histograms`: shows what quantization does to the weights of every layer
//! of a trained network.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use qcore::{
    ChannelAxis, CodeRange, Range, Scheme, channel_params, dequantize_per_channel, dequantize_slice,
    quantize_per_channel, quantize_slice, sqnr_db,
};

use super::signed_codes;
use crate::figure::{Figure, Histogram, Panels, Words};
use crate::outcome::{Outcome, from_here};
use crate::table::Table;
use crate::tensor_file::{Tensor, TensorFile};

/// The number of bars of an f32 histogram.
const BINS: usize = 64;

/// How many panels are side by side.
const COLUMNS: usize = 3;

/// With more layers than this the picture would be unreadable.
const MOST_LAYERS: usize = 60;

pub(crate) fn outcome(model: &Path, bits: u32) -> Result<Outcome> {
    let codes = match bits {
        32 => None,
        _ => Some(
            signed_codes(bits).ok().with_context(|| format!("bitwidth {bits}: expected 2 to 8, or 32"))?,
        ),
    };
    let file = TensorFile::open(model)?;
    let names = file.weights()?;
    ensure!(!names.is_empty(), "{} has no weights: no real tensor of two axes or more", model.display());
    ensure!(
        names.len() <= MOST_LAYERS,
        "{} has {} layers; at most {MOST_LAYERS} can be shown",
        model.display(),
        names.len()
    );

    let name = file.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let title = match codes {
        None => format!("Weights of {name}, f32"),
        Some(_) => format!("Weights of {name} in {bits} bits"),
    };
    let mut outcome = Outcome::new(format!("demo weight-histograms --bitwidth {bits}"), &title);
    let mut text = format!("* {title}\n    file: {}\n    layers: {}", from_here(model), names.len());
    if let Some(codes) = codes {
        let (min, max) = (codes.min(), codes.max());
        text += &format!("\n    codes: {min} to {max}, symmetric, one scale for each output channel");
    }
    outcome.text(text);

    let (mut table, mut panels) = (table(codes), Vec::new());
    for (name, _) in &names {
        let weights = file.real(name)?;
        let panel = match codes {
            None => of_values(name, &weights, &mut table),
            Some(codes) => of_codes(name, &weights, codes, &mut table),
        };
        panels.push(panel.with_context(|| model.display().to_string())?);
    }
    outcome.table(table);
    let subtitle = match codes {
        None => format!("{} layers, {BINS} bars each; counts on a log axis", names.len()),
        Some(_) => {
            "symmetric, one scale for each output channel; counts of the codes on a log axis".to_owned()
        }
    };
    let caption = match codes {
        None => format!("How the weights of {name} are distributed, layer by layer."),
        Some(_) => format!(
            "The codes of the weights of {name} in {bits} bits, layer by layer, and the decibels that a scale for each \
             output channel gains over one scale for the layer."
        ),
    };
    let figure = picture(&title, &subtitle, caption, bits, codes, &panels)?;
    outcome.figure(figure);
    Ok(outcome)
}

fn table(codes: Option<CodeRange>) -> Table {
    match codes {
        None => Table::new(["layer", "shape", "weights", "smallest", "largest", "deviation"]),
        Some(_) => Table::new([
            "layer",
            "shape",
            "weights",
            "codes used",
            "zeros %",
            "SQNR per tensor, dB",
            "per channel, dB",
            "gain, dB",
        ]),
    }
}

fn shape(weights: &Tensor<f32>) -> String {
    weights.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// The name of the layer, without the suffix that all weights share.
fn layer(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

fn of_values(name: &str, weights: &Tensor<f32>, table: &mut Table) -> Result<Histogram> {
    let range = Range::of(&weights.values).with_context(|| name.to_owned())?;
    let (min, max) = (f64::from(range.min()), f64::from(range.max()));
    let width = (max - min).max(f64::MIN_POSITIVE) / BINS as f64;
    let mut counts = vec![0_u64; BINS];
    for &w in &weights.values {
        counts[(((f64::from(w) - min) / width) as usize).min(BINS - 1)] += 1;
    }
    let count = weights.values.len();
    let mean = weights.values.iter().map(|&w| f64::from(w)).sum::<f64>() / count as f64;
    let variance = weights.values.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / count as f64;
    let deviation = variance.sqrt();
    table.row([
        layer(name).into(),
        shape(weights),
        count.to_string(),
        format!("{min:.4}"),
        format!("{max:.4}"),
        format!("{deviation:.4}"),
    ]);
    let note = format!("{}: {count} weights, deviation {deviation:.3}", shape(weights));
    // A constant tensor is given a width to be drawn on.
    let range = if min < max { (min, max) } else { (min - 0.5, max + 0.5) };
    Ok(Histogram { title: layer(name).into(), note, counts, range, fill: 1.0, colour: 6 })
}

fn of_codes(name: &str, weights: &Tensor<f32>, codes: CodeRange, table: &mut Table) -> Result<Histogram> {
    let Codes { counts, per_tensor, per_channel } =
        quantize(weights, codes).with_context(|| name.to_owned())?;
    let count = weights.values.len();
    let used = counts.iter().filter(|count| **count > 0).count();
    let zeros = counts[codes.min().unsigned_abs() as usize] as f64 / count as f64;
    let gain = per_channel - per_tensor;
    table.row([
        layer(name).into(),
        shape(weights),
        count.to_string(),
        format!("{used} of {}", counts.len()),
        format!("{:.1}", 100.0 * zeros),
        format!("{per_tensor:.2}"),
        format!("{per_channel:.2}"),
        format!("{gain:+.2}"),
    ]);
    let note = format!("SQNR {per_channel:.1} dB, {gain:+.1} dB by channel").replace('-', "\u{2212}");
    let range = (f64::from(codes.min()) - 0.5, f64::from(codes.max()) + 0.5);
    let fill = if counts.len() > 64 { 1.0 } else { 0.8 };
    Ok(Histogram { title: layer(name).into(), note, counts, range, fill, colour: 0 })
}

/// The codes of a tensor and their errors.
struct Codes {
    /// The count of each code, with per-channel scales.
    counts: Vec<u64>,
    /// The SQNR in dB, with one scale for the tensor and with one for each output channel.
    per_tensor: f64,
    per_channel: f64,
}

fn quantize(weights: &Tensor<f32>, codes: CodeRange) -> Result<Codes> {
    let w = &weights.values;
    let scheme = Scheme::lab2_weights(codes);
    let (mut q, mut restored) = (vec![0_i8; w.len()], vec![0.0; w.len()]);
    let p = scheme.choose(Range::of(w)?)?;
    quantize_slice(w, &p, &mut q)?;
    dequantize_slice(&q, &p, &mut restored)?;
    let per_tensor = sqnr_db(w, &restored)?;

    let axis = ChannelAxis::new(&weights.shape, 0)?;
    let params = channel_params(w, axis, &scheme)?;
    quantize_per_channel(w, axis, &params, &mut q)?;
    dequantize_per_channel(&q, axis, &params, &mut restored)?;
    let per_channel = sqnr_db(w, &restored)?;
    let mut counts = vec![0_u64; codes.steps() as usize + 1];
    q.iter().for_each(|&q| counts[(i32::from(q) - codes.min()) as usize] += 1);
    Ok(Codes { counts, per_tensor, per_channel })
}

fn picture(
    title: &str,
    subtitle: &str,
    caption: String,
    bits: u32,
    codes: Option<CodeRange>,
    panels: &[Histogram],
) -> Result<Figure> {
    // At multiples of a quarter of the codes.
    let quarter = |codes: CodeRange| (codes.steps() + 1) / 4;
    let multiples = |codes: CodeRange| (-2..2).map(|i| f64::from(i * quarter(codes))).collect();
    let ticks: Vec<f64> = codes.map(multiples).unwrap_or_default();
    let x = if codes.is_some() { "code" } else { "weight" };
    let panels = Panels { panels, columns: COLUMNS, x, y: "number of weights", ticks: &ticks };
    let top = 92;
    let (wide, high) = Panels::SIZE;
    let size = ((COLUMNS as i32 * wide + 24) as u32, (top + panels.rows() * high + 6) as u32);
    Figure::draw(format!("weight-histograms-{bits}"), caption, size, |canvas| {
        Words::TITLE.write(canvas, title, (28, 34))?;
        Words::SUBTITLE.write(canvas, subtitle, (28, 60))?;
        panels.draw(canvas, top)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_reference() {
        let model = TensorFile::open(Path::new(crate::flags::VGG)).unwrap();
        let fixture = TensorFile::fixture("04_linear_nbit").unwrap();
        let names = model.weights().unwrap();
        assert_eq!(names.len(), 9);
        for bits in [2, 4, 8] {
            let counts = fixture.integer(&format!("lab2_vgg_weight_histograms/counts_b{bits}")).unwrap();
            let expected = counts.values.chunks_exact(counts.shape[1]);
            for ((name, _), expected) in names.iter().zip(expected) {
                let weights = model.real(name).unwrap();
                let got = quantize(&weights, signed_codes(bits).unwrap()).unwrap().counts;
                let got: Vec<i64> = got.iter().map(|&count| count as i64).collect();
                assert_eq!(got, expected, "{name} in {bits} bits");
            }
        }
    }

    #[test]
    fn a_constant_layer_is_shown() {
        let weights = Tensor { shape: vec![2, 2], values: vec![0.5; 4] };
        let mut rows = table(None);
        let panel = of_values("a.weight", &weights, &mut rows).unwrap();
        assert_eq!((panel.counts[0], panel.range), (4, (0.0, 1.0)));
        let panel = of_codes("a.weight", &weights, CodeRange::I8, &mut table(Some(CodeRange::I8))).unwrap();
        assert_eq!(panel.counts[255], 4);
    }
}
