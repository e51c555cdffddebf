//! What a sensitivity analysis found.

use core::fmt;

use crate::config::form::Form;
use crate::config::method::Method;
use crate::config::pass::{PassConfig, Rule};
use crate::config::pattern::literal;
use crate::evidence::table::Table;
use crate::evidence::warning::Warning;

/// What quantizing each layer alone costs, the costliest first, and the mix that keeps the target.
/// `Display` gives tables.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SensitivityReport {
    /// One entry for each layer and form, from the lowest SQNR to the highest.
    pub layers: Vec<LayerSensitivity>,
    /// The cheapest mix that keeps the target, if there was one.
    pub mix: Option<Mix>,
    /// Warnings where the SQNR of the model's output hides what quantizing a layer alone costs.
    /// Healthy models have none.
    pub warnings: Vec<Warning>,
}

/// What quantizing one layer alone does to the model's output.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerSensitivity {
    /// The layer.
    pub name: String,
    /// Its form; all other layers are in f32.
    pub form: Form,
    /// Signal to quantization noise of the model's output in dB.
    pub sqnr_db: f64,
    /// The same about the mean of each output ([`qcore::SqnrAboutMean`]); `None` with a single row.
    pub sqnr_about_mean_db: Option<f64>,
    /// Share, 0 to 1, of rows whose largest output is the same one as in f32.
    pub agreement: f64,
    /// Bytes that the form saves.
    pub saved_bytes: usize,
}

/// A form for each layer, and how good the model is with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mix {
    /// Each layer that may be quantized, and what will become of it.
    pub methods: Vec<(String, Method)>,
    /// Signal to quantization noise of the model's output in dB, measured.
    pub sqnr_db: f64,
    /// The same about the mean of each output, measured.
    pub sqnr_about_mean_db: Option<f64>,
    /// Share, 0 to 1, of rows whose largest output is the same one as in f32, measured.
    pub agreement: f64,
    /// Bytes of all layers in f32.
    pub float_bytes: usize,
    /// Bytes of all layers in this mix.
    pub stored_bytes: usize,
}

impl Mix {
    /// Puts a rule for each layer before the rules of `base`, so that a pass makes this mix.
    #[must_use]
    pub fn config(&self, base: PassConfig) -> PassConfig {
        let rule = |(name, method): &(String, Method)| Rule { pattern: literal(name), method: *method };
        let rules = self.methods.iter().map(rule).chain(base.rules).collect();
        PassConfig { rules, ..base }
    }
}

impl fmt::Display for SensitivityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["quantized alone", "as", "SQNR dB", "about mean", "same class %", "saves bytes"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(self.layers.iter().map(|layer| {
            vec![
                layer.name.clone(),
                layer.form.to_string(),
                format!("{:.2}", layer.sqnr_db),
                layer.sqnr_about_mean_db.map_or_else(|| "-".to_owned(), |db| format!("{db:.2}")),
                format!("{:.2}", 100.0 * layer.agreement),
                layer.saved_bytes.to_string(),
            ]
        }));
        write!(f, "{}", Table(&rows))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        let Some(mix) = &self.mix else { return Ok(()) };
        writeln!(
            f,
            "mix: SQNR {:.2} dB, same class in {:.2} % of the rows, {} bytes instead of {}",
            mix.sqnr_db,
            100.0 * mix.agreement,
            mix.stored_bytes,
            mix.float_bytes
        )?;
        let rows: Vec<_> =
            mix.methods.iter().map(|(name, method)| vec![name.clone(), method.form().to_string()]).collect();
        write!(f, "{}", Table(&rows))
    }
}
