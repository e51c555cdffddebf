//! Passes over the per-channel operands of a product, compiled for a kernel's vector level. Beside
//! the products of a single row their time counts.

use crate::cpu::vectorize::Task;

/// Computes the constants added to the sums of some channels: `bias - origin * sum_k w`, wrapping.
pub(crate) struct Offsets<'t> {
    /// Zero point of the activations plus the shift of their codes.
    pub(crate) origin: i32,
    /// `sum_k w` of each channel.
    pub(crate) sums: &'t [i32],
    /// As many entries, or none.
    pub(crate) bias: Option<&'t [i32]>,
    /// As many entries.
    pub(crate) offsets: &'t mut [i32],
}

impl Task for Offsets<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { origin, sums, bias, offsets } = self;
        let term = |sum: i32| origin.wrapping_mul(sum).wrapping_neg();
        let offsets = offsets.iter_mut().zip(sums);
        match bias {
            None => offsets.for_each(|(offset, &sum)| *offset = term(sum)),
            Some(bias) => {
                offsets.zip(bias).for_each(|((offset, &sum), bias)| *offset = bias.wrapping_add(term(sum)));
            }
        }
    }
}

/// The bits that any of these values has in its magnitude. Together they bound all of the values,
/// and they are found faster than the largest value.
pub(crate) struct Bits<'t>(pub(crate) &'t [i32]);

impl Task for Bits<'_> {
    type Output = u32;

    #[inline(always)]
    fn run(self) -> u32 {
        self.0.iter().fold(0, |bits, value| bits | value.unsigned_abs())
    }
}

/// Whether none of these values is above 1/2 in magnitude.
pub(crate) struct AllSmall<'t>(pub(crate) &'t [f32]);

impl Task for AllSmall<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        self.0.iter().fold(true, |small, factor| small & (factor.abs() <= 0.5))
    }
}

/// The largest magnitude among these values, none of which is NaN; 0 if there are none.
pub(crate) struct Largest<'t>(pub(crate) &'t [f32]);

impl Task for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        // The larger of two positive floats has the larger bits, and the maximum of integers is
        // vector code.
        f32::from_bits(self.0.iter().fold(0, |largest, value| largest.max(value.abs().to_bits())))
    }
}
