//! GPTQ: codes whose errors cancel on the inputs that calibration saw.
//!
//! Frantar, Ashkboos, Hoefler and Alistarh (2022) round the weights of a channel one after the
//! other, and after each of them move all later ones so that the layer's outputs change least.
//! Chen et al. (2025) show that this is Babai's nearest plane: with the damped sums of products
//! `H = R R^T`, R upper triangular, and the errors e of the weights, the squared error of the
//! outputs is `|e R|^2`, whose term m depends on the first m errors only. Weight m is rounded from
//! the value at which its term is 0. So all that is needed is R, and nothing is inverted.

use qcore::{CodeRange, QParams, Range, Scheme};
use qkernels::Threads;

use super::cholesky::{Factor, damped};
use super::error::{AccuracyError, check_weights};
use super::hessian::Hessian;
use super::lanes::{LANES, Lanes, add_scaled};
use super::nearest::{exact_value, nearest_code};
use super::parts::map_parts;
use crate::config::gptq::{GptqConfig, GptqOrder};

/// Where the parameters come from by which weights are rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GptqScales<'a> {
    /// One for each channel, chosen beforehand.
    Channels(&'a [QParams]),
    /// Chosen by this scheme for each `len` inputs of a channel when they are reached, from weights
    /// that make up for all errors before them.
    DynamicGroups { len: usize, scheme: &'a Scheme },
    /// One for each `len` inputs, as they are, of each channel: (n, groups), chosen beforehand.
    StaticGroups { len: usize, params: &'a [QParams] },
}

/// What GPTQ makes of weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GptqWeights {
    /// The codes (n, k), in the order of the inputs, or in `input_order` if there is one.
    pub(crate) codes: Vec<i8>,
    /// One for each channel, or (n, groups).
    pub(crate) params: Vec<QParams>,
    /// Column p of the codes multiplies input `input_order[p]`, as
    /// [`with_input_order`](qkernels::ScaledWeights::with_input_order) takes it. `None` if each
    /// column multiplies its own.
    pub(crate) input_order: Option<Vec<u32>>,
    /// The damping that was used: what was asked for, or more.
    pub(crate) damping: f64,
}

/// Rounds `weight` (n, k), row-major, for inputs of which these are the sums of products.
///
/// Inputs that were 0 in all rows have their weights rounded to the nearest code. (The paper's code
/// sets such weights to 0. An input that calibration never saw may come later, though.)
///
/// A channel has the same codes whatever the threads and the other channels.
///
/// # Errors
/// If the weights or the sums of products are not finite, shapes differ, codes are not in i8,
/// groups of sorted inputs have parameters given, or there is no damping or memory for a factor.
pub(crate) fn gptq(
    weight: &[f32],
    n: usize,
    scales: GptqScales<'_>,
    hessian: &Hessian,
    config: &GptqConfig,
    threads: Threads<'_>,
) -> Result<GptqWeights, AccuracyError> {
    let k = hessian.k();
    check_weights(weight, n, k)?;
    check_scales(&scales, n, k)?;
    // The scales of sorted groups depend on how inputs are sorted, which only this function knows.
    let sorted_groups = match (config.order, &scales) {
        (GptqOrder::Activations, GptqScales::StaticGroups { .. }) => return Err(AccuracyError::SortedGroups),
        (GptqOrder::Activations, GptqScales::DynamicGroups { .. }) => true,
        _ => false,
    };
    if let (GptqOrder::ActivationsStaticGroups, &GptqScales::DynamicGroups { len, scheme }) =
        (config.order, &scales)
    {
        let groups = qcore::Groups::new(n, k, len)?;
        let params = qcore::group_params(weight, groups, scheme)?;
        let scales = GptqScales::StaticGroups { len, params: &params };
        return gptq(weight, n, scales, hessian, config, threads);
    }
    let order = match config.order {
        GptqOrder::Inputs => None,
        GptqOrder::Activations | GptqOrder::ActivationsStaticGroups => descending(hessian)?,
    };
    let factor = damped(hessian, order.as_deref(), config.damping, threads)?;
    let rounder = Rounder { k, factor: &factor, order: order.as_deref(), sorted_groups, scales };

    let mut codes = Vec::new();
    codes.try_reserve_exact(weight.len()).map_err(|_| AccuracyError::Memory { k })?;
    codes.resize(weight.len(), 0_i8);
    let blocks = weight.chunks(LANES * k).zip(codes.chunks_mut(LANES * k)).enumerate().collect();
    let chosen = map_parts(threads, blocks, &|(block, (weight, codes)): (usize, (&[f32], &mut [i8]))| {
        rounder.round(block * LANES, weight, codes)
    })?;
    let params = match scales {
        GptqScales::Channels(params) | GptqScales::StaticGroups { params, .. } => params.to_vec(),
        GptqScales::DynamicGroups { .. } => chosen.concat(),
    };
    let input_order = order.filter(|_| sorted_groups);
    Ok(GptqWeights { codes, params, input_order, damping: factor.damping() })
}

/// Checks that parameters are as many as there are channels or groups, and that codes are in i8.
fn check_scales(scales: &GptqScales<'_>, n: usize, k: usize) -> Result<(), AccuracyError> {
    let check_codes = |codes: CodeRange| match CodeRange::I8.contains_range(codes) {
        true => Ok(()),
        false => Err(AccuracyError::Codes { min: codes.min(), max: codes.max() }),
    };
    let (expected, params) = match *scales {
        GptqScales::Channels(params) => (n, params),
        GptqScales::StaticGroups { len, params } => (qcore::Groups::new(n, k, len)?.count(), params),
        GptqScales::DynamicGroups { len, scheme } => {
            qcore::Groups::new(n, k, len)?;
            return check_codes(scheme.codes);
        }
    };
    if params.len() != expected {
        return Err(AccuracyError::Params { expected, got: params.len() });
    }
    params.iter().try_for_each(|params| check_codes(params.codes()))
}

/// The inputs by descending sum of squares, the first of equals first; `None` if they are so.
fn descending(hessian: &Hessian) -> Result<Option<Vec<u32>>, AccuracyError> {
    let k = hessian.k();
    let count = u32::try_from(k).map_err(|_| AccuracyError::Order { k })?;
    let squares: Vec<f64> = hessian.diagonal().collect();
    let mut order: Vec<u32> = (0..count).collect();
    // A stable sort, so equals stay as they are.
    order.sort_by(|&a, &b| squares[b as usize].total_cmp(&squares[a as usize]));
    Ok((!order.is_sorted()).then_some(order))
}

/// What all channels have in common. As many of them as there are lanes are rounded together: the
/// same operations on numbers side by side, of which none depends on another lane's.
struct Rounder<'a> {
    k: usize,
    factor: &'a Factor,
    /// The input of each position; `None` if it is the position's own.
    order: Option<&'a [u32]>,
    /// Whether groups are of positions, and codes stay where they are.
    sorted_groups: bool,
    scales: GptqScales<'a>,
}

impl Rounder<'_> {
    /// Rounds some channels, from `first` on. Returns the parameters that were chosen for their
    /// groups, channel after channel.
    fn round(&self, first: usize, weight: &[f32], codes: &mut [i8]) -> Result<Vec<QParams>, AccuracyError> {
        let k = self.k;
        let count = weight.len() / k;
        // The weights, position after position, until they are rounded, then their errors.
        let mut values: Vec<Lanes> = Vec::new();
        values.try_reserve_exact(k).map_err(|_| AccuracyError::Memory { k })?;
        for p in 0..k {
            let of_lane = |lane: usize| weight.get(lane * k + self.input(p)).copied().map_or(0.0, f64::from);
            values.push(core::array::from_fn(of_lane));
        }
        let mut chosen: Vec<Vec<QParams>> = vec![Vec::new(); count];
        let mut group = Group::default();
        for p in 0..k {
            if let GptqScales::DynamicGroups { len, scheme } = self.scales
                && p % len == 0
            {
                let (errors, weights) = values.split_at(p);
                group = Group::before(self.factor, errors, &weights[..len.min(k - p)]);
                for (lane, chosen) in chosen.iter_mut().enumerate() {
                    let (channel, number) = (first + lane, p / len);
                    let Some(range) = group.range(lane) else {
                        return Err(AccuracyError::Updated { channel, group: number });
                    };
                    let params = scheme.choose(range);
                    let named = |error| AccuracyError::Scheme { channel, group: number, error };
                    chosen.push(params.map_err(named)?);
                }
            }
            let (diagonal, column) = split_diagonal(self.factor.column(p));
            let (errors, rest) = values.split_at_mut(p);
            // Of the errors before a dynamic group, the sums are known.
            let (known, sums) = group.sums(p);
            let sums = add_weighted(sums, &errors[known..], &column[known..]);
            let position = if self.sorted_groups { p } else { self.input(p) };
            for (lane, (value, sum)) in rest[0].iter_mut().zip(sums).take(count).enumerate() {
                let params = match self.scales {
                    GptqScales::Channels(params) => &params[first + lane],
                    GptqScales::DynamicGroups { len, .. } => &chosen[lane][p / len],
                    GptqScales::StaticGroups { len, params } => {
                        &params[(first + lane) * k.div_ceil(len) + self.input(p) / len]
                    }
                };
                let code = nearest_code(params, *value + sum / diagonal);
                *value -= exact_value(params, code);
                // `check_scales` refuses codes that are not in i8.
                codes[lane * k + position] = code as i8;
            }
        }
        Ok(chosen.concat())
    }

    /// The input at position `p`.
    fn input(&self, p: usize) -> usize {
        self.order.map_or(p, |order| order[p] as usize)
    }
}

/// A group whose scale depends on the errors before it.
#[derive(Default)]
struct Group {
    start: usize,
    /// For each position of the group, the sum over the positions before the group.
    sums: Vec<Lanes>,
    /// The weights of the group that leave the least error of the outputs, were they not rounded.
    updated: Vec<Lanes>,
}

impl Group {
    /// The group that comes after positions with these errors, and has these weights.
    ///
    /// The terms of the squared error that belong to the group are 0 if its own errors e solve the
    /// triangular system `e R_GG = -c_G`, where c are the sums over the errors before. Weights that
    /// are less by e are what the updates of the paper have made of them by now.
    fn before(factor: &Factor, errors: &[Lanes], weights: &[Lanes]) -> Self {
        let start = errors.len();
        let (mut solved, mut sums, mut updated) = (Vec::new(), Vec::new(), Vec::new());
        for (at, weights) in weights.iter().enumerate() {
            let (diagonal, column) = split_diagonal(factor.column(start + at));
            let before = add_weighted([0.0; LANES], errors, &column[..start]);
            let sum = add_weighted(before, &solved, &column[start..]);
            let error = sum.map(|sum| -sum / diagonal);
            sums.push(before);
            updated.push(core::array::from_fn(|lane| weights[lane] - error[lane]));
            solved.push(error);
        }
        Self { start, sums, updated }
    }

    /// The range of a channel's updated weights in f32, unless one of them is not finite.
    fn range(&self, lane: usize) -> Option<Range> {
        let values = self.updated.iter().map(|values| values[lane] as f32);
        let one = |value| Range::new(value, value).ok();
        values.map(one).reduce(|a, b| Some(a?.merge(b?))).flatten()
    }

    /// How many positions the known sums of position `p` are of, and these sums.
    fn sums(&self, p: usize) -> (usize, Lanes) {
        match self.sums.get(p - self.start) {
            Some(&sums) => (self.start, sums),
            None => (0, [0.0; LANES]),
        }
    }
}

/// The diagonal of a column of R, and what is above it.
fn split_diagonal(column: &[f64]) -> (f64, &[f64]) {
    // A column has a diagonal at least.
    column.split_last().map_or((1.0, column), |(&diagonal, above)| (diagonal, above))
}

/// `sums` plus each error times its entry of the column, which has as many, one after the other.
fn add_weighted(mut sums: Lanes, errors: &[Lanes], column: &[f64]) -> Lanes {
    for (at, errors) in errors.iter().enumerate() {
        add_scaled(&mut sums, column[at], errors);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;
    use qcore::{ChannelAxis, Groups, channel_params, group_params};

    fn four_bits() -> Scheme {
        Scheme { codes: CodeRange::signed(4).unwrap(), ..Scheme::weights_i8() }
    }

    fn hessian(rows: &[f32], k: usize) -> Hessian {
        let mut hessian = Hessian::new(k).unwrap();
        hessian.add(rows, Threads::Serial).unwrap();
        hessian
    }

    const ORDERS: [GptqOrder; 3] =
        [GptqOrder::Inputs, GptqOrder::Activations, GptqOrder::ActivationsStaticGroups];

    /// The codes' values (n, k) in the order of the inputs.
    fn values(rounded: &GptqWeights, n: usize, k: usize, len: usize) -> Vec<f64> {
        let mut values = vec![0.0; n * k];
        for row in 0..n {
            for p in 0..k {
                let input = rounded.input_order.as_ref().map_or(p, |order| order[p] as usize);
                let params = &rounded.params[row * k.div_ceil(len) + p / len];
                values[row * k + input] = exact_value(params, rounded.codes[row * k + p].into());
            }
        }
        values
    }

    /// The sum of the squared errors of all outputs.
    fn output_error(weight: &[f32], values: &[f64], x: &[f32], k: usize) -> f64 {
        let mut squares = 0.0;
        for x in x.chunks_exact(k) {
            for (weight, values) in weight.chunks_exact(k).zip(values.chunks_exact(k)) {
                let errors = weight.iter().zip(values).map(|(&w, v)| f64::from(w) - v);
                squares += errors.zip(x).map(|(e, &x)| e * f64::from(x)).sum::<f64>().powi(2);
            }
        }
        squares
    }

    #[test]
    fn outputs_are_closer_than_with_each_weight_at_its_nearest_code() {
        let (n, k, len, scheme) = (12, 48, 16, four_bits());
        let mut random = Random::new(4);
        let (x, weight) = (random.correlated_rows(200, k), random.values(n * k));
        let hessian = hessian(&x, k);
        let channels = channel_params(&weight, ChannelAxis::rows(n, k).unwrap(), &scheme).unwrap();
        let groups = group_params(&weight, Groups::new(n, k, len).unwrap(), &scheme).unwrap();
        let nearest = |params: &[QParams], len: usize| {
            let value = |(i, &w): (usize, &f32)| {
                let params = &params[i / k * k.div_ceil(len) + i % k / len];
                exact_value(params, params.quantize(w))
            };
            let values: Vec<f64> = weight.iter().enumerate().map(value).collect();
            output_error(&weight, &values, &x, k)
        };
        for order in ORDERS {
            let config = GptqConfig { order, ..GptqConfig::default() };
            let mut cases = vec![
                (GptqScales::Channels(&channels), k, nearest(&channels, k)),
                (GptqScales::DynamicGroups { len, scheme: &scheme }, len, nearest(&groups, len)),
            ];
            if order != GptqOrder::Activations {
                let scales = GptqScales::StaticGroups { len, params: &groups };
                cases.push((scales, len, nearest(&groups, len)));
            }
            for (scales, len, of_nearest) in cases {
                let rounded = gptq(&weight, n, scales, &hessian, &config, Threads::Serial).unwrap();
                let error = output_error(&weight, &values(&rounded, n, k, len), &x, k);
                assert!(error < 0.5 * of_nearest, "{order:?} {scales:?}: {error} {of_nearest}");
            }
        }
    }

    #[test]
    fn channels_have_the_same_codes_whatever_the_threads_and_the_others() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let (n, k, len, scheme) = (21, 70, 16, four_bits());
        let mut random = Random::new(5);
        let hessian = hessian(&random.correlated_rows(100, k), k);
        let weight = random.values(n * k);
        let scales = GptqScales::DynamicGroups { len, scheme: &scheme };
        for order in ORDERS {
            let config = GptqConfig { order, ..GptqConfig::default() };
            let serial = gptq(&weight, n, scales, &hessian, &config, Threads::Serial).unwrap();
            let threaded = gptq(&weight, n, scales, &hessian, &config, Threads::Pool(&pool)).unwrap();
            assert_eq!(serial, threaded);
            assert_eq!(serial.input_order.is_some(), order == GptqOrder::Activations);
            let row = 13;
            let weight = &weight[row * k..(row + 1) * k];
            let alone = gptq(weight, 1, scales, &hessian, &config, Threads::Serial).unwrap();
            assert_eq!(alone.codes, serial.codes[row * k..(row + 1) * k]);
            assert_eq!(alone.params, serial.params[row * 5..(row + 1) * 5]);
        }
    }

    #[test]
    fn weights_of_inputs_that_were_never_seen_are_rounded_to_nearest() {
        let (n, k) = (3, 10);
        let mut random = Random::new(6);
        let mut x = random.correlated_rows(30, k);
        x.iter_mut().skip(4).step_by(k).for_each(|x| *x = 0.0);
        let weight = random.values(n * k);
        let params = channel_params(&weight, ChannelAxis::rows(n, k).unwrap(), &four_bits()).unwrap();
        for order in ORDERS {
            let config = GptqConfig { order, ..GptqConfig::default() };
            for (x, seen) in [(&x[..], true), (&[], false)] {
                let hessian = hessian(x, k);
                let scales = GptqScales::Channels(&params);
                let rounded = gptq(&weight, n, scales, &hessian, &config, Threads::Serial).unwrap();
                assert_eq!(rounded.input_order, None);
                for (i, (&code, &w)) in rounded.codes.iter().zip(&weight).enumerate() {
                    let nearest = params[i / k].quantize(w);
                    assert!(i32::from(code) == nearest || seen && i % k != 4);
                }
            }
        }
    }

    #[test]
    fn damping_is_raised_and_reported() {
        let twins = hessian(&[2.0, 2.0], 2);
        let params = [QParams::new(0.1, 0, CodeRange::I8).unwrap()];
        let config = GptqConfig { damping: 0.0, ..GptqConfig::default() };
        let scales = GptqScales::Channels(&params);
        let rounded = gptq(&[0.14, 0.14], 1, scales, &twins, &config, Threads::Serial).unwrap();
        assert!(rounded.damping > 0.0);
        // The second weight makes up for the error of the first: 0.28 is nearest to 0.1 + 0.2.
        assert_eq!(rounded.codes, [1, 2]);
    }

    #[test]
    fn what_cannot_be_rounded_is_refused() {
        let params = [QParams::new(0.1, 0, CodeRange::I8).unwrap(); 2];
        let unsigned = [QParams::new(0.1, 0, CodeRange::U8).unwrap()];
        let (seen, scheme) = (hessian(&[1.0, 2.0], 2), four_bits());
        let config = GptqConfig::default();
        let error = |weight: &[f32], scales: GptqScales<'_>, hessian: &Hessian, config: &GptqConfig| {
            gptq(weight, 1, scales, hessian, config, Threads::Serial).unwrap_err()
        };
        let one = GptqScales::Channels(&params[..1]);
        let weights = AccuracyError::Weights { n: 1, k: 2, len: 3 };
        assert_eq!(error(&[0.0; 3], one, &seen, &config), weights);
        let none = gptq(&[], 0, one, &seen, &config, Threads::Serial);
        assert_eq!(none, Err(AccuracyError::Empty { n: 0, k: 2 }));
        let infinite = AccuracyError::Weight { channel: 0, input: 1, value: f32::INFINITY };
        assert_eq!(error(&[0.0, f32::INFINITY], one, &seen, &config), infinite);
        let unseen = hessian(&[1.0, f32::NAN], 2);
        assert_eq!(error(&[0.0; 2], one, &unseen, &config), AccuracyError::NotFinite { row: 1, col: 0 });
        let negative = GptqConfig { damping: -0.5, ..config };
        assert_eq!(error(&[0.0; 2], one, &seen, &negative), AccuracyError::Damping { damping: -0.5 });
        let two = GptqScales::Channels(&params);
        assert_eq!(error(&[0.0; 2], two, &seen, &config), AccuracyError::Params { expected: 1, got: 2 });
        let codes = AccuracyError::Codes { min: 0, max: 255 };
        assert_eq!(error(&[0.0; 2], GptqScales::Channels(&unsigned), &seen, &config), codes);
        let bytes = Scheme { codes: CodeRange::U8, ..scheme };
        let scales = GptqScales::DynamicGroups { len: 2, scheme: &bytes };
        assert_eq!(error(&[0.0; 2], scales, &seen, &config), codes);
        let scales = GptqScales::DynamicGroups { len: 0, scheme: &scheme };
        assert!(matches!(error(&[0.0; 2], scales, &seen, &config), AccuracyError::Group(_)));
        let sorted = GptqConfig { order: GptqOrder::Activations, ..config };
        let scales = GptqScales::StaticGroups { len: 1, params: &params };
        assert_eq!(error(&[0.0; 2], scales, &seen, &sorted), AccuracyError::SortedGroups);
        // The last weight would have to make up for more than f32 has.
        let scheme = Scheme { codes: CodeRange::signed(2).unwrap(), ..Scheme::weights_i8() };
        let scales = GptqScales::DynamicGroups { len: 2, scheme: &scheme };
        let uneven = hessian(&[0.0, 1e10, 1e-10, 0.0, 0.0, 1e-10], 3);
        let exact = GptqConfig { damping: 0.0, ..config };
        let updated = AccuracyError::Updated { channel: 0, group: 1 };
        assert_eq!(error(&[1e30, 4e29, 1.0], scales, &uneven, &exact), updated);
        // No scheme for the second group.
        let rejecting = Scheme { zero_scale: qcore::ZeroScale::Reject, ..scheme };
        let scales = GptqScales::DynamicGroups { len: 1, scheme: &rejecting };
        let no_scheme = error(&[1.0, 0.0], scales, &Hessian::new(2).unwrap(), &config);
        assert!(matches!(no_scheme, AccuracyError::Scheme { channel: 0, group: 1, .. }));
    }
}
