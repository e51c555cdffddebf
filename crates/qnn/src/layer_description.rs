//! What a model's file says beside its tensors: JSON under one key of the safetensors metadata.

use std::collections::BTreeMap;

use qcore::{CodeRange, QParams, Rounding, Scheme, ZeroPointOrder};
use qkernels::Dynamic;
use serde::{Deserialize, Serialize};

use crate::checksum::checksum;
use crate::file_error::{LoadError, SaveError};
use crate::tensors::Tensor;

/// The key of the metadata.
pub(crate) const KEY: &str = "qnn";
/// The name of the format.
const FORMAT: &str = "qnn.layers";
/// The version of the format.
const VERSION: u32 = 2;
/// How sums become codes: [`qcore::requantize`], f32 multipliers `input_scale * weight_scale / output_scale`.
const REQUANTIZE: &str = "f32_round_ties_even_then_zero_point";

const ORDERS: [(&str, ZeroPointOrder); 2] =
    [("round_then_add", ZeroPointOrder::RoundThenAdd), ("add_then_round", ZeroPointOrder::AddThenRound)];
const ROUNDINGS: [(&str, Rounding); 2] =
    [("ties_to_even", Rounding::TiesToEven), ("ties_away", Rounding::TiesAway)];
const SCHEMES: [(&str, Scheme); 9] = [
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

/// What the tensors do not say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    format: String,
    version: u32,
    requantize: String,
    pub(crate) layers: Vec<LayerDescription>,
    /// Of all tensors and of this description with an empty checksum, in eight lower-case hexadecimal digits.
    checksum: String,
}

/// A layer, in the order of the model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerDescription {
    pub(crate) name: String,
    /// `float`, `static`, `dynamic` or `weight_only`.
    pub(crate) form: String,
    /// `none` or `relu`.
    pub(crate) activation: String,
    /// Static layers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<InputDescription>,
    /// Dynamic layers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dynamic: Option<DynamicDescription>,
    /// Consecutive k that share a scale; weight-only layers that have groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<usize>,
}

/// How the input of a static layer becomes codes, beside its scale and zero point.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputDescription {
    /// Smallest and largest code.
    codes: [i32; 2],
    order: String,
    rounding: String,
}

/// How the input of a dynamic layer becomes codes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DynamicDescription {
    /// `token` or `tensor`.
    per: String,
    /// The name of the scheme.
    scheme: String,
}

/// What must be known before the rest can be read.
#[derive(Deserialize)]
struct Identity {
    format: String,
    version: u32,
}

impl Description {
    pub(crate) fn new(
        layers: Vec<LayerDescription>,
        tensors: &BTreeMap<String, Tensor<'_>>,
    ) -> Result<Self, serde_json::Error> {
        let mut description = Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            requantize: REQUANTIZE.to_owned(),
            layers,
            checksum: String::new(),
        };
        description.checksum = description.checksum_with(tensors)?;
        Ok(description)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, LoadError> {
        let parsed: Result<Self, _> = serde_json::from_str(text);
        let identity = match &parsed {
            Ok(description) => Identity { format: description.format.clone(), version: description.version },
            // What only another version knows must not come first.
            Err(_) => serde_json::from_str(text).map_err(LoadError::Description)?,
        };
        named("format", &[(FORMAT, ())], identity.format)?;
        if identity.version != VERSION {
            return Err(LoadError::Version { expected: VERSION, got: identity.version });
        }
        let description = parsed.map_err(LoadError::Description)?;
        named("requantize", &[(REQUANTIZE, ())], description.requantize.clone())?;
        Ok(description)
    }

    /// The checksum is that of `tensors` and of this description.
    pub(crate) fn check(&mut self, tensors: &BTreeMap<String, Tensor<'_>>) -> Result<(), LoadError> {
        let got = self.checksum_with(tensors).map_err(LoadError::Description)?;
        let expected = self.checksum.clone();
        if expected == got { Ok(()) } else { Err(LoadError::Checksum { expected, got }) }
    }

    fn checksum_with(&mut self, tensors: &BTreeMap<String, Tensor<'_>>) -> Result<String, serde_json::Error> {
        let stated = core::mem::take(&mut self.checksum);
        let text = serde_json::to_string(self)?;
        self.checksum = stated;
        Ok(format!("{:08x}", checksum(tensors, &text)))
    }
}

impl InputDescription {
    pub(crate) fn of(layer: &str, params: &QParams) -> Result<Self, SaveError> {
        let codes = params.codes();
        let unnamed = |what: String| SaveError::Unnamed { layer: layer.to_owned(), what };
        if !codes.contains(params.zero_point()) {
            return Err(unnamed(format!("zero point {}, which is no code", params.zero_point())));
        }
        let order = name_of(&ORDERS, params.order()).ok_or_else(|| unnamed(format!("{:?}", params.order())));
        let rounding = name_of(&ROUNDINGS, params.rounding());
        let rounding = rounding.ok_or_else(|| unnamed(format!("{:?}", params.rounding())));
        Ok(Self { codes: [codes.min(), codes.max()], order: order?, rounding: rounding? })
    }

    /// The parameters with this scale and zero point.
    pub(crate) fn params(self, layer: &str, scale: f32, zero_point: i32) -> Result<QParams, LoadError> {
        let known: Vec<_> = (1..=8)
            .flat_map(|bits| [CodeRange::signed(bits), CodeRange::unsigned(bits)])
            .flatten()
            .flat_map(|codes| [codes, codes.narrow()])
            .collect();
        let [min, max] = self.codes;
        let codes = known.into_iter().find(|codes| (codes.min(), codes.max()) == (min, max));
        let codes = codes.ok_or_else(|| LoadError::Unknown {
            field: "codes",
            expected: "those of 1 to 8 bits, signed, unsigned or narrow".to_owned(),
            got: format!("{min}..={max}"),
        })?;
        let params = QParams::new(scale, zero_point, codes)
            .map_err(|source| LoadError::Input { layer: layer.to_owned(), source })?;
        let order = named("order", &ORDERS, self.order)?;
        Ok(params.with_order(order).with_rounding(named("rounding", &ROUNDINGS, self.rounding)?))
    }
}

impl DynamicDescription {
    pub(crate) fn of(layer: &str, dynamic: &Dynamic) -> Result<Self, SaveError> {
        let unnamed = || SaveError::Unnamed { layer: layer.to_owned(), what: format!("{dynamic:?}") };
        let (per, scheme) = match dynamic {
            Dynamic::PerTensor(scheme) => ("tensor", scheme),
            Dynamic::PerToken(scheme) => ("token", scheme),
            _ => return Err(unnamed()),
        };
        Ok(Self { per: per.to_owned(), scheme: name_of(&SCHEMES, *scheme).ok_or_else(unnamed)? })
    }

    pub(crate) fn dynamic(self) -> Result<Dynamic, LoadError> {
        let scheme = named("scheme", &SCHEMES, self.scheme)?;
        named(
            "per",
            &[("tensor", Dynamic::PerTensor(scheme)), ("token", Dynamic::PerToken(scheme))],
            self.per,
        )
    }
}

/// The value of the name `got`.
pub(crate) fn named<T: Copy>(field: &'static str, known: &[(&str, T)], got: String) -> Result<T, LoadError> {
    match known.iter().find(|(name, _)| *name == got) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            Err(LoadError::Unknown { field, expected: names.join(" or "), got })
        }
    }
}

fn name_of<T: PartialEq>(known: &[(&str, T)], value: T) -> Option<String> {
    known.iter().find(|(_, known)| *known == value).map(|(name, _)| (*name).to_owned())
}
