//! The int-quantized layout of compressed-tensors.

use qcore::{ActivationFunction, CodeRange, QParams, quantize_bias};
use qkernels::{Dynamic, GROUP_STEP, Kernel, MatRef};
use safetensors::Dtype;

use super::error::CheckpointError;
use super::layers::Checkpoint;
use crate::file::tensors::TensorFileError;
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::stored::{StoredForm, StoredGroups, StoredLayer};
use crate::layer::weight_codes::StoredCodes;

/// The form that a layer with int8 weights will have.
///
/// ```
/// use qnn::Int8Form;
/// use qkernels::Dynamic;
/// let per_channel = Int8Form::WeightOnly { group: None };
/// let grouped = Int8Form::WeightOnly { group: Some(128) }; // `group_size` of the model's configuration
/// let dynamic = Int8Form::Dynamic { activations: Dynamic::default(), group: None };
/// # _ = (per_channel, grouped, dynamic);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Int8Form {
    /// The layer is static. The file has the scale of the input, and the input's codes are i8.
    Static,
    /// The layer is dynamic.
    Dynamic {
        /// How activations are quantized, because files need not say it.
        activations: Dynamic,
        /// How many consecutive k share a scale, as in [`WeightOnly`](Self::WeightOnly).
        group: Option<usize>,
    },
    /// Only the weights are quantized.
    WeightOnly {
        /// How many consecutive k share a scale: a multiple of [`GROUP_STEP`]. The last group is as
        /// short as the rest of k. The caller has to say it because neither the file nor its shapes
        /// do: 160 weights with two scales may be groups of 80, 96, 112, 128 or 144. `None` means
        /// one scale for each channel, or one for all.
        group: Option<usize>,
    },
}

impl Int8Form {
    /// The last parts of the names that a layer's tensors may have.
    fn parts(self) -> &'static [&'static str] {
        let all = &["weight", "weight_scale", "weight_zero_point", "bias", "input_scale", "input_zero_point"];
        match self {
            Int8Form::Static => all,
            Int8Form::Dynamic { .. } | Int8Form::WeightOnly { .. } => &all[..4],
        }
    }

    /// How many consecutive k share a scale, if not all of a channel do.
    fn group(self) -> Option<usize> {
        match self {
            Int8Form::Static => None,
            Int8Form::Dynamic { group, .. } | Int8Form::WeightOnly { group } => group,
        }
    }
}

impl Checkpoint<'_> {
    /// Takes a layer of int8 weights out, in the int-quantized layout of compressed-tensors, and
    /// packs it straight from the bytes:
    ///
    /// - `name.weight` I8 (n, k).
    /// - `name.weight_scale`: (n, 1), (n), or one value in up to two dimensions; with groups (n,
    ///   groups). All must be greater than 0.
    /// - `name.weight_zero_point`, if it is there: integers of any type, with a shape that scales
    ///   may have. With groups the shape is (n, groups). Values must be in -128..=127. Those of
    ///   unsigned types must be 0, because others belong to unsigned codes.
    /// - `name.bias` (n), if it is there. Integers are accepted if all are 0.
    /// - For static layers `name.input_scale`, one value, and, if it is there,
    ///   `name.input_zero_point`, one value as above.
    ///
    /// Scales and biases are F32, F16 or BF16.
    ///
    /// # Errors
    /// [`CheckpointError`] if a tensor is missing or of another type or shape, or if the layer has
    /// another tensor, is in another layout, or its values do not make a layer.
    pub fn take_int8(
        &mut self,
        name: &str,
        form: Int8Form,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        let layer = self.read_int8(name, form, activation, kernel);
        self.file.settle(layer)
    }

    fn read_int8(
        &mut self,
        name: &str,
        form: Int8Form,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        let weight = self.take_weight(name, form.parts(), |tensor, weight| match weight.dtype {
            Dtype::I8 => Ok(()),
            got => Err(TensorFileError::Dtype { tensor, expected: Dtype::I8, got }),
        })?;
        let (n, k) = (weight.shape[0], weight.shape[1]);
        // This comes before anything of n or k elements is allocated: a matrix without elements has
        // no data, so n or k may be anything.
        if n == 0 || k == 0 {
            return Err(CheckpointError::of_layer(name, LayerError::Empty { n, k }));
        }
        let groups = match form {
            Int8Form::Static => 1,
            form => self.check_groups(name, n, k, form.group())?,
        };
        let weight_scales = self.take_scales(name, n, groups)?;
        let unusable = |scale: &f32| !(*scale > 0.0 && scale.is_finite());
        if let Some(at) = weight_scales.iter().position(unusable) {
            let (channel, group, scale) = (at / groups, at % groups, weight_scales[at]);
            let error = match form.group() {
                Some(_) => LayerError::GroupScale { channel, group, scale },
                None => LayerError::WeightScale { channel, scale },
            };
            return Err(CheckpointError::of_layer(name, error));
        }
        let weight_zero_points = self.take_zero_points(format!("{name}.weight_zero_point"), n, groups)?;
        let bias = self.take_bias(name, n)?;
        let rest = match form {
            Int8Form::Static => {
                let input = self.take_input(name)?;
                let bias = bias.map(|bias| int32_bias(name, &bias, &input, &weight_scales)).transpose()?;
                StoredForm::Static { bias, input }
            }
            Int8Form::Dynamic { activations, group } => {
                StoredForm::Dynamic { bias, activations, groups: StoredGroups::plain(group) }
            }
            Int8Form::WeightOnly { group } => {
                StoredForm::WeightOnly { bias, groups: StoredGroups::plain(group) }
            }
        };
        let build = || {
            let weight = MatRef::new(bytemuck::cast_slice::<u8, i8>(&weight.data), n, k)?;
            let name = name.to_owned();
            let weight = StoredCodes::Bytes(weight);
            StoredLayer {
                name,
                weight,
                weight_scales,
                weight_zero_points,
                orders: None,
                input_scale: None,
                activation,
            }
            .layer(rest, kernel)
        };
        build().map_err(|error: LayerError| CheckpointError::of_layer(name, error))
    }

    /// The number of groups of each output. The stated length and the shape of the scales must
    /// agree.
    pub(super) fn check_groups(
        &self,
        name: &str,
        n: usize,
        k: usize,
        group: Option<usize>,
    ) -> Result<usize, CheckpointError> {
        let tensor = format!("{name}.weight_scale");
        // If there are no scales, or they have another shape, `take_scales` says so.
        let got = self.file.tensors.get(&tensor).map(|scales| scales.shape.clone()).unwrap_or_default();
        let Some(group) = group else {
            return match got[..] {
                [rows, groups] if rows == n && groups > 1 => {
                    Err(CheckpointError::GroupsUnstated { tensor, k, got })
                }
                _ => Ok(1),
            };
        };
        let unsupported = || CheckpointError::GroupLength { layer: name.to_owned(), k, group };
        if group == 0 {
            return Err(unsupported());
        }
        let groups = k.div_ceil(group);
        let many = matches!(got[..], [_, several] if several > 1);
        if self.file.tensors.contains_key(&tensor) && (groups > 1 || many) && got != [n, groups] {
            return Err(CheckpointError::Groups { tensor, k, group, expected: vec![n, groups], got });
        }
        match groups == 1 || group.is_multiple_of(GROUP_STEP) {
            true => Ok(groups),
            false => Err(unsupported()),
        }
    }

    pub(super) fn take_scales(
        &mut self,
        name: &str,
        n: usize,
        groups: usize,
    ) -> Result<Vec<f32>, CheckpointError> {
        let tensor = format!("{name}.weight_scale");
        let found = self.file.take_any(&tensor)?;
        if !found.is_float() {
            return Err(TensorFileError::NotFloat { tensor, got: found.dtype }.into());
        }
        if !is_spread(&found.shape, n, groups) {
            return Err(CheckpointError::Scales { tensor, n, got: found.shape });
        }
        Ok(spread(found.floats().unwrap_or_default(), n * groups))
    }

    /// Takes zero points of i8 codes. `None` if there are none, or if all are 0.
    fn take_zero_points(
        &mut self,
        tensor: String,
        n: usize,
        groups: usize,
    ) -> Result<Option<Vec<i8>>, CheckpointError> {
        if !self.file.tensors.contains_key(&tensor) {
            return Ok(None);
        }
        let found = self.file.take_any(&tensor)?;
        let dtype = found.dtype;
        let integers = found.integers().ok_or(TensorFileError::Dtype {
            tensor: tensor.clone(),
            expected: Dtype::I8,
            got: dtype,
        })?;
        if groups > 1 && found.shape != [n, groups] {
            let expected = vec![n, groups];
            return Err(TensorFileError::Shape { tensor, expected, got: found.shape.clone() }.into());
        }
        if !is_spread(&found.shape, n, groups) {
            return Err(CheckpointError::Scales { tensor, n, got: found.shape.clone() });
        }
        let unsigned = matches!(dtype, Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64);
        let code = |(index, value): (usize, i128)| {
            let tensor = || tensor.clone();
            match i8::try_from(value) {
                Ok(code) if code == 0 || !unsigned => Ok(code),
                _ if unsigned => {
                    Err(CheckpointError::UnsignedZeroPoint { tensor: tensor(), dtype, index, value })
                }
                _ => Err(CheckpointError::ZeroPoint { tensor: tensor(), index, value }),
            }
        };
        let codes = integers.enumerate().map(code).collect::<Result<Vec<i8>, _>>()?;
        Ok(codes.iter().any(|&code| code != 0).then(|| spread(codes, n * groups)))
    }

    /// Takes scale and zero point of a static layer's input. Each is one value.
    fn take_input(&mut self, name: &str) -> Result<QParams, CheckpointError> {
        let tensor = format!("{name}.input_scale");
        let found = self.file.take_any(&tensor)?;
        let Some(scale) = found.floats() else {
            return Err(TensorFileError::NotFloat { tensor, got: found.dtype }.into());
        };
        let (&[scale], true) = (&scale[..], is_spread(&found.shape, 1, 1)) else {
            return Err(CheckpointError::Scales { tensor, n: 1, got: found.shape });
        };
        let zero_point = self.take_zero_points(format!("{name}.input_zero_point"), 1, 1)?;
        let zero_point = zero_point.and_then(|zero_points| zero_points.first().copied()).unwrap_or(0);
        QParams::new(scale, zero_point.into(), CodeRange::I8)
            .map_err(|error| CheckpointError::Input { layer: name.to_owned(), error })
    }
}

/// Whether a tensor of this shape has an entry for each group of n channels, or one for all.
fn is_spread(shape: &[usize], n: usize, groups: usize) -> bool {
    match *shape {
        [] | [1] | [1, 1] => true,
        [rows] => rows == n && groups == 1,
        [rows, columns] => rows == n && columns == groups,
        _ => false,
    }
}

/// Repeats a single value for all entries, or gives the values as they are.
fn spread<T: Copy>(values: Vec<T>, entries: usize) -> Vec<T> {
    match values[..] {
        [value] => vec![value; entries],
        _ => values,
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
        let error = |error| CheckpointError::Bias { layer: name.to_owned(), channel, error };
        quantize_bias(bias, input.scale(), scale).map_err(error)
    });
    quantized.collect()
}
