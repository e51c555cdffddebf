//! The scales of a layer's weights: those that the scheme gives, raised where the int32 bias would not fit.

use qcore::{
    ChannelAxis, ChannelError, CodeRange, QParams, Range, Scheme, channel_ranges, check_accumulator,
    quantize_bias,
};

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

/// One channel whose scale is sought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<'w> {
    pub(crate) weights: &'w [f32],
    pub(crate) bias: f32,
    /// Parameters of the layer's input.
    pub(crate) input: &'w QParams,
}

impl Channel<'_> {
    /// `scale` if it suits the channel, else the smallest larger one that does; `None` if there is none.
    ///
    /// A tiny scale (a neuron that hardly looks at its input, but has a bias) makes the bias exceed int32. Clamping it, as
    /// some exporters do, changes the model without a word; a larger scale only makes the tiny weights coarser.
    pub(crate) fn fitting_scale(&self, scale: f32) -> Option<f32> {
        if self.fits(scale) {
            return Some(scale);
        }
        // All that has to fit shrinks as the scale grows, so bisect, over the bits: positive floats are in their order.
        let (mut too_small, mut fitting) = (scale, (f32::MAX / 2.0 / self.input.scale()).min(f32::MAX / 2.0));
        if fitting <= too_small || !self.fits(fitting) {
            return None;
        }
        while fitting.to_bits() - too_small.to_bits() > 1 {
            let middle = f32::from_bits(too_small.to_bits().midpoint(fitting.to_bits()));
            *if self.fits(middle) { &mut fitting } else { &mut too_small } = middle;
        }
        Some(fitting)
    }

    /// Whether the unit of the sums is a normal number, the bias fits int32 in that unit, and bias and sums together
    /// cannot overflow int32 whatever the input.
    fn fits(&self, scale: f32) -> bool {
        let input_scale = self.input.scale();
        let Ok(params) = QParams::new(scale, 0, CodeRange::I8) else { return false };
        let Ok(bias) = quantize_bias(self.bias, input_scale, scale) else { return false };
        let abs_sum = self.weights.iter().map(|&w| u64::from(params.quantize(w).unsigned_abs())).sum();
        let largest_input = self.input.codes().largest_distance(self.input.zero_point());
        (input_scale * scale).is_normal() && check_accumulator(0, largest_input, abs_sum, bias).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(scale: f32) -> QParams {
        QParams::new(scale, 0, CodeRange::U8).unwrap()
    }

    #[test]
    fn a_scale_that_suits_stays() {
        let channel = Channel { weights: &[0.5, -1.27], bias: 3.0, input: &input(0.01) };
        assert_eq!(channel.fitting_scale(0.01), Some(0.01));
    }

    #[test]
    fn a_raised_scale_is_the_smallest_that_suits() {
        for (weight, bias, input_scale) in [
            (1e-9, 0.5, 0.004),
            (-1e-30, 1e9, 1.0),
            (1e-38, 0.0, 1e-5),
            (0.0, -7.0, 1e-20),
            (1e30, 1.0, 1e-38),
        ] {
            let input = input(input_scale);
            let channel = Channel { weights: &[weight; 3], bias, input: &input };
            let range = Range::of(channel.weights).unwrap();
            let scale = Scheme::weights_i8().choose(range).unwrap().scale().min(1e-12);
            let raised = channel.fitting_scale(scale).unwrap();
            assert!(raised >= scale && channel.fits(raised));
            assert!(raised == scale || !channel.fits(raised.next_down()), "{weight} {bias} {input_scale}");
        }
    }

    #[test]
    fn no_scale_may_suit() {
        let input = input(3e38);
        assert_eq!(Channel { weights: &[f32::MAX; 9], bias: 0.0, input: &input }.fitting_scale(1e38), None);
    }
}
