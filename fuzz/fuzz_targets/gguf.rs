//! `GgufFile`: every layer in every form, copies of the file with each of them in its place, then
//! every tensor that is left.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qcore::{ActivationFunction, Scheme};
use qkernels::Dynamic;
use qnn::{CodesForm, GgufFile, GgufValue, GgufWriter, Linear};
use qnn_fuzz::{check_saved, kernel, run};

const FORMS: [CodesForm; 3] =
    [CodesForm::Float, CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8())), CodesForm::WeightOnly];

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = GgufFile::parse(bytes) else { return };
    for (_, value) in file.metadata() {
        if let GgufValue::Array(array) = value {
            assert_eq!(array.iter().count() as u64, array.len(), "all values are read again");
        }
    }
    let names: Vec<String> = file.tensors().map(str::to_owned).collect();
    for name in &names {
        let Some(name) = name.strip_suffix(".weight") else { continue };
        for form in FORMS {
            let mut copy = file.clone();
            match copy.take_linear(name, form, ActivationFunction::Identity, kernel()) {
                Ok(layer) => {
                    run(&layer);
                    check_saved(&layer);
                    check_written(&file, &layer);
                }
                Err(_) => assert_eq!(copy.tensors().count(), names.len(), "a failed take changes nothing"),
            }
        }
    }
    if let Ok(writer) = GgufWriter::new(&file) {
        let copy = writer.to_bytes().expect("a copy is written");
        let copy = GgufFile::parse(&copy).expect("a copy can be read");
        assert!(copy.tensors().eq(file.tensors()), "a copy has the same tensors");
    }
    for name in names {
        let shape = file.describe(&name).map(|(_, shape)| shape.to_vec());
        if let Ok(tensor) = file.take_tensor(&name, shape.as_deref()) {
            assert_eq!(Some(tensor.shape()), shape.as_deref());
        }
    }
    let _ = file.finish();
});

/// A copy of the file with this layer, if it has a place there, has its codes.
fn check_written(file: &GgufFile<'_>, layer: &Linear) {
    let Ok(mut writer) = GgufWriter::new(file) else { return };
    if writer.replace_layer(layer).is_err() {
        return;
    }
    let bytes = writer.to_bytes().expect("what was accepted is written");
    let mut copy = GgufFile::parse(&bytes).expect("what was written can be read");
    let (form, identity) = (CodesForm::WeightOnly, ActivationFunction::Identity);
    let again = copy.take_linear(layer.name(), form, identity, kernel()).expect("the layer is there");
    assert_eq!(codes(&again), codes(layer), "what was written is read as it was");
}

/// The codes of a layer.
fn codes(layer: &Linear) -> Vec<i8> {
    match layer {
        Linear::WeightOnly(layer) => layer.weights().unpack(),
        Linear::Dynamic(layer) => layer.weights().unpack(),
        _ => Vec::new(),
    }
}
