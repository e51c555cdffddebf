//! Reads models from files of this library, which `writer.rs` writes: one safetensors file whose
//! layout does not depend on kernels.
//!
//! Each layer X has `X.weight` (n, k), `X.bias` (n) if it has one, and by its form:
//!
//! - `float`: both F32.
//! - `static`: weights I8, `X.weight_scale` F32 (n), `X.weight_zero_point` I8 (n) unless all are 0,
//!   bias I32, `X.input_scale` F32 and `X.input_zero_point` I32 (scalars).
//! - `dynamic`: as `static`, but bias F32 and nothing of the input. Scales and zero points are (n,
//!   groups) where k is cut into groups. Weights of 4 bits are U8 (n, k / 2 rounded up), the code
//!   of an even k in the low half of its byte; zero points are then written unless all are 8.
//!   `X.weight_minimum` F32, as the scales, has what is added to each value, if anything is; zero
//!   points of 4 bits are then written unless all are 0. Where groups are cut into parts,
//!   `X.weight_part_scale` I8 (n, parts) has an integer for each that the group's scale is
//!   multiplied by, and `X.weight_part_minimum` I8 (n, parts) one for its minimum if it has one.
//!   Columns of the weights, and their groups, may be in another order than the inputs:
//!   `X.input_order` U32 (k) then has the input of each column.
//! - `weight_only`: as `dynamic`.
//!
//! Static and dynamic layers whose weights have 8 bits and nothing but channels may have
//! `X.weight_k_orders` U8 (n / 16, k / 16, both rounded up, 10), which are
//! [`KOrders`](qkernels::KOrders): packing then need not search for them.
//!
//! Layers of all forms but `float` may divide their input by a scale of each channel:
//! `X.input_channel_scale` F32 (k) then has these, finite and greater than 0. (`X.input_scale` of a
//! static layer is the one scale of its codes, those of the quotients.)
//!
//! Tensors that are no part of a layer are F32; the description names them.
//!
//! The metadata have one key, `qnn`, so that the same model makes the same bytes; its value is the
//! JSON of `Description`.

use std::collections::{BTreeMap, HashMap};

use qcore::ActivationFunction;
use qkernels::{KOrders, Kernel, MatRef};
use safetensors::Dtype;

use super::description::{Description, DynamicDescription, InputDescription, LayerDescription};
use super::error::{KEY, LoadError};
use super::scheme::named;
use super::tensors::{TensorFile, TensorFileError};
use crate::config::form::Form;
use crate::layer::float::FloatLinear;
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::stored::{StoredForm, StoredGroups, StoredLayer, StoredParts};
use crate::layer::tensor::FloatTensor;
use crate::layer::weight_codes::{StoredCodes, usual_zero_point};
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
    /// The names of the tensors that are no part of a layer.
    others: Vec<String>,
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
        let others = description.tensors;
        let mut sorted: Vec<&String> = others.iter().collect();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let missing = || sorted.iter().copied().find(|name| !file.tensors.contains_key(*name));
        if let Some(tensor) = twice.or_else(missing) {
            return Err(LoadError::Described { tensor: tensor.clone() });
        }
        Ok(Self { file, names, layers, others })
    }

    /// The names of all layers, in the order in which they were saved.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names of all tensors that are no part of a layer, in the order in which they were saved.
    pub fn tensor_names(&self) -> &[String] {
        &self.others
    }

    /// Takes a tensor out that is no part of a layer. One that cannot be read stays.
    ///
    /// ```
    /// use qnn::{FloatTensor, LayerFile, layers_to_bytes};
    /// let bytes = layers_to_bytes(&FloatTensor::new("norm.weight", [2], vec![1.0, -2.0])?)?;
    /// let mut file = LayerFile::parse(&bytes)?;
    /// assert_eq!(file.take_tensor("norm.weight", Some(&[2]))?.values(), [1.0, -2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LoadError`] if there is no such tensor (any more), or it has another shape than `shape`,
    /// if that is given.
    pub fn take_tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, LoadError> {
        if !self.others.iter().any(|other| other == name) {
            return Err(TensorFileError::Missing { tensor: name.to_owned() }.into());
        }
        let tensor = match shape {
            Some(shape) => self.file.take_shaped(name, Dtype::F32, shape),
            None => self.file.take(name, Dtype::F32),
        };
        let tensor = self.file.settle(tensor)?;
        let values = tensor.to_f32();
        Ok(FloatTensor::new(name, tensor.shape, values)?)
    }

    /// Takes a layer out, packed for `kernel`, or for [`Kernel::select`]. One that cannot be read
    /// stays.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such layer (any more), its tensors do not make a layer, or no
    /// kernel can be selected.
    pub fn take(&mut self, name: &str, kernel: Option<Kernel>) -> Result<Linear, LoadError> {
        let described = self.described(name)?.clone();
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => Kernel::select()?,
        };
        let layer = self.read(described, kernel);
        let layer = self.file.settle(layer)?;
        self.layers.remove(name);
        Ok(layer)
    }

    /// The activation function that follows a layer that is still there.
    pub(crate) fn activation(&self, name: &str) -> Result<ActivationFunction, LoadError> {
        self.described(name)?.function()
    }

    fn described(&self, name: &str) -> Result<&LayerDescription, LoadError> {
        self.layers.get(name).ok_or_else(|| LoadError::NoLayer { layer: name.to_owned() })
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
        let activation = described.function()?;
        let LayerDescription {
            name,
            form,
            input,
            dynamic,
            group,
            nibbles,
            minimums,
            part,
            input_order,
            k_orders,
            input_scale,
            ..
        } = described;
        let form = named("form", &Form::ALL.map(|form| (form.name(), form)), form)?;
        let scaled = matches!(form, Form::Dynamic | Form::WeightOnly);
        let grouped = group.is_some() || nibbles.is_some() || minimums || input_order;
        let plain = form == Form::Static || (form == Form::Dynamic && !grouped);
        let fields = [
            ("input", input.is_some(), form == Form::Static),
            ("dynamic", dynamic.is_some(), form == Form::Dynamic),
            ("group", group.is_some(), scaled && group.is_some()),
            ("nibbles", nibbles.is_some(), scaled && nibbles.is_some()),
            ("minimums", minimums, scaled && minimums),
            ("part", part.is_some(), scaled && group.is_some() && part.is_some()),
            ("input_order", input_order, scaled && input_order),
            ("k_orders", k_orders, plain && k_orders),
            ("input_scale", input_scale, form != Form::Float && input_scale),
        ];
        if let Some((field, _, expected)) = fields.into_iter().find(|(_, there, expected)| there != expected)
        {
            return Err(LoadError::Field { layer: name, form, field, expected });
        }
        if form == Form::Float {
            return self.take_float(name, activation);
        }
        let tensor = format!("{name}.weight");
        let dtype = if nibbles.is_some() { Dtype::U8 } else { Dtype::I8 };
        let (weight, n, columns) = self.file.take_matrix(&tensor, dtype)?;
        let k = nibbles.unwrap_or(columns);
        if nibbles.is_some() && columns != k.div_ceil(2) {
            let (expected, got) = (vec![n, k.div_ceil(2)], vec![n, columns]);
            return Err(TensorFileError::Shape { tensor, expected, got }.into());
        }
        if n == 0 || k == 0 {
            return Err(LoadError::Layer { layer: name, error: LayerError::Empty { n, k } });
        }
        let shape = match group {
            Some(group) => vec![n, k.div_ceil(group.max(1))],
            None => vec![n],
        };
        let scales = self.file.take_shaped(&format!("{name}.weight_scale"), Dtype::F32, &shape)?;
        let zero_points = self.file.take_if_there(&format!("{name}.weight_zero_point"), Dtype::I8, &shape)?;
        let groups = StoredGroups {
            len: group,
            minimums: match minimums {
                false => None,
                true => {
                    let tensor = format!("{name}.weight_minimum");
                    Some(self.file.take_shaped(&tensor, Dtype::F32, &shape)?.to_f32())
                }
            },
            parts: part.map(|len| self.read_parts(&name, [n, k], len, minimums)).transpose()?,
            order: match input_order {
                false => None,
                true => {
                    let tensor = format!("{name}.input_order");
                    Some(self.file.take_shaped(&tensor, Dtype::U32, &[k])?.to_u32())
                }
            },
        };
        let orders = if k_orders { Some(self.read_k_orders(&name, n, k)?) } else { None };
        let input_scale = match input_scale {
            false => None,
            true => Some(self.file.take_shaped(&format!("{name}.{INPUT_SCALE}"), Dtype::F32, &[k])?.to_f32()),
        };
        let rest = self.read_rest(&name, n, input, dynamic, groups)?;
        let codes = nibbles.and_then(|k| weight.to_nibbles(k));
        if nibbles.is_some() && codes.is_none() {
            return Err(LoadError::Padding { tensor });
        }
        let build = || {
            let stored = StoredLayer {
                name: name.clone(),
                weight: match &codes {
                    None => StoredCodes::Bytes(MatRef::new(bytemuck::cast_slice(&weight.data), n, k)?),
                    Some(codes) => StoredCodes::Nibbles(MatRef::new(codes, n, k)?),
                },
                weight_scales: scales.to_f32(),
                weight_zero_points: match zero_points {
                    Some(codes) => Some(bytemuck::cast_slice(&codes.data).to_vec()),
                    None => match usual_zero_point(if nibbles.is_some() { 4 } else { 8 }, minimums) {
                        0 => None,
                        usual => Some(vec![usual; shape.iter().product()]),
                    },
                },
                orders,
                input_scale,
                activation,
            };
            stored.layer(rest, kernel)
        };
        build().map_err(|error| LoadError::Layer { layer: name, error })
    }

    /// The orders of k of weights (n, k).
    fn read_k_orders(&mut self, name: &str, n: usize, k: usize) -> Result<KOrders, LoadError> {
        let tensor =
            self.file.take_shaped(&format!("{name}.{K_ORDERS}"), Dtype::U8, &k_orders_shape(n, k))?;
        KOrders::from_bytes(n, k, tensor.data.into_owned())
            .map_err(|error| LoadError::KOrders { layer: name.to_owned(), error })
    }

    /// The integers of parts of `len` weights.
    fn read_parts(
        &mut self,
        name: &str,
        [n, k]: [usize; 2],
        len: usize,
        minimums: bool,
    ) -> Result<StoredParts, LoadError> {
        let shape = [n, k.div_ceil(len.max(1))];
        let mut take = |kind: &str| -> Result<Vec<i8>, LoadError> {
            let tensor = self.file.take_shaped(&format!("{name}.weight_part_{kind}"), Dtype::I8, &shape)?;
            Ok(bytemuck::cast_slice(&tensor.data).to_vec())
        };
        let scales = take("scale")?;
        Ok(StoredParts { len, scales, minimums: minimums.then(|| take("minimum")).transpose()? })
    }

    /// What only layers of one form have: by `input` a static one, by `dynamic` a dynamic one.
    fn read_rest(
        &mut self,
        name: &str,
        n: usize,
        input: Option<InputDescription>,
        dynamic: Option<DynamicDescription>,
        groups: StoredGroups,
    ) -> Result<StoredForm, LoadError> {
        let bias_type = if input.is_some() { Dtype::I32 } else { Dtype::F32 };
        let bias = self.file.take_if_there(&format!("{name}.bias"), bias_type, &[n])?;
        let Some(input) = input else {
            let bias = bias.map(|bias| bias.to_f32());
            return Ok(match dynamic {
                Some(dynamic) => StoredForm::Dynamic { bias, activations: dynamic.dynamic()?, groups },
                None => StoredForm::WeightOnly { bias, groups },
            });
        };
        let scale = self.file.take_shaped(&format!("{name}.input_scale"), Dtype::F32, &[])?.to_f32();
        let zero_point =
            self.file.take_shaped(&format!("{name}.input_zero_point"), Dtype::I32, &[])?.to_i32();
        // Each has one element, by its shape.
        let input = input.params(name, scale.iter().sum(), zero_point.iter().sum())?;
        Ok(StoredForm::Static { bias: bias.map(|bias| bias.to_i32()), input })
    }

    fn take_float(&mut self, name: String, activation: ActivationFunction) -> Result<Linear, LoadError> {
        let (weight, n, k) = self.file.take_matrix(&format!("{name}.weight"), Dtype::F32)?;
        let bias = self.file.take_if_there(&format!("{name}.bias"), Dtype::F32, &[n])?;
        let bias = bias.map(|bias| bias.to_f32());
        Ok(FloatLinear::from_parts(name, n, k, weight.to_f32(), bias)?.with_activation(activation).into())
    }
}

/// The tensor of the scales that a layer's input is divided by. (A static layer has another
/// `input_scale`.)
pub(crate) const INPUT_SCALE: &str = "input_channel_scale";

/// The tensor of a layer's orders of k.
pub(crate) const K_ORDERS: &str = "weight_k_orders";

/// The shape of the orders of weights (n, k): panels, windows, and the bytes of one.
pub(crate) fn k_orders_shape(n: usize, k: usize) -> [usize; 3] {
    [n.div_ceil(16), k.div_ceil(16), 10]
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
