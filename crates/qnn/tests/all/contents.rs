//! What a file of layers holds, to be altered.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::tensor_files::sealed;

/// The contents of a model file, to be altered and written again with a checksum that is right.
#[derive(Clone)]
pub(crate) struct Contents {
    pub(crate) tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    pub(crate) description: serde_json::Value,
    pub(crate) more_metadata: Option<(String, String)>,
}

impl Contents {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
        let description = &metadata.metadata().as_ref().unwrap()["qnn"];
        let owned = |(name, tensor): (String, TensorView<'_>)| {
            (name, (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
        };
        Self {
            tensors: file.tensors().into_iter().map(owned).collect(),
            description: serde_json::from_str(description).unwrap(),
            more_metadata: None,
        }
    }

    pub(crate) fn set(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        data: impl IntoIterator<Item = [u8; 4]>,
    ) {
        let data = data.into_iter().flatten().collect();
        self.tensors.insert(name.to_owned(), (dtype, shape.to_vec(), data));
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let text = |checksum: &str| {
            let mut description = self.description.clone();
            description["checksum"] = checksum.into();
            json(&description)
        };
        let contents = self.tensors.iter();
        let tensors: Vec<_> =
            contents.map(|(name, (d, s, data))| (&name[..], *d, &s[..], &data[..])).collect();
        sealed(&tensors, text, self.more_metadata.clone())
    }
}

/// JSON with the fields in the order of the format; serde_json sorts those of a Value.
fn json(value: &serde_json::Value) -> String {
    const FIELDS: [&str; 19] = [
        "format",
        "version",
        "requantize",
        "layers",
        "name",
        "form",
        "activation",
        "input",
        "codes",
        "order",
        "rounding",
        "dynamic",
        "per",
        "scheme",
        "group",
        "nibbles",
        "minimums",
        "part",
        "checksum",
    ];
    match value {
        serde_json::Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| FIELDS.iter().position(|field| field == name).unwrap_or(99));
            let fields: Vec<_> = fields.iter().map(|(name, v)| format!("\"{name}\":{}", json(v))).collect();
            format!("{{{}}}", fields.join(","))
        }
        serde_json::Value::Array(values) => {
            format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}
