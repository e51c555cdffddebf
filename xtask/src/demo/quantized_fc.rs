//! `cargo xtask demo quantized-fc`: a fully-connected layer whose input, weights and output have
//! two bits each, computed in integers. The codes are compared with those that the source course
//! expects.

use anyhow::Result;
use qcore::{
    ChannelAxis, CodeRange, ErrorMetrics, QParams, Range, RequantizeMode, Scheme, channel_params,
    dequantize_slice, quantize_biases, quantize_per_channel, quantize_slice, requantize_per_channel,
};
use qkernels::{Activations, Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, float, gemm};

use super::expect_equal;
use crate::figure::{RoundTrip, signed};
use crate::outcome::Outcome;
use crate::tensor_file::TensorFile;

const BITS: u32 = 2;
const CASE: &str = "qlinear_demo_2bit";

pub(crate) fn outcome() -> Result<Outcome> {
    let file = TensorFile::fixture("06_quantized_linear")?;
    let tensor = |label: &str| file.real(&format!("{CASE}/{label}"));
    let (x, weight, bias) = (tensor("x")?, tensor("weight")?, tensor("bias")?);
    let (m, n, k) = (x.shape[0], weight.shape[0], weight.shape[1]);
    let layer = Layer { m, n, k, x: &x.values, weight: &weight.values, bias: &bias.values };
    let Run { y, acc, codes, params, restored } = layer.run()?;

    let mut outcome = Outcome::new("demo quantized-fc", "A fully-connected layer in 2 bits");
    outcome.text(format!(
        "* Test quantized_fc()\n    target bitwidth: {BITS} bits\n      batch size: {m}\n      input channels: {k}\n      output channels: {n}"
    ));
    let expected = |label: &str| file.integer(&format!("{CASE}/{label}"));
    let acc: Vec<i64> = acc.iter().map(|&acc| acc.into()).collect();
    expect_equal("sums", &acc, &expected("acc")?.values)?;
    let q: Vec<i64> = codes.iter().map(|&q| q.into()).collect();
    expect_equal("codes", &q, &expected("y_lab_f32")?.values)?;
    outcome.text("* Test passed.");

    let error = ErrorMetrics::of(&y, &restored)?;
    let caption = format!(
        "The output of the 2-bit fully-connected layer of MIT 6.5940 lab 2, batch {m}, {k} inputs, {n} outputs: \
         f32, codes, reconstruction and error. The largest error is {:.4}.",
        error.max_abs_error
    );
    let picture = RoundTrip {
        title: "The output of a fully-connected layer in 2 bits",
        subtitle: format!(
            "batch {m}, {k} inputs, {n} outputs; integer product; scale {:.4}, zero point {}",
            params.scale(),
            signed(params.zero_point().into(), 0)
        ),
        columns: n,
        original: &y,
        codes: &codes.iter().map(|&q| q.into()).collect::<Vec<i32>>(),
        restored: &restored,
        params,
        digits: 2,
        rows: (0..m).map(|i| format!("row {i}")).collect(),
        heads: (0..n).map(|j| format!("y{j}")).collect(),
        across: 2,
        cell: (60, 42),
    };
    outcome.figure(picture.figure("quantized-fc", caption)?);
    Ok(outcome)
}

/// A linear layer and its input.
struct Layer<'l> {
    m: usize,
    n: usize,
    k: usize,
    x: &'l [f32],
    weight: &'l [f32],
    bias: &'l [f32],
}

/// The results.
struct Run {
    /// The output in f32.
    y: Vec<f32>,
    /// The int32 sums, bias included.
    acc: Vec<i32>,
    codes: Vec<i8>,
    /// The parameters of the codes.
    params: QParams,
    restored: Vec<f32>,
}

impl Layer<'_> {
    fn run(&self) -> Result<Run> {
        let &Layer { m, n, k, .. } = self;
        let range = CodeRange::signed(BITS)?;
        let scheme = Scheme::lab2_linear(range);
        let input = scheme.choose(Range::of(self.x)?)?;
        let mut x = vec![0_i8; m * k];
        quantize_slice(self.x, &input, &mut x)?;

        let rows = ChannelAxis::rows(n, k)?;
        let weights = channel_params(self.weight, rows, &Scheme::lab2_weights(range))?;
        let mut w = vec![0_i8; n * k];
        quantize_per_channel(self.weight, rows, &weights, &mut w)?;
        let scales: Vec<f32> = weights.iter().map(QParams::scale).collect();
        let bias = quantize_biases(self.bias, input.scale(), &scales)?;

        // In f32, for the range of the output.
        let mut y = vec![0.0; m * n];
        let (a, b) = (MatRef::new(self.x, m, k)?, MatRef::new(self.weight, n, k)?);
        float::matmul(a, b, MatMut::new(&mut y, m, n)?, Threads::Serial)?;
        y.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(self.bias).for_each(|(y, b)| *y += b));
        let params = scheme.choose(Range::of(&y)?)?;

        // In integers.
        let packed = PackedWeights::from_nk(MatRef::new(&w, n, k)?, Kernel::select()?)?;
        let a = Activations::new(MatRef::new(&x, m, k)?, input.zero_point());
        let stage = Int32::new().with_bias(&bias);
        let mut acc = vec![0; m * n];
        gemm(a, &packed, &stage, MatMut::new(&mut acc, m, n)?, Threads::Serial, &mut Workspace::new())?;
        let mode = RequantizeMode::AddThenRound;
        let of_channel =
            |scale: &f32| mode.requantizer(input.scale_f64(), (*scale).into(), params.scale_f64());
        let requantizers = scales.iter().map(of_channel).collect::<Result<Vec<_>, _>>()?;
        let mut codes = vec![0_i8; m * n];
        let channels = ChannelAxis::new(&[m, n], 1)?;
        requantize_per_channel(&acc, channels, &requantizers, params.zero_point(), range, &mut codes)?;
        let mut restored = vec![0.0; m * n];
        dequantize_slice(&codes, &params, &mut restored)?;
        Ok(Run { y, acc, codes, params, restored })
    }
}
