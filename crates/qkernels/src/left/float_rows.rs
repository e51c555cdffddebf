//! Rows of floats as products read them: the values as they lie, or each divided by the scale of
//! its channel.

use core::ops::Range;

use qcore::Float;

use crate::matrix::view::MatRef;

/// Rows of floats (m, k) that a product reads. A plain [`MatRef`] stands for the values as they
/// are. [`divided_by`](Self::divided_by) scales divides each value by that of its column, the input
/// channel, **while rows are read**, before anything else is done to it: before ranges are found,
/// codes are made, or products are formed.
///
/// This is how SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant: Accurate and
/// Efficient Post-Training Quantization for Large Language Models", 2022, equation 3) makes
/// activations easy to quantize. Large values stand in few channels. Dividing these by a scale s,
/// and multiplying the weights of the same channels by it before they are quantized, leaves the
/// product what it was:
///
/// ```text
/// Y = X W = (X diag(s)^-1) (diag(s) W)
/// ```
///
/// The weights are the caller's work. Here a value is `x / s`, one division in f32; f16 and bf16
/// are widened first, and their quotients are not rounded back. So products have the bits of those
/// of the quotients as a matrix of f32, which is never in memory. Scales have no unit. They belong
/// to the columns of the view, also for weights with
/// [inputs in another order](crate::ScaledWeights::with_input_order).
///
/// ```
/// use qkernels::{Dequantize, Dynamic, FloatRows, Kernel, MatMut, MatRef, PackedWeights, Scales};
/// use qkernels::{Threads, Workspace, gemm_dynamic};
/// let w = PackedWeights::from_nk(MatRef::new(&[2i8, 3], 1, 2)?, Kernel::select()?)?;
/// let stage = Dequantize::new(Scales::PerTensor(1.0))?;
/// let (x, scales) = ([255.0f32, -51_000.0], [1.0, 1000.0]);
/// let x = FloatRows::divided_by(MatRef::new(&x, 1, 2)?, &scales)?; // 255 and -51
/// let mut y = [0.0];
/// let out = MatMut::new(&mut y, 1, 1)?;
/// gemm_dynamic(x, Dynamic::default(), &w, &stage, out, Threads::Serial, &mut Workspace::new())?;
/// assert!((y[0] - (255.0 * 2.0 - 51.0 * 3.0_f32)).abs() < 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a, F> {
    view: MatRef<'a, F>,
    /// One for each column; empty if values stay as they are.
    divisors: &'a [f32],
}

/// Scales cannot divide the columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InputScaleError {
    /// There are more or fewer scales than columns.
    #[error("expected input scales of k = {k} channels, got {len}")]
    Length {
        /// Columns.
        k: usize,
        /// Scales given.
        len: usize,
    },
    /// A scale is 0, negative, infinite or NaN.
    #[error("input scale {scale:e} of channel {channel} must be finite and greater than 0")]
    Scale {
        /// The input channel.
        channel: usize,
        /// Its scale.
        scale: f32,
    },
}

impl<'a, F> From<MatRef<'a, F>> for FloatRows<'a, F> {
    fn from(view: MatRef<'a, F>) -> Self {
        Self { view, divisors: &[] }
    }
}

impl<'a, F: Copy> From<&MatRef<'a, F>> for FloatRows<'a, F> {
    fn from(view: &MatRef<'a, F>) -> Self {
        (*view).into()
    }
}

impl<'a, F: Float> FloatRows<'a, F> {
    /// The values of `view`, each divided by the one of `scales` (k) that its column has. A
    /// quotient may be infinite, or 0, although the value is not; an infinite one is a value that
    /// is not finite, like any other.
    ///
    /// ```
    /// use qkernels::{FloatRows, InputScaleError, MatRef};
    /// let x = MatRef::new(&[3.0f32, 1.0], 1, 2)?;
    /// assert_eq!(FloatRows::divided_by(x, &[2.0, 4.0])?.get(0, 1), Some(0.25));
    /// let error = FloatRows::divided_by(x, &[2.0, 0.0]).unwrap_err();
    /// assert_eq!(error, InputScaleError::Scale { channel: 1, scale: 0.0 });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InputScaleError`] if there is not one scale for each column, or one is not finite and
    /// greater than 0.
    pub fn divided_by(view: MatRef<'a, F>, scales: &'a [f32]) -> Result<Self, InputScaleError> {
        if scales.len() != view.cols() {
            return Err(InputScaleError::Length { k: view.cols(), len: scales.len() });
        }
        // Bits of finite numbers greater than 0 are those from 1 to MAX's. Either difference is
        // negative for all others, and that is vector code, as there is no early exit.
        const MAX: i32 = f32::MAX.to_bits().cast_signed();
        let bits = |scale: &f32| scale.to_bits().cast_signed();
        let sign = |bits: i32| bits.wrapping_sub(1) | MAX.wrapping_sub(bits);
        if scales.iter().fold(0, |signs, scale| signs | sign(bits(scale))) < 0
            && let Some(channel) = scales.iter().position(|scale| sign(bits(scale)) < 0)
        {
            return Err(InputScaleError::Scale { channel, scale: scales[channel] });
        }
        Ok(Self { view, divisors: scales })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.view.rows()
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.view.cols()
    }

    /// The value (i, j) as products read it, or `None` outside of the matrix.
    pub fn get(&self, i: usize, j: usize) -> Option<f32> {
        let value = self.view.get(i, j)?.widen();
        Some(self.divisors.get(j).map_or(value, |divisor| value / divisor))
    }

    /// The values before they are divided.
    #[inline(always)]
    pub(crate) fn view(&self) -> &MatRef<'a, F> {
        &self.view
    }

    /// What the columns are divided by; empty if values stay as they are.
    #[inline(always)]
    pub(crate) fn divisors(&self) -> &'a [f32] {
        self.divisors
    }

    /// The rows of `range`; `None` if they reach past the last row.
    pub(crate) fn row_range(&self, range: Range<usize>) -> Option<Self> {
        Some(Self { view: self.view.row_range(range)?, ..*self })
    }

    /// The same values, but repeated rows are there once, and so are repeated columns if none is
    /// divided. A matrix without values has no rows.
    pub(crate) fn without_repeats(&self) -> Self {
        if self.divisors.is_empty() {
            return self.view.without_repeats().into();
        }
        let once = self.view.row_stride() == 0 && self.rows() > 1;
        let first = if once { self.row_range(0..1) } else { None };
        first.unwrap_or(*self)
    }
}
