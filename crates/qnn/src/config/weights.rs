//! How weights become codes.

use core::fmt;

use qcore::{CodeRange, CodeRangeError, Scheme};

/// Which weights share a scale, and a zero point if the scheme has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightGranularity {
    /// The weights of one output channel.
    #[default]
    PerChannel,
    /// All weights of a layer.
    PerTensor,
    /// So many consecutive weights along the k of an output channel: a multiple of
    /// [`qkernels::GROUP_STEP`]. The last group of a channel is as short as the rest of k. Dynamic
    /// and weight-only layers can have groups.
    PerGroup(usize),
}

/// How the weights of a layer become codes.
///
/// ```
/// use qnn::{WeightConfig, WeightGranularity};
/// let per_channel = WeightConfig::default(); // 8 bits
/// let per_tensor = WeightConfig { granularity: WeightGranularity::PerTensor, ..per_channel };
/// let four_bits = WeightConfig::with_bits(4)?.in_groups_of(32);
/// assert_eq!(four_bits.scheme.codes.max(), 7);
/// # Ok::<(), qcore::CodeRangeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightConfig {
    /// How a range becomes a scale, and a weight becomes a code, which is an i8. The default is
    /// [`Scheme::weights_i8`]. In dynamic and weight-only layers, codes of at most 4 bits take half
    /// a byte.
    pub scheme: Scheme,
    /// Which weights share a scale.
    pub granularity: WeightGranularity,
}

impl WeightConfig {
    /// Symmetric codes of 2 to 8 bits, a scale for each channel.
    ///
    /// # Errors
    /// [`CodeRangeError`] if there are no such codes.
    pub fn with_bits(bits: u32) -> Result<Self, CodeRangeError> {
        let scheme = Scheme { codes: CodeRange::signed(bits)?, ..Scheme::weights_i8() };
        Ok(Self { scheme, granularity: WeightGranularity::PerChannel })
    }

    /// The same with a scale for each `len` consecutive k ([`WeightGranularity::PerGroup`]).
    #[must_use]
    pub fn in_groups_of(self, len: usize) -> Self {
        Self { granularity: WeightGranularity::PerGroup(len), ..self }
    }
}

impl fmt::Display for WeightGranularity {
    /// `per channel`, `per tensor` or `groups of 32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightGranularity::PerChannel => f.write_str("per channel"),
            WeightGranularity::PerTensor => f.write_str("per tensor"),
            WeightGranularity::PerGroup(len) => write!(f, "groups of {len}"),
        }
    }
}
