//! What a sensitivity analysis found.

use core::fmt;
use std::collections::BTreeMap;

use super::quality::{Quality, Target};
use crate::config::method::Method;
use crate::config::pass::{PassConfig, Rule};
use crate::config::pattern::literal;
use crate::evidence::table::Table;
use crate::evidence::warning::Warning;

/// The most rows of the table. With them a terminal shows what costs most, and the mix.
const MOST_ROWS: usize = 20;

/// What quantizing each layer alone costs, the costliest first, and the mix that keeps the target.
/// `Display` gives tables.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SensitivityReport {
    /// One entry for each layer and form, from the lowest SQNR to the highest.
    pub layers: Vec<LayerSensitivity>,
    /// What was to be kept.
    pub target: Option<Target>,
    /// The whole model in each candidate, if there was a target.
    pub uniform: Vec<UniformScheme>,
    /// The cheapest mix that keeps the target, if there was one.
    pub mix: Option<Mix>,
    /// Warnings where the SQNR of the model's output hides what quantizing a layer alone costs.
    /// Healthy models have none.
    pub warnings: Vec<Warning>,
}

/// What quantizing one layer alone does to the model's output.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerSensitivity {
    /// The layer.
    pub name: String,
    /// What it became; all other layers are in f32.
    pub method: Method,
    /// How close the model's output is to that of the f32 model.
    pub quality: Quality,
    /// Bytes that the form saves.
    pub saved_bytes: usize,
}

/// How good the model is with all layers that may be quantized in the same form.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UniformScheme {
    /// What they became.
    pub method: Method,
    /// How close the model's output is to that of the f32 model.
    pub quality: Quality,
    /// Bytes of all layers.
    pub bytes: usize,
}

impl UniformScheme {
    /// The one that comes closest to the target, the first of several. One whose outputs are not
    /// finite is none.
    pub(crate) fn best(schemes: &[UniformScheme], target: Target) -> Option<&UniformScheme> {
        let measured = |scheme: &UniformScheme| target.measured(&scheme.quality);
        let finite = schemes.iter().filter(|scheme| !scheme.quality.sqnr_db.is_nan());
        finite.reduce(|best, next| if measured(next) > measured(best) { next } else { best })
    }
}

/// A form for each layer, and how good the model is with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mix {
    /// Each layer that may be quantized, and what will become of it.
    pub methods: Vec<(String, Method)>,
    /// How close the model's output is to that of the f32 model, measured.
    pub quality: Quality,
    /// Bytes of all layers in f32.
    pub float_bytes: usize,
    /// Bytes of all layers in this mix.
    pub stored_bytes: usize,
}

impl Mix {
    /// Puts a rule for each layer before the rules of `base`, so that another calibration's
    /// [`quantize`](crate::Calibration::quantize) makes this mix. With the calibration at hand
    /// [`quantize_mix`](crate::Calibration::quantize_mix) does.
    #[must_use]
    pub fn config(&self, base: PassConfig) -> PassConfig {
        let rule = |(name, method): &(String, Method)| Rule { pattern: literal(name), method: *method };
        let rules = self.methods.iter().map(rule).chain(base.rules).collect();
        PassConfig { rules, ..base }
    }

    /// The layers that differ from most, and one row for all others.
    fn cells(&self) -> Vec<Vec<String>> {
        let mut counts = BTreeMap::new();
        self.methods.iter().for_each(|(_, method)| *counts.entry(method.to_string()).or_insert(0) += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let Some((most, count)) = most else { return Vec::new() };
        let rows = self.methods.iter().map(|(name, method)| vec![name.clone(), method.to_string()]);
        let mut rows: Vec<_> = rows.filter(|row| row[1] != most).collect();
        rows.push(vec![format!("{} {count}", if rows.is_empty() { "all" } else { "the other" }), most]);
        rows
    }

    /// How many layers stay in f32 to keep the target.
    pub fn layers_in_float(&self) -> usize {
        self.methods.iter().filter(|(_, method)| matches!(method, Method::Float)).count()
    }
}

impl SensitivityReport {
    /// Whether the target is out of reach of the schemes that were tried: all layers must stay in
    /// f32 to keep it, or not even that is enough. (Where some of them must,
    /// [`Mix::layers_in_float`] says how many.)
    pub fn is_out_of_reach(&self) -> bool {
        match (&self.mix, self.target) {
            (Some(mix), Some(target)) => {
                mix.layers_in_float() == mix.methods.len() || !target.is_kept(&mix.quality)
            }
            _ => false,
        }
    }

    /// Says what the mix is, and what the target takes.
    fn write_mix(&self, f: &mut fmt::Formatter<'_>, mix: &Mix, target: Target) -> fmt::Result {
        let figures = |quality: &Quality, bytes| {
            format!(
                "SQNR {:.2} dB, same class in {:.2} % of the rows, {bytes} bytes",
                quality.sqnr_db,
                100.0 * quality.agreement
            )
        };
        let (in_float, all) = (mix.layers_in_float(), mix.methods.len());
        if in_float > 0 || self.is_out_of_reach() {
            let takes = if self.is_out_of_reach() {
                "is out of reach of the schemes tried"
            } else {
                "takes some f32"
            };
            writeln!(f, "{target} {takes}: {in_float} of {all} layers stay in f32")?;
            let best = UniformScheme::best(&self.uniform, target);
            if let Some(UniformScheme { method, quality, bytes }) = best {
                writeln!(f, "the best of them in all layers: {method}, {}", figures(quality, *bytes))?;
            }
        }
        writeln!(f, "mix: {} instead of {}", figures(&mix.quality, mix.stored_bytes), mix.float_bytes)?;
        write!(f, "{}", Table(&mix.cells()))
    }
}

impl fmt::Display for SensitivityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["quantized alone", "as", "SQNR dB", "about mean", "same class %", "saves bytes"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(self.layers.iter().take(MOST_ROWS).map(|layer| {
            let Quality { sqnr_db, sqnr_about_mean_db, agreement, .. } = layer.quality;
            vec![
                layer.name.clone(),
                layer.method.to_string(),
                format!("{sqnr_db:.2}"),
                sqnr_about_mean_db.map_or_else(|| "-".to_owned(), |db| format!("{db:.2}")),
                format!("{:.2}", 100.0 * agreement),
                layer.saved_bytes.to_string(),
            ]
        }));
        write!(f, "{}", Table(&rows))?;
        if let Some(more @ 1..) = self.layers.len().checked_sub(MOST_ROWS) {
            writeln!(f, "{more} more, which cost less: see `layers`")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        let (Some(mix), Some(target)) = (&self.mix, self.target) else { return Ok(()) };
        self.write_mix(f, mix, target)
    }
}
