//! The checksum of a model file: CRC-32 over everything that the file says. The layout does not
//! count.

use std::collections::BTreeMap;

use super::tensors::Tensor;

/// CRC-32 (IEEE) over each tensor in the order of the names (name, type, shape, data), then over
/// `description`. Each part comes after its length, so that no two models feed the same bytes.
pub(crate) fn checksum(tensors: &BTreeMap<String, Tensor<'_>>, description: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut feed = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (name, tensor) in tensors {
        feed(name.as_bytes());
        feed(tensor.dtype.to_string().as_bytes());
        let shape: Vec<u8> = tensor.shape.iter().flat_map(|&d| (d as u64).to_le_bytes()).collect();
        feed(&shape);
        feed(&tensor.data);
    }
    feed(description.as_bytes());
    hasher.finalize()
}
