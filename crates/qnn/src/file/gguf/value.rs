//! The metadata of GGUF files: values of a type that each of them states.

use super::cursor::Cursor;
use super::error::GgufError;

/// A value of a GGUF file's metadata.
///
/// Strings are bytes, because the tokens of some vocabularies are no whole characters:
/// [`as_str`](Self::as_str) gives those that are text.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue<'d> {
    /// An unsigned integer of 8 to 64 bits.
    Unsigned(u64),
    /// A signed integer of 8 to 64 bits.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A string.
    String(&'d [u8]),
    /// Values of one type.
    Array(GgufArray<'d>),
}

/// An array of a GGUF file's metadata, checked, and read as it is iterated over: it takes no
/// memory besides the file's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GgufArray<'d> {
    kind: Kind,
    len: u64,
    bytes: &'d [u8],
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Unsigned(u8),
    Signed(u8),
    Float(u8),
    Bool,
    String,
    Array,
}

/// Arrays of arrays are read to this depth, which is more than files have.
const MOST_LEVELS: u32 = 4;

impl<'d> GgufValue<'d> {
    /// The text of a string, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&'d str> {
        match self {
            GgufValue::String(bytes) => core::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            GgufValue::Unsigned(value) => Some(value),
            GgufValue::Signed(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A float, or an integer as one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            GgufValue::Float(value) => Some(value),
            GgufValue::Unsigned(value) => Some(value as f64),
            GgufValue::Signed(value) => Some(value as f64),
            _ => None,
        }
    }

    /// Reads the type of a value, then the value.
    pub(super) fn read(cursor: &mut Cursor<'d>) -> Result<Self, GgufError> {
        let kind = Kind::read(cursor)?;
        Self::read_as(kind, cursor, MOST_LEVELS)
    }

    fn read_as(kind: Kind, cursor: &mut Cursor<'d>, levels: u32) -> Result<Self, GgufError> {
        const WHAT: &str = "a value of the metadata";
        let at = cursor.at();
        Ok(match kind {
            Kind::Unsigned(bytes) => GgufValue::Unsigned(little_endian(cursor.take(bytes.into(), WHAT)?)),
            Kind::Signed(bytes) => {
                let bits = little_endian(cursor.take(bytes.into(), WHAT)?);
                let unused = 64 - 8 * u32::from(bytes);
                GgufValue::Signed((bits << unused).cast_signed() >> unused)
            }
            Kind::Float(4) => GgufValue::Float(f32::from_le_bytes(cursor.array(WHAT)?).into()),
            Kind::Float(_) => GgufValue::Float(f64::from_le_bytes(cursor.array(WHAT)?)),
            Kind::Bool => match cursor.array(WHAT)? {
                [0] => GgufValue::Bool(false),
                [1] => GgufValue::Bool(true),
                [got] => return Err(GgufError::Bool { at, got }),
            },
            Kind::String => GgufValue::String(cursor.string("a string of the metadata")?),
            Kind::Array => GgufValue::Array(GgufArray::read(cursor, levels)?),
        })
    }
}

impl<'d> GgufArray<'d> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = GgufValue<'d>> + use<'d> {
        let (kind, mut left, mut cursor) = (self.kind, self.len, Cursor::new(self.bytes));
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            // Every value was read once before.
            GgufValue::read_as(kind, &mut cursor, MOST_LEVELS).ok()
        })
    }

    /// Reads the type and the number of the values, and checks each of them.
    fn read(cursor: &mut Cursor<'d>, levels: u32) -> Result<Self, GgufError> {
        const WHAT: &str = "an array of the metadata";
        let Some(levels) = levels.checked_sub(1) else {
            return Err(GgufError::Depth { at: cursor.at(), limit: MOST_LEVELS });
        };
        let kind = Kind::read(cursor)?;
        let len = cursor.u64(WHAT)?;
        let start = *cursor;
        if let Kind::Unsigned(bytes) | Kind::Signed(bytes) | Kind::Float(bytes) = kind {
            // Whatever these bytes are, they are values.
            cursor.take(len.saturating_mul(bytes.into()), WHAT)?;
        } else {
            for _ in 0..len {
                GgufValue::read_as(kind, cursor, levels)?;
            }
        }
        let bytes = { start }.take((cursor.at() - start.at()) as u64, WHAT)?;
        Ok(Self { kind, len, bytes })
    }
}

impl Kind {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, GgufError> {
        let at = cursor.at();
        Ok(match cursor.u32("the type of a value")? {
            0 => Kind::Unsigned(1),
            1 => Kind::Signed(1),
            2 => Kind::Unsigned(2),
            3 => Kind::Signed(2),
            4 => Kind::Unsigned(4),
            5 => Kind::Signed(4),
            6 => Kind::Float(4),
            7 => Kind::Bool,
            8 => Kind::String,
            9 => Kind::Array,
            10 => Kind::Unsigned(8),
            11 => Kind::Signed(8),
            12 => Kind::Float(8),
            got => return Err(GgufError::ValueType { at, got }),
        })
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
