//! Several layers that read the same input (query, key and value of an attention): it is quantized
//! once.

use bytemuck::must_cast_slice_mut;
use qkernels::{MatRef, Threads, quantize};

use super::Linear;
use crate::config::activation_codes::ActivationCodes;
use crate::layer::dynamic::DynamicLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::{check_finite, check_input, divided, grown, in_vec, row};
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::static_linear::sequence::matrix;
use crate::layer::workspace::LinearWorkspace;

impl Linear {
    /// As [`forward_vec`](Self::forward_vec) of each of `layers`, which all read `x` (m, k), with
    /// the same bits. Where all of them quantize it alike, which is so after the pass made them all
    /// dynamic, or static by what it saw, that is done once. (Layers whose input scales differ do
    /// not.)
    ///
    /// ```
    /// use qkernels::{MatRef, Threads};
    /// use qnn::{FloatLinear, Linear, LinearWorkspace};
    /// let layer = |name, weight| Ok::<_, qnn::FloatLinearError>(Linear::from(FloatLinear::without_bias(name, 1, 2, weight)?));
    /// let (query, key) = (layer("query", vec![1.0, 2.0])?, layer("key", vec![0.5, 0.0])?);
    /// let x = MatRef::new(&[1.0, 1.0, 0.0, 2.0], 2, 2)?;
    /// let [q, k] = Linear::forward_shared([&query, &key], x, Threads::Serial, &mut LinearWorkspace::new())?;
    /// assert_eq!((q, k), (vec![3.0, 4.0], vec![0.5, 0.0]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward_vec`](Self::forward_vec).
    pub fn forward_shared<const N: usize>(
        layers: [&Linear; N],
        x: MatRef<'_, f32>,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<[Vec<f32>; N], ForwardError> {
        let shared = match layers.first() {
            Some(Linear::Dynamic(first)) if layers.iter().all(|layer| quantizes_as(layer, first)) => {
                check_input(&x, first.k())?;
                let x = divided(x, first.input_scale())?;
                check_finite(x, first.weights().kernel())?;
                workspace.rows.quantize(x, *first.activations(), first.weights().kernel())?;
                true
            }
            Some(Linear::Static(first)) if layers.iter().all(|layer| takes_codes_of(layer, first)) => {
                check_input(&x, first.k())?;
                first.check_finite(x)?;
                keep_codes(first, &x, workspace)?;
                true
            }
            _ => false,
        };
        let mut outputs = [const { Vec::new() }; N];
        for (layer, output) in layers.into_iter().zip(&mut outputs) {
            *output = match layer {
                Linear::Dynamic(layer) if shared => in_vec(x.rows(), layer.n(), |out| {
                    let LinearWorkspace { rows, gemm, .. } = workspace;
                    layer.forward_rows(rows, out, threads, gemm)
                })?,
                Linear::Static(layer) if shared => in_vec(x.rows(), layer.n(), |out| {
                    let (codes, gemm, m) = (&workspace.codes[..], &mut workspace.gemm, x.rows());
                    match layer.input_codes() {
                        ActivationCodes::U8 => layer.values(
                            layer.activations(matrix::<u8>(codes, m, layer)?)?,
                            out,
                            threads,
                            gemm,
                        ),
                        ActivationCodes::I8 => layer.values(
                            layer.activations(matrix::<i8>(codes, m, layer)?)?,
                            out,
                            threads,
                            gemm,
                        ),
                    }
                })?,
                _ => layer.forward_vec(x, threads, workspace)?,
            };
        }
        Ok(outputs)
    }
}

/// Whether `layer` is dynamic, of the same width as `first`, and divides and quantizes its input
/// alike.
fn quantizes_as(layer: &Linear, first: &DynamicLinear) -> bool {
    let how = |layer: &DynamicLinear| (layer.k(), *layer.activations());
    matches!(layer, Linear::Dynamic(layer)
        if how(layer) == how(first) && layer.input_scale() == first.input_scale())
}

/// Whether `layer` is static, of the same width as `first`, divides its input alike, and takes the
/// same codes.
fn takes_codes_of(layer: &Linear, first: &StaticLinear) -> bool {
    let how = |layer: &StaticLinear| (layer.k(), *layer.input());
    matches!(layer, Linear::Static(layer)
        if how(layer) == how(first) && layer.input_scale() == first.input_scale())
}

/// Writes the codes of `x`, as `layer` takes them, to the workspace: those of quotients if it has
/// an input scale.
fn keep_codes(
    layer: &StaticLinear,
    x: &MatRef<'_, f32>,
    workspace: &mut LinearWorkspace,
) -> Result<(), ForwardError> {
    let LinearWorkspace { codes, row: buffer, .. } = workspace;
    let (kernel, input) = (layer.weights().kernel(), layer.input());
    let (codes, mut quotients) = (grown(codes, x.rows(), x.cols())?, Vec::new());
    for (i, codes) in codes.chunks_exact_mut(x.cols()).enumerate() {
        let mut values = row(x, i, buffer);
        if let Some(scale) = layer.input_scale() {
            quotients.clear();
            quotients.extend(values.iter().zip(scale).map(|(value, scale)| value / scale));
            values = &quotients;
        }
        match layer.input_codes() {
            ActivationCodes::U8 => quantize(kernel, values, input, codes)?,
            ActivationCodes::I8 => quantize(kernel, values, input, must_cast_slice_mut::<u8, i8>(codes))?,
        }
    }
    Ok(())
}
