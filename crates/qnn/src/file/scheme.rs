//! How a model's file describes schemes: by the name of a preset, or else field by field.

use core::fmt;
use core::str::FromStr;

use qcore::{
    AffineRange, CodeRange, Kind, Rounding, ScaleArithmetic, Scheme, SymmetricDivisor, ZeroPointOrder,
    ZeroScale,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::{LoadError, SaveError};

pub(crate) const ORDERS: [(&str, ZeroPointOrder); 2] =
    [("round_then_add", ZeroPointOrder::RoundThenAdd), ("add_then_round", ZeroPointOrder::AddThenRound)];
pub(crate) const ROUNDINGS: [(&str, Rounding); 2] =
    [("ties_to_even", Rounding::TiesToEven), ("ties_away", Rounding::TiesAway)];
const PRESETS: [(&str, Scheme); 9] = [
    ("weights_i8", Scheme::weights_i8()),
    ("activations_u8", Scheme::activations_u8()),
    ("activations_i8", Scheme::activations_i8()),
    ("onnx_dynamic_u8", Scheme::onnx_dynamic(CodeRange::U8)),
    ("onnx_dynamic_i8", Scheme::onnx_dynamic(CodeRange::I8)),
    ("pytorch_affine_u8", Scheme::pytorch_affine(CodeRange::U8)),
    ("pytorch_affine_i8", Scheme::pytorch_affine(CodeRange::I8)),
    ("pytorch_symmetric_i8", Scheme::pytorch_symmetric(CodeRange::I8)),
    ("tutorial_symmetric_i8", Scheme::tutorial_symmetric(CodeRange::I8)),
];
const KINDS: [(&str, Kind); 5] = [
    ("symmetric_max_code", Kind::Symmetric { divisor: SymmetricDivisor::MaxCode }),
    ("symmetric_half_range", Kind::Symmetric { divisor: SymmetricDivisor::HalfRange }),
    ("affine_as_observed", Kind::Affine { range: AffineRange::AsObserved }),
    ("affine_as_observed_distant_zero", Kind::Affine { range: AffineRange::AsObservedDistantZero }),
    ("affine_extended_to_zero", Kind::Affine { range: AffineRange::ExtendedToZero }),
];
const ARITHMETICS: [(&str, ScaleArithmetic); 5] = [
    ("f32", ScaleArithmetic::F32),
    ("f64", ScaleArithmetic::F64),
    ("f64_stored_f32", ScaleArithmetic::F64StoredF32),
    ("f64_ties_away", ScaleArithmetic::F64TiesAway),
    ("f16", ScaleArithmetic::F16),
];
/// The rules for a scale of 0. Rules with a number have 0 in its place.
const ZERO_SCALES: [(&str, ZeroScale); 7] = [
    ("one", ZeroScale::One),
    ("subnormal_is_one", ZeroScale::SubnormalIsOne),
    ("add_epsilon", ZeroScale::AddEpsilon(0.0)),
    ("floor_magnitude", ZeroScale::FloorMagnitude(0.0)),
    ("floor_scale", ZeroScale::FloorScale(0.0)),
    ("constant_is_zero", ZeroScale::ConstantIsZero { below: 0.0 }),
    ("reject", ZeroScale::Reject),
];

/// A string that names a preset, or an object with all choices.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum SchemeDescription {
    Preset(String),
    Choices(SchemeChoices),
}

/// A scheme that is no preset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemeChoices {
    /// Smallest and largest code.
    codes: [i32; 2],
    kind: String,
    scale: String,
    zero_scale: String,
    /// The number of the rule for scales of 0, if that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zero_scale_number: Option<String>,
    order: String,
    rounding: String,
}

impl SchemeDescription {
    pub(crate) fn of(layer: &str, scheme: &Scheme) -> Result<Self, SaveError> {
        if let Ok(preset) = name_of(layer, &PRESETS, *scheme) {
            return Ok(Self::Preset(preset));
        }
        let Scheme { codes, kind, scale, zero_scale, order, rounding } = *scheme;
        let (rule, zero_scale_number) = match zero_scale {
            ZeroScale::AddEpsilon(epsilon) => (ZeroScale::AddEpsilon(0.0), Some(number_text(epsilon))),
            ZeroScale::FloorMagnitude(floor) => (ZeroScale::FloorMagnitude(0.0), Some(number_text(floor))),
            ZeroScale::FloorScale(floor) => (ZeroScale::FloorScale(0.0), Some(number_text(floor))),
            ZeroScale::ConstantIsZero { below } => {
                (ZeroScale::ConstantIsZero { below: 0.0 }, Some(number_text(below)))
            }
            rule => (rule, None),
        };
        Ok(Self::Choices(SchemeChoices {
            codes: [codes.min(), codes.max()],
            kind: name_of(layer, &KINDS, kind)?,
            scale: name_of(layer, &ARITHMETICS, scale)?,
            zero_scale: name_of(layer, &ZERO_SCALES, rule)?,
            zero_scale_number,
            order: name_of(layer, &ORDERS, order)?,
            rounding: name_of(layer, &ROUNDINGS, rounding)?,
        }))
    }

    pub(crate) fn scheme(self) -> Result<Scheme, LoadError> {
        let choices = match self {
            Self::Preset(name) => return named("scheme", &PRESETS, name),
            Self::Choices(choices) => choices,
        };
        let rule = named("zero_scale", &ZERO_SCALES, choices.zero_scale.clone())?;
        const NUMBER: &str = "zero_scale_number";
        let zero_scale = match (rule, choices.zero_scale_number) {
            (ZeroScale::AddEpsilon(_), Some(epsilon)) => ZeroScale::AddEpsilon(number(NUMBER, &epsilon)?),
            (ZeroScale::FloorMagnitude(_), Some(floor)) => ZeroScale::FloorMagnitude(number(NUMBER, &floor)?),
            (ZeroScale::FloorScale(_), Some(floor)) => ZeroScale::FloorScale(number(NUMBER, &floor)?),
            (ZeroScale::ConstantIsZero { .. }, Some(below)) => {
                ZeroScale::ConstantIsZero { below: number(NUMBER, &below)? }
            }
            (ZeroScale::One | ZeroScale::SubnormalIsOne | ZeroScale::Reject, None) => rule,
            (_, number) => {
                let wanted = if number.is_some() { "none" } else { "a number" };
                let expected = format!("{wanted} beside {:?}", choices.zero_scale);
                return Err(LoadError::Unknown { field: NUMBER, expected, got: number.unwrap_or_default() });
            }
        };
        Ok(Scheme {
            codes: code_range(choices.codes)?,
            kind: named("kind", &KINDS, choices.kind)?,
            scale: named("scale", &ARITHMETICS, choices.scale)?,
            zero_scale,
            order: named("order", &ORDERS, choices.order)?,
            rounding: named("rounding", &ROUNDINGS, choices.rounding)?,
        })
    }
}

impl<'de> Deserialize<'de> for SchemeDescription {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// This is not derived, because an untagged enum would not say what is wrong with the
        /// choices.
        struct PresetOrChoices;

        impl<'de> Visitor<'de> for PresetOrChoices {
            type Value = SchemeDescription;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a scheme, or its choices")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<SchemeDescription, E> {
                Ok(SchemeDescription::Preset(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SchemeDescription, A::Error> {
                let choices = SchemeChoices::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SchemeDescription::Choices(choices))
            }
        }

        deserializer.deserialize_any(PresetOrChoices)
    }
}

/// The range of codes with these ends.
pub(crate) fn code_range([min, max]: [i32; 2]) -> Result<CodeRange, LoadError> {
    let widths = (2..=8).flat_map(|bits| [CodeRange::signed(bits), CodeRange::unsigned(bits)]).flatten();
    let mut known = widths.flat_map(|codes| [codes, codes.narrow()]);
    known.find(|codes| (codes.min(), codes.max()) == (min, max)).ok_or_else(|| LoadError::Unknown {
        field: "codes",
        expected: "those of 2 to 8 bits, signed, unsigned or narrow".to_owned(),
        got: format!("{min}..={max}"),
    })
}

/// Finds the value that has the name `got`.
pub(crate) fn named<T: Copy>(field: &'static str, known: &[(&str, T)], got: String) -> Result<T, LoadError> {
    match known.iter().find(|(name, _)| *name == got) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            Err(LoadError::Unknown { field, expected: names.join(" or "), got })
        }
    }
}

/// Finds the name of a value that was chosen for `layer`.
pub(crate) fn name_of<T: PartialEq + fmt::Debug>(
    layer: &str,
    known: &[(&str, T)],
    value: T,
) -> Result<String, SaveError> {
    match known.iter().find(|(_, known)| *known == value) {
        Some((name, _)) => Ok((*name).to_owned()),
        None => Err(SaveError::Unnamed { layer: layer.to_owned(), what: format!("{value:?}") }),
    }
}

/// Writes a number as text that gives it back bit by bit. JSON's numbers cannot do that, because
/// they have no infinity and no NaN.
pub(crate) fn number_text(value: impl fmt::LowerExp) -> String {
    format!("{value:e}")
}

/// Reads a number that [`number_text`] wrote.
pub(crate) fn number<T: FromStr>(field: &'static str, text: &str) -> Result<T, LoadError> {
    text.parse().map_err(|_| LoadError::Unknown {
        field,
        expected: "a number".to_owned(),
        got: text.to_owned(),
    })
}
