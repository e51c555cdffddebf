//! Zeroed memory aligned to cache lines. Large blocks lie on huge pages if the system has any to
//! give.
//!
//! A product of one row uses each weight once, as fast as memory delivers it, and the hardware
//! reads ahead within a page. Weights came from memory at 31 GB/s on pages of 2 MiB and at 19 on
//! pages of 4 KiB (AMD Zen 4, the int8 product of one row).

use bytemuck::{Pod, Zeroable};

/// A cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([i8; 64]);

/// Memory that begins as zeros.
#[derive(Debug)]
pub(crate) struct Pages(Memory);

#[derive(Debug)]
enum Memory {
    Allocated(Vec<Line>),
    #[cfg(target_os = "linux")]
    Mapped(huge::Block),
}

impl Pages {
    /// `bytes` zeros, or a few more; `None` if there is no memory for them.
    pub(crate) fn zeroed(bytes: usize) -> Option<Self> {
        #[cfg(target_os = "linux")]
        if let Some(block) = huge::Block::zeroed(bytes) {
            return Some(Self(Memory::Mapped(block)));
        }
        // The zeros come from the allocator, so fresh memory is not written twice.
        bytemuck::try_zeroed_vec(bytes.div_ceil(64)).ok().map(|lines| Self(Memory::Allocated(lines)))
    }

    pub(crate) fn as_slice(&self) -> &[i8] {
        match &self.0 {
            Memory::Allocated(lines) => bytemuck::must_cast_slice(lines),
            #[cfg(target_os = "linux")]
            Memory::Mapped(block) => block.as_slice(),
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [i8] {
        match &mut self.0 {
            Memory::Allocated(lines) => bytemuck::must_cast_slice_mut(lines),
            #[cfg(target_os = "linux")]
            Memory::Mapped(block) => block.as_mut_slice(),
        }
    }
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        let len = self.as_slice().len();
        // If there is no memory, this ends as the clone of a `Vec` does.
        let none = || Self(Memory::Allocated(bytemuck::zeroed_vec(len.div_ceil(64))));
        let mut clone = Self::zeroed(len).unwrap_or_else(none);
        clone.as_mut_slice().copy_from_slice(self.as_slice());
        clone
    }
}

#[cfg(target_os = "linux")]
mod huge {
    use memmap2::{Advice, MmapMut};

    /// The size of a huge page in bytes, and its alignment.
    const HUGE: usize = 2 << 20;

    /// Blocks smaller than this gain little.
    const SMALLEST: usize = 2 * HUGE;

    /// Bytes in a mapping of their own, from the boundary of a huge page on.
    #[derive(Debug)]
    pub(super) struct Block {
        mapping: MmapMut,
        start: usize,
        len: usize,
    }

    impl Block {
        /// `None` for small blocks, and if the system refuses.
        pub(super) fn zeroed(len: usize) -> Option<Self> {
            if len < SMALLEST {
                return None;
            }
            let mapping = MmapMut::map_anon(len.checked_add(HUGE)?).ok()?;
            let start = mapping.as_ptr().align_offset(HUGE);
            // This asks for whole pages only: the remainder would take another page. Systems
            // without huge pages refuse and keep small ones.
            mapping.advise_range(Advice::HugePage, start, len / HUGE * HUGE).ok();
            Some(Self { mapping, start, len })
        }

        pub(super) fn as_slice(&self) -> &[i8] {
            bytemuck::must_cast_slice(&self.mapping[self.start..][..self.len])
        }

        pub(super) fn as_mut_slice(&mut self) -> &mut [i8] {
            bytemuck::must_cast_slice_mut(&mut self.mapping[self.start..][..self.len])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_none() {
        assert!(Pages::zeroed(isize::MAX as usize - 64).is_none());
    }

    #[test]
    fn memory_of_any_size_is_aligned_zero_and_its_own() {
        for len in [0, 1, 64, 65, 4096, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9_999_999] {
            let mut pages = Pages::zeroed(len).unwrap();
            assert!(pages.as_slice().len() >= len, "{len}");
            assert!(pages.as_slice().iter().all(|&byte| byte == 0), "{len}");
            assert_eq!(pages.as_slice().as_ptr().align_offset(64), 0, "{len}");
            pages.as_mut_slice().fill(7);
            let clone = pages.clone();
            pages.as_mut_slice().fill(8);
            assert!(clone.as_slice().iter().all(|&byte| byte == 7), "{len}");
        }
    }
}
