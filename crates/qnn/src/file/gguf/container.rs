//! The container: header, metadata, and where each tensor's bytes are.

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::error::GgufError;
use super::tensor_type::GgufType;
use super::value::GgufValue;
use crate::file::codes_form::CodesForm;

/// A GGUF file (versions 2 and 3, little-endian): its metadata, and tensors that are taken out by
/// name. The caller owns the bytes, read or mapped, and they are not trusted: whatever they are,
/// there is a result or an error, no tensor lies outside the file, and nothing larger than the
/// file's own description of itself is allocated to read it.
///
/// ```no_run
/// use qcore::{ActivationFunction, Scheme};
/// use qkernels::{Dynamic, Kernel};
/// use qnn::{CodesForm, GgufFile};
/// let bytes = std::fs::read("model-q4_0.gguf")?; // or map it
/// let mut file = GgufFile::parse(&bytes)?;
/// let heads = file.value("llama.attention.head_count").and_then(|heads| heads.as_u64());
/// let words = file.take_tensor("token_embd.weight", None)?;
/// let form = CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8())); // W4A8
/// let query = file.take_linear("blk.0.attn_q", form, ActivationFunction::Identity, Kernel::select()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GgufFile<'d> {
    metadata: Vec<(&'d str, GgufValue<'d>)>,
    tensors: BTreeMap<&'d str, GgufTensor<'d>>,
    /// The names of all tensors, in the order of the file.
    names: Vec<&'d str>,
    taken: BTreeSet<String>,
    /// The names of tensors that may be taken again.
    tied: BTreeSet<String>,
    /// What a copy of the file has as well: the version, and the bytes of all entries of the
    /// metadata.
    pub(super) version: u32,
    pub(super) entries: &'d [u8],
    /// All bytes in which tensors are.
    pub(super) data: &'d [u8],
    /// Whether the file reaches to where data begin, or would.
    pub(super) padded: bool,
    /// The form of layers for a constructor that does not ask for one.
    pub(in crate::file) form: CodesForm,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct GgufTensor<'d> {
    pub(super) element: GgufType,
    /// Row-major: the number of a row's elements is last.
    pub(super) shape: Vec<usize>,
    /// Where the bytes begin in all data.
    pub(super) offset: usize,
    /// Empty if the type is not read.
    pub(super) data: &'d [u8],
}

/// What comes first: how many tensors and how many entries of metadata there are.
struct Header {
    version: u32,
    tensors: u64,
    entries: u64,
}

/// Where a tensor is, before that is checked.
struct Described<'d> {
    name: &'d str,
    element: GgufType,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

/// The alignment of data if the metadata do not say another one.
const USUAL_ALIGNMENT: u32 = 32;

impl<'d> GgufFile<'d> {
    /// Reads everything but the tensors' data.
    ///
    /// # Errors
    /// [`GgufError`] if the bytes are no GGUF file, if its description of itself does not hold, or
    /// if two tensors share bytes.
    pub fn parse(bytes: &'d [u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let Header { version, tensors, entries } = Header::read(&mut cursor, bytes)?;
        let before = cursor.at();
        let mut metadata = Vec::new();
        let mut keys = BTreeSet::new();
        for _ in 0..entries {
            let key = cursor.text("a key of the metadata")?;
            if !keys.insert(key) {
                return Err(GgufError::Twice { what: "key", name: key.to_owned() });
            }
            metadata.push((key, GgufValue::read(&mut cursor)?));
        }
        let entries = &bytes[before..cursor.at()];
        let described = (0..tensors).map(|_| Described::read(&mut cursor));
        let described = described.collect::<Result<Vec<_>, _>>()?;
        let mut file = Self {
            metadata,
            tensors: BTreeMap::new(),
            names: Vec::new(),
            taken: BTreeSet::new(),
            tied: BTreeSet::new(),
            version,
            entries,
            data: &[],
            padded: false,
            form: CodesForm::Float,
        };
        let alignment = file.alignment()?;
        // A file without tensors need not be padded to where they would be.
        let start = cursor.at().checked_next_multiple_of(alignment as usize);
        let data = start.and_then(|start| bytes.get(start..));
        file.padded = data.is_some();
        let data = data.unwrap_or_default();
        file.data = data;
        check_overlap(&described)?;
        for tensor in described {
            let (name, found) = tensor.locate(data, alignment)?;
            file.names.push(name);
            if file.tensors.insert(name, found).is_some() {
                return Err(GgufError::Twice { what: "tensor", name: name.to_owned() });
            }
        }
        Ok(file)
    }

    /// The entries of the metadata, in the order of the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&'d str, GgufValue<'d>)> {
        self.metadata.iter().copied()
    }

    /// The value of a key, if it is there.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<GgufValue<'d>> {
        self.metadata().find(|&(known, _)| known == key).map(|(_, value)| value)
    }

    /// The names of all tensors that are left, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &'d str> {
        self.names.iter().copied().filter(|name| !self.taken.contains(*name))
    }

    /// The type and the shape of a tensor, taken or not. The shape is row-major, (n, k) for the
    /// weights of a layer.
    #[must_use]
    pub fn describe(&self, tensor: &str) -> Option<(GgufType, &[usize])> {
        self.tensors.get(tensor).map(|tensor| (tensor.element, &tensor.shape[..]))
    }

    /// Lets a tensor be taken more than once: an embedding that is also the output layer
    /// ([`take_tied`](Self::take_tied)). Any other one can be taken once.
    ///
    /// # Errors
    /// [`GgufError::Missing`] if there is no such tensor, or it was taken before.
    pub fn tie(&mut self, tensor: &str) -> Result<(), GgufError> {
        self.find(tensor)?;
        self.tied.insert(tensor.to_owned());
        Ok(())
    }

    /// Checks that no tensor is left.
    ///
    /// # Errors
    /// [`GgufError::Left`] that names the first one left.
    pub fn finish(self) -> Result<(), GgufError> {
        let mut left = self.tensors();
        match left.next() {
            None => Ok(()),
            Some(first) => Err(GgufError::Left { tensor: first.to_owned(), count: 1 + left.count() }),
        }
    }

    /// All tensors, taken or not, in the order of the file.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'d str, &GgufTensor<'d>)> {
        self.names.iter().filter_map(|&name| Some((name, self.tensors.get(name)?)))
    }

    /// A tensor, taken or not.
    pub(super) fn get(&self, tensor: &str) -> Option<(&'d str, &GgufTensor<'d>)> {
        self.tensors.get_key_value(tensor).map(|(&name, found)| (name, found))
    }

    /// A tensor that can be taken.
    pub(super) fn find(&self, tensor: &str) -> Result<&GgufTensor<'d>, GgufError> {
        let taken = self.taken.contains(tensor) && !self.tied.contains(tensor);
        let missing = GgufError::Missing { tensor: tensor.to_owned(), taken };
        self.tensors.get(tensor).filter(|_| !taken).ok_or(missing)
    }

    /// Says that a tensor was taken, if there is one of this name.
    pub(super) fn take(&mut self, tensor: &str) {
        if self.tensors.contains_key(tensor) {
            self.taken.insert(tensor.to_owned());
        }
    }

    /// What the places of tensors in the data are multiples of.
    pub(super) fn alignment(&self) -> Result<u32, GgufError> {
        match self.value("general.alignment") {
            None => Ok(USUAL_ALIGNMENT),
            Some(value) => match value.as_u64().map(u32::try_from) {
                Some(Ok(alignment)) if alignment.is_power_of_two() => Ok(alignment),
                _ => Err(GgufError::Alignment { got: format!("{value:?}") }),
            },
        }
    }
}

impl Header {
    fn read(cursor: &mut Cursor<'_>, bytes: &[u8]) -> Result<Self, GgufError> {
        let magic = bytes.get(..4).unwrap_or(bytes);
        if magic != b"GGUF" {
            return Err(GgufError::Magic { got: magic.to_vec() });
        }
        cursor.take(4, "the magic number")?;
        match cursor.u32("the version")? {
            version @ (2 | 3) => Ok(Self {
                version,
                tensors: cursor.u64("the number of tensors")?,
                entries: cursor.u64("the number of keys")?,
            }),
            got if (1..=3).contains(&got.swap_bytes()) => {
                Err(GgufError::BigEndian { version: got.swap_bytes() })
            }
            got => Err(GgufError::Version { got }),
        }
    }
}

impl<'d> Described<'d> {
    fn read(cursor: &mut Cursor<'d>) -> Result<Self, GgufError> {
        const WHAT: &str = "the description of a tensor";
        let name = cursor.text("the name of a tensor")?;
        let tensor = || name.to_owned();
        let dimensions = match cursor.u32(WHAT)? {
            count @ 1..=4 => (0..count).map(|_| cursor.u64(WHAT)).collect::<Result<Vec<u64>, _>>()?,
            got => return Err(GgufError::Dimensions { tensor: tensor(), got }),
        };
        let element = GgufType::from_number(cursor.u32(WHAT)?);
        let offset = cursor.u64(WHAT)?;
        let too_large = || GgufError::TooLarge { tensor: tensor(), dimensions: dimensions.clone() };
        let shape = dimensions.iter().rev().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| too_large())?;
        let elements = match shape.contains(&0) {
            true => Some(0),
            false => shape.iter().try_fold(1usize, |elements, &d| elements.checked_mul(d)),
        };
        let elements = elements.ok_or_else(too_large)?;
        let bytes = match element.block() {
            None => 0,
            Some((block_len, block_bytes)) => {
                let len = shape.last().copied().unwrap_or(0);
                if !len.is_multiple_of(block_len) {
                    return Err(GgufError::Row { tensor: tensor(), format: element, len, block_len });
                }
                (elements / block_len).checked_mul(block_bytes).ok_or_else(too_large)?
            }
        };
        Ok(Self { name, element, shape, bytes, offset })
    }

    /// Finds the tensor in the file's data.
    fn locate(self, data: &'d [u8], alignment: u32) -> Result<(&'d str, GgufTensor<'d>), GgufError> {
        let Self { name, element, shape, bytes, offset } = self;
        if !offset.is_multiple_of(alignment.into()) {
            return Err(GgufError::Offset { tensor: name.to_owned(), offset, alignment });
        }
        let start = usize::try_from(offset).ok();
        let found = start.and_then(|start| Some((start, data.get(start..)?.get(..bytes)?)));
        match found {
            Some((offset, data)) => Ok((name, GgufTensor { element, shape, offset, data })),
            None => Err(GgufError::Data { tensor: name.to_owned(), offset, bytes, data: data.len() }),
        }
    }
}

/// Checks that no two tensors have bytes in common.
fn check_overlap(tensors: &[Described<'_>]) -> Result<(), GgufError> {
    let mut sorted: Vec<_> = tensors.iter().filter(|tensor| tensor.bytes > 0).collect();
    sorted.sort_by_key(|tensor| tensor.offset);
    let overlap = |pair: &&[&Described<'_>]| pair[1].offset - pair[0].offset < pair[0].bytes as u64;
    match sorted.windows(2).find(overlap) {
        None => Ok(()),
        Some(pair) => {
            Err(GgufError::Overlap { first: pair[0].name.to_owned(), second: pair[1].name.to_owned() })
        }
    }
}
