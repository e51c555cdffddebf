//! int8 layers and models: quantize any tree of layers, with evidence; run, compare, save.
//!
//! - **Layers**: [`StaticLinear`] (calibrated scales, codes or floats in and out), [`DynamicLinear`] (scales of the values at
//!   hand), [`WeightOnlyLinear`] (float activations and sums), and the reference forms [`Int8Linear`] and
//!   [`QuantizedLinear`]. [`Linear`] is a layer in whatever form.
//! - **The pass**: [`quantize_model`] walks an engine's own model ([`Layers`]), watches its layers while batches run through it,
//!   and replaces them as a [`PassConfig`] says.
//! - **Evidence**: [`PassReport`] (SQNR, as it is and about the mean, and clipped share of each layer, from the calibration run),
//!   a [`Warning`] where a good figure hides a bad one, [`analyze_model_sizes`], [`analyze_sensitivity`] (what quantizing each
//!   layer alone costs, and the cheapest mix that keeps a [`Target`]).
//! - **Files**: [`Checkpoint`] reads PyTorch's names and the int-quantized layout of compressed-tensors, from one file or from
//!   several ([`ShardIndex`]); [`save_layers`] and [`LayerFile`] write and read a file of one's own, from bytes that may be mapped.
//!
//! The MLP is a tree like any other ([`Mlp`]), and has a short way besides. Its states are types, and each step makes the next
//! one:
//!
//! 1. [`FloatMlp`]: f32 layers, from [`FloatLinear`]s or a safetensors file with PyTorch's names.
//! 2. [`FloatMlp::calibrate`] runs sample batches through it and gives a [`CalibratedMlp`]: the range of every layer's
//!    input.
//! 3. [`CalibratedMlp::quantize`] gives a [`QuantMlp`]: i8 weights, u8 or i8 activations ([`QuantConfig`]).
//! 4. [`QuantMlp::forward`] multiplies integers from the quantized input to the last layer, whose sums become f32 logits.
//! 5. [`QuantMlp::report`] says what it cost, layer by layer; [`QuantMlp::save`] and [`QuantMlp::load`] keep the model.
//!
//! What a [`QuantMlp`] of two layers computes; what lies between `x` and the logits is integers:
//!
//! ```text
//!  x ── quantize ──► u8 ── × i8 ──► int32 ── requantize ──► u8 ── × i8 ──► int32 ── dequantize ──► logits
//!  f32               └──────────── fc1, ReLU ────────────┘  └────────────── fc2 ──────────────┘     f32
//! ```
//!
//! ```
//! use qkernels::{MatMut, MatRef, Threads};
//! use qnn::{FloatLinear, FloatMlp, QuantConfig, QuantMlp, QuantWorkspace};
//!
//! let float = FloatMlp::new(vec![
//!     FloatLinear::new("fc1", 3, 2, vec![0.5, -1.0, 0.25, 0.75, -0.5, 0.5], vec![0.1, 0.0, -0.1])?,
//!     FloatLinear::new("fc2", 2, 3, vec![1.0, -0.5, 0.25, -1.0, 0.5, 0.75], vec![0.0, 0.2])?,
//! ])?;
//! let x = [0.2, 0.9, 1.0, 0.1, 0.5, 0.4, 0.0, 0.6]; // four rows of the kind that the model will see
//! let x = MatRef::new(&x, 4, 2)?;
//! let model = float.calibrate([x])?.quantize(&QuantConfig::default())?;
//! let mut logits = [0.0; 8];
//! model.forward(x, MatMut::new(&mut logits, 4, 2)?, Threads::Serial, &mut QuantWorkspace::new())?;
//! println!("{}", model.report(&float, x)?);
//!
//! let restored = QuantMlp::from_bytes(&model.to_bytes()?, None)?;
//! let mut again = [0.0; 8];
//! restored.forward(x, MatMut::new(&mut again, 4, 2)?, Threads::Serial, &mut QuantWorkspace::new())?;
//! assert_eq!(logits, again);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - An integer layer is proven: its sums cannot leave int32 whatever the input, its scales are usable; in a [`QuantMlp`] each
//!   takes what the one before it gives. This holds for layers from files too; what a file says is hostile until checked.
//! - Its results equal those of qcore's scalar functions bit for bit, whatever the kernel, the threads and (unless rows share
//!   a scale, as per tensor) the batch.
//! - Nothing that a caller passes in, bytes included, panics. Errors are typed and carry names and numbers.
//! - Nothing is dropped in silence: a scale that had to be raised and a channel that became constant are in the report,
//!   and a tensor that has no place in a model is an error.

#![forbid(unsafe_code)]

mod calibrate;
mod calibrating;
mod calibration;
mod chain;
mod checkpoint;
mod checkpoint_error;
mod checksum;
mod compare;
mod config;
mod dynamic_linear;
mod exchange;
mod file_error;
mod float_file;
mod float_linear;
mod float_mlp;
mod forward;
mod fused;
mod int8_layout;
mod int8_linear;
mod json_keys;
mod layer_description;
mod layer_file;
mod layer_shape;
mod layer_writer;
mod layers;
mod linear;
mod method;
mod mlp;
mod mlp_file;
mod names;
mod observer_choice;
mod pass;
mod pass_config;
mod pass_error;
mod pass_plan;
mod pass_report;
mod pattern;
mod quant_mlp;
mod quantize;
mod quantized_linear;
mod report;
mod rows;
mod scheme_description;
mod sensitivity;
mod sensitivity_report;
mod shards;
mod sizes;
mod static_chain;
mod static_error;
mod static_forward;
mod static_linear;
mod static_quantize;
mod storage;
mod table;
mod tensors;
mod warning;
mod weight_codes;
mod weight_only_linear;
mod workspace;

pub use calibrate::{CalibrateError, CalibratedMlp};
pub use calibrating::CalibratingLinear;
pub use calibration::{Calibration, CalibrationProgress, calibrate_model};
pub use chain::ChainError;
pub use checkpoint::Checkpoint;
pub use checkpoint_error::CheckpointError;
pub use config::{ActivationCodes, QuantConfig, WeightConfig, WeightGranularity};
pub use dynamic_linear::{DynamicLinear, DynamicLinearError, DynamicParts};
pub use file_error::{LayerError, LoadError, SaveError};
pub use float_file::LoadFloatError;
pub use float_linear::{FloatLinear, FloatLinearError};
pub use float_mlp::{FloatMlp, FloatWorkspace, LayerOutput};
pub use forward::ForwardError;
pub use fused::FusedActivation;
pub use int8_layout::Int8Form;
pub use int8_linear::Int8Linear;
pub use layer_file::LayerFile;
pub use layer_shape::{LayerMismatch, LayerShape};
pub use layer_writer::{layers_to_bytes, save_layers};
pub use layers::Layers;
pub use linear::Linear;
pub use method::{DynamicConfig, Method, StaticConfig};
pub use mlp::Mlp;
pub use observer_choice::ObserverChoice;
pub use pass::quantize_model;
pub use pass_config::{PassConfig, Rule};
pub use pass_error::{PassError, PassLayerError, Refusal};
pub use pass_report::{Decision, PassLayer, PassReport};
pub use quant_mlp::{QuantMlp, QuantWorkspace};
pub use quantize::QuantizeModelError;
pub use quantized_linear::QuantizedLinear;
pub use report::{LayerReport, ModelReport, ReportError};
pub use rows::argmax_rows;
pub use sensitivity::{ModelOutput, SensitivityError, Target, analyze_sensitivity};
pub use sensitivity_report::{LayerSensitivity, Mix, SensitivityReport};
pub use shards::{ShardError, ShardIndex};
pub use sizes::{LayerSize, SizeReport, analyze_model_sizes};
pub use static_error::StaticLinearError;
pub use static_linear::{StaticLinear, StaticParts};
pub use static_quantize::QuantizeLinearError;
pub use storage::Storage;
pub use tensors::{MAX_FILE_BYTES, TensorFileError};
pub use warning::Warning;
pub use weight_codes::WeightCodesError;
pub use weight_only_linear::{WeightOnlyConfig, WeightOnlyError, WeightOnlyLinear};
pub use workspace::LinearWorkspace;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Those of the guides.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/guides/int8-in-your-engine.md")]
    struct Engine;

    #[doc = include_str!("../../../docs/guides/threads.md")]
    struct Threads;
}
