//! The int8 model: the input is quantized once, codes go from layer to layer, the last one gives f32 logits.

use qkernels::{Kernel, MatMut, MatRef, Threads};

use crate::config::activation_codes::ActivationCodes;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::{block_rows, blocks, check_finite};
use crate::layer::rows::{check_input, check_output};
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::static_linear::sequence;
use crate::layer::workspace::LinearWorkspace;

/// An int8 model: made by [`CalibratedMlp::quantize`](crate::CalibratedMlp::quantize) or read from a file. Immutable,
/// `Send + Sync`; one model serves any number of threads, each with a workspace of its own.
///
/// Layers multiply i8 weights by u8 or i8 activations into int32 sums; ReLU and the step to the next layer's codes
/// happen in the product's output stage ([`Requantize`](qkernels::Requantize)), so nothing between the model's input and
/// its logits is ever f32.
#[derive(Clone, Debug)]
pub struct QuantMlp {
    layers: Vec<StaticLinear>,
    activations: ActivationCodes,
    kernel: Kernel,
}

/// Memory between the layers of a [`QuantMlp`] or an [`Mlp`](crate::Mlp), kept from call to call. It grows to what the widest
/// layer needs for a block of rows, whatever the batch; for the whole batch where [`Mlp::forward`](crate::Mlp::forward) needs all
/// rows at once.
#[derive(Debug, Default)]
pub struct QuantWorkspace {
    pub(crate) linear: LinearWorkspace,
    /// Codes of a layer's output, while those of its input are in `linear`.
    pub(crate) next_codes: Vec<u8>,
    /// Real values, where layers are not linked by codes.
    pub(crate) values: Vec<f32>,
    pub(crate) next_values: Vec<f32>,
}

impl QuantWorkspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }
}

impl QuantMlp {
    /// A model of layers that were checked to follow each other; at least one.
    pub(crate) fn from_layers(
        layers: Vec<StaticLinear>,
        activations: ActivationCodes,
        kernel: Kernel,
    ) -> Self {
        Self { layers, activations, kernel }
    }

    /// The layers, first to last; at least one.
    pub fn layers(&self) -> &[StaticLinear] {
        &self.layers
    }

    /// Width of the input: k of the first layer.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, StaticLinear::k)
    }

    /// Width of the output: n of the last layer.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, StaticLinear::n)
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
        self.layers.iter().map(StaticLinear::bytes).sum()
    }

    /// Computes the logits `out` (m, outputs) of `x` (m, inputs); m = 0 is fine.
    ///
    /// A row has the same bits whatever the batch, the threads and the kernel. Serially and with a workspace that has
    /// grown, nothing is allocated.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong or a value is NaN or infinite; nothing is written then.
    pub fn forward(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut QuantWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.inputs())?;
        check_output(&out, x.rows(), self.outputs())?;
        let QuantWorkspace { linear, next_codes, .. } = workspace;
        check_finite(&x, &mut linear.row)?;
        for rows in blocks(x.rows(), block_rows(threads)) {
            let (Some(x), Some(out)) = (x.row_range(rows.clone()), out.block(rows, 0..self.outputs())) else {
                continue;
            };
            sequence::run(self.layers.iter(), x, out, threads, linear, next_codes)?;
        }
        Ok(())
    }
}

/// One model serves all threads: compiles only while that holds.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<QuantMlp>();
};
