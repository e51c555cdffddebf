//! The schemes that engines use, and what tables call them.

use core::fmt;

use qcore::{CodeRange, Kind, Scheme};
use qkernels::Dynamic;

use super::method::{DynamicConfig, Method, StaticConfig};
use super::observer::ObserverChoice;
use super::weights::{WeightConfig, WeightGranularity};

impl Method {
    /// The schemes that engines use, those that take the least time first: static u8 with each
    /// observer; dynamic per tensor and per token, in u8 with a zero point, symmetric i8, and u8 of
    /// 7 bits, with a scale for each channel of i8 weights; dynamic in groups of 32, with weights
    /// of 4 and of 8 bits; weight-only per channel, and in groups of 32 with weights of 8 and of 4
    /// bits. [`compare_schemes`](crate::compare_schemes) tries them.
    ///
    /// ```
    /// use qnn::Method;
    /// let names: Vec<String> = Method::schemes().iter().map(Method::to_string).collect();
    /// assert_eq!(names[0], "static u8, min-max");
    /// assert!(names.contains(&"dynamic u8 per token".to_owned()));
    /// assert_eq!(names.last().unwrap(), "weight-only, groups of 32, weights of 4 bits");
    /// ```
    pub fn schemes() -> Vec<Method> {
        let observers = [
            ObserverChoice::MinMax,
            ObserverChoice::MovingAverage(0.1),
            ObserverChoice::Percentile(99.9),
            ObserverChoice::Percentile(99.99),
            ObserverChoice::Histogram,
            ObserverChoice::Mse,
            ObserverChoice::Entropy,
        ];
        let fixed =
            observers.map(|observer| Method::Static(StaticConfig { observer, ..StaticConfig::default() }));
        let u8_codes = Scheme::activations_u8();
        let seven_bits = CodeRange::unsigned(7).map(|codes| Scheme { codes, ..u8_codes });
        let dynamic = [Some(u8_codes), Some(Scheme::weights_i8()), seven_bits.ok()].into_iter().flatten();
        let dynamic = [Dynamic::PerTensor as fn(Scheme) -> Dynamic, Dynamic::PerToken]
            .into_iter()
            .flat_map(|sharing| dynamic.clone().map(sharing))
            .map(|activations| Method::Dynamic(DynamicConfig { activations, ..DynamicConfig::default() }));
        let grouped = [4, 8].into_iter().filter_map(|bits| DynamicConfig::in_groups_of(32, bits).ok());
        let weights = WeightConfig::default();
        let four_bits = WeightConfig::with_bits(4).map(|weights| weights.in_groups_of(32));
        let weight_only =
            [Some(weights), Some(weights.in_groups_of(32)), four_bits.ok()].into_iter().flatten();
        let rest = grouped.map(Method::Dynamic).chain(weight_only.map(Method::WeightOnly));
        fixed.into_iter().chain(dynamic).chain(rest).collect()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Float => f.write_str("float"),
            Method::Static(config) => {
                write!(f, "static {}, {}", Codes(&config.input()), config.observer)?;
                write_weights(f, &config.weights)
            }
            Method::Dynamic(config) => {
                match config.activations {
                    Dynamic::PerToken(scheme) => write!(f, "dynamic {} per token", Codes(&scheme))?,
                    Dynamic::PerTensor(scheme) => write!(f, "dynamic {} per tensor", Codes(&scheme))?,
                    Dynamic::PerGroup { scheme, group_len } => {
                        write!(f, "dynamic {} per group of {group_len}", Codes(&scheme))?;
                    }
                    Dynamic::GgmlQ8_0 => f.write_str("dynamic ggml Q8_0")?,
                    _ => f.write_str("dynamic")?,
                }
                write_weights(f, &config.weights)
            }
            Method::WeightOnly(weights) => {
                f.write_str("weight-only")?;
                write_weights(f, weights)
            }
        }
    }
}

/// Weights of 8 bits with a scale for each channel need no mention.
fn write_weights(f: &mut fmt::Formatter<'_>, weights: &WeightConfig) -> fmt::Result {
    match weights.granularity {
        WeightGranularity::PerChannel => {}
        WeightGranularity::PerTensor => f.write_str(", weights per tensor")?,
        groups => write!(f, ", {groups}")?,
    }
    match bits(weights.scheme.codes) {
        8 => Ok(()),
        bits => write!(f, ", weights of {bits} bits"),
    }
}

/// How many bits codes of a range need.
fn bits(codes: CodeRange) -> u32 {
    32 - codes.steps().unsigned_abs().leading_zeros()
}

/// The name of a scheme's codes.
struct Codes<'s>(&'s Scheme);

impl fmt::Display for Codes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Codes(scheme) = self;
        let (sign, affine) =
            (if scheme.codes.min() < 0 { 'i' } else { 'u' }, !matches!(scheme.kind, Kind::Symmetric { .. }));
        write!(f, "{sign}{}", bits(scheme.codes))?;
        // The usual kinds go without saying: i8 without a zero point, u8 with one.
        match (sign, affine) {
            ('i', true) => f.write_str(" affine"),
            ('u', false) => f.write_str(" symmetric"),
            _ => Ok(()),
        }
    }
}
