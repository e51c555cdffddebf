//! The choices of a quantized model.

use core::fmt;

use qcore::{CodeRange, CodeRangeError, Scheme};
use qkernels::Kernel;

/// How a [`FloatMlp`](crate::FloatMlp) becomes a [`QuantMlp`](crate::QuantMlp).
///
/// ```
/// use qnn::{ActivationCodes, QuantConfig, WeightGranularity};
/// let config = QuantConfig { activations: ActivationCodes::I8, ..QuantConfig::default() };
/// assert_eq!(config.weights, WeightGranularity::PerChannel);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantConfig {
    /// Codes of the input of every layer.
    pub activations: ActivationCodes,
    /// What shares a weight scale.
    pub weights: WeightGranularity,
    /// The kernel to pack for; `None` is [`Kernel::select`].
    pub kernel: Option<Kernel>,
}

/// Codes of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActivationCodes {
    /// 0..=255, affine ([`Scheme::activations_u8`]): what PyTorch (FBGEMM) and ONNX Runtime use on x86.
    #[default]
    U8,
    /// -128..=127, affine ([`Scheme::activations_i8`]): the same steps, 128 lower; what TensorFlow Lite uses.
    I8,
}

/// What shares a weight scale. Weights are symmetric i8 either way ([`Scheme::weights_i8`]).
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
    /// Codes, divisor and rounding. The default is [`Scheme::weights_i8`].
    pub scheme: Scheme,
    /// What shares a scale.
    pub granularity: WeightGranularity,
}

impl WeightConfig {
    /// Symmetric codes of 2 to 8 bits, a scale for each channel.
    ///
    /// # Errors
    /// When there are no such codes.
    pub fn with_bits(bits: u32) -> Result<Self, CodeRangeError> {
        let scheme = Scheme { codes: CodeRange::signed(bits)?, ..Scheme::weights_i8() };
        Ok(Self { scheme, granularity: WeightGranularity::PerChannel })
    }
}

impl ActivationCodes {
    /// Every variant.
    pub const ALL: [ActivationCodes; 2] = [ActivationCodes::U8, ActivationCodes::I8];

    /// `u8` or `i8`, as in files.
    pub fn name(self) -> &'static str {
        match self {
            ActivationCodes::U8 => "u8",
            ActivationCodes::I8 => "i8",
        }
    }

    /// The codes.
    pub fn range(self) -> CodeRange {
        match self {
            ActivationCodes::U8 => CodeRange::U8,
            ActivationCodes::I8 => CodeRange::I8,
        }
    }

    /// How a range becomes scale and zero point.
    pub(crate) fn scheme(self) -> Scheme {
        match self {
            ActivationCodes::U8 => Scheme::activations_u8(),
            ActivationCodes::I8 => Scheme::activations_i8(),
        }
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

impl fmt::Display for ActivationCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for WeightGranularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
