//! What a recipe sees of the inputs of each layer.

use std::collections::BTreeMap;

use qcore::Observer;

use crate::accuracy::channels::ChannelStats;
use crate::layer::watch::{Sample, See, Watch};
use crate::pass::plan::Planned;

/// What was seen of a layer's inputs in calibration.
#[derive(Default)]
pub(crate) struct Profile {
    pub(crate) watch: Watch,
    pub(crate) channels: ChannelStats,
    /// A digest of every value, batch after batch.
    digest: u64,
}

impl Profile {
    pub(crate) fn new(observers: Vec<Box<dyn Observer + Send>>, most_rows: usize) -> Self {
        Self { watch: Watch::new(observers, most_rows), ..Self::default() }
    }
}

impl See for Profile {
    fn see(&mut self, batch: &[f32], k: usize) {
        self.watch.see(batch, k);
        batch.chunks_exact(k).for_each(|row| self.channels.add(row));
        // FNV-1a, a word at a time, with the length so that batches have ends.
        let words = batch.iter().map(|v| u64::from(v.to_bits())).chain([batch.len() as u64]);
        self.digest = words.fold(self.digest, |digest, word| (digest ^ word).wrapping_mul(0x100_0000_01b3));
    }
}

/// The layers that were shown exactly the same values, in the order of the first of each. Layers
/// that did not run are in no group: what becomes of them is for the pass to say.
pub(crate) fn sharing(planned: &[Planned], profiles: &[Profile]) -> Vec<Vec<usize>> {
    let (mut groups, mut known) = (Vec::<Vec<usize>>::new(), BTreeMap::new());
    for (at, (planned, profile)) in planned.iter().zip(profiles).enumerate() {
        if planned.watch.rows > 0 {
            let group = *known.entry((planned.shape.k, profile.digest)).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(group) => group.push(at),
                None => groups.push(vec![at]),
            }
        }
    }
    groups
}

/// Rows that are kept of a layer's inputs, and nothing else.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) sample: Sample,
    /// The finite rows that were seen.
    pub(crate) rows: u64,
}

impl Kept {
    pub(crate) fn new(most_rows: usize) -> Self {
        Self { sample: Sample::new(most_rows), rows: 0 }
    }
}

impl See for Kept {
    fn see(&mut self, batch: &[f32], k: usize) {
        for row in batch.chunks_exact(k) {
            self.sample.offer(row);
            self.rows += u64::from(row.iter().all(|v| v.is_finite()));
        }
    }
}

/// What is seen of a layer's inputs while the layers before it are quantized.
#[derive(Default)]
pub(crate) struct Behind {
    /// The finite rows since they were taken last.
    pub(crate) rows: Vec<f32>,
    pub(crate) channels: ChannelStats,
    pub(crate) sample: Sample,
}

impl Behind {
    pub(crate) fn new(most_rows: usize) -> Self {
        Self { sample: Sample::new(most_rows), ..Self::default() }
    }
}

impl See for Behind {
    fn see(&mut self, batch: &[f32], k: usize) {
        for row in batch.chunks_exact(k) {
            self.channels.add(row);
            self.sample.offer(row);
            if row.iter().all(|v| v.is_finite()) {
                self.rows.extend_from_slice(row);
            }
        }
    }
}

/// Observers of inputs that are divided by scales.
#[derive(Default)]
pub(crate) struct Divided {
    pub(crate) observers: Vec<Box<dyn Observer + Send>>,
    pub(crate) scales: Vec<f32>,
}

impl See for Divided {
    fn see(&mut self, batch: &[f32], _k: usize) {
        let values = divided(batch, &self.scales);
        self.observers.iter_mut().for_each(|observer| observer.observe(&values));
    }
}

/// Rows with each value divided by the scale of its channel.
pub(crate) fn divided(rows: &[f32], scales: &[f32]) -> Vec<f32> {
    rows.chunks_exact(scales.len().max(1))
        .flat_map(|row| row.iter().zip(scales).map(|(x, s)| x / s))
        .collect()
}
