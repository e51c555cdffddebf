//! The report of what quantization cost: it compares the int8 model, layer by layer and on the same
//! rows, with the f32 model that it was made of.

use core::fmt;

use qcore::{CodeRange, QParams};
use qkernels::{MatRef, WindowCounts};

use super::compare::{Comparison, Share, Tallies, Tally};
use super::float::FloatMlp;
use super::quant::QuantMlp;
use crate::config::activation_codes::ActivationCodes;
use crate::config::form::Form;
use crate::config::weights::{WeightConfig, WeightGranularity};
use crate::evidence::table::Table;
use crate::evidence::warning::Warning;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::layer_error::LayerError;
use crate::layer::rows::check_input;
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::weight_codes::params_of_weights;

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// There are no rows to compare on.
    #[error("a report needs at least one row, got none")]
    NoRows,
    /// The models have different numbers of layers.
    #[error("the int8 model has {quantized} layers, the f32 model {float}")]
    LayerCount {
        /// Layers of the int8 model.
        quantized: usize,
        /// Layers of the f32 model.
        float: usize,
    },
    /// Two layers do not correspond.
    #[error(
        "layer {index} is {name:?} (n = {n}, k = {k}) in int8, {float_name:?} (n = {float_n}, k = {float_k}) in f32"
    )]
    Layer {
        /// Its index.
        index: usize,
        /// Name in the int8 model.
        name: String,
        /// Outputs there.
        n: usize,
        /// Inputs there.
        k: usize,
        /// Name in the f32 model.
        float_name: String,
        /// Outputs there.
        float_n: usize,
        /// Inputs there.
        float_k: usize,
    },
    /// The weights of an f32 layer have no scales, so it is not the one that was quantized.
    #[error("weights of layer {layer:?}: {error}")]
    Weights {
        /// The layer.
        layer: String,
        /// Why.
        error: LayerError,
    },
    /// The rows do not fit the models.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// The int8 model compared with the f32 model. `Display` gives a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelReport {
    /// One entry for each layer.
    pub layers: Vec<LayerReport>,
    /// Rows compared.
    pub rows: usize,
    /// Name of the kernel that the int8 model is packed for.
    pub kernel: &'static str,
    /// The type that codes of activations have.
    pub activations: ActivationCodes,
    /// SQNR of the logits in dB, which is that of the last layer.
    pub logits_sqnr_db: f64,
    /// Share of rows, 0 to 1, whose largest logit is the same one in both models
    /// ([`qcore::Agreement`]).
    pub agreement: f64,
    /// Bytes of all f32 weights and biases.
    pub float_bytes: usize,
    /// Bytes that the int8 model stores ([`StaticLinear::storage`]).
    pub quantized_bytes: usize,
    /// Warnings about what the figures hide. Healthy models have none.
    pub warnings: Vec<Warning>,
}

/// One layer of a [`ModelReport`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerReport {
    /// Name.
    pub name: String,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// Codes of the input. Not all that its type has, if the range was reduced
    /// ([`QuantConfig::reduce_range`](crate::QuantConfig::reduce_range)).
    pub input_codes: CodeRange,
    /// Scale of the input: of its codes, which are those of quotients if a layer has
    /// [an input scale](StaticLinear::input_scale) for each channel.
    pub input_scale: f32,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Smallest and largest of the channels' weight scales.
    pub weight_scales: (f32, f32),
    /// Share, 0 to 1, of the f32 model's inputs of this layer that are clipped (their quotients if
    /// the layer divides them): they lie outside
    /// the calibrated range by more than half a step, so they have no code of their own.
    pub clipped: f64,
    /// Share, 0 to 1, of the int8 model's outputs of this layer that were clamped to the largest
    /// code. Zeros that ReLU makes do not count. `None` for the last layer, whose outputs are real
    /// values.
    pub saturated: Option<f64>,
    /// Signal to quantization noise of the layer's output in dB, with the errors of all layers
    /// before it: `10 * log10(sum f^2 / sum (f - q)^2)` ([`qcore::sqnr_db`]), where f is the f32
    /// output after ReLU and q are the dequantized codes.
    pub sqnr_db: f64,
    /// The same about the mean of each output over the rows ([`qcore::SqnrAboutMean`]), which
    /// counts only what differs from row to row. `None` with a single row.
    pub sqnr_about_mean_db: Option<f64>,
    /// Bytes of f32 weights and bias.
    pub float_bytes: usize,
    /// Bytes of int8 weights, scales, bias and input parameters.
    pub quantized_bytes: usize,
    /// Channels whose weight scale is larger than [`Scheme::weights_i8`](qcore::Scheme::weights_i8)
    /// gives their weights, because bias and sums have to fit int32.
    pub raised_channels: Vec<usize>,
    /// Channels whose weights all have the code 0, so that their output is always the bias.
    pub constant_channels: Vec<usize>,
    /// How many channels run on a faster form of the kernel, because packing proved that they may
    /// ([`PackedWeights::proven_columns`](qkernels::PackedWeights::proven_columns)); `None` if the
    /// kernel has no such form.
    pub proven_channels: Option<usize>,
    /// How sums are formed where the k of a panel have an order of their own
    /// ([`PackedWeights::window_counts`](qkernels::PackedWeights::window_counts)); `None` if the
    /// kernel has no such panels.
    pub windows: Option<WindowCounts>,
}

impl ModelReport {
    /// How many times smaller the int8 model is.
    pub fn compression(&self) -> f64 {
        self.float_bytes as f64 / self.quantized_bytes as f64
    }
}

impl QuantMlp {
    /// Runs the rows `x` (m, inputs) through this model and through `float`, the model that it was
    /// made of, and compares them. The rows should be others than those of the calibration. Memory
    /// does not grow with m.
    ///
    /// # Errors
    /// [`ReportError`] if there are no rows, they are not finite or of the wrong width, or `float`
    /// has other layers.
    pub fn report(&self, float: &FloatMlp, x: MatRef<'_, f32>) -> Result<ModelReport, ReportError> {
        let quantized: Vec<_> = self.layers().collect();
        check_layers(&quantized, float.layers())?;
        check_input(&x, self.inputs())?;
        if x.rows() == 0 {
            return Err(ReportError::NoRows);
        }
        let tallies = match self.activations() {
            ActivationCodes::U8 => Comparison::<u8>::new(self, float).run(x)?,
            ActivationCodes::I8 => Comparison::<i8>::new(self, float).run(x)?,
        };
        let Tallies { layers: tallies, agreement } = tallies;
        let (mut layers, mut warnings) = (Vec::with_capacity(tallies.len()), Vec::new());
        for ((layer, float_layer), tally) in quantized.iter().zip(float.layers()).zip(&tallies) {
            layers.push(self.layer_report(layer, float_layer, tally)?);
            warnings.extend(Warning::of_output(layer.name(), Form::Static, &tally.sqnr));
            warnings.extend(tally.peaks.warning(layer.name()));
        }
        Ok(ModelReport {
            rows: x.rows(),
            kernel: self.kernel().name(),
            activations: self.activations(),
            logits_sqnr_db: layers.last().map_or(f64::NAN, |layer| layer.sqnr_db),
            agreement: agreement.share(),
            float_bytes: float.bytes(),
            quantized_bytes: quantized.iter().map(|layer| layer.storage().total()).sum(),
            layers,
            warnings,
        })
    }

    fn layer_report(
        &self,
        layer: &StaticLinear,
        float: &FloatLinear,
        tally: &Tally,
    ) -> Result<LayerReport, ReportError> {
        let asked = asked_scales(layer, float)
            .map_err(|error| ReportError::Weights { layer: layer.name().to_owned(), error })?;
        let scales = layer.weight_scales();
        let desc = self.kernel().desc();
        let channels = |is: &dyn Fn(usize) -> bool| (0..layer.n()).filter(|&channel| is(channel)).collect();
        Ok(LayerReport {
            name: layer.name().to_owned(),
            n: layer.n(),
            k: layer.k(),
            input_codes: layer.input().codes(),
            input_scale: layer.input().scale(),
            input_zero_point: layer.input().zero_point(),
            weight_scales: scales
                .iter()
                .fold((f32::INFINITY, 0.0), |(min, max), &scale| (scale.min(min), scale.max(max))),
            clipped: tally.clipped.share(),
            saturated: tally.saturated.map(Share::share),
            sqnr_db: tally.sqnr.sqnr_db(),
            sqnr_about_mean_db: tally.sqnr.db(),
            float_bytes: float.bytes(),
            quantized_bytes: layer.storage().total(),
            raised_channels: channels(&|channel| scales[channel] > asked[channel]),
            constant_channels: channels(&|channel| layer.weights().channel_abs_sums()[channel] == 0),
            proven_channels: (!desc.proven.is_empty() || desc.ordered.is_some())
                .then(|| layer.weights().proven_columns()),
            windows: desc.ordered.map(|_| layer.weights().window_counts(0..layer.n())),
        })
    }
}

/// The weight scale that each channel needs: its own, or that of the whole tensor if no channel of
/// the layer has a smaller one. Where the input is divided by scales, weights were multiplied by
/// them before.
fn asked_scales(layer: &StaticLinear, float: &FloatLinear) -> Result<Vec<f32>, LayerError> {
    let by_input = layer.input_scale().unwrap_or(&[1.0]).iter().cycle();
    let weight: Vec<f32> =
        float.weight().iter().zip(by_input).map(|(weight, scale)| weight * scale).collect();
    let scales = |granularity| {
        let config = WeightConfig { granularity, ..WeightConfig::default() };
        let params = params_of_weights(float, &weight, &config)?;
        Ok(params.iter().map(QParams::scale).collect::<Vec<_>>())
    };
    let whole = scales(WeightGranularity::PerTensor)?;
    match layer.weight_scales().iter().zip(&whole).all(|(scale, whole)| scale >= whole) {
        true => Ok(whole),
        false => scales(WeightGranularity::PerChannel),
    }
}

fn check_layers(quantized: &[&StaticLinear], float: &[FloatLinear]) -> Result<(), ReportError> {
    if quantized.len() != float.len() {
        return Err(ReportError::LayerCount { quantized: quantized.len(), float: float.len() });
    }
    for (index, (q, f)) in quantized.iter().zip(float).enumerate() {
        if (q.name(), q.n(), q.k()) != (f.name(), f.n(), f.k()) {
            return Err(ReportError::Layer {
                index,
                name: q.name().to_owned(),
                n: q.n(),
                k: q.k(),
                float_name: f.name().to_owned(),
                float_n: f.n(),
                float_k: f.k(),
            });
        }
    }
    Ok(())
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "int8 model, {} activations{}, kernel {}, compared with f32 on {} rows",
            self.activations,
            if self.is_reduced() { " of 7 bits" } else { "" },
            self.kernel,
            self.rows
        )?;
        write!(f, "{}", Table(&self.rows_of_cells()))?;
        writeln!(
            f,
            "{} bytes instead of {} ({:.2} times smaller); logits SQNR {:.2} dB; same class in {:.2} % of the rows",
            self.quantized_bytes,
            self.float_bytes,
            self.compression(),
            self.logits_sqnr_db,
            100.0 * self.agreement
        )?;
        if let Some(proven) = self.layers.iter().map(|layer| layer.proven_channels).sum::<Option<usize>>() {
            let channels: usize = self.layers.iter().map(|layer| layer.n).sum();
            writeln!(f, "{proven} of {channels} channels run on a faster form of the kernel")?;
        }
        let windows = self.layers.iter().map(|layer| layer.windows).sum::<Option<WindowCounts>>();
        if let Some(windows) = windows.filter(|windows| windows.total() > 0) {
            writeln!(f, "windows of 16 k in an order of their own: {windows}")?;
        }
        for layer in &self.layers {
            for (channels, what) in [
                (&layer.raised_channels, "weight scale raised, so that bias and sums fit int32"),
                (&layer.constant_channels, "all weights 0, output constant"),
            ] {
                if !channels.is_empty() {
                    writeln!(f, "note: {}: {what}: {}", layer.name, Channels(channels))?;
                }
            }
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl ModelReport {
    /// Whether all layers have what [`QuantConfig::reduce_range`](crate::QuantConfig::reduce_range)
    /// leaves of the codes.
    fn is_reduced(&self) -> bool {
        let reduced = self.activations.range().reduced();
        self.layers.iter().all(|layer| layer.input_codes == reduced)
    }

    fn rows_of_cells(&self) -> Vec<Vec<String>> {
        let titles = [
            "layer",
            "k",
            "n",
            "input scale",
            "zero point",
            "weight scales",
            "clipped %",
            "saturated %",
            "SQNR dB",
            "about mean",
            "f32 bytes",
            "int8 bytes",
        ];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(self.layers.iter().map(|layer| {
            let (min, max) = layer.weight_scales;
            vec![
                layer.name.clone(),
                layer.k.to_string(),
                layer.n.to_string(),
                format!("{:.4e}", layer.input_scale),
                layer.input_zero_point.to_string(),
                format!("{min:.2e}..{max:.2e}"),
                format!("{:.3}", 100.0 * layer.clipped),
                layer.saturated.map_or_else(|| "-".to_owned(), |share| format!("{:.3}", 100.0 * share)),
                format!("{:.2}", layer.sqnr_db),
                layer.sqnr_about_mean_db.map_or_else(|| "-".to_owned(), |db| format!("{db:.2}")),
                layer.float_bytes.to_string(),
                layer.quantized_bytes.to_string(),
            ]
        }));
        rows
    }
}

/// Channels in a note: their number, and the first few.
struct Channels<'c>(&'c [usize]);

impl fmt::Display for Channels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let first: Vec<String> = self.0.iter().take(SHOWN).map(usize::to_string).collect();
        let more = if self.0.len() > SHOWN { ", ..." } else { "" };
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} channel{plural} ({}{more})", self.0.len(), first.join(", "))
    }
}
