//! What a layer can become, and the choices that go with it.

use qcore::{CodeRangeError, Scheme};
use qkernels::Dynamic;

use super::form::Form;
use super::observer::ObserverChoice;
use super::weights::WeightConfig;

/// What becomes of a layer. `Display` names it in tables.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Method {
    /// It stays in f32.
    Float,
    /// It becomes a [`StaticLinear`](crate::StaticLinear): integers are multiplied, and scales are
    /// calibrated.
    Static(StaticConfig),
    /// It becomes a [`DynamicLinear`](crate::DynamicLinear): integers are multiplied, and the
    /// input's scales come from the values at hand.
    Dynamic(DynamicConfig),
    /// It becomes a [`WeightOnlyLinear`](crate::WeightOnlyLinear): weights of 8 or 4 bits become
    /// f32 in registers, and activations are floats.
    WeightOnly(WeightConfig),
}

impl Method {
    /// The form that this gives a layer.
    pub fn form(&self) -> Form {
        match self {
            Method::Float => Form::Float,
            Method::Static(_) => Form::Static,
            Method::Dynamic(_) => Form::Dynamic,
            Method::WeightOnly(_) => Form::WeightOnly,
        }
    }

    /// How weights become codes, if they do.
    pub(crate) fn weights(&self) -> Option<&WeightConfig> {
        match self {
            Method::Float => None,
            Method::Static(config) => Some(&config.weights),
            Method::Dynamic(config) => Some(&config.weights),
            Method::WeightOnly(config) => Some(config),
        }
    }

    /// Whether both are the same choice.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Method::Float, Method::Float) => true,
            (Method::Static(a), Method::Static(b)) => {
                (a.input(), a.weights) == (b.input(), b.weights) && a.observer.is(b.observer)
            }
            (Method::Dynamic(a), Method::Dynamic(b)) => {
                (a.activations, a.weights) == (b.activations, b.weights)
            }
            (Method::WeightOnly(a), Method::WeightOnly(b)) => a == b,
            _ => false,
        }
    }
}

impl Default for Method {
    fn default() -> Self {
        Method::Static(StaticConfig::default())
    }
}

/// How a layer becomes static.
#[derive(Clone, Copy, Debug)]
pub struct StaticConfig {
    /// How the observed range of the input becomes scale and zero point. The default is
    /// [`Scheme::activations_u8`].
    pub activations: Scheme,
    /// How weights become codes.
    pub weights: WeightConfig,
    /// The observer that finds the range.
    pub observer: ObserverChoice,
    /// Whether activations have 7 of their 8 bits: u8 codes are 0..=127, i8 codes -64..=63
    /// ([`CodeRange::reduced`](qcore::CodeRange::reduced)). The default is `false`.
    ///
    /// The name is PyTorch's. It is for CPUs with AVX2 and without VNNI: with u8 codes of 7 bits
    /// the fast instruction of the kernel `avx2` is exact for any weights, also for those for which
    /// packing finds no order of k. (i8 codes of 7 bits are 64..=191 in the form that it reads,
    /// which is hardly less than 255, and few more weights pass.) It costs resolution: steps are
    /// twice as wide, so that the error of activations is 6 dB larger. Sums are exact without it on
    /// every kernel, and no other kernel is faster with it.
    ///
    /// ```
    /// use qnn::{Method, StaticConfig};
    /// let config = StaticConfig { reduce_range: true, ..StaticConfig::default() };
    /// assert_eq!(Method::Static(config).to_string(), "static u7, min-max");
    /// ```
    pub reduce_range: bool,
}

impl Default for StaticConfig {
    fn default() -> Self {
        Self {
            activations: Scheme::activations_u8(),
            weights: WeightConfig::default(),
            observer: ObserverChoice::default(),
            reduce_range: false,
        }
    }
}

impl StaticConfig {
    /// [`activations`](Self::activations) with the codes that are left of them.
    pub(crate) fn input(&self) -> Scheme {
        let codes = self.activations.codes;
        let codes = if self.reduce_range { codes.reduced() } else { codes };
        Scheme { codes, ..self.activations }
    }

    /// Whether an observer for this form gives the same range as one for `other`: it must be the
    /// same observer, and the codes must be the same if the observer depends on them.
    pub(crate) fn sees_as(&self, other: &StaticConfig) -> bool {
        match (self.observer, other.observer) {
            (ObserverChoice::MinMax, ObserverChoice::MinMax) => true,
            (ObserverChoice::MovingAverage(a), ObserverChoice::MovingAverage(b)) => a == b,
            (a, b) => a.is(b) && self.input() == other.input(),
        }
    }
}

/// How a layer becomes dynamic.
#[derive(Clone, Copy, Debug, Default)]
pub struct DynamicConfig {
    /// How the values at hand become codes, and which of them share a scale. The default is u8
    /// with a scale and a zero point for each token.
    pub activations: Dynamic,
    /// How weights become codes.
    pub weights: WeightConfig,
}

impl DynamicConfig {
    /// Weights of so many bits with a scale for each `len` consecutive k, and symmetric i8
    /// activations with a scale for each token, which need no sums of the weights of each group:
    /// W8A8 or W4A8 in groups.
    ///
    /// ```
    /// use qnn::{DynamicConfig, Method};
    /// let four_bits = Method::Dynamic(DynamicConfig::in_groups_of(32, 4)?);
    /// assert_eq!(four_bits.to_string(), "dynamic i8 per token, groups of 32, weights of 4 bits");
    /// // Activations may have a scale for each of these groups, too.
    /// let activations = qkernels::Dynamic::GgmlQ8_0;
    /// let ggml = Method::Dynamic(DynamicConfig { activations, ..DynamicConfig::in_groups_of(32, 4)? });
    /// assert_eq!(ggml.to_string(), "dynamic ggml Q8_0, groups of 32, weights of 4 bits");
    /// # Ok::<(), qcore::CodeRangeError>(())
    /// ```
    ///
    /// # Errors
    /// [`CodeRangeError`] if there are no codes of so many bits.
    pub fn in_groups_of(len: usize, bits: u32) -> Result<Self, CodeRangeError> {
        let activations = Dynamic::PerToken(Scheme::weights_i8());
        Ok(Self { activations, weights: WeightConfig::with_bits(bits)?.in_groups_of(len) })
    }
}
