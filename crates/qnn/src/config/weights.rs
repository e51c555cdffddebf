//! How weights become codes.

use core::fmt;

use qcore::{CodeRange, CodeRangeError, Scheme};

/// Which weights share a scale. Weights are symmetric i8 either way ([`Scheme::weights_i8`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightGranularity {
    /// The weights of one output channel.
    #[default]
    PerChannel,
    /// All weights of a layer.
    PerTensor,
}

/// How the weights of a layer become codes.
///
/// ```
/// use qnn::{WeightConfig, WeightGranularity};
/// let config = WeightConfig { granularity: WeightGranularity::PerTensor, ..WeightConfig::with_bits(4)? };
/// assert_eq!(config.scheme.codes.max(), 7);
/// # Ok::<(), qcore::CodeRangeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightConfig {
    /// How a range becomes a scale, and a weight becomes a code. The default is
    /// [`Scheme::weights_i8`].
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
}

/// How the weights of a weight-only layer become codes.
///
/// ```
/// use qnn::WeightOnlyConfig;
/// let per_channel = WeightOnlyConfig::default();
/// let per_group = WeightOnlyConfig { group_len: Some(128), ..per_channel };
/// let four_bits = WeightOnlyConfig { group_len: Some(32), ..WeightOnlyConfig::with_bits(4)? };
/// # Ok::<(), qcore::CodeRangeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightOnlyConfig {
    /// How the range of a channel or group becomes a scale and, if the scheme is affine, a zero
    /// point. Its codes are i8. Codes of at most 4 bits take half a byte.
    pub scheme: Scheme,
    /// How many weights along k share a scale: a multiple of [`qkernels::GROUP_STEP`], or `None`
    /// for a whole output channel.
    pub group_len: Option<usize>,
}

impl WeightOnlyConfig {
    /// Symmetric codes of 2 to 8 bits, a scale for each channel.
    ///
    /// # Errors
    /// [`CodeRangeError`] if there are no such codes.
    pub fn with_bits(bits: u32) -> Result<Self, CodeRangeError> {
        Ok(Self { scheme: WeightConfig::with_bits(bits)?.scheme, group_len: None })
    }
}

impl Default for WeightOnlyConfig {
    /// [`Scheme::weights_i8`], per output channel.
    fn default() -> Self {
        Self { scheme: Scheme::weights_i8(), group_len: None }
    }
}

impl WeightGranularity {
    /// Every variant.
    pub const ALL: [WeightGranularity; 2] = [WeightGranularity::PerChannel, WeightGranularity::PerTensor];

    /// `per_channel` or `per_tensor`, as in files.
    pub fn name(self) -> &'static str {
        match self {
            WeightGranularity::PerChannel => "per_channel",
            WeightGranularity::PerTensor => "per_tensor",
        }
    }
}

impl fmt::Display for WeightGranularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
