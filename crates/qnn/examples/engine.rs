//! An engine's own model, walked by the quantize pass: where its layers are is all that it says.
//!
//! `cargo run --release --package qnn --example engine`

use std::error::Error;

use qkernels::{MatRef, Threads};
use qnn::{
    DynamicConfig, FloatLinear, ForwardError, Linear, LinearWorkspace, Method, PassConfig,
    analyze_model_sizes, quantize_model,
};

const WIDTH: usize = 64;

/// Blocks with a residual around each, and a head.
struct Transformerish {
    blocks: Vec<Block>,
    lm_head: Linear,
}

struct Block {
    up: Linear,
    down: Linear,
}

qnn::layers!(Block { up, down });
qnn::layers!(Transformerish { blocks, lm_head });

impl Transformerish {
    fn forward(&self, x: &[f32]) -> Result<Vec<f32>, ForwardError> {
        let mut workspace = LinearWorkspace::new();
        let mut apply = |layer: &Linear, x: &[f32]| {
            let x = MatRef::new(x, x.len() / layer.k(), layer.k())?;
            layer.forward_vec(x, Threads::Serial, &mut workspace)
        };
        let mut hidden = x.to_vec();
        for block in &self.blocks {
            let gated: Vec<f32> = apply(&block.up, &hidden)?.iter().map(|v| v / (1.0 + (-v).exp())).collect();
            hidden.iter_mut().zip(apply(&block.down, &gated)?).for_each(|(h, delta)| *h += delta);
        }
        apply(&self.lm_head, &hidden)
    }
}

fn layer(name: String, n: usize, k: usize) -> Result<Linear, Box<dyn Error>> {
    let weight = (0..n * k).map(|i| (i as f32 * 0.618).sin() / (k as f32).sqrt()).collect();
    Ok(FloatLinear::without_bias(name, n, k, weight)?.into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut blocks = Vec::new();
    for i in 0..2 {
        let (up, down) = (format!("blocks.{i}.up"), format!("blocks.{i}.down"));
        blocks.push(Block { up: layer(up, 4 * WIDTH, WIDTH)?, down: layer(down, WIDTH, 4 * WIDTH)? });
    }
    let mut model = Transformerish { blocks, lm_head: layer("lm_head".to_owned(), 100, WIDTH)? };
    let batch = |seed: usize| (0..8 * WIDTH).map(|i| ((i + seed * 977) as f32 * 0.31).sin()).collect();
    let tokens: Vec<f32> = batch(99);
    let before = model.forward(&tokens)?;

    let config = PassConfig::default()
        .with_rule("lm_head", Method::Float)
        .with_rule("*.down", Method::Dynamic(DynamicConfig::default()));
    let run = |model: &Transformerish, tokens: Vec<f32>| model.forward(&tokens).map(drop);
    let report = quantize_model(&mut model, &config, (0..16).map(batch), run, |at| {
        if at.done % 8 == 0 {
            println!("calibrated on {} batches", at.done);
        }
    })?;
    println!("{report}\n{}", analyze_model_sizes(&model));
    println!("logits SQNR {:.2} dB", qcore::sqnr_db(&before, &model.forward(&tokens)?)?);
    Ok(())
}
