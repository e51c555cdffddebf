//! `LayerFile`, layer by layer and tensor by tensor. What is read runs, can be saved, and is then
//! read as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qnn::{FloatTensor, LayerFile, layers_to_bytes};
use qnn_fuzz::{check_saved, kernel, resealed, run};

fuzz_target!(|bytes: &[u8]| {
    let bytes = resealed(bytes);
    let Ok(mut file) = LayerFile::parse(&bytes) else { return };
    for name in file.names().to_vec() {
        if let Ok(layer) = file.take(&name, Some(kernel())) {
            run(&layer);
            check_saved(&layer);
            assert!(file.take(&name, Some(kernel())).is_err(), "a layer is taken once");
        }
    }
    for name in file.tensor_names().to_vec() {
        if let Ok(tensor) = file.take_tensor(&name, None) {
            let saved = layers_to_bytes(&tensor).expect("a tensor that was read is saved");
            let mut file = LayerFile::parse(&saved).expect("what was saved is read");
            let again = file.take_tensor(&name, Some(tensor.shape())).expect("it is there");
            let bits = |tensor: &FloatTensor| tensor.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&again), bits(&tensor));
        }
    }
    let _ = file.finish();
});
