//! A transformer that reads an image of a handwritten digit row by row.

use qkernels::{MatRef, Threads};
use qnn::{FloatTensor, ForwardError, Linear, LinearWorkspace, Source, SourceError};

use super::encoder::{Encoder, Norm, means};

/// Rows of an image, and pixels of a row.
pub(crate) const SIDE: usize = 28;
pub(crate) const PIXELS: usize = SIDE * SIDE;
const WIDTH: usize = 64;
const HEADS: usize = 4;
const BLOCKS: usize = 2;

/// Each row of pixels becomes a token, the encoder looks at all 28 of them, and their mean tells
/// the digit.
pub(crate) struct Digits {
    row: Linear,
    position: FloatTensor,
    norm: Norm,
    encoder: Encoder,
    classifier: Linear,
}

qnn::layers!(Digits { row, position, norm, encoder, classifier });

impl Digits {
    pub(crate) fn new(mut from: Source<'_>) -> Result<Self, SourceError> {
        let mut embeddings = from.pp("embeddings");
        Ok(Self {
            row: embeddings.linear("row")?,
            position: embeddings.tensor("position", &[SIDE, WIDTH])?,
            norm: Norm::new(embeddings.pp("LayerNorm"), WIDTH)?,
            encoder: Encoder::new(from.pp("encoder"), BLOCKS, WIDTH, HEADS)?,
            classifier: from.linear("classifier")?,
        })
    }

    /// The logits (images, 10) of images (images, 784), whose pixels are 0 to 1.
    pub(crate) fn forward(&self, pixels: &[f32]) -> Result<Vec<f32>, ForwardError> {
        let (mut workspace, threads) = (LinearWorkspace::new(), Threads::Serial);
        let rows = MatRef::new(pixels, pixels.len() / SIDE, SIDE)?;
        let mut x = self.row.forward_vec(rows, threads, &mut workspace)?;
        x.iter_mut().zip(self.position.values().iter().cycle()).for_each(|(x, position)| *x += position);
        self.norm.apply(&mut x);
        let lengths = vec![SIDE; pixels.len() / PIXELS];
        let x = self.encoder.forward(x, &lengths, threads, &mut workspace)?;
        let means = means(&x, WIDTH, &lengths);
        self.classifier.forward_vec(MatRef::new(&means, lengths.len(), WIDTH)?, threads, &mut workspace)
    }
}
