//! The choices of a quantized MLP.

use qkernels::Kernel;

use super::activation_codes::ActivationCodes;
use super::weights::WeightGranularity;

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
    /// Which weights share a scale.
    pub weights: WeightGranularity,
    /// Whether activations have 7 of their 8 bits, as [`StaticConfig::reduce_range`] says.
    ///
    /// (It is no variant of [`ActivationCodes`], which is the type that codes are stored as: that
    /// stays u8 or i8, and so do the types of matrices that layers take.)
    ///
    /// [`StaticConfig::reduce_range`]: crate::StaticConfig::reduce_range
    pub reduce_range: bool,
    /// The kernel to pack for; `None` is [`Kernel::select`].
    pub kernel: Option<Kernel>,
}
