//! Per-channel quantization along any axis of a tensor of any rank.

use half::f16;

use super::channel_error::{AxisError, ChannelError};
use super::quantize::{
    LengthError, QuantizeError, check_codes, dequantize_run_into, fake_quantize_run, quantize_run,
    quantize_run_from,
};
use crate::code::Code;
use crate::params::{QParams, Scheme};
use crate::value::{Float, Range, RangeError, Scan, first_non_finite};

/// How a row-major tensor splits into channels: the axis that is kept, and the dimensions before
/// and after it.
///
/// Element `(o, c, i)` stands at `(o * channels + c) * inner + i`.
///
/// ```
/// use qcore::{ChannelAxis, Scheme, channel_params, quantize_per_channel};
///
/// let weight = [0.127, -0.1, 12.7, 10.0]; // (out, in) = (2, 2), one channel per output
/// let axis = ChannelAxis::new(&[2, 2], 0)?;
/// let params = channel_params(&weight, axis, &Scheme::weights_i8())?;
/// let mut codes = [0_i8; 4];
/// quantize_per_channel(&weight, axis, &params, &mut codes)?;
/// assert_eq!(codes, [127, -100, 127, 100]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelAxis {
    outer: usize,
    channels: usize,
    inner: usize,
}

impl ChannelAxis {
    /// The channels of a tensor of `shape` along `axis`.
    ///
    /// # Errors
    /// When there is no such axis, or the shape has more elements than `usize` counts.
    ///
    /// ```
    /// let axis = qcore::ChannelAxis::new(&[4, 3, 5, 5], 0)?; // a convolution's weights, per output channel
    /// assert_eq!((axis.outer(), axis.channels(), axis.inner()), (1, 4, 75));
    /// assert!(qcore::ChannelAxis::new(&[4, 3], 2).is_err());
    /// # Ok::<(), qcore::AxisError>(())
    /// ```
    pub fn new(shape: &[usize], axis: usize) -> Result<ChannelAxis, AxisError> {
        let &channels = shape.get(axis).ok_or(AxisError::NoSuchAxis { axis, rank: shape.len() })?;
        let product = |dims: &[usize]| {
            dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).ok_or(AxisError::TooLarge)
        };
        // Checks the whole product first, so that a 0 in one dimension cannot hide an overflow in
        // `len`.
        product(shape)?;
        Ok(ChannelAxis { outer: product(&shape[..axis])?, channels, inner: product(&shape[axis + 1..])? })
    }

    /// One channel for each of `rows` rows of `row_len` values. This is per-token quantization if a
    /// row holds the activations of a token.
    ///
    /// # Errors
    /// When there are more elements than `usize` counts.
    ///
    /// ```
    /// use qcore::{ChannelAxis, Scheme, channel_params, quantize_per_channel};
    ///
    /// let (x, tokens) = ([0.5, 1.27, -127.0, 3.2], ChannelAxis::rows(2, 2)?);
    /// let params = channel_params(&x, tokens, &Scheme::weights_i8())?;
    /// let mut codes = [0_i8; 4];
    /// quantize_per_channel(&x, tokens, &params, &mut codes)?;
    /// assert_eq!(codes, [50, 127, -127, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rows(rows: usize, row_len: usize) -> Result<ChannelAxis, AxisError> {
        ChannelAxis::new(&[rows, row_len], 0)
    }

    /// The number of channels.
    ///
    /// ```
    /// assert_eq!(qcore::ChannelAxis::new(&[2, 3, 4, 5], 1)?.channels(), 3);
    /// # Ok::<(), qcore::AxisError>(())
    /// ```
    #[must_use]
    pub fn channels(self) -> usize {
        self.channels
    }

    /// The product of the dimensions before the axis.
    ///
    /// ```
    /// assert_eq!(qcore::ChannelAxis::new(&[2, 3, 4, 5], 1)?.outer(), 2);
    /// # Ok::<(), qcore::AxisError>(())
    /// ```
    #[must_use]
    pub fn outer(self) -> usize {
        self.outer
    }

    /// The product of the dimensions after the axis: the length of a channel's contiguous runs.
    ///
    /// ```
    /// assert_eq!(qcore::ChannelAxis::new(&[2, 3, 4, 5], 1)?.inner(), 4 * 5);
    /// # Ok::<(), qcore::AxisError>(())
    /// ```
    #[must_use]
    pub fn inner(self) -> usize {
        self.inner
    }

    /// The number of elements of the tensor.
    ///
    /// ```
    /// assert_eq!(qcore::ChannelAxis::new(&[2, 3, 4, 5], 1)?.len(), 120);
    /// # Ok::<(), qcore::AxisError>(())
    /// ```
    #[must_use]
    pub fn len(self) -> usize {
        self.outer * self.channels * self.inner
    }

    /// Whether the tensor has no elements.
    ///
    /// ```
    /// assert!(qcore::ChannelAxis::new(&[2, 0], 0)?.is_empty());
    /// # Ok::<(), qcore::AxisError>(())
    /// ```
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The contiguous runs of one channel's elements. The length of `data` must have been checked.
    pub(crate) fn channel_runs<T>(self, data: &[T], channel: usize) -> impl Iterator<Item = &[T]> {
        let start = move |outer| (outer * self.channels + channel) * self.inner;
        // If there are no elements, the other dimensions may be anything.
        let outer = if self.is_empty() { 0 } else { self.outer };
        (0..outer).filter_map(move |outer| data.get(start(outer)..)?.get(..self.inner))
    }

    /// The channel of the element at `index` of the data.
    fn channel_of(self, index: usize) -> usize {
        index / self.inner % self.channels
    }

    pub(crate) fn check_data(self, len: usize) -> Result<(), ChannelError> {
        match len == self.len() {
            true => Ok(()),
            false => Err(ChannelError::Data { expected: self.len(), got: len }),
        }
    }

    pub(crate) fn check_params(self, got: usize) -> Result<(), ChannelError> {
        match got == self.channels {
            true => Ok(()),
            false => Err(ChannelError::Params { expected: self.channels, got }),
        }
    }
}

/// The range of each channel.
///
/// # Errors
/// When the length of `x` does not match the axis, a channel has no elements, or a value is not
/// finite. The error names the channel and the index in `x`.
///
/// ```
/// use qcore::{ChannelAxis, Range, channel_ranges};
///
/// let columns = ChannelAxis::new(&[2, 2], 1)?;
/// let ranges = channel_ranges(&[1.0, 10.0, 2.0, 20.0], columns)?;
/// assert_eq!(ranges, [Range::new(1.0, 2.0)?, Range::new(10.0, 20.0)?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel_ranges(x: &[f32], axis: ChannelAxis) -> Result<Vec<Range>, ChannelError> {
    axis.check_data(x.len())?;
    if axis.channels > 0 && axis.is_empty() {
        return Err(ChannelError::Range { channel: 0, error: RangeError::Empty });
    }
    if let Some((index, value)) = first_non_finite(x) {
        let error = RangeError::NonFinite { index, value };
        return Err(ChannelError::Range { channel: axis.channel_of(index), error });
    }
    let mut ranges: Vec<Option<Range>> = vec![None; axis.channels];
    if axis.inner > 0 && axis.channels > 0 {
        for (run, values) in x.chunks_exact(axis.inner).enumerate() {
            let range = &mut ranges[run % axis.channels];
            // Along the last axis every run is a single value, which is not worth a scan.
            let found = if let [v] = *values { Range::new(v, v).ok() } else { Scan::of(values).range() };
            *range = match (*range, found) {
                (Some(a), Some(b)) => Some(a.merge(b)),
                (a, b) => a.or(b),
            };
        }
    }
    let named = |(channel, range): (usize, Option<Range>)| {
        range.ok_or(ChannelError::Range { channel, error: RangeError::Empty })
    };
    ranges.into_iter().enumerate().map(named).collect()
}

/// The parameters of each channel: [`Scheme::choose`] for its range.
///
/// # Errors
/// As [`channel_ranges`], or when the scheme has no parameters for a channel's range.
///
/// ```
/// use qcore::{ChannelAxis, Scheme, channel_params};
///
/// let params = channel_params(&[1.27, 0.0, 0.0, 12.7], ChannelAxis::new(&[2, 2], 0)?, &Scheme::weights_i8())?;
/// assert_eq!([params[0].scale(), params[1].scale()], [0.01, 0.1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel_params(x: &[f32], axis: ChannelAxis, scheme: &Scheme) -> Result<Vec<QParams>, ChannelError> {
    let choose = |(channel, range): (usize, &Range)| {
        scheme.choose(*range).map_err(|error| ChannelError::Scheme { channel, error })
    };
    channel_ranges(x, axis)?.iter().enumerate().map(choose).collect()
}

/// `out = params[channel].quantize(x)` for every element. Every value has a result, as in
/// [`quantize_slice`](crate::quantize_slice).
///
/// # Errors
/// When a length is not what the axis says, or a channel's codes do not fit `C`.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, QParams, quantize_per_channel};
///
/// let params = [QParams::new(0.5, 0, CodeRange::I8)?, QParams::new(1.0, 10, CodeRange::I8)?];
/// let mut codes = [0_i8; 4];
/// quantize_per_channel(&[1.0, 1.0, 100.0, f32::NAN], ChannelAxis::new(&[2, 2], 1)?, &params, &mut codes)?;
/// assert_eq!(codes, [2, 11, 127, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn quantize_per_channel<C: Code>(
    x: &[f32],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [C],
) -> Result<(), ChannelError> {
    check_codes_per_channel::<C>(params)?;
    map_channels(x, axis, params, out, |p, x, out| quantize_run(x, p, out))
}

/// [`quantize_per_channel`] for any [`Float`] type. f16 and bf16 values are widened to f32 first.
///
/// # Errors
/// As [`quantize_per_channel`].
///
/// ```
/// use half::f16;
/// use qcore::{ChannelAxis, CodeRange, QParams, dequantize_per_channel_into, quantize_per_channel_from};
///
/// let (rows, w) = (ChannelAxis::rows(2, 2)?, [0.5, -1.0, 50.0, -100.0].map(f16::from_f32));
/// let params = [QParams::new(0.01, 0, CodeRange::I8)?, QParams::new(1.0, 0, CodeRange::I8)?];
/// let mut codes = [0_i8; 4];
/// quantize_per_channel_from(&w, rows, &params, &mut codes)?;
/// assert_eq!(codes, [50, -100, 50, -100]);
///
/// let mut restored = [f16::ZERO; 4];
/// dequantize_per_channel_into(&codes, rows, &params, &mut restored)?;
/// assert_eq!(restored, w);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn quantize_per_channel_from<F: Float, C: Code>(
    x: &[F],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [C],
) -> Result<(), ChannelError> {
    check_codes_per_channel::<C>(params)?;
    map_channels(x, axis, params, out, |p, x, out| quantize_run_from(x, p, out))
}

/// [`dequantize_per_channel`] to any [`Float`] type, computed in f32 and rounded once.
/// rotalabs_accel restores f16 this way.
///
/// # Errors
/// When a length is not what the axis says.
///
/// ```
/// use half::bf16;
/// use qcore::{ChannelAxis, CodeRange, QParams, dequantize_per_channel_into};
///
/// let params = [QParams::new(0.5, 0, CodeRange::I8)?, QParams::new(1.0, 10, CodeRange::I8)?];
/// let mut values = [bf16::ZERO; 2];
/// dequantize_per_channel_into(&[3_i8, 7], ChannelAxis::rows(2, 1)?, &params, &mut values)?;
/// assert_eq!(values, [1.5, -3.0].map(bf16::from_f32));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn dequantize_per_channel_into<C: Code, F: Float>(
    q: &[C],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [F],
) -> Result<(), ChannelError> {
    map_channels(q, axis, params, out, |p, q, out| dequantize_run_into(q, p, out))
}

/// [`quantize_per_channel`] that refuses values that are not finite.
///
/// # Errors
/// Also when a value is NaN or infinite. The error names the channel and the index in `x`, and
/// nothing is written.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, QParams, quantize_per_channel_strict};
///
/// let (rows, p) = (ChannelAxis::rows(2, 1)?, QParams::new(1.0, 0, CodeRange::I8)?);
/// let error = quantize_per_channel_strict(&[0.0, f32::NAN], rows, &[p, p], &mut [0_i8; 2]).unwrap_err();
/// assert_eq!(error.to_string(), "channel 1: value NaN at index 1 is not finite");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn quantize_per_channel_strict<C: Code>(
    x: &[f32],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [C],
) -> Result<(), ChannelError> {
    axis.check_data(x.len())?;
    match first_non_finite(x) {
        Some((index, value)) => {
            let error = QuantizeError::NonFinite { index, value };
            Err(ChannelError::Quantize { channel: axis.channel_of(index), error })
        }
        None => quantize_per_channel(x, axis, params, out),
    }
}

/// `out = params[channel].fake_quantize(x)` for every element: the values that a per-channel
/// quantized weight stands for.
///
/// # Errors
/// When a length is not what the axis says.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, QParams, fake_quantize_per_channel};
///
/// let params = [QParams::new(1.0, 0, CodeRange::I8)?, QParams::new(0.1, 0, CodeRange::I8)?];
/// let mut out = [0.0; 4];
/// fake_quantize_per_channel(&[0.4, 1.2, 0.4, 1.2], ChannelAxis::new(&[2, 2], 0)?, &params, &mut out)?;
/// assert_eq!(out, [0.0, 1.0, 0.4, 1.2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn fake_quantize_per_channel(
    x: &[f32],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [f32],
) -> Result<(), ChannelError> {
    map_channels(x, axis, params, out, |p, x, out| fake_quantize_run(x, p, out))
}

/// [`quantize_per_channel`] using [`QParams::quantize_in_f16`]: f16 weights quantized in their own
/// precision, as rotalabs_accel does.
///
/// # Errors
/// As [`quantize_per_channel`].
///
/// ```
/// use half::f16;
/// use qcore::{ChannelAxis, CodeRange, QParams, quantize_per_channel_in_f16};
///
/// let params = [QParams::new(0.5, 0, CodeRange::I8)?, QParams::new(0.086_968, 0, CodeRange::I8)?];
/// let mut codes = [0_i8; 2];
/// quantize_per_channel_in_f16(&[f16::ONE; 2], ChannelAxis::rows(2, 1)?, &params, &mut codes)?;
/// assert_eq!(codes, [2, 12]); // the second quotient is 11.498, in f16 11.5
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn quantize_per_channel_in_f16<C: Code>(
    x: &[f16],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [C],
) -> Result<(), ChannelError> {
    check_codes_per_channel::<C>(params)?;
    map_per_channel(x, axis, params, out, |p, v| C::from_clamped(p.quantize_in_f16(v)))
}

/// `out = params[channel].dequantize(q)` for every element.
///
/// # Errors
/// When a length is not what the axis says.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, QParams, dequantize_per_channel};
///
/// let params = [QParams::new(0.5, 0, CodeRange::I8)?, QParams::new(1.0, 10, CodeRange::I8)?];
/// let mut values = [0.0; 4];
/// dequantize_per_channel(&[2_i8, 11, 127, 10], ChannelAxis::new(&[2, 2], 1)?, &params, &mut values)?;
/// assert_eq!(values, [1.0, 1.0, 63.5, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dequantize_per_channel<C: Code>(
    q: &[C],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [f32],
) -> Result<(), ChannelError> {
    map_per_channel(q, axis, params, out, |p, code| p.dequantize(code.widen()))
}

fn check_codes_per_channel<C: Code>(params: &[QParams]) -> Result<(), ChannelError> {
    for (channel, p) in params.iter().enumerate() {
        check_codes::<C>(p).map_err(|error| ChannelError::Quantize { channel, error })?;
    }
    Ok(())
}

/// Applies `f` to every element with the parameters of its channel.
#[inline(always)]
fn map_per_channel<T: Copy, U>(
    input: &[T],
    axis: ChannelAxis,
    params: &[QParams],
    out: &mut [U],
    f: impl Fn(&QParams, T) -> U,
) -> Result<(), ChannelError> {
    map_channels(input, axis, params, out, |p, from, to| {
        // A copy, so that the compiler knows that writing to `out` does not change it.
        let p = *p;
        for (u, &t) in to.iter_mut().zip(from) {
            *u = f(&p, t);
        }
    })
}

/// Applies `f` to every contiguous run of a channel, with the parameters of that channel.
#[inline(always)]
pub(crate) fn map_channels<P, T, U>(
    input: &[T],
    axis: ChannelAxis,
    params: &[P],
    out: &mut [U],
    f: impl Fn(&P, &[T], &mut [U]),
) -> Result<(), ChannelError> {
    axis.check_data(input.len())?;
    axis.check_params(params.len())?;
    LengthError::check(input.len(), out.len())?;
    if axis.is_empty() {
        return Ok(());
    }
    for (run, (from, to)) in input.chunks_exact(axis.inner).zip(out.chunks_exact_mut(axis.inner)).enumerate()
    {
        f(&params[run % axis.channels], from, to);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeRange;
    use crate::params::SchemeError;

    #[test]
    fn without_elements_the_other_dimensions_cost_nothing() {
        for shape in [[1 << 62, 1, 0], [usize::MAX, 1, 0], [0, 1, usize::MAX]] {
            let axis = ChannelAxis::new(&shape, 1).unwrap();
            assert_eq!(axis.channel_runs::<f32>(&[], 0).count(), 0, "{shape:?}");
        }
    }

    #[test]
    fn axes_of_shapes() {
        let axis = ChannelAxis::new(&[2, 3, 4, 5], 1).unwrap();
        assert_eq!((axis.outer(), axis.channels(), axis.inner(), axis.len()), (2, 3, 20, 120));
        assert_eq!(ChannelAxis::new(&[], 0), Err(AxisError::NoSuchAxis { axis: 0, rank: 0 }));
        assert_eq!(ChannelAxis::new(&[2], 1).unwrap_err().to_string(), "no axis 1 in a tensor of rank 1");
        assert_eq!(ChannelAxis::new(&[usize::MAX, 2], 0), Err(AxisError::TooLarge));
        assert_eq!(ChannelAxis::new(&[usize::MAX, 2, 0], 2), Err(AxisError::TooLarge));
    }

    #[test]
    fn errors_name_the_channel() {
        let axis = ChannelAxis::new(&[2, 3], 1).unwrap();
        let error = channel_ranges(&[0.0, 1.0, 2.0, 3.0, f32::NAN, 5.0], axis).unwrap_err();
        assert_eq!(error.to_string(), "channel 1: value NaN at index 4 is not finite");
        let huge = [3e38, 0.0, 0.0, -3e38, 0.0, 0.0];
        let error = channel_params(&huge, axis, &Scheme::onnx_dynamic(CodeRange::U8)).unwrap_err();
        assert!(matches!(error, ChannelError::Scheme { channel: 0, error: SchemeError::Overflow { .. } }));
        let params = channel_params(&huge, axis, &Scheme::weights_i8()).unwrap();
        let error = quantize_per_channel::<u8>(&huge, axis, &params, &mut [0; 6]).unwrap_err();
        assert!(matches!(error, ChannelError::Quantize { channel: 0, .. }));
        assert!(channel_ranges(&huge[1..], axis).is_err());
        assert!(quantize_per_channel::<i8>(&huge, axis, &params[1..], &mut [0; 6]).is_err());
        assert!(quantize_per_channel::<i8>(&huge, axis, &params, &mut [0; 5]).is_err());
    }

    #[test]
    fn empty_tensors() {
        let none = ChannelAxis::new(&[0, 4], 0).unwrap();
        assert_eq!(channel_params(&[], none, &Scheme::default()), Ok(vec![]));
        assert_eq!(quantize_per_channel::<i8>(&[], none, &[], &mut []), Ok(()));
        for (shape, axis) in [([3, 0], 0), ([0, 3], 1)] {
            let axis = ChannelAxis::new(&shape, axis).unwrap();
            let error = channel_ranges(&[], axis).unwrap_err();
            assert_eq!(error.to_string(), "channel 0: no values, so no range");
        }
    }
}
