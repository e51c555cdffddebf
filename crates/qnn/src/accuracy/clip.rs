//! Ranges of weights that are smaller than their weights: finer steps for most of them, at the
//! price of the largest.

use qcore::{ChannelAxis, ChannelError, GroupError, Groups, QParams, Range, Scheme, SchemeError};

use super::error::{AccuracyError, check_weights};
use crate::config::weights::{WeightConfig, WeightGranularity};
use crate::layer::weight_codes::params_of_channels;

/// The shares of a range that are tried are 1, 39/40, 38/40, and so on, ...
const STEPS: u8 = 40;
/// ... down to 20/40.
const LEAST_STEPS: u8 = 20;

/// The parameters of each channel or each group (n, groups) of `weight` (n, k) for the share of its
/// range with the least error, or for the share of the whole tensor's range per tensor. Of equal
/// shares, the largest is taken, so no range is clipped for nothing.
///
/// The error of weights is `sum_j d_j (w_j - restored_j)^2`. With d the `importance`, the sums of
/// the squares of each input, it is the squared error of the layer's outputs if inputs do not
/// correlate; without, d is 1. (The error with correlations costs k times as much for every share
/// and channel, and rounding by GPTQ removes most of it, so it is not measured here.)
///
/// Channels whose weights are all 0 have the whole tensor's parameters.
///
/// # Errors
/// If weights are not finite, shapes differ, or the scheme has no parameters for a whole range.
/// Importances are finite.
pub(crate) fn clipped_params(
    weight: &[f32],
    n: usize,
    k: usize,
    config: &WeightConfig,
    importance: Option<&[f64]>,
) -> Result<Vec<QParams>, AccuracyError> {
    check_weights(weight, n, k)?;
    let ones;
    let importance = match importance {
        Some(importance) if importance.len() == k => importance,
        Some(importance) => return Err(AccuracyError::Inputs { k, sums: importance.len() }),
        None => {
            ones = vec![1.0; k];
            &ones
        }
    };
    let scheme = &config.scheme;
    if let WeightGranularity::PerGroup(len) = config.granularity {
        Groups::new(n, k, len)?;
        let groups = weight.chunks_exact(k).flat_map(|row| row.chunks(len).zip(importance.chunks(len)));
        let choose = |(group, (weights, importance)): (usize, (&[f32], &[f64]))| {
            let range = Range::of(weights).map_err(|error| GroupError::Range { group, error })?;
            let params = Weights { weights, importance }.best_params(range, scheme);
            Ok(params.map_err(|error| GroupError::Scheme { group, error })?)
        };
        return groups.enumerate().map(choose).collect();
    }
    let ranges = qcore::channel_ranges(weight, ChannelAxis::rows(n, k).map_err(|_| too_many(n, k, weight))?)?;
    let params = params_of_channels(&ranges, config.granularity, |channel, range| {
        let weights = channel.map_or(weight, |channel| &weight[channel * k..(channel + 1) * k]);
        let params = Weights { weights, importance }.best_params(range, scheme);
        params.map_err(|error| ChannelError::Scheme { channel: channel.unwrap_or(0), error })
    })?;
    Ok(params)
}

/// The error for a shape of more weights than can be counted.
fn too_many(n: usize, k: usize, weight: &[f32]) -> AccuracyError {
    AccuracyError::Weights { n, k, len: weight.len() }
}

/// Weights that share parameters, row after row, and what the square of an error counts for in each
/// column.
struct Weights<'w> {
    weights: &'w [f32],
    importance: &'w [f64],
}

impl Weights<'_> {
    /// The parameters with the least error.
    fn best_params(&self, range: Range, scheme: &Scheme) -> Result<QParams, SchemeError> {
        let mut best = scheme.choose(range)?;
        let mut least = self.error(&best);
        for steps in (LEAST_STEPS..STEPS).rev() {
            let share = |end: f32| (f64::from(end) * f64::from(steps) / f64::from(STEPS)) as f32;
            let clipped = Range::new(share(range.min()), share(range.max())).ok();
            // A scheme may refuse a range that became too narrow. The whole one is left then.
            let Some(params) = clipped.and_then(|range| scheme.choose(range).ok()) else { continue };
            let error = self.error(&params);
            if error < least {
                (best, least) = (params, error);
            }
        }
        Ok(best)
    }

    /// The sum of the squared errors.
    fn error(&self, params: &QParams) -> f64 {
        let mut sum = 0.0;
        for row in self.weights.chunks_exact(self.importance.len()) {
            for (&w, importance) in row.iter().zip(self.importance) {
                let error = f64::from(w) - f64::from(params.fake_quantize(w));
                sum += importance * error * error;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;
    use qcore::{AffineRange, CodeRange, Kind, ZeroScale, channel_params, group_params};

    const GRANULARITIES: [WeightGranularity; 4] = [
        WeightGranularity::PerChannel,
        WeightGranularity::PerTensor,
        WeightGranularity::PerGroup(8),
        WeightGranularity::PerGroup(100),
    ];

    /// Weights of which a few are large.
    fn with_outliers(random: &mut Random, len: usize) -> Vec<f32> {
        let cubes = random.values(len).into_iter().map(|w| w * w * w);
        cubes.enumerate().map(|(i, w)| if i % 29 == 3 { 3.0 * w } else { w }).collect()
    }

    /// The sums of the squares of inputs.
    fn squares(random: &mut Random, k: usize) -> Vec<f64> {
        let rows = random.correlated_rows(50, k);
        let of_input = |j| rows.chunks_exact(k).map(|row: &[f32]| f64::from(row[j]).powi(2)).sum();
        (0..k).map(of_input).collect()
    }

    #[test]
    fn errors_are_the_least_of_all_shares() {
        let (n, k) = (7, 60);
        let mut random = Random::new(8);
        let mut fewer = 0;
        for bits in [2, 3, 4, 8] {
            let codes = CodeRange::signed(bits).unwrap();
            let kind = Kind::Affine { range: AffineRange::ExtendedToZero };
            for scheme in
                [Scheme { codes, ..Scheme::weights_i8() }, Scheme { codes, kind, ..Scheme::weights_i8() }]
            {
                let weight = with_outliers(&mut random, n * k);
                let inputs = squares(&mut random, k);
                for granularity in GRANULARITIES {
                    for importance in [None, Some(&inputs[..])] {
                        let config = WeightConfig { scheme, granularity };
                        let got = clipped_params(&weight, n, k, &config, importance).unwrap();
                        let len = match granularity {
                            WeightGranularity::PerGroup(len) => len.min(k),
                            _ => k,
                        };
                        assert_eq!(got.len(), n * k.div_ceil(len));
                        // All rows share a scale per tensor.
                        let rows = if granularity == WeightGranularity::PerTensor { n } else { 1 };
                        let sets = weight.chunks(rows * k).enumerate();
                        for (set, weight) in sets {
                            for start in (0..k).step_by(len) {
                                let columns = start..k.min(start + len);
                                let of_set: Vec<(usize, f32)> = weight
                                    .iter()
                                    .enumerate()
                                    .map(|(i, &w)| (i % k, w))
                                    .filter(|(j, _)| columns.contains(j))
                                    .collect();
                                let error = |params: &QParams| -> f64 {
                                    let square = |&(j, w): &(usize, f32)| {
                                        let d = importance.map_or(1.0, |importance| importance[j]);
                                        d * f64::from(w - params.fake_quantize(w)).powi(2)
                                    };
                                    of_set.iter().map(square).sum()
                                };
                                let values: Vec<f32> = of_set.iter().map(|&(_, w)| w).collect();
                                let whole = Range::of(&values).unwrap();
                                let got = &got[set * rows * k.div_ceil(len) + start / len];
                                let of_share = |share: usize| {
                                    let end = |end: f32| (f64::from(end) * share as f64 / 40.0) as f32;
                                    let range = Range::new(end(whole.min()), end(whole.max())).unwrap();
                                    error(&scheme.choose(range).unwrap())
                                };
                                let least = (20..=40).map(of_share).fold(f64::INFINITY, f64::min);
                                assert!(error(got) <= least * (1.0 + 1e-4), "{config:?}");
                                assert!(error(got) <= of_share(40) * (1.0 + 1e-6));
                                fewer += usize::from(error(got) < 0.9 * of_share(40));
                            }
                        }
                    }
                }
            }
        }
        assert!(fewer > 100, "{fewer}");
    }

    #[test]
    fn weights_of_a_trained_network_lose_less() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist/mnist_vgg_quarter.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut layers = 0;
        for (name, tensor) in file.iter().filter(|(_, tensor)| tensor.shape().len() > 1) {
            let weight: Vec<f32> =
                tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let (n, k) = (tensor.shape()[0], weight.len() / tensor.shape()[0]);
            layers += 1;
            for bits in [4, 8] {
                let config = WeightConfig::with_bits(bits).unwrap();
                let whole =
                    channel_params(&weight, ChannelAxis::rows(n, k).unwrap(), &config.scheme).unwrap();
                let clipped = clipped_params(&weight, n, k, &config, None).unwrap();
                let error = |params: &[QParams]| -> f64 {
                    let rows = weight.chunks_exact(k).zip(params);
                    let of_row = |(row, params): (&[f32], &QParams)| -> f64 {
                        row.iter().map(|&w| f64::from(w - params.fake_quantize(w)).powi(2)).sum()
                    };
                    rows.map(of_row).sum()
                };
                let (whole, clipped) = (error(&whole), error(&clipped));
                // With 8 bits, whole ranges are about as good.
                let most = if bits == 4 { 0.95 } else { 1.0 };
                assert!(clipped <= most * whole, "{name}, {bits} bits: {clipped} of {whole}");
            }
        }
        assert!(layers >= 6, "{layers}");
    }

    #[test]
    fn ranges_that_cost_nothing_stay_whole() {
        let (n, k) = (3, 16);
        let scheme = Scheme::weights_i8();
        // Codes themselves, of which the largest is in each group.
        let weight: Vec<f32> =
            (0..n * k).map(|i| if i % 8 == 0 { -127.0 } else { (i % 50) as f32 }).collect();
        let unseen = [0.0; 16];
        for importance in [None, Some(&unseen[..])] {
            let params = |granularity| {
                clipped_params(&weight, n, k, &WeightConfig { scheme, granularity }, importance).unwrap()
            };
            let channels = channel_params(&weight, ChannelAxis::rows(n, k).unwrap(), &scheme).unwrap();
            assert_eq!(params(WeightGranularity::PerChannel), channels);
            assert_eq!(params(WeightGranularity::PerTensor), channels);
            let groups = group_params(&weight, Groups::new(n, k, 8).unwrap(), &scheme).unwrap();
            assert_eq!(params(WeightGranularity::PerGroup(8)), groups);
        }
    }

    #[test]
    fn channels_of_zeros_have_the_parameters_of_the_tensor() {
        let (n, k) = (3, 40);
        let mut weight = with_outliers(&mut Random::new(9), n * k);
        weight[k..2 * k].fill(0.0);
        let config = WeightConfig::with_bits(4).unwrap();
        let params = clipped_params(&weight, n, k, &config, None).unwrap();
        let per_tensor = WeightConfig { granularity: WeightGranularity::PerTensor, ..config };
        assert_eq!(params[1], clipped_params(&weight, n, k, &per_tensor, None).unwrap()[0]);
        assert!(params[0] != params[1]);
    }

    #[test]
    fn what_has_no_parameters_is_refused() {
        let config = WeightConfig::default();
        let refused = |weight: &[f32], config: &WeightConfig, importance: Option<&[f64]>| {
            clipped_params(weight, 1, 2, config, importance).unwrap_err()
        };
        assert_eq!(refused(&[0.0], &config, None), AccuracyError::Weights { n: 1, k: 2, len: 1 });
        let not_finite = refused(&[0.0, f32::NAN], &config, None);
        assert!(matches!(not_finite, AccuracyError::Weight { channel: 0, input: 1, .. }));
        let of_others = refused(&[0.0; 2], &config, Some(&[1.0; 3]));
        assert_eq!(of_others, AccuracyError::Inputs { k: 2, sums: 3 });
        assert!(matches!(refused(&[0.0; 2], &config.in_groups_of(0), None), AccuracyError::Group(_)));
        let scheme = Scheme { zero_scale: ZeroScale::Reject, ..config.scheme };
        let rejecting = WeightConfig { scheme, ..config };
        assert!(matches!(refused(&[0.0; 2], &rejecting, None), AccuracyError::Channel(_)));
        let in_groups = rejecting.in_groups_of(2);
        assert!(matches!(refused(&[0.0; 2], &in_groups, None), AccuracyError::Group(_)));
        // Half of the range would be refused; the whole one is not.
        let least = f32::from_bits(127);
        assert!(clipped_params(&[least, 0.0], 1, 2, &rejecting, None).is_ok());
    }
}
