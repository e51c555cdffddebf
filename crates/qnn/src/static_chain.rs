//! Static layers one after the other: f32 is quantized once, codes go from layer to layer, the last one gives f32.

use bytemuck::{must_cast_slice, must_cast_slice_mut};
use qkernels::{Activation, MatMut, MatRef, Threads, Workspace};

use crate::config::ActivationCodes;
use crate::forward::{ForwardError, grown};
use crate::static_linear::StaticLinear;
use crate::workspace::LinearWorkspace;

/// Runs `layers`, of which each takes the codes that the one before it gives, on finite `x`. Codes of both types are kept
/// as bytes: in `workspace`, and for the layer after in `next`.
pub(crate) fn run<'l>(
    layers: impl Iterator<Item = &'l StaticLinear>,
    x: MatRef<'_, f32>,
    out: MatMut<'_, f32>,
    threads: Threads<'_>,
    workspace: &mut LinearWorkspace,
    next: &mut Vec<u8>,
) -> Result<(), ForwardError> {
    let (m, mut layers) = (x.rows(), layers.peekable());
    let LinearWorkspace { row, codes, gemm } = workspace;
    match layers.peek() {
        None => return Ok(()),
        Some(first) if first.input_codes() == ActivationCodes::U8 => {
            first.quantize_input::<u8>(&x, row, codes)?;
        }
        Some(first) => {
            first.quantize_input::<i8>(&x, row, codes)?;
        }
    }
    while let Some(layer) = layers.next() {
        let input = &codes[..m * layer.k()];
        let Some(following) = layers.peek() else {
            return match layer.input_codes() {
                ActivationCodes::U8 => {
                    layer.forward_values::<u8>(matrix(input, m, layer)?, out, threads, gemm)
                }
                ActivationCodes::I8 => {
                    layer.forward_values::<i8>(matrix(input, m, layer)?, out, threads, gemm)
                }
            };
        };
        let output = grown(next, m * layer.n());
        match (layer.input_codes(), following.input_codes()) {
            (ActivationCodes::U8, ActivationCodes::U8) => {
                step::<u8, u8>(layer, input, output, m, threads, gemm)?;
            }
            (ActivationCodes::U8, ActivationCodes::I8) => {
                step::<u8, i8>(layer, input, output, m, threads, gemm)?;
            }
            (ActivationCodes::I8, ActivationCodes::U8) => {
                step::<i8, u8>(layer, input, output, m, threads, gemm)?;
            }
            (ActivationCodes::I8, ActivationCodes::I8) => {
                step::<i8, i8>(layer, input, output, m, threads, gemm)?;
            }
        }
        core::mem::swap(codes, next);
    }
    Ok(())
}

/// Codes to codes.
fn step<C: Activation, D: Activation>(
    layer: &StaticLinear,
    input: &[u8],
    output: &mut [u8],
    m: usize,
    threads: Threads<'_>,
    gemm: &mut Workspace,
) -> Result<(), ForwardError> {
    let output = MatMut::new(must_cast_slice_mut::<u8, D>(output), m, layer.n())?;
    layer.forward_codes(matrix::<C>(input, m, layer)?, output, threads, gemm)
}

/// The bytes of a layer's input as codes (m, k).
fn matrix<'b, C: Activation>(
    bytes: &'b [u8],
    m: usize,
    layer: &StaticLinear,
) -> Result<MatRef<'b, C>, ForwardError> {
    Ok(MatRef::new(must_cast_slice(bytes), m, layer.k())?)
}
