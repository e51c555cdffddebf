//! `FloatMlp::from_safetensors`. What is read has the layers that a file of our own gives back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qnn::{FloatMlp, Mlp};
use qnn_fuzz::{check_saved, kernel};

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = FloatMlp::from_safetensors(bytes) else { return };
    let model = Mlp::from(model);
    check_saved(&model);
    let saved = qnn::layers_to_bytes(&model).expect("what was read can be saved");
    assert!(Mlp::from_bytes(&saved, Some(kernel())).is_ok(), "and is an MLP");
});
