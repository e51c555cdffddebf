//! The float types that are quantized: f32, f16 and bf16.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A float type that can be quantized: `f32`, [`struct@f16`] or [`bf16`]. Arithmetic is done in
/// f32, which holds both half types exactly. A result is rounded to its type once, to nearest, ties
/// to even. The trait is sealed.
///
/// ```
/// use half::{bf16, f16};
/// use qcore::Float;
///
/// assert_eq!(f16::from_f32(1.5).to_f32(), Float::widen(f16::from_f32(1.5)));
/// assert_eq!(<bf16 as Float>::narrow(1.0 + 1.0 / 256.0), bf16::ONE); // a tie, to even
/// assert_eq!(<f16 as Float>::narrow(65_520.0), f16::INFINITY); // beyond f16
/// ```
pub trait Float: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// The value in f32, exactly.
    #[must_use]
    fn widen(self) -> f32;

    /// The nearest value of this type.
    #[must_use]
    fn narrow(v: f32) -> Self;

    /// The same slice, if the type is already f32.
    fn as_f32s(values: &[Self]) -> Option<&[f32]>;

    /// [`widen`](Float::widen) of as many values as the shorter slice has.
    fn widen_slice(from: &[Self], to: &mut [f32]);

    /// [`narrow`](Float::narrow) of as many values as the shorter slice has.
    fn narrow_slice(from: &[f32], to: &mut [Self]);
}

impl Float for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(v: f32) -> f32 {
        v
    }

    #[inline(always)]
    fn as_f32s(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    #[inline(always)]
    fn widen_slice(from: &[f32], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
    }

    #[inline(always)]
    fn narrow_slice(from: &[f32], to: &mut [f32]) {
        f32::widen_slice(from, to);
    }
}

/// `v` rounded to f16 without a branch, so a loop around it becomes vector code. (The `half` crate
/// checks for CPU support at every value.)
#[inline(always)]
fn to_f16(v: f32) -> f16 {
    /// The smallest normal f16, 2^-14, and the first number that rounds to infinity, 65520.
    const NORMAL: u32 = 0x3880_0000;
    const OVERFLOW: u32 = 0x477f_f000;
    const INFINITY: u32 = 0x7f80_0000;
    /// 0.5 has the same unit in the last place as the subnormals of f16, 2^-24, so adding it rounds
    /// to them.
    const HALF: f32 = 0.5;
    let sign = v.to_bits() >> 16 & 0x8000;
    let magnitude = v.to_bits() & 0x7fff_ffff;
    let subnormal = (f32::from_bits(magnitude) + HALF).to_bits().wrapping_sub(HALF.to_bits());
    // The exponent bias changes from 127 to 15. Adding half a unit less one, plus the last bit that
    // is kept, rounds ties to even.
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
    let nan = 0x7e00 | (magnitude >> 13 & 0x1ff);
    let finite = if magnitude < NORMAL { subnormal } else { normal };
    let bits = if magnitude >= OVERFLOW { 0x7c00 } else { finite };
    let bits = if magnitude > INFINITY { nan } else { bits };
    f16::from_bits((bits | sign) as u16)
}

/// `v` rounded to bf16, without a branch like [`to_f16`].
#[inline(always)]
fn to_bf16(v: f32) -> bf16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    bf16::from_bits(if v.is_nan() { nan } else { rounded } as u16)
}

macro_rules! half {
    ($half:ty, $narrow:ident) => {
        impl Float for $half {
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            fn narrow(v: f32) -> $half {
                $narrow(v)
            }

            #[inline(always)]
            fn as_f32s(_: &[$half]) -> Option<&[f32]> {
                None
            }

            #[inline(always)]
            fn widen_slice(from: &[$half], to: &mut [f32]) {
                // `half` panics if the lengths differ. It uses the conversion of the CPU where
                // there is one.
                let n = from.len().min(to.len());
                from[..n].convert_to_f32_slice(&mut to[..n]);
            }

            #[inline(always)]
            fn narrow_slice(from: &[f32], to: &mut [$half]) {
                let n = from.len().min(to.len());
                to[..n].convert_from_f32_slice(&from[..n]);
            }
        }
    };
}

half!(f16, to_f16);
half!(bf16, to_bf16);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<F: Float + PartialEq + std::fmt::Debug>(all: impl Iterator<Item = F>) {
        let all: Vec<F> = all.collect();
        let mut widened = vec![0.0; all.len()];
        F::widen_slice(&all, &mut widened);
        let mut back = vec![F::default(); all.len()];
        F::narrow_slice(&widened, &mut back);
        for ((&v, &wide), &back) in all.iter().zip(&widened).zip(&back) {
            assert_eq!(v.widen().to_bits(), wide.to_bits());
            assert!(v == back || (wide.is_nan() && back.widen().is_nan()));
            assert!(F::narrow(wide) == back || wide.is_nan());
        }
        F::widen_slice(&all[..3], &mut widened[..2]);
        F::narrow_slice(&widened[..2], &mut back[..3]);
    }

    #[test]
    fn narrowing_is_that_of_the_half_crate() {
        // Every sign, every exponent and all leading mantissa bits, each with low bits at a tie and
        // next to one.
        for high in 0..=u16::MAX {
            for low in [0, 1, 0xfff, 0x1000, 0x1001, 0x2000, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let v = f32::from_bits(u32::from(high) << 16 | low);
                assert_eq!(f16::narrow(v).to_bits(), f16::from_f32(v).to_bits(), "{v:e} {:x}", v.to_bits());
                assert_eq!(bf16::narrow(v).to_bits(), bf16::from_f32(v).to_bits(), "{v:e} {:x}", v.to_bits());
            }
        }
        for tie in 0..=0x8000u32 {
            // Between two neighbouring subnormal halves.
            let v = (f64::from(tie) + 0.5) * f64::from(2.0f32.powi(-24));
            for v in [v as f32, (v as f32).next_up(), (v as f32).next_down()] {
                assert_eq!(f16::narrow(v).to_bits(), f16::from_f32(v).to_bits(), "{v:e}");
            }
        }
    }

    #[test]
    fn every_half_survives() {
        check((0..=u16::MAX).map(f16::from_bits));
        check((0..=u16::MAX).map(bf16::from_bits));
        check([0.0, 1.0, -1e38, f32::INFINITY].into_iter());
    }
}
