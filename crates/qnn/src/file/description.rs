//! The description of a model in its file: everything that the tensors do not say, as JSON under
//! one key of the safetensors metadata.

use std::collections::BTreeMap;

use qcore::{ActivationError, ActivationFunction, QParams};
use qkernels::Dynamic;
use serde::{Deserialize, Deserializer, Serialize};

use super::checksum::checksum;
use super::error::{LoadError, SaveError};
use super::scheme::{ORDERS, ROUNDINGS, SchemeDescription, code_range, name_of, named, number, number_text};
use super::tensors::Tensor;
use crate::config::form::Form;

/// The name of the format.
const FORMAT: &str = "qnn.layers";
/// The version of a file of layers, and that of a file that has other tensors, too. The layout is
/// the same, but who knows only the older version does not know where those tensors belong.
const VERSION: u32 = 2;
const VERSION_WITH_TENSORS: u32 = 3;
/// The version of a file that has weights of 4 bits, or dynamic layers with groups, with other
/// tensors or without.
const VERSION_WITH_NIBBLES: u32 = 4;
/// The version of a file that has weights with minimums, or with groups in parts.
const VERSION_WITH_MINIMUMS: u32 = 5;
/// The version of a file that has weights whose k is in another order than the inputs, or dynamic
/// layers whose input has a scale for each group.
const VERSION_WITH_ORDERS: u32 = 6;
/// The version of a file that has orders of k, in which weights are packed.
const VERSION_WITH_K_ORDERS: u32 = 7;
/// The version of a file that has layers whose input is divided by a scale of its channel.
const VERSION_WITH_INPUT_SCALES: u32 = 8;
/// The latest version.
const LATEST: u32 = VERSION_WITH_INPUT_SCALES;
/// How sums become codes: by [`qcore::requantize`] with the f32 multipliers
/// `input_scale * weight_scale / output_scale`.
const REQUANTIZE: &str = "f32_round_ties_even_then_zero_point";

/// Everything that the tensors do not say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    format: String,
    version: u32,
    requantize: String,
    pub(crate) layers: Vec<LayerDescription>,
    /// The names of the tensors that are no part of a layer, in the order of the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tensors: Vec<String>,
    /// The checksum of all tensors and of this description with an empty checksum, in eight
    /// lower-case hexadecimal digits.
    checksum: String,
}

/// A layer, in the order of the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerDescription {
    pub(crate) name: String,
    /// `float`, `static`, `dynamic` or `weight_only`.
    pub(crate) form: String,
    /// `none`, or the name of an activation function.
    pub(crate) activation: String,
    /// The parameters of the activation function, if it has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) activation_parameters: Vec<String>,
    /// Only static layers have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<InputDescription>,
    /// Only dynamic layers have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dynamic: Option<DynamicDescription>,
    /// How many consecutive k share a scale. Only dynamic and weight-only layers with groups have
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<usize>,
    /// The inputs of a dynamic or weight-only layer whose weights have 4 bits, two to a byte: of an
    /// even k in the low half, of an odd one in the high half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nibbles: Option<usize>,
    /// Whether the groups or channels of a dynamic or weight-only layer have minimums.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) minimums: bool,
    /// How many consecutive k of a group have an integer that its scale is multiplied by, and one
    /// for its minimum if there are minimums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<usize>,
    /// Whether the columns of a dynamic or weight-only layer are in another order than its inputs.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) input_order: bool,
    /// Whether a layer of any form but f32 divides its input by a scale of each channel.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) input_scale: bool,
    /// Whether a static or dynamic layer, whose weights have 8 bits and nothing but channels, has
    /// the orders of k in which they are packed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) k_orders: bool,
}

/// How the input of a static layer becomes codes, beside its scale and zero point.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputDescription {
    /// Smallest and largest code.
    codes: [i32; 2],
    order: String,
    rounding: String,
    /// The scale before it is rounded to f32, if rounding changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale_f64: Option<String>,
    /// The divisor of values, if it is not the scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    divisor: Option<String>,
    /// `distant`, if the zero point is none of the codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zero_point: Option<String>,
}

/// How the input of a dynamic layer becomes codes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DynamicDescription {
    /// `token`, `tensor`, `group`, or `ggml_q8_0`: the blocks of ggml.
    per: String,
    /// All but `ggml_q8_0` have it.
    #[serde(default, deserialize_with = "no_null", skip_serializing_if = "Option::is_none")]
    scheme: Option<SchemeDescription>,
    /// How many consecutive k of the input share a scale. Only `group` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<usize>,
}

/// What is left out is none, but what is there must be a scheme.
fn no_null<'de, D: Deserializer<'de>>(scheme: D) -> Result<Option<SchemeDescription>, D::Error> {
    SchemeDescription::deserialize(scheme).map(Some)
}

/// The names of inputs with a scale for each group, by a scheme or as ggml quantizes them.
const GROUP: &str = "group";
const GGML: &str = "ggml_q8_0";

/// The name of a zero point that is none of the codes.
const DISTANT: &str = "distant";

/// The fields that must be known before the rest can be read.
#[derive(Deserialize)]
struct Identity {
    format: String,
    version: u32,
}

impl Description {
    pub(crate) fn new(
        layers: Vec<LayerDescription>,
        tensors: Vec<String>,
        contents: &BTreeMap<String, Tensor<'_>>,
    ) -> Result<Self, serde_json::Error> {
        let mut description = Self {
            format: FORMAT.to_owned(),
            version: version(&layers, &tensors),
            requantize: REQUANTIZE.to_owned(),
            layers,
            tensors,
            checksum: String::new(),
        };
        description.checksum = description.checksum_with(contents)?;
        Ok(description)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, LoadError> {
        let parsed: Result<Self, _> = serde_json::from_str(text);
        let identity = match &parsed {
            Ok(description) => Identity { format: description.format.clone(), version: description.version },
            // If only another version knows a field, the version is the error to report.
            Err(_) => serde_json::from_str(text).map_err(LoadError::Description)?,
        };
        named("format", &[(FORMAT, ())], identity.format)?;
        if !(VERSION..=LATEST).contains(&identity.version) {
            return Err(LoadError::Version { expected: LATEST, got: identity.version });
        }
        let description = parsed.map_err(LoadError::Description)?;
        let expected = version(&description.layers, &description.tensors);
        if expected != identity.version {
            return Err(LoadError::Version { expected, got: identity.version });
        }
        named("requantize", &[(REQUANTIZE, ())], description.requantize.clone())?;
        Ok(description)
    }

    /// Checks that the checksum is that of `tensors` and of this description.
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

/// The lowest version that knows everything of a file.
fn version(layers: &[LayerDescription], tensors: &[String]) -> u32 {
    let has_nibbles = |layer: &LayerDescription| {
        layer.nibbles.is_some() || (layer.dynamic.is_some() && layer.group.is_some())
    };
    let has_input_groups =
        |layer: &LayerDescription| layer.dynamic.as_ref().is_some_and(DynamicDescription::has_groups);
    if layers.iter().any(|layer| layer.input_scale) {
        VERSION_WITH_INPUT_SCALES
    } else if layers.iter().any(|layer| layer.k_orders) {
        VERSION_WITH_K_ORDERS
    } else if layers.iter().any(|layer| layer.input_order || has_input_groups(layer)) {
        VERSION_WITH_ORDERS
    } else if layers.iter().any(|layer| layer.minimums || layer.part.is_some()) {
        VERSION_WITH_MINIMUMS
    } else if layers.iter().any(has_nibbles) {
        VERSION_WITH_NIBBLES
    } else if tensors.is_empty() {
        VERSION
    } else {
        VERSION_WITH_TENSORS
    }
}

impl LayerDescription {
    /// The description of a layer, without what only layers of its form have.
    pub(crate) fn new(name: &str, form: Form, activation: ActivationFunction) -> Self {
        Self {
            name: name.to_owned(),
            form: form.name().to_owned(),
            activation: function_name(activation).to_owned(),
            activation_parameters: activation.parameters().map(number_text).collect(),
            input: None,
            dynamic: None,
            group: None,
            nibbles: None,
            minimums: false,
            part: None,
            input_order: false,
            input_scale: false,
            k_orders: false,
        }
    }

    /// The activation function. Any of qcore's is known here.
    pub(crate) fn function(&self) -> Result<ActivationFunction, LoadError> {
        const PARAMETERS: &str = "activation_parameters";
        let unknown = || LoadError::Unknown {
            field: "activation",
            expected: "none or the name of an activation function".to_owned(),
            got: self.activation.clone(),
        };
        let identity = ActivationFunction::Identity;
        let name = match &self.activation[..] {
            name if name == function_name(identity) => identity.name(),
            // Files have one name for it.
            name if name == identity.name() => return Err(unknown()),
            name => name,
        };
        let parameters = self.activation_parameters.iter().map(|text| number(PARAMETERS, text));
        let parameters = parameters.collect::<Result<Vec<f32>, _>>()?;
        ActivationFunction::from_name(name, &parameters).map_err(|error| match error {
            ActivationError::Name { .. } => unknown(),
            error => LoadError::Unknown {
                field: PARAMETERS,
                expected: format!("those of {} ({error})", self.activation),
                got: self.activation_parameters.join(", "),
            },
        })
    }
}

/// The name of an activation function in files.
fn function_name(function: ActivationFunction) -> &'static str {
    match function {
        ActivationFunction::Identity => "none",
        function => function.name(),
    }
}

impl InputDescription {
    pub(crate) fn of(layer: &str, params: &QParams) -> Result<Self, SaveError> {
        let (codes, scale) = (params.codes(), params.scale());
        let order = name_of(layer, &ORDERS, params.order())?;
        let rounding = name_of(layer, &ROUNDINGS, params.rounding())?;
        let distant = !codes.contains(params.zero_point());
        Ok(Self {
            codes: [codes.min(), codes.max()],
            order,
            rounding,
            scale_f64: (params.scale_f64() != f64::from(scale)).then(|| number_text(params.scale_f64())),
            divisor: (params.divisor() != scale).then(|| number_text(params.divisor())),
            zero_point: distant.then(|| DISTANT.to_owned()),
        })
    }

    /// The parameters with this scale and zero point.
    pub(crate) fn params(self, layer: &str, scale: f32, zero_point: i32) -> Result<QParams, LoadError> {
        let codes = code_range(self.codes)?;
        let exact = match self.scale_f64 {
            None => scale.into(),
            Some(got) => {
                let exact: f64 = number("scale_f64", &got)?;
                if exact as f32 != scale {
                    let expected = format!("a number that f32 rounds to the scale {scale:e}");
                    return Err(LoadError::Unknown { field: "scale_f64", expected, got });
                }
                exact
            }
        };
        let distant = self.zero_point.map(|got| named("zero_point", &[(DISTANT, ())], got)).transpose()?;
        let params = match (distant, self.divisor) {
            (None, None) => QParams::with_f64_scale(exact, zero_point, codes),
            (None, Some(divisor)) => {
                QParams::with_divisor(exact, number("divisor", &divisor)?, zero_point, codes)
            }
            (Some(()), None) => QParams::with_distant_zero_point(exact, zero_point, codes),
            (Some(()), Some(got)) => {
                let expected = "none beside a distant zero point".to_owned();
                return Err(LoadError::Unknown { field: "divisor", expected, got });
            }
        };
        let params = params.map_err(|error| LoadError::Input { layer: layer.to_owned(), error })?;
        let order = named("order", &ORDERS, self.order)?;
        Ok(params.with_order(order).with_rounding(named("rounding", &ROUNDINGS, self.rounding)?))
    }
}

impl DynamicDescription {
    pub(crate) fn of(layer: &str, dynamic: &Dynamic) -> Result<Self, SaveError> {
        let (per, group, scheme) = match dynamic {
            Dynamic::PerTensor(scheme) => ("tensor", None, Some(scheme)),
            Dynamic::PerToken(scheme) => ("token", None, Some(scheme)),
            Dynamic::PerGroup { scheme, group_len } => (GROUP, Some(*group_len), Some(scheme)),
            Dynamic::GgmlQ8_0 => (GGML, None, None),
            _ => return Err(SaveError::Unnamed { layer: layer.to_owned(), what: format!("{dynamic:?}") }),
        };
        let scheme = scheme.map(|scheme| SchemeDescription::of(layer, scheme)).transpose()?;
        Ok(Self { per: per.to_owned(), group, scheme })
    }

    pub(crate) fn dynamic(self) -> Result<Dynamic, LoadError> {
        let Self { per, group, scheme } = self;
        let kinds = [("tensor", 0), ("token", 1), (GROUP, 2), (GGML, 3)];
        let kind = named("per", &kinds, per.clone())?;
        let scheme = scheme.map(SchemeDescription::scheme).transpose()?;
        let beside = |field, wanted: bool, got: String| {
            let expected = format!("{} beside {per:?}", if wanted { "one" } else { "none" });
            LoadError::Unknown { field, expected, got }
        };
        if let Some(group) = group.filter(|_| kind != 2) {
            return Err(beside("group", false, group.to_string()));
        }
        match (kind, scheme, group) {
            (3, None, _) => Ok(Dynamic::GgmlQ8_0),
            (3, Some(_), _) => Err(beside("scheme", false, "one".to_owned())),
            (_, None, _) => Err(beside("scheme", true, "none".to_owned())),
            (2, _, None) => Err(beside("group", true, "none".to_owned())),
            (2, Some(scheme), Some(group_len)) => Ok(Dynamic::PerGroup { scheme, group_len }),
            (1, Some(scheme), _) => Ok(Dynamic::PerToken(scheme)),
            (_, Some(scheme), _) => Ok(Dynamic::PerTensor(scheme)),
        }
    }

    /// Whether the input has a scale for each group.
    fn has_groups(&self) -> bool {
        self.per == GROUP || self.per == GGML
    }
}
