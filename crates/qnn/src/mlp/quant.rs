//! The MLP with integers only: the input is quantized once, codes go from layer to layer, and the
//! last layer gives f32 logits.

use qkernels::{Kernel, MatMut, MatRef, SelectError, Threads};

use super::mixed::Mlp;
use crate::config::activation_codes::ActivationCodes;
use crate::config::form::Form;
use crate::layer::forward_error::ForwardError;
use crate::layer::linear::Linear;
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::workspace::LinearWorkspace;
use crate::pass::error::Refusal;
use crate::tree::chain::ChainError;
use crate::tree::layers::Layers;

/// An [`Mlp`] that was checked to compute with integers only: every layer is static, all take codes
/// of the same type, and each gives the codes that the next one takes. So none but the first has an
/// input scale.
/// [`CalibratedMlp::quantize`](crate::CalibratedMlp::quantize) makes one, a quantized [`Mlp`] can
/// become one, and files can hold one. It never changes and is `Send + Sync`, so one model serves
/// any number of threads, each with its own workspace.
///
/// Layers multiply i8 weights by u8 or i8 activations into int32 sums; ReLU and the step to the
/// next layer's codes happen in the product's output stage ([`Requantize`](qkernels::Requantize)),
/// so nothing between the model's input and its logits is ever f32.
///
/// ```
/// use qkernels::MatRef;
/// use qnn::{FloatLinear, FloatMlp, Mlp, ObserverChoice, PassConfig, QuantMlp, StaticConfig, quantize_model};
/// let float = FloatMlp::new(vec![
///     FloatLinear::new("fc1", 2, 2, vec![1.0, 1.0, -1.0, 0.5], vec![0.0, 0.25])?,
///     FloatLinear::new("fc2", 1, 2, vec![2.0, 1.0], vec![-1.0])?,
/// ])?;
/// let mut model = Mlp::from(float);
/// let config = StaticConfig { observer: ObserverChoice::Mse, ..StaticConfig::default() };
/// let config = PassConfig { method: qnn::Method::Static(config), ..PassConfig::default() };
/// quantize_model(&mut model, &config, [MatRef::new(&[1.0, 2.0, 0.5, 0.0], 2, 2)?], Mlp::run_batch, |_| {})?;
/// let model = QuantMlp::try_from(model)?; // an error if a layer were of another form
/// assert_eq!(model.layers().map(|layer| layer.name()).collect::<Vec<_>>(), ["fc1", "fc2"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantMlp {
    mlp: Mlp,
    activations: ActivationCodes,
    kernel: Kernel,
}

/// Why a model has no form with integers only.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeModelError {
    /// No kernel could be selected.
    #[error(transparent)]
    Kernel(#[from] SelectError),
    /// There are no layers.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A layer has no int8 form, or cannot give the codes that the next one takes.
    #[error(transparent)]
    Layer(#[from] Refusal),
    /// A layer is not static, takes codes of another type than the first layer, is packed for
    /// another kernel, or has an input scale and is not the first.
    #[error("layer {layer:?} is {got}, expected {expected}")]
    Form {
        /// The layer.
        layer: String,
        /// The form, codes or kernel wanted.
        expected: &'static str,
        /// What it has.
        got: &'static str,
    },
}

impl TryFrom<Mlp> for QuantMlp {
    type Error = QuantizeModelError;

    /// Checks that the model computes with integers only.
    fn try_from(mut mlp: Mlp) -> Result<Self, QuantizeModelError> {
        mlp.replaced();
        let mut like = None;
        for layer in mlp.layers() {
            let form = |expected, got| {
                Err(QuantizeModelError::Form { layer: layer.name().to_owned(), expected, got })
            };
            let Linear::Static(layer) = layer else {
                return form(Form::Static.name(), layer.form().name());
            };
            let (got, kernel) = (layer.input_codes(), layer.weights().kernel());
            if like.is_some() && layer.input_scale().is_some() {
                return form("static without an input scale", "static with one");
            }
            match *like.get_or_insert((got, kernel)) {
                (codes, _) if codes != got => return form(codes.name(), got.name()),
                (_, first) if first != kernel => return form(first.name(), kernel.name()),
                _ => {}
            }
        }
        if let Some((layer, error)) = mlp.unlinked().next() {
            return Err(Refusal { layer: layer.to_owned(), error: error.clone().into() }.into());
        }
        let (activations, kernel) = like.ok_or(ChainError::NoLayers)?;
        Ok(Self { mlp, activations, kernel })
    }
}

impl QuantMlp {
    /// The same model as one whose layers may have any form.
    pub fn as_mlp(&self) -> &Mlp {
        &self.mlp
    }

    /// The layers, first to last; at least one.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = &StaticLinear> {
        self.mlp.layers().iter().filter_map(|layer| match layer {
            Linear::Static(layer) => Some(layer),
            _ => None,
        })
    }

    /// Width of the input: k of the first layer.
    pub fn inputs(&self) -> usize {
        self.mlp.inputs()
    }

    /// Width of the output: n of the last layer.
    pub fn outputs(&self) -> usize {
        self.mlp.outputs()
    }

    /// The codes of the input of every layer.
    pub fn activations(&self) -> ActivationCodes {
        self.activations
    }

    /// The kernel that every layer is packed for and runs on.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Bytes in memory: packed weights with their padding and sums, scales, multipliers and biases.
    pub fn bytes(&self) -> usize {
        self.layers().map(StaticLinear::bytes).sum()
    }

    /// Computes the logits `out` (m, outputs) of `x` (m, inputs); m = 0 is fine.
    ///
    /// A row has the same bits whatever the batch, the threads and the kernel. A serial call with a
    /// workspace that has grown allocates nothing.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong or a value is NaN or infinite; nothing is written then.
    pub fn forward(
        &self,
        x: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        self.mlp.forward(x, out, threads, workspace)
    }
}

/// This compiles only while one model can serve all threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<QuantMlp>();
};
