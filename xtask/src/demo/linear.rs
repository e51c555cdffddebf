//! `cargo xtask demo linear`: one layer of 512 inputs and 256 outputs in f32, with int8 weights,
//! and entirely in int8.

use anyhow::Result;
use qcore::{
    ChannelAxis, CodeRange, ErrorMetrics, QParams, Range, Scheme, WeightStorage, channel_params,
    dequantize_per_channel, quantize_per_channel, quantize_slice,
};
use qkernels::{
    Activations, Dequantize, Kernel, MatMut, MatRef, PackedWeights, Scales, Threads, Workspace, float, gemm,
};

use super::expect_equal;
use crate::figure::{Axis, Bar, Bars, Curve, Figure, Line, Words};
use crate::outcome::Outcome;
use crate::table::Table;
use crate::tensor_file::{Tensor, TensorFile};

const CASE: &str = "tutorial_quantized_linear_512x256";

pub(crate) fn outcome() -> Result<Outcome> {
    let file = TensorFile::fixture("06_quantized_linear")?;
    let tensor = |label: &str| file.real(&format!("{CASE}/{label}"));
    let (weight, bias, x) = (tensor("weight")?, tensor("bias")?, tensor("x")?);
    let (n, k, m) = (weight.shape[0], weight.shape[1], x.shape[0]);

    let axis = ChannelAxis::rows(n, k)?;
    let params = channel_params(&weight.values, axis, &Scheme::tutorial_symmetric(CodeRange::I8))?;
    let mut codes = vec![0_i8; n * k];
    quantize_per_channel(&weight.values, axis, &params, &mut codes)?;
    let q: Vec<i64> = codes.iter().map(|&q| q.into()).collect();
    expect_equal("weights", &q, &file.integer(&format!("{CASE}/q"))?.values)?;
    let mut restored = vec![0.0; n * k];
    dequantize_per_channel(&codes, axis, &params, &mut restored)?;

    let y = float_layer(&x, &weight.values, &bias.values)?;
    let weights_only = float_layer(&x, &restored, &bias.values)?;
    let scales: Vec<f32> = params.iter().map(QParams::scale).collect();
    let integer = int8_layer(&x, &codes, &scales, &bias.values)?;
    let errors = [ErrorMetrics::of(&y, &weights_only)?, ErrorMetrics::of(&y, &integer)?];

    let f32_bytes = WeightStorage::F32.linear_bytes(k as u64, n as u64);
    let int8_bytes = WeightStorage::default().linear_bytes(k as u64, n as u64);
    let compression = f32_bytes as f64 / int8_bytes as f64;
    let mut outcome = Outcome::new("demo linear", "A linear layer of 512 inputs and 256 outputs");
    outcome.text(format!(
        "* A linear layer, {k} inputs, {n} outputs, batch {m}\n    f32:  {f32_bytes} bytes\n    int8: {int8_bytes} bytes \
         (weights, a scale and a bias of four bytes for each output)\n    compression: {compression:.2}x"
    ));
    let mut table = Table::new(["error of the output", "int8 weights", "int8 weights and activations"]);
    let mut row = |name: &str, figure: fn(&ErrorMetrics) -> String| {
        table.row([name.into(), figure(&errors[0]), figure(&errors[1])]);
    };
    row("largest", |error| format!("{:.6}", error.max_abs_error));
    row("mean", |error| format!("{:.6}", error.mean_abs_error));
    row("mean relative, %", |error| format!("{:.2}", error.mean_relative_error_pct));
    row("SQNR, dB", |error| format!("{:.2}", error.sqnr_db));
    outcome.table(table);
    outcome.figure(picture([f32_bytes, int8_bytes], &y, [&weights_only, &integer], &errors)?);
    Ok(outcome)
}

/// `x * w^T + bias` in f32.
fn float_layer(x: &Tensor<f32>, weight: &[f32], bias: &[f32]) -> Result<Vec<f32>> {
    let (m, k, n) = (x.shape[0], x.shape[1], bias.len());
    let mut y = vec![0.0; m * n];
    let (a, w) = (MatRef::new(&x.values, m, k)?, MatRef::new(weight, n, k)?);
    float::matmul(a, w, MatMut::new(&mut y, m, n)?, Threads::Serial)?;
    y.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    Ok(y)
}

/// The same in integers: activations are quantized by their own range, sums are in int32, and there
/// is one multiplication at the end.
fn int8_layer(x: &Tensor<f32>, codes: &[i8], scales: &[f32], bias: &[f32]) -> Result<Vec<f32>> {
    let (m, k, n) = (x.shape[0], x.shape[1], bias.len());
    let input = Scheme::activations_u8().choose(Range::of(&x.values)?)?;
    let mut q = vec![0_u8; m * k];
    quantize_slice(&x.values, &input, &mut q)?;
    let weights = PackedWeights::from_nk(MatRef::new(codes, n, k)?, Kernel::select()?)?;
    let factors: Vec<f32> = scales.iter().map(|scale| input.scale() * scale).collect();
    let stage = Dequantize::new(Scales::PerChannel(&factors))?.with_float_bias(bias)?;
    let a = Activations::new(MatRef::new(&q, m, k)?, input.zero_point());
    let mut y = vec![0.0; m * n];
    gemm(a, &weights, &stage, MatMut::new(&mut y, m, n)?, Threads::Serial, &mut Workspace::new())?;
    Ok(y)
}

fn picture(bytes: [u64; 2], y: &[f32], outputs: [&[f32]; 2], errors: &[ErrorMetrics; 2]) -> Result<Figure> {
    let names = ["f32", "int8"];
    let bars: Vec<Bar> = bytes
        .into_iter()
        .enumerate()
        .map(|(i, bytes)| Bar {
            name: names[i].into(),
            value: bytes as f64,
            text: format!("{:.1} KiB", bytes as f64 / 1024.0),
            colour: 1 - i,
        })
        .collect();
    let line = |name: &str, output: &[f32], colour| {
        let points = y.iter().zip(output).map(|(&y, &q)| (f64::from(y), f64::from(y - q)));
        Line { dots: true, colour: Some(colour), ..Line::through(name, points.collect()) }
    };
    let worst = errors.iter().map(|error| error.max_abs_error).fold(0.0, f64::max);
    let reach = y.iter().fold(0.0, |reach: f32, y| reach.max(y.abs()));
    let chart = Curve {
        area: (10, 158, 850, 560),
        title: String::new(),
        x: Axis::linear("output in f32", (f64::from(-reach), f64::from(reach)), 8),
        y: Axis::linear("error, f32 \u{2212} int8", (-1.1 * worst, 1.1 * worst), 6),
        // The larger cloud first, so that the smaller one stays visible.
        lines: vec![
            line("int8 weights and activations", outputs[1], 0),
            line("int8 weights, f32 activations", outputs[0], 4),
        ],
        levels: Vec::new(),
    };
    let caption = format!(
        "A linear layer of 512 inputs and 256 outputs in int8: {:.2} times smaller; each of its {} outputs, and how far it \
         is from f32.",
        bytes[0] as f64 / bytes[1] as f64,
        y.len()
    );
    Figure::draw("linear", caption, (860, 570), |canvas| {
        let title =
            format!("A linear layer, 512 to 256: {:.2} times smaller", bytes[0] as f64 / bytes[1] as f64);
        Words::TITLE.write(canvas, &title, (28, 34))?;
        let subtitle = format!(
            "SQNR {:.1} dB with int8 weights, {:.1} dB in int8 throughout",
            errors[0].sqnr_db, errors[1].sqnr_db
        );
        Words::SUBTITLE.write(canvas, &subtitle, (28, 60))?;
        let bars = Bars { title: "", bars: &bars, area: (28, 60, 850), margins: (56, 110), mark: None };
        bars.draw(canvas)?;
        chart.draw(canvas)
    })
}
