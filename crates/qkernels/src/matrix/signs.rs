//! From signed codes to the unsigned bytes that kernels of u8 form read.

use qcore::CodeRange;

/// The codes of a quantization are neither u8 nor i8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("codes {min}..={max} fit neither u8 nor i8")]
pub struct CodesError {
    /// Smallest code.
    pub min: i32,
    /// Largest code.
    pub max: i32,
}

/// The shift that a kernel of u8 form adds to codes of this range: 0 or 128.
pub(crate) fn shift(codes: CodeRange) -> Result<i32, CodesError> {
    if CodeRange::U8.contains_range(codes) {
        Ok(0)
    } else if CodeRange::I8.contains_range(codes) {
        Ok(128)
    } else {
        Err(CodesError { min: codes.min(), max: codes.max() })
    }
}

/// The largest byte of `codes` in the u8 form of kernels, which adds `shift` to them.
pub(crate) fn largest_byte(codes: CodeRange, shift: i32) -> u8 {
    u8::try_from(codes.max() + shift).unwrap_or(u8::MAX)
}
