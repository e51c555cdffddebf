//! Blocks taken apart into codes, scales and minima, and the values that these stand for.

use half::f16;
use thiserror::Error;

use super::format::BlockFormat;

/// The scale of some consecutive values, and what is added to each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BlockGroup {
    /// What codes less their zero point are multiplied by. It may have any sign, and be infinite or
    /// NaN if the file says so.
    pub scale: f32,
    /// What is added; 0 in formats without a minimum.
    pub minimum: f32,
}

/// Slices do not fit the blocks of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes are no whole number of blocks.
    #[error("{bytes} bytes are no whole number of {format} blocks of {block_bytes}")]
    Bytes {
        /// The format.
        format: BlockFormat,
        /// Bytes of a block.
        block_bytes: usize,
        /// Bytes given.
        bytes: usize,
    },
    /// There is not room for exactly what the blocks hold.
    #[error("{blocks} blocks of {format} hold {expected} {what}, the slice has {got}")]
    Length {
        /// The format.
        format: BlockFormat,
        /// How many blocks there are.
        blocks: usize,
        /// Codes, groups or values.
        what: &'static str,
        /// Their number.
        expected: usize,
        /// The length of the slice.
        got: usize,
    },
}

/// The most groups of a block.
const MOST_GROUPS: usize = 16;

/// The most values of a block.
const MOST_VALUES: usize = 256;

impl BlockFormat {
    /// Takes blocks apart: a code for each value, as it is stored, and a scale and minimum for each
    /// group of [`group_len`](Self::group_len) values.
    ///
    /// ```
    /// use qcore::{BlockFormat, BlockGroup};
    /// let mut block = [0u8; 34];
    /// (block[1], block[2]) = (0x3c, 0xff); // scale 1
    /// let (mut codes, mut groups) = ([0i8; 32], [BlockGroup::default(); 1]);
    /// BlockFormat::Q8_0.unpack(&block, &mut codes, &mut groups)?;
    /// assert_eq!((codes[0], groups[0].scale), (-1, 1.0));
    /// # Ok::<(), qcore::BlockError>(())
    /// ```
    ///
    /// # Errors
    /// [`BlockError`] if the bytes are no whole number of blocks, or a slice does not have exactly
    /// the length of what they hold.
    pub fn unpack(self, bytes: &[u8], codes: &mut [i8], groups: &mut [BlockGroup]) -> Result<(), BlockError> {
        let blocks = self.blocks(bytes)?;
        self.check_len(blocks, "codes", self.block_len(), codes.len())?;
        let groups_of_block = self.block_len() / self.group_len();
        self.check_len(blocks, "groups", groups_of_block, groups.len())?;
        let codes = codes.chunks_exact_mut(self.block_len());
        let groups = groups.chunks_exact_mut(groups_of_block);
        for ((block, codes), groups) in bytes.chunks_exact(self.block_bytes()).zip(codes).zip(groups) {
            self.unpack_block(block, codes, groups);
        }
        Ok(())
    }

    /// The values that blocks stand for, as [`BlockFormat`] says.
    ///
    /// # Errors
    /// As [`unpack`](Self::unpack).
    pub fn dequantize(self, bytes: &[u8], values: &mut [f32]) -> Result<(), BlockError> {
        let blocks = self.blocks(bytes)?;
        self.check_len(blocks, "values", self.block_len(), values.len())?;
        let (mut codes, mut groups) = ([0; MOST_VALUES], [BlockGroup::default(); MOST_GROUPS]);
        let codes = &mut codes[..self.block_len()];
        let groups = &mut groups[..self.block_len() / self.group_len()];
        let zero_point = i32::from(self.zero_point());
        let values = values.chunks_exact_mut(self.block_len());
        for (block, values) in bytes.chunks_exact(self.block_bytes()).zip(values) {
            self.unpack_block(block, codes, groups);
            let groups_of = codes.chunks_exact(self.group_len()).zip(&*groups);
            for ((codes, group), values) in groups_of.zip(values.chunks_exact_mut(self.group_len())) {
                for (value, &code) in values.iter_mut().zip(codes) {
                    let scaled = group.scale * (i32::from(code) - zero_point) as f32;
                    *value = if self.has_minimum() { scaled + group.minimum } else { scaled };
                }
            }
        }
        Ok(())
    }

    /// How many blocks `bytes` are.
    fn blocks(self, bytes: &[u8]) -> Result<usize, BlockError> {
        let block_bytes = self.block_bytes();
        match bytes.len().is_multiple_of(block_bytes) {
            true => Ok(bytes.len() / block_bytes),
            false => Err(BlockError::Bytes { format: self, block_bytes, bytes: bytes.len() }),
        }
    }

    fn check_len(self, blocks: usize, what: &'static str, each: usize, got: usize) -> Result<(), BlockError> {
        // A block is longer than the values it holds divided by 2, so this does not overflow.
        let expected = blocks * each;
        match got == expected {
            true => Ok(()),
            false => Err(BlockError::Length { format: self, blocks, what, expected, got }),
        }
    }

    /// One block, with slices of the lengths that it has.
    fn unpack_block(self, block: &[u8], codes: &mut [i8], groups: &mut [BlockGroup]) {
        match self {
            BlockFormat::Q8_0 => {
                groups[0].scale = half_at(block, 0);
                for (code, &byte) in codes.iter_mut().zip(&block[2..]) {
                    *code = byte.cast_signed();
                }
            }
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 | BlockFormat::Q5_1 => {
                groups[0].scale = half_at(block, 0);
                let mut rest = &block[2..];
                if self.has_minimum() {
                    groups[0].minimum = half_at(block, 2);
                    rest = &rest[2..];
                }
                let high = match rest.len() {
                    20 => {
                        let high = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
                        rest = &rest[4..];
                        high
                    }
                    _ => 0,
                };
                unpack_halves(rest, codes);
                for (j, code) in codes.iter_mut().enumerate() {
                    *code |= ((high >> j & 1) as i8) << 4;
                }
            }
            BlockFormat::Q4K | BlockFormat::Q5K => {
                let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
                for (j, group) in groups.iter_mut().enumerate() {
                    let (scale_code, minimum_code) = six_bits(&block[4..16], j);
                    group.scale = scale * f32::from(scale_code);
                    group.minimum = -(minimum * f32::from(minimum_code));
                }
                let (high, low) = block[16..].split_at(block.len() - 16 - 128);
                for (low, codes) in low.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
                    unpack_halves(low, codes);
                }
                // Bit j of byte l is the fifth one of value l of group j.
                for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
                    for (code, bits) in codes.iter_mut().zip(high) {
                        *code |= ((bits >> j & 1) as i8) << 4;
                    }
                }
            }
            BlockFormat::Q6K => {
                let scale = half_at(block, 208);
                for (group, code) in groups.iter_mut().zip(&block[192..208]) {
                    group.scale = scale * f32::from(code.cast_signed());
                }
                let (low, high) = (&block[..128], &block[128..192]);
                for ((low, high), codes) in
                    low.chunks_exact(64).zip(high.chunks_exact(32)).zip(codes.chunks_exact_mut(128))
                {
                    unpack_halves(low, codes);
                    // Two bits of each byte for each quarter.
                    for (quarter, codes) in codes.chunks_exact_mut(32).enumerate() {
                        for (code, bits) in codes.iter_mut().zip(high) {
                            *code |= ((bits >> (2 * quarter) & 3) as i8) << 4;
                        }
                    }
                }
            }
        }
    }
}

/// The f16 at a byte.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low halves of all bytes, then the high ones.
fn unpack_halves(bytes: &[u8], codes: &mut [i8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = (byte & 15).cast_signed();
        *high = (byte >> 4).cast_signed();
    }
}

/// Scale and minimum of group `j` of 8, of 6 bits each: those of the first four groups are the low
/// bits of eight bytes, and their upper two bits are those of the other groups.
fn six_bits(bytes: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        return (bytes[j] & 63, bytes[j + 4] & 63);
    }
    let low = bytes[j + 4];
    ((low & 15) | (bytes[j - 4] >> 6) << 4, (low >> 4) | (bytes[j] >> 6) << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_other_lengths_are_refused() {
        for format in BlockFormat::ALL {
            let (bytes, len) = (vec![0xa5; 3 * format.block_bytes()], 3 * format.block_len());
            let groups = len / format.group_len();
            let unpack = |bytes: &[u8], len, groups| {
                format.unpack(bytes, &mut vec![0; len], &mut vec![BlockGroup::default(); groups])
            };
            assert_eq!(unpack(&bytes, len, groups), Ok(()));
            assert_eq!(unpack(&[], 0, 0), Ok(()));
            assert!(matches!(unpack(&bytes[1..], len, groups), Err(BlockError::Bytes { .. })));
            for (len, groups) in [(len - 1, groups), (len + 1, groups), (len, groups + 1), (len, groups - 1)]
            {
                assert!(matches!(unpack(&bytes, len, groups), Err(BlockError::Length { .. })));
            }
            assert!(format.dequantize(&bytes, &mut vec![0.0; len]).is_ok());
            assert!(format.dequantize(&bytes, &mut vec![0.0; len + 1]).is_err());
        }
    }

    /// Each value depends on its own bits alone: those of a code change one value.
    #[test]
    fn every_bit_of_a_code_belongs_to_one_value() {
        for format in BlockFormat::ALL {
            let zeros = vec![0; format.block_bytes()];
            let codes_of = |block: &[u8]| {
                let mut codes = vec![0; format.block_len()];
                let groups = format.block_len() / format.group_len();
                format.unpack(block, &mut codes, &mut vec![BlockGroup::default(); groups]).unwrap();
                codes
            };
            let mut seen = vec![0_u8; format.block_len()];
            for at in 0..8 * format.block_bytes() {
                let mut block = zeros.clone();
                block[at / 8] = 1 << (at % 8);
                let codes = codes_of(&block);
                let changed: Vec<_> = (0..codes.len()).filter(|&i| codes[i] != 0).collect();
                assert!(changed.len() <= 1, "{format}, bit {at}");
                for i in changed {
                    assert_eq!(seen[i] & codes[i].cast_unsigned(), 0, "{format}, bit {at}");
                    seen[i] |= codes[i].cast_unsigned();
                }
            }
            let bits = match format {
                BlockFormat::Q8_0 => 8,
                BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K => 4,
                BlockFormat::Q6K => 6,
                _ => 5,
            };
            assert!(seen.iter().all(|seen| u32::from(*seen) == (1 << bits) - 1), "{format}");
        }
    }
}
