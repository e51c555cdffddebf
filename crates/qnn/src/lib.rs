//! int8 layers and models: quantize any tree of layers, see what that costs, run it, save it.
//!
//! - **Layers**: [`StaticLinear`] has calibrated scales and takes and gives codes or floats,
//!   [`DynamicLinear`] finds scales in the values at hand, and [`WeightOnlyLinear`] has float
//!   activations and sums. [`Linear`] is a layer in any form. The slow layers that courses write
//!   are in [`reference`](mod@reference).
//! - **The pass**: [`quantize_model`] walks an engine's own model ([`Layers`]), watches its layers
//!   while batches run through it, and replaces them as a [`PassConfig`] says.
//! - **Evidence**: [`PassReport`] has the SQNR and the clipped share of each layer, from the
//!   calibration run, and a [`Warning`] where a good figure hides a bad one.
//!   [`analyze_model_sizes`] counts bytes. [`compare_schemes`] runs the whole model in one scheme
//!   after the other. [`analyze_sensitivity`] finds out what quantizing each
//!   layer alone costs, and the cheapest mix that keeps a [`Target`].
//! - **Files**: [`Checkpoint`] reads PyTorch's names, the layouts of compressed-tensors, GPTQ and
//!   AWQ, from one file or from several ([`ShardIndex`]); [`GgufFile`] reads the
//!   files of llama.cpp, and [`GgufWriter`] puts quantized tensors into them; [`save_layers`] and
//!   [`LayerFile`] write and read this library's own files.
//!   The bytes may be those of a mapped file.
//!
//! The MLP is a tree like any other ([`Mlp`]), and has a short way as well. Its states are types,
//! and each step makes the next one:
//!
//! 1. A [`FloatMlp`] is made of [`FloatLinear`]s, or read from a safetensors file with PyTorch's
//!    names.
//! 2. [`FloatMlp::calibrate`] runs sample batches through it and gives a [`CalibratedMlp`], which
//!    knows the range of every layer's input.
//! 3. [`CalibratedMlp::quantize`] gives a [`QuantMlp`] with i8 weights and u8 or i8 activations
//!    ([`QuantConfig`]).
//! 4. [`QuantMlp::forward`] multiplies integers from the quantized input to the last layer, whose
//!    sums become f32 logits.
//! 5. [`QuantMlp::report`] says what it cost, layer by layer; [`QuantMlp::save`] and
//!    [`QuantMlp::load`] keep the model.
//!
//! This is what a [`QuantMlp`] of two layers computes. Everything between `x` and the logits is
//! integers:
//!
//! ```text
//!  x ── quantize ──► u8 ── × i8 ──► int32 ── requantize ──► u8 ── × i8 ──► int32 ── dequantize ──► logits
//!  f32               └──────────── fc1, ReLU ────────────┘  └────────────── fc2 ──────────────┘     f32
//! ```
//!
//! ```
//! use qkernels::{MatMut, MatRef, Threads};
//! use qnn::{FloatLinear, FloatMlp, LinearWorkspace, QuantConfig, QuantMlp};
//!
//! let float = FloatMlp::new(vec![
//!     FloatLinear::new("fc1", 3, 2, vec![0.5, -1.0, 0.25, 0.75, -0.5, 0.5], vec![0.1, 0.0, -0.1])?,
//!     FloatLinear::new("fc2", 2, 3, vec![1.0, -0.5, 0.25, -1.0, 0.5, 0.75], vec![0.0, 0.2])?,
//! ])?;
//! let x = [0.2, 0.9, 1.0, 0.1, 0.5, 0.4, 0.0, 0.6]; // four rows of the kind that the model will see
//! let x = MatRef::new(&x, 4, 2)?;
//! let model = float.calibrate([x])?.quantize(&QuantConfig::default())?;
//! let mut logits = [0.0; 8];
//! model.forward(x, MatMut::new(&mut logits, 4, 2)?, Threads::Serial, &mut LinearWorkspace::new())?;
//! println!("{}", model.report(&float, x)?);
//!
//! let restored = QuantMlp::from_bytes(&model.to_bytes()?, None)?;
//! let mut again = [0.0; 8];
//! restored.forward(x, MatMut::new(&mut again, 4, 2)?, Threads::Serial, &mut LinearWorkspace::new())?;
//! assert_eq!(logits, again);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - An integer layer is proven: its sums cannot leave int32, whatever the input, and its scales
//!   are usable. In a [`QuantMlp`] each layer takes the codes that the one before it gives. This
//!   holds for layers from files too: what a file says is hostile until checked.
//! - Its results equal those of qcore's scalar functions bit for bit, whatever the kernel, the
//!   threads and (unless rows share a scale, as per tensor) the batch.
//! - Nothing that a caller passes in causes a panic, hostile bytes included. Errors are typed and
//!   have names and numbers.
//! - Nothing is dropped in silence. A scale that had to be raised and a channel that became
//!   constant are in the report, layers that hand on values instead of codes are in
//!   [`Mlp::unlinked`], and a tensor that has no place in a model is an error.

#![forbid(unsafe_code)]

// The rooms, along the way that data takes: each imports only those above it (`cargo xtask tidy`).
mod config;
mod layer;
mod accuracy;
mod tree;
mod evidence;
mod pass;
mod recipe;
mod mlp;
mod file;
pub mod reference;

pub use accuracy::error::AccuracyError;
pub use config::activation_codes::ActivationCodes;
pub use config::form::Form;
pub use config::gptq::{GptqConfig, GptqOrder};
pub use config::method::{DynamicConfig, Method, StaticConfig};
pub use config::mlp::QuantConfig;
pub use config::observer::ObserverChoice;
pub use config::pass::{PassConfig, Rule};
pub use config::recipe::{LayerPair, Recipe, SmoothQuant};
pub use config::weights::{WeightConfig, WeightGranularity};
pub use evidence::sizes::{LayerSize, SizeReport, analyze_model_sizes};
pub use evidence::warning::Warning;
pub use file::checkpoint::error::CheckpointError;
pub use file::checkpoint::int8_layout::Int8Form;
pub use file::checkpoint::layers::Checkpoint;
pub use file::checkpoint::packed_layout::{GptqZeros, PackedLayout};
pub use file::checkpoint::shards::{ShardError, ShardIndex};
pub use file::codes_form::CodesForm;
pub use file::error::{LoadError, SaveError};
pub use file::gguf::container::GgufFile;
pub use file::gguf::error::GgufError;
pub use file::gguf::tensor_type::GgufType;
pub use file::gguf::value::{GgufArray, GgufValue};
pub use file::gguf::write_error::GgufWriteError;
pub use file::gguf::writer::GgufWriter;
pub use file::packed::input_groups::InputGroupError;
pub use file::packed::nbits::{MatMulNBits, NBitsZeros};
pub use file::packed::nbits_error::NBitsError;
pub use file::reader::LayerFile;
pub use file::source::{Source, SourceError};
pub use file::tensors::{MAX_FILE_BYTES, TensorFileError};
pub use file::writer::{SaveOptions, layers_to_bytes, save_layers};
pub use layer::dynamic::weights::DynamicWeights;
pub use layer::dynamic::{DynamicLinear, DynamicParts};
pub use layer::float::{FloatLinear, FloatLinearError};
pub use layer::forward_error::ForwardError;
pub use layer::layer_error::LayerError;
pub use layer::linear::Linear;
pub use layer::rows::argmax_rows;
pub use layer::static_linear::build::{StaticLinear, StaticParts};
pub use layer::storage::Storage;
pub use layer::tensor::{FloatTensor, FloatTensorError};
pub use layer::weight_only::WeightOnlyLinear;
pub use layer::workspace::LinearWorkspace;
pub use mlp::calibrated::{CalibrateError, CalibratedMlp};
pub use mlp::float::{FloatMlp, LayerOutput};
pub use mlp::mixed::Mlp;
pub use mlp::quant::{QuantMlp, QuantizeModelError};
pub use mlp::report::{LayerReport, ModelReport, ReportError};
pub use pass::calibration::{Calibration, CalibrationProgress, calibrate_model};
pub use pass::compare::{SchemeCost, SchemeReport, SchemeResult, compare_schemes};
pub use pass::error::{PairError, PassError, PassLayerError, Refusal};
pub use pass::quality::{ModelOutput, Quality, Target};
pub use pass::report::{Decision, PassLayer, PassReport};
pub use pass::run::quantize_model;
pub use pass::sensitivity::analyze_sensitivity;
pub use pass::sensitivity_report::{LayerSensitivity, Mix, SensitivityReport, UniformScheme};
pub use pass::trial::{TrialError, TrialProgress};
pub use recipe::report::{RecipeLayer, RecipeReport, Step, StepGain};
pub use recipe::runner::{RecipeProgress, RecipeStage};
pub use tree::chain::ChainError;
pub use tree::layers::Layers;
pub use tree::shape::{LayerMismatch, LayerShape};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The guides' examples, compiled.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/guides/four-bits.md")]
    struct FourBits;

    #[doc = include_str!("../../../docs/guides/int8-in-your-engine.md")]
    struct Engine;

    #[doc = include_str!("../../../docs/guides/threads.md")]
    struct Threads;

    #[doc = include_str!("../../../docs/guides/transformer.md")]
    struct Transformer;
}
