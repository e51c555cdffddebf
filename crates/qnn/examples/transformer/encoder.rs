//! A transformer encoder as BERT has it: linear layers of this library, and between them the few
//! loops of an engine, in plain f32.

use qcore::ActivationFunction;
use qkernels::{MatRef, Threads};
use qnn::{FloatTensor, ForwardError, Linear, LinearWorkspace, Source, SourceError};

/// A layer norm.
pub(crate) struct Norm {
    weight: FloatTensor,
    bias: FloatTensor,
}

/// Self-attention and two layers with a GELU between them, each with a residual around it and a
/// norm after that.
pub(crate) struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// Blocks, one after the other.
pub(crate) struct Encoder {
    blocks: Vec<Block>,
    heads: usize,
}

qnn::layers!(Norm { weight, bias });
qnn::layers!(Block { query, key, value, attended, attention_norm, up, down, norm });
qnn::layers!(Encoder { blocks });

impl Norm {
    pub(crate) fn new(mut from: Source<'_>, width: usize) -> Result<Self, SourceError> {
        Ok(Self { weight: from.tensor("weight", &[width])?, bias: from.tensor("bias", &[width])? })
    }

    /// Normalizes each row of `x`.
    pub(crate) fn apply(&self, x: &mut [f32]) {
        let (weight, bias) = (self.weight.values(), self.bias.values());
        for row in x.chunks_exact_mut(weight.len()) {
            let width = row.len() as f32;
            let mean = row.iter().sum::<f32>() / width;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width;
            let scale = 1.0 / (variance + 1e-12).sqrt();
            for (v, (weight, bias)) in row.iter_mut().zip(weight.iter().zip(bias)) {
                *v = (*v - mean) * scale * weight + bias;
            }
        }
    }
}

impl Block {
    pub(crate) fn new(mut from: Source<'_>, width: usize) -> Result<Self, SourceError> {
        let mut attention = from.pp("attention");
        let mut own = attention.pp("self");
        let [query, key, value] = [own.linear("query")?, own.linear("key")?, own.linear("value")?];
        let mut output = attention.pp("output");
        let attended = output.linear("dense")?;
        let attention_norm = Norm::new(output.pp("LayerNorm"), width)?;
        let up = from.linear_then("intermediate.dense", ActivationFunction::Gelu)?;
        let down = from.linear("output.dense")?;
        let norm = Norm::new(from.pp("output.LayerNorm"), width)?;
        Ok(Self { query, key, value, attended, attention_norm, up, down, norm })
    }

    /// Replaces the tokens `x` of several sequences, which stand one after the other and have these
    /// `lengths`, by what the block makes of them.
    fn forward(
        &self,
        x: &mut [f32],
        lengths: &[usize],
        heads: usize,
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), ForwardError> {
        let width = self.query.k();
        let tokens = MatRef::new(&*x, x.len() / width, width)?;
        let [query, key, value] =
            Linear::forward_shared([&self.query, &self.key, &self.value], tokens, threads, workspace)?;
        let mixed = attention(&query, &key, &value, width, lengths, heads);
        let mixed = MatRef::new(&mixed, tokens.rows(), width)?;
        let mixed = self.attended.forward_vec(mixed, threads, workspace)?;
        x.iter_mut().zip(mixed).for_each(|(x, mixed)| *x += mixed);
        self.attention_norm.apply(x);
        let up = self.up.forward_vec(MatRef::new(&*x, x.len() / width, width)?, threads, workspace)?;
        let up = MatRef::new(&up, x.len() / width, self.up.n())?;
        let down = self.down.forward_vec(up, threads, workspace)?;
        x.iter_mut().zip(down).for_each(|(x, down)| *x += down);
        self.norm.apply(x);
        Ok(())
    }
}

/// Each token's mean of the values of its sequence, weighted by how well their keys fit its query,
/// for each head on its own columns.
fn attention(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    width: usize,
    lengths: &[usize],
    heads: usize,
) -> Vec<f32> {
    let (size, mut out, mut weights) = (width / heads, vec![0.0; query.len()], Vec::new());
    let scale = 1.0 / (size as f32).sqrt();
    let mut first = 0;
    for &length in lengths {
        let tokens = first..first + length;
        for head in 0..heads {
            let part = |token: usize| token * width + head * size..token * width + (head + 1) * size;
            for token in tokens.clone() {
                let query = &query[part(token)];
                let fit =
                    |other| query.iter().zip(&key[part(other)]).map(|(q, k)| q * k).sum::<f32>() * scale;
                weights.clear();
                weights.extend(tokens.clone().map(fit));
                let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                weights.iter_mut().for_each(|weight| *weight = (*weight - largest).exp());
                let sum: f32 = weights.iter().sum();
                for (other, weight) in tokens.clone().zip(&weights) {
                    let values = &value[part(other)];
                    out[part(token)].iter_mut().zip(values).for_each(|(out, v)| *out += weight / sum * v);
                }
            }
        }
        first += length;
    }
    out
}

impl Encoder {
    pub(crate) fn new(
        mut from: Source<'_>,
        blocks: usize,
        width: usize,
        heads: usize,
    ) -> Result<Self, SourceError> {
        let mut layers = from.pp("layer");
        let blocks = (0..blocks).map(|i| Block::new(layers.pp(i), width)).collect::<Result<_, _>>()?;
        Ok(Self { blocks, heads })
    }

    /// What becomes of the tokens `x` of several sequences, which stand one after the other and
    /// have these `lengths`.
    pub(crate) fn forward(
        &self,
        mut x: Vec<f32>,
        lengths: &[usize],
        threads: Threads<'_>,
        workspace: &mut LinearWorkspace,
    ) -> Result<Vec<f32>, ForwardError> {
        for block in &self.blocks {
            block.forward(&mut x, lengths, self.heads, threads, workspace)?;
        }
        Ok(x)
    }
}

/// The mean of the tokens of each sequence.
pub(crate) fn means(x: &[f32], width: usize, lengths: &[usize]) -> Vec<f32> {
    let (mut out, mut rows) = (Vec::with_capacity(lengths.len() * width), x.chunks_exact(width));
    for &length in lengths {
        let mut sum = vec![0.0; width];
        for row in rows.by_ref().take(length) {
            sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
        out.extend(sum.iter().map(|sum| sum / length as f32));
    }
    out
}
