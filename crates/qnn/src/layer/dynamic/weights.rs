//! What dynamic layers multiply by.

use qkernels::{Kernel, PackedWeights, ScaledWeights};

use crate::layer::storage::Storage;
use crate::layer::weight_codes::scaled_storage;

/// The weights of a [`DynamicLinear`](crate::DynamicLinear), packed.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a layer has one of them, and no list is made of them")]
pub enum DynamicWeights {
    /// 8 bits, with a scale for each output channel.
    PerChannel {
        /// The codes and their zero points.
        codes: PackedWeights,
        /// The scales (n).
        scales: Vec<f32>,
    },
    /// 4 bits, or a scale for each group of k, perhaps with minimums and parts.
    Scaled(ScaledWeights),
}

impl DynamicWeights {
    /// The kernel that the weights are packed for.
    pub fn kernel(&self) -> Kernel {
        match self {
            DynamicWeights::PerChannel { codes, .. } => codes.kernel(),
            DynamicWeights::Scaled(weights) => weights.kernel(),
        }
    }

    /// Bits of a code: 8 or 4.
    pub fn bits(&self) -> u32 {
        match self {
            DynamicWeights::PerChannel { .. } => 8,
            DynamicWeights::Scaled(weights) => weights.bits(),
        }
    }

    /// Consecutive k of a channel that share a scale.
    pub fn group_len(&self) -> usize {
        match self {
            DynamicWeights::PerChannel { codes, .. } => codes.k(),
            DynamicWeights::Scaled(weights) => weights.group_len(),
        }
    }

    /// The codes (n, k), row-major: i8, or 0 to 15 where they have 4 bits.
    pub fn unpack(&self) -> Vec<i8> {
        match self {
            DynamicWeights::PerChannel { codes, .. } => codes.unpack(),
            DynamicWeights::Scaled(weights) => weights.unpack(),
        }
    }

    /// The scales (n, groups), row-major.
    pub fn scales(&self) -> Vec<f32> {
        match self {
            DynamicWeights::PerChannel { scales, .. } => scales.clone(),
            DynamicWeights::Scaled(weights) => weights.scales(),
        }
    }

    /// The zero points (n, groups) of the codes, row-major; `None` where all are 0.
    pub fn zero_points(&self) -> Option<Vec<i8>> {
        match self {
            DynamicWeights::PerChannel { codes, .. } => {
                // These are codes of weights, and so in the range of i8.
                let zero_points = codes.zero_points();
                (!zero_points.is_empty()).then(|| zero_points.iter().map(|&zero| zero as i8).collect())
            }
            DynamicWeights::Scaled(weights) => weights.zero_points(),
        }
    }

    /// What is added to each real value of a group (n, groups), row-major; `None` where nothing is
    /// ([`qkernels::WeightScales::with_minimums`]).
    pub fn minimums(&self) -> Option<Vec<f32>> {
        self.scaled()?.minimums()
    }

    /// Consecutive k of a group whose scale, and minimum if there is one, is that of the group
    /// times an integer ([`qkernels::WeightScales::with_parts`]); `None` where groups have no
    /// parts.
    pub fn part_len(&self) -> Option<usize> {
        self.scaled()?.part_len()
    }

    /// The integers that scales are multiplied by (n, parts), row-major, if groups have parts.
    pub fn part_scales(&self) -> Option<Vec<i8>> {
        self.scaled()?.part_scales()
    }

    /// The integers that minimums are multiplied by (n, parts), row-major, if groups have parts and
    /// these have them.
    pub fn part_minimums(&self) -> Option<Vec<i8>> {
        self.scaled()?.part_minimums()
    }

    /// The input that each column of codes multiplies, if it is not the column's own
    /// ([`ScaledWeights::with_input_order`]). Codes and all that is of groups are in the order of
    /// columns.
    pub fn input_order(&self) -> Option<&[u32]> {
        self.scaled()?.input_order()
    }

    fn scaled(&self) -> Option<&ScaledWeights> {
        match self {
            DynamicWeights::PerChannel { .. } => None,
            DynamicWeights::Scaled(weights) => Some(weights),
        }
    }

    /// Bytes in memory: codes with their sums, scales, zero points and minimums.
    pub fn bytes(&self) -> usize {
        match self {
            DynamicWeights::PerChannel { codes, scales } => codes.bytes() + 4 * scales.len(),
            DynamicWeights::Scaled(weights) => weights.bytes(),
        }
    }

    /// The bytes that must be stored for these weights and a bias.
    pub(crate) fn storage(&self, bias: Option<&[f32]>) -> Storage {
        match self {
            DynamicWeights::PerChannel { codes, scales } => Storage {
                weights: codes.n() * codes.k(),
                scales: 4 * scales.len(),
                zero_points: codes.zero_points().len(),
                bias: 4 * bias.map_or(0, <[f32]>::len),
            },
            DynamicWeights::Scaled(weights) => scaled_storage(weights, bias),
        }
    }
}
