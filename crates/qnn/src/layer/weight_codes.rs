//! How weights become codes: the scales that a scheme gives a layer's channels, and the codes that
//! they give.

use qcore::{ChannelAxis, ChannelError, CodeRange, QParams, Range, channel_ranges, quantize_per_channel};
use qkernels::MatRef;

use super::float::FloatLinear;
use super::layer_error::LayerError;
use crate::config::weights::{WeightConfig, WeightGranularity};

/// Codes (n, k).
pub(crate) enum StoredCodes<'w> {
    Bytes(MatRef<'w, i8>),
    /// Of 4 bits, 0 to 15. Only weight-only layers have them.
    Nibbles(MatRef<'w, u8>),
}

impl<'w> StoredCodes<'w> {
    /// (n, k).
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self {
            StoredCodes::Bytes(codes) => (codes.rows(), codes.cols()),
            StoredCodes::Nibbles(codes) => (codes.rows(), codes.cols()),
        }
    }

    /// The codes of 8 bits.
    pub(crate) fn bytes(self) -> Result<MatRef<'w, i8>, LayerError> {
        match self {
            StoredCodes::Bytes(codes) => Ok(codes),
            StoredCodes::Nibbles(_) => Err(LayerError::FourBits),
        }
    }
}

/// The parameters that the scheme gives each channel of `layer`. Channels whose weights are all 0
/// have no scale of their own and take the whole tensor's, so that their bias gets units as fine as
/// the others'.
pub(crate) fn scheme_params(layer: &FloatLinear, config: &WeightConfig) -> Result<Vec<QParams>, LayerError> {
    let WeightConfig { scheme, granularity } = config;
    if !CodeRange::I8.contains_range(scheme.codes) {
        return Err(LayerError::WeightCodes { min: scheme.codes.min(), max: scheme.codes.max() });
    }
    let ranges = channel_ranges(layer.weight(), channel_axis(layer)?)?;
    let choose =
        |channel, range: Range| scheme.choose(range).map_err(|error| ChannelError::Scheme { channel, error });
    // The layer has a channel, so there is a range.
    let whole = ranges.iter().copied().reduce(Range::merge).unwrap_or(ranges[0]);
    let whole = choose(0, whole)?;
    let of_channel = |(channel, &range): (usize, &Range)| match granularity {
        WeightGranularity::PerChannel if range.abs_max() > 0.0 => choose(channel, range),
        WeightGranularity::PerChannel | WeightGranularity::PerTensor => Ok(whole),
    };
    let params = ranges.iter().enumerate().map(of_channel).collect::<Result<Vec<_>, _>>()?;
    match params.iter().position(|params| i8::try_from(params.zero_point()).is_err()) {
        None => Ok(params),
        Some(channel) => Err(LayerError::ZeroPoint { channel, zero_point: params[channel].zero_point() }),
    }
}

/// The codes (n, k) of the layer's weights, by the parameters of each channel.
pub(crate) fn codes(layer: &FloatLinear, params: &[QParams]) -> Result<Vec<i8>, LayerError> {
    let mut codes = vec![0_i8; layer.weight().len()];
    quantize_per_channel(layer.weight(), channel_axis(layer)?, params, &mut codes)?;
    Ok(codes)
}

/// The zero point of each channel, or `None` if all are 0.
pub(crate) fn zero_points(params: &[QParams]) -> Option<Vec<i8>> {
    let any = params.iter().any(|params| params.zero_point() != 0);
    // `scheme_params` refuses zero points that are not in i8.
    any.then(|| params.iter().map(|params| params.zero_point() as i8).collect())
}

/// The output channels of a layer's weights.
fn channel_axis(layer: &FloatLinear) -> Result<ChannelAxis, ChannelError> {
    let shape = [layer.n(), layer.k()];
    // The weights exist, so n * k does not overflow.
    ChannelAxis::new(&shape, 0)
        .map_err(|_| ChannelError::Data { expected: usize::MAX, got: layer.weight().len() })
}
