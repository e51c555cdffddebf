//! A transformer, from its checkpoint to a saved int8 model that runs. `main` is all that
//! quantization takes; `digits.rs` and `encoder.rs` are the engine's own model.
//!
//! `cargo run --release --package qnn --example transformer`

mod digits;
mod encoder;

use std::error::Error;

use digits::{Digits, PIXELS};
use qkernels::MatRef;
use qnn::{Checkpoint, LayerFile, Method, PassConfig, argmax_rows, quantize_model, save_layers};
use safetensors::SafeTensors;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist");

fn main() -> Result<(), Box<dyn Error>> {
    // Load.
    let trained = std::fs::read(format!("{DATA}/mnist_transformer.safetensors"))?;
    let mut checkpoint = Checkpoint::parse(&trained)?;
    let mut model = Digits::new(checkpoint.source())?;
    checkpoint.finish()?; // an error names every tensor that nobody took
    let (test, labels) = digits("mnist_test_2500")?;
    println!("{} of {} right in f32", right(&model, &test, &labels)?, labels.len());

    // Calibrate, and quantize all layers but the last.
    let (calibration, _) = digits("mnist_calib_500")?;
    let config = PassConfig::default().with_rule("classifier", Method::Float);
    let run = |model: &mut Digits, images: &[f32]| model.forward(images).map(drop);
    println!("{}", quantize_model(&mut model, &config, calibration.chunks(50 * PIXELS), run, |_| {})?);

    // Save, load and run.
    let path = std::env::temp_dir().join("qnn-transformer-int8.safetensors");
    save_layers(&model, &path)?; // embeddings, norms and all
    let saved = std::fs::read(&path)?;
    let model = Digits::new(LayerFile::parse(&saved)?.source())?;
    println!("{} of {} right in int8", right(&model, &test, &labels)?, labels.len());
    println!("{} bytes in f32, {} in {}", trained.len(), saved.len(), path.display());
    Ok(())
}

/// Images as pixels 0 to 1, and their labels.
fn digits(name: &str) -> Result<(Vec<f32>, Vec<u8>), Box<dyn Error>> {
    let bytes = std::fs::read(format!("{DATA}/{name}.safetensors"))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let pixels = file.tensor("images")?.data().iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    Ok((pixels, file.tensor("labels")?.data().to_vec()))
}

/// How many images the model tells right.
fn right(model: &Digits, images: &[f32], labels: &[u8]) -> Result<usize, Box<dyn Error>> {
    let mut right = 0;
    for (images, labels) in images.chunks(100 * PIXELS).zip(labels.chunks(100)) {
        let logits = model.forward(images)?;
        let classes = argmax_rows(MatRef::new(&logits, labels.len(), 10)?);
        right += classes.zip(labels).filter(|(class, label)| *class == Some(usize::from(**label))).count();
    }
    Ok(right)
}
