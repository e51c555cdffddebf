//! Observers, group 09: ranges, and the scales and zero points that PyTorch computes from them.

use qcore::{
    ChannelAxis, CodeRange, HistogramObserver, MinMaxObserver, MovingAverageObserver, Observer,
    PerChannelObserver, PercentileObserver, QParams, Range, Scheme,
};
use serde_json::Value;

use super::Outcome;
use crate::fixture::Case;

pub(crate) fn run(case: &Case) -> Outcome {
    let name = case.name.trim_start_matches("observer_");
    let starts = |prefix: &str| name.starts_with(prefix);
    match name {
        _ if starts("minmax") => extremes(case, MinMaxObserver::default()),
        _ if starts("moving_average") => {
            extremes(case, MovingAverageObserver::new(case.float("averaging_constant") as f32).unwrap());
        }
        _ if starts("histogram") => histogram(case),
        _ if starts("percentile") => percentile(case),
        _ if starts("per_channel") => per_channel(case),
        _ => return Outcome::Unknown,
    }
    Outcome::Passed
}

/// Our scheme for PyTorch's type, scheme and reduced range.
fn scheme(config: &Value) -> Scheme {
    let bits = if config["reduce_range"] == true { 7 } else { 8 };
    let codes = match config["dtype"].as_str() {
        Some("quint8") => CodeRange::unsigned(bits).unwrap(),
        Some("qint8") => CodeRange::signed(bits).unwrap(),
        other => panic!("type {other:?}"),
    };
    match is_symmetric(config) {
        true => Scheme::pytorch_symmetric(codes),
        false => Scheme::pytorch_affine(codes),
    }
}

fn is_symmetric(config: &Value) -> bool {
    match config["qscheme"].as_str() {
        Some("per_tensor_affine" | "per_channel_affine") => false,
        Some("per_tensor_symmetric" | "per_channel_symmetric") => true,
        other => panic!("scheme {other:?}"),
    }
}

fn configs(case: &Case) -> &[Value] {
    case.param("configs").as_array().unwrap()
}

/// Shows an observer the batches of a case, along the first axis of `x`.
fn observed<O: Observer>(case: &Case, mut observer: O) -> O {
    let x = case.get::<f32>("x");
    x.chunks_exact(x.len() / case.shape("x")[0]).for_each(|batch| observer.observe(batch));
    observer
}

/// Checks scale and zero point of each configuration and the error they cause. Returns the range of
/// the parameters.
fn check_params(case: &Case, range_of: impl Fn(&Value) -> Range) {
    let (mut params, mut min, mut max) = (vec![], vec![], vec![]);
    for config in configs(case) {
        let range = range_of(config);
        params.push(scheme(config).choose(range).unwrap());
        min.push(range.min());
        max.push(range.max());
    }
    if case.has("min") {
        case.check("min", &min);
        case.check("max", &max);
    }
    case.check("scale", &params.iter().map(QParams::scale).collect::<Vec<_>>());
    case.check("zero_point", &params.iter().map(QParams::zero_point).collect::<Vec<_>>());
    if let Some(expected) = case.value("mse").as_array() {
        let tolerance = case.tolerance_of("mse");
        for (p, expected) in params.iter().zip(expected) {
            let (got, expected) = (mean_squared_error(&case.get("x"), p), expected.as_f64().unwrap());
            assert!((got - expected).abs() <= tolerance * expected, "{}: {got}, {expected}", case.name);
        }
    }
}

/// The values are restored in f64, as in the fixtures.
fn mean_squared_error(x: &[f32], p: &QParams) -> f64 {
    let squared = |&x: &f32| {
        let restored = f64::from(p.quantize(x) - p.zero_point()) * p.scale_f64();
        (restored - f64::from(x)).powi(2)
    };
    x.iter().map(squared).sum::<f64>() / x.len() as f64
}

fn extremes<O: Observer>(case: &Case, observer: O) {
    let observer = observed(case, observer);
    check_params(case, |_| observer.range().unwrap());
}

fn histogram(case: &Case) {
    let observer = observed(case, HistogramObserver::default());
    let histogram: Vec<f32> = observer.histogram().iter().map(|&count| count as f32).collect();
    case.check("histogram", &histogram);
    check_params(case, |_| observer.range().unwrap());
}

fn percentile(case: &Case) {
    let percentile = case.float("percentile");
    let tails = observed(case, PercentileObserver::new(percentile).unwrap());
    let magnitudes = observed(case, PercentileObserver::symmetric(percentile).unwrap());
    case.check_scalar("p_low", tails.percentile(100.0 - percentile).unwrap());
    case.check_scalar("p_high", tails.percentile(percentile).unwrap());
    case.check_scalar("p_abs", magnitudes.percentile(percentile).unwrap());
    check_params(case, |config| match is_symmetric(config) {
        true => magnitudes.range().unwrap(),
        false => tails.range().unwrap(),
    });
}

fn per_channel(case: &Case) {
    let axis = ChannelAxis::new(case.shape("x"), case.int("ch_axis") as usize).unwrap();
    let mut observer = PerChannelObserver::new(axis.channels(), MinMaxObserver::default());
    observer.observe(&case.get::<f32>("x"), axis).unwrap();
    let ranges = observer.ranges().unwrap();
    case.check("min", &ranges.iter().map(|r| r.min()).collect::<Vec<_>>());
    case.check("max", &ranges.iter().map(|r| r.max()).collect::<Vec<_>>());
    let schemes = configs(case).iter().map(scheme);
    let params: Vec<QParams> =
        schemes.flat_map(|scheme| ranges.iter().map(move |r| scheme.choose(*r).unwrap())).collect();
    case.check("scale", &params.iter().map(QParams::scale).collect::<Vec<_>>());
    case.check("zero_point", &params.iter().map(QParams::zero_point).collect::<Vec<_>>());
}
