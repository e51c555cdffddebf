//! Forms that are tried in a model, and how close its outputs are to those of the f32 model then.

use core::fmt;
use core::ops::ControlFlow;
use std::time::Instant;

use qcore::{ErrorMetrics, SqnrAboutMean, agreement};

use super::calibration::Calibration;
use super::error::Refusal;
use crate::config::method::Method;
use crate::layer::linear::Linear;
use crate::tree::exchange::{exchange, put_back};
use crate::tree::layers::Layers;
use crate::tree::shape::LayerMismatch;

/// The model's output for the evaluation set: rows of `cols` values, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOutput {
    /// (rows, cols), row-major.
    pub values: Vec<f32>,
    /// Values of a row.
    pub cols: usize,
}

/// How close a model's output is to that of the f32 model.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// Signal to quantization noise in dB.
    pub sqnr_db: f64,
    /// The same about the mean of each output ([`qcore::SqnrAboutMean`]); `None` with a single row.
    pub sqnr_about_mean_db: Option<f64>,
    /// The cosine between a row and the same row in f32, the mean over all rows.
    pub cosine: f64,
    /// Share, 0 to 1, of rows whose largest output is the same one as in f32. A row without a
    /// number agrees with nothing ([`agreement`]).
    pub agreement: f64,
}

/// What a mix must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// At least this signal to quantization noise of the model's output, in dB.
    SqnrDb(f64),
    /// At least this [`SqnrAboutMean`] of the model's output, in dB.
    SqnrAboutMeanDb(f64),
    /// At least this share, 0 to 1, of rows whose largest output is the same one as in f32. A row
    /// without a number agrees with nothing ([`agreement`]).
    Agreement(f64),
}

impl Target {
    /// Whether a model of this quality keeps the target.
    pub fn is_kept(self, quality: &Quality) -> bool {
        match self {
            Target::SqnrDb(db) => quality.sqnr_db >= db,
            Target::SqnrAboutMeanDb(db) => quality.sqnr_about_mean_db.is_some_and(|of| of >= db),
            Target::Agreement(share) => quality.agreement >= share,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::SqnrDb(db) => write!(f, "an SQNR of {db} dB"),
            Target::SqnrAboutMeanDb(db) => write!(f, "an SQNR about the mean of {db} dB"),
            Target::Agreement(share) => write!(f, "the same class in {} % of the rows", 100.0 * share),
        }
    }
}

/// How far an analysis has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrialProgress {
    /// How often the model was evaluated.
    pub done: usize,
    /// How often it will be, as far as that is known.
    pub expected: usize,
}

/// Why an analysis ended early. The model is in f32 again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError<E> {
    /// The model could not be run.
    #[error(transparent)]
    Evaluate(E),
    /// The outputs cannot be compared: they have different numbers of values, or none.
    #[error("expected {expected} output values in rows of {cols}, got {got}")]
    Outputs {
        /// Values of the f32 model.
        expected: usize,
        /// Values of a row.
        cols: usize,
        /// Values now.
        got: usize,
    },
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
    slots: Vec<Slot>,
}

impl<'t, M: Layers + ?Sized> Trial<'t, M> {
    /// The layers of `model` that `calibration` plans to quantize. All of them are in f32.
    pub(crate) fn new(model: &'t mut M, calibration: &'t Calibration) -> Result<Self, Refusal> {
        let shapes = calibration.check(model)?;
        let mut is_float = Vec::with_capacity(shapes.len());
        model.visit(&mut |layer| is_float.push(matches!(layer, Linear::Float(_))));
        let planned = calibration.planned.iter().zip(is_float).enumerate();
        let slots = planned
            .filter(|(_, (planned, is_float))| *is_float && !matches!(planned.method, Method::Float))
            .map(|(at, _)| Slot { at, other: None })
            .collect();
        Ok(Self { model, calibration, slots })
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
        let (shape, mut made, mut shown) = (&planned.shape, None, 0);
        self.model.visit(&mut |layer| {
            shown += 1;
            if let (None, Linear::Float(float)) = (&made, layer)
                && float.name() == shape.name
            {
                made = Some(planned.quantize(float, method, self.calibration.kernel));
            }
        });
        let made = made.ok_or_else(|| LayerMismatch::missing(shown, shape))?;
        let made = made.map_err(|source| Refusal { layer: shape.name.clone(), source })?;
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
        self.done += 1;
        self.expected = self.expected.max(self.done);
        let progress = TrialProgress { done: self.done, expected: self.expected };
        if (self.progress)(progress).is_break() {
            return Err(TrialError::Cancelled { done: self.done });
        }
        let reference = self.reference.get_or_insert_with(|| output.clone());
        quality(reference, &output)
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

fn quality<E>(reference: &ModelOutput, output: &ModelOutput) -> Result<Quality, TrialError<E>> {
    let (expected, cols, got) = (reference.values.len(), reference.cols, output.values.len());
    let not_comparable = |_| TrialError::Outputs { expected, cols, got };
    let agreement = agreement(&reference.values, &output.values, cols).map_err(not_comparable)?;
    let mut sqnr = SqnrAboutMean::new(cols);
    sqnr.add(&reference.values, &output.values).map_err(not_comparable)?;
    let rows = reference.values.chunks_exact(cols).zip(output.values.chunks_exact(cols));
    let count = rows.len();
    let cosines = rows.map(|(reference, row)| Ok(ErrorMetrics::of(reference, row)?.cosine_similarity));
    let cosines = cosines.sum::<Result<f64, _>>().map_err(not_comparable)?;
    Ok(Quality {
        sqnr_db: sqnr.sqnr_db(),
        sqnr_about_mean_db: sqnr.db(),
        cosine: cosines / count as f64,
        agreement,
    })
}
