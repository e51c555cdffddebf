//! `LayerFile`, layer by layer. What is read runs, can be saved, and is then read as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qnn::LayerFile;
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
    let _ = file.finish();
});
