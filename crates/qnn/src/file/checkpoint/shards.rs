//! Checkpoints in several files: reads their tensors as if they were in one, and the index that
//! says which file has which tensor.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::file::json_keys::duplicate_key;
use crate::file::tensors::{Tensor, TensorFile, TensorFileError};

/// The index of a checkpoint in several files (`model.safetensors.index.json` of Hugging Face),
/// which says in which file each tensor is.
///
/// ```
/// let index = qnn::ShardIndex::parse(br#"{"weight_map": {"fc.weight": "b.safetensors", "fc.bias": "a.safetensors"}}"#)?;
/// assert!(index.shards().eq(["a.safetensors", "b.safetensors"])); // to be read or mapped
/// # Ok::<(), qnn::ShardError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The part of an index that is read. Its metadata do not matter here.
#[derive(Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

/// Why several files do not make one checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The index is not valid JSON, or has no map of tensors to files.
    #[error("not an index of shards: {0}")]
    Index(serde_json::Error),
    /// An object of the index has a key twice.
    #[error("the index of shards has {key:?} twice")]
    DuplicateKey {
        /// The key, after the keys of the objects around it.
        key: String,
    },
    /// The index names a file that is not beside it.
    #[error("the index has tensor {tensor:?} in {shard:?}, which is no plain name of a file")]
    FileName {
        /// The first such tensor by name.
        tensor: String,
        /// The file.
        shard: String,
    },
    /// There are no files.
    #[error("a checkpoint has at least one shard, got none")]
    NoShards,
    /// A file is no safetensors file.
    #[error("shard {shard:?}: {error}")]
    File {
        /// The shard.
        shard: String,
        /// Why.
        error: TensorFileError,
    },
    /// A file was given twice.
    #[error("shard {shard:?} was given twice")]
    SameShard {
        /// The shard.
        shard: String,
    },
    /// A file was given that the index does not name.
    #[error("the index knows no shard {shard:?}")]
    UnknownShard {
        /// The shard.
        shard: String,
    },
    /// The index names a file that was not given.
    #[error("shard {shard:?} is missing, which has tensor {tensor:?} by the index")]
    MissingShard {
        /// The shard.
        shard: String,
        /// The first of its tensors by name.
        tensor: String,
    },
    /// Two files have a tensor of the same name.
    #[error("tensor {tensor:?} is in shard {first:?} and in shard {second:?}")]
    SameTensor {
        /// The tensor.
        tensor: String,
        /// One of the shards.
        first: String,
        /// The other.
        second: String,
    },
    /// The index names a tensor that no file has.
    #[error("tensor {tensor:?} is in shard {shard:?} by the index, but in none")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The shard, by the index.
        shard: String,
    },
    /// A tensor is in another file than the index says.
    #[error("tensor {tensor:?} is in shard {expected:?} by the index, but in {got:?}")]
    OtherShard {
        /// The tensor.
        tensor: String,
        /// The shard, by the index.
        expected: String,
        /// The shard that has it.
        got: String,
    },
    /// A file has a tensor that the index does not name.
    #[error("tensor {tensor:?} of shard {shard:?} is not in the index")]
    NotIndexed {
        /// The tensor.
        tensor: String,
        /// The shard that has it.
        shard: String,
    },
}

impl ShardIndex {
    /// Reads an index. It is safe to join the names of its files to the folder of the index,
    /// because none leads elsewhere.
    ///
    /// # Errors
    /// [`ShardError`] if it is not JSON, has no `weight_map` from tensors to plain names of files,
    /// or has a key twice.
    pub fn parse(json: &[u8]) -> Result<Self, ShardError> {
        if let Some(key) = duplicate_key(json).map_err(ShardError::Index)? {
            return Err(ShardError::DuplicateKey { key });
        }
        let IndexFile { weight_map } = serde_json::from_slice(json).map_err(ShardError::Index)?;
        let elsewhere =
            |shard: &str| matches!(shard, "" | "." | "..") || shard.contains(['/', '\\', ':', '\0']);
        match weight_map.iter().find(|(_, shard)| elsewhere(shard)) {
            None => Ok(Self { weight_map }),
            Some((tensor, shard)) => {
                Err(ShardError::FileName { tensor: tensor.clone(), shard: shard.clone() })
            }
        }
    }

    /// The names of the files, each once, sorted.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        let shards: BTreeSet<_> = self.weight_map.values().map(String::as_str).collect();
        shards.into_iter()
    }

    /// The name of the file that has a tensor, by the index.
    pub fn shard_of(&self, tensor: &str) -> Option<&str> {
        self.weight_map.get(tensor).map(String::as_str)
    }

    /// Merges the tensors of these files, which must be all that the index names, and must have
    /// exactly the tensors that it says.
    pub(crate) fn merge<'d, N: Into<String>>(
        &self,
        shards: impl IntoIterator<Item = (N, &'d [u8])>,
    ) -> Result<TensorFile<'d>, ShardError> {
        let known: BTreeSet<_> = self.shards().collect();
        let mut given = BTreeMap::new();
        for (shard, bytes) in shards {
            let shard = shard.into();
            if !known.contains(&shard[..]) {
                return Err(ShardError::UnknownShard { shard });
            }
            if given.insert(shard.clone(), bytes).is_some() {
                return Err(ShardError::SameShard { shard });
            }
        }
        for (tensor, shard) in &self.weight_map {
            if !given.contains_key(shard) {
                return Err(ShardError::MissingShard { shard: shard.clone(), tensor: tensor.clone() });
            }
        }
        let merged = Merged::of(given)?;
        for (tensor, expected) in &self.weight_map {
            let (tensor, expected) = (tensor.clone(), expected.clone());
            match merged.shard_of(&tensor) {
                Some(got) if got == expected => {}
                Some(got) => return Err(ShardError::OtherShard { tensor, expected, got: got.to_owned() }),
                None => return Err(ShardError::MissingTensor { tensor, shard: expected }),
            }
        }
        match merged.tensors.keys().find(|tensor| !self.weight_map.contains_key(*tensor)) {
            None => Ok(merged.file()),
            Some(tensor) => {
                let shard = merged.shard_of(tensor).unwrap_or_default().to_owned();
                Err(ShardError::NotIndexed { tensor: tensor.clone(), shard })
            }
        }
    }
}

/// Merges the tensors of all these files. Errors name the files by their numbers.
pub(crate) fn merge<'d>(shards: impl IntoIterator<Item = &'d [u8]>) -> Result<TensorFile<'d>, ShardError> {
    let numbered = shards.into_iter().enumerate().map(|(number, bytes)| (number.to_string(), bytes));
    Ok(Merged::of(numbered)?.file())
}

/// The tensors of several files as one.
#[derive(Default)]
struct Merged<'d> {
    shards: Vec<String>,
    tensors: BTreeMap<String, Tensor<'d>>,
    /// For each tensor, the index in `shards` of the file that has it.
    homes: BTreeMap<String, usize>,
}

impl<'d> Merged<'d> {
    fn of(shards: impl IntoIterator<Item = (String, &'d [u8])>) -> Result<Self, ShardError> {
        let mut merged = Self::default();
        for (shard, bytes) in shards {
            let file = TensorFile::parse(bytes);
            let file = file.map_err(|error| ShardError::File { shard: shard.clone(), error })?;
            for (tensor, found) in file.tensors {
                if let Some(first) = merged.shard_of(&tensor) {
                    let first = first.to_owned();
                    return Err(ShardError::SameTensor { tensor, first, second: shard });
                }
                merged.homes.insert(tensor.clone(), merged.shards.len());
                merged.tensors.insert(tensor, found);
            }
            merged.shards.push(shard);
        }
        if merged.shards.is_empty() { Err(ShardError::NoShards) } else { Ok(merged) }
    }

    fn shard_of(&self, tensor: &str) -> Option<&str> {
        self.homes.get(tensor).and_then(|&shard| self.shards.get(shard)).map(String::as_str)
    }

    fn file(self) -> TensorFile<'d> {
        TensorFile::of(&[], self.tensors)
    }
}
