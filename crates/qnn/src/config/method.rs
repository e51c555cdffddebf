//! What a layer can become, and the choices that go with it.

use qcore::Scheme;
use qkernels::Dynamic;

use super::form::Form;
use super::observer::ObserverChoice;
use super::weights::WeightConfig;
use super::weights::WeightOnlyConfig;

/// What becomes of a layer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Method {
    /// It stays in f32.
    Float,
    /// [`StaticLinear`](crate::StaticLinear): integers multiplied, scales calibrated.
    Static(StaticConfig),
    /// [`DynamicLinear`](crate::DynamicLinear): integers multiplied, the input's scales those of the values at hand.
    Dynamic(DynamicConfig),
    /// [`WeightOnlyLinear`](crate::WeightOnlyLinear): int8 weights that become f32 in registers, float activations.
    WeightOnly(WeightOnlyConfig),
}

impl Method {
    /// The form that a layer has then.
    pub fn form(&self) -> Form {
        match self {
            Method::Float => Form::Float,
            Method::Static(_) => Form::Static,
            Method::Dynamic(_) => Form::Dynamic,
            Method::WeightOnly(_) => Form::WeightOnly,
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
    /// How the observed range of the input becomes scale and zero point. The default is [`Scheme::activations_u8`].
    pub activations: Scheme,
    /// How weights become codes.
    pub weights: WeightConfig,
    /// What finds the range.
    pub observer: ObserverChoice,
}

impl Default for StaticConfig {
    fn default() -> Self {
        Self {
            activations: Scheme::activations_u8(),
            weights: WeightConfig::default(),
            observer: ObserverChoice::default(),
        }
    }
}

impl StaticConfig {
    /// Whether an observer for this form gives the range that one for `other` would give: the same observer, for the same codes
    /// where it asks about them.
    pub(crate) fn sees_as(&self, other: &StaticConfig) -> bool {
        match (self.observer, other.observer) {
            (ObserverChoice::MinMax, ObserverChoice::MinMax) => true,
            (ObserverChoice::MovingAverage(a), ObserverChoice::MovingAverage(b)) => a == b,
            (a, b) => a.is(b) && self.activations == other.activations,
        }
    }
}

/// How a layer becomes dynamic.
#[derive(Clone, Copy, Debug, Default)]
pub struct DynamicConfig {
    /// How the values at hand become codes, and what shares a scale. The default is per token, symmetric i8.
    pub activations: Dynamic,
    /// How weights become codes.
    pub weights: WeightConfig,
}
