//! Reads models from files of this library, which `writer.rs` writes: one safetensors file whose
//! layout does not depend on kernels.
//!
//! Each layer X has `X.weight` (n, k), `X.bias` (n) if it has one, and by its form:
//!
//! - `float`: both F32.
//! - `static`: weights I8, `X.weight_scale` F32 (n), `X.weight_zero_point` I8 (n) unless all are 0,
//!   bias I32, `X.input_scale` F32 and `X.input_zero_point` I32 (scalars).
//! - `dynamic`: as `static`, but bias F32 and nothing of the input.
//! - `weight_only`: as `dynamic`; scales and zero points are (n, groups) where k is cut into
//!   groups.
//!
//! The metadata have one key, `qnn`, so that the same model makes the same bytes; its value is the
//! JSON of `Description`.

use std::collections::{BTreeMap, HashMap};

use qkernels::{Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
use safetensors::Dtype;

use super::description::{Description, DynamicDescription, InputDescription, LayerDescription};
use super::error::{KEY, LoadError};
use super::scheme::named;
use super::tensors::{Tensor, TensorFile};
use crate::config::form::Form;
use crate::config::fused::FusedActivation;
use crate::layer::dynamic::{DynamicLinear, DynamicParts};
use crate::layer::float::FloatLinear;
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::static_linear::build::{StaticLinear, StaticParts};
use crate::layer::weight_only::{WeightOnlyLinear, check_shape};
use crate::tree::chain::check_names;

/// A model's file, its checksum verified: layers are taken out one by one, packed for the CPU at
/// hand straight from the bytes.
///
/// The bytes are the caller's: read into memory, or mapped. They are not trusted; whatever they
/// are, the result is layers whose every check has passed, or an error. (They must not change
/// meanwhile, which is why mapping a file is a promise that only the caller can make.)
#[derive(Debug)]
pub struct LayerFile<'d> {
    file: TensorFile<'d>,
    names: Vec<String>,
    layers: BTreeMap<String, LayerDescription>,
}

impl<'d> LayerFile<'d> {
    /// Reads the header and verifies the checksum. No tensor is copied.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are not what [`layers_to_bytes`](crate::layers_to_bytes) makes;
    /// any change of a single byte is noticed.
    pub fn parse(bytes: &'d [u8]) -> Result<Self, LoadError> {
        let mut file = TensorFile::parse(bytes)?;
        check_white_space(file.header)?;
        let mut description = take_description(&mut file.metadata)?;
        description.check(&file.tensors)?;
        let names: Vec<_> = description.layers.iter().map(|layer| layer.name.clone()).collect();
        check_names(names.iter().map(String::as_str))?;
        let layers = description.layers.into_iter().map(|layer| (layer.name.clone(), layer)).collect();
        Ok(Self { file, names, layers })
    }

    /// The names of all layers, in the order in which they were saved.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes a layer out, packed for `kernel`, or for [`Kernel::select`]. One that cannot be read
    /// stays.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such layer (any more), its tensors do not make a layer, or no
    /// kernel can be selected.
    pub fn take(&mut self, name: &str, kernel: Option<Kernel>) -> Result<Linear, LoadError> {
        let no_layer = || LoadError::NoLayer { layer: name.to_owned() };
        let described = self.layers.get(name).cloned().ok_or_else(no_layer)?;
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => Kernel::select()?,
        };
        let layer = self.read(described, kernel);
        let layer = self.file.settle(layer)?;
        self.layers.remove(name);
        Ok(layer)
    }

    /// Checks that every layer was taken and no tensor is left.
    ///
    /// # Errors
    /// [`LoadError`] that names the first one left.
    pub fn finish(self) -> Result<(), LoadError> {
        if let Some(name) = self.layers.into_keys().next() {
            return Err(LoadError::NotTaken { layer: name });
        }
        Ok(self.file.check_empty()?)
    }

    fn read(&mut self, described: LayerDescription, kernel: Kernel) -> Result<Linear, LoadError> {
        let LayerDescription { name, form, activation, input, dynamic, group } = described;
        let activations = FusedActivation::ALL.map(|activation| (activation.name(), activation));
        let activation = named("activation", &activations, activation)?;
        let form = named("form", &Form::ALL.map(|form| (form.name(), form)), form)?;
        let fields = [
            ("input", input.is_some(), form == Form::Static),
            ("dynamic", dynamic.is_some(), form == Form::Dynamic),
            ("group", group.is_some(), form == Form::WeightOnly && group.is_some()),
        ];
        if let Some((field, _, expected)) = fields.into_iter().find(|(_, there, expected)| there != expected)
        {
            return Err(LoadError::Field { layer: name, form, field, expected });
        }
        match (form, input, dynamic) {
            (Form::Static, Some(input), _) => self.take_static(name, activation, input, kernel),
            (Form::Dynamic, _, Some(dynamic)) => self.take_dynamic(name, activation, dynamic, kernel),
            (Form::WeightOnly, ..) => self.take_weight_only(name, activation, group, kernel),
            _ => self.take_float(name, activation),
        }
    }

    fn take_float(&mut self, name: String, activation: FusedActivation) -> Result<Linear, LoadError> {
        let (weight, n, k) = self.file.take_matrix(&format!("{name}.weight"), Dtype::F32)?;
        let bias = self.file.take_if_there(&format!("{name}.bias"), Dtype::F32, &[n])?;
        let bias = bias.map(|bias| bias.to_f32());
        Ok(FloatLinear::from_parts(name, n, k, weight.to_f32(), bias)?.with_activation(activation).into())
    }

    fn take_static(
        &mut self,
        name: String,
        activation: FusedActivation,
        input: InputDescription,
        kernel: Kernel,
    ) -> Result<Linear, LoadError> {
        let Stored { n, k, weight, weight_scales, weight_zero_points } = self.take_weights(&name)?;
        let bias = self.file.take_if_there(&format!("{name}.bias"), Dtype::I32, &[n])?;
        let scale = self.file.take_shaped(&format!("{name}.input_scale"), Dtype::F32, &[])?.to_f32();
        let zero_point =
            self.file.take_shaped(&format!("{name}.input_zero_point"), Dtype::I32, &[])?.to_i32();
        // Each has one element, by its shape.
        let input = input.params(&name, scale.iter().sum(), zero_point.iter().sum())?;
        let build = || {
            let weight = MatRef::new(bytemuck::cast_slice(&weight.data), n, k)?;
            let (name, bias) = (name.clone(), bias.map(|bias| bias.to_i32()));
            let parts =
                StaticParts { name, weight, weight_scales, weight_zero_points, bias, input, activation };
            StaticLinear::new(parts, kernel)
        };
        let layer = build();
        layer.map(Linear::from).map_err(|source| LoadError::Layer { layer: name, source })
    }

    fn take_dynamic(
        &mut self,
        name: String,
        activation: FusedActivation,
        dynamic: DynamicDescription,
        kernel: Kernel,
    ) -> Result<Linear, LoadError> {
        let Stored { n, k, weight, weight_scales, weight_zero_points } = self.take_weights(&name)?;
        let bias = self.file.take_if_there(&format!("{name}.bias"), Dtype::F32, &[n])?;
        let activations = dynamic.dynamic()?;
        let build = || {
            let weight = MatRef::new(bytemuck::cast_slice(&weight.data), n, k)?;
            let (name, bias) = (name.clone(), bias.map(|bias| bias.to_f32()));
            let parts = DynamicParts {
                name,
                weight,
                weight_scales,
                weight_zero_points,
                bias,
                activations,
                activation,
            };
            DynamicLinear::new(parts, kernel)
        };
        let layer = build().map_err(LayerError::from);
        layer.map(Linear::from).map_err(|source| LoadError::Layer { layer: name, source })
    }

    fn take_weight_only(
        &mut self,
        name: String,
        activation: FusedActivation,
        group: Option<usize>,
        kernel: Kernel,
    ) -> Result<Linear, LoadError> {
        let (weight, n, k) = self.file.take_matrix(&format!("{name}.weight"), Dtype::I8)?;
        let of_layer = |source: LayerError| LoadError::Layer { layer: name.clone(), source };
        check_shape(n, k).map_err(of_layer)?;
        let shape = match group {
            Some(group) => vec![n, k.div_ceil(group.max(1))],
            None => vec![n],
        };
        let scales = self.file.take_shaped(&format!("{name}.weight_scale"), Dtype::F32, &shape)?.to_f32();
        let zero_points = self.file.take_if_there(&format!("{name}.weight_zero_point"), Dtype::I8, &shape)?;
        let bias = self.file.take_if_there(&format!("{name}.bias"), Dtype::F32, &[n])?;
        let build = || {
            let scales = match group {
                Some(group) => WeightScales::per_group(&scales, group),
                None => WeightScales::per_channel(&scales),
            };
            let scales = match &zero_points {
                Some(zero_points) => scales.with_zero_points(bytemuck::cast_slice(&zero_points.data)),
                None => scales,
            };
            let codes = MatRef::new(bytemuck::cast_slice::<u8, i8>(&weight.data), n, k)?;
            let weights = ScaledWeights::new(PackedWeights::from_nk(codes, kernel)?, scales)?;
            WeightOnlyLinear::from_weights(weights, bias.map(|bias| bias.to_f32()))
        };
        let layer = build().map_err(of_layer)?;
        Ok(layer.with_name(name).with_activation(activation).into())
    }

    fn take_weights(&mut self, name: &str) -> Result<Stored<'d>, LoadError> {
        let (weight, n, k) = self.file.take_matrix(&format!("{name}.weight"), Dtype::I8)?;
        let scales = self.file.take_shaped(&format!("{name}.weight_scale"), Dtype::F32, &[n])?;
        let zero_points = self.file.take_if_there(&format!("{name}.weight_zero_point"), Dtype::I8, &[n])?;
        let weight_zero_points = zero_points.map(|tensor| bytemuck::cast_slice(&tensor.data).to_vec());
        Ok(Stored { n, k, weight, weight_scales: scales.to_f32(), weight_zero_points })
    }
}

/// Weights as the file has them. Types and shapes were checked, values were not.
struct Stored<'d> {
    n: usize,
    k: usize,
    weight: Tensor<'d>,
    weight_scales: Vec<f32>,
    weight_zero_points: Option<Vec<i8>>,
}

/// JSON allows white space that the checksum would not see. Headers of this format have no other
/// than spaces.
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
