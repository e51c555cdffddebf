//! Little-endian numbers and strings, one after the other, from bytes that are not trusted.

use super::error::GgufError;

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'d> {
    bytes: &'d [u8],
    at: usize,
}

impl<'d> Cursor<'d> {
    pub(super) fn new(bytes: &'d [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes came before.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next `len` bytes, which are those of `what`.
    pub(super) fn take(&mut self, len: u64, what: &'static str) -> Result<&'d [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let truncated = GgufError::Truncated { what, at: self.at, len, left: rest.len() };
        let taken = taken.ok_or(truncated)?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N as u64, what)?;
        // `take` gives as many bytes as it is asked for.
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length in eight bytes, then its bytes.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'d [u8], GgufError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    /// A string that has to be text.
    pub(super) fn text(&mut self, what: &'static str) -> Result<&'d str, GgufError> {
        let at = self.at;
        core::str::from_utf8(self.string(what)?).map_err(|_| GgufError::Text { what, at })
    }
}
