//! The logits of 2,500 digits as one number for each model, the same on every kernel of every
//! architecture: what one CPU computes is compared with what another one did when the numbers were
//! written down.

use std::path::PathBuf;

use qcore::{Observer, ObserverError, Range};
use qkernels::{Kernel, MatMut, MatRef, Threads};
use qnn::{ActivationCodes, FloatMlp, LinearWorkspace, QuantConfig, QuantMlp};

use crate::dataset::{CLASSES, Digits, PIXELS};

/// The model's file, the largest input of each later layer, and the digests of its logits with
/// activations of 8 bits and of 7, whether they are u8 or i8.
///
/// The ranges are those of calibration on 500 images, cut to whole numbers: calibrated ones depend
/// on the order of f32 sums, and so on the CPU.
const MODELS: [(&str, [f32; 2], [u64; 2]); 2] = [
    ("mnist_mlp_784_256_128_10", [10.0, 13.0], [0x22e9_4962_0532_9827, 0x4431_fb23_280b_3b6f]),
    ("mnist_mlp_784_512_512_10", [6.0, 7.0], [0x5a06_53f7_393e_9475, 0xd7aa_6fcb_77ee_1ec5]),
];

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "data/mnist", &format!("{name}.safetensors")].iter().collect()
}

/// An observer that knows the range beforehand.
struct Known(Range);

impl Observer for Known {
    fn observe(&mut self, _: &[f32]) {}

    fn range(&self) -> Result<Range, ObserverError> {
        Ok(self.0)
    }

    fn finite(&self) -> u64 {
        0
    }

    fn non_finite(&self) -> u64 {
        0
    }
}

/// FNV-1a over the bits of the logits, lowest byte first.
fn digest(logits: &[f32]) -> u64 {
    let bytes = logits.iter().flat_map(|logit| logit.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[test]
fn logits_have_the_bits_that_they_have_on_every_other_cpu() {
    let test = Digits::read(&file("mnist_test_2500")).unwrap();
    let images = MatRef::new(&test.inputs, test.len(), PIXELS).unwrap();
    for (name, [fc2, fc3], expected) in MODELS {
        let float = FloatMlp::load(file(name)).unwrap();
        let mut ranges = [1.0, fc2, fc3].map(|max| Range::new(0.0, max).unwrap()).into_iter();
        let first = images.row_range(0..1).unwrap();
        let calibrated = float.calibrate_with([first], || Known(ranges.next().unwrap())).unwrap();
        for activations in ActivationCodes::ALL {
            for (reduce_range, expected) in [false, true].into_iter().zip(expected) {
                for kernel in Kernel::available() {
                    let config = QuantConfig { activations, reduce_range, ..QuantConfig::default() };
                    let config = QuantConfig { kernel: Some(kernel), ..config };
                    let model: QuantMlp = calibrated.quantize(&config).unwrap();
                    let mut logits = vec![f32::NAN; test.len() * CLASSES];
                    let out = MatMut::new(&mut logits, test.len(), CLASSES).unwrap();
                    model.forward(images, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
                    let digest = digest(&logits);
                    assert_eq!(digest, expected, "{name}, {config:?}: {digest:#018x}");
                }
            }
        }
    }
}
