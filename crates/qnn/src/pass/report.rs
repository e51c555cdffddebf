//! What the quantize pass did to each layer, why, and what it cost.

use core::fmt;

use qcore::QParams;

use super::error::PassLayerError;
use crate::config::form::Form;
use crate::evidence::table::Table;
use crate::evidence::warning::Warning;
use crate::layer::linear::Linear;
use crate::layer::storage::Storage;

/// What [`quantize_model`](crate::quantize_model) did. `Display` gives a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PassReport {
    /// One entry for each layer, in the order of the visit.
    pub layers: Vec<PassLayer>,
    /// Batches that calibration ran.
    pub batches: usize,
    /// Name of the kernel that the layers are packed for.
    pub kernel: &'static str,
    /// Warnings about what the figures hide. Healthy models have none.
    pub warnings: Vec<Warning>,
}

/// One layer of a [`PassReport`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PassLayer {
    /// Name.
    pub name: String,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// The form that it has now.
    pub form: Form,
    /// What decided that.
    pub decision: Decision,
    /// Scale, zero point and codes of the input, if they were calibrated.
    pub input: Option<QParams>,
    /// Rows of input that calibration saw.
    pub rows: u64,
    /// How many of their values were not finite. Observers skip those.
    pub non_finite: u64,
    /// Share, 0 to 1, of the kept inputs that are clipped because they have no code of their own.
    pub clipped: Option<f64>,
    /// Signal to quantization noise of the layer's output in dB, for this layer alone, measured on
    /// the kept rows of its f32 input.
    pub sqnr_db: Option<f64>,
    /// The same about the mean of each output ([`qcore::SqnrAboutMean`]), which counts only what
    /// differs from row to row. `None` if fewer than two rows were kept.
    pub sqnr_about_mean_db: Option<f64>,
    /// Bytes in f32.
    pub float_bytes: usize,
    /// Bytes stored now.
    pub stored: Storage,
}

/// What decided about a layer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// The configuration's method for all layers.
    Default,
    /// The rule with this pattern.
    Rule(String),
    /// The first layer stays in f32.
    First,
    /// The last layer stays in f32.
    Last,
    /// It has fewer weights than the minimum.
    TooSmall,
    /// The scheme for all layers that [`Calibration::quantize_as`](crate::Calibration::quantize_as)
    /// was given.
    Scheme,
    /// The mix that [`Calibration::quantize_mix`](crate::Calibration::quantize_mix) was given.
    Mix,
    /// It was quantized before.
    Already,
    /// It could not be quantized as asked, and was allowed to stay in f32.
    Fallback(PassLayerError),
}

impl PassLayer {
    pub(crate) fn unchanged(layer: &Linear, decision: Decision) -> Self {
        Self {
            name: layer.name().to_owned(),
            n: layer.n(),
            k: layer.k(),
            form: layer.form(),
            decision,
            input: None,
            rows: 0,
            non_finite: 0,
            clipped: None,
            sqnr_db: None,
            sqnr_about_mean_db: None,
            float_bytes: layer.float_bytes(),
            stored: layer.storage(),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Default => f.write_str("default"),
            Decision::Rule(pattern) => write!(f, "rule {pattern}"),
            Decision::First => f.write_str("first layer"),
            Decision::Last => f.write_str("last layer"),
            Decision::TooSmall => f.write_str("small"),
            Decision::Scheme => f.write_str("scheme"),
            Decision::Mix => f.write_str("mix"),
            Decision::Already => f.write_str("before"),
            Decision::Fallback(_) => f.write_str("fallback"),
        }
    }
}

impl fmt::Display for PassReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "layers: {}, batches of calibration: {}, kernel: {}",
            self.layers.len(),
            self.batches,
            self.kernel
        )?;
        write!(f, "{}", Table(&self.cells()))?;
        for layer in &self.layers {
            if let Decision::Fallback(error) = &layer.decision {
                writeln!(f, "note: {} stays in f32: {error}", layer.name)?;
            }
            if layer.non_finite > 0 {
                let PassLayer { name, non_finite, .. } = layer;
                writeln!(f, "note: {name}: {non_finite} input values are not finite and were skipped")?;
            }
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl PassReport {
    fn cells(&self) -> Vec<Vec<String>> {
        let titles = [
            "layer",
            "k",
            "n",
            "now",
            "by",
            "input scale",
            "zero point",
            "clipped %",
            "SQNR dB",
            "about mean",
            "bytes",
        ];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        rows.extend(self.layers.iter().map(|layer| {
            vec![
                layer.name.clone(),
                layer.k.to_string(),
                layer.n.to_string(),
                layer.form.to_string(),
                layer.decision.to_string(),
                or_dash(layer.input.map(|input| format!("{:.4e}", input.scale()))),
                or_dash(layer.input.map(|input| input.zero_point().to_string())),
                or_dash(layer.clipped.map(|share| format!("{:.3}", 100.0 * share))),
                or_dash(layer.sqnr_db.map(|db| format!("{db:.2}"))),
                or_dash(layer.sqnr_about_mean_db.map(|db| format!("{db:.2}"))),
                layer.stored.total().to_string(),
            ]
        }));
        rows
    }
}
