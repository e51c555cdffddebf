//! Which observer watches a layer's inputs.

use core::fmt;

use qcore::{
    EntropyObserver, HistogramObserver, Kind, MinMaxObserver, MovingAverageObserver, MseObserver, Observer,
    PercentileObserver, Scheme, SettingError,
};

/// An observer of qcore, or one that the caller wrote.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum ObserverChoice {
    /// [`MinMaxObserver`]: the range covers every value that was seen.
    #[default]
    MinMax,
    /// [`MovingAverageObserver`] with this averaging constant.
    MovingAverage(f32),
    /// [`PercentileObserver`] with this percentile, of magnitudes if the scheme is symmetric. Use
    /// it where large values are rare in every channel. It destroys a channel that is large in
    /// every row ([`Warning::OutlierInput`](crate::Warning::OutlierInput)).
    Percentile(f64),
    /// [`HistogramObserver`] with 2048 bins.
    Histogram,
    /// [`MseObserver`] for the scheme of the activations.
    Mse,
    /// [`EntropyObserver`] for the codes of the activations.
    Entropy,
    /// The observer that this function makes for the scheme of the activations.
    Custom(fn(&Scheme) -> Box<dyn Observer + Send>),
}

impl fmt::Display for ObserverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObserverChoice::MinMax => f.write_str("min-max"),
            ObserverChoice::MovingAverage(constant) => write!(f, "moving average {constant}"),
            ObserverChoice::Percentile(p) => write!(f, "percentile {p}"),
            ObserverChoice::Histogram => f.write_str("histogram"),
            ObserverChoice::Mse => f.write_str("least squares"),
            ObserverChoice::Entropy => f.write_str("entropy"),
            ObserverChoice::Custom(_) => f.write_str("custom observer"),
        }
    }
}

impl ObserverChoice {
    /// Whether both are the same choice.
    pub(crate) fn is(self, other: Self) -> bool {
        match self {
            ObserverChoice::MovingAverage(a) => matches!(other, ObserverChoice::MovingAverage(b) if a == b),
            ObserverChoice::Percentile(a) => matches!(other, ObserverChoice::Percentile(b) if a == b),
            ObserverChoice::Custom(a) => {
                matches!(other, ObserverChoice::Custom(b) if core::ptr::fn_addr_eq(a, b))
            }
            ObserverChoice::MinMax => matches!(other, ObserverChoice::MinMax),
            ObserverChoice::Histogram => matches!(other, ObserverChoice::Histogram),
            ObserverChoice::Mse => matches!(other, ObserverChoice::Mse),
            ObserverChoice::Entropy => matches!(other, ObserverChoice::Entropy),
        }
    }

    /// Makes an observer for activations that are quantized by `scheme`.
    ///
    /// # Errors
    /// [`SettingError`] if the averaging constant or the percentile is out of range.
    ///
    /// ```
    /// use qcore::{Range, Scheme};
    /// use qnn::ObserverChoice;
    /// let mut observer = ObserverChoice::Percentile(75.0).observer(&Scheme::activations_u8())?;
    /// observer.observe(&[0.0, 1.0, 2.0, 3.0, 4.0]);
    /// assert_eq!(observer.range()?, Range::new(1.0, 3.0)?);
    /// assert!(ObserverChoice::Percentile(101.0).observer(&Scheme::activations_u8()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observer(self, scheme: &Scheme) -> Result<Box<dyn Observer + Send>, SettingError> {
        const BINS: usize = 2048;
        let symmetric = matches!(scheme.kind, Kind::Symmetric { .. });
        Ok(match self {
            ObserverChoice::MinMax => Box::new(MinMaxObserver::default()),
            ObserverChoice::MovingAverage(constant) => Box::new(MovingAverageObserver::new(constant)?),
            ObserverChoice::Percentile(p) if symmetric => Box::new(PercentileObserver::symmetric(p)?),
            ObserverChoice::Percentile(p) => Box::new(PercentileObserver::new(p)?),
            ObserverChoice::Histogram => {
                Box::new(HistogramObserver::new(BINS, scheme.codes.steps().unsigned_abs() + 1)?)
            }
            ObserverChoice::Mse => Box::new(MseObserver::new(*scheme)),
            ObserverChoice::Entropy => Box::new(EntropyObserver::new(scheme.codes)),
            ObserverChoice::Custom(observer) => observer(scheme),
        })
    }
}
