//! Warnings about what a good SQNR may hide: noise below a large mean, and one input channel that
//! takes the whole range.

use core::fmt;

use qcore::SqnrAboutMean;

use crate::config::form::Form;

/// Something bad about a layer that its SQNR does not show. Healthy models have no warnings.
/// `Display` names the remedy.
///
/// The first two have the same cause: numbers that are the same in every row use up the codes, and
/// the differences between rows drown in noise.
///
/// ```
/// use qkernels::MatRef;
/// use qnn::{FloatLinear, FloatMlp, Mlp, PassConfig, Warning, quantize_model};
/// let layer = FloatLinear::new("fc1", 1, 2, vec![0.5, 1.0], vec![0.0])?;
/// let mut model = Mlp::from(FloatMlp::new(vec![layer])?);
/// let x = [1000.0, 1.0, 1000.0, -1.0, 1000.0, 0.5]; // the first channel is always 1000
/// let report = quantize_model(&mut model, &PassConfig::default(), [MatRef::new(&x, 3, 2)?], Mlp::run_batch, |_| {})?;
/// assert!(report.layers[0].sqnr_db.unwrap() > 40.0);
/// assert!(report.warnings.iter().any(|w| matches!(w, Warning::OutlierInput { channel: 0, .. })));
/// assert!(report.warnings.iter().any(|w| matches!(w, Warning::MeanHidesNoise { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Most of the output's power is in the means of its channels. Without the means, the SQNR is
    /// lower by 10 dB or more and below 20 dB, so the noise is at least a tenth of the differences
    /// between rows.
    MeanHidesNoise {
        /// The layer.
        layer: String,
        /// The form that it was measured in.
        form: Form,
        /// SQNR of the output as it is.
        sqnr_db: f64,
        /// SQNR of the output about each channel's mean.
        sqnr_about_mean_db: f64,
    },
    /// One channel of the layer's input reaches at least eight times as far as all others, so the
    /// others share at most an eighth of the codes.
    OutlierInput {
        /// The layer.
        layer: String,
        /// The channel (0 to k - 1).
        channel: usize,
        /// Its largest magnitude.
        largest: f32,
        /// The largest magnitude of all others.
        others: f32,
    },
    /// An output is NaN or infinite, in f32 or in the layer's form, so that no ratio measures
    /// it.
    NonFiniteOutput {
        /// The layer.
        layer: String,
        /// The form that it was measured in.
        form: Form,
    },
}

/// From this difference in dB on, the two ratios are far apart.
const FAR_APART_DB: f64 = 10.0;

/// From this difference in dB on, the rows differ by no more than the roundings of f32, so nothing
/// is hidden.
const NO_SIGNAL_DB: f64 = 120.0;

/// An SQNR about the mean that is good enough, whatever the mean adds.
const GOOD_DB: f64 = 20.0;

/// A channel is an outlier if it reaches this many times as far as all others. Three of eight bits
/// are lost then.
const OUTLIER: f32 = 8.0;

impl Warning {
    /// A warning if the two ratios of a layer's output are far apart, or not numbers.
    pub(crate) fn of_means(
        layer: &str,
        form: Form,
        sqnr_db: f64,
        sqnr_about_mean_db: Option<f64>,
    ) -> Option<Self> {
        let sqnr_about_mean_db = sqnr_about_mean_db?;
        if sqnr_about_mean_db.is_nan() {
            return Some(Warning::NonFiniteOutput { layer: layer.to_owned(), form });
        }
        let hidden = (FAR_APART_DB..NO_SIGNAL_DB).contains(&(sqnr_db - sqnr_about_mean_db));
        (hidden && sqnr_about_mean_db < GOOD_DB).then(|| Warning::MeanHidesNoise {
            layer: layer.to_owned(),
            form,
            sqnr_db,
            sqnr_about_mean_db,
        })
    }

    pub(crate) fn of_output(layer: &str, form: Form, sqnr: &SqnrAboutMean) -> Option<Self> {
        Self::of_means(layer, form, sqnr.sqnr_db(), sqnr.db())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::MeanHidesNoise { layer, sqnr_db, sqnr_about_mean_db, .. } => write!(
                f,
                "{layer}: most of the output is the same in every row; what differs has an SQNR of \
                 {sqnr_about_mean_db:.2} dB instead of {sqnr_db:.2} dB"
            )?,
            Warning::OutlierInput { layer, channel, largest, others } => write!(
                f,
                "{layer}: input channel {channel} takes most of the range: it reaches {largest}, all others {others}"
            )?,
            Warning::NonFiniteOutput { layer, form } => {
                return write!(
                    f,
                    "{layer}: outputs are not finite, in f32 or as a {form} layer; bring its weights and \
                     inputs into the range of f32"
                );
            }
        }
        let keep = match self {
            Warning::MeanHidesNoise { form: Form::WeightOnly, .. } => "f32",
            _ => "weight-only or f32",
        };
        write!(
            f,
            "; keep this layer in {keep}, or smooth its input channel by channel, which moves range into the weights"
        )
    }
}

/// The largest magnitude of each channel of a layer's input.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChannelPeaks {
    peaks: Vec<f32>,
    rows: usize,
}

impl ChannelPeaks {
    /// Takes in rows of k values.
    pub(crate) fn add(&mut self, rows: &[f32], k: usize) {
        if rows.is_empty() {
            return;
        }
        self.peaks.resize(k, 0.0);
        for row in rows.chunks_exact(k) {
            self.peaks.iter_mut().zip(row).for_each(|(peak, v)| *peak = peak.max(v.abs()));
            self.rows += 1;
        }
    }

    /// A warning if one channel reaches much further than all others. A single row does not count:
    /// it has large values, but not in every row.
    pub(crate) fn warning(&self, layer: &str) -> Option<Warning> {
        let (mut channel, mut largest, mut others) = (0, 0.0, 0.0_f32);
        for (at, &peak) in self.peaks.iter().enumerate() {
            if peak > largest {
                (channel, largest, others) = (at, peak, largest);
            } else {
                others = others.max(peak);
            }
        }
        (self.rows > 1 && others > 0.0 && largest >= OUTLIER * others).then(|| Warning::OutlierInput {
            layer: layer.to_owned(),
            channel,
            largest,
            others,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_is_a_channel_beyond_all_others() {
        let found = |rows: &[f32], k| {
            let mut peaks = ChannelPeaks::default();
            rows.chunks(k).for_each(|row| peaks.add(row, k));
            peaks.warning("fc1").map(|warning| match warning {
                Warning::OutlierInput { channel, largest, others, .. } => (channel, largest, others),
                other => panic!("{other}"),
            })
        };
        assert_eq!(found(&[1.0, -8.0, 0.5, 0.5, 1.0, 1.0], 3), Some((1, 8.0, 1.0)));
        assert_eq!(found(&[-16.0, 2.0, 1.0, -2.0, 1.0, 1.0], 3), Some((0, 16.0, 2.0)));
        assert_eq!(found(&[1.0, 2.0, 16.0, 0.0, 1.0, 1.0], 3), Some((2, 16.0, 2.0)));
        assert_eq!(found(&[1.0, 7.9, 0.5, 0.5, 1.0, 1.0], 3), None);
        assert_eq!(found(&[1.0, 9.0, 9.0, 0.5, 1.0, 1.0], 3), None, "two");
        assert_eq!(found(&[1.0, 9.0, 0.5], 3), None, "one row");
        assert_eq!(found(&[0.0, 9.0, 0.0, 0.0, 9.0, 0.0], 3), None, "nothing else");
        assert_eq!((found(&[1.0, 9.0], 1), found(&[], 3)), (None, None));
    }

    #[test]
    fn ratios_are_far_apart_where_what_differs_is_bad() {
        let is = |sqnr, about_mean| Warning::of_means("fc1", Form::Static, sqnr, Some(about_mean)).is_some();
        assert!(is(34.7, 0.6) && is(34.2, 0.0) && is(20.0, -5.0));
        assert!(!is(34.7, 25.0) && !is(60.0, 43.3) && !is(f64::INFINITY, f64::INFINITY));
        assert_eq!(Warning::of_means("fc1", Form::Static, 40.0, None), None);
        assert!(!is(40.0, f64::NEG_INFINITY) && !is(40.0, -90.0));
        let not_finite = Warning::of_means("fc1", Form::Static, 40.0, Some(f64::NAN));
        assert!(matches!(not_finite, Some(Warning::NonFiniteOutput { form: Form::Static, .. })));
    }
}
