//! Safetensors files of other programs, and such as no program writes.

use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Name, type, shape and data of each tensor.
pub(crate) type Tensors = Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// A file of layers: tensors in the order of their names, a description whose checksum is filled
/// in, and other metadata if any.
pub(crate) fn sealed(
    tensors: &[(&str, Dtype, &[usize], &[u8])],
    description: impl Fn(&str) -> String,
    other: Option<(String, String)>,
) -> Vec<u8> {
    let mut hasher = crc32fast::Hasher::new();
    let mut feed = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (name, dtype, shape, data) in tensors {
        feed(name.as_bytes());
        feed(dtype.to_string().as_bytes());
        feed(&shape.iter().flat_map(|&d| (d as u64).to_le_bytes()).collect::<Vec<_>>());
        feed(data);
    }
    feed(description("").as_bytes());
    let checksum = format!("{:08x}", hasher.finalize());
    let mut metadata = HashMap::from([("qnn".to_owned(), description(&checksum))]);
    metadata.extend(other);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views, Some(metadata)).unwrap()
}

/// A file with this header, word for word.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

pub(crate) fn bf16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
}

pub(crate) fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

pub(crate) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn i64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn codes(values: &[i8]) -> Vec<u8> {
    values.iter().map(|v| v.cast_unsigned()).collect()
}
