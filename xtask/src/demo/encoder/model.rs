//! The sentence encoder all-MiniLM-L6-v2: BERT's embeddings and six of its blocks. The vector of a
//! sentence is the mean of its tokens, of length 1.

use qkernels::Threads;
use qnn::{FloatTensor, ForwardError, LinearWorkspace, Source, SourceError};

use super::blocks::{Encoder, Norm, means};

/// Values of a token, and of a sentence.
pub(super) const WIDTH: usize = 384;
const HEADS: usize = 12;
const BLOCKS: usize = 6;

pub(super) struct SentenceEncoder {
    words: FloatTensor,
    positions: FloatTensor,
    kinds: FloatTensor,
    norm: Norm,
    encoder: Encoder,
}

qnn::layers!(SentenceEncoder { words, positions, kinds, norm, encoder });

impl SentenceEncoder {
    pub(super) fn new(mut from: Source<'_>) -> Result<Self, SourceError> {
        let mut embeddings = from.pp("embeddings");
        Ok(Self {
            words: embeddings.tensor("word_embeddings.weight", &[30_522, WIDTH])?,
            positions: embeddings.tensor("position_embeddings.weight", &[512, WIDTH])?,
            kinds: embeddings.tensor("token_type_embeddings.weight", &[2, WIDTH])?,
            norm: Norm::new(embeddings.pp("LayerNorm"), WIDTH)?,
            encoder: Encoder::new(from.pp("encoder"), BLOCKS, WIDTH, HEADS)?,
        })
    }

    /// The vectors (sentences, [`WIDTH`]) of sentences, given by their tokens.
    pub(super) fn embed(&self, sentences: &[Vec<usize>]) -> Result<Vec<f32>, ForwardError> {
        let mut x = Vec::new();
        for sentence in sentences {
            for (position, &word) in sentence.iter().enumerate() {
                let parts = [self.words.row(word), self.positions.row(position), self.kinds.row(0)];
                let [word, position, kind] = parts.map(Option::unwrap_or_default);
                x.extend(
                    word.iter()
                        .zip(position)
                        .zip(kind)
                        .map(|((word, position), kind)| word + position + kind),
                );
            }
        }
        self.norm.apply(&mut x);
        let lengths: Vec<usize> = sentences.iter().map(Vec::len).collect();
        let x = self.encoder.forward(x, &lengths, Threads::Serial, &mut LinearWorkspace::new())?;
        let mut vectors = means(&x, WIDTH, &lengths);
        for vector in vectors.chunks_exact_mut(WIDTH) {
            let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|v| *v /= length);
        }
        Ok(vectors)
    }
}
