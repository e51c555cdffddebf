//! Forms that are tried in a model, and its outputs then.

use core::ops::ControlFlow;
use std::time::Instant;

use qcore::first_non_finite;

use super::calibration::Calibration;
use super::error::{PassLayerError, Refusal};
use super::quality::{ModelOutput, Quality, Target};
use crate::config::method::Method;
use crate::layer::linear::Linear;
use crate::tree::exchange::{exchange, put_back};
use crate::tree::layers::Layers;
use crate::tree::shape::{LayerMismatch, LayerShape, Walk};

/// How far an analysis has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrialProgress {
    /// How often the model was evaluated. What turns out not to be needed counts as well.
    pub done: usize,
    /// How often it will be, as far as that is known.
    pub expected: usize,
}

/// Why an analysis ended early. The layers that it had replaced are in f32 again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError<E> {
    /// The model could not be run.
    #[error(transparent)]
    Evaluate(E),
    /// The output has no rows, or not all of them are whole.
    #[error("the output has {values} values, which make no rows of {cols}")]
    Rows {
        /// Values of the output.
        values: usize,
        /// [`ModelOutput::cols`].
        cols: usize,
    },
    /// The outputs cannot be compared: they have different shapes.
    #[error("the output was {expected:?} (rows, columns) in f32, and is {got:?} now")]
    Outputs {
        /// Rows and columns of the f32 model's output.
        expected: (usize, usize),
        /// Rows and columns now.
        got: (usize, usize),
    },
    /// The f32 model gives something that nothing can be compared with.
    #[error("the f32 model's output has {value} in row {row}, column {column}")]
    NonFinite {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// The target cannot be measured.
    #[error("{target} cannot be the target: {reason}")]
    Target {
        /// The target.
        target: Target,
        /// Why.
        reason: &'static str,
    },
    /// No layer is left to be quantized.
    #[error("no layer is in f32 and planned to be quantized, so there is nothing to try")]
    NothingToTry,
    /// A layer cannot have the planned form, or the layers are not those that were calibrated.
    #[error(transparent)]
    Layer(#[from] Refusal),
    /// The caller's `progress` broke off.
    #[error("cancelled after {done} evaluations")]
    Cancelled {
        /// How often the model was evaluated.
        done: usize,
    },
}

/// A layer that is to be quantized.
struct Slot {
    /// Its place in [`Calibration::planned`].
    at: usize,
    /// What is not in the model: the f32 layer while a quantized one is in its place.
    other: Option<Linear>,
}

/// The model, whose layers take any form, one after the other.
pub(crate) struct Trial<'t, M: ?Sized> {
    pub(crate) model: &'t mut M,
    calibration: &'t Calibration,
    /// Of all layers.
    shapes: Vec<LayerShape>,
    slots: Vec<Slot>,
}

impl<'t, M: Layers + ?Sized> Trial<'t, M> {
    /// The layers of `model` that `calibration` plans to quantize. All of them are in f32.
    pub(crate) fn new<E>(model: &'t mut M, calibration: &'t Calibration) -> Result<Self, TrialError<E>> {
        let shapes = calibration.check(model)?;
        let mut is_float = Vec::with_capacity(shapes.len());
        model.visit(&mut |layer| is_float.push(matches!(layer, Linear::Float(_))));
        let planned = calibration.planned.iter().zip(is_float).enumerate();
        let slots: Vec<_> = planned
            .filter(|(_, (planned, is_float))| *is_float && !matches!(planned.method, Method::Float))
            .map(|(at, _)| Slot { at, other: None })
            .collect();
        match slots.is_empty() {
            true => Err(TrialError::NothingToTry),
            false => Ok(Self { model, calibration, shapes, slots }),
        }
    }

    /// How many layers there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn name(&self, layer: usize) -> &str {
        &self.calibration.planned[self.slots[layer].at].shape.name
    }

    pub(crate) fn planned(&self, layer: usize) -> Method {
        self.calibration.planned[self.slots[layer].at].method
    }

    /// Puts a layer into the model in the form that `method` gives it.
    pub(crate) fn install(&mut self, layer: usize, method: &Method) -> Result<(), Refusal> {
        let Slot { at, other } = &mut self.slots[layer];
        put_back(self.model, other.as_mut());
        *other = None;
        if matches!(method, Method::Float) {
            return Ok(());
        }
        let planned = &self.calibration.planned[*at];
        let (shape, mut made) = (&planned.shape, None);
        let mut walk = Walk::visit(&self.shapes);
        self.model.visit(&mut |layer| {
            if walk.next(layer) == Some(*at) {
                made = Some(match layer {
                    Linear::Float(float) => planned.quantize(float, method, self.calibration.kernel),
                    quantized => Err(PassLayerError::Quantized { form: quantized.form() }),
                });
            }
        });
        walk.finish()?;
        let made = made.ok_or_else(|| LayerMismatch::missing(*at, shape))?;
        let made = made.map_err(|error| Refusal { layer: shape.name.clone(), error })?;
        // It is in the slot while it is exchanged, so that nothing is lost if that panics.
        exchange(self.model, shape, other.insert(made))?;
        self.model.replaced();
        Ok(())
    }

    /// Puts all layers into the model in the form that `method` gives them.
    pub(crate) fn install_all(&mut self, method: &Method) -> Result<(), Refusal> {
        (0..self.len()).try_for_each(|layer| self.install(layer, method))
    }

    /// Puts all f32 layers back.
    pub(crate) fn restore(&mut self) {
        put_back(self.model, self.slots.iter_mut().filter_map(|slot| slot.other.as_mut()));
        self.slots.iter_mut().for_each(|slot| slot.other = None);
    }
}

/// Runs the model and compares its outputs with those of the first run.
pub(crate) struct Bench<F, P> {
    reference: Option<ModelOutput>,
    evaluate: F,
    progress: P,
    done: usize,
    /// How long the last evaluation took.
    seconds: f64,
    /// How many evaluations there will be.
    pub(crate) expected: usize,
}

/// The model is not run again, to get its time, once it took so many seconds.
const ENOUGH_SECONDS: f64 = 0.2;

/// How often the model is run for its time at most.
const MOST_RUNS: usize = 5;

impl<F, P: FnMut(TrialProgress) -> ControlFlow<()>> Bench<F, P> {
    pub(crate) fn new(evaluate: F, progress: P) -> Self {
        Self { reference: None, evaluate, progress, done: 0, seconds: 0.0, expected: 0 }
    }

    /// The quality of the model as it is.
    pub(crate) fn measure<M: ?Sized, E>(&mut self, model: &mut M) -> Result<Quality, TrialError<E>>
    where
        F: FnMut(&mut M) -> Result<ModelOutput, E>,
    {
        let start = Instant::now();
        let output = (self.evaluate)(model).map_err(TrialError::Evaluate)?;
        self.seconds = start.elapsed().as_secs_f64();
        let shape = rows_and_columns(&output)?;
        self.advance()?;
        let reference = match &self.reference {
            Some(reference) => reference,
            None => {
                if let Some((index, value)) = first_non_finite(&output.values) {
                    let (row, column) = (index / output.cols, index % output.cols);
                    return Err(TrialError::NonFinite { row, column, value });
                }
                &*self.reference.insert(output.clone())
            }
        };
        let expected = rows_and_columns(reference)?;
        if shape != expected {
            return Err(TrialError::Outputs { expected, got: shape });
        }
        Quality::of(reference, &output).ok_or(TrialError::Outputs { expected, got: shape })
    }

    /// An evaluation is done, or not needed.
    pub(crate) fn advance<E>(&mut self) -> Result<(), TrialError<E>> {
        self.done += 1;
        self.expected = self.expected.max(self.done);
        let progress = TrialProgress { done: self.done, expected: self.expected };
        match (self.progress)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TrialError::Cancelled { done: self.done }),
        }
    }

    /// Checks that outputs such as the f32 model's can be measured by `target`.
    pub(crate) fn check<E>(&self, target: Target) -> Result<(), TrialError<E>> {
        let rows = self.reference.as_ref().map_or(0, |reference| reference.values.len() / reference.cols);
        match target.objection(rows) {
            Some(reason) => Err(TrialError::Target { target, reason }),
            None => Ok(()),
        }
    }

    /// As [`measure`](Self::measure), with the least time of a run in seconds.
    pub(crate) fn time<M: ?Sized, E>(&mut self, model: &mut M) -> Result<(Quality, f64), TrialError<E>>
    where
        F: FnMut(&mut M) -> Result<ModelOutput, E>,
    {
        let quality = self.measure(model)?;
        let (mut least, mut all) = (self.seconds, self.seconds);
        for _ in 1..MOST_RUNS {
            if all > ENOUGH_SECONDS {
                break;
            }
            let run = Instant::now();
            (self.evaluate)(model).map_err(TrialError::Evaluate)?;
            let took = run.elapsed().as_secs_f64();
            (least, all) = (least.min(took), all + took);
        }
        Ok((quality, least))
    }
}

/// The shape of an output.
fn rows_and_columns<E>(output: &ModelOutput) -> Result<(usize, usize), TrialError<E>> {
    let (values, cols) = (output.values.len(), output.cols);
    match values.checked_div(cols) {
        Some(rows) if rows > 0 && rows * cols == values => Ok((rows, cols)),
        _ => Err(TrialError::Rows { values, cols }),
    }
}
