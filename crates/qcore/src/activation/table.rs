//! An activation function from codes to codes, as a table.

use super::{ActivationError, ActivationFunction};
use crate::code::Code;
use crate::params::QParams;
use crate::tensor::{LengthError, check_codes};

/// An activation function as a table from codes of type `C` to codes of type `D`: entry `q` is
/// `quantize(f(dequantize(q)))`.
///
/// For operators between two quantized tensors whose parameters are both known in advance.
///
/// ```
/// use qcore::{ActivationFunction, ActivationTable, CodeRange, QParams};
///
/// let x = QParams::new(0.05, 0, CodeRange::I8)?;
/// let y = QParams::new(0.025, 10, CodeRange::U8)?;
/// let table = ActivationTable::<i8, u8>::new(ActivationFunction::Silu, &x, &y)?;
/// assert_eq!(table.get(-20), y.quantize(ActivationFunction::Silu.apply(-1.0)) as u8);
///
/// let mut out = [0; 3];
/// table.apply(&[-128, 0, 100], &mut out)?;
/// assert_eq!(out, [10, 10, 209]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationTable<C, D> {
    /// Indexed by the byte of the code.
    entries: [D; 256],
    code: core::marker::PhantomData<C>,
}

impl<C: Code, D: Code> ActivationTable<C, D> {
    /// The table of `function` for inputs with parameters `from` and outputs with parameters `to`.
    ///
    /// Values of `C` that are outside the codes of `from` are dequantized by the same formula.
    ///
    /// # Errors
    /// When [`ActivationFunction::check`] refuses the function, or the codes do not fit their type.
    ///
    /// ```
    /// use qcore::{ActivationFunction, ActivationTable, CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 0, CodeRange::I8)?;
    /// let table = ActivationTable::<i8, i8>::new(ActivationFunction::Relu, &p, &p)?;
    /// assert_eq!([-3, 3].map(|code| table.get(code)), [0, 3]);
    /// assert!(ActivationTable::<i8, u8>::new(ActivationFunction::Relu, &p, &p).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(function: ActivationFunction, from: &QParams, to: &QParams) -> Result<Self, ActivationError> {
        let function = function.check()?;
        check_codes::<C>(from)?;
        check_codes::<D>(to)?;
        let mut entries = [D::default(); 256];
        for code in C::RANGE.min()..=C::RANGE.max() {
            let y = function.apply(from.dequantize(code));
            entries[byte(code)] = D::from_clamped(to.quantize(y));
        }
        Ok(Self { entries, code: core::marker::PhantomData })
    }

    /// The output code for `code`.
    ///
    /// ```
    /// use qcore::{ActivationFunction, ActivationTable, CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 128, CodeRange::U8)?;
    /// let table = ActivationTable::<u8, u8>::new(ActivationFunction::RELU6, &p, &p)?;
    /// assert_eq!([100, 130, 255].map(|code| table.get(code)), [128, 130, 140]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn get(&self, code: C) -> D {
        self.entries[byte(code.widen())]
    }

    /// `out[i] = get(codes[i])`.
    ///
    /// # Errors
    /// When the lengths differ.
    ///
    /// ```
    /// use qcore::{ActivationFunction, ActivationTable, CodeRange, QParams};
    ///
    /// let p = QParams::new(0.5, 0, CodeRange::I8)?;
    /// let table = ActivationTable::<i8, i8>::new(ActivationFunction::HardSwish, &p, &p)?;
    /// let mut out = [0; 3];
    /// table.apply(&[-8, 2, 8], &mut out)?;
    /// assert_eq!(out, [0, 1, 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply(&self, codes: &[C], out: &mut [D]) -> Result<(), LengthError> {
        LengthError::check(codes.len(), out.len())?;
        out.iter_mut().zip(codes).for_each(|(out, &code)| *out = self.get(code));
        Ok(())
    }
}

/// The byte of a signed or unsigned code, as an index.
#[inline(always)]
fn byte(code: i32) -> usize {
    usize::from(code as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeRange;

    fn check<C: Code, D: Code>(from: &QParams, to: &QParams) {
        for function in [
            ActivationFunction::Identity,
            ActivationFunction::Relu,
            ActivationFunction::RELU6,
            ActivationFunction::LeakyRelu { slope: -0.5 },
            ActivationFunction::Gelu,
            ActivationFunction::GeluTanh,
            ActivationFunction::Silu,
            ActivationFunction::HardSwish,
        ] {
            let table = ActivationTable::<C, D>::new(function, from, to).unwrap();
            for code in C::RANGE.min()..=C::RANGE.max() {
                let expected = to.quantize(function.apply(from.dequantize(code)));
                assert_eq!(table.get(C::from_clamped(code)).widen(), expected, "{function} {code}");
            }
        }
    }

    #[test]
    fn every_code_of_every_type_has_its_entry() {
        let signed = QParams::new(0.07, -20, CodeRange::I8).unwrap();
        let unsigned = QParams::new(0.03, 77, CodeRange::U8).unwrap();
        let narrow = QParams::new(0.9, 2, CodeRange::signed(4).unwrap()).unwrap();
        check::<i8, i8>(&signed, &narrow);
        check::<i8, u8>(&signed, &unsigned);
        check::<u8, i8>(&unsigned, &signed);
        check::<u8, u8>(&unsigned, &unsigned);
        check::<i8, u8>(&narrow, &unsigned);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let signed = QParams::new(0.07, -20, CodeRange::I8).unwrap();
        let unsigned = QParams::new(0.03, 77, CodeRange::U8).unwrap();
        let gelu = ActivationFunction::Gelu;
        assert!(matches!(
            ActivationTable::<u8, u8>::new(gelu, &signed, &unsigned),
            Err(ActivationError::Codes(_))
        ));
        assert!(matches!(
            ActivationTable::<i8, i8>::new(gelu, &signed, &unsigned),
            Err(ActivationError::Codes(_))
        ));
        let clamp = ActivationFunction::Clamp { min: 1.0, max: 0.0 };
        assert!(matches!(
            ActivationTable::<i8, i8>::new(clamp, &signed, &signed),
            Err(ActivationError::Clamp { .. })
        ));
        let table = ActivationTable::<i8, i8>::new(gelu, &signed, &signed).unwrap();
        assert_eq!(
            table.apply(&[1, 2], &mut [0]).unwrap_err().to_string(),
            "input and output must be of one length, got 2 and 1"
        );
    }
}
