//! How weights become codes: the scales that a scheme gives a layer's channels or groups, and the
//! codes that they give.

use qcore::{
    ChannelAxis, ChannelError, CodeRange, GroupError, Groups, QParams, Range, RangeError, channel_ranges,
    first_non_finite, group_params, quantize_per_group,
};
use qkernels::{
    Kernel, MatRef, PackEffort, PackedNibbles, PackedWeights, ScaleError, ScaledWeights, WeightScales,
    Weights,
};

use super::float::FloatLinear;
use super::layer_error::LayerError;
use super::storage::Storage;
use crate::config::weights::{WeightConfig, WeightGranularity};

/// Codes (n, k).
pub(crate) enum StoredCodes<'w> {
    Bytes(MatRef<'w, i8>),
    /// Of 4 bits, 0 to 15. Dynamic and weight-only layers may have them.
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

    /// The codes packed, with a scale and perhaps a zero point for each channel, or for each group
    /// of `group` weights.
    pub(crate) fn scaled(
        self,
        scales: &[f32],
        zero_points: Option<&[i8]>,
        group: Option<usize>,
        kernel: Kernel,
    ) -> Result<ScaledWeights, LayerError> {
        self.scaled_by(scales_of(scales, zero_points, group), kernel)
    }

    /// The codes packed, with whatever stands beside them.
    pub(crate) fn scaled_by(
        self,
        scales: WeightScales<'_>,
        kernel: Kernel,
    ) -> Result<ScaledWeights, LayerError> {
        // Before packing, which allocates for each row: a matrix without elements may claim any
        // number.
        let (n, k) = self.shape();
        check_shape(n, k)?;
        Ok(match self {
            StoredCodes::Bytes(codes) => {
                // Products of these have bodies of their own, to which no order of k matters.
                let codes = Weights::from(codes).with_effort(PackEffort::Fast);
                ScaledWeights::new(PackedWeights::from_nk(codes, kernel)?, scales)?
            }
            StoredCodes::Nibbles(codes) => {
                ScaledWeights::of_nibbles(PackedNibbles::from_nk(codes, kernel)?, scales)?
            }
        })
    }
}

/// A scale and perhaps a zero point for each channel, or for each group of `group` weights.
pub(crate) fn scales_of<'a>(
    scales: &'a [f32],
    zero_points: Option<&'a [i8]>,
    group: Option<usize>,
) -> WeightScales<'a> {
    let scales = match group {
        None => WeightScales::per_channel(scales),
        Some(group) => WeightScales::per_group(scales, group),
    };
    match zero_points {
        None => scales,
        Some(zero_points) => scales.with_zero_points(zero_points),
    }
}

/// Checks that a layer has an output and an input.
pub(crate) fn check_shape(n: usize, k: usize) -> Result<(), LayerError> {
    if n == 0 || k == 0 { Err(LayerError::Empty { n, k }) } else { Ok(()) }
}

/// The zero point that codes have by themselves: the middle of those of 4 bits, which are packed as
/// 0 to 15, and 0 of others. Where a minimum is added, codes count from 0.
pub(crate) fn usual_zero_point(bits: u32, minimums: bool) -> i8 {
    if bits == 4 && !minimums { 8 } else { 0 }
}

/// Quantizes `weight` (n, k), row-major, as `config` says. Codes of at most 4 bits, -8 to 7 or 0 to
/// 15, are packed two to a byte.
pub(crate) fn scaled_weights(
    weight: &[f32],
    n: usize,
    k: usize,
    config: &WeightConfig,
    kernel: Kernel,
) -> Result<ScaledWeights, LayerError> {
    let params = scaled_params(weight, n, k, config)?;
    WeightCodes::nearest(weight, n, k, params, group_len(config))?.scaled(n, k, kernel)
}

/// Whether weights become [`ScaledWeights`]: those in groups, and those of at most 4 bits.
fn is_scaled(codes: CodeRange, group: Option<usize>) -> bool {
    group.is_some() || least_nibble(codes, &[]).is_some()
}

/// The parameters that `config` gives each channel or group of the weights of a dynamic layer.
pub(crate) fn dynamic_params(layer: &FloatLinear, config: &WeightConfig) -> Result<Vec<QParams>, LayerError> {
    match is_scaled(config.scheme.codes, group_len(config)) {
        true => scaled_params(layer.weight(), layer.n(), layer.k(), config),
        false => scheme_params(layer, config),
    }
}

/// Consecutive k that share a scale, if `config` has groups.
pub(crate) fn group_len(config: &WeightConfig) -> Option<usize> {
    match config.granularity {
        WeightGranularity::PerGroup(len) => Some(len),
        WeightGranularity::PerChannel | WeightGranularity::PerTensor => None,
    }
}

/// The groups of `weight` (n, k), which are its channels where there is no `group`.
fn groups_of(n: usize, k: usize, group: Option<usize>) -> Result<Groups, LayerError> {
    check_shape(n, k)?;
    match group {
        Some(0) => Err(ScaleError::GroupLength { group_len: 0 }.into()),
        group => Ok(Groups::new(n, k, group.unwrap_or(k))?),
    }
}

/// An error of groups, or of the channels of `k` weights that they are without a `group`.
fn named(error: GroupError, k: usize, group: Option<usize>) -> LayerError {
    if group.is_some() { error.into() } else { of_channels(error, k) }
}

/// The parameters that `config` gives each channel or group of `weight` (n, k).
pub(crate) fn scaled_params(
    weight: &[f32],
    n: usize,
    k: usize,
    config: &WeightConfig,
) -> Result<Vec<QParams>, LayerError> {
    let group = group_len(config);
    let groups = groups_of(n, k, group)?;
    let (groups, times) = match config.granularity {
        WeightGranularity::PerTensor => (Groups::new(1, groups.len(), groups.len())?, n),
        WeightGranularity::PerChannel | WeightGranularity::PerGroup(_) => (groups, 1),
    };
    let params = group_params(weight, groups, &config.scheme);
    Ok(params.map_err(|error| named(error, k, group))?.repeat(times))
}

/// A layer's weights as codes, however they were found.
#[derive(Clone, Debug)]
pub(crate) struct WeightCodes {
    /// (n, k), row-major.
    pub(crate) codes: Vec<i8>,
    /// Of each channel, or of each group (n, groups), all with the same range of codes.
    pub(crate) params: Vec<QParams>,
    /// Consecutive k of a group; `None` where a channel is one.
    pub(crate) group: Option<usize>,
    /// The input of each column, if it is not the column's own.
    pub(crate) order: Option<Vec<u32>>,
}

impl WeightCodes {
    /// The code that is nearest to each weight.
    pub(crate) fn nearest(
        weight: &[f32],
        n: usize,
        k: usize,
        params: Vec<QParams>,
        group: Option<usize>,
    ) -> Result<Self, LayerError> {
        let mut codes = vec![0; weight.len()];
        let quantized = quantize_per_group(weight, groups_of(n, k, group)?, &params, &mut codes);
        quantized.map_err(|error| named(error, k, group))?;
        Ok(Self { codes, params, group, order: None })
    }

    /// Whether they become [`ScaledWeights`] in a dynamic layer.
    pub(crate) fn is_scaled(&self) -> bool {
        is_scaled(self.range(), self.group)
    }

    /// The codes that there may be. There is a channel, so there are parameters.
    fn range(&self) -> CodeRange {
        self.params.first().map_or(CodeRange::I8, QParams::codes)
    }

    /// The codes packed with scales and zero points, those of at most 4 bits two to a byte.
    pub(crate) fn scaled(&self, n: usize, k: usize, kernel: Kernel) -> Result<ScaledWeights, LayerError> {
        let (Self { codes, params, group, .. }, groups) = (self, groups_of(n, k, self.group)?);
        let scales: Vec<f32> = params.iter().map(QParams::scale).collect();
        let zero_points =
            i8_zero_points(params.iter().map(QParams::zero_point), groups.per_row(), group.is_some())?;
        let packed = match least_nibble(self.range(), &zero_points) {
            Some(least) => {
                let nibble = |&code: &i8| code.wrapping_sub(least);
                let codes: Vec<u8> = codes.iter().map(|code| nibble(code).cast_unsigned()).collect();
                let zero_points: Vec<i8> = zero_points.iter().map(nibble).collect();
                let codes = StoredCodes::Nibbles(MatRef::new(&codes, n, k)?);
                codes.scaled(&scales, Some(&zero_points), *group, kernel)?
            }
            None => {
                let affine = zero_points.iter().any(|&zero_point| zero_point != 0);
                let zero_points = affine.then_some(&zero_points[..]);
                StoredCodes::Bytes(MatRef::new(codes, n, k)?).scaled(&scales, zero_points, *group, kernel)?
            }
        };
        Ok(match &self.order {
            Some(order) => packed.with_input_order(order)?,
            None => packed,
        })
    }
}

/// The error of groups that are the channels of `k` weights each, which have no numbers as groups.
fn of_channels(error: GroupError, k: usize) -> LayerError {
    LayerError::Channel(match error {
        GroupError::Range { error: error @ RangeError::NonFinite { index, .. }, .. } => {
            ChannelError::Range { channel: index / k, error }
        }
        GroupError::Range { group: channel, error } => ChannelError::Range { channel, error },
        GroupError::Scheme { group: channel, error } => ChannelError::Scheme { channel, error },
        GroupError::Quantize { group: channel, error } => ChannelError::Quantize { channel, error },
        error => return error.into(),
    })
}

/// The zero points of each channel's `groups`, or of channels that are not `in_groups`.
pub(crate) fn i8_zero_points(
    zero_points: impl Iterator<Item = i32>,
    groups: usize,
    in_groups: bool,
) -> Result<Vec<i8>, LayerError> {
    let checked = |(at, zero_point): (usize, i32)| {
        let (channel, group) = (at / groups, at % groups);
        i8::try_from(zero_point).map_err(|_| match in_groups {
            true => LayerError::GroupZeroPoint { channel, group, zero_point },
            false => LayerError::ZeroPoint { channel, zero_point },
        })
    };
    zero_points.enumerate().map(checked).collect()
}

/// The code that is packed as 0, if codes and zero points fit 4 bits.
pub(crate) fn least_nibble(codes: CodeRange, zero_points: &[i8]) -> Option<i8> {
    let fits = |least: i32| {
        let range = least..least + 16;
        let all = zero_points.iter().all(|&zero_point| range.contains(&zero_point.into()));
        range.contains(&codes.min()) && range.contains(&codes.max()) && all
    };
    [-8_i8, 0].into_iter().find(|&least| fits(least.into()))
}

/// The zero points of all groups, unless they are what such codes have by themselves.
pub(crate) fn stored_zero_points(weights: &ScaledWeights) -> Option<Vec<i8>> {
    let usual = usual_zero_point(weights.bits(), weights.minimums().is_some());
    let all = weights.zero_points();
    let all = all.unwrap_or_else(|| vec![0; weights.n() * weights.groups()]);
    all.iter().any(|&zero_point| zero_point != usual).then_some(all)
}

/// The bytes that must be stored for weights and a bias.
pub(crate) fn scaled_storage(weights: &ScaledWeights, bias: Option<&[f32]>) -> Storage {
    let (n, k) = (weights.n(), weights.k());
    let groups = n * weights.groups();
    let parts = weights.part_len().map_or(0, |len| n * k.div_ceil(len));
    let minimums = if weights.minimums().is_some() { 4 * groups + parts } else { 0 };
    let zero_points = if stored_zero_points(weights).is_some() { groups } else { 0 };
    let order = weights.input_order().map_or(0, |order| 4 * order.len());
    Storage {
        weights: n * if weights.bits() == 4 { k.div_ceil(2) } else { k } + order,
        scales: 4 * groups + parts,
        zero_points: zero_points + minimums,
        bias: 4 * bias.map_or(0, <[f32]>::len),
    }
}

/// Checks that a bias has n entries, all of them finite.
pub(crate) fn check_bias(bias: Option<&[f32]>, n: usize) -> Result<(), LayerError> {
    let Some(bias) = bias else { return Ok(()) };
    if bias.len() != n {
        return Err(LayerError::Length { tensor: "the bias", n, len: bias.len() });
    }
    match first_non_finite(bias) {
        Some((channel, bias)) => Err(LayerError::Bias { channel, bias }),
        None => Ok(()),
    }
}

/// The parameters that the scheme gives each channel of `layer`; groups have no place here.
pub(crate) fn scheme_params(layer: &FloatLinear, config: &WeightConfig) -> Result<Vec<QParams>, LayerError> {
    params_of_weights(layer, layer.weight(), config)
}

/// [`scheme_params`] of a layer that has these weights instead.
pub(crate) fn params_of_weights(
    layer: &FloatLinear,
    weight: &[f32],
    config: &WeightConfig,
) -> Result<Vec<QParams>, LayerError> {
    let WeightConfig { scheme, granularity } = config;
    if let WeightGranularity::PerGroup(group_len) = *granularity {
        return Err(LayerError::Groups { group_len });
    }
    if !CodeRange::I8.contains_range(scheme.codes) {
        return Err(LayerError::WeightCodes { min: scheme.codes.min(), max: scheme.codes.max() });
    }
    let ranges = channel_ranges(weight, channel_axis(layer)?)?;
    let params = params_of_channels(&ranges, *granularity, |channel, range| {
        let channel = channel.unwrap_or(0);
        scheme.choose(range).map_err(|error| ChannelError::Scheme { channel, error })
    })?;
    i8_zero_points(params.iter().map(QParams::zero_point), 1, false)?;
    Ok(params)
}

/// The parameters of each channel: those that `choose` finds for the channel with this number and
/// range, or those that it finds for the whole tensor, if channels share them or the
/// channel's weights are all 0. Such a channel has no scale of its own, and with the tensor's its
/// bias gets units as fine as the others'.
pub(crate) fn params_of_channels<E>(
    ranges: &[Range],
    granularity: WeightGranularity,
    choose: impl Fn(Option<usize>, Range) -> Result<QParams, E>,
) -> Result<Vec<QParams>, E> {
    let whole = choose(None, ranges.iter().copied().reduce(Range::merge).unwrap_or_default())?;
    let of_channel = |(channel, &range): (usize, &Range)| match granularity {
        WeightGranularity::PerChannel if range.abs_max() > 0.0 => choose(Some(channel), range),
        _ => Ok(whole),
    };
    ranges.iter().enumerate().map(of_channel).collect()
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
