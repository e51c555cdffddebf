//! qcore's loops over slices, compiled for the vector level of a kernel. The definitions are the
//! same, and so are the bits.

use qcore::{Code, Float, LengthError, QParams, QuantizeError, Range, RangeError};

use crate::cpu::stream::{self, BLOCK, Block, Stream};
use crate::cpu::vectorize::Task;
use crate::kernel::token::Kernel;
use crate::left::float_rows::FloatRows;
use crate::left::floats::RowBlocks;

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
            let Self(x, params, out) = self;
            if x.len() != out.len() || !stream::pays(size_of_val(x) + size_of_val(out)) {
                return qcore::quantize_slice(x, params, out);
            }
            quantize_past_caches(x, params, out)
        }
    }
    kernel.vectorize(Quantize(x, params, out))
}

/// [`qcore::quantize_slice`] of slices of one length, block by block.
#[inline(always)]
fn quantize_past_caches<C: Code>(x: &[f32], params: &QParams, out: &mut [C]) -> Result<(), QuantizeError> {
    let mut block = Block([C::default(); BLOCK]);
    let mut stream = Stream::new(stream::bytes_of_codes(out));
    let mut rest = x;
    while !rest.is_empty() {
        let (x, after) = rest.split_at(stream.to_line(BLOCK).min(rest.len()));
        let codes = &mut block.0[..x.len()];
        qcore::quantize_slice(x, params, codes)?;
        stream.write(stream::bytes_of_codes(codes));
        rest = after;
    }
    Ok(())
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
            let Self(q, params, out) = self;
            if q.len() != out.len() || !stream::pays(size_of_val(q) + size_of_val(out)) {
                return qcore::dequantize_slice(q, params, out);
            }
            dequantize_past_caches(q, params, out)
        }
    }
    kernel.vectorize(Dequantize(q, params, out))
}

/// [`qcore::dequantize_slice`] of slices of one length, block by block.
#[inline(always)]
fn dequantize_past_caches<C: Code>(q: &[C], params: &QParams, out: &mut [f32]) -> Result<(), LengthError> {
    const VALUES: usize = BLOCK / size_of::<f32>();
    let mut block = Block([0.0; VALUES]);
    let mut stream = Stream::new(bytemuck::must_cast_slice_mut(out));
    let mut rest = q;
    while !rest.is_empty() {
        let (q, after) = rest.split_at((stream.to_line(BLOCK) / size_of::<f32>()).min(rest.len()));
        let values = &mut block.0[..q.len()];
        qcore::dequantize_slice(q, params, values)?;
        stream.write(bytemuck::must_cast_slice(values));
        rest = after;
    }
    Ok(())
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
/// [`qcore::first_non_finite`] in the vector code of `kernel`'s level. Of [`FloatRows`] that are
/// divided it is the first quotient, which may be infinite where the element is not.
///
/// ```
/// use qkernels::{Kernel, MatRef, first_non_finite};
/// let x = [1.0, 2.0, -0.0, f32::INFINITY];
/// let (kernel, x) = (Kernel::select()?, MatRef::new(&x, 2, 2)?);
/// assert_eq!(first_non_finite(kernel, x), Some((1, 1, f32::INFINITY)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn first_non_finite<'x, F: Float>(
    kernel: Kernel,
    x: impl Into<FloatRows<'x, F>>,
) -> Option<(usize, usize, f32)> {
    struct Find<'t, 'x, F>(&'t FloatRows<'x, F>);
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
    kernel.vectorize(Find(&x.into()))
}

#[cfg(test)]
mod tests {
    use qcore::CodeRange;

    use super::*;
    use crate::cpu::stream::LINE;

    struct PastCaches<'t, C>(&'t [f32], &'t QParams, &'t mut [C], &'t mut [f32]);

    impl<C: Code> Task for PastCaches<'_, C> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(x, params, codes, values) = self;
            quantize_past_caches(x, params, codes).unwrap();
            dequantize_past_caches(codes, params, values).unwrap();
        }
    }

    /// Of slices that begin at `start` of a line, with something behind them that must stay.
    fn check<C: Code + PartialEq + core::fmt::Debug>(params: &QParams, start: usize, len: usize) {
        let x: Vec<f32> = (0..len).map(|i| (i % 777) as f32 * 0.3 - 116.0).collect();
        let (mut want, mut restored) = (vec![C::default(); len], vec![0.0; len]);
        qcore::quantize_slice(&x, params, &mut want).unwrap();
        qcore::dequantize_slice(&want, params, &mut restored).unwrap();
        let other = C::from_clamped(99);
        for kernel in Kernel::available() {
            let (mut codes, mut values) = (vec![other; start + len + LINE], vec![-1.0; start + len + LINE]);
            let ends = start..start + len;
            kernel.vectorize(PastCaches(&x, params, &mut codes[ends.clone()], &mut values[ends.clone()]));
            assert_eq!(codes[ends.clone()], want, "{kernel}, {len} from {start}");
            assert_eq!(values[ends.clone()], restored, "{kernel}, {len} from {start}");
            let beside = |at: &usize| !ends.contains(at);
            assert!((0..codes.len()).filter(beside).all(|at| codes[at] == other && values[at] == -1.0));
        }
    }

    #[test]
    fn past_the_caches_everything_is_as_qcore_has_it() {
        let (signed, unsigned) = (CodeRange::I8, CodeRange::U8);
        for start in 0..LINE {
            for len in [0, 1, LINE, 300] {
                check::<i8>(&QParams::new(0.5, 3, signed).unwrap(), start, len);
            }
            for len in [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + LINE - 1, BLOCK / 4, BLOCK / 2 + 1] {
                check::<u8>(&QParams::new(0.5, 130, unsigned).unwrap(), start, len);
            }
        }
    }

    #[test]
    fn errors_are_those_of_qcore() {
        let params = QParams::new(0.5, 3, CodeRange::I8).unwrap();
        let mut codes = [7u8; 5];
        let error = quantize_past_caches(&[0.0; 5], &params, &mut codes).unwrap_err();
        assert_eq!(error, qcore::quantize_slice(&[0.0; 5], &params, &mut [0u8; 5]).unwrap_err());
        assert_eq!(codes, [7; 5]);
    }
}
