//! Where codes, scales and minima are in the bytes of a block.

use half::f16;

use super::decode::BlockPart;
use super::format::BlockFormat;

impl BlockFormat {
    /// The scale of a block, and its minimum as it is stored; 0 in formats without one.
    pub(super) fn scale_and_minimum(self, block: &[u8]) -> (f32, f32) {
        match self {
            BlockFormat::Q6K => (half_at(block, 208), 0.0),
            _ if self.has_minimum() => (half_at(block, 0), half_at(block, 2)),
            _ => (half_at(block, 0), 0.0),
        }
    }

    /// The integers of part `j` of a block; those of formats without parts are 1.
    pub(super) fn part(self, block: &[u8], j: usize) -> BlockPart {
        match self {
            BlockFormat::Q4K | BlockFormat::Q5K => six_bits(&block[4..16], j),
            BlockFormat::Q6K => BlockPart { scale: block[192 + j].cast_signed(), minimum: 0 },
            _ => BlockPart { scale: 1, minimum: 1 },
        }
    }

    /// The codes of a block, as they are stored.
    pub(super) fn codes(self, block: &[u8], codes: &mut [i8]) {
        match self {
            BlockFormat::Q8_0 => {
                for (code, &byte) in codes.iter_mut().zip(&block[2..]) {
                    *code = byte.cast_signed();
                }
            }
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 | BlockFormat::Q5_1 => {
                let mut rest = if self.has_minimum() { &block[4..] } else { &block[2..] };
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
                let (high, low) = block[16..].split_at(block.len() - 16 - 128);
                for (low, codes) in low.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
                    unpack_halves(low, codes);
                }
                // Bit j of byte l is the fifth one of value l of part j.
                for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
                    for (code, bits) in codes.iter_mut().zip(high) {
                        *code |= ((bits >> j & 1) as i8) << 4;
                    }
                }
            }
            BlockFormat::Q6K => {
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

/// Scale and minimum of part `j` of 8, of 6 bits each: those of the first four parts are the low
/// bits of eight bytes, and their upper two bits are those of the other parts.
fn six_bits(bytes: &[u8], j: usize) -> BlockPart {
    let (scale, minimum) = match j {
        0..4 => (bytes[j] & 63, bytes[j + 4] & 63),
        _ => {
            let low = bytes[j + 4];
            ((low & 15) | (bytes[j - 4] >> 6) << 4, (low >> 4) | (bytes[j] >> 6) << 4)
        }
    };
    BlockPart { scale: scale.cast_signed(), minimum: minimum.cast_signed() }
}
