//! The signal-to-quantization-noise ratio, computed batch by batch: of a signal as it is, and of
//! its deviations from the mean.

use super::error::{MetricsError, check_lengths, check_rows};

/// The signal-to-quantization-noise ratio of pairs that arrive in batches. [`sqnr_db`] and
/// [`ErrorMetrics::sqnr_db`](crate::ErrorMetrics::sqnr_db) are defined by it. Differences are
/// computed in f64. Batches give the same bits as all pairs at once.
///
/// ```
/// use qcore::Sqnr;
///
/// let mut sqnr = Sqnr::default();
/// sqnr.add(&[3.0], &[3.0])?;
/// sqnr.add(&[4.0], &[4.5])?;
/// assert_eq!(sqnr.db(), 20.0);
/// # Ok::<(), qcore::MetricsError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sqnr {
    signal: f64,
    noise: f64,
    pairs: u64,
}

impl Sqnr {
    /// Adds reference values and the values that replace them. There may be none.
    ///
    /// # Errors
    /// When the lengths differ. Nothing is added then.
    ///
    /// ```
    /// assert!(qcore::Sqnr::default().add(&[1.0], &[]).is_err());
    /// ```
    pub fn add(&mut self, reference: &[f32], other: &[f32]) -> Result<(), MetricsError> {
        check_lengths(reference.len(), other.len())?;
        for (&reference, &other) in reference.iter().zip(other) {
            let reference = f64::from(reference);
            self.add_pair(reference, reference - f64::from(other));
        }
        Ok(())
    }

    /// Adds a value and its error.
    pub(crate) fn add_pair(&mut self, value: f64, error: f64) {
        self.signal += value * value;
        self.noise += error * error;
        self.pairs += 1;
    }

    /// `10 * log10(mean(reference^2) / mean((reference - other)^2))`: +inf without noise, -inf
    /// without signal. NaN if a value was NaN, if both values of a pair were infinite, or if there
    /// were no pairs.
    ///
    /// ```
    /// assert!(qcore::Sqnr::default().db().is_nan());
    /// ```
    pub fn db(&self) -> f64 {
        self.above(0.0)
    }

    /// [`db`](Self::db) with `epsilon` added to the noise power.
    pub(crate) fn above(&self, epsilon: f64) -> f64 {
        let pairs = self.pairs as f64;
        decibels(self.signal / pairs, self.noise / pairs + epsilon)
    }

    /// `sum reference^2`.
    pub(crate) fn signal(&self) -> f64 {
        self.signal
    }

    /// `mean((reference - other)^2)`.
    pub(crate) fn noise_power(&self) -> f64 {
        self.noise / self.pairs as f64
    }
}

/// [`Sqnr`] of rows of channels, and also the ratio of each channel's deviations from its mean.
///
/// ```text
/// 10 * log10(sum (f - mean_j(f))^2 / sum (e - mean_j(e))^2)      e = f - q; mean_j: over all rows of channel j
/// ```
///
/// A large constant in a channel counts as signal power. It can make the ratio look good although
/// the noise drowns everything that tells one row from another. Subtracting the mean of the
/// reference and of the restored values shows this. It also removes an error that is the same in
/// every row. Such an error is part of [`sqnr_db`](Self::sqnr_db), and a corrected bias removes it
/// from a layer.
///
/// Means and deviations are updated row by row (Welford), so a large mean costs no digits. 16 bytes
/// are kept for each channel. The figure depends on the order of the rows in its last bits only,
/// and not at all on how the rows are cut into batches.
///
/// ```
/// use qcore::SqnrAboutMean;
///
/// let mut sqnr = SqnrAboutMean::new(1); // one channel: 1000, give or take 1, restored as 1000
/// sqnr.add(&[999.0, 1001.0], &[1000.0, 1000.0])?;
/// assert!(sqnr.sqnr_db() > 59.9);
/// assert_eq!(sqnr.db(), Some(0.0));
/// # Ok::<(), qcore::MetricsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SqnrAboutMean {
    channels: usize,
    rows: u64,
    /// The deviations of the reference, and of its error.
    signal: Deviation,
    noise: Deviation,
    sqnr: Sqnr,
}

/// The squared deviations from each channel's mean, summed over all channels.
#[derive(Clone, Debug, Default, PartialEq)]
struct Deviation {
    /// The mean of each channel; empty before the first row.
    means: Vec<f64>,
    sum: f64,
}

impl Deviation {
    /// Adds the value of a channel in row `row`, counted from 1.
    fn add(&mut self, channel: usize, value: f64, row: f64) {
        let mean = &mut self.means[channel];
        let before = value - *mean;
        *mean += before / row;
        self.sum += before * (value - *mean);
    }
}

impl SqnrAboutMean {
    /// A ratio for rows of this many channels. Nothing is allocated before the first row.
    ///
    /// ```
    /// assert_eq!(qcore::SqnrAboutMean::new(usize::MAX).db(), None);
    /// ```
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            rows: 0,
            signal: Deviation::default(),
            noise: Deviation::default(),
            sqnr: Sqnr::default(),
        }
    }

    /// Adds rows of a reference and of the values that replace them, stored row-major. There may be
    /// no rows.
    ///
    /// # Errors
    /// When the lengths differ or are not a whole number of rows. Nothing is added then.
    ///
    /// ```
    /// assert!(qcore::SqnrAboutMean::new(2).add(&[1.0; 3], &[1.0; 3]).is_err());
    /// ```
    pub fn add(&mut self, reference: &[f32], other: &[f32]) -> Result<(), MetricsError> {
        check_lengths(reference.len(), other.len())?;
        check_rows(reference.len(), self.channels)?;
        if reference.is_empty() {
            return Ok(());
        }
        self.sqnr.add(reference, other)?;
        self.signal.means.resize(self.channels, 0.0);
        self.noise.means.resize(self.channels, 0.0);
        let rows = reference.chunks_exact(self.channels).zip(other.chunks_exact(self.channels));
        for (reference, other) in rows {
            self.rows += 1;
            let row = self.rows as f64;
            for (channel, (&reference, &other)) in reference.iter().zip(other).enumerate() {
                let reference = f64::from(reference);
                self.signal.add(channel, reference, row);
                self.noise.add(channel, reference - f64::from(other), row);
            }
        }
        Ok(())
    }

    /// The ratio about the means, in dB. +inf without noise, -inf if there is noise but no channel
    /// ever leaves its mean, NaN if a value was NaN or infinite. `None` with fewer than two rows,
    /// which do not vary.
    ///
    /// ```
    /// let mut sqnr = qcore::SqnrAboutMean::new(1);
    /// sqnr.add(&[1.0], &[1.5])?;
    /// assert_eq!(sqnr.db(), None);
    /// sqnr.add(&[1.0], &[1.0])?;
    /// assert_eq!(sqnr.db(), Some(f64::NEG_INFINITY));
    /// # Ok::<(), qcore::MetricsError>(())
    /// ```
    pub fn db(&self) -> Option<f64> {
        // Without noise, a NaN in the signal would not show.
        let nan = if self.signal.sum.is_nan() { f64::NAN } else { 0.0 };
        (self.rows > 1).then(|| decibels(self.signal.sum, self.noise.sum) + nan)
    }

    /// The ratio of the signal as it is: [`Sqnr::db`].
    ///
    /// ```
    /// let mut sqnr = qcore::SqnrAboutMean::new(2);
    /// sqnr.add(&[3.0, 4.0], &[3.0, 4.5])?;
    /// assert_eq!(sqnr.sqnr_db(), 20.0);
    /// # Ok::<(), qcore::MetricsError>(())
    /// ```
    pub fn sqnr_db(&self) -> f64 {
        self.sqnr.db()
    }
}

/// `10 * log10(mean(reference^2) / mean((reference - other)^2))` in f64. +inf if the slices are
/// equal, -inf if the reference is 0 and `other` is not. [`Sqnr`] computes the same batch by batch.
///
/// # Errors
/// When the lengths differ or there are no values.
///
/// ```
/// assert_eq!(qcore::sqnr_db(&[3.0, 4.0], &[3.0, 4.5])?, 20.0);
/// # Ok::<(), qcore::MetricsError>(())
/// ```
pub fn sqnr_db(reference: &[f32], other: &[f32]) -> Result<f64, MetricsError> {
    let mut sqnr = Sqnr::default();
    sqnr.add(reference, other)?;
    if reference.is_empty() { Err(MetricsError::Empty) } else { Ok(sqnr.db()) }
}

/// `10 * log10(signal / noise)`. No noise at all is +inf, also without signal.
fn decibels(signal: f64, noise: f64) -> f64 {
    if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::metrics::ErrorMetrics;

    fn waves() -> (Vec<f32>, Vec<f32>) {
        let reference: Vec<f32> = (0..120).map(|i| (i as f32 * 0.7).sin() + 3.0).collect();
        let other = reference.iter().map(|v| (v * 50.0).round() / 50.0).collect();
        (reference, other)
    }

    #[test]
    fn batches_have_the_bits_of_the_whole() {
        let (reference, other) = waves();
        let mut whole = SqnrAboutMean::new(4);
        whole.add(&reference, &other).unwrap();
        for rows in [1, 3, 7, 29] {
            let (mut sqnr, mut about_mean) = (Sqnr::default(), SqnrAboutMean::new(4));
            for (r, o) in reference.chunks(4 * rows).zip(other.chunks(4 * rows)) {
                sqnr.add(r, o).unwrap();
                about_mean.add(r, o).unwrap();
            }
            let expected = sqnr_db(&reference, &other).unwrap();
            assert_eq!((sqnr.db(), about_mean.sqnr_db(), about_mean.db()), (expected, expected, whole.db()));
            assert_eq!(expected, ErrorMetrics::of_in_f64(&reference, &other).unwrap().sqnr_db);
        }
    }

    #[test]
    fn about_the_mean_is_the_formula_whatever_the_mean() {
        for offset in [0.0, 1.0, 1e3, 1e6] {
            let reference: Vec<f32> = (0..300).map(|i| (i as f32 * 0.7).sin() + offset).collect();
            // An error that is the same in every row, and one that is not.
            let other: Vec<f32> =
                reference.iter().enumerate().map(|(i, v)| v + 2.0 + (i % 7) as f32 / 8.0).collect();
            let mut sqnr = SqnrAboutMean::new(3);
            sqnr.add(&reference, &other).unwrap();
            let errors = reference.iter().zip(&other).map(|(&r, &o)| f64::from(r) - f64::from(o));
            let (signal, noise): (Vec<f64>, Vec<f64>) =
                (reference.iter().map(|&v| f64::from(v)).collect(), errors.collect());
            let deviation = |values: &[f64]| -> f64 {
                let of_channel = |j| {
                    let channel = || values.iter().skip(j).step_by(3);
                    let mean = channel().sum::<f64>() / 100.0;
                    channel().map(|v| (v - mean).powi(2)).sum::<f64>()
                };
                (0..3).map(of_channel).sum()
            };
            let expected = 10.0 * (deviation(&signal) / deviation(&noise)).log10();
            let db = sqnr.db().unwrap();
            assert!((db - expected).abs() < 1e-6, "{offset}: {db} instead of {expected}");
        }
    }

    #[test]
    fn an_error_that_is_the_same_in_every_row_counts_for_the_plain_ratio_alone() {
        let mut sqnr = SqnrAboutMean::new(2);
        sqnr.add(&[1.0, 2.0, 3.0, 5.0], &[1.5, 1.0, 3.5, 4.0]).unwrap();
        assert_eq!(sqnr.db(), Some(f64::INFINITY));
        assert!(sqnr.sqnr_db() < 20.0);
    }

    #[test]
    fn extremes_of_the_ratio() {
        let db = |channels, reference: &[f32], other: &[f32]| {
            let mut sqnr = SqnrAboutMean::new(channels);
            sqnr.add(reference, other).unwrap();
            (sqnr.sqnr_db(), sqnr.db().unwrap())
        };
        assert_eq!(db(1, &[1.0, 2.0], &[1.0, 2.0]), (f64::INFINITY, f64::INFINITY));
        assert_eq!(db(1, &[0.0, 0.0], &[1.0, 0.0]), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // This holds even without noise.
            assert!(db(2, &[1.0, bad, 2.0, 3.0], &[1.0, 1.0, 2.0, 3.0]).1.is_nan(), "{bad}");
            assert!(db(2, &[1.0, bad, 2.0, 3.0], &[1.0, bad, 2.0, 3.0]).1.is_nan(), "{bad}");
        }
        assert!(db(1, &[1.0, 2.0], &[1.0, f32::NAN]).1.is_nan());
        assert!(db(1, &[1.0, 2.0], &[1.0, f32::INFINITY]).1.is_nan());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors_and_take_nothing_in() {
        let mut sqnr = SqnrAboutMean::new(0);
        assert_eq!(sqnr.add(&[1.0], &[1.0]), Err(MetricsError::Rows { len: 1, row_len: 0 }));
        let mut sqnr = SqnrAboutMean::new(usize::MAX);
        assert_eq!(sqnr.add(&[1.0], &[1.0]), Err(MetricsError::Rows { len: 1, row_len: usize::MAX }));
        assert_eq!(sqnr.add(&[], &[]), Ok(()));
        assert_eq!(sqnr, SqnrAboutMean::new(usize::MAX));
    }
}
