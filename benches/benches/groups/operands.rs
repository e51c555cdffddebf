//! Weights of every format, made of the same codes and scales.

use qbenches::{bytes, codes};
use qkernels::{Kernel, MatRef, PackedNibbles, PackedWeights, ScaledWeights, WeightScales};

use crate::format::Format;
use crate::{ACTIVATIONS, Result};

/// What weights are made of.
pub(crate) struct Operands {
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// (n, k), as codes of 8 bits. Those of 4 bits are their lower halves.
    pub(crate) codes: Vec<i8>,
    /// As many as the smallest groups need.
    pub(crate) scales: Vec<f32>,
    /// As many as the smallest parts need. Minimums of parts are the same ones.
    pub(crate) part_scales: Vec<i8>,
}

/// The codes packed for a kernel.
pub(crate) struct Packed {
    pub(crate) bytes: PackedWeights,
    nibbles: PackedNibbles,
}

impl Operands {
    pub(crate) fn new(n: usize, k: usize) -> Self {
        // As in files, these are f16.
        let scales = bytes(n * k.div_ceil(32), 2)
            .into_iter()
            .map(|byte| (256.0 + f32::from(byte)) / f32::from(1u16 << 15) / 8.0);
        Self {
            n,
            k,
            codes: codes(n * k, 1),
            scales: scales.collect(),
            part_scales: bytes(n * k.div_ceil(16), 3).into_iter().map(|byte| (byte & 63) as i8).collect(),
        }
    }

    /// The code of an element of 4 bits.
    pub(crate) fn nibble(code: i8) -> u8 {
        code.cast_unsigned() & 15
    }

    pub(crate) fn pack(&self, kernel: Kernel) -> Result<Packed> {
        let nibbles: Vec<u8> = self.codes.iter().copied().map(Self::nibble).collect();
        Ok(Packed {
            bytes: PackedWeights::from_nk(MatRef::new(&self.codes, self.n, self.k)?, kernel)?,
            nibbles: PackedNibbles::from_nk(MatRef::new(&nibbles, self.n, self.k)?, kernel)?,
        })
    }

    /// Weights of 8 bits or of 4, as the format says.
    pub(crate) fn weights(&self, packed: &Packed, format: &Format) -> Result<ScaledWeights> {
        let groups = self.n * self.k.div_ceil(format.group_len);
        let parts = self.n * self.k.div_ceil(format.part_len);
        let mut scales = WeightScales::per_group(&self.scales[..groups], format.group_len);
        let zero_points = format.zero_point().map(|of_all| vec![of_all; groups]);
        if let Some(zero_points) = &zero_points {
            scales = scales.with_zero_points(zero_points);
        }
        if format.minimums {
            scales = scales.with_minimums(&self.scales[..groups]);
        }
        if format.has_parts() {
            scales = scales.with_parts(format.part_len, &self.part_scales[..parts]);
            if format.minimums {
                scales = scales.with_part_minimums(&self.part_scales[..parts]);
            }
        }
        let w = match format.bits {
            8 => ScaledWeights::new(packed.bytes.clone(), scales)?,
            _ => ScaledWeights::of_nibbles(packed.nibbles.clone(), scales)?,
        };
        Ok(w.for_activations(ACTIVATIONS))
    }
}
