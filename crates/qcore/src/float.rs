//! The floats that are quantized: f32, and the two halves.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A type of values: `f32`, [`struct@f16`] or [`bf16`]. Arithmetic is done in f32, which holds either half exactly;
/// results are rounded to the type once, to nearest, ties to even. Sealed.
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
    fn widen_slice(from: &[f32], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
    }

    #[inline(always)]
    fn narrow_slice(from: &[f32], to: &mut [f32]) {
        f32::widen_slice(from, to);
    }
}

macro_rules! half {
    ($half:ty) => {
        impl Float for $half {
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            fn narrow(v: f32) -> $half {
                <$half>::from_f32(v)
            }

            #[inline(always)]
            fn widen_slice(from: &[$half], to: &mut [f32]) {
                // `half` panics where lengths differ, and uses the CPU's conversion where it has one.
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

half!(f16);
half!(bf16);

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
    fn every_half_survives() {
        check((0..=u16::MAX).map(f16::from_bits));
        check((0..=u16::MAX).map(bf16::from_bits));
        check([0.0, 1.0, -1e38, f32::INFINITY].into_iter());
    }
}
