//! Blocks taken apart into codes, scales and minima, and the values that these stand for.

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

/// The integers that scale and minimum of a block are multiplied by for some of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockPart {
    /// What the scale is multiplied by: 0 to 63, or any sign in `Q6_K`.
    pub scale: i8,
    /// What the minimum is multiplied by, 0 to 63; 0 in formats without a minimum.
    pub minimum: i8,
}

/// Slices, or what is in them, do not fit the blocks of a format.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
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
        /// Codes, groups, parts or values.
        what: &'static str,
        /// Their number.
        expected: usize,
        /// The length of the slice.
        got: usize,
    },
    /// The scales of the format are no products.
    #[error("{format} blocks have no parts, whose scales are integers times that of the block")]
    NoParts {
        /// The format.
        format: BlockFormat,
    },
    /// Blocks of the format are not made here.
    #[error("{format} blocks are only read; Q8_0 and Q4_0 blocks are made")]
    NotPacked {
        /// The format.
        format: BlockFormat,
    },
    /// A code does not fit the format.
    #[error("code {at} is {code}, which {format} does not have")]
    Code {
        /// The format.
        format: BlockFormat,
        /// Its index among all codes.
        at: usize,
        /// The code.
        code: i8,
    },
    /// A scale is NaN, or would be rounded.
    #[error("the scale of group {group} is {scale:?}, which is not exact in the f16 of {format}")]
    Scale {
        /// The format.
        format: BlockFormat,
        /// Its index among all groups.
        group: usize,
        /// The scale.
        scale: f32,
    },
    /// A group has a minimum, for which blocks have no place.
    #[error("the minimum of group {group} is {minimum:?}, and {format} has none")]
    Minimum {
        /// The format.
        format: BlockFormat,
        /// Its index among all groups.
        group: usize,
        /// The minimum.
        minimum: f32,
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

    /// Takes blocks apart where scales are products: a code for each value, as it is stored, one
    /// group for each block, and a part for each [`part_len`](Self::part_len) values. A value is
    /// `scale * part.scale * (code - zero_point) + minimum * part.minimum`, and the products of two
    /// scales, rounded to f32, are the scales that [`unpack`](Self::unpack) gives.
    ///
    /// ```
    /// use qcore::{BlockFormat, BlockGroup, BlockPart};
    /// let mut block = [0u8; 144];
    /// (block[1], block[3]) = (0x38, 0x3c); // scale 0.5, and a minimum of 1 to be subtracted
    /// (block[4], block[8]) = (3, 7); // those of the first part are 3 and 7 times as large
    /// let (mut codes, mut groups) = ([0i8; 256], [BlockGroup::default(); 1]);
    /// let mut parts = [BlockPart::default(); 8];
    /// BlockFormat::Q4K.unpack_parts(&block, &mut codes, &mut groups, &mut parts)?;
    /// assert_eq!(groups[0], BlockGroup { scale: 0.5, minimum: -1.0 });
    /// assert_eq!(parts[0], BlockPart { scale: 3, minimum: 7 });
    /// # Ok::<(), qcore::BlockError>(())
    /// ```
    ///
    /// # Errors
    /// [`BlockError`] if the format has no parts, the bytes are no whole number of blocks, or a
    /// slice does not have exactly the length of what they hold.
    pub fn unpack_parts(
        self,
        bytes: &[u8],
        codes: &mut [i8],
        groups: &mut [BlockGroup],
        parts: &mut [BlockPart],
    ) -> Result<(), BlockError> {
        let part_len = self.part_len().ok_or(BlockError::NoParts { format: self })?;
        let blocks = self.blocks(bytes)?;
        self.check_len(blocks, "codes", self.block_len(), codes.len())?;
        self.check_len(blocks, "groups", 1, groups.len())?;
        let parts_of_block = self.block_len() / part_len;
        self.check_len(blocks, "parts", parts_of_block, parts.len())?;
        let codes = codes.chunks_exact_mut(self.block_len());
        let parts = parts.chunks_exact_mut(parts_of_block);
        let blocks = bytes.chunks_exact(self.block_bytes());
        for (((block, codes), group), parts) in blocks.zip(codes).zip(groups).zip(parts) {
            self.codes(block, codes);
            let (scale, minimum) = self.scale_and_minimum(block);
            *group = BlockGroup { scale, minimum: if self.has_minimum() { -minimum } else { 0.0 } };
            for (j, part) in parts.iter_mut().enumerate() {
                *part = self.part(block, j);
            }
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
    pub(super) fn blocks(self, bytes: &[u8]) -> Result<usize, BlockError> {
        let block_bytes = self.block_bytes();
        match bytes.len().is_multiple_of(block_bytes) {
            true => Ok(bytes.len() / block_bytes),
            false => Err(BlockError::Bytes { format: self, block_bytes, bytes: bytes.len() }),
        }
    }

    pub(super) fn check_len(
        self,
        blocks: usize,
        what: &'static str,
        each: usize,
        got: usize,
    ) -> Result<(), BlockError> {
        // A block is longer than the values it holds divided by 2, so this does not overflow.
        let expected = blocks * each;
        match got == expected {
            true => Ok(()),
            false => Err(BlockError::Length { format: self, blocks, what, expected, got }),
        }
    }

    /// One block, with slices of the lengths that it has.
    fn unpack_block(self, block: &[u8], codes: &mut [i8], groups: &mut [BlockGroup]) {
        self.codes(block, codes);
        let (scale, minimum) = self.scale_and_minimum(block);
        if self.part_len().is_none() {
            groups.fill(BlockGroup { scale, minimum });
            return;
        }
        for (j, group) in groups.iter_mut().enumerate() {
            let part = self.part(block, j);
            let minimum = if self.has_minimum() { -(minimum * f32::from(part.minimum)) } else { 0.0 };
            *group = BlockGroup { scale: scale * f32::from(part.scale), minimum };
        }
    }
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

    #[test]
    fn parts_of_other_lengths_and_of_other_formats_are_refused() {
        for format in BlockFormat::ALL {
            let (bytes, len) = (vec![0xa5; 3 * format.block_bytes()], 3 * format.block_len());
            let unpack = |bytes: &[u8], len, groups, parts| {
                let (mut codes, mut parts) = (vec![0; len], vec![BlockPart::default(); parts]);
                format.unpack_parts(bytes, &mut codes, &mut vec![BlockGroup::default(); groups], &mut parts)
            };
            let Some(part_len) = format.part_len() else {
                assert_eq!(unpack(&bytes, len, 3, 3), Err(BlockError::NoParts { format }));
                continue;
            };
            let parts = len / part_len;
            assert_eq!(unpack(&bytes, len, 3, parts), Ok(()));
            assert_eq!(unpack(&[], 0, 0, 0), Ok(()));
            assert!(matches!(unpack(&bytes[1..], len, 3, parts), Err(BlockError::Bytes { .. })));
            for (len, groups, parts) in
                [(len - 1, 3, parts), (len, 2, parts), (len, 3, parts - 1), (len, 3, parts + 1)]
            {
                let error = unpack(&bytes, len, groups, parts);
                assert!(matches!(error, Err(BlockError::Length { blocks: 3, .. })), "{error:?}");
            }
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
