//! `QuantMlp::from_bytes` and `Mlp::from_bytes`. What is read can be saved, and is then read as it
//! was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qnn::{Mlp, QuantMlp};
use qnn_fuzz::{check_saved, kernel, resealed};

fuzz_target!(|bytes: &[u8]| {
    let bytes = resealed(bytes);
    if let Ok(model) = QuantMlp::from_bytes(&bytes, Some(kernel())) {
        let saved = model.to_bytes().expect("what was read can be saved");
        let again = QuantMlp::from_bytes(&saved, Some(kernel())).expect("what was saved can be read");
        assert!(again.to_bytes().expect("and saved") == saved, "what was saved is read as it was");
        assert!(Mlp::from_bytes(&bytes, Some(kernel())).is_ok(), "it is an MLP of static layers");
    }
    if let Ok(model) = Mlp::from_bytes(&bytes, Some(kernel())) {
        check_saved(&model);
    }
});
