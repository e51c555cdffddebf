//! Why the quantize pass failed.

use qcore::{ActivationFunction, ObserverError, SchemeError, SettingError};
use qkernels::SelectError;

use crate::accuracy::error::AccuracyError;
use crate::config::form::Form;
use crate::config::recipe::LayerPair;
use crate::layer::float::FloatLinearError;
use crate::layer::forward_error::ForwardError;
use crate::layer::layer_error::LayerError;
use crate::tree::chain::ChainError;
use crate::tree::shape::{LayerMismatch, LayerShape};

/// Why a model could not be quantized. Its layers are those that it had before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError<E> {
    /// There are no layers, or two have the same name.
    #[error(transparent)]
    Layers(ChainError),
    /// A rule matches no layer.
    #[error("the rule for {pattern:?} matches no layer")]
    UnusedRule {
        /// The rule's pattern.
        pattern: String,
    },
    /// A layer saw fewer finite rows than the recipe needs.
    #[error("layer {layer:?} saw {rows} finite rows {of}, and the recipe needs {needed}")]
    FewRows {
        /// The first such layer.
        layer: String,
        /// Of calibration, or held out.
        of: &'static str,
        /// Rows.
        rows: u64,
        /// The least.
        needed: u64,
    },
    /// Two layers that a recipe names are no pair that can be balanced.
    #[error("{first:?} and {second:?} cannot be balanced: {error}", first = .pair.first, second = .pair.second)]
    Pair {
        /// The pair.
        pair: LayerPair,
        /// Why.
        error: PairError,
    },
    /// A setting of the recipe cannot be used.
    #[error("{setting} of the recipe: {value} {reason}")]
    Recipe {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// Why.
        reason: &'static str,
    },
    /// Layers need calibration, and there was no batch.
    #[error("layer {layer:?} and perhaps others need calibration, and there is no batch")]
    NoBatches {
        /// The first such layer.
        layer: String,
    },
    /// The model could not be run on a batch.
    #[error("batch {batch}: {error}")]
    Run {
        /// Index of the batch.
        batch: usize,
        /// What the caller's function says.
        error: E,
    },
    /// A layer cannot be quantized as asked, and
    /// [`PassConfig::require_integer`](crate::PassConfig::require_integer) does not let it stay in
    /// f32.
    #[error(transparent)]
    Layer(#[from] Refusal),
    /// No kernel could be selected.
    #[error(transparent)]
    Kernel(SelectError),
}

/// Why two layers cannot be balanced.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The model has no f32 layer of this name.
    #[error("there is no f32 layer {layer:?}")]
    NoSuchLayer {
        /// The name.
        layer: String,
    },
    /// The second layer does not read what the first one gives.
    #[error("the first gives n = {n} values, the second takes k = {k}")]
    Width {
        /// Outputs of the first layer.
        n: usize,
        /// Inputs of the second.
        k: usize,
    },
    /// A scale does not go through the function between them.
    #[error("{function:?} of a multiple is not the multiple of {function:?}")]
    Activation {
        /// The activation function of the first layer.
        function: ActivationFunction,
    },
    /// One of them is in the same place of another pair.
    #[error("another pair has one of them in the same place")]
    Twice,
}

/// A layer that cannot be quantized as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("layer {layer:?}: {error}")]
#[non_exhaustive]
pub struct Refusal {
    /// The layer.
    pub layer: String,
    /// Why.
    pub error: PassLayerError,
}

impl Refusal {
    /// Whether the model is to blame, which shows other layers than it did, and not the scheme.
    pub(crate) fn is_mismatch(&self) -> bool {
        matches!(self.error, PassLayerError::Mismatch(_) | PassLayerError::Quantized { .. })
    }
}

impl From<LayerMismatch> for Refusal {
    fn from(error: LayerMismatch) -> Self {
        let name = |layer: &LayerShape| layer.name.clone();
        // A mismatch has at least one of the two layers.
        let layer = error.expected.as_ref().or(error.found.as_ref()).map_or_else(String::new, name);
        Self { layer, error: PassLayerError::Mismatch(Box::new(error)) }
    }
}

/// Why a layer cannot be quantized as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PassLayerError {
    /// A setting of the observer is out of range.
    #[error("{scheme}: {error}")]
    Setting {
        /// The scheme with this observer, as tables name it. It may be that of a candidate.
        scheme: String,
        /// Why.
        error: SettingError,
    },
    /// Calibration did not watch the layer for this static scheme.
    #[error("{scheme} is neither what calibration planned for the layer nor among its candidates")]
    NotWatched {
        /// The scheme, as tables name it.
        scheme: String,
    },
    /// The model shows other layers than those that were planned or calibrated.
    #[error(transparent)]
    Mismatch(Box<LayerMismatch>),
    /// The layer was in f32 when it was calibrated, and has been quantized since.
    #[error("it is {form} by now, and was in f32 when it was calibrated")]
    Quantized {
        /// The form that it has now.
        form: Form,
    },
    /// A mix names a layer that was not calibrated.
    #[error("the mix names it, and the model that was calibrated does not have it")]
    NotCalibrated,
    /// No row of any batch reached the layer, so its input has no range.
    #[error("the layer did not run during calibration, so its input has no range")]
    DidNotRun,
    /// The observer has no range, because the layer saw no finite value.
    #[error("its input in {rows} rows of calibration: {error}")]
    Observer {
        /// Rows that the layer saw.
        rows: u64,
        /// Why.
        error: ObserverError,
    },
    /// The observed range has no parameters.
    #[error("its input: {0}")]
    Input(SchemeError),
    /// Its weights, multiplied by the scales of its inputs, are not those of a layer.
    #[error("with inputs divided by scales of their own: {0}")]
    Smoothed(#[from] FloatLinearError),
    /// Its weights, balanced with those of another layer, are not those of a layer.
    #[error("balanced with another layer: {0}")]
    Rescaled(FloatLinearError),
    /// A step of a recipe has no codes or scales for its weights.
    #[error(transparent)]
    Accuracy(#[from] AccuracyError),
    /// Codes and scales do not make a layer.
    #[error(transparent)]
    Quantize(#[from] LayerError),
    /// The quantized layer could not be run. This is a defect.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}
