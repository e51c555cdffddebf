//! qcore's loops over slices, compiled for the vector level of a kernel. The definitions are the
//! same, and so are the bits.

use qcore::{Code, Float, LengthError, QParams, QuantizeError, Range, RangeError};

use crate::cpu::vectorize::Task;
use crate::kernel::token::Kernel;
use crate::left::floats::RowBlocks;
use crate::matrix::view::MatRef;

/// [`qcore::quantize_slice`] in the vector code of `kernel`'s level.
///
/// ```
/// use qcore::{CodeRange, QParams};
/// let params = QParams::new(0.5, 10, CodeRange::U8)?;
/// let mut codes = [0u8; 3];
/// qkernels::quantize(qkernels::Kernel::select()?, &[0.0, 1.0, -9.0], &params, &mut codes)?;
/// assert_eq!(codes, [10, 12, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`qcore::quantize_slice`]: the lengths differ, or the codes do not fit `C`.
pub fn quantize<C: Code>(
    kernel: Kernel,
    x: &[f32],
    params: &QParams,
    out: &mut [C],
) -> Result<(), QuantizeError> {
    struct Quantize<'q, C>(&'q [f32], &'q QParams, &'q mut [C]);
    impl<C: Code> Task for Quantize<'_, C> {
        type Output = Result<(), QuantizeError>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            qcore::quantize_slice(self.0, self.1, self.2)
        }
    }
    kernel.vectorize(Quantize(x, params, out))
}

/// [`qcore::dequantize_slice`] in the vector code of `kernel`'s level.
///
/// ```
/// use qcore::{CodeRange, QParams};
/// let params = QParams::new(0.5, 10, CodeRange::U8)?;
/// let mut values = [0.0; 2];
/// qkernels::dequantize(qkernels::Kernel::select()?, &[12u8, 0], &params, &mut values)?;
/// assert_eq!(values, [1.0, -5.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`qcore::dequantize_slice`]: the lengths differ.
pub fn dequantize<C: Code>(
    kernel: Kernel,
    q: &[C],
    params: &QParams,
    out: &mut [f32],
) -> Result<(), LengthError> {
    struct Dequantize<'q, C>(&'q [C], &'q QParams, &'q mut [f32]);
    impl<C: Code> Task for Dequantize<'_, C> {
        type Output = Result<(), LengthError>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            qcore::dequantize_slice(self.0, self.1, self.2)
        }
    }
    kernel.vectorize(Dequantize(q, params, out))
}

/// [`Range::of`], smallest and largest of finite values, in the vector code of `kernel`'s level.
///
/// ```
/// let range = qkernels::range(qkernels::Kernel::select()?, &[0.5, -2.0, 1.0])?;
/// assert_eq!((range.min(), range.max()), (-2.0, 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Range::of`]: there is no value, or one is not finite.
pub fn range(kernel: Kernel, x: &[f32]) -> Result<Range, RangeError> {
    struct Scan<'x>(&'x [f32]);
    impl Task for Scan<'_> {
        type Output = Result<Range, RangeError>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            Range::of(self.0)
        }
    }
    kernel.vectorize(Scan(x))
}

/// Row, column and value of the first element that is NaN or infinite, row by row:
/// [`qcore::first_non_finite`] in the vector code of `kernel`'s level.
///
/// ```
/// use qkernels::{Kernel, MatRef, first_non_finite};
/// let x = [1.0, 2.0, -0.0, f32::INFINITY];
/// let (kernel, x) = (Kernel::select()?, MatRef::new(&x, 2, 2)?);
/// assert_eq!(first_non_finite(kernel, &x), Some((1, 1, f32::INFINITY)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn first_non_finite<F: Float>(kernel: Kernel, x: &MatRef<'_, F>) -> Option<(usize, usize, f32)> {
    struct Find<'t, 'x, F>(&'t MatRef<'x, F>);
    impl<F: Float> Task for Find<'_, '_, F> {
        type Output = Option<(usize, usize, f32)>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            let mut wide = None;
            // Rows without values may be any number.
            let rows = if self.0.cols() == 0 { 0 } else { self.0.rows() };
            for row in 0..rows {
                let mut blocks = RowBlocks::new(self.0, row, &mut wide);
                let mut before = 0;
                while let Some(block) = blocks.next() {
                    if let Some((at, value)) = qcore::first_non_finite(block) {
                        return Some((row, before + at, value));
                    }
                    before += block.len();
                }
            }
            None
        }
    }
    kernel.vectorize(Find(x))
}
