//! The int8 model: the input is quantized once, codes go from layer to layer, the last one gives f32 logits.

use bytemuck::must_cast_slice_mut;
use core::ops::Range;
use qkernels::{Activation, Kernel, MatMut, MatRef, Threads, Workspace};

use crate::config::{ActivationCodes, WeightGranularity};
use crate::forward::{ForwardError, check_input, check_output, grown};
use crate::rows::{blocks, check_finite};
use crate::static_linear::StaticLinear;

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
    weights: WeightGranularity,
    kernel: Kernel,
}

/// Memory between the layers of a [`QuantMlp`], kept from call to call. It grows to what the widest layer needs for a
/// block of rows, whatever the batch.
#[derive(Debug, Default)]
pub struct QuantWorkspace {
    row: Vec<f32>,
    current: Vec<u8>,
    next: Vec<u8>,
    gemm: Workspace,
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
        weights: WeightGranularity,
        kernel: Kernel,
    ) -> Self {
        Self { layers, activations, weights, kernel }
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

    /// What shares a weight scale.
    pub fn weights(&self) -> WeightGranularity {
        self.weights
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
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut QuantWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.inputs())?;
        check_output(&out, x.rows(), self.outputs())?;
        check_finite(&x, &mut workspace.row)?;
        match self.activations {
            ActivationCodes::U8 => self.forward_as::<u8>(x, out, threads, workspace),
            ActivationCodes::I8 => self.forward_as::<i8>(x, out, threads, workspace),
        }
    }

    fn forward_as<C: Activation>(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut QuantWorkspace,
    ) -> Result<(), ForwardError> {
        let (m, n) = (x.rows(), self.outputs());
        for rows in blocks(m, threads) {
            let (rows_left, cols) = (out.rows(), out.cols());
            let Some((block, rest)) = out.split_at_row(rows.len()) else {
                return Err(ForwardError::OutputShape { m, n, rows: rows_left, cols });
            };
            self.forward_block::<C>(&x, rows, block, threads, workspace)?;
            out = rest;
        }
        Ok(())
    }

    fn forward_block<C: Activation>(
        &self,
        x: &MatRef<'_, f32>,
        rows: Range<usize>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut QuantWorkspace,
    ) -> Result<(), ForwardError> {
        let m = rows.len();
        let QuantWorkspace { row, current, next, gemm } = workspace;
        let (Some(first), Some(last)) = (self.layers.first(), self.layers.last()) else { return Ok(()) };
        let Some(x) = x.row_range(rows) else { return Ok(()) };
        first.quantize_input::<C>(&x, row, current)?;
        for layer in &self.layers[..self.layers.len() - 1] {
            let codes = must_cast_slice_mut(grown(next, m * layer.n()));
            let (input, output) =
                (MatRef::new(as_codes(current), m, layer.k())?, MatMut::new(codes, m, layer.n())?);
            layer.forward_codes::<C, C>(input, output, threads, gemm)?;
            core::mem::swap(current, next);
        }
        last.forward_values::<C>(MatRef::new(as_codes(current), m, last.k())?, out, threads, gemm)
    }
}

fn as_codes<C: Activation>(bytes: &[u8]) -> &[C] {
    bytemuck::must_cast_slice(bytes)
}

/// One model serves all threads: compiles only while that holds.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<QuantMlp>();
};
