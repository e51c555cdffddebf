//! int8 models as files: one safetensors file whose layout knows nothing of kernels.
//!
//! For each layer X: `X.weight` I8 (n, k), `X.weight_scale` F32 (n), `X.bias` I32 (n), `X.input_scale` F32 and
//! `X.input_zero_point` I32 (scalars). The metadata have one key, `qnn`, so that the same model makes the same bytes; its
//! value is the JSON of `Description`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use qcore::{ParamError, QParams};
use qkernels::{Kernel, MatRef, SelectError};
use safetensors::{Dtype, SafeTensorError};
use serde::{Deserialize, Serialize};

use crate::chain::{ChainError, Link, check_chain, check_names};
use crate::checksum::checksum;
use crate::config::{ActivationCodes, WeightGranularity};
use crate::fused::FusedActivation;
use crate::quant_mlp::QuantMlp;
use crate::static_error::StaticLinearError;
use crate::static_linear::{StaticLinear, StaticParts};
use crate::tensors::{Tensor, TensorFile, TensorFileError, read_file};

/// The key of the metadata.
const KEY: &str = "qnn";
/// The name of the format.
const FORMAT: &str = "qnn.mlp.int8";
/// The version of the format.
const VERSION: u32 = 1;
/// How sums become codes: [`qcore::requantize`], f32 multipliers `input_scale * weight_scale / output_scale`.
const REQUANTIZE: &str = "f32_round_ties_even_then_zero_point";

/// Why an int8 model could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file, or one of its tensors, is not as it should be.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The header has white space where no writer of this format puts any.
    #[error("the header has byte {byte:#04x} at {at}, which is never written there")]
    HeaderByte {
        /// Its place in the file.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// The metadata have no key `qnn`: another program's file.
    #[error("not an int8 model of this format: the metadata have no key {KEY:?}")]
    NoDescription,
    /// The metadata have another key besides `qnn`.
    #[error("unexpected metadata {key:?}")]
    UnexpectedMetadata {
        /// The first such key.
        key: String,
    },
    /// The description is not the JSON that it should be.
    #[error("metadata {KEY:?}: {0}")]
    Description(#[source] serde_json::Error),
    /// The description names a format or a choice that this version does not know.
    #[error("{field} is {got:?}, expected {expected}")]
    Unknown {
        /// The field of the description.
        field: &'static str,
        /// What would do.
        expected: String,
        /// What it says.
        got: String,
    },
    /// The format has another version.
    #[error("version {got} of the format, expected {expected}")]
    Version {
        /// The version that is understood.
        expected: u32,
        /// The file's.
        got: u32,
    },
    /// The contents are not those that were saved.
    #[error("checksum mismatch: expected {expected:?}, got {got:?}")]
    Checksum {
        /// By the description.
        expected: String,
        /// Of the contents.
        got: String,
    },
    /// A layer has no inputs or no outputs.
    #[error("layer {layer:?} has n = {n} outputs and k = {k} inputs; both must be at least 1")]
    EmptyLayer {
        /// The layer.
        layer: String,
        /// Its outputs.
        n: usize,
        /// Its inputs.
        k: usize,
    },
    /// Scale or zero point of a layer's input are out of range.
    #[error("input of layer {layer:?}: {source}")]
    Input {
        /// The layer.
        layer: String,
        /// Why.
        source: ParamError,
    },
    /// Codes and scales do not make a layer.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: StaticLinearError,
    },
    /// The layers do not fit each other, or there are none.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No kernel could be selected.
    #[error(transparent)]
    Kernel(#[from] SelectError),
}

/// Why an int8 model could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The model has no safetensors form, such as with names of more than 100 MB.
    #[error("no safetensors form: {0}")]
    Safetensors(#[from] SafeTensorError),
    /// The description has no JSON form.
    #[error("no JSON form: {0}")]
    Json(#[from] serde_json::Error),
    /// The file could not be written. What was there before is still there.
    #[error("could not write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the tensors do not say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: String,
    version: u32,
    activations: String,
    weights: String,
    requantize: String,
    /// Names, first layer to last.
    layers: Vec<String>,
    /// Of all tensors and of this description with an empty checksum, in eight lower-case hexadecimal digits.
    checksum: String,
}

/// What must be known before the rest can be read.
#[derive(Deserialize)]
struct Identity {
    format: String,
    version: u32,
}

impl Description {
    fn parse(text: &str) -> Result<Self, LoadError> {
        let Identity { format, version } = serde_json::from_str(text).map_err(LoadError::Description)?;
        expect("format", &[FORMAT], format)?;
        if version != VERSION {
            return Err(LoadError::Version { expected: VERSION, got: version });
        }
        let description: Self = serde_json::from_str(text).map_err(LoadError::Description)?;
        expect("requantize", &[REQUANTIZE], description.requantize.clone())?;
        Ok(description)
    }

    /// The checksum of this description and `tensors`.
    fn checksum_with(&mut self, tensors: &BTreeMap<String, Tensor<'_>>) -> Result<String, serde_json::Error> {
        let stated = core::mem::take(&mut self.checksum);
        let text = serde_json::to_string(self)?;
        self.checksum = stated;
        Ok(format!("{:08x}", checksum(tensors, &text)))
    }
}

/// Index of `got` in `expected`.
fn expect(field: &'static str, expected: &[&str], got: String) -> Result<usize, LoadError> {
    expected.iter().position(|name| *name == got).ok_or_else(|| LoadError::Unknown {
        field,
        expected: expected.join(" or "),
        got,
    })
}

impl QuantMlp {
    /// The model as a file's bytes. The same model makes the same bytes, whatever the kernel.
    ///
    /// # Errors
    /// [`SaveError`] if the names are too long for a safetensors header.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SaveError> {
        let mut tensors = BTreeMap::new();
        for layer in self.layers() {
            let (n, k) = (layer.n(), layer.k());
            let mut add = |kind, tensor| tensors.insert(format!("{}.{kind}", layer.name()), tensor);
            add("weight", Tensor::of_i8(vec![n, k], layer.weights().unpack()));
            add("weight_scale", Tensor::of_f32(vec![n], layer.weight_scales()));
            add("bias", Tensor::of_i32(vec![n], layer.bias().unwrap_or_default()));
            add("input_scale", Tensor::of_f32(vec![], &[layer.input().scale()]));
            add("input_zero_point", Tensor::of_i32(vec![], &[layer.input().zero_point()]));
        }
        let mut description = Description {
            format: FORMAT.to_owned(),
            version: VERSION,
            activations: self.activations().name().to_owned(),
            weights: self.weights().name().to_owned(),
            requantize: REQUANTIZE.to_owned(),
            layers: self.layers().iter().map(|layer| layer.name().to_owned()).collect(),
            checksum: String::new(),
        };
        description.checksum = description.checksum_with(&tensors)?;
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&description)?)]);
        Ok(safetensors::serialize(&tensors, Some(metadata))?)
    }

    /// Reads a model from a file's bytes and packs it for `kernel`, or for [`Kernel::select`].
    ///
    /// The bytes are not trusted: whatever they are, the result is a model whose every check has passed, or an error.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are not what [`to_bytes`](Self::to_bytes) makes (any change of a single byte is noticed),
    /// or no kernel can be selected.
    pub fn from_bytes(bytes: &[u8], kernel: Option<Kernel>) -> Result<Self, LoadError> {
        let mut file = TensorFile::parse(bytes)?;
        check_white_space(file.header)?;
        let mut description = take_description(&mut file.metadata)?;
        let got = description.checksum_with(&file.tensors).map_err(LoadError::Description)?;
        if description.checksum != got {
            return Err(LoadError::Checksum { expected: description.checksum, got });
        }
        let Description { activations, weights, layers, .. } = description;
        let index = expect("activations", &ActivationCodes::ALL.map(ActivationCodes::name), activations)?;
        let activations = ActivationCodes::ALL[index];
        let index = expect("weights", &WeightGranularity::ALL.map(WeightGranularity::name), weights)?;
        let weights = WeightGranularity::ALL[index];
        check_names(layers.iter().map(String::as_str))?;
        let stored: Vec<_> = layers
            .iter()
            .map(|name| StoredLayer::take(&mut file, name, activations))
            .collect::<Result<_, _>>()?;
        file.check_empty()?;
        check_chain(&stored.iter().map(StoredLayer::link).collect::<Vec<_>>())?;
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => Kernel::select()?,
        };
        let outputs: Vec<_> = stored.iter().skip(1).map(|next| Some(next.input)).chain([None]).collect();
        let layers = stored.into_iter().zip(outputs).map(|(layer, output)| layer.pack(output, kernel));
        Ok(Self::from_layers(layers.collect::<Result<_, _>>()?, activations, weights, kernel))
    }

    /// Writes the model to `path`: to a temporary file beside it, then renamed, so that there is never half a model.
    ///
    /// # Errors
    /// [`SaveError`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        let (bytes, path) = (self.to_bytes()?, path.as_ref());
        write_file(path, &bytes).map_err(|source| SaveError::Write { path: path.to_owned(), source })
    }

    /// Reads a model from the file `path` and packs it for `kernel`, or for [`Kernel::select`].
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), or if the file cannot be read.
    pub fn load(path: impl AsRef<Path>, kernel: Option<Kernel>) -> Result<Self, LoadError> {
        Self::from_bytes(&read_file(path.as_ref())?, kernel)
    }
}

/// JSON allows white space, and the checksum would not see it: the header has spaces at most.
fn check_white_space(header: &[u8]) -> Result<(), LoadError> {
    match header.iter().position(|byte| matches!(byte, b'\t' | b'\n' | b'\r')) {
        None => Ok(()),
        Some(index) => Err(LoadError::HeaderByte { at: 8 + index, byte: header[index] }),
    }
}

fn take_description(metadata: &mut HashMap<String, String>) -> Result<Description, LoadError> {
    let text = metadata.remove(KEY).ok_or(LoadError::NoDescription)?;
    match metadata.keys().min() {
        None => Description::parse(&text),
        Some(key) => Err(LoadError::UnexpectedMetadata { key: key.clone() }),
    }
}

/// A layer as the file has it: types and shapes are right, values not yet checked.
struct StoredLayer<'d> {
    name: String,
    n: usize,
    k: usize,
    weight: Tensor<'d>,
    weight_scales: Vec<f32>,
    bias: Vec<i32>,
    input: QParams,
}

impl<'d> StoredLayer<'d> {
    fn take(file: &mut TensorFile<'d>, name: &str, activations: ActivationCodes) -> Result<Self, LoadError> {
        let tensor = |kind| format!("{name}.{kind}");
        let (weight, n, k) = file.take_matrix(&tensor("weight"), Dtype::I8)?;
        if n == 0 || k == 0 {
            return Err(LoadError::EmptyLayer { layer: name.to_owned(), n, k });
        }
        let weight_scales = file.take_shaped(&tensor("weight_scale"), Dtype::F32, &[n])?.to_f32();
        let bias = file.take_shaped(&tensor("bias"), Dtype::I32, &[n])?.to_i32();
        let scale = file.take_shaped(&tensor("input_scale"), Dtype::F32, &[])?.to_f32();
        let zero_point = file.take_shaped(&tensor("input_zero_point"), Dtype::I32, &[])?.to_i32();
        // Each has one element, by its shape.
        let (scale, zero_point) = (scale.iter().sum(), zero_point.iter().sum());
        let input = QParams::new(scale, zero_point, activations.range())
            .map_err(|source| LoadError::Input { layer: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), n, k, weight, weight_scales, bias, input })
    }

    fn link(&self) -> Link<'_> {
        Link { name: &self.name, n: self.n, k: self.k }
    }

    fn pack(self, output: Option<QParams>, kernel: Kernel) -> Result<StaticLinear, LoadError> {
        let Self { name, n, k, weight, weight_scales, bias, input } = self;
        let layer = name.clone();
        let codes = bytemuck::cast_slice(&weight.data);
        let activation = if output.is_some() { FusedActivation::Relu } else { FusedActivation::None };
        let build = || {
            let weight = MatRef::new(codes, n, k)?;
            let parts = StaticParts {
                name,
                weight,
                weight_scales,
                weight_zero_points: None,
                bias: Some(bias),
                input,
                activation,
            };
            let mut layer = StaticLinear::new(parts, kernel)?;
            if let Some(output) = output {
                layer.set_output(output)?;
            }
            Ok(layer)
        };
        build().map_err(|source| LoadError::Layer { layer, source })
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any new file: the default of temporary files is for their owner only. The process's mask applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
