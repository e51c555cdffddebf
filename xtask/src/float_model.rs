//! The trained f32 models with some weights in n bits, and how that changes their logits.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use qcore::{ChannelAxis, CodeRange, Scheme, channel_params, fake_quantize_per_channel};
use qkernels::{MatMut, MatRef, Threads};
use qnn::{FloatMlp, LinearWorkspace, argmax_rows};

use crate::dataset::{Digits, PIXELS};
use crate::flags::DATA;

/// The files of the two MLPs.
pub(crate) const MLP_256: &str = "mnist_mlp_784_256_128_10.safetensors";
pub(crate) const MLP_512: &str = "mnist_mlp_784_512_512_10.safetensors";

/// Loads a trained model.
pub(crate) fn load(file: &str) -> Result<FloatMlp> {
    let path = Path::new(DATA).join(file);
    FloatMlp::load(&path).with_context(|| path.display().to_string())
}

/// Images and the digits they show.
pub(crate) fn digits(file: &str) -> Result<Digits> {
    Digits::read(&Path::new(DATA).join(file)).map_err(|error| anyhow!(error))
}

/// The images that no model was trained or calibrated on.
pub(crate) fn test_digits() -> Result<Digits> {
    digits("mnist_test_2500.safetensors")
}

pub(crate) fn calibration_digits() -> Result<Digits> {
    digits("mnist_calib_500.safetensors")
}

/// The images in the form that the models take.
pub(crate) fn matrix(digits: &Digits) -> Result<MatRef<'_, f32>> {
    Ok(MatRef::new(&digits.inputs, digits.len(), PIXELS)?)
}

/// The widths of the layers, such as `784-256-128-10`.
pub(crate) fn layout(model: &FloatMlp) -> String {
    let mut widths = vec![model.inputs().to_string()];
    widths.extend(model.layers().iter().map(|layer| layer.n().to_string()));
    widths.join("-")
}

/// The model with the weights of some layers, chosen by `is_quantized`, rounded to codes with one
/// scale per output channel. It still computes in f32.
pub(crate) fn with_codes(
    model: &FloatMlp,
    codes: CodeRange,
    is_quantized: impl Fn(usize) -> bool,
) -> Result<FloatMlp> {
    let scheme = Scheme { codes, ..Scheme::weights_i8() };
    let layers = model.layers().iter().enumerate().map(|(i, layer)| {
        let mut weight = layer.weight().to_vec();
        if is_quantized(i) {
            let axis = ChannelAxis::rows(layer.n(), layer.k())?;
            let params = channel_params(layer.weight(), axis, &scheme)?;
            fake_quantize_per_channel(layer.weight(), axis, &params, &mut weight)?;
        }
        Ok(layer.with_weight(weight)?)
    });
    Ok(FloatMlp::new(layers.collect::<Result<_>>()?)?)
}

/// The logits of all rows.
pub(crate) fn logits(model: &FloatMlp, x: MatRef<'_, f32>) -> Result<Vec<f32>> {
    let (m, n) = (x.rows(), model.outputs());
    let mut logits = vec![0.0; m * n];
    model.forward(x, MatMut::new(&mut logits, m, n)?, Threads::Serial, &mut LinearWorkspace::new())?;
    Ok(logits)
}

/// How many of the images are recognized.
pub(crate) fn right(logits: &[f32], test: &Digits) -> Result<usize> {
    let rows = MatRef::new(logits, test.len(), logits.len() / test.len())?;
    Ok(test.correct(argmax_rows(rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_layers_change() {
        let model = load(MLP_256).unwrap();
        let changed = with_codes(&model, CodeRange::signed(4).unwrap(), |i| i == 1).unwrap();
        for (i, (before, after)) in model.layers().iter().zip(changed.layers()).enumerate() {
            assert_eq!(before.weight() != after.weight(), i == 1);
            assert_eq!(before.bias(), after.bias());
        }
    }
}
