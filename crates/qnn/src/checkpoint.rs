//! Trained models from safetensors files: PyTorch's names in f32, f16 or bf16, and the int-quantized layout of
//! compressed-tensors.

use qcore::{BiasError, CodeRange, ParamError, QParams, quantize_bias};
use qkernels::{Dynamic, Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
use safetensors::Dtype;

use crate::dynamic_linear::{DynamicLinear, DynamicParts};
use crate::file_error::LayerError;
use crate::float_linear::{FloatLinear, FloatLinearError};
use crate::fused::FusedActivation;
use crate::linear::Linear;
use crate::names::natural_order;
use crate::static_error::StaticLinearError;
use crate::static_linear::{StaticLinear, StaticParts};
use crate::tensors::{Tensor, TensorFile, TensorFileError};
use crate::weight_only_linear::WeightOnlyLinear;

/// A safetensors file of a trained model, from which layers are taken by name. The bytes are the caller's, read or mapped,
/// and are not trusted.
///
/// ```
/// use safetensors::{Dtype, tensor::TensorView};
/// let weight = [0x00, 0x3c, 0x00, 0xc0]; // 1.0 and -2.0 in f16
/// let weight = TensorView::new(Dtype::F16, vec![1, 2], &weight)?;
/// let bytes = safetensors::serialize([("lm_head.weight", weight)], None)?;
/// let mut checkpoint = qnn::Checkpoint::parse(&bytes)?;
/// assert_eq!(checkpoint.layers(), ["lm_head"]);
/// assert_eq!(checkpoint.take_float("lm_head")?.weight(), [1.0, -2.0]);
/// checkpoint.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint<'d> {
    file: TensorFile<'d>,
}

/// What a layer with int8 weights is to be.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Int8Form {
    /// Static: the file has the scale of the input, and the input's codes are i8.
    Static,
    /// Dynamic: the file may say no more than that activations are quantized on the fly.
    Dynamic(Dynamic),
    /// Weights alone are quantized; scales may be those of groups of k, (n, groups).
    WeightOnly,
}

/// Why a checkpoint does not have a layer as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file, or one of its tensors, is not as it should be.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The weights' scales are neither one for each channel nor one for all.
    #[error("tensor {tensor:?} has shape {got:?}, expected one value, or n = {n}")]
    Scales {
        /// The tensor.
        tensor: String,
        /// Outputs of the layer.
        n: usize,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// Scale or zero point of a layer's input are out of range.
    #[error("input of layer {layer:?}: {source}")]
    Input {
        /// The layer.
        layer: String,
        /// Why.
        source: ParamError,
    },
    /// A bias has no int32 form.
    #[error("layer {layer:?}, channel {channel}: {source}")]
    Bias {
        /// The layer.
        layer: String,
        /// The output channel.
        channel: usize,
        /// Why.
        source: BiasError,
    },
    /// Floats do not make a layer.
    #[error(transparent)]
    Float(#[from] FloatLinearError),
    /// Codes and scales do not make a layer.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: LayerError,
    },
}

impl<'d> Checkpoint<'d> {
    /// Reads the header. No tensor is copied.
    ///
    /// # Errors
    /// [`CheckpointError`] if the bytes are no safetensors file.
    pub fn parse(bytes: &'d [u8]) -> Result<Self, CheckpointError> {
        Ok(Self { file: TensorFile::parse(bytes)? })
    }

    /// The names X of all matrices `X.weight` that are left, in the natural order (`fc2` before `fc10`). Embeddings are among
    /// them: by name and shape they are no different.
    pub fn layers(&self) -> Vec<String> {
        let matrices = self.file.tensors.iter().filter(|(_, tensor)| tensor.shape.len() == 2);
        let names = matrices.filter_map(|(name, _)| name.strip_suffix(".weight"));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort_by(|a, b| natural_order(a, b));
        names
    }

    /// The names of all tensors that are left.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.file.tensors.keys().map(String::as_str)
    }

    /// Whether the weights of layer `name` are int8 codes.
    pub fn is_int8(&self, name: &str) -> bool {
        self.file.tensors.get(&format!("{name}.weight")).is_some_and(|tensor| tensor.dtype == Dtype::I8)
    }

    /// Takes a layer of floats out: `name.weight` (n, k) and, if it is there, `name.bias` (n), each F32, F16 or BF16.
    ///
    /// # Errors
    /// [`CheckpointError`] if a tensor is missing, of another type or shape, or not finite.
    pub fn take_float(&mut self, name: &str) -> Result<FloatLinear, CheckpointError> {
        let tensor = format!("{name}.weight");
        let (weight, shape) = self.file.take_floats(&tensor)?;
        let [n, k] = shape[..] else {
            return Err(TensorFileError::Rank { tensor, expected: 2, got: shape }.into());
        };
        let bias = self.take_bias(name, n)?;
        Ok(FloatLinear::from_parts(name.to_owned(), n, k, weight, bias)?)
    }

    /// Takes a layer of int8 weights out, in the int-quantized layout of compressed-tensors, and packs it straight from the
    /// bytes: `name.weight` I8 (n, k), `name.weight_scale` (n, 1), (n) or one value, `name.weight_zero_point` I8 of the same
    /// shape if it is there, `name.bias` (n) if it is there, and for static layers `name.input_scale` and, if it is there,
    /// `name.input_zero_point` I8. Scales and biases are F32, F16 or BF16.
    ///
    /// # Errors
    /// [`CheckpointError`] if a tensor is missing, of another type or shape, or its values do not make a layer.
    pub fn take_int8(
        &mut self,
        name: &str,
        form: Int8Form,
        activation: FusedActivation,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        match form {
            Int8Form::Static => self.take_integer(name, None, activation, kernel),
            Int8Form::Dynamic(dynamic) => self.take_integer(name, Some(dynamic), activation, kernel),
            Int8Form::WeightOnly => self.take_weight_only(name, activation, kernel),
        }
    }

    /// A dynamic layer, or without `dynamic` a static one.
    fn take_integer(
        &mut self,
        name: &str,
        dynamic: Option<Dynamic>,
        activation: FusedActivation,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        let (weight, n, k) = self.file.take_matrix(&format!("{name}.weight"), Dtype::I8)?;
        let tensor = format!("{name}.weight_scale");
        let (scales, shape) = self.file.take_floats(&tensor)?;
        let weight_scales =
            per_channel(scales, n).ok_or(CheckpointError::Scales { tensor, n, got: shape })?;
        let weight_zero_points = self.take_zero_points(&format!("{name}.weight_zero_point"), n)?;
        let bias = self.take_bias(name, n)?;
        let codes = bytemuck::cast_slice(&weight.data);
        let weight =
            MatRef::new(codes, n, k).map_err(|error| of_layer(name, StaticLinearError::from(error)))?;
        let owned = name.to_owned();
        match dynamic {
            None => {
                let input = self.take_input(name)?;
                let bias = bias.map(|bias| int32_bias(name, &bias, &input, &weight_scales)).transpose()?;
                let parts = StaticParts {
                    name: owned,
                    weight,
                    weight_scales,
                    weight_zero_points,
                    bias,
                    input,
                    activation,
                };
                StaticLinear::new(parts, kernel).map(Linear::from).map_err(|error| of_layer(name, error))
            }
            Some(activations) => {
                let parts = DynamicParts {
                    name: owned,
                    weight,
                    weight_scales,
                    weight_zero_points,
                    bias,
                    activations,
                    activation,
                };
                DynamicLinear::new(parts, kernel).map(Linear::from).map_err(|error| of_layer(name, error))
            }
        }
    }

    fn take_weight_only(
        &mut self,
        name: &str,
        activation: FusedActivation,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        let (weight, n, k) = self.file.take_matrix(&format!("{name}.weight"), Dtype::I8)?;
        let tensor = format!("{name}.weight_scale");
        let (scales, got) = self.file.take_floats(&tensor)?;
        let groups = match got[..] {
            [rows, groups] if rows == n && groups > 1 && k.is_multiple_of(groups) => groups,
            _ => 1,
        };
        let entries = n * groups;
        let scales = per_channel(scales, entries).ok_or(CheckpointError::Scales { tensor, n, got })?;
        let zero_points = self.take_zero_points(&format!("{name}.weight_zero_point"), entries)?;
        let bias = self.take_bias(name, n)?;
        let build = || {
            let scales = match groups {
                1 => WeightScales::per_channel(&scales),
                _ => WeightScales::per_group(&scales, k / groups),
            };
            let scales = match &zero_points {
                Some(zero_points) => scales.with_zero_points(zero_points),
                None => scales,
            };
            let codes = MatRef::new(bytemuck::cast_slice::<u8, i8>(&weight.data), n, k)?;
            let weights = ScaledWeights::new(PackedWeights::from_nk(codes, kernel)?, scales)?;
            WeightOnlyLinear::from_weights(weights, bias)
        };
        let layer = build().map_err(|error| of_layer(name, error))?;
        Ok(layer.with_name(name).with_activation(activation).into())
    }

    fn take_bias(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>, CheckpointError> {
        let tensor = format!("{name}.bias");
        if !self.file.tensors.contains_key(&tensor) {
            return Ok(None);
        }
        let (bias, got) = self.file.take_floats(&tensor)?;
        match got[..] == [n] {
            true => Ok(Some(bias)),
            false => Err(TensorFileError::Shape { tensor, expected: vec![n], got }.into()),
        }
    }

    fn take_zero_points(&mut self, tensor: &str, n: usize) -> Result<Option<Vec<i8>>, CheckpointError> {
        if !self.file.tensors.contains_key(tensor) {
            return Ok(None);
        }
        let Tensor { shape: got, data, .. } = self.file.take(tensor, Dtype::I8)?;
        let zero_points = per_channel(bytemuck::cast_slice(&data).to_vec(), n);
        let error = || CheckpointError::Scales { tensor: tensor.to_owned(), n, got };
        let zero_points: Vec<i8> = zero_points.ok_or_else(error)?;
        Ok(zero_points.iter().any(|&zero_point| zero_point != 0).then_some(zero_points))
    }

    /// Scale and zero point of a static layer's input, each one value.
    fn take_input(&mut self, name: &str) -> Result<QParams, CheckpointError> {
        let tensor = format!("{name}.input_scale");
        let (scale, got) = self.file.take_floats(&tensor)?;
        let &[scale] = &scale[..] else {
            return Err(CheckpointError::Scales { tensor, n: 1, got });
        };
        let zero_point = self.take_zero_points(&format!("{name}.input_zero_point"), 1)?;
        let zero_point = zero_point.and_then(|zero_points| zero_points.first().copied()).unwrap_or(0);
        QParams::new(scale, zero_point.into(), CodeRange::I8)
            .map_err(|source| CheckpointError::Input { layer: name.to_owned(), source })
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// [`CheckpointError`] that names the first tensor left.
    pub fn finish(&self) -> Result<(), CheckpointError> {
        Ok(self.file.check_empty()?)
    }
}

fn of_layer(name: &str, error: impl Into<LayerError>) -> CheckpointError {
    CheckpointError::Layer { layer: name.to_owned(), source: error.into() }
}

/// A value for each of n channels, of as many or of one.
fn per_channel<T: Copy>(values: Vec<T>, n: usize) -> Option<Vec<T>> {
    match values[..] {
        [value] => Some(vec![value; n]),
        _ => (values.len() == n).then_some(values),
    }
}

fn int32_bias(
    name: &str,
    bias: &[f32],
    input: &QParams,
    weight_scales: &[f32],
) -> Result<Vec<i32>, CheckpointError> {
    let channels = bias.iter().zip(weight_scales).enumerate();
    let quantized = channels.map(|(channel, (&bias, &scale))| {
        let error = |source| CheckpointError::Bias { layer: name.to_owned(), channel, source };
        quantize_bias(bias, input.scale(), scale).map_err(error)
    });
    quantized.collect()
}
