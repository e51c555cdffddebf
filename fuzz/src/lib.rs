//! What the targets share: a checksum that is right again after mutation, and what must hold of
//! layers that were read.

#![forbid(unsafe_code)]

use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{LayerFile, Layers, Linear, LinearWorkspace, layers_to_bytes};
use safetensors::tensor::Metadata;

/// The kernel to pack for: that of the machine.
pub fn kernel() -> Kernel {
    Kernel::select().expect("a machine has a kernel")
}

/// The file with the checksum that its contents have, so that mutations get past it; as it is where
/// it has no place for one.
pub fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut resealed = bytes.to_vec();
    if let Some((at, checksum)) = checksum(bytes) {
        resealed[at..at + 8].copy_from_slice(checksum.as_bytes());
    }
    resealed
}

/// Where the file has its checksum, and what it should be.
fn checksum(bytes: &[u8]) -> Option<(usize, String)> {
    const KEY: &str = "\"checksum\":\"";
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    // In the header the description is a string, so its quotes are escaped.
    let escaped = KEY.replace('"', "\\\"");
    let at = header.windows(escaped.len()).rposition(|part| part == escaped.as_bytes())? + escaped.len();
    header.get(at..at + 8)?;

    let parsed: Metadata = serde_json::from_slice(header).ok()?;
    let description = parsed.metadata().as_ref()?.get("qnn")?;
    let (before, after) = description.rsplit_once(KEY)?;
    let unsealed = format!("{before}{KEY}{}", after.get(8..)?);
    let mut hasher = crc32fast::Hasher::new();
    let mut feed = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let mut tensors: Vec<_> = parsed.tensors().into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, info) in tensors {
        feed(name.as_bytes());
        feed(info.dtype.to_string().as_bytes());
        feed(&info.shape.iter().flat_map(|&d| (d as u64).to_le_bytes()).collect::<Vec<_>>());
        feed(data.get(info.data_offsets.0..info.data_offsets.1)?);
    }
    feed(unsealed.as_bytes());
    Some((8 + at, format!("{:08x}", hasher.finalize())))
}

/// Layers that were read can be saved, and what was saved is read as it was.
pub fn check_saved<M: Layers + ?Sized>(model: &M) {
    let bytes = layers_to_bytes(model).expect("what was read can be saved");
    let again = layers_to_bytes(&all_layers(&bytes).expect("what was saved can be read")).expect("and saved");
    assert!(again == bytes, "what was saved is read as it was");
}

/// All layers of a file, in their order.
pub fn all_layers(bytes: &[u8]) -> Result<Vec<Linear>, qnn::LoadError> {
    let mut file = LayerFile::parse(bytes)?;
    let names = file.names().to_vec();
    let layers: Vec<_> =
        names.iter().map(|name| file.take(name, Some(kernel()))).collect::<Result<_, _>>()?;
    file.finish()?;
    Ok(layers)
}

/// A layer that was read runs, or says why not.
pub fn run(layer: &Linear) {
    let x: Vec<f32> = (0..layer.k()).map(|i| (i as f32).sin() * 100.0).collect();
    let mut y = vec![0.0_f32; layer.n()];
    let x = MatRef::new(&x, 1, layer.k()).expect("a row");
    let out = MatMut::new(&mut y, 1, layer.n()).expect("a row");
    let _ = layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new());
}
