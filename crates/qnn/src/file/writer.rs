//! Writes models to files, in the layout that `reader.rs` describes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use qcore::{ActivationFunction, CodeRange};
use qkernels::{KOrders, MatRef, PackEffort, PackedWeights, ScaledWeights, Threads, Weights};

use super::description::{Description, DynamicDescription, InputDescription, LayerDescription};
use super::error::{KEY, SaveError};
use super::reader::{INPUT_SCALE, K_ORDERS, k_orders_shape};
use super::tensors::Tensor;
use crate::config::form::Form;
use crate::layer::dynamic::DynamicLinear;
use crate::layer::dynamic::weights::DynamicWeights;
use crate::layer::float::FloatLinear;
use crate::layer::linear::Linear;
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::tensor::FloatTensor;
use crate::layer::weight_codes::stored_zero_points;
use crate::layer::weight_only::WeightOnlyLinear;
use crate::tree::chain::check_names;
use crate::tree::layers::Layers;

/// Writes a model as a file's bytes: its linear layers, and the other tensors that it shows
/// ([`Layers::visit_tensors`]). The same model makes the same bytes, whatever the kernel.
///
/// The output parameters of static layers ([`StaticLinear::set_output`]) are not in the file. They
/// are those of the next layer's input, so whoever knows which layer comes next links them, as
/// [`Mlp`](crate::Mlp) does.
///
/// ```
/// use qnn::{FloatLinear, Form, LayerFile, Linear, layers_to_bytes};
/// let layer = Linear::from(FloatLinear::without_bias("lm_head", 1, 2, vec![0.5, 1.0])?);
/// let bytes = layers_to_bytes(&layer)?; // or map a file that `save_layers` wrote
/// let mut file = LayerFile::parse(&bytes)?;
/// let restored = file.take("lm_head", None)?;
/// assert_eq!((restored.n(), restored.k(), restored.form()), (1, 2, Form::Float));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SaveError`] if names are not unique or too long, a tensor has the name of another one or of a
/// layer's, or an f32 layer has an unusable activation function.
pub fn layers_to_bytes<M: Layers + ?Sized>(model: &M) -> Result<Vec<u8>, SaveError> {
    SaveOptions::new().to_bytes(model)
}

/// Writes a model to `path`, as [`layers_to_bytes`] makes the bytes. They are written to a
/// temporary file beside it, which is then renamed, so there is never half a model.
///
/// # Errors
/// As [`layers_to_bytes`], or if the file cannot be written.
pub fn save_layers<M: Layers + ?Sized>(model: &M, path: impl AsRef<Path>) -> Result<(), SaveError> {
    SaveOptions::new().save(model, path)
}

/// What a file has besides the model. (A [`QuantMlp`](crate::QuantMlp) is saved so as its
/// [`as_mlp`](crate::QuantMlp::as_mlp).)
///
/// ```
/// use qkernels::PackEffort;
/// # let float = qnn::FloatMlp::new(vec![qnn::FloatLinear::new("fc1", 1, 2, vec![0.5, -1.0], vec![0.1])?])?;
/// # let x = qkernels::MatRef::new(&[0.2, 0.9], 1, 2)?;
/// # let model = float.calibrate([x])?.quantize(&qnn::QuantConfig::default())?;
/// let options = qnn::SaveOptions::new().with_k_orders(PackEffort::Thorough);
/// let bytes = options.to_bytes(model.as_mlp())?; // of any tree of layers
/// let restored = qnn::QuantMlp::from_bytes(&bytes, None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions<'p> {
    k_orders: Option<PackEffort>,
    threads: Threads<'p>,
}

impl<'p> SaveOptions<'p> {
    /// Nothing: what [`save_layers`] writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Searches for the orders of k in which the weights of static and dynamic layers, those of 8
    /// bits per channel, are multiplied fastest on CPUs with no more than AVX2, and writes them
    /// into the file ([`qkernels::KOrders`], 4 % of the weights' bytes). Loading the model there
    /// need not search then. The orders, and so the bytes, are the same on whatever CPU they are
    /// searched for. Without a search ([`PackEffort::Fast`]) none are written.
    ///
    /// A model that is loaded does not keep them: each file for which they are asked is searched
    /// for anew.
    pub fn with_k_orders(self, effort: PackEffort) -> Self {
        Self { k_orders: Some(effort), ..self }
    }

    /// Searches on these threads.
    pub fn with_threads(self, threads: Threads<'p>) -> Self {
        Self { threads, ..self }
    }

    /// Writes a model as a file's bytes, as [`layers_to_bytes`] does.
    ///
    /// # Errors
    /// As [`layers_to_bytes`], or if there is no memory for orders of k.
    pub fn to_bytes<M: Layers + ?Sized>(self, model: &M) -> Result<Vec<u8>, SaveError> {
        let mut writer = Writer { options: self, ..Writer::default() };
        let mut failed = None;
        model.visit(&mut |layer| {
            let added = match layer {
                Linear::Float(layer) => writer.add_float(layer),
                Linear::Static(layer) => writer.add_static(layer),
                Linear::Dynamic(layer) => writer.add_dynamic(layer),
                Linear::WeightOnly(layer) => writer.add_weight_only(layer),
            };
            let added = added.map(|()| writer.add_input_scale(layer));
            failed = failed.take().or(added.err());
        });
        model.visit_tensors(&mut |tensor| failed = failed.take().or(writer.add_other(tensor).err()));
        failed.map_or_else(|| writer.finish(), Err)
    }

    /// Writes a model to `path`, as [`save_layers`] does.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes), or if the file cannot be written.
    pub fn save<M: Layers + ?Sized>(self, model: &M, path: impl AsRef<Path>) -> Result<(), SaveError> {
        write_file(path.as_ref(), &self.to_bytes(model)?)
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut builder = tempfile::Builder::new();
        // Temporary files are for their owner only. This one gets the permissions of any new file,
        // to which the process's mask applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| SaveError::Write { path: path.to_owned(), error })
}

/// The tensors and the description of a file that is being written.
#[derive(Default)]
struct Writer<'p> {
    options: SaveOptions<'p>,
    tensors: BTreeMap<String, Tensor<'static>>,
    layers: Vec<LayerDescription>,
    /// The names of the tensors that are no part of a layer.
    others: Vec<String>,
}

impl Writer<'_> {
    fn describe(&mut self, name: &str, form: Form, activation: ActivationFunction) -> &mut LayerDescription {
        self.layers.push(LayerDescription::new(name, form, activation));
        let last = self.layers.len() - 1;
        &mut self.layers[last]
    }

    /// Adds a tensor that is no part of a layer.
    fn add_other(&mut self, tensor: &FloatTensor) -> Result<(), SaveError> {
        let name = tensor.name().to_owned();
        if name == "__metadata__" {
            return Err(SaveError::ReservedName { tensor: name });
        }
        if self.tensors.contains_key(&name) {
            return Err(SaveError::SameTensor { tensor: name });
        }
        let stored = Tensor::of_f32(tensor.shape().to_vec(), tensor.values());
        self.tensors.insert(name.clone(), stored);
        self.others.push(name);
        Ok(())
    }

    fn add_tensor(&mut self, layer: &str, kind: &str, tensor: Tensor<'static>) {
        self.tensors.insert(format!("{layer}.{kind}"), tensor);
    }

    fn add_float(&mut self, layer: &FloatLinear) -> Result<(), SaveError> {
        let (name, n, k) = (layer.name(), layer.n(), layer.k());
        layer
            .activation()
            .check()
            .map_err(|error| SaveError::Activation { layer: name.to_owned(), error })?;
        self.describe(name, Form::Float, layer.activation());
        self.add_tensor(name, "weight", Tensor::of_f32(vec![n, k], layer.weight()));
        if let Some(bias) = layer.bias() {
            self.add_tensor(name, "bias", Tensor::of_f32(vec![n], bias));
        }
        Ok(())
    }

    fn add_static(&mut self, layer: &StaticLinear) -> Result<(), SaveError> {
        let (name, n, input) = (layer.name(), layer.n(), layer.input());
        self.describe(name, Form::Static, layer.activation()).input =
            Some(InputDescription::of(name, input)?);
        self.add_weights(name, layer.weights(), layer.weight_scales(), input.codes())?;
        if let Some(bias) = layer.bias() {
            self.add_tensor(name, "bias", Tensor::of_i32(vec![n], bias));
        }
        self.add_tensor(name, "input_scale", Tensor::of_f32(vec![], &[input.scale()]));
        self.add_tensor(name, "input_zero_point", Tensor::of_i32(vec![], &[input.zero_point()]));
        Ok(())
    }

    fn add_dynamic(&mut self, layer: &DynamicLinear) -> Result<(), SaveError> {
        let (name, n) = (layer.name(), layer.n());
        let dynamic = DynamicDescription::of(name, layer.activations())?;
        self.describe(name, Form::Dynamic, layer.activation()).dynamic = Some(dynamic);
        match layer.weights() {
            DynamicWeights::PerChannel { codes, scales } => {
                self.add_weights(name, codes, scales, layer.activations().codes())?;
            }
            // Without a group, weights of 8 bits are read as those of the other kind, whose
            // scales are all positive.
            DynamicWeights::Scaled(weights) => self.add_scaled(name, weights, weights.bits() == 8),
        }
        if let Some(bias) = layer.bias() {
            self.add_tensor(name, "bias", Tensor::of_f32(vec![n], bias));
        }
        Ok(())
    }

    fn add_weight_only(&mut self, layer: &WeightOnlyLinear) -> Result<(), SaveError> {
        let (name, n) = (layer.name(), layer.n());
        self.describe(name, Form::WeightOnly, layer.activation());
        self.add_scaled(name, layer.weights(), false);
        if let Some(bias) = layer.bias() {
            self.add_tensor(name, "bias", Tensor::of_f32(vec![n], bias));
        }
        Ok(())
    }

    /// Adds the input scale of the last layer, if it has one.
    fn add_input_scale(&mut self, layer: &Linear) {
        let Some(scale) = layer.input_scale() else { return };
        self.add_tensor(layer.name(), INPUT_SCALE, Tensor::of_f32(vec![layer.k()], scale));
        if let Some(description) = self.layers.last_mut() {
            description.input_scale = true;
        }
    }

    /// Adds weights, and what the description of the last layer has to say about them: the length
    /// of groups if there are several, or if it is asked for.
    fn add_scaled(&mut self, name: &str, weights: &ScaledWeights, with_group: bool) {
        let (n, k) = (weights.n(), weights.k());
        let (minimums, part) = (weights.minimums(), weights.part_len());
        // The length of parts divides that of groups, which a channel shorter than a group does not
        // say.
        let grouped = with_group || part.is_some() || weights.group_len() < k;
        let nibbles = weights.bits() == 4;
        if let Some(description) = self.layers.last_mut() {
            description.group = grouped.then(|| weights.group_len());
            description.nibbles = nibbles.then_some(k);
            description.minimums = minimums.is_some();
            description.part = part;
            description.input_order = weights.input_order().is_some();
        }
        if let Some(order) = weights.input_order() {
            self.add_tensor(name, "input_order", Tensor::of_u32(vec![k], order));
        }
        let shape = if grouped { vec![n, weights.groups()] } else { vec![n] };
        let codes = weights.unpack();
        let weight =
            if nibbles { Tensor::of_nibbles(n, k, &codes) } else { Tensor::of_i8(vec![n, k], codes) };
        self.add_tensor(name, "weight", weight);
        self.add_tensor(name, "weight_scale", Tensor::of_f32(shape.clone(), &weights.scales()));
        if let Some(zero_points) = stored_zero_points(weights) {
            self.add_tensor(name, "weight_zero_point", Tensor::of_i8(shape.clone(), zero_points));
        }
        let has_minimums = minimums.is_some();
        if let Some(minimums) = minimums {
            self.add_tensor(name, "weight_minimum", Tensor::of_f32(shape, &minimums));
        }
        if let Some(scales) = weights.part_scales() {
            let shape = vec![n, scales.len() / n.max(1)];
            if has_minimums {
                // A minimum that is the whole group's is that of each part.
                let minimums = weights.part_minimums().unwrap_or_else(|| vec![1; scales.len()]);
                self.add_tensor(name, "weight_part_minimum", Tensor::of_i8(shape.clone(), minimums));
            }
            self.add_tensor(name, "weight_part_scale", Tensor::of_i8(shape, scales));
        }
    }

    fn add_weights(
        &mut self,
        name: &str,
        weights: &PackedWeights,
        scales: &[f32],
        activations: CodeRange,
    ) -> Result<(), SaveError> {
        let (n, k) = (weights.n(), weights.k());
        let codes = weights.unpack();
        self.add_k_orders(name, &codes, weights, activations)?;
        self.add_tensor(name, "weight", Tensor::of_i8(vec![n, k], codes));
        self.add_tensor(name, "weight_scale", Tensor::of_f32(vec![n], scales));
        if !weights.zero_points().is_empty() {
            // The weights are i8, so their zero points are too.
            let zero_points = weights.zero_points().iter().map(|&z| z as i8).collect();
            self.add_tensor(name, "weight_zero_point", Tensor::of_i8(vec![n], zero_points));
        }
        Ok(())
    }

    /// Adds the orders of k of `codes`, if they are asked for and of use.
    fn add_k_orders(
        &mut self,
        name: &str,
        codes: &[i8],
        weights: &PackedWeights,
        activations: CodeRange,
    ) -> Result<(), SaveError> {
        let Some(effort) = self.options.k_orders else { return Ok(()) };
        // Without a search, loading makes a better one. Any weights are proven for u8 of 7 bits.
        if effort == PackEffort::Fast || (activations.min() >= 0 && activations.max() < 128) {
            return Ok(());
        }
        // The codes are there, so they are of this shape.
        let Ok(codes) = MatRef::new(codes, weights.n(), weights.k()) else { return Ok(()) };
        let (n, k) = (codes.rows(), codes.cols());
        let codes = Weights::from(codes).for_activations(activations);
        let codes = codes.with_effort(effort).with_threads(self.options.threads);
        let orders = KOrders::find(codes, weights.kernel())
            .map_err(|error| SaveError::KOrders { layer: name.to_owned(), error })?;
        self.add_tensor(name, K_ORDERS, Tensor::of_u8(k_orders_shape(n, k).to_vec(), orders.as_bytes()));
        if let Some(description) = self.layers.last_mut() {
            description.k_orders = true;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, SaveError> {
        check_names(self.layers.iter().map(|layer| &layer.name[..]))?;
        let description =
            Description::new(self.layers, self.others, &self.tensors).map_err(SaveError::Json)?;
        let description = serde_json::to_string(&description).map_err(SaveError::Json)?;
        let metadata = HashMap::from([(KEY.to_owned(), description)]);
        safetensors::serialize(&self.tensors, Some(metadata)).map_err(SaveError::Safetensors)
    }
}
