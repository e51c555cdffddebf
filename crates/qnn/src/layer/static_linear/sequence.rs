//! How static layers run one after the other: f32 is quantized once, codes go from layer to layer,
//! and the last layer gives f32.

use bytemuck::{must_cast_slice, must_cast_slice_mut};
use qkernels::{Activation, MatMut, MatRef, Threads, Workspace};

use super::build::StaticLinear;
use crate::config::activation_codes::ActivationCodes;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::grown;
use crate::layer::workspace::LinearWorkspace;

impl StaticLinear {
    /// Whether the codes that `before` gives are those of this layer's input. Where that is divided
    /// by an input scale, they are none, whatever parameters they have.
    pub(crate) fn takes_codes_of(&self, before: &StaticLinear) -> bool {
        self.input_scale().is_none() && before.output() == Some(self.input())
    }
}

/// Runs `layers` on `x`, which is finite, also divided by the first one's input scale. Each layer
/// takes the codes that the one before it gives. Codes of both types are kept as bytes.
pub(crate) fn run<'l>(
    layers: impl Iterator<Item = &'l StaticLinear>,
    x: MatRef<'_, f32>,
    out: MatMut<'_, f32>,
    threads: Threads<'_>,
    workspace: &mut LinearWorkspace,
) -> Result<(), ForwardError> {
    let (m, mut layers) = (x.rows(), layers.peekable());
    let LinearWorkspace { codes, next_codes, gemm, .. } = workspace;
    let mut real = Some(x);
    while let Some(layer) = layers.next() {
        let Some(following) = layers.peek() else {
            return match (real, layer.input_codes()) {
                (Some(x), _) => layer.values(layer.quantized(x)?, out, threads, gemm),
                (None, ActivationCodes::U8) => {
                    layer.values(layer.activations(matrix::<u8>(codes, m, layer)?)?, out, threads, gemm)
                }
                (None, ActivationCodes::I8) => {
                    layer.values(layer.activations(matrix::<i8>(codes, m, layer)?)?, out, threads, gemm)
                }
            };
        };
        if !following.takes_codes_of(layer) {
            return Err(ForwardError::NotLinked);
        }
        let output = grown(next_codes, m, layer.n())?;
        match following.input_codes() {
            ActivationCodes::U8 => step::<u8>(layer, real, codes, output, m, threads, gemm)?,
            ActivationCodes::I8 => step::<i8>(layer, real, codes, output, m, threads, gemm)?,
        }
        core::mem::swap(codes, next_codes);
        real = None;
    }
    Ok(())
}

/// Runs one layer that gives codes: on `real` values if there are any, else on `codes`.
fn step<D: Activation>(
    layer: &StaticLinear,
    real: Option<MatRef<'_, f32>>,
    codes: &[u8],
    output: &mut [u8],
    m: usize,
    threads: Threads<'_>,
    gemm: &mut Workspace,
) -> Result<(), ForwardError> {
    let output = MatMut::new(must_cast_slice_mut::<u8, D>(output), m, layer.n())?;
    match (real, layer.input_codes()) {
        (Some(x), _) => layer.codes(layer.quantized(x)?, output, threads, gemm),
        (None, ActivationCodes::U8) => {
            layer.codes(layer.activations(matrix::<u8>(codes, m, layer)?)?, output, threads, gemm)
        }
        (None, ActivationCodes::I8) => {
            layer.codes(layer.activations(matrix::<i8>(codes, m, layer)?)?, output, threads, gemm)
        }
    }
}

/// The bytes of a layer's input as codes (m, k).
pub(crate) fn matrix<'b, C: Activation>(
    bytes: &'b [u8],
    m: usize,
    layer: &StaticLinear,
) -> Result<MatRef<'b, C>, ForwardError> {
    Ok(MatRef::new(must_cast_slice(bytes), m, layer.k())?)
}
