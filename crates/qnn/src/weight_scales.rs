//! The scales that the scheme gives a layer's weights.

use qcore::{ChannelAxis, ChannelError, Range, Scheme, channel_ranges};

use crate::config::WeightGranularity;
use crate::float_linear::FloatLinear;

/// The weight scale of each channel by [`Scheme::weights_i8`], before any is raised. Channels whose weights are all 0
/// have no scale of their own and take the whole tensor's, so that their bias gets units as fine as the others'.
pub(crate) fn scheme_scales(
    layer: &FloatLinear,
    granularity: WeightGranularity,
) -> Result<Vec<f32>, ChannelError> {
    let axis = channel_axis(layer)?;
    let ranges = channel_ranges(layer.weight(), axis)?;
    let scale = |channel, range: Range| match Scheme::weights_i8().choose(range) {
        Ok(params) => Ok(params.scale()),
        Err(source) => Err(ChannelError::Scheme { channel, source }),
    };
    let whole = ranges.iter().copied().reduce(Range::merge).map_or(Ok(1.0), |range| scale(0, range))?;
    let of_channel = |(channel, &range): (usize, &Range)| match granularity {
        WeightGranularity::PerChannel if range.abs_max() > 0.0 => scale(channel, range),
        WeightGranularity::PerChannel | WeightGranularity::PerTensor => Ok(whole),
    };
    ranges.iter().enumerate().map(of_channel).collect()
}

/// The output channels of a layer's weights.
pub(crate) fn channel_axis(layer: &FloatLinear) -> Result<ChannelAxis, ChannelError> {
    let shape = [layer.n(), layer.k()];
    // The weights exist, so their number can be counted.
    ChannelAxis::new(&shape, 0)
        .map_err(|_| ChannelError::Data { expected: usize::MAX, got: layer.weight().len() })
}
