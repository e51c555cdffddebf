//! Stores past the caches, for results that no cache holds.
//!
//! An ordinary store reads the line that it changes. Non-temporal stores write whole lines and read
//! none. What they write is computed in L1 before, in blocks.

use qcore::Code;

use crate::cpu::caches::Caches;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// A block of values, from the start of a line on.
#[repr(align(64))]
pub(crate) struct Block<T, const N: usize>(pub(crate) [T; N]);

/// Whether an operation that moves `bytes` bytes, read and written, should store past the caches.
/// Below that its output may be in a cache, from which what comes next would read it.
pub(crate) fn pays(bytes: usize) -> bool {
    // Of a shared L3 `Caches` has a quarter.
    cfg!(target_arch = "x86_64") && bytes / 4 > Caches::of_this_cpu().l3
}

/// The bytes of codes.
pub(crate) fn bytes_of_codes<C: Code>(codes: &mut [C]) -> &mut [u8] {
    const { assert!(size_of::<C>() == 1) };
    let len = codes.len();
    // SAFETY: `Code` is sealed, its types are i8 and u8: all bytes are their values, and have no
    // alignment. The slice covers `len` of them, and stays borrowed as long as the result is.
    unsafe { core::slice::from_raw_parts_mut(codes.as_mut_ptr().cast(), len) }
}

/// Bytes that are written in order, past the caches.
pub(crate) struct Stream<'o> {
    rest: &'o mut [u8],
}

impl<'o> Stream<'o> {
    /// Bytes to write.
    pub(crate) fn new(out: &'o mut [u8]) -> Self {
        Self { rest: out }
    }

    /// How many bytes at most, of `most` that are whole lines, are next up to the end of a line.
    pub(crate) fn to_line(&self, most: usize) -> usize {
        match self.rest.as_ptr().align_offset(LINE) {
            0 => most,
            head => head.min(most),
        }
    }

    /// Writes the next bytes, as many as there is room for. Those before the first and behind the
    /// last whole line are stored as usual.
    #[inline(always)]
    pub(crate) fn write(&mut self, from: &[u8]) {
        let rest = core::mem::take(&mut self.rest);
        let (to, rest) = rest.split_at_mut(from.len().min(rest.len()));
        let from = &from[..to.len()];
        self.rest = rest;
        let (head, lines) = to.split_at_mut(to.as_ptr().align_offset(LINE).min(to.len()));
        let (lines, tail) = lines.as_chunks_mut::<LINE>();
        let (from_head, from) = from.split_at(head.len());
        let (from, from_tail) = from.as_chunks::<LINE>();
        head.copy_from_slice(from_head);
        for (to, from) in lines.iter_mut().zip(from) {
            write_line(to, from);
        }
        for (to, from) in tail.iter_mut().zip(from_tail) {
            *to = *from;
        }
    }
}

impl Drop for Stream<'_> {
    /// Nobody but the stream can read what it writes before this orders it with what follows.
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has the instruction.
        unsafe {
            core::arch::x86_64::_mm_sfence();
        }
    }
}

/// Writes one line. `to` is aligned to one.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn write_line(to: &mut [u8; LINE], from: &[u8; LINE]) {
    use core::arch::x86_64::{__m128i, _mm_stream_si128};

    debug_assert!(to.as_ptr().cast::<__m128i>().is_aligned());
    for (to, from) in to.as_chunks_mut::<16>().0.iter_mut().zip(from.as_chunks::<16>().0) {
        // SAFETY: the reference covers the 16 bytes written, at a multiple of 16 from the start of
        // a line. `Stream` borrows them until it is dropped, which fences them.
        unsafe { _mm_stream_si128(to.as_mut_ptr().cast(), bytemuck::must_cast(*from)) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn write_line(to: &mut [u8; LINE], from: &[u8; LINE]) {
    *to = *from;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_at_every_alignment_and_none_beside_them_change() {
        let from: Vec<u8> = (0..400).map(|i| (i % 251) as u8).collect();
        for start in 0..LINE {
            for len in [0, 1, 15, 16, 63, 64, 65, 127, 128, 200, 300] {
                for cut in [0, 1, len / 2, len] {
                    let mut out = vec![255; 500];
                    let mut stream = Stream::new(&mut out[start..start + len]);
                    stream.write(&from[..cut]);
                    stream.write(&from[cut..]);
                    drop(stream);
                    assert_eq!(out[start..start + len], from[..len], "{start} {len} {cut}");
                    assert!(out[..start].iter().chain(&out[start + len..]).all(|&byte| byte == 255));
                }
            }
        }
    }

    #[test]
    fn codes_are_their_bytes() {
        assert_eq!(bytes_of_codes(&mut [-1i8, 0, 127]), [255, 0, 127]);
        assert_eq!(bytes_of_codes(&mut [255u8, 1]), [255, 1]);
    }
}
