//! Floats of groups, scales and minimums, in the precision that holds them.

use half::f16;

use crate::cpu::vectorize::Task;

/// Some floats for each group, those of a panel's columns, as f32 or as the bits of f16. All are
/// finite.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GroupFloats<'t> {
    F32(&'t [f32]),
    F16(&'t [u16]),
}

impl<'t> GroupFloats<'t> {
    pub(crate) fn len(self) -> usize {
        match self {
            GroupFloats::F32(floats) => floats.len(),
            GroupFloats::F16(floats) => floats.len(),
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Those of `range`, or none.
    pub(crate) fn range(self, range: core::ops::Range<usize>) -> Self {
        match self {
            GroupFloats::F32(floats) => GroupFloats::F32(floats.get(range).unwrap_or_default()),
            GroupFloats::F16(floats) => GroupFloats::F16(floats.get(range).unwrap_or_default()),
        }
    }

    /// A float; 0 behind the last one.
    #[inline(always)]
    pub(crate) fn at(self, index: usize) -> f32 {
        match self {
            GroupFloats::F32(floats) => floats.get(index).copied().unwrap_or_default(),
            GroupFloats::F16(floats) => floats.get(index).copied().map_or(0.0, widen),
        }
    }
}

/// Widens finite f16, given by their bits.
pub(crate) struct Widen<'t>(pub(crate) &'t [u16], pub(crate) &'t mut [f32]);

impl Task for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.1.iter_mut().zip(self.0).for_each(|(to, &bits)| *to = widen(bits));
    }
}

/// 2^112, by which the exponents of f32 and f16 differ.
pub(crate) const EXPONENT_GAP: f32 = f32::from_bits((127 + 112) << 23);

/// The value of finite f16, given by its bits: moved to where f32 has exponent and fraction, it is
/// too small by the difference of the exponents, subnormals as well. Vectors do the same.
#[inline(always)]
pub(crate) fn widen(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * EXPONENT_GAP;
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

/// Floats of all panels, in the lesser precision if it holds each of them.
#[derive(Clone, Debug)]
pub(crate) enum OwnFloats {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

impl OwnFloats {
    /// Finite values as they are.
    pub(crate) fn new(values: Vec<f32>) -> Self {
        let halves = || {
            values.iter().map(|&value| {
                let bits = f16::from_f32(value).to_bits();
                (bits & 0x7c00 != 0x7c00 && widen(bits).to_bits() == value.to_bits()).then_some(bits)
            })
        };
        match halves().collect() {
            Some(halves) => OwnFloats::F16(halves),
            None => OwnFloats::F32(values),
        }
    }

    pub(crate) fn view(&self) -> GroupFloats<'_> {
        match self {
            OwnFloats::F32(values) => GroupFloats::F32(values),
            OwnFloats::F16(values) => GroupFloats::F16(values),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            OwnFloats::F32(values) => size_of_val(&values[..]),
            OwnFloats::F16(values) => size_of_val(&values[..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            if value.is_finite() {
                assert_eq!(widen(bits).to_bits(), value.to_f32().to_bits(), "{bits:#x}");
            }
        }
    }

    #[test]
    fn one_value_that_f16_does_not_hold_makes_all_f32() {
        let smallest = 2f32.powi(-24);
        let values = [1.5, -0.0, smallest, 65504.0];
        let halves = OwnFloats::new(values.to_vec());
        assert!(matches!(halves, OwnFloats::F16(_)) && halves.bytes() == 8);
        let back: [f32; 4] = core::array::from_fn(|at| halves.view().at(at));
        assert_eq!(back.map(f32::to_bits), values.map(f32::to_bits));
        for other in [65520.0, 0.1, 1e-9, f32::MIN_POSITIVE, f32::MAX] {
            let floats = OwnFloats::new(vec![1.0, other]);
            assert!(matches!(floats, OwnFloats::F32(_)), "{other}");
            assert_eq!(floats.view().at(1), other);
        }
    }
}
