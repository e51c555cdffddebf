//! How many bytes a model takes, layer by layer, in f32 and as it is.

use core::fmt;

use super::table::Table;
use crate::config::form::Form;
use crate::layer::storage::Storage;
use crate::tree::layers::Layers;

/// The bytes of a model's linear layers. `Display` gives a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeReport {
    /// One entry for each layer, in the order of the visit.
    pub layers: Vec<LayerSize>,
}

/// One layer of a [`SizeReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSize {
    /// Name.
    pub name: String,
    /// The form that it has.
    pub form: Form,
    /// Weights and biases.
    pub parameters: usize,
    /// Bytes in f32.
    pub float_bytes: usize,
    /// Bytes that must be stored in its form, with scales and zero points.
    pub stored: Storage,
}

/// Counts the bytes of every linear layer of `model`, in f32 and as it is.
///
/// ```
/// use qkernels::{Dynamic, Kernel};
/// use qnn::{DynamicLinear, FloatLinear, Linear, WeightConfig, analyze_model_sizes};
/// let float = FloatLinear::new("fc", 256, 512, vec![0.5; 512 * 256], vec![0.0; 256])?;
/// let int8 = DynamicLinear::quantize(&float, Dynamic::default(), &WeightConfig::default(), Kernel::select()?)?;
/// let sizes = analyze_model_sizes(&Linear::from(int8));
/// assert_eq!((sizes.float_bytes(), sizes.stored().total()), (525_312, 133_120));
/// assert_eq!(format!("{:.3}", sizes.compression()), "3.946");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn analyze_model_sizes<M: Layers + ?Sized>(model: &M) -> SizeReport {
    let mut layers = Vec::new();
    model.visit(&mut |layer| {
        layers.push(LayerSize {
            name: layer.name().to_owned(),
            form: layer.form(),
            parameters: layer.float_bytes() / size_of::<f32>(),
            float_bytes: layer.float_bytes(),
            stored: layer.storage(),
        });
    });
    SizeReport { layers }
}

impl SizeReport {
    /// Weights and biases of all layers.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }

    /// Bytes of all layers in f32.
    pub fn float_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.float_bytes).sum()
    }

    /// Bytes that must be stored for all layers in their forms.
    pub fn stored(&self) -> Storage {
        self.layers.iter().map(|layer| layer.stored).sum()
    }

    /// How many times smaller the layers are than in f32; 1 for a model without linear layers.
    ///
    /// ```
    /// let none: [qnn::Linear; 0] = [];
    /// assert_eq!(qnn::analyze_model_sizes(&none[..]).compression(), 1.0);
    /// ```
    pub fn compression(&self) -> f64 {
        times_smaller(self.float_bytes(), &self.stored())
    }
}

impl fmt::Display for SizeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = [
            "layer",
            "form",
            "parameters",
            "f32",
            "weights",
            "scales",
            "zero points",
            "bias",
            "bytes",
            "times smaller",
        ];
        let cells = |name: &str, form: &str, parameters: usize, float: usize, stored: Storage| {
            let Storage { weights, scales, zero_points, bias } = stored;
            let numbers = [parameters, float, weights, scales, zero_points, bias, stored.total()];
            let mut row = vec![name.to_owned(), form.to_owned()];
            row.extend(numbers.iter().map(usize::to_string));
            row.push(format!("{:.2}", times_smaller(float, &stored)));
            row
        };
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(self.layers.iter().map(|layer| {
            cells(&layer.name, layer.form.name(), layer.parameters, layer.float_bytes, layer.stored)
        }));
        rows.push(cells("all", "", self.parameters(), self.float_bytes(), self.stored()));
        write!(f, "{}", Table(&rows))
    }
}

/// How many times smaller the stored bytes are; 1 if both are 0.
fn times_smaller(float_bytes: usize, stored: &Storage) -> f64 {
    match (float_bytes, stored.total()) {
        (0, 0) => 1.0,
        (float, stored) => float as f64 / stored as f64,
    }
}
