//! Where a model comes from, whichever file it is, so that an engine writes its constructor once.

use core::fmt::Display;

use qcore::ActivationFunction;
use qkernels::Kernel;

use super::checkpoint::error::CheckpointError;
use super::checkpoint::layers::Checkpoint;
use super::codes_form::CodesForm;
use super::error::LoadError;
use super::gguf::container::GgufFile;
use super::gguf::error::GgufError;
use super::reader::LayerFile;
use crate::layer::linear::Linear;
use crate::layer::tensor::FloatTensor;

/// The part of a model's file whose names begin with a prefix. It gives layers and tensors by the
/// rest of their names.
///
/// It comes from a [`Checkpoint`], from a [`LayerFile`] or from a [`GgufFile`], so one constructor
/// makes a model of the f32 weights as they were trained, of what this library saved after
/// quantizing it, and of what others quantized.
///
/// ```
/// use qkernels::MatRef;
/// use qcore::ActivationFunction;
/// use qnn::{Checkpoint, FloatTensor, LayerFile, Linear, Source, SourceError};
///
/// struct Block {
///     norm: FloatTensor,
///     up: Linear,
///     down: Linear,
/// }
/// qnn::layers!(Block { norm, up, down });
///
/// impl Block {
///     fn new(mut from: Source<'_>) -> Result<Self, SourceError> {
///         Ok(Self {
///             norm: from.tensor("norm.weight", &[2])?,
///             up: from.linear_then("up", ActivationFunction::Gelu)?,
///             down: from.pp("mlp").linear("down")?,
///         })
///     }
/// }
///
/// # use safetensors::{Dtype, tensor::TensorView};
/// # let ones = [1.0f32; 6].map(f32::to_le_bytes).concat();
/// # let view = |shape: &[usize]| TensorView::new(Dtype::F32, shape.to_vec(), &ones[..4 * shape.iter().product::<usize>()]);
/// # let trained = safetensors::serialize([
/// #     ("blocks.0.norm.weight", view(&[2])?),
/// #     ("blocks.0.up.weight", view(&[3, 2])?),
/// #     ("blocks.0.mlp.down.weight", view(&[2, 3])?),
/// # ], None)?;
/// let mut checkpoint = Checkpoint::parse(&trained)?;
/// let block = Block::new(checkpoint.source().pp("blocks").pp(0))?;
/// checkpoint.finish()?;
///
/// let saved = qnn::layers_to_bytes(&block)?; // or after quantizing it
/// let mut file = LayerFile::parse(&saved)?;
/// let restored = Block::new(file.source().pp("blocks.0"))?;
/// file.finish()?;
/// assert_eq!(restored.up.name(), "blocks.0.up");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Source<'s> {
    file: &'s mut dyn Tensors,
    /// Empty, or with a dot at its end.
    prefix: String,
}

/// Why a layer or a tensor could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The checkpoint does not have it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file of this library does not have it.
    #[error(transparent)]
    File(#[from] LoadError),
    /// The GGUF file does not have it.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file says that another activation function follows the layer.
    #[error("layer {layer:?} was saved with activation function {got:?}, expected {expected:?}")]
    Activation {
        /// The layer.
        layer: String,
        /// The function asked for.
        expected: ActivationFunction,
        /// The function in the file.
        got: ActivationFunction,
    },
}

/// A file that has layers and tensors by name.
trait Tensors {
    fn linear(&mut self, name: &str, activation: ActivationFunction) -> Result<Linear, SourceError>;

    fn linear_tied(&mut self, name: &str, weight: &str) -> Result<Linear, SourceError>;

    fn tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, SourceError>;
}

impl Tensors for Checkpoint<'_> {
    fn linear(&mut self, name: &str, activation: ActivationFunction) -> Result<Linear, SourceError> {
        Ok(self.take_float(name)?.with_activation(activation).into())
    }

    fn linear_tied(&mut self, name: &str, weight: &str) -> Result<Linear, SourceError> {
        Ok(self.take_tied(name, weight)?.into())
    }

    fn tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, SourceError> {
        Ok(self.take_tensor(name, shape)?)
    }
}

impl Tensors for LayerFile<'_> {
    fn linear(&mut self, name: &str, expected: ActivationFunction) -> Result<Linear, SourceError> {
        // This comes first: a layer that is refused stays.
        match self.activation(name)? {
            got if got == expected => Ok(self.take(name, None)?),
            got => Err(SourceError::Activation { layer: name.to_owned(), expected, got }),
        }
    }

    fn linear_tied(&mut self, name: &str, _: &str) -> Result<Linear, SourceError> {
        self.linear(name, ActivationFunction::Identity)
    }

    fn tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, SourceError> {
        Ok(self.take_tensor(name, shape)?)
    }
}

impl Tensors for GgufFile<'_> {
    fn linear(&mut self, name: &str, activation: ActivationFunction) -> Result<Linear, SourceError> {
        let weight = format!("{name}.weight");
        Ok(self.take_tied(name, &weight, self.source_form(&weight), activation, select()?)?)
    }

    fn linear_tied(&mut self, name: &str, weight: &str) -> Result<Linear, SourceError> {
        let activation = ActivationFunction::Identity;
        if self.describe(&format!("{name}.weight")).is_some() {
            return self.linear(name, activation);
        }
        Ok(self.take_tied(name, weight, self.source_form(weight), activation, select()?)?)
    }

    fn tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, SourceError> {
        Ok(self.take_tensor(name, shape)?)
    }
}

/// The kernel of the CPU at hand.
fn select() -> Result<Kernel, LoadError> {
    Ok(Kernel::select()?)
}

impl Checkpoint<'_> {
    /// The whole checkpoint, for a constructor that takes a [`Source`].
    pub fn source(&mut self) -> Source<'_> {
        Source { file: self, prefix: String::new() }
    }
}

impl GgufFile<'_> {
    /// The whole file, for a constructor that takes a [`Source`]. Weights in blocks become layers
    /// of this form, on [`Kernel::select`]; floats stay in f32, for the
    /// [pass](crate::quantize_model) to quantize.
    pub fn source(&mut self, form: CodesForm) -> Source<'_> {
        self.form = form;
        Source { file: self, prefix: String::new() }
    }
}

impl LayerFile<'_> {
    /// The whole file, for a constructor that takes a [`Source`].
    pub fn source(&mut self) -> Source<'_> {
        Source { file: self, prefix: String::new() }
    }
}

impl Source<'_> {
    /// The part whose names go on with `part` and a dot: a field's name, or an index.
    pub fn pp(&mut self, part: impl Display) -> Source<'_> {
        Source { file: &mut *self.file, prefix: format!("{}{part}.", self.prefix) }
    }

    /// Takes the layer `name`, without an activation function. Its own name is the whole name, with
    /// the prefix.
    ///
    /// # Errors
    /// [`SourceError`] if there is no such layer (any more), or it is not what it should be.
    pub fn linear(&mut self, name: &str) -> Result<Linear, SourceError> {
        self.linear_then(name, ActivationFunction::Identity)
    }

    /// As [`linear`](Self::linear), for a layer that an activation function follows. Checkpoints do
    /// not say which one. Files of this library do, and it must be this one.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    pub fn linear_then(&mut self, name: &str, activation: ActivationFunction) -> Result<Linear, SourceError> {
        self.file.linear(&format!("{}{name}", self.prefix), activation)
    }

    /// As [`linear`](Self::linear), for a layer `name` that shares its weights with the tensor
    /// `weight` of this part, an embedding. A checkpoint has them once, and [gives them to
    /// both](Checkpoint::take_tied). A file of this library has the layer besides the embedding,
    /// because the layer may have been quantized. (A checkpoint that has a `name.weight` after all
    /// gives the layer that.)
    ///
    /// ```
    /// use qnn::{Checkpoint, FloatTensor, LayerFile, Linear, Source, SourceError};
    ///
    /// struct Model {
    ///     words: FloatTensor,
    ///     head: Linear,
    /// }
    /// qnn::layers!(Model { words, head });
    ///
    /// impl Model {
    ///     fn new(mut from: Source<'_>) -> Result<Self, SourceError> {
    ///         let words = from.tensor("words.weight", &[2, 2])?;
    ///         Ok(Self { words, head: from.linear_tied("head", "words.weight")? })
    ///     }
    /// }
    ///
    /// # use safetensors::{Dtype, tensor::TensorView};
    /// # let words = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    /// # let words = TensorView::new(Dtype::F32, vec![2, 2], &words)?;
    /// # let trained = safetensors::serialize([("words.weight", words)], None)?;
    /// let mut checkpoint = Checkpoint::parse(&trained)?;
    /// checkpoint.tie("words.weight")?;
    /// let model = Model::new(checkpoint.source())?;
    /// checkpoint.finish()?;
    ///
    /// let saved = qnn::layers_to_bytes(&model)?;
    /// let mut file = LayerFile::parse(&saved)?;
    /// assert_eq!(Model::new(file.source())?.head.name(), "head");
    /// file.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`linear`](Self::linear), and if a checkpoint's tensor was taken before and is not
    /// [tied](Checkpoint::tie).
    pub fn linear_tied(&mut self, name: &str, weight: &str) -> Result<Linear, SourceError> {
        let [name, weight] = [name, weight].map(|name| format!("{}{name}", self.prefix));
        self.file.linear_tied(&name, &weight)
    }

    /// Takes the tensor `name` of this shape.
    ///
    /// # Errors
    /// [`SourceError`] if there is no such tensor (any more), or it is not what it should be.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<FloatTensor, SourceError> {
        self.file.tensor(&format!("{}{name}", self.prefix), Some(shape))
    }

    /// Takes the tensor `name`, whatever its shape.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn tensor_of_any_shape(&mut self, name: &str) -> Result<FloatTensor, SourceError> {
        self.file.tensor(&format!("{}{name}", self.prefix), None)
    }
}
