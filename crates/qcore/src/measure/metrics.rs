//! How far restored values are from the originals.

use half::f16;

use super::error::{MetricsError, check_lengths};
use super::sqnr::Sqnr;
use crate::tensor::ChannelAxis;

/// Values above this share of the largest magnitude are significant, by the rule of rotalabs_accel.
const SIGNIFICANT: f64 = 0.1;

/// The smallest magnitude that a mean relative error divides by, as in the PyTorch tutorial.
const RELATIVE_FLOOR: f64 = 1e-6;

/// [`ErrorMetrics::snr_db_eps`] adds this to the noise power, as rotalabs_accel does.
const NOISE_EPSILON: f64 = 1e-10;

/// Figures about the differences `d = original - restored` of two slices, summed in f64.
///
/// A difference is computed in the type of the slices (f32, or rounded to f16) and then widened.
/// NaN in either slice makes every figure NaN.
///
/// ```
/// use qcore::ErrorMetrics;
///
/// let metrics = ErrorMetrics::of(&[1.0, -4.0], &[1.5, -4.0])?;
/// assert_eq!((metrics.max_abs_error, metrics.mean_abs_error), (0.5, 0.25));
/// assert_eq!((metrics.relative_error_pct, metrics.mean_relative_error_pct), (50.0, 25.0));
/// assert_eq!(metrics.mean_squared_error, 0.125);
/// assert_eq!(metrics.sqnr_db, 10.0 * (8.5_f64 / 0.125).log10());
/// # Ok::<(), qcore::MetricsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ErrorMetrics {
    /// `max |d|`.
    pub max_abs_error: f64,
    /// `mean |d|`.
    pub mean_abs_error: f64,
    /// `mean(d^2)`, which the MSE and histogram observers minimize.
    pub mean_squared_error: f64,
    /// `100 * max(|d| / |x|)` over the significant values, `|x| > 0.1 * max|x|`; 0 if there are
    /// none. A percentage, as in rotalabs_accel.
    pub relative_error_pct: f64,
    /// `100 * mean(|d| / max(|x|, 1e-6))`. A percentage, as in the PyTorch tutorial. It is large if
    /// values are near 0.
    pub mean_relative_error_pct: f64,
    /// `10 * log10(mean(x^2) / mean(d^2))`: the signal-to-quantization-noise ratio in dB. +inf
    /// without noise, -inf without signal.
    pub sqnr_db: f64,
    /// `10 * log10(mean(x^2) / (mean(d^2) + 1e-10))`: the form of rotalabs_accel, which is finite
    /// without noise. It is much too low if the noise power is near 1e-10, as it is for small
    /// values. -inf without signal.
    pub snr_db_eps: f64,
    /// `sum(x * r) / sqrt(sum(x^2) * sum(r^2))` with `r = x - d`. It is 1 if the restored values
    /// point in the same direction, whatever their length. 1 if both are all 0, 0 if one is.
    pub cosine_similarity: f64,
}

impl ErrorMetrics {
    /// The figures of two f32 slices, with differences in f32.
    ///
    /// # Errors
    /// When the lengths differ or there are no values.
    ///
    /// ```
    /// use qcore::ErrorMetrics;
    ///
    /// assert_eq!(ErrorMetrics::of(&[16_777_216.0], &[0.25])?.max_abs_error, 16_777_216.0); // rounded to f32
    /// # Ok::<(), qcore::MetricsError>(())
    /// ```
    pub fn of(original: &[f32], restored: &[f32]) -> Result<ErrorMetrics, MetricsError> {
        accumulate(original, restored, |x, r| (f64::from(x), f64::from(x - r)))
    }

    /// The figures of two f16 slices, with differences rounded to f16.
    ///
    /// # Errors
    /// When the lengths differ or there are no values.
    ///
    /// ```
    /// use half::f16;
    /// use qcore::ErrorMetrics;
    ///
    /// let metrics = ErrorMetrics::of_f16(&[f16::from_f32(2048.0)], &[f16::from_f32(0.25)])?;
    /// assert_eq!(metrics.max_abs_error, 2048.0); // rounded to f16
    /// # Ok::<(), qcore::MetricsError>(())
    /// ```
    pub fn of_f16(original: &[f16], restored: &[f16]) -> Result<ErrorMetrics, MetricsError> {
        // f32 holds the difference of two f16 values to more than twice the digits of f16, so
        // rounding it again changes nothing.
        accumulate(original, restored, |x, r| (x.to_f64(), f16::from_f32(x.to_f32() - r.to_f32()).to_f64()))
    }

    /// The figures of each channel of two f32 tensors, with differences in f32.
    ///
    /// # Errors
    /// When a length is not what the axis says, or a channel has no values.
    ///
    /// ```
    /// use qcore::{ChannelAxis, ErrorMetrics};
    ///
    /// let rows = ChannelAxis::new(&[2, 2], 0)?;
    /// let metrics = ErrorMetrics::per_channel(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.5, 4.0], rows)?;
    /// assert_eq!([metrics[0].max_abs_error, metrics[1].max_abs_error], [0.0, 0.5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn per_channel(
        original: &[f32],
        restored: &[f32],
        axis: ChannelAxis,
    ) -> Result<Vec<ErrorMetrics>, MetricsError> {
        for given in [original.len(), restored.len()] {
            if given != axis.len() {
                return Err(MetricsError::Length { original: axis.len(), restored: given });
            }
        }
        let of_channel = |channel| {
            let gather =
                |x: &[f32]| -> Vec<f32> { axis.channel_runs(x, channel).flatten().copied().collect() };
            ErrorMetrics::of(&gather(original), &gather(restored))
        };
        (0..axis.channels()).map(of_channel).collect()
    }

    /// The figures of two f32 slices, with differences in f64, where they are exact or nearly so.
    ///
    /// # Errors
    /// When the lengths differ or there are no values.
    ///
    /// ```
    /// use qcore::ErrorMetrics;
    ///
    /// assert_eq!(ErrorMetrics::of_in_f64(&[16_777_216.0], &[0.25])?.max_abs_error, 16_777_215.75);
    /// # Ok::<(), qcore::MetricsError>(())
    /// ```
    pub fn of_in_f64(original: &[f32], restored: &[f32]) -> Result<ErrorMetrics, MetricsError> {
        accumulate(original, restored, |x, r| (f64::from(x), f64::from(x) - f64::from(r)))
    }
}

/// Computes all figures. `widen` returns the original and the difference of a pair.
fn accumulate<T: Copy>(
    original: &[T],
    restored: &[T],
    widen: impl Fn(T, T) -> (f64, f64),
) -> Result<ErrorMetrics, MetricsError> {
    check_lengths(original.len(), restored.len())?;
    if original.is_empty() {
        return Err(MetricsError::Empty);
    }
    let pairs = || original.iter().zip(restored).map(|(&x, &r)| widen(x, r));
    // Significance depends on the largest magnitude, so there are two passes over the slices.
    let threshold = SIGNIFICANT * pairs().fold(0.0, |max: f64, (x, _)| max.max(x.abs()));
    let (mut max_abs, mut sum_abs, mut relative, mut sum_relative) = (0.0_f64, 0.0, 0.0_f64, 0.0);
    let (mut sqnr, mut product, mut power) = (Sqnr::default(), 0.0, 0.0);
    for (x, d) in pairs() {
        let (magnitude, error) = (x.abs(), d.abs());
        max_abs = max_abs.max(error);
        sum_abs += error;
        if magnitude > threshold {
            relative = relative.max(error / magnitude);
        }
        sum_relative += error / magnitude.max(RELATIVE_FLOOR);
        sqnr.add_pair(x, d);
        let r = x - d;
        product += x * r;
        power += r * r;
    }
    let n = original.len() as f64;
    // `f64::max` drops NaN, but sums keep it.
    let nan = if sum_abs.is_nan() { f64::NAN } else { 0.0 };
    Ok(ErrorMetrics {
        max_abs_error: max_abs + nan,
        mean_abs_error: sum_abs / n,
        mean_squared_error: sqnr.noise_power(),
        relative_error_pct: 100.0 * relative + nan,
        mean_relative_error_pct: 100.0 * sum_relative / n,
        sqnr_db: sqnr.db() + nan,
        snr_db_eps: sqnr.above(NOISE_EPSILON) + nan,
        cosine_similarity: match (sqnr.signal() == 0.0, power == 0.0) {
            (true, true) => 1.0,
            (false, false) => product / (sqnr.signal().sqrt() * power.sqrt()),
            _ => 0.0,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sqnr::sqnr_db;

    #[test]
    fn refuses_what_cannot_be_compared() {
        assert_eq!(ErrorMetrics::of(&[], &[]), Err(MetricsError::Empty));
        assert_eq!(
            sqnr_db(&[1.0], &[]).unwrap_err().to_string(),
            "the slices compared must be of one length, got 1 and 0"
        );
    }

    #[test]
    fn nothing_hides_nan() {
        for (x, r) in [(f32::NAN, 0.0), (0.0, f32::NAN), (f32::INFINITY, f32::INFINITY)] {
            let m = ErrorMetrics::of(&[1.0, x, 2.0], &[1.0, r, 2.0]).unwrap();
            for figure in [m.max_abs_error, m.mean_abs_error, m.relative_error_pct, m.mean_relative_error_pct]
            {
                assert!(figure.is_nan(), "{m:?}");
            }
            assert!(m.sqnr_db.is_nan() && m.snr_db_eps.is_nan(), "{m:?}");
        }
    }

    #[test]
    fn a_difference_is_taken_in_the_type_of_the_slices() {
        let (x, r) = ([2048.0, 1.0], [0.25, 1.0]);
        assert_eq!(ErrorMetrics::of(&x, &r).unwrap().max_abs_error, 2047.75);
        // Between 1024 and 2048 every f16 is an integer.
        let m = ErrorMetrics::of_f16(&x.map(f16::from_f32), &r.map(f16::from_f32)).unwrap();
        assert_eq!(m.max_abs_error, 2048.0);
        let (x, r) = ([16_777_216.0], [0.25]);
        assert_eq!(ErrorMetrics::of(&x, &r).unwrap().max_abs_error, 16_777_216.0);
        assert_eq!(ErrorMetrics::of_in_f64(&x, &r).unwrap().max_abs_error, 16_777_215.75);
    }

    #[test]
    fn no_noise_and_no_signal() {
        assert_eq!(sqnr_db(&[1.0], &[1.0]), Ok(f64::INFINITY));
        assert_eq!(sqnr_db(&[0.0], &[1.0]), Ok(f64::NEG_INFINITY));
        assert_eq!(sqnr_db(&[0.0], &[0.0]), Ok(f64::INFINITY));
    }

    #[test]
    fn cosines() {
        let cosine = |x: &[f32], r: &[f32]| ErrorMetrics::of(x, r).unwrap().cosine_similarity;
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[3.0], &[-6.0]), -1.0);
        assert_eq!((cosine(&[0.0], &[0.0]), cosine(&[0.0], &[1.0]), cosine(&[1.0], &[0.0])), (1.0, 0.0, 0.0));
        assert!((cosine(&[1e38, 1e-38], &[1e38, 0.0]) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn channels_along_any_axis() {
        let (x, r) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 8.0]);
        let errors = |axis| -> Vec<f64> {
            let axis = ChannelAxis::new(&[3, 2], axis).unwrap();
            ErrorMetrics::per_channel(&x, &r, axis).unwrap().iter().map(|m| m.max_abs_error).collect()
        };
        assert_eq!((errors(0), errors(1)), (vec![0.0, 0.0, 2.0], vec![0.0, 2.0]));
        let rows = ChannelAxis::new(&[3, 2], 0).unwrap();
        assert!(ErrorMetrics::per_channel(&x[1..], &r, rows).is_err());
        let none = ChannelAxis::new(&[3, 0], 0).unwrap();
        assert_eq!(ErrorMetrics::per_channel(&[], &[], none), Err(MetricsError::Empty));
    }
}
