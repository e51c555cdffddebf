//! Codes of 2 to 8 bits, packed without gaps.
//!
//! The codes form a stream of bits that starts in the lowest bits of the first byte. Two 4-bit
//! codes share a byte with the even one low (as in ONNX's INT4), four 2-bit codes fill a byte, and
//! eight 3-bit codes fill three bytes. Signed codes are in two's complement. Unused bits are 0, so
//! equal codes give equal bytes.

use thiserror::Error;

use super::codes::{Code, CodeRange, CodeRangeError};
use super::memory::packed_bytes;

/// The number of codes that fills whole bytes at any width.
const CODES: usize = 8;

/// Packs codes of `bits` bits into [`packed_bytes`]`(codes.len(), bits)` bytes. `i8` codes must be
/// in [`CodeRange::signed`]`(bits)` and `u8` codes in [`CodeRange::unsigned`]`(bits)`. Nothing is
/// lost.
///
/// # Errors
/// Unless `bits` is 2 to 8, `out` has exactly the bytes needed, and every code fits. The error says
/// which code does not.
///
/// ```
/// use qcore::{pack_codes, unpack_codes};
///
/// let mut packed = [0; 2];
/// pack_codes(&[-8_i8, 7, -1], 4, &mut packed)?;
/// assert_eq!(packed, [0x78, 0x0f]);
///
/// let mut codes = [0_i8; 3];
/// unpack_codes(&packed, 4, &mut codes)?;
/// assert_eq!(codes, [-8, 7, -1]);
/// # Ok::<(), qcore::PackError>(())
/// ```
pub fn pack_codes<C: Code>(codes: &[C], bits: u32, out: &mut [u8]) -> Result<(), PackError> {
    let range = code_range::<C>(bits)?;
    check_bytes(codes.len(), bits, out.len())?;
    if let Some(index) = codes.iter().position(|code| !range.contains(code.widen())) {
        return Err(PackError::Code {
            index,
            code: codes[index].widen(),
            min: range.min(),
            max: range.max(),
        });
    }
    let mask = (1_u64 << bits) - 1;
    for (codes, out) in codes.chunks(CODES).zip(out.chunks_mut(bits as usize)) {
        let word = |word: u64, (i, code): (usize, &C)| {
            word | (i64::from(code.widen()) as u64 & mask) << (i as u32 * bits)
        };
        let bytes = codes.iter().enumerate().fold(0, word).to_le_bytes();
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
    }
    Ok(())
}

/// Undoes [`pack_codes`]: `out.len()` codes of `bits` bits.
///
/// # Errors
/// Unless `bits` is 2 to 8 and `packed` has as many bytes as that many codes take.
///
/// ```
/// let mut codes = [0_u8; 4];
/// qcore::unpack_codes(&[0b11_10_01_00], 2, &mut codes)?;
/// assert_eq!(codes, [0, 1, 2, 3]);
/// # Ok::<(), qcore::PackError>(())
/// ```
pub fn unpack_codes<C: Code>(packed: &[u8], bits: u32, out: &mut [C]) -> Result<(), PackError> {
    let range = code_range::<C>(bits)?;
    check_bytes(out.len(), bits, packed.len())?;
    // Moving a field to the top of a word and back down extends its sign, or fills it with zeros.
    let unused = 64 - bits;
    for (out, packed) in out.chunks_mut(CODES).zip(packed.chunks(bits as usize)) {
        let word = packed.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        for (i, code) in out.iter_mut().enumerate() {
            let top = word >> (i as u32 * bits) << unused;
            let value = if range.min() < 0 { (top as i64 >> unused) as i32 } else { (top >> unused) as i32 };
            *code = C::from_clamped(value);
        }
    }
    Ok(())
}

fn code_range<C: Code>(bits: u32) -> Result<CodeRange, CodeRangeError> {
    if C::RANGE.min() < 0 { CodeRange::signed(bits) } else { CodeRange::unsigned(bits) }
}

fn check_bytes(codes: usize, bits: u32, got: usize) -> Result<(), PackError> {
    let expected = packed_bytes(codes as u64, bits);
    match expected == got as u64 {
        true => Ok(()),
        false => Err(PackError::Bytes { codes, bits, expected, got }),
    }
}

/// Why codes cannot be packed or unpacked.
///
/// ```
/// let error = qcore::pack_codes(&[7_i8, 8], 4, &mut [0]).unwrap_err();
/// assert_eq!(error.to_string(), "code 8 at index 1 is not in -8 to 7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PackError {
    /// There is no code range of this width.
    #[error(transparent)]
    Bits(#[from] CodeRangeError),
    /// There are too few or too many bytes.
    #[error("{codes} codes of {bits} bits take {expected} bytes, got {got}")]
    Bytes {
        /// The number of codes.
        codes: usize,
        /// The number of bits of a code.
        bits: u32,
        /// The number of bytes they take.
        expected: u64,
        /// The number of bytes given.
        got: usize,
    },
    /// A code needs more bits.
    #[error("code {code} at index {index} is not in {min} to {max}")]
    Code {
        /// Its index.
        index: usize,
        /// The code.
        code: i32,
        /// The smallest code of this width.
        min: i32,
        /// The largest code of this width.
        max: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<C: Code + PartialEq + std::fmt::Debug>(bits: u32) {
        let range = code_range::<C>(bits).unwrap();
        let all = (range.min()..=range.max()).cycle().map(C::from_clamped);
        for len in 0..=130 {
            let codes: Vec<C> = all.clone().skip(len * 3).take(len).collect();
            let mut packed = vec![0xff; packed_bytes(len as u64, bits) as usize];
            pack_codes(&codes, bits, &mut packed).unwrap();
            let mut unpacked = vec![C::default(); len];
            unpack_codes(&packed, bits, &mut unpacked).unwrap();
            assert_eq!(unpacked, codes);
            // Checks the layout bit by bit, and that the bits after the last code are 0.
            for bit in 0..packed.len() * 8 {
                let (code, within) = (bit / bits as usize, bit % bits as usize);
                let expected = codes.get(code).map_or(0, |code| code.widen() >> within & 1);
                assert_eq!(i32::from(packed[bit / 8] >> (bit % 8) & 1), expected);
            }
        }
    }

    #[test]
    fn every_code_of_every_width_survives() {
        for bits in 2..=8 {
            round_trip::<i8>(bits);
            round_trip::<u8>(bits);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let error = pack_codes(&[0_i8, 8], 4, &mut [0]).unwrap_err();
        assert_eq!(error.to_string(), "code 8 at index 1 is not in -8 to 7");
        assert!(matches!(pack_codes(&[16_u8], 4, &mut [0]), Err(PackError::Code { .. })));
        let error = pack_codes(&[0_i8; 3], 3, &mut [0]).unwrap_err();
        assert_eq!(error.to_string(), "3 codes of 3 bits take 2 bytes, got 1");
        assert!(unpack_codes::<u8>(&[0; 2], 4, &mut [0; 2]).is_err());
        for bits in [0, 1, 9, 64, u32::MAX] {
            assert!(matches!(pack_codes(&[0_u8], bits, &mut [0]), Err(PackError::Bits(_))));
            assert!(matches!(unpack_codes::<i8>(&[0], bits, &mut [0]), Err(PackError::Bits(_))));
        }
    }
}
