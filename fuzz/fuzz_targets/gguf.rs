//! `GgufFile`: every layer in every form, then every tensor that is left.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qcore::{ActivationFunction, Scheme};
use qkernels::Dynamic;
use qnn::{GgufFile, CodesForm, GgufValue};
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
                }
                Err(_) => assert_eq!(copy.tensors().count(), names.len(), "a failed take changes nothing"),
            }
        }
    }
    for name in names {
        let shape = file.describe(&name).map(|(_, shape)| shape.to_vec());
        if let Ok(tensor) = file.take_tensor(&name, shape.as_deref()) {
            assert_eq!(Some(tensor.shape()), shape.as_deref());
        }
    }
    let _ = file.finish();
});
