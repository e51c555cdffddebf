//! The MLP as one tree of layers among others. Each layer has its own form, and codes go from one
//! static layer to the next.

use core::ops::Range;

use qkernels::{MatMut, MatRef, Threads};

use super::float::FloatMlp;
use crate::layer::forward_error::ForwardError;
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::rows::{block_rows, blocks, check_input, check_output, grown, in_vec};
use crate::layer::static_linear::sequence;
use crate::layer::workspace::{Between, LinearWorkspace};
use crate::tree::chain::{ChainError, check_chain};
use crate::tree::layers::Layers;

/// Linear layers one after the other, each with its own activation function and in its own form.
/// The quantize pass turns it into a mixed model. [`QuantMlp`](crate::QuantMlp) is one with
/// integers only.
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::{FloatLinear, FloatMlp, Form, LinearWorkspace, Method, Mlp, PassConfig, quantize_model};
/// let float = FloatMlp::new(vec![
///     FloatLinear::new("fc1", 2, 2, vec![1.0, 1.0, -1.0, 0.5], vec![0.0, 0.25])?,
///     FloatLinear::new("fc2", 1, 2, vec![2.0, 1.0], vec![-1.0])?,
/// ])?;
/// let mut model = Mlp::from(float);
/// let batches = [MatRef::new(&[1.0, 2.0, 0.5, 0.0], 2, 2)?];
/// let config = PassConfig::default().with_rule("fc2", Method::Float);
/// let report = quantize_model(&mut model, &config, batches, Mlp::run_batch, |_| {})?;
/// assert_eq!([model.layers()[0].form(), model.layers()[1].form()], [Form::Static, Form::Float]);
/// let mut y = [0.0];
/// let (x, out) = (MatRef::new(&[1.0, 2.0], 1, 2)?, MatMut::new(&mut y, 1, 1)?);
/// model.forward(x, out, Threads::Serial, &mut LinearWorkspace::new())?;
/// assert!((y[0] - 5.25_f32).abs() < 0.05);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
    /// The indices of static layers that cannot give the codes that the static layer after them
    /// takes, and why.
    unlinked: Vec<(usize, LayerError)>,
}

impl From<FloatMlp> for Mlp {
    fn from(model: FloatMlp) -> Self {
        Self::linked(model.into_layers().into_iter().map(Linear::from).collect())
    }
}

impl Layers for Mlp {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        self.layers.visit(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        self.layers.visit_mut(visit);
    }

    /// Links static layers that follow each other, so that codes go from one to the next. Where
    /// that is impossible, real values go between them, and [`unlinked`](Mlp::unlinked) says why. A
    /// layer with an input scale is given real values, too: it takes codes of quotients, which no
    /// layer before it gives.
    fn replaced(&mut self) {
        self.unlinked.clear();
        for i in 1..self.layers.len() {
            let (before, after) = self.layers.split_at_mut(i);
            if let (Some(Linear::Static(layer)), Linear::Static(next)) = (before.last_mut(), &after[0])
                && next.input_scale().is_none()
                && let Err(error) = layer.set_output(*next.input())
            {
                self.unlinked.push((i - 1, error));
            }
        }
    }
}

impl Mlp {
    /// Makes a model of `layers`, in this order.
    ///
    /// # Errors
    /// [`ChainError`] if there are no layers, two have the same name, or one does not give as many
    /// values as the next one takes.
    pub fn new(layers: Vec<Linear>) -> Result<Self, ChainError> {
        let heads: Vec<_> = layers.iter().map(Linear::head).collect();
        check_chain(&heads)?;
        Ok(Self::linked(layers))
    }

    /// Makes a model of layers that were checked to follow each other.
    pub(crate) fn linked(layers: Vec<Linear>) -> Self {
        let mut model = Self { layers, unlinked: Vec::new() };
        model.replaced();
        model
    }

    /// The layers, first to last; at least one.
    pub fn layers(&self) -> &[Linear] {
        &self.layers
    }

    /// The names of static layers that give real values instead of codes to the static layer after
    /// them, and why: a multiplier leaves f32, or the next layer's zero point is none of its codes.
    /// Healthy models have none. (A layer before one with an input scale is not among them.)
    pub fn unlinked(&self) -> impl Iterator<Item = (&str, &LayerError)> {
        self.unlinked.iter().filter_map(|(index, error)| Some((self.layers.get(*index)?.name(), error)))
    }

    /// Width of the input: k of the first layer.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, Linear::k)
    }

    /// Width of the output: n of the last layer.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, Linear::n)
    }

    /// Runs the model on a batch and drops the result, as [`quantize_model`](crate::quantize_model)
    /// needs it. (It changes nothing; the pass lends models for changing, since some keep a state.)
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if there is no memory for the result.
    pub fn run_batch(&mut self, x: MatRef<'_, f32>) -> Result<(), ForwardError> {
        self.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).map(drop)
    }

    /// As [`forward`](Self::forward), with the result (m, outputs) in a vector.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if there is no memory for the result.
    pub fn forward_vec(
        &self,
        x: MatRef<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<Vec<f32>, ForwardError> {
        check_input(&x, self.inputs())?;
        in_vec(x.rows(), self.outputs(), |out| self.forward(x, out, threads, workspace))
    }

    /// Computes `out` (m, outputs) of `x` (m, inputs); m = 0 is fine. With a kept workspace, only
    /// f32 layers allocate.
    ///
    /// Integer layers give the same bits as if each ran on the whole batch, whatever the threads.
    /// Static layers that follow each other hand on codes, but for those with an input scale. (The
    /// last bits of f32 layers depend on the CPU and the batch.)
    ///
    /// Rows go through the layers in blocks, so the workspace does not grow with m. There are two
    /// exceptions. If rows share a scale ([`Dynamic::PerTensor`](qkernels::Dynamic::PerTensor)), or
    /// if the model is being calibrated, a layer needs all rows at once. The values on both sides
    /// of a layer are then in memory for the whole batch: up to 8 * m * (the largest k or n) bytes.
    ///
    /// # Errors
    /// [`ForwardError`] if a shape is wrong (nothing is written then), a value is not finite that
    /// an integer layer has to quantize, or there is no memory for the values between two layers.
    pub fn forward(
        &self,
        x: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        check_input(&x, self.inputs())?;
        check_output(&out, x.rows(), self.outputs())?;
        // All rows are checked before the first block, so nothing is written if one of the last
        // rows is not finite.
        if let Some(Linear::Static(first)) = self.layers.first() {
            first.check_finite(x)?;
        }
        let mut between = core::mem::take(&mut workspace.between);
        let done = self.forward_blocks(x, out, threads, workspace, &mut between);
        workspace.between = between;
        done
    }

    fn forward_blocks(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
        between: &mut Between,
    ) -> Result<(), ForwardError> {
        let at_once = self.shares_a_scale() || self.is_watched();
        let size = if at_once { x.rows() } else { block_rows(threads) };
        for rows in blocks(x.rows(), size) {
            let first = rows.start;
            let (Some(x), Some(out)) = (x.row_range(rows.clone()), out.block(rows, 0..self.outputs())) else {
                continue;
            };
            let done = self.forward_block(x, out, threads, workspace, between);
            done.map_err(|error| error.of_block_at(first))?;
        }
        Ok(())
    }

    /// Whether all rows of some layer's input share a scale.
    fn shares_a_scale(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Linear::Dynamic(layer) if layer.shares_a_scale()))
    }

    /// Whether the model is being calibrated. A watch has to see a batch at once.
    fn is_watched(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Linear::Float(layer) if layer.is_watched()))
    }

    fn forward_block(
        &self,
        x: MatRef<'_, f32>,
        mut out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
        Between { current, next: output }: &mut Between,
    ) -> Result<(), ForwardError> {
        let m = x.rows();
        let mut next = 0;
        while let Some(layer) = self.layers.get(next) {
            let chain = self.linked_run(next);
            let last = chain.end.max(next + 1) - 1;
            let input = if next == 0 { x } else { MatRef::new(&current[..], m, layer.k())? };
            let is_end = last + 1 == self.layers.len();
            let n = self.layers[last].n();
            let target = match is_end {
                true => out.reborrow(),
                false => MatMut::new(grown(output, m, n)?, m, n)?,
            };
            if chain.is_empty() {
                self.forward_one(layer, input, target, threads, workspace)?;
            } else {
                let layers = self.layers[chain].iter().filter_map(|layer| match layer {
                    Linear::Static(layer) => Some(layer),
                    _ => None,
                });
                if let (Some(first), true) = (layers.clone().next(), next > 0) {
                    first.check_finite(input)?;
                }
                sequence::run(layers, input, target, threads, workspace)?;
            }
            core::mem::swap(current, output);
            next = last + 1;
        }
        Ok(())
    }

    /// Runs a layer that is not linked to others by codes. While the model is calibrated, `x` has
    /// all rows, but f32 layers multiply them in the same blocks as ever, so a watch changes no
    /// bit.
    fn forward_one(
        &self,
        layer: &Linear,
        x: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        let size = if self.shares_a_scale() { x.rows() } else { block_rows(threads) };
        match layer {
            Linear::Float(layer) => layer.forward_blocks(x, out, size, threads),
            _ => layer.forward(x, out, threads, workspace),
        }
    }

    /// The longest run of linked static layers from `start` on.
    fn linked_run(&self, start: usize) -> Range<usize> {
        let mut end = start;
        while let Some(Linear::Static(layer)) = self.layers.get(end) {
            end += 1;
            match self.layers.get(end) {
                Some(Linear::Static(next)) if next.takes_codes_of(layer) => {}
                _ => break,
            }
        }
        start..end
    }
}
