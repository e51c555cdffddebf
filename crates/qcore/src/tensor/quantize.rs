//! Quantizing and dequantizing slices: the one-value functions of [`QParams`], in a loop.

use thiserror::Error;

use crate::code::{Code, CodeRange};
use crate::params::{QParams, Scheme, SchemeError};
use crate::value::{Float, Range, RangeError, first_non_finite};

/// How many f16 or bf16 values are widened or narrowed at a time, on the stack.
const BLOCK: usize = 256;

/// `out[i] = p.quantize(x[i])`. Every value has a result: NaN becomes the zero point, infinities
/// the smallest or largest code.
///
/// The loop is always inlined, so a caller compiled for AVX2 or AVX-512 gets this definition as
/// vector instructions, with the same codes.
///
/// # Errors
/// When the lengths differ, or `p.codes()` do not fit `C`.
///
/// ```
/// use qcore::{CodeRange, QParams, dequantize_slice, quantize_slice};
///
/// let p = QParams::new(0.5, 0, CodeRange::I8)?;
/// let mut codes = [0_i8; 4];
/// quantize_slice(&[0.0, 0.5, -1.2, 1e9], &p, &mut codes)?;
/// assert_eq!(codes, [0, 1, -2, 127]);
///
/// let mut restored = [0.0; 4];
/// dequantize_slice(&codes, &p, &mut restored)?;
/// assert_eq!(restored, [0.0, 0.5, -1.0, 63.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn quantize_slice<C: Code>(x: &[f32], p: &QParams, out: &mut [C]) -> Result<(), QuantizeError> {
    LengthError::check(x.len(), out.len())?;
    check_codes::<C>(p)?;
    quantize_run(x, p, out);
    Ok(())
}

/// Quantizes as many values as the shorter slice has.
#[inline(always)]
pub(crate) fn quantize_run<C: Code>(x: &[f32], p: &QParams, out: &mut [C]) {
    p.quantize_each(x, out, C::from_clamped);
}

/// [`quantize_slice`] for any [`Float`] type. f16 and bf16 values are widened to f32 first.
///
/// # Errors
/// As [`quantize_slice`].
///
/// ```
/// use half::bf16;
/// use qcore::{CodeRange, QParams, dequantize_into, quantize_from};
///
/// let p = QParams::new(0.5, 0, CodeRange::I8)?;
/// let mut codes = [0_i8; 3];
/// quantize_from(&[1.0, -2.5, f32::NAN].map(bf16::from_f32), &p, &mut codes)?;
/// assert_eq!(codes, [2, -5, 0]);
///
/// let mut restored = [bf16::ZERO; 3];
/// dequantize_into(&codes, &p, &mut restored)?;
/// assert_eq!(restored.map(f32::from), [1.0, -2.5, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn quantize_from<F: Float, C: Code>(x: &[F], p: &QParams, out: &mut [C]) -> Result<(), QuantizeError> {
    LengthError::check(x.len(), out.len())?;
    check_codes::<C>(p)?;
    quantize_run_from(x, p, out);
    Ok(())
}

#[inline(always)]
pub(crate) fn quantize_run_from<F: Float, C: Code>(x: &[F], p: &QParams, out: &mut [C]) {
    let mut wide = [0.0; BLOCK];
    for (x, out) in x.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        F::widen_slice(x, &mut wide);
        quantize_run(&wide, p, out);
    }
}

/// [`quantize_slice`] that refuses values that are not finite.
///
/// # Errors
/// Also when a value is NaN or infinite. The error gives the first one, and nothing is written.
///
/// ```
/// use qcore::{CodeRange, QParams, QuantizeError, quantize_slice_strict};
///
/// let p = QParams::new(0.5, 0, CodeRange::I8)?;
/// let mut codes = [7_i8; 2];
/// let error = quantize_slice_strict(&[1.0, f32::INFINITY], &p, &mut codes).unwrap_err();
/// assert_eq!(error.to_string(), "value inf at index 1 is not finite");
/// assert_eq!(codes, [7, 7]);
/// # Ok::<(), qcore::ParamError>(())
/// ```
#[inline(always)]
pub fn quantize_slice_strict<C: Code>(x: &[f32], p: &QParams, out: &mut [C]) -> Result<(), QuantizeError> {
    match first_non_finite(x) {
        Some((index, value)) => Err(QuantizeError::NonFinite { index, value }),
        None => quantize_slice(x, p, out),
    }
}

/// `out[i] = p.dequantize(q[i])`.
///
/// # Errors
/// When the lengths differ.
///
/// ```
/// use qcore::{CodeRange, QParams, dequantize_slice};
///
/// let p = QParams::new(0.5, 10, CodeRange::U8)?;
/// let mut x = [0.0; 3];
/// dequantize_slice(&[0_u8, 10, 255], &p, &mut x)?;
/// assert_eq!(x, [-5.0, 0.0, 122.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn dequantize_slice<C: Code>(q: &[C], p: &QParams, out: &mut [f32]) -> Result<(), LengthError> {
    LengthError::check(q.len(), out.len())?;
    let p = *p;
    for (v, &code) in out.iter_mut().zip(q) {
        *v = p.dequantize(code.widen());
    }
    Ok(())
}

/// [`dequantize_slice`] to any [`Float`] type, computed in f32 and rounded once. A value beyond the
/// range of f16 becomes infinite.
///
/// # Errors
/// When the lengths differ.
///
/// ```
/// use half::f16;
/// use qcore::{CodeRange, QParams, dequantize_into};
///
/// let p = QParams::new(0.1, 0, CodeRange::I8)?;
/// let mut restored = [f16::ZERO; 2];
/// dequantize_into(&[3_i8, -7], &p, &mut restored)?;
/// assert_eq!(restored, [0.3, -0.7].map(f16::from_f32));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn dequantize_into<C: Code, F: Float>(q: &[C], p: &QParams, out: &mut [F]) -> Result<(), LengthError> {
    LengthError::check(q.len(), out.len())?;
    dequantize_run_into(q, p, out);
    Ok(())
}

#[inline(always)]
pub(crate) fn dequantize_run_into<C: Code, F: Float>(q: &[C], p: &QParams, out: &mut [F]) {
    let (mut wide, p) = ([0.0; BLOCK], *p);
    for (q, out) in q.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        for (v, &code) in wide.iter_mut().zip(q) {
            *v = p.dequantize(code.widen());
        }
        F::narrow_slice(&wide, out);
    }
}

/// `out[i] = p.fake_quantize(x[i])`: the values that quantization leaves, without keeping the
/// codes. Quantization-aware training and simulated quantized models compute this; in PyTorch it is
/// `fake_quantize_per_tensor_affine`.
///
/// # Errors
/// When the lengths differ.
///
/// ```
/// use qcore::{CodeRange, QParams, fake_quantize_slice};
///
/// let p = QParams::new(0.5, 0, CodeRange::I8)?;
/// let mut out = [0.0; 4];
/// fake_quantize_slice(&[0.3, -0.3, 1e9, f32::NAN], &p, &mut out)?;
/// assert_eq!(out, [0.5, -0.5, 63.5, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline(always)]
pub fn fake_quantize_slice(x: &[f32], p: &QParams, out: &mut [f32]) -> Result<(), LengthError> {
    LengthError::check(x.len(), out.len())?;
    fake_quantize_run(x, p, out);
    Ok(())
}

#[inline(always)]
pub(crate) fn fake_quantize_run(x: &[f32], p: &QParams, out: &mut [f32]) {
    p.quantize_each(x, out, |code| p.dequantize(code));
}

/// Finds the range of a whole tensor, chooses its parameters and quantizes it.
///
/// # Errors
/// When `x` is empty or has a value that is not finite, when the scheme has no parameters for its
/// range, or when the codes of the scheme do not fit `C`.
///
/// ```
/// use qcore::{Scheme, quantize_tensor};
///
/// let (codes, p) = quantize_tensor::<i8>(&[0.5, -1.27, 1.0], &Scheme::weights_i8())?;
/// assert_eq!(codes, [50, -127, 100]);
/// assert_eq!(p.scale(), 0.01);
/// # Ok::<(), qcore::TensorError>(())
/// ```
pub fn quantize_tensor<C: Code>(x: &[f32], scheme: &Scheme) -> Result<(Vec<C>, QParams), TensorError> {
    let p = scheme.choose(Range::of(x)?)?;
    let mut codes = vec![C::default(); x.len()];
    quantize_slice(x, &p, &mut codes)?;
    Ok((codes, p))
}

/// Refuses parameters whose codes do not fit the type.
pub(crate) fn check_codes<C: Code>(p: &QParams) -> Result<(), QuantizeError> {
    match C::RANGE.contains_range(p.codes()) {
        true => Ok(()),
        false => Err(QuantizeError::Codes { codes: p.codes(), storage: C::RANGE }),
    }
}

/// Input and output differ in length.
///
/// ```
/// use qcore::{CodeRange, QParams, dequantize_slice};
///
/// let error = dequantize_slice(&[1_i8], &QParams::new(1.0, 0, CodeRange::I8)?, &mut []).unwrap_err();
/// assert_eq!(error.to_string(), "input and output must be of one length, got 1 and 0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("input and output must be of one length, got {input} and {output}")]
#[non_exhaustive]
pub struct LengthError {
    /// The length of the input.
    pub input: usize,
    /// The length of the output.
    pub output: usize,
}

impl LengthError {
    /// Compares two lengths.
    #[inline(always)]
    pub(crate) fn check(input: usize, output: usize) -> Result<(), LengthError> {
        if input == output { Ok(()) } else { Err(LengthError { input, output }) }
    }
}

/// Why a slice cannot be quantized.
///
/// ```
/// use qcore::{CodeRange, QParams, quantize_slice};
///
/// let signed = QParams::new(1.0, 0, CodeRange::I8)?;
/// let error = quantize_slice::<u8>(&[1.0], &signed, &mut [0]).unwrap_err();
/// assert_eq!(error.to_string(), "codes -128 to 127 do not fit a type of 0 to 255");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Input and output differ in length.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// The parameters' codes do not fit the type that is to store them.
    #[error("codes {} to {} do not fit a type of {} to {}", codes.min(), codes.max(), storage.min(), storage.max())]
    Codes {
        /// The parameters' codes.
        codes: CodeRange,
        /// What the type can store.
        storage: CodeRange,
    },
    /// A value is NaN or infinite. Only the strict forms report this.
    #[error("value {value} at index {index} is not finite")]
    NonFinite {
        /// The index of the first such value.
        index: usize,
        /// The value there.
        value: f32,
    },
}

/// Why a tensor cannot be quantized by a scheme.
///
/// ```
/// use qcore::{Scheme, quantize_tensor};
///
/// let error = quantize_tensor::<i8>(&[1.0, f32::NAN], &Scheme::weights_i8()).unwrap_err();
/// assert_eq!(error.to_string(), "value NaN at index 1 is not finite");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// It has no range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The scheme has no parameters for its range.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Its codes cannot be stored.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::params::{Rounding, ZeroPointOrder};

    #[test]
    fn body_and_tail_agree_at_every_length_and_offset() {
        // Ties, their neighbours and every special value, so that a loop tail that rounds
        // differently would show.
        let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, f32::from_bits(1)];
        let x: Vec<f32> = (0..200)
            .map(|i| match i % 3 {
                0 => (i - 100) as f32 * 0.125,
                1 => ((i - 100) as f32 * 0.125).next_up(),
                _ => specials[i as usize / 3 % specials.len()],
            })
            .collect();
        for order in [ZeroPointOrder::RoundThenAdd, ZeroPointOrder::AddThenRound] {
            let p = QParams::new(0.25, 3, CodeRange::I8).unwrap().with_order(order);
            for len in 0..=130 {
                for offset in [0, 1, 7, 64] {
                    let x = &x[offset..offset + len];
                    let mut codes = vec![0_i8; len];
                    quantize_slice(x, &p, &mut codes).unwrap();
                    let one_by_one: Vec<i8> = x.iter().map(|&v| p.quantize(v) as i8).collect();
                    assert_eq!(codes, one_by_one);
                    let mut restored = vec![0.0; len];
                    dequantize_slice(&codes, &p, &mut restored).unwrap();
                    let one_by_one: Vec<f32> = codes.iter().map(|&q| p.dequantize(q.into())).collect();
                    assert_eq!(restored, one_by_one);
                }
            }
        }
    }

    #[test]
    fn halves_take_the_way_through_f32() {
        let x: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let wide: Vec<f32> = x.iter().map(|v| v.to_f32()).collect();
        let p = QParams::new(0.37, -5, CodeRange::I8).unwrap().with_rounding(Rounding::TiesAway);
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, x.len()] {
            let (mut codes, mut want) = (vec![0_i8; len], vec![0_i8; len]);
            quantize_from(&x[..len], &p, &mut codes).unwrap();
            quantize_slice(&wide[..len], &p, &mut want).unwrap();
            assert_eq!(codes, want);
            let mut restored = vec![bf16::ZERO; len];
            dequantize_into(&codes, &p, &mut restored).unwrap();
            assert!(restored.iter().zip(&codes).all(|(r, &q)| *r == bf16::from_f32(p.dequantize(q.into()))));
        }
        assert!(quantize_from::<f16, i8>(&x[..1], &p, &mut []).is_err());
        assert!(quantize_from::<f16, u8>(&x[..1], &p, &mut [0]).is_err());
    }

    #[test]
    fn lengths_and_code_types_are_checked() {
        let p = QParams::new(1.0, 0, CodeRange::I8).unwrap();
        let error = quantize_slice::<i8>(&[1.0], &p, &mut []).unwrap_err();
        assert_eq!(error.to_string(), "input and output must be of one length, got 1 and 0");
        let error = quantize_slice::<u8>(&[1.0], &p, &mut [0]).unwrap_err();
        assert_eq!(error.to_string(), "codes -128 to 127 do not fit a type of 0 to 255");
        assert!(dequantize_slice(&[1_u8], &p, &mut []).is_err());
        assert_eq!(quantize_slice_strict::<i8>(&[], &p, &mut []), Ok(()));
    }
}
