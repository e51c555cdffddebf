//! `cargo xtask demo mnist`: turns a trained network, calibrated on real images, into an integer
//! model, and shows what that costs and saves on images it was not trained on.

use std::fmt::Write;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use qcore::Agreement;
use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, FloatMlp, LinearWorkspace, ModelReport, QuantConfig, QuantMlp, WeightGranularity,
    argmax_rows,
};
use rayon::ThreadPoolBuilder;

use crate::dataset::Digits;
use crate::flags::{Codes, Mnist, Model};
use crate::float_model::{self, layout, matrix};
use crate::pace::{self, Pace};

/// How many images go through the models together when speed is measured.
const BATCHES: [usize; 3] = [1, 32, 256];

/// Runs the demo from the command line.
pub(crate) fn run(flags: &Mnist) -> Result<()> {
    Ok(io::Write::write_all(&mut io::stdout(), text(flags, true)?.as_bytes())?)
}

/// What the demo shows. If it is `shown`, a progress bar covers the measuring of speed.
pub(crate) fn text(flags: &Mnist, shown: bool) -> Result<String> {
    let file = match flags.model {
        Model::Mlp256 => float_model::MLP_256,
        Model::Mlp512 => float_model::MLP_512,
    };
    let selection = qkernels::report()?;
    let pool = ThreadPoolBuilder::new().num_threads(flags.threads.into()).build()?;
    let threads = if flags.threads == 1 { Threads::Serial } else { Threads::Pool(&pool) };

    let path = flags.data.join(file);
    let float = FloatMlp::load(&path).with_context(|| path.display().to_string())?;
    let calibration = read_digits(&flags.data, "mnist_calib_500.safetensors")?;
    let test = read_digits(&flags.data, "mnist_test_2500.safetensors")?;
    let images = matrix(&test)?;

    let config = QuantConfig {
        activations: match flags.activations {
            Codes::U8 => ActivationCodes::U8,
            Codes::I8 => ActivationCodes::I8,
        },
        weights: if flags.per_tensor { WeightGranularity::PerTensor } else { WeightGranularity::PerChannel },
        reduce_range: flags.reduce_range,
        kernel: Some(selection.kernel),
    };
    let calibrated = float.calibrate([matrix(&calibration)?])?;
    let quantized = calibrated.quantize(&config)?;
    // The model used from here on went through a file, as it would in an engine.
    let bytes = quantized.to_bytes()?;
    let quantized = QuantMlp::from_bytes(&bytes, config.kernel)?;

    let logits = Logits::of(&float, &quantized, images, threads)?;
    let report = quantized.report(&float, images)?;
    let speeds = measure(&float, &quantized, images, threads, shown)?;

    let mut text = format!(
        "MNIST, {}: {} parameters in {} layers\ncalibrated on {} images, run on {} others\nkernel {}: {}; {} thread(s)\n\n{}\n\
         layer by layer, on the {} test images\n{report}",
        layout(&float),
        float.bytes() / 4,
        float.layers().len(),
        calibration.len(),
        test.len(),
        selection.kernel,
        selection.reason,
        flags.threads,
        table(&logits, &report, &test, bytes.len(), &speeds)?,
        report.rows
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    if flags.reduce_range {
        let eight_bits = calibrated.quantize(&QuantConfig { reduce_range: false, ..config })?;
        let (seven, eight) = (report.logits_sqnr_db, eight_bits.report(&float, images)?.logits_sqnr_db);
        writeln!(
            text,
            "activations of 7 bits cost {:.2} dB: logits SQNR {seven:.2} dB, with 8 bits {eight:.2} dB",
            eight - seven
        )?;
    }
    if let Some(path) = &flags.save {
        quantized.save(path).with_context(|| path.display().to_string())?;
        writeln!(text, "saved {}", path.display())?;
    }
    Ok(text)
}

fn read_digits(data: &Path, file: &str) -> Result<Digits> {
    Digits::read(&data.join(file)).map_err(|error| anyhow!(error))
}

/// The outputs of both models on the test images.
struct Logits {
    n: usize,
    float: Vec<f32>,
    int8: Vec<f32>,
}

impl Logits {
    fn of(float: &FloatMlp, quantized: &QuantMlp, x: MatRef<'_, f32>, threads: Threads<'_>) -> Result<Self> {
        let (m, n) = (x.rows(), float.outputs());
        let (mut float_logits, mut int8_logits) = (vec![0.0; m * n], vec![0.0; m * n]);
        float.forward(x, MatMut::new(&mut float_logits, m, n)?, threads, &mut LinearWorkspace::new())?;
        quantized.forward(x, MatMut::new(&mut int8_logits, m, n)?, threads, &mut LinearWorkspace::new())?;
        Ok(Self { n, float: float_logits, int8: int8_logits })
    }

    /// The number of rows for which both models choose the same class.
    fn same_class(&self) -> u64 {
        let mut agreement = Agreement::default();
        // Both have the same number of logits.
        agreement.add(&self.float, &self.int8, self.n).unwrap_or_default();
        agreement.same()
    }

    fn classes(&self, logits: &[f32]) -> Vec<Option<usize>> {
        MatRef::new(logits, logits.len() / self.n, self.n)
            .map(|rows| argmax_rows(rows).collect())
            .unwrap_or_default()
    }
}

/// Images per second of both models at one batch size.
struct Speed {
    batch: usize,
    pace: Pace,
}

fn measure(
    float: &FloatMlp,
    quantized: &QuantMlp,
    images: MatRef<'_, f32>,
    threads: Threads<'_>,
    shown: bool,
) -> Result<Vec<Speed>> {
    let style = ProgressStyle::with_template("measuring speed {bar:30} {pos}/{len}")?;
    let progress = match shown {
        true => ProgressBar::new((BATCHES.len() * pace::ROUNDS) as u64).with_style(style),
        false => ProgressBar::hidden(),
    };
    let n = float.outputs();
    let (mut float_workspace, mut workspace) = (LinearWorkspace::new(), LinearWorkspace::new());
    let mut speeds = Vec::new();
    for batch in BATCHES {
        ensure!(
            batch <= images.rows(),
            "a batch of {batch} needs as many test images, got {}",
            images.rows()
        );
        let x = images.row_range(0..batch).context("no such rows")?;
        let (mut float_logits, mut int8_logits) = (vec![0.0; batch * n], vec![0.0; batch * n]);
        let pace = pace::compare(
            || {
                Ok(float.forward(
                    x,
                    MatMut::new(&mut float_logits, batch, n)?,
                    threads,
                    &mut float_workspace,
                )?)
            },
            || Ok(quantized.forward(x, MatMut::new(&mut int8_logits, batch, n)?, threads, &mut workspace)?),
            || progress.inc(1),
        )?;
        speeds.push(Speed { batch, pace });
    }
    progress.finish_and_clear();
    Ok(speeds)
}

fn table(
    logits: &Logits,
    report: &ModelReport,
    test: &Digits,
    file_bytes: usize,
    speeds: &[Speed],
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let (float, int8) = (logits.classes(&logits.float), logits.classes(&logits.int8));
    let (float_right, int8_right) = (test.correct(float.iter().copied()), test.correct(int8.iter().copied()));
    let agree = logits.same_class();
    let percent = |count: f64| 100.0 * count / test.len() as f64;

    writeln!(text, "{:22} {:>12} {:>12}", "", "f32", "int8")?;
    writeln!(text, "{:22} {:>12} {:>12}   of {}", "right", float_right, int8_right, test.len())?;
    writeln!(
        text,
        "{:22} {:>10.2} % {:>10.2} %",
        "accuracy",
        percent(float_right as f64),
        percent(int8_right as f64)
    )?;
    writeln!(
        text,
        "{:22} {:>12} {:>12}   of {} ({:.2} %)",
        "same prediction",
        "",
        agree,
        test.len(),
        percent(agree as f64)
    )?;
    writeln!(text, "{:22} {:>12} {:>9.2} dB", "logits SQNR", "", report.logits_sqnr_db)?;
    writeln!(
        text,
        "{:22} {:>12} {:>12}   {:.2} times smaller",
        "bytes of the model",
        report.float_bytes,
        report.quantized_bytes,
        report.compression()
    )?;
    writeln!(text, "{:22} {:>12} {:>12}", "bytes of the file", "", file_bytes)?;
    for Speed { batch, pace } in speeds {
        writeln!(
            text,
            "{:22} {:>12.0} {:>12.0}   {:.2} times as fast",
            format!("images/s, batch {batch}"),
            *batch as f64 / pace.first,
            *batch as f64 / pace.second,
            pace.ratio
        )?;
    }
    Ok(text)
}
