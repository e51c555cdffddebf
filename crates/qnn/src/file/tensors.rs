//! Safetensors: turns a file's bytes into named tensors, with every check, and tensors into bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use qcore::Float;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, View};

use super::json_keys::duplicate_key;

/// The largest file that is read, in bytes (16 GiB). The limit keeps a device or a wrong path from
/// filling the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 34;

/// The largest safetensors header that is read, in bytes. It is the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Why a safetensors file does not hold the tensors that a model needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// The file could not be read.
    #[error("could not read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("{} has more than {limit} bytes", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The header claims to be larger than the format allows.
    #[error("not a safetensors file: a header of {bytes} bytes, more than {limit}")]
    HeaderTooLarge {
        /// What the first eight bytes say.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The file ends before its header does.
    #[error("not a safetensors file, or cut off: the header ends at byte {expected}, the file at {got}")]
    Truncated {
        /// Where the header ends by the first eight bytes (at least 8).
        expected: u64,
        /// Length of the file.
        got: usize,
    },
    /// The header is not that of a safetensors file.
    #[error("not a safetensors file, or damaged: {0}")]
    Header(serde_json::Error),
    /// An object of the header has a key twice: a tensor, or an entry of one.
    #[error("not a safetensors file, or damaged: the header has {key:?} twice")]
    DuplicateKey {
        /// The key, after the keys of the objects around it: `fc1.weight`, or `fc1.weight: dtype`.
        key: String,
    },
    /// The header describes more or fewer bytes of data than there are.
    #[error("the tensors have {expected} bytes of data, the file has {got}")]
    DataLength {
        /// By the header.
        expected: usize,
        /// After the header.
        got: usize,
    },
    /// A tensor is missing.
    #[error("tensor {tensor:?} is missing")]
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor was taken before.
    #[error("tensor {tensor:?} was taken before; only one that is tied can be taken again")]
    Taken {
        /// The tensor.
        tensor: String,
    },
    /// A tensor has no place in the model.
    #[error("tensor {tensor:?} is unexpected")]
    Unexpected {
        /// The first such tensor by name.
        tensor: String,
    },
    /// A tensor has the wrong type of elements.
    #[error("tensor {tensor:?} is {got}, expected {expected}")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The type wanted.
        expected: Dtype,
        /// The type it has.
        got: Dtype,
    },
    /// A tensor does not have floats.
    #[error("tensor {tensor:?} is {got}, expected F32, F16 or BF16")]
    NotFloat {
        /// The tensor.
        tensor: String,
        /// The type it has.
        got: Dtype,
    },
    /// A tensor has the wrong number of dimensions.
    #[error("tensor {tensor:?} has {} dimensions, {got:?}, expected {expected}", got.len())]
    Rank {
        /// The tensor.
        tensor: String,
        /// Dimensions wanted.
        expected: usize,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {tensor:?} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape wanted.
        expected: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },
}

/// One tensor: little-endian elements, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Tensor<'d> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Cow<'d, [u8]>,
}

impl Tensor<'static> {
    pub(crate) fn of_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        Tensor { dtype: Dtype::F32, shape, data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    pub(crate) fn of_i32(shape: Vec<usize>, values: &[i32]) -> Self {
        Tensor { dtype: Dtype::I32, shape, data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    pub(crate) fn of_u32(shape: Vec<usize>, values: &[u32]) -> Self {
        Tensor { dtype: Dtype::U32, shape, data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    pub(crate) fn of_i8(shape: Vec<usize>, values: Vec<i8>) -> Self {
        let data = values.into_iter().map(i8::cast_unsigned).collect::<Vec<_>>();
        Tensor { dtype: Dtype::I8, shape, data: data.into() }
    }

    pub(crate) fn of_u8(shape: Vec<usize>, values: &[u8]) -> Self {
        Tensor { dtype: Dtype::U8, shape, data: values.to_vec().into() }
    }

    /// Codes (n, k) of 4 bits, two to a byte.
    pub(crate) fn of_nibbles(n: usize, k: usize, codes: &[i8]) -> Self {
        let pair = |pair: &[i8]| pair.iter().rev().fold(0, |byte, code| byte << 4 | code.cast_unsigned());
        let data: Vec<u8> = codes.chunks(k.max(1)).flat_map(|row| row.chunks(2).map(pair)).collect();
        Tensor { dtype: Dtype::U8, shape: vec![n, k.div_ceil(2)], data: data.into() }
    }
}

impl Tensor<'_> {
    /// The codes (n, k) of 4 bits; `None` if there are other codes than these.
    pub(crate) fn to_nibbles(&self, k: usize) -> Option<Vec<u8>> {
        let mut codes = Vec::with_capacity(2 * self.data.len());
        for row in self.data.chunks(k.div_ceil(2).max(1)) {
            codes.extend(row.iter().flat_map(|pair| [pair & 15, pair >> 4]));
            if k % 2 == 1 && codes.pop() != Some(0) {
                return None;
            }
        }
        Some(codes)
    }

    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Whether the elements are floats.
    pub(crate) fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// The elements widened to f32, if they are floats.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
        fn widened<F: Float>(data: &[u8], read: impl Fn([u8; 2]) -> F) -> Vec<f32> {
            let halves: Vec<F> = data.as_chunks().0.iter().map(|&bytes| read(bytes)).collect();
            let mut values = vec![0.0; halves.len()];
            F::widen_slice(&halves, &mut values);
            values
        }
        match self.dtype {
            Dtype::F32 => Some(self.to_f32()),
            Dtype::F16 => Some(widened(&self.data, f16::from_le_bytes)),
            Dtype::BF16 => Some(widened(&self.data, bf16::from_le_bytes)),
            _ => None,
        }
    }

    pub(crate) fn to_i32(&self) -> Vec<i32> {
        self.data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
    }

    pub(crate) fn to_u32(&self) -> Vec<u32> {
        self.data.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
    }

    /// The elements, if they are integers of any type.
    pub(crate) fn integers(&self) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
        macro_rules! each {
            ($integer:ty) => {
                Box::new(self.data.as_chunks().0.iter().map(|&bytes| <$integer>::from_le_bytes(bytes).into()))
            };
        }
        Some(match self.dtype {
            Dtype::I8 => each!(i8),
            Dtype::U8 => each!(u8),
            Dtype::I16 => each!(i16),
            Dtype::U16 => each!(u16),
            Dtype::I32 => each!(i32),
            Dtype::U32 => each!(u32),
            Dtype::I64 => each!(i64),
            Dtype::U64 => each!(u64),
            _ => return None,
        })
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// The tensors of a file by name. A model takes what it needs, and must leave nothing.
#[derive(Clone, Debug)]
pub(crate) struct TensorFile<'d> {
    /// The header's text.
    pub(crate) header: &'d [u8],
    /// The strings under `__metadata__`.
    pub(crate) metadata: HashMap<String, String>,
    /// The tensors that are left.
    pub(crate) tensors: BTreeMap<String, Tensor<'d>>,
    /// The tensors that were taken for the layer that is being read.
    pending: Vec<String>,
    /// The names of tensors that layers were made of.
    taken: BTreeSet<String>,
    /// The names of tensors that may be taken again.
    tied: BTreeSet<String>,
}

impl<'d> TensorFile<'d> {
    /// Reads the header and checks that the tensors cover the data exactly. Nothing is copied.
    pub(crate) fn parse(bytes: &'d [u8]) -> Result<Self, TensorFileError> {
        let truncated = |expected| TensorFileError::Truncated { expected, got: bytes.len() };
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or(truncated(8))?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            return Err(TensorFileError::HeaderTooLarge { bytes: length, limit: MAX_HEADER_BYTES });
        }
        let (header, data) = usize::try_from(length)
            .ok()
            .and_then(|n| rest.split_at_checked(n))
            .ok_or(truncated(8 + length))?;
        // A map keeps the last of two entries, so this comes before the header is read into one.
        if let Some(key) = duplicate_key(header).map_err(TensorFileError::Header)? {
            return Err(TensorFileError::DuplicateKey { key });
        }
        // `SafeTensors::deserialize` is not used, because its last comparison adds numbers of the
        // header without checking for overflow. Deserializing the metadata checks that offsets
        // adjoin, and that each tensor has the bytes of its shape and type, without overflow.
        let parsed: Metadata = serde_json::from_slice(header).map_err(TensorFileError::Header)?;
        if parsed.data_len() != data.len() {
            return Err(TensorFileError::DataLength { expected: parsed.data_len(), got: data.len() });
        }
        let mut tensors = BTreeMap::new();
        for (name, info) in parsed.tensors() {
            let (start, end) = info.data_offsets;
            let wrong = TensorFileError::DataLength { expected: end, got: data.len() };
            let data = data.get(start..end).ok_or(wrong)?.into();
            tensors.insert(name, Tensor { dtype: info.dtype, shape: info.shape.clone(), data });
        }
        let metadata = parsed.metadata().clone().unwrap_or_default();
        Ok(Self { metadata, ..Self::of(header, tensors) })
    }

    /// Tensors without metadata.
    pub(crate) fn of(header: &'d [u8], tensors: BTreeMap<String, Tensor<'d>>) -> Self {
        let (metadata, pending) = (HashMap::new(), Vec::new());
        Self { header, metadata, tensors, pending, taken: BTreeSet::new(), tied: BTreeSet::new() }
    }

    /// Ends the reading of a layer. If it succeeded, its tensors are gone. If it failed, they are
    /// back, so that the layer can be read in another way.
    pub(crate) fn settle<T, E>(&mut self, layer: Result<T, E>) -> Result<T, E> {
        for name in self.pending.drain(..) {
            if layer.is_ok() {
                if !self.tied.contains(&name) {
                    self.tensors.remove(&name);
                }
                self.taken.insert(name);
            }
        }
        layer
    }

    /// Takes out a tensor of any type and shape. It counts as taken once the layer is settled.
    pub(crate) fn take_any(&mut self, tensor: &str) -> Result<Tensor<'d>, TensorFileError> {
        let name = tensor.to_owned();
        match self.tensors.get(tensor) {
            Some(found) => {
                self.pending.push(name);
                Ok(found.clone())
            }
            None if self.taken.contains(tensor) => Err(TensorFileError::Taken { tensor: name }),
            None => Err(TensorFileError::Missing { tensor: name }),
        }
    }

    /// Takes out a tensor of any shape.
    pub(crate) fn take(&mut self, tensor: &str, expected: Dtype) -> Result<Tensor<'d>, TensorFileError> {
        let found = self.take_any(tensor)?;
        match found.dtype == expected {
            true => Ok(found),
            false => Err(TensorFileError::Dtype { tensor: tensor.to_owned(), expected, got: found.dtype }),
        }
    }

    /// Takes out a tensor of `shape`.
    pub(crate) fn take_shaped(
        &mut self,
        tensor: &str,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<Tensor<'d>, TensorFileError> {
        let found = self.take(tensor, dtype)?;
        if found.shape != shape {
            let (tensor, expected, got) = (tensor.to_owned(), shape.to_vec(), found.shape);
            return Err(TensorFileError::Shape { tensor, expected, got });
        }
        Ok(found)
    }

    /// Takes out a tensor of `shape`, if there is one of this name.
    pub(crate) fn take_if_there(
        &mut self,
        tensor: &str,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<Option<Tensor<'d>>, TensorFileError> {
        match self.tensors.contains_key(tensor) {
            true => self.take_shaped(tensor, dtype, shape).map(Some),
            false => Ok(None),
        }
    }

    /// Takes out a matrix: the tensor, its rows and its columns.
    pub(crate) fn take_matrix(
        &mut self,
        tensor: &str,
        dtype: Dtype,
    ) -> Result<(Tensor<'d>, usize, usize), TensorFileError> {
        let found = self.take(tensor, dtype)?;
        match found.shape[..] {
            [rows, cols] => Ok((found, rows, cols)),
            _ => Err(TensorFileError::Rank { tensor: tensor.to_owned(), expected: 2, got: found.shape }),
        }
    }

    /// Lets a tensor that is there be taken any number of times.
    pub(crate) fn tie(&mut self, tensor: &str) -> Result<(), TensorFileError> {
        let name = tensor.to_owned();
        match self.tensors.contains_key(tensor) {
            true => self.tied.insert(name),
            false if self.taken.contains(tensor) => return Err(TensorFileError::Taken { tensor: name }),
            false => return Err(TensorFileError::Missing { tensor: name }),
        };
        Ok(())
    }

    /// Renames tensors: `old_names` has the name of today for each new one. No two are the same.
    pub(crate) fn rename(&mut self, old_names: BTreeMap<String, String>) {
        let mut tensors = core::mem::take(&mut self.tensors);
        let (taken, tied) = (core::mem::take(&mut self.taken), core::mem::take(&mut self.tied));
        for (new, old) in old_names {
            // A tied tensor that was taken is still here, under its new name.
            if taken.contains(&old) {
                self.taken.insert(new.clone());
            }
            if tied.contains(&old) {
                self.tied.insert(new.clone());
            }
            if let Some(tensor) = tensors.remove(&old) {
                self.tensors.insert(new, tensor);
            }
        }
    }

    /// The tensors that nobody has taken, in the order of their names.
    pub(crate) fn left(&self) -> impl Iterator<Item = (&str, &Tensor<'d>)> {
        let left = self.tensors.iter().filter(|(name, _)| !self.taken.contains(*name));
        left.map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Checks that nothing is left.
    pub(crate) fn check_empty(&self) -> Result<(), TensorFileError> {
        match self.left().next() {
            None => Ok(()),
            Some((tensor, _)) => Err(TensorFileError::Unexpected { tensor: tensor.to_owned() }),
        }
    }
}

/// Reads all bytes of a file of at most [`MAX_FILE_BYTES`].
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, TensorFileError> {
    let named = |error| TensorFileError::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(named)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(named)?;
    match u64::try_from(bytes.len()) {
        Ok(len) if len <= MAX_FILE_BYTES => Ok(bytes),
        _ => Err(TensorFileError::FileTooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES }),
    }
}
