//! A linear layer in any form: the place in a model where the quantize pass puts one form instead
//! of another.

mod shared_input;

use qcore::ActivationFunction;
use qkernels::{MatMut, MatRef, Threads};

use crate::config::form::Form;
use crate::layer::dynamic::DynamicLinear;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::head::Head;
use crate::layer::layer_error::LayerError;
use crate::layer::rows::{check_input, in_vec};
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::storage::Storage;
use crate::layer::weight_only::WeightOnlyLinear;
use crate::layer::workspace::LinearWorkspace;

/// A linear layer, f32 in and f32 out, in one of the forms that a model has before, during and
/// after the quantize pass.
///
/// In any form, a layer has at least one output and one input: all constructors refuse n = 0 and k
/// = 0, although the products of `qkernels` take them. An input without rows is fine.
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::{FloatLinear, Form, Linear, LinearWorkspace};
/// let layer = Linear::from(FloatLinear::without_bias("lm_head", 1, 2, vec![2.0, 3.0])?);
/// let mut y = [0.0];
/// let (x, out) = (MatRef::new(&[1.0, 1.0], 1, 2)?, MatMut::new(&mut y, 1, 1)?);
/// layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())?;
/// assert_eq!((y, layer.form()), ([5.0], Form::Float));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Linear {
    /// f32, as trained. Its inputs are watched while the pass calibrates.
    Float(FloatLinear),
    /// int8 with calibrated scales.
    Static(StaticLinear),
    /// int8 with the scales of the values at hand.
    Dynamic(DynamicLinear),
    /// Weights of 8 or 4 bits, float activations and sums.
    WeightOnly(WeightOnlyLinear),
}

impl From<FloatLinear> for Linear {
    fn from(layer: FloatLinear) -> Self {
        Linear::Float(layer)
    }
}

impl From<StaticLinear> for Linear {
    fn from(layer: StaticLinear) -> Self {
        Linear::Static(layer)
    }
}

impl From<DynamicLinear> for Linear {
    fn from(layer: DynamicLinear) -> Self {
        Linear::Dynamic(layer)
    }
}

impl From<WeightOnlyLinear> for Linear {
    fn from(layer: WeightOnlyLinear) -> Self {
        Linear::WeightOnly(layer)
    }
}

impl Linear {
    pub(crate) fn head(&self) -> &Head {
        match self {
            Linear::Float(layer) => &layer.head,
            Linear::Static(layer) => &layer.head,
            Linear::Dynamic(layer) => &layer.head,
            Linear::WeightOnly(layer) => &layer.head,
        }
    }

    /// The name, unique in its model.
    pub fn name(&self) -> &str {
        &self.head().name
    }

    /// The same layer with another name, for instance the one that it has in another file.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        let head = match &mut self {
            Linear::Float(layer) => &mut layer.head,
            Linear::Static(layer) => &mut layer.head,
            Linear::Dynamic(layer) => &mut layer.head,
            Linear::WeightOnly(layer) => &mut layer.head,
        };
        head.name = name.into();
        self
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.head().n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.head().k
    }

    /// The activation function that follows.
    pub fn activation(&self) -> ActivationFunction {
        self.head().activation
    }

    /// The same layer, which divides each input channel by a scale (k) before anything else
    /// ([`DynamicLinear::with_input_scale`]).
    pub(crate) fn with_input_scale(self, scale: Vec<f32>) -> Result<Self, LayerError> {
        Ok(match self {
            Linear::Float(layer) => layer.into(),
            Linear::Static(layer) => layer.with_input_scale(scale)?.into(),
            Linear::Dynamic(layer) => layer.with_input_scale(scale)?.into(),
            Linear::WeightOnly(layer) => layer.with_input_scale(scale)?.into(),
        })
    }

    /// Whether there is a bias.
    pub fn has_bias(&self) -> bool {
        match self {
            Linear::Float(layer) => layer.bias().is_some(),
            Linear::Static(layer) => layer.bias().is_some(),
            Linear::Dynamic(layer) => layer.bias().is_some(),
            Linear::WeightOnly(layer) => layer.bias().is_some(),
        }
    }

    /// What each input channel is divided by (k), if there is anything
    /// ([`DynamicLinear::with_input_scale`]); an f32 layer divides by nothing.
    pub fn input_scale(&self) -> Option<&[f32]> {
        match self {
            Linear::Float(_) => None,
            Linear::Static(layer) => layer.input_scale(),
            Linear::Dynamic(layer) => layer.input_scale(),
            Linear::WeightOnly(layer) => layer.input_scale(),
        }
    }

    /// The form that the layer has.
    pub fn form(&self) -> Form {
        match self {
            Linear::Float(_) => Form::Float,
            Linear::Static(_) => Form::Static,
            Linear::Dynamic(_) => Form::Dynamic,
            Linear::WeightOnly(_) => Form::WeightOnly,
        }
    }

    /// Bytes of the layer in f32: weights and bias.
    pub fn float_bytes(&self) -> usize {
        let weights = self.n().saturating_mul(self.k());
        weights.saturating_add(if self.has_bias() { self.n() } else { 0 }).saturating_mul(4)
    }

    /// Bytes that must be stored for the layer in its form.
    pub fn storage(&self) -> Storage {
        match self {
            Linear::Float(layer) => layer.storage(),
            Linear::Static(layer) => layer.storage(),
            Linear::Dynamic(layer) => layer.storage(),
            Linear::WeightOnly(layer) => layer.storage(),
        }
    }

    /// Computes `out` (m, n) of `x` (m, k).
    ///
    /// Integer forms give the same bits whatever the kernel, the threads and the batch, and with a
    /// kept workspace allocate nothing.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong, or a value is not finite that an integer form has to
    /// quantize. Nothing is written then.
    pub fn forward(
        &self,
        x: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        match self {
            Linear::Float(layer) => layer.forward(x, out, threads),
            Linear::Static(layer) => layer.forward(x, out, threads, workspace),
            Linear::Dynamic(layer) => layer.forward(x, out, threads, workspace),
            Linear::WeightOnly(layer) => layer.forward(x, out, threads, workspace),
        }
    }

    /// As [`forward`](Self::forward), with the result (m, n) in a vector.
    ///
    /// ```
    /// use qkernels::{MatRef, Threads};
    /// use qnn::{FloatLinear, Linear, LinearWorkspace};
    /// let layer = Linear::from(FloatLinear::without_bias("lm_head", 1, 2, vec![2.0, 3.0])?);
    /// let x = MatRef::new(&[1.0, 1.0, 0.0, 2.0], 2, 2)?;
    /// assert_eq!(layer.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new())?, [5.0, 6.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if there is no memory for the result.
    pub fn forward_vec(
        &self,
        x: MatRef<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<Vec<f32>, ForwardError> {
        check_input(&x, self.k())?;
        in_vec(x.rows(), self.n(), |out| self.forward(x, out, threads, workspace))
    }
}
