//! The caller's model and batches, and what watches them.

use core::fmt;

use crate::config::pass::PassConfig;
use crate::layer::watch::{See, Shared, SharedWatch};
use crate::pass::calibration::{Calibration, CalibrationProgress, calibrate_with, run_watched};
use crate::pass::error::{PassError, PassLayerError};
use crate::pass::plan::Planned;
use crate::tree::layers::Layers;
use crate::tree::shape::LayerShape;

/// How far a recipe has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipeProgress {
    /// What is being done.
    pub stage: RecipeStage,
    /// Batches that have run, or layers that are done.
    pub done: usize,
    /// How many there are, if that is known.
    pub total: Option<usize>,
}

/// What a recipe is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeStage {
    /// Batches of calibration run in f32.
    Calibration,
    /// Batches that are held out run in f32.
    HeldOut,
    /// Batches of calibration run once more, for the ranges of inputs that are divided.
    DividedInputs,
    /// The steps that go from layer to layer.
    Layers,
}

impl fmt::Display for RecipeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecipeStage::Calibration => "calibration",
            RecipeStage::HeldOut => "batches that are held out",
            RecipeStage::DividedInputs => "ranges of divided inputs",
            RecipeStage::Layers => "layers",
        })
    }
}

/// The caller's model and batches: what the steps know of them.
pub(super) trait Batches {
    type Model: Layers + ?Sized;
    /// The error of the caller's function that runs the model.
    type Error;

    fn model(&mut self) -> &mut Self::Model;

    /// The plan for the model, and what `watch` makes of the inputs of each layer in calibration.
    fn calibrate<S: See + Default + 'static>(
        &mut self,
        config: &PassConfig,
        watch: impl Fn(&Planned) -> Result<S, PassLayerError>,
    ) -> Result<(Calibration, Vec<S>), PassError<Self::Error>>;

    /// Runs the batches of calibration while `watches` look at the layers `shapes`. After each of
    /// them `then` is called.
    fn watch(
        &mut self,
        shapes: &[LayerShape],
        watches: &[Option<SharedWatch>],
        stage: Option<RecipeStage>,
        then: impl FnMut(),
    ) -> Result<(), PassError<Self::Error>>;

    /// Runs the batches that are held out, and gives what the watches saw.
    fn watch_held_out<S: See + Default + 'static>(
        &mut self,
        shapes: &[LayerShape],
        watches: &[Option<Shared<S>>],
        stage: Option<RecipeStage>,
    ) -> Result<Vec<S>, PassError<Self::Error>>;

    /// So many of the layers are done.
    fn layers_done(&mut self, done: usize, total: usize);
}

/// The caller's model, the batches, and how they run.
pub(super) struct Runner<'m, M: ?Sized, C, H, R, P> {
    pub(super) model: &'m mut M,
    pub(super) calibration: C,
    pub(super) held_out: H,
    pub(super) run: R,
    pub(super) progress: P,
}

impl<M, B, E, C, H, R, P> Batches for Runner<'_, M, C, H, R, P>
where
    M: Layers + ?Sized,
    C: IntoIterator<Item = B> + Clone,
    H: IntoIterator<Item = B> + Clone,
    R: FnMut(&mut M, B) -> Result<(), E>,
    P: FnMut(RecipeProgress),
{
    type Model = M;
    type Error = E;

    fn model(&mut self) -> &mut M {
        self.model
    }

    fn calibrate<S: See + Default + 'static>(
        &mut self,
        config: &PassConfig,
        watch: impl Fn(&Planned) -> Result<S, PassLayerError>,
    ) -> Result<(Calibration, Vec<S>), PassError<E>> {
        let progress = batches(&mut self.progress, Some(RecipeStage::Calibration));
        calibrate_with(self.model, config, watch, self.calibration.clone(), &mut self.run, progress)
    }

    fn watch(
        &mut self,
        shapes: &[LayerShape],
        watches: &[Option<SharedWatch>],
        stage: Option<RecipeStage>,
        mut then: impl FnMut(),
    ) -> Result<(), PassError<E>> {
        let run = |model: &mut M, batch: B| {
            (self.run)(model, batch)?;
            then();
            Ok(())
        };
        let progress = batches(&mut self.progress, stage);
        run_watched(self.model, shapes, watches, self.calibration.clone(), run, progress)?;
        Ok(())
    }

    fn watch_held_out<S: See + Default + 'static>(
        &mut self,
        shapes: &[LayerShape],
        watches: &[Option<Shared<S>>],
        stage: Option<RecipeStage>,
    ) -> Result<Vec<S>, PassError<E>> {
        let watched: Vec<_> = watches.iter().map(|watch| watch.as_ref().map(Shared::watch)).collect();
        let progress = batches(&mut self.progress, stage);
        run_watched(self.model, shapes, &watched, self.held_out.clone(), &mut self.run, progress)?;
        Ok(watches.iter().map(|watch| watch.as_ref().map_or_else(S::default, Shared::take)).collect())
    }

    fn layers_done(&mut self, done: usize, total: usize) {
        (self.progress)(RecipeProgress { stage: RecipeStage::Layers, done, total: Some(total) });
    }
}

/// Reports batches as those of a stage, if they are one.
fn batches(
    progress: &mut impl FnMut(RecipeProgress),
    stage: Option<RecipeStage>,
) -> impl FnMut(CalibrationProgress) {
    move |CalibrationProgress { done, total }| {
        if let Some(stage) = stage {
            progress(RecipeProgress { stage, done, total });
        }
    }
}
