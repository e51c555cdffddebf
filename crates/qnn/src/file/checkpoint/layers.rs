//! Reads trained models from safetensors files: layers with PyTorch's names in f32, f16 or bf16,
//! and, in `int8_layout.rs` and `packed_layout.rs`, codes in the layouts of others.

use safetensors::Dtype;

use super::error::CheckpointError;
use super::names::natural_order;
use super::shards::{self, ShardIndex};
use crate::config::pattern::matches;
use crate::file::tensors::{Tensor, TensorFile, TensorFileError};
use crate::layer::float::{FloatLinear, FloatLinearError};

/// The tensors of a trained model. Layers are taken out of it by name. The caller owns the bytes,
/// read or mapped. They are not trusted.
///
/// Large models come in several files, and a layer may have tensors in two of them. One such file
/// looks like a whole checkpoint: if a bias or a zero point is in another file, the layer seems to
/// have none, which [`finish`](Self::finish) cannot notice. So read several files as one, with
/// [`parse_indexed`](Self::parse_indexed) if there is an index, else with
/// [`parse_shards`](Self::parse_shards).
///
/// If a layer cannot be taken as asked, everything stays as it was, so that it can be taken in
/// another way.
///
/// ```
/// use safetensors::{Dtype, tensor::TensorView};
/// let weight = [0x00, 0x3c, 0x00, 0xc0]; // 1.0 and -2.0 in f16
/// let weight = TensorView::new(Dtype::F16, vec![1, 2], &weight)?;
/// let bytes = safetensors::serialize([("lm_head.weight", weight)], None)?;
/// let mut checkpoint = qnn::Checkpoint::parse(&bytes)?;
/// assert_eq!(checkpoint.layers(), ["lm_head"]);
/// assert_eq!(checkpoint.take_float("lm_head")?.weight(), [1.0, -2.0]);
/// checkpoint.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint<'d> {
    pub(crate) file: TensorFile<'d>,
    /// Patterns of the names of layers whose weights are stored (k, n), and whether a layer with
    /// such a name was taken.
    pub(super) stored_kn: Vec<(String, bool)>,
}

impl<'d> From<TensorFile<'d>> for Checkpoint<'d> {
    fn from(file: TensorFile<'d>) -> Self {
        Self { file, stored_kn: Vec::new() }
    }
}

/// Tensors of other layouts: the last part of the name, whose layout it is, and what is to be said
/// about it.
const OTHER_LAYOUTS: [(&str, &str, &str); 6] = [
    ("weight_packed", "compressed-tensors' packed weights", PACKED),
    ("qweight", "GPTQ or AWQ", PACKED),
    ("qzeros", "GPTQ or AWQ", PACKED),
    ("scales", "GPTQ or AWQ", PACKED),
    ("weight_scale_inv", "FP8 in blocks", UNSUPPORTED),
    ("SCB", "bitsandbytes' LLM.int8()", UNSUPPORTED),
];
const PACKED: &str = "`Checkpoint::take_packed` takes it";
const UNSUPPORTED: &str = "it is not supported yet";

impl<'d> Checkpoint<'d> {
    /// Reads the header of a checkpoint that is one file. No tensor is copied.
    ///
    /// # Errors
    /// [`CheckpointError`] if the bytes are no safetensors file.
    pub fn parse(bytes: &'d [u8]) -> Result<Self, CheckpointError> {
        Ok(TensorFile::parse(bytes)?.into())
    }

    /// Reads the headers of all files of a checkpoint, in any order. A missing file is not noticed.
    ///
    /// ```
    /// use safetensors::{Dtype, tensor::TensorView};
    /// let (weight, bias) = ([0x00, 0x3c, 0x00, 0xc0], [0x00, 0x3c]); // 1.0 and -2.0, and 1.0, in f16
    /// let weight = TensorView::new(Dtype::F16, vec![1, 2], &weight)?;
    /// let bias = TensorView::new(Dtype::F16, vec![1], &bias)?;
    /// let one = safetensors::serialize([("fc.weight", weight)], None)?;
    /// let two = safetensors::serialize([("fc.bias", bias)], None)?;
    /// let mut checkpoint = qnn::Checkpoint::parse_shards([&one[..], &two])?;
    /// assert_eq!(checkpoint.take_float("fc")?.bias(), Some(&[1.0][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError`] if there are no files, one is no safetensors file, or two have a tensor
    /// of the same name.
    pub fn parse_shards(shards: impl IntoIterator<Item = &'d [u8]>) -> Result<Self, CheckpointError> {
        Ok(shards::merge(shards)?.into())
    }

    /// Reads the headers of the files that `index` names. Each file is given with its name.
    ///
    /// ```
    /// use safetensors::{Dtype, tensor::TensorView};
    /// let weight = [0x00, 0x3c, 0x00, 0xc0]; // 1.0 and -2.0 in f16
    /// let weight = TensorView::new(Dtype::F16, vec![1, 2], &weight)?;
    /// let shard = safetensors::serialize([("fc.weight", weight)], None)?;
    /// let index = qnn::ShardIndex::parse(br#"{"weight_map": {"fc.weight": "model-00001-of-00001.safetensors"}}"#)?;
    /// let read = |_name: &str| &shard[..]; // or from the folder of the index
    /// let shards = index.shards().map(|name| (name, read(name)));
    /// let mut checkpoint = qnn::Checkpoint::parse_indexed(&index, shards)?;
    /// assert_eq!(checkpoint.take_float("fc")?.weight(), [1.0, -2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError`] if a file is missing, not in the index, given twice, or no safetensors
    /// file; or if a tensor is in two files, in another file than the index says, in no file, or
    /// not in the index.
    pub fn parse_indexed<N: Into<String>>(
        index: &ShardIndex,
        shards: impl IntoIterator<Item = (N, &'d [u8])>,
    ) -> Result<Self, CheckpointError> {
        Ok(index.merge(shards)?.into())
    }

    /// The names X of all matrices `X.weight` that are left, in the natural order (`fc2` before
    /// `fc10`). Embeddings are among them, because their names and shapes are no different.
    pub fn layers(&self) -> Vec<String> {
        let matrices = self.file.left().filter(|(_, tensor)| tensor.shape.len() == 2);
        let names = matrices.filter_map(|(name, _)| name.strip_suffix(".weight"));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort_by(|a, b| natural_order(a, b));
        names
    }

    /// The names of all tensors that are left.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.file.left().map(|(name, _)| name)
    }

    /// Whether the weights of layer `name` are int8 codes.
    pub fn is_int8(&self, name: &str) -> bool {
        self.file.tensors.get(&format!("{name}.weight")).is_some_and(|tensor| tensor.dtype == Dtype::I8)
    }

    /// Takes a layer of floats out: `name.weight` (n, k) and, if it is there, `name.bias` (n), each
    /// F32, F16 or BF16. (A bias of integers is accepted if all are 0.) Weights that are [stored
    /// (k, n)](Self::stored_kn) are transposed.
    ///
    /// # Errors
    /// [`CheckpointError`] if a tensor is missing, of another type or shape, or not finite, or if
    /// the layer has another tensor.
    pub fn take_float(&mut self, name: &str) -> Result<FloatLinear, CheckpointError> {
        let layer = self.read_float(name);
        let layer = self.file.settle(layer)?;
        self.stored_kn.iter_mut().for_each(|(pattern, used)| *used |= matches(pattern, name));
        Ok(layer)
    }

    fn read_float(&mut self, name: &str) -> Result<FloatLinear, CheckpointError> {
        let weight =
            self.take_weight(name, &["weight", "bias"], |tensor, weight| match weight.is_float() {
                true => Ok(()),
                false => Err(TensorFileError::NotFloat { tensor, got: weight.dtype }),
            })?;
        let stored_kn = self.stored_kn.iter().any(|(pattern, _)| matches(pattern, name));
        let (rows, columns) = (weight.shape[0], weight.shape[1]);
        let (n, k) = if stored_kn { (columns, rows) } else { (rows, columns) };
        if n == 0 || k == 0 {
            return Err(FloatLinearError::Empty { layer: name.to_owned(), n, k }.into());
        }
        let bias = self.take_bias(name, n).map_err(|error| match error {
            CheckpointError::File(TensorFileError::Shape { got, .. }) if got == [k] => {
                let (layer, order) = (name.to_owned(), if stored_kn { "(k, n)" } else { "(n, k)" });
                CheckpointError::Transposed { layer, weight: weight.shape.clone(), order, bias: k }
            }
            other => other,
        })?;
        let mut weight = weight.floats().unwrap_or_default();
        if stored_kn {
            weight = (0..n).flat_map(|j| weight.iter().skip(j).step_by(n)).copied().collect();
        }
        Ok(FloatLinear::from_parts(name.to_owned(), n, k, weight, bias)?)
    }

    /// As [`take_float`](Self::take_float), for a layer `name` whose weights are a tensor that the
    /// model uses elsewhere: an embedding `weight` (n, k), which must be [tied](Self::tie). If the
    /// file has a `name.weight` after all, that is taken.
    ///
    /// ```
    /// use safetensors::{Dtype, tensor::TensorView};
    /// let words = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    /// let words = TensorView::new(Dtype::F32, vec![2, 2], &words)?;
    /// let bytes = safetensors::serialize([("words.weight", words)], None)?;
    /// let mut checkpoint = qnn::Checkpoint::parse(&bytes)?;
    /// checkpoint.tie("words.weight")?;
    /// let words = checkpoint.take_tensor("words.weight", None)?;
    /// let head = checkpoint.take_tied("head", "words.weight")?; // saved under a name of its own
    /// assert_eq!((head.name(), head.weight()), ("head", words.values()));
    /// checkpoint.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`take_float`](Self::take_float).
    pub fn take_tied(&mut self, name: &str, weight: &str) -> Result<FloatLinear, CheckpointError> {
        if self.file.tensors.contains_key(&format!("{name}.weight")) {
            return self.take_float(name);
        }
        let layer = self.read_tied(name, weight);
        self.file.settle(layer)
    }

    fn read_tied(&mut self, name: &str, weight: &str) -> Result<FloatLinear, CheckpointError> {
        let (tensor, found) = (weight.to_owned(), self.file.take_any(weight)?);
        let &[n, k] = &found.shape[..] else {
            return Err(TensorFileError::Rank { tensor, expected: 2, got: found.shape }.into());
        };
        let Some(weight) = found.floats() else {
            return Err(TensorFileError::NotFloat { tensor, got: found.dtype }.into());
        };
        if n == 0 || k == 0 {
            return Err(FloatLinearError::Empty { layer: name.to_owned(), n, k }.into());
        }
        let bias = self.take_bias(name, n)?;
        Ok(FloatLinear::from_parts(name.to_owned(), n, k, weight, bias)?)
    }

    /// Takes the matrix `name.weight` of a layer, and checks that the names of all its tensors end
    /// in one of `known`.
    pub(crate) fn take_weight(
        &mut self,
        name: &str,
        known: &[&str],
        check_type: impl FnOnce(String, &Tensor<'d>) -> Result<(), TensorFileError>,
    ) -> Result<Tensor<'d>, CheckpointError> {
        let tensor = format!("{name}.weight");
        let weight = match self.file.take_any(&tensor) {
            Err(missing @ TensorFileError::Missing { .. }) => {
                // A tensor that is there instead may say why.
                let other =
                    self.own_tensors(name).find_map(|(tensor, part)| other_layout(name, tensor, part));
                return Err(other.unwrap_or(missing.into()));
            }
            found => found?,
        };
        check_type(tensor.clone(), &weight)?;
        if weight.shape.len() != 2 {
            return Err(TensorFileError::Rank { tensor, expected: 2, got: weight.shape }.into());
        }
        match self.own_tensors(name).find(|(_, part)| !known.contains(part)) {
            None => Ok(weight),
            Some((tensor, part)) => Err(other_layout(name, tensor, part)
                .unwrap_or(TensorFileError::Unexpected { tensor: tensor.to_owned() }.into())),
        }
    }

    /// The tensors of layer `name`, without those of layers inside it, and the last parts of their
    /// names.
    pub(super) fn own_tensors(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("{name}.");
        let from_here = self.file.tensors.range(prefix.clone()..).map(|(tensor, _)| tensor.as_str());
        let parts = from_here.map_while(move |tensor| Some((tensor, tensor.strip_prefix(&prefix)?)));
        // Tensors below `weight`, such as `weight.absmax`, say how to read it.
        parts.filter(|(_, part)| !part.contains('.') || part.starts_with("weight."))
    }

    pub(crate) fn take_bias(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>, CheckpointError> {
        let tensor = format!("{name}.bias");
        let found = match self.file.take_any(&tensor) {
            Err(TensorFileError::Missing { .. }) => return Ok(None),
            // One that was taken by itself would be lost.
            found => found?,
        };
        let dtype = found.dtype;
        if found.integers().is_none() && !found.is_float() {
            return Err(TensorFileError::NotFloat { tensor, got: dtype }.into());
        }
        if found.shape != [n] {
            return Err(TensorFileError::Shape { tensor, expected: vec![n], got: found.shape }.into());
        }
        let nonzero = found.integers().and_then(|values| values.enumerate().find(|&(_, value)| value != 0));
        match nonzero {
            None => Ok(Some(found.floats().unwrap_or_else(|| vec![0.0; n]))),
            Some((index, value)) => Err(CheckpointError::IntegerBias { tensor, dtype, index, value }),
        }
    }
}

/// An error if `tensor` of layer `name` belongs to a layout that this does not read.
fn other_layout(name: &str, tensor: &str, part: &str) -> Option<CheckpointError> {
    let (_, layout, advice) = OTHER_LAYOUTS.into_iter().find(|&(other, ..)| other == part)?;
    Some(CheckpointError::Layout { layer: name.to_owned(), layout, tensor: tensor.to_owned(), advice })
}
