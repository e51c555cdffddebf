//! One observer for each channel.

use super::{MergeObserver, Observer};
use crate::tensor::{ChannelAxis, ChannelError};
use crate::value::Range;

/// One observer for each channel of a tensor, along any axis. With
/// [`MinMaxObserver`](crate::MinMaxObserver) it is PyTorch's `PerChannelMinMaxObserver`; with
/// [`MovingAverageObserver`](crate::MovingAverageObserver) it is
/// `MovingAveragePerChannelMinMaxObserver`.
///
/// ```
/// use qcore::{ChannelAxis, MinMaxObserver, PerChannelObserver, Range};
///
/// let mut observer = PerChannelObserver::new(2, MinMaxObserver::default());
/// observer.observe(&[1.0, 10.0, 2.0, 20.0], ChannelAxis::new(&[2, 2], 1)?)?;
/// observer.observe(&[0.0, 15.0], ChannelAxis::new(&[1, 2], 1)?)?; // batches of any size
/// assert_eq!(observer.ranges()?, [Range::new(0.0, 2.0)?, Range::new(10.0, 20.0)?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PerChannelObserver<O> {
    channels: Vec<O>,
    /// The values of one channel of a batch, gathered.
    gathered: Vec<f32>,
}

impl<O: Observer + Clone> PerChannelObserver<O> {
    /// `channels` copies of an observer. All are made now and need memory, so the number should be
    /// that of a tensor that exists.
    ///
    /// ```
    /// use qcore::{MinMaxObserver, PerChannelObserver};
    ///
    /// let observer = PerChannelObserver::new(3, MinMaxObserver::default());
    /// assert_eq!(observer.channels(), [MinMaxObserver::default(); 3]);
    /// ```
    #[must_use]
    pub fn new(channels: usize, observer: O) -> PerChannelObserver<O> {
        PerChannelObserver { channels: vec![observer; channels], gathered: vec![] }
    }
}

impl<O: Observer> PerChannelObserver<O> {
    /// Observes a batch. Its other dimensions may differ from batch to batch. Values that are not
    /// finite are counted and skipped.
    ///
    /// # Errors
    /// When the length of `values` does not match the axis, or the number of channels is not that
    /// of this observer.
    ///
    /// ```
    /// use qcore::{ChannelAxis, MinMaxObserver, PerChannelObserver};
    ///
    /// let mut observer = PerChannelObserver::new(2, MinMaxObserver::default());
    /// assert!(observer.observe(&[1.0, 2.0, 3.0, 4.0], ChannelAxis::new(&[2, 2], 0)?).is_ok());
    /// assert!(observer.observe(&[1.0, 2.0, 3.0], ChannelAxis::new(&[3, 1], 0)?).is_err()); // three channels
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(&mut self, values: &[f32], axis: ChannelAxis) -> Result<(), ChannelError> {
        axis.check_data(values.len())?;
        axis.check_params(self.channels.len())?;
        for (channel, observer) in self.channels.iter_mut().enumerate() {
            // Each observer is called once per batch, along any axis, because a moving average
            // counts calls.
            self.gathered.clear();
            axis.channel_runs(values, channel).for_each(|run| self.gathered.extend_from_slice(run));
            observer.observe(&self.gathered);
        }
        Ok(())
    }

    /// The range of each channel.
    ///
    /// # Errors
    /// When the observer of a channel has no range. The error names the channel.
    ///
    /// ```
    /// use qcore::{ChannelAxis, MinMaxObserver, PerChannelObserver, Range};
    ///
    /// let mut observer = PerChannelObserver::new(2, MinMaxObserver::default());
    /// assert!(observer.ranges().is_err());
    /// observer.observe(&[1.0, 2.0, 3.0, 4.0], ChannelAxis::new(&[2, 2], 0)?)?;
    /// assert_eq!(observer.ranges()?, [Range::new(1.0, 2.0)?, Range::new(3.0, 4.0)?]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ranges(&self) -> Result<Vec<Range>, ChannelError> {
        let named = |(channel, observer): (usize, &O)| {
            observer.range().map_err(|error| ChannelError::Observer { channel, error })
        };
        self.channels.iter().enumerate().map(named).collect()
    }

    /// The observers, one for each channel.
    ///
    /// ```
    /// use qcore::{ChannelAxis, MinMaxObserver, Observer, PerChannelObserver};
    ///
    /// let mut observer = PerChannelObserver::new(2, MinMaxObserver::default());
    /// observer.observe(&[1.0, f32::NAN], ChannelAxis::new(&[2], 0)?)?;
    /// assert_eq!([0, 1].map(|channel| observer.channels()[channel].non_finite()), [0, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn channels(&self) -> &[O] {
        &self.channels
    }
}

impl<O: MergeObserver> PerChannelObserver<O> {
    /// Merges channel by channel with [`MergeObserver::merge`].
    ///
    /// # Errors
    /// When the other has a different number of channels.
    ///
    /// ```
    /// use qcore::{ChannelAxis, MinMaxObserver, PerChannelObserver, Range};
    ///
    /// let axis = ChannelAxis::new(&[2], 0)?;
    /// let mut a = PerChannelObserver::new(2, MinMaxObserver::default());
    /// let mut b = a.clone();
    /// a.observe(&[1.0, 2.0], axis)?;
    /// b.observe(&[3.0, 0.0], axis)?;
    /// assert_eq!(a.merge(b)?.ranges()?, [Range::new(1.0, 3.0)?, Range::new(0.0, 2.0)?]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn merge(self, other: PerChannelObserver<O>) -> Result<PerChannelObserver<O>, ChannelError> {
        if self.channels.len() != other.channels.len() {
            return Err(ChannelError::Params { expected: self.channels.len(), got: other.channels.len() });
        }
        let pairs = self.channels.into_iter().zip(other.channels);
        let channels = pairs.map(|(mine, theirs)| MergeObserver::merge(mine, theirs)).collect();
        Ok(PerChannelObserver { channels, gathered: self.gathered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::{MinMaxObserver, MovingAverageObserver};

    #[test]
    fn any_axis_of_a_tensor_of_rank_four() {
        let shape = [2, 3, 2, 2];
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        for axis in 0..4 {
            let channels = ChannelAxis::new(&shape, axis).unwrap();
            let mut observer = PerChannelObserver::new(shape[axis], MinMaxObserver::default());
            observer.observe(&values, channels).unwrap();
            assert_eq!(observer.ranges().unwrap(), crate::channel_ranges(&values, channels).unwrap());
        }
    }

    #[test]
    fn a_batch_is_one_step_of_a_moving_average() {
        let axis = ChannelAxis::new(&[2, 1], 1).unwrap();
        let mut observer = PerChannelObserver::new(1, MovingAverageObserver::new(0.5).unwrap());
        observer.observe(&[0.0, 4.0], axis).unwrap();
        assert_eq!(observer.ranges().unwrap(), [Range::new(0.0, 4.0).unwrap()]);
    }

    #[test]
    fn merging_goes_channel_by_channel() {
        let rows = ChannelAxis::rows(2, 2).unwrap();
        let observe = |values: [f32; 4]| {
            let mut observer = PerChannelObserver::new(2, MinMaxObserver::default());
            observer.observe(&values, rows).unwrap();
            observer
        };
        let merged = observe([1.0, 2.0, 3.0, 4.0]).merge(observe([0.0, 1.0, 9.0, 5.0])).unwrap();
        assert_eq!(merged.ranges().unwrap(), [Range::new(0.0, 2.0).unwrap(), Range::new(3.0, 9.0).unwrap()]);
        let error = merged.merge(PerChannelObserver::new(3, MinMaxObserver::default())).unwrap_err();
        assert_eq!(error.to_string(), "2 channels need as many parameters, got 3");
    }

    #[test]
    fn errors_name_the_channel() {
        let axis = ChannelAxis::new(&[2], 0).unwrap();
        let mut observer = PerChannelObserver::new(2, MinMaxObserver::default());
        assert!(observer.observe(&[1.0], axis).is_err());
        assert!(PerChannelObserver::new(3, MinMaxObserver::default()).observe(&[1.0, 2.0], axis).is_err());
        observer.observe(&[1.0, f32::NAN], axis).unwrap();
        let error = observer.ranges().unwrap_err();
        assert_eq!(error.to_string(), "channel 1: no finite value was observed (1 that are not finite)");
    }
}
