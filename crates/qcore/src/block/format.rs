//! The block formats of ggml, and the sizes of each.

use core::fmt;

/// A block format of ggml, the tensor library of llama.cpp, whose GGUF files have weights in it.
/// The values of a row are cut into blocks of [`block_len`](Self::block_len), and each block has
/// its scales beside its codes.
///
/// With `q` a code, `z` the format's [`zero_point`](Self::zero_point), and scale and minimum those
/// of the code's group ([`BlockGroup`](crate::BlockGroup)), a value is
///
/// | format | value | scale | minimum | bits a value |
/// | --- | --- | --- | --- | --- |
/// | `Q8_0` | `scale * q` | f16 for 32 values | | 8.5 |
/// | `Q4_0`, `Q5_0` | `scale * (q - z)` | f16 for 32 values, of any sign | | 4.5, 5.5 |
/// | `Q4_1`, `Q5_1` | `scale * q + minimum` | f16 for 32 values | f16 | 5, 6 |
/// | `Q4_K`, `Q5_K` | `scale * q + minimum` | f16 for 256 values times 6 bits for 32 | the same, negated | 4.5, 5.5 |
/// | `Q6_K` | `scale * (q - z)` | f16 for 256 values times i8 for 16 | | 6.5625 |
///
/// All of it is f32, with one rounding for each operation, in this order: ggml's own definition,
/// bit for bit.
///
/// ```
/// use qcore::BlockFormat;
/// assert_eq!((BlockFormat::Q4K.block_len(), BlockFormat::Q4K.block_bytes()), (256, 144));
/// assert_eq!(BlockFormat::Q4K.to_string(), "Q4_K");
/// let mut block = [0u8; 18];
/// (block[1], block[2]) = (0x38, 0x9f); // scale 0.5; codes 15 and, 16 values later, 9
/// let mut values = [0.0; 32];
/// BlockFormat::Q4_0.dequantize(&block, &mut values)?;
/// assert_eq!((values[0], values[16]), (0.5 * (15.0 - 8.0), 0.5 * (9.0 - 8.0)));
/// # Ok::<(), qcore::BlockError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockFormat {
    /// 8 bits.
    Q8_0,
    /// 4 bits, symmetric about 8.
    Q4_0,
    /// 4 bits with a minimum.
    Q4_1,
    /// 5 bits, symmetric about 16.
    Q5_0,
    /// 5 bits with a minimum.
    Q5_1,
    /// 4 bits with minima, whose scales are codes themselves.
    Q4K,
    /// 5 bits with minima, whose scales are codes themselves.
    Q5K,
    /// 6 bits, symmetric about 32, whose scales are codes themselves.
    Q6K,
}

impl BlockFormat {
    /// Every variant.
    pub const ALL: [BlockFormat; 8] = [
        BlockFormat::Q8_0,
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
        BlockFormat::Q6K,
    ];

    /// The name that ggml gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BlockFormat::Q8_0 => "Q8_0",
            BlockFormat::Q4_0 => "Q4_0",
            BlockFormat::Q4_1 => "Q4_1",
            BlockFormat::Q5_0 => "Q5_0",
            BlockFormat::Q5_1 => "Q5_1",
            BlockFormat::Q4K => "Q4_K",
            BlockFormat::Q5K => "Q5_K",
            BlockFormat::Q6K => "Q6_K",
        }
    }

    /// Values of a block.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            BlockFormat::Q4K | BlockFormat::Q5K | BlockFormat::Q6K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            BlockFormat::Q8_0 => 2 + 32,
            BlockFormat::Q4_0 => 2 + 16,
            BlockFormat::Q4_1 => 4 + 16,
            BlockFormat::Q5_0 => 2 + 4 + 16,
            BlockFormat::Q5_1 => 4 + 4 + 16,
            BlockFormat::Q4K => 4 + 12 + 128,
            BlockFormat::Q5K => 4 + 12 + 32 + 128,
            BlockFormat::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Consecutive values that share a scale.
    #[must_use]
    pub const fn group_len(self) -> usize {
        match self {
            BlockFormat::Q6K => 16,
            _ => 32,
        }
    }

    /// Consecutive values whose scale, and minimum if there is one, is that of the whole block
    /// times an integer ([`unpack_parts`](Self::unpack_parts)); `None` where scales are no
    /// products.
    ///
    /// ```
    /// use qcore::BlockFormat;
    /// assert_eq!(BlockFormat::Q5K.part_len(), Some(32));
    /// assert_eq!(BlockFormat::Q5_1.part_len(), None);
    /// ```
    #[must_use]
    pub const fn part_len(self) -> Option<usize> {
        match self {
            BlockFormat::Q4K | BlockFormat::Q5K | BlockFormat::Q6K => Some(self.group_len()),
            _ => None,
        }
    }

    /// The code that stands for 0; 0 where there is a minimum.
    #[must_use]
    pub const fn zero_point(self) -> i8 {
        match self {
            BlockFormat::Q4_0 => 8,
            BlockFormat::Q5_0 => 16,
            BlockFormat::Q6K => 32,
            _ => 0,
        }
    }

    /// Whether groups have a minimum, which is added to each of their values.
    #[must_use]
    pub const fn has_minimum(self) -> bool {
        matches!(self, BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K)
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
