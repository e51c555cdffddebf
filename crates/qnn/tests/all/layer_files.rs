//! Files with layers of every form: read as they were saved, one by one or all, and no altered byte
//! goes unnoticed.

use qkernels::Kernel;
use qnn::{LayerFile, Mlp, QuantMlp, layers_to_bytes};

use crate::small::{mixed_model, rows};

/// A model with layers of every form.
fn mixed_file() -> Vec<u8> {
    layers_to_bytes(&mixed_model(&[2, 33, 1, 1], rows(&[0.0, 1.0, 0.5], 3))).unwrap()
}

#[test]
fn every_form_of_layer_is_read_as_it_was_saved() {
    let bytes = mixed_file();
    let forms = |model: &Mlp| model.layers().iter().map(|layer| layer.form().name()).collect::<Vec<_>>();
    for kernel in Kernel::available() {
        let model = Mlp::from_bytes(&bytes, Some(kernel)).unwrap();
        assert_eq!(forms(&model), ["dynamic", "static", "weight_only", "float"]);
        assert!(layers_to_bytes(&model).unwrap() == bytes, "{}", kernel.name());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    Mlp::from_bytes(&bytes, None).unwrap().save(&path).unwrap();
    assert!(std::fs::read(path).unwrap() == bytes);
    let error = QuantMlp::from_bytes(&bytes, None).unwrap_err();
    assert_eq!(error.to_string(), "layer \"fc1\" is dynamic, expected static");
}

#[test]
fn layers_are_taken_one_by_one() {
    let bytes = mixed_file();
    let mut file = LayerFile::parse(&bytes).unwrap();
    assert_eq!(file.names(), ["fc1", "fc2", "fc3", "fc4"]);
    assert_eq!(file.take("fc2", None).unwrap().form().name(), "static");
    assert_eq!(file.take("fc2", None).unwrap_err().to_string(), "there is no layer \"fc2\"");
    assert_eq!(file.finish().unwrap_err().to_string(), "layer \"fc1\" was not taken");
}

#[test]
fn any_altered_byte_of_any_form_is_noticed() {
    let good = mixed_file();
    let kernel = Kernel::available().last();
    let mut bytes = good.clone();
    for at in 0..good.len() {
        for change in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            bytes[at] = good[at] ^ change;
            assert!(Mlp::from_bytes(&bytes, kernel).is_err(), "byte {at} as {:#04x}", bytes[at]);
        }
        bytes[at] = good[at];
        assert!(Mlp::from_bytes(&good[..at], kernel).is_err(), "cut off at {at}");
    }
    assert!(Mlp::from_bytes(&bytes, kernel).is_ok());
}
