//! How much faster does a model load?

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qkernels::MatRef;
use qnn::{FloatLinear, FloatMlp, QuantConfig, QuantMlp};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};

use crate::figure::{Bar, Bars, Figure, Words};
use crate::flags::DATA;
use crate::float_model::{self, MLP_512};
use crate::outcome::Outcome;
use crate::pace;
use crate::table::Table;

/// The width and the layers of a model that is large enough to take a while to read: 16.8 million
/// weights.
const WIDTH: usize = 2048;
const LAYERS: usize = 4;

pub(crate) fn answer(outcome: &mut Outcome) -> Result<()> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let mut table = Table::new(["model", "f32 MB", "int8 MB", "f32 ms", "int8 ms", "times as fast"]);
    let mut bars = Vec::new();
    for (name, float) in [("784-512-512-10", trained()?), ("4 layers of 2048 x 2048", large(folder.path())?)]
    {
        let (model, float_path, calibration) = float;
        let samples = MatRef::new(&calibration, calibration.len() / model.inputs(), model.inputs())?;
        let int8_path = folder.path().join("int8.safetensors");
        model.calibrate([samples])?.quantize(&QuantConfig::default())?.save(&int8_path)?;
        let pace = pace::compare(
            || {
                black_box(FloatMlp::load(&float_path)?);
                Ok(())
            },
            || {
                black_box(QuantMlp::load(&int8_path, None)?);
                Ok(())
            },
            || (),
        )?;
        let float_bytes = model.bytes() as f64;
        let megabytes = |path: &Path| -> Result<f64> { Ok(fs::metadata(path)?.len() as f64 / 1e6) };
        let sizes = (megabytes(&float_path)?, megabytes(&int8_path)?);
        table.row([
            name.into(),
            format!("{:.2}", sizes.0),
            format!("{:.2}", sizes.1),
            format!("{:.3}", 1e3 * pace.first),
            format!("{:.3}", 1e3 * pace.second),
            format!("{:.2}", pace.ratio),
        ]);
        for (kind, seconds, colour) in [("f32", pace.first, 1), ("int8", pace.second, 0)] {
            let each = 1e9 * seconds / (float_bytes / 4.0);
            bars.push(Bar {
                name: format!("{name}, {kind}"),
                value: each,
                text: format!("{each:.2} ({:.1} ms)", 1e3 * seconds),
                colour,
            });
        }
    }
    outcome.text(
        "\n* Question 4: how much faster does a model load? (read, checked, packed for the kernel; file in the page cache)",
    );
    outcome.table(table);
    outcome.text(
        "    From a disk of 500 MB/s, 100 million parameters take 400 MB / 500 MB/s = 0.80 s in f32 and 0.20 s in int8.",
    );
    let caption =
        "Time to load a model from the page cache: f32 read, int8 read, checked and packed for the kernel.";
    let height = Bars::height(bars.len()) + 104;
    outcome.figure(Figure::draw("questions-loading", caption, (860, height as u32), |canvas| {
        Words::TITLE.write(canvas, "Loading a model, file in the page cache", (28, 34))?;
        let subtitle =
            "int8: read, checksum, bounds of every sum, packed for the kernel; f32: read and checked";
        Words::SUBTITLE.write(canvas, subtitle, (28, 60))?;
        let title = "milliseconds per million parameters";
        Bars { title, bars: &bars, area: (28, 84, 850), margins: (206, 140), mark: None }.draw(canvas)
    })?);
    Ok(())
}

/// A model, its file, and rows to calibrate it with.
type Model = (FloatMlp, PathBuf, Vec<f32>);

fn trained() -> Result<Model> {
    let inputs = float_model::calibration_digits()?.inputs;
    Ok((float_model::load(MLP_512)?, Path::new(DATA).join(MLP_512), inputs))
}

/// A model with generated weights, written to `folder`.
fn large(folder: &Path) -> Result<Model> {
    let mut state = 1_u32;
    let mut next = || {
        // A linear congruential generator. Any weights will do that are not all equal.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state >> 8) / f64::from(1 << 24) - 0.5) as f32
    };
    let mut layers = Vec::new();
    for i in 1..=LAYERS {
        let weight: Vec<f32> = (0..WIDTH * WIDTH).map(|_| next() / (WIDTH as f32).sqrt()).collect();
        layers.push(FloatLinear::new(format!("fc{i}"), WIDTH, WIDTH, weight, vec![0.0; WIDTH])?);
    }
    let samples = (0..16 * WIDTH).map(|_| next() + 0.5).collect();
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let data: Vec<(Vec<u8>, Vec<u8>)> =
        layers.iter().map(|layer| (bytes(layer.weight()), bytes(layer.bias().unwrap_or_default()))).collect();
    let mut views = Vec::new();
    for (layer, (weight, bias)) in layers.iter().zip(&data) {
        let name = |kind| format!("{}.{kind}", layer.name());
        views.push((name("weight"), TensorView::new(Dtype::F32, vec![WIDTH, WIDTH], weight)?));
        views.push((name("bias"), TensorView::new(Dtype::F32, vec![WIDTH], bias)?));
    }
    let path = folder.join("f32.safetensors");
    serialize_to_file(views, None, &path)?;
    Ok((FloatMlp::new(layers)?, path, samples))
}
