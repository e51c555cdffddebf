//! What calibration sees of a layer. While batches run through the model, an observer looks at the
//! layer's inputs, and some of them are kept.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qcore::Observer;
use qkernels::MatRef;

use super::forward_error::ForwardError;
use super::rows::gather;

/// A [`Watch`] that a layer, its clones and the pass look at. Threads share what is seen.
#[derive(Clone, Default)]
pub(crate) struct SharedWatch(Arc<Mutex<Watch>>);

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
    /// Takes in a batch of rows of k values, all at once because some observers count batches. A
    /// batch without values does not count.
    fn see(&mut self, batch: &[f32], k: usize) {
        if batch.is_empty() {
            return;
        }
        self.observers.iter_mut().for_each(|observer| observer.observe(batch));
        for row in batch.chunks_exact(k) {
            self.sample.offer(row);
            self.rows += 1;
        }
    }
}

impl SharedWatch {
    pub(crate) fn new(observers: Vec<Box<dyn Observer + Send>>, most_rows: usize) -> Self {
        Self(Arc::new(Mutex::new(Watch { observers, sample: Sample::new(most_rows), rows: 0 })))
    }

    /// Shows the watch a batch (any, k), all of its rows at once.
    pub(crate) fn see(&self, x: &MatRef<'_, f32>) -> Result<(), ForwardError> {
        let mut batch = Vec::new();
        self.lock().see(gather(x, &mut batch)?, x.cols());
        Ok(())
    }

    /// Takes what was seen. Nothing is left behind, so clones of the layer keep no memory.
    pub(crate) fn take(&self) -> Watch {
        core::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        // If an observer panicked, it lost one batch at most.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    fn new(most: usize) -> Self {
        Self { most, step: 1, ..Self::default() }
    }

    /// Keeps the row if it is its turn. Rows with values that are not finite are never kept,
    /// because no figure can use them.
    fn offer(&mut self, row: &[f32]) {
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
