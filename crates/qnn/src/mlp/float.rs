//! The f32 model: layers with ReLU between them. Calibration watches it, and reports compare with
//! it.

use core::ops::Range;

use qcore::ActivationFunction;
use qkernels::{MatMut, MatRef, Threads};

use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::{block_rows, blocks};
use crate::layer::rows::{check_input, check_output, grown};
use crate::layer::workspace::{Between, LinearWorkspace};
use crate::tree::chain::{ChainError, check_chain};

/// f32 layers with ReLU between them. There is none after the last layer, whose outputs are the
/// logits.
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::{FloatLinear, FloatMlp, LinearWorkspace};
/// let model = FloatMlp::new(vec![
///     FloatLinear::new("fc1", 2, 2, vec![1.0, 1.0, -1.0, 0.5], vec![0.0, 0.25])?,
///     FloatLinear::new("fc2", 1, 2, vec![2.0, 1.0], vec![-1.0])?,
/// ])?;
/// let mut logits = [0.0];
/// let (x, y) = (MatRef::new(&[1.0, 2.0], 1, 2)?, MatMut::new(&mut logits, 1, 1)?);
/// model.forward(x, y, Threads::Serial, &mut LinearWorkspace::new())?;
/// assert_eq!(logits, [2.0 * 3.0 + 1.0 * 0.25 - 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FloatMlp {
    layers: Vec<FloatLinear>,
}

/// A layer's output for some rows of the input, as [`FloatMlp::trace`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerOutput<'a> {
    /// Index of the layer.
    pub layer: usize,
    /// The rows of the input.
    pub rows: Range<usize>,
    /// The layer's output for these rows, after ReLU if one follows: (rows.len(), n), row-major.
    pub values: &'a [f32],
}

impl FloatMlp {
    /// Makes a model of `layers`, in this order. ReLU becomes the activation function of all layers
    /// but the last, whose outputs stay as they are. (An [`Mlp`](crate::Mlp) may have any
    /// functions.)
    ///
    /// # Errors
    /// [`ChainError`] if there are no layers, two have the same name, one does not give as many
    /// values as the next one takes, or one has another function that it would lose.
    pub fn new(layers: Vec<FloatLinear>) -> Result<Self, ChainError> {
        let heads: Vec<_> = layers.iter().map(|layer| &layer.head).collect();
        check_chain(&heads)?;
        let last = layers.len() - 1;
        let activation =
            |index| if index == last { ActivationFunction::Identity } else { ActivationFunction::Relu };
        let layers = layers.into_iter().enumerate().map(|(index, layer)| {
            let (function, instead) = (layer.activation(), activation(index));
            if function != ActivationFunction::Identity && function != instead {
                let (layer, function, instead) = (layer.name().to_owned(), function.name(), instead.name());
                return Err(ChainError::Activation { layer, function, instead });
            }
            Ok(layer.with_activation(instead))
        });
        Ok(Self { layers: layers.collect::<Result<_, _>>()? })
    }

    /// The layers, first to last; at least one.
    pub fn layers(&self) -> &[FloatLinear] {
        &self.layers
    }

    pub(crate) fn into_layers(self) -> Vec<FloatLinear> {
        self.layers
    }

    /// Width of the input: k of the first layer.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, FloatLinear::k)
    }

    /// Width of the output: n of the last layer.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, FloatLinear::n)
    }

    /// Bytes of all weights and biases.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(FloatLinear::bytes).sum()
    }

    /// Computes the logits `out` (m, outputs) of `x` (m, inputs). NaN and infinities in `x` are not
    /// refused.
    ///
    /// Once the workspace has grown, only the f32 product allocates. The last bits depend on the
    /// CPU and the batch.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong; nothing is written then.
    pub fn forward(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.inputs())?;
        check_output(&out, x.rows(), self.outputs())?;
        let last = self.layers.len() - 1;
        self.trace(x, threads, workspace, |output| {
            if output.layer == last {
                let n = self.outputs();
                for (i, logits) in output.rows.zip(output.values.chunks_exact(n)) {
                    if let Some(row) = out.row_mut(i) {
                        row.copy_from_slice(logits);
                    }
                }
            }
        })
    }

    /// Runs `x` (m, inputs) through the model and shows `see` the output of every layer for one
    /// block of rows after the other. Reports use it, and debugging may.
    ///
    /// # Errors
    /// [`ForwardError`] if `x` has the wrong width.
    pub fn trace(
        &self,
        x: MatRef<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
        mut see: impl FnMut(LayerOutput<'_>),
    ) -> Result<(), ForwardError> {
        check_input(&x, self.inputs())?;
        self.walk(x, block_rows(threads), threads, workspace, |output| {
            see(output);
            Ok(())
        })
    }

    /// Runs `x`, which has the right width, through the model and shows `see` every layer's output
    /// for at most `size` rows at a time, until `see` fails. The size changes no bit, because
    /// layers always multiply blocks of the same number of rows.
    pub(crate) fn walk<E: From<ForwardError>>(
        &self,
        x: MatRef<'_, f32>,
        size: usize,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
        mut see: impl FnMut(LayerOutput<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Between { current, next } = &mut workspace.between;
        for rows in blocks(x.rows(), size) {
            let m = rows.len();
            for (index, layer) in self.layers.iter().enumerate() {
                let input = match (index, x.row_range(rows.clone())) {
                    (0, Some(block)) => block,
                    _ => MatRef::new(&current[..], m, layer.k()).map_err(ForwardError::from)?,
                };
                let values = grown(next, m, layer.n())?;
                let out = MatMut::new(&mut *values, m, layer.n()).map_err(ForwardError::from)?;
                layer.forward_blocks(input, out, block_rows(threads), threads)?;
                see(LayerOutput { layer: index, rows: rows.clone(), values })?;
                core::mem::swap(current, next);
            }
        }
        Ok(())
    }
}
