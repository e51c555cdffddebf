//! What calibration sees of a layer. While batches run through the model, an observer looks at the
//! layer's inputs, and some of them are kept.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qcore::Observer;
use qkernels::MatRef;

use super::forward_error::ForwardError;
use super::rows::gather;

/// Something that looks at a layer's inputs.
pub(crate) trait See: Send {
    /// Takes in a batch of rows of k values, all at once because some observers count batches. A
    /// batch has a value.
    fn see(&mut self, batch: &[f32], k: usize);
}

/// What a layer and its clones show their inputs to.
#[derive(Clone)]
pub(crate) struct SharedWatch(Arc<Mutex<dyn See>>);

/// What layers have shown their inputs to. Threads share what is seen.
pub(crate) struct Shared<S>(Arc<Mutex<S>>);

/// What was seen of a layer's inputs.
#[derive(Default)]
pub(crate) struct Watch {
    /// One for each kind of range that is asked for.
    pub(crate) observers: Vec<Box<dyn Observer + Send>>,
    pub(crate) sample: Sample,
    /// Rows seen.
    pub(crate) rows: u64,
}

impl Watch {
    pub(crate) fn new(observers: Vec<Box<dyn Observer + Send>>, most_rows: usize) -> Self {
        Self { observers, sample: Sample::new(most_rows), rows: 0 }
    }
}

impl See for Watch {
    fn see(&mut self, batch: &[f32], k: usize) {
        self.observers.iter_mut().for_each(|observer| observer.observe(batch));
        for row in batch.chunks_exact(k) {
            self.sample.offer(row);
            self.rows += 1;
        }
    }
}

impl SharedWatch {
    /// Shows the watch a batch (any, k), all of its rows at once. A batch without values does not
    /// count.
    pub(crate) fn see(&self, x: &MatRef<'_, f32>) -> Result<(), ForwardError> {
        let mut batch = Vec::new();
        let batch = gather(x, &mut batch)?;
        if !batch.is_empty() {
            lock(&self.0).see(batch, x.cols());
        }
        Ok(())
    }
}

impl<S: See + 'static> Shared<S> {
    pub(crate) fn new(sees: S) -> Self {
        Self(Arc::new(Mutex::new(sees)))
    }

    /// What a layer is given.
    pub(crate) fn watch(&self) -> SharedWatch {
        SharedWatch(self.0.clone())
    }

    /// What `work` gives of what was seen so far.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut S) -> R) -> R {
        work(&mut lock(&self.0))
    }

    /// Takes what was seen. Nothing is left behind, so clones of the layer keep no memory.
    pub(crate) fn take(&self) -> S
    where
        S: Default,
    {
        core::mem::take(&mut *lock(&self.0))
    }
}

/// If an observer panicked, it lost one batch at most.
fn lock<S: ?Sized>(shared: &Mutex<S>) -> MutexGuard<'_, S> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for SharedWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWatch").finish_non_exhaustive()
    }
}

/// A limited number of rows, spread evenly over all that were offered. Every `step`-th row is kept.
/// When there are too many, every second one is dropped and `step` doubles. The same rows give the
/// same sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    most: usize,
    step: u64,
    offered: u64,
    rows: Vec<Vec<f32>>,
}

impl Sample {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, step: 1, ..Self::default() }
    }

    /// Keeps the row if it is its turn. Rows with values that are not finite are never kept,
    /// because no figure can use them.
    pub(crate) fn offer(&mut self, row: &[f32]) {
        let turn = self.offered.is_multiple_of(self.step.max(1));
        self.offered += 1;
        if self.most == 0 || !turn || row.iter().any(|v| !v.is_finite()) {
            return;
        }
        if self.rows.len() == self.most {
            let mut index = 0;
            self.rows.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.step *= 2;
            if !(self.offered - 1).is_multiple_of(self.step) {
                return;
            }
        }
        self.rows.push(row.to_vec());
    }

    /// The rows, one after the other, and their number.
    pub(crate) fn concat(&self) -> (Vec<f32>, usize) {
        (self.rows.concat(), self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_spreads_over_all_rows() {
        for (offered, most) in [(0, 4), (3, 4), (4, 4), (5, 4), (1000, 8), (1000, 0), (7, 1)] {
            let mut sample = Sample::new(most);
            (0..offered).for_each(|i| sample.offer(&[i as f32]));
            let (rows, count) = sample.concat();
            assert_eq!(rows.len(), count);
            assert!(count <= most && count >= most.min(offered) / 2, "{count} of {offered}, at most {most}");
            let step = sample.step as f32;
            assert!(rows.iter().enumerate().all(|(i, &row)| row == i as f32 * step), "{rows:?}");
        }
    }
}
