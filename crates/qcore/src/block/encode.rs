//! Blocks put together of codes and scales: what `decode.rs` takes apart.

use half::f16;

use super::decode::{BlockError, BlockGroup};
use super::format::BlockFormat;

impl BlockFormat {
    /// Puts blocks of `Q8_0` or `Q4_0` together, whose codes and groups are what
    /// [`unpack`](Self::unpack) gives: the same bytes again. Nothing is rounded.
    ///
    /// ```
    /// use qcore::{BlockFormat, BlockGroup};
    /// let mut codes = [8i8; 32]; // the zero point of Q4_0
    /// (codes[0], codes[16]) = (15, 9);
    /// let mut block = [0u8; 18];
    /// BlockFormat::Q4_0.pack(&codes, &[BlockGroup { scale: 0.5, minimum: 0.0 }], &mut block)?;
    /// assert_eq!(block[..4], [0x00, 0x38, 0x9f, 0x88]);
    /// # Ok::<(), qcore::BlockError>(())
    /// ```
    ///
    /// # Errors
    /// [`BlockError`] if the format is another one, the bytes are no whole number of blocks, a
    /// slice does not have exactly the length of what they hold, a code is none of the format, a
    /// scale is NaN or not exact in f16, or a minimum is not 0. What the bytes are is not specified
    /// then.
    pub fn pack(self, codes: &[i8], groups: &[BlockGroup], bytes: &mut [u8]) -> Result<(), BlockError> {
        if !matches!(self, BlockFormat::Q8_0 | BlockFormat::Q4_0) {
            return Err(BlockError::NotPacked { format: self });
        }
        let blocks = self.blocks(bytes)?;
        self.check_len(blocks, "codes", self.block_len(), codes.len())?;
        self.check_len(blocks, "groups", 1, groups.len())?;
        if let (BlockFormat::Q4_0, Some(at)) = (self, codes.iter().position(|code| !(0..16).contains(code))) {
            return Err(BlockError::Code { format: self, at, code: codes[at] });
        }
        let codes = codes.chunks_exact(self.block_len());
        let blocks = bytes.chunks_exact_mut(self.block_bytes());
        for (at, ((block, codes), &group)) in blocks.zip(codes).zip(groups).enumerate() {
            let BlockGroup { scale, minimum } = group;
            if minimum != 0.0 {
                return Err(BlockError::Minimum { format: self, group: at, minimum });
            }
            let half = f16::from_f32(scale);
            // No NaN is equal to itself: its bits need not survive.
            if half.to_f32() != scale {
                return Err(BlockError::Scale { format: self, group: at, scale });
            }
            let (of_scale, of_codes) = block.split_at_mut(2);
            of_scale.copy_from_slice(&half.to_le_bytes());
            pack_codes(codes, of_codes);
        }
        Ok(())
    }
}

/// Codes to as many bytes, or to half as many: the first half of them are low bits, the others high
/// ones.
fn pack_codes(codes: &[i8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for (byte, &code) in bytes.iter_mut().zip(low) {
        *byte = code.cast_unsigned();
    }
    for (byte, &code) in bytes.iter_mut().zip(high) {
        *byte |= code.cast_unsigned() << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(
        format: BlockFormat,
        codes: &[i8],
        groups: &[BlockGroup],
        len: usize,
    ) -> Result<(), BlockError> {
        format.pack(codes, groups, &mut vec![0; len])
    }

    #[test]
    fn every_half_but_nan_and_every_code_come_back() {
        for format in [BlockFormat::Q8_0, BlockFormat::Q4_0] {
            let all = if format == BlockFormat::Q8_0 { i8::MIN..=i8::MAX } else { 0..=15 };
            let all: Vec<i8> = all.cycle().take(256).collect();
            for half in 0..=u16::MAX {
                // Every code at every place, in time.
                let at = usize::from(half % 224);
                let codes = &all[at..at + 32];
                let group = BlockGroup { scale: f16::from_bits(half).to_f32(), minimum: 0.0 };
                let mut block = vec![0xa5; format.block_bytes()];
                let result = format.pack(codes, &[group], &mut block);
                if group.scale.is_nan() {
                    assert!(matches!(result, Err(BlockError::Scale { group: 0, .. })), "{half:#x}");
                    continue;
                }
                assert_eq!((result, &block[..2]), (Ok(()), &half.to_le_bytes()[..]), "{half:#x}");
                let (mut codes_again, mut groups) = ([0; 32], [BlockGroup::default()]);
                format.unpack(&block, &mut codes_again, &mut groups).unwrap();
                assert_eq!((&codes_again[..], groups[0].scale.to_bits()), (codes, group.scale.to_bits()));
            }
        }
    }

    #[test]
    fn what_makes_no_blocks_is_refused() {
        let ones = vec![BlockGroup { scale: 1.0, minimum: 0.0 }; 3];
        for format in BlockFormat::ALL {
            let (bytes, codes) = (3 * format.block_bytes(), vec![1; 3 * format.block_len()]);
            if !matches!(format, BlockFormat::Q8_0 | BlockFormat::Q4_0) {
                assert_eq!(packed(format, &codes, &ones, bytes), Err(BlockError::NotPacked { format }));
                continue;
            }
            assert_eq!(packed(format, &codes, &ones, bytes), Ok(()));
            assert_eq!(packed(format, &[], &[], 0), Ok(()));
            let error = packed(format, &codes, &ones, bytes - 1);
            assert!(matches!(error, Err(BlockError::Bytes { .. })), "{error:?}");
            for error in
                [packed(format, &codes[1..], &ones, bytes), packed(format, &codes, &ones[1..], bytes)]
            {
                assert!(matches!(error, Err(BlockError::Length { blocks: 3, .. })), "{error:?}");
            }
            // 1 and a bit more than f16 has, and more than its largest.
            for scale in [1.0 + f32::EPSILON, 65_520.0, 1e-9, f32::NAN] {
                let mut groups = ones.clone();
                groups[2].scale = scale;
                let error = packed(format, &codes, &groups, bytes).unwrap_err();
                assert!(matches!(error, BlockError::Scale { group: 2, .. }), "{error}");
            }
            let mut groups = ones.clone();
            groups[1].minimum = -0.5;
            let error = packed(format, &codes, &groups, bytes);
            assert_eq!(error, Err(BlockError::Minimum { format, group: 1, minimum: -0.5 }));
        }
        for code in [-1, 16, i8::MIN, i8::MAX] {
            let mut codes = vec![0; 32];
            codes[7] = code;
            let format = BlockFormat::Q4_0;
            let error = packed(format, &codes, &ones[..1], 18);
            assert_eq!(error, Err(BlockError::Code { format, at: 7, code }));
        }
    }
}
