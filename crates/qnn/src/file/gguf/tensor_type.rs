//! The types that tensors of GGUF files have.

use core::fmt;

use qcore::BlockFormat;

/// The type of a tensor's elements. `Display` gives ggml's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GgufType {
    /// f32.
    F32,
    /// f16.
    F16,
    /// bf16.
    Bf16,
    /// Codes in blocks, with their scales.
    Blocks(BlockFormat),
    /// A type that this does not read, by ggml's number.
    Other(u32),
}

/// ggml's numbers of types that are read.
const READ: [(GgufType, u32); 11] = [
    (GgufType::F32, 0),
    (GgufType::F16, 1),
    (GgufType::Bf16, 30),
    (GgufType::Blocks(BlockFormat::Q4_0), 2),
    (GgufType::Blocks(BlockFormat::Q4_1), 3),
    (GgufType::Blocks(BlockFormat::Q5_0), 6),
    (GgufType::Blocks(BlockFormat::Q5_1), 7),
    (GgufType::Blocks(BlockFormat::Q8_0), 8),
    (GgufType::Blocks(BlockFormat::Q4K), 12),
    (GgufType::Blocks(BlockFormat::Q5K), 13),
    (GgufType::Blocks(BlockFormat::Q6K), 14),
];

/// ggml's numbers and names of types that are not read.
const OTHERS: [(u32, &str); 20] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

impl GgufType {
    /// The type with ggml's number.
    pub(super) fn from_number(number: u32) -> Self {
        let known = READ.iter().find(|(_, known)| *known == number);
        known.map_or(GgufType::Other(number), |&(element, _)| element)
    }

    /// ggml's number.
    pub(super) fn number(self) -> u32 {
        match self {
            GgufType::Other(number) => number,
            // Each other one is in the table.
            read => READ.iter().find(|(known, _)| *known == read).map_or(u32::MAX, |&(_, number)| number),
        }
    }

    /// Values and bytes of a block, which is one value for floats; `None` if the type is not read.
    pub(super) fn block(self) -> Option<(usize, usize)> {
        match self {
            GgufType::F32 => Some((1, 4)),
            GgufType::F16 | GgufType::Bf16 => Some((1, 2)),
            GgufType::Blocks(format) => Some((format.block_len(), format.block_bytes())),
            GgufType::Other(_) => None,
        }
    }
}

impl fmt::Display for GgufType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GgufType::F32 => f.write_str("F32"),
            GgufType::F16 => f.write_str("F16"),
            GgufType::Bf16 => f.write_str("BF16"),
            GgufType::Blocks(format) => format.fmt(f),
            GgufType::Other(number) => match OTHERS.iter().find(|(known, _)| known == number) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "type {number}"),
            },
        }
    }
}
