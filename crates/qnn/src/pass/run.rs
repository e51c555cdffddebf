//! The quantize pass over any model in one call.

use super::calibration::{CalibrationProgress, calibrate_model};
use super::error::PassError;
use super::report::PassReport;
use crate::config::pass::PassConfig;
use crate::tree::layers::Layers;

/// Quantizes the layers of `model` in place, as `config` says, and reports what became of each and
/// what it cost. It is [`calibrate_model`], then
/// [`Calibration::quantize`](crate::Calibration::quantize).
///
/// ```
/// use qkernels::{MatMut, MatRef, Threads};
/// use qnn::{FloatLinear, Form, Linear, LinearWorkspace, PassConfig, quantize_model};
/// let mut model = vec![Linear::from(FloatLinear::new("fc1", 1, 2, vec![1.0, -0.5], vec![0.25])?)];
/// let batches = [[0.0_f32, 1.0], [2.0, 0.5]];
/// let run = |model: &mut Vec<Linear>, x: [f32; 2]| {
///     let (x, mut y) = (MatRef::new(&x, 1, 2)?, [0.0]);
///     model[0].forward(x, MatMut::new(&mut y, 1, 1)?, Threads::Serial, &mut LinearWorkspace::new())
/// };
/// let report = quantize_model(&mut model, &PassConfig::default(), batches, run, |at| {
///     println!("{} of {:?} batches", at.done, at.total);
/// })?;
/// assert_eq!((model[0].form(), report.layers[0].input.unwrap().scale()), (Form::Static, 2.0 / 255.0));
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PassError`] if names are not unique, the model's walks show different layers, a rule matches
/// nothing, `run` fails, or a layer cannot be quantized. The model then has the layers that it had
/// before. That is also so if the caller's code panics.
pub fn quantize_model<M: Layers + ?Sized, B, E>(
    model: &mut M,
    config: &PassConfig,
    batches: impl IntoIterator<Item = B>,
    run: impl FnMut(&mut M, B) -> Result<(), E>,
    progress: impl FnMut(CalibrationProgress),
) -> Result<PassReport, PassError<E>> {
    Ok(calibrate_model(model, config, batches, run, progress)?.quantize(model)?)
}
