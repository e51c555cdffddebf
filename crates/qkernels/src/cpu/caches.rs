//! The data caches of this machine, detected once.

use std::sync::OnceLock;

/// The data cache sizes, in bytes, that one core can count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) l1: usize,
    pub(crate) l2: usize,
    pub(crate) l3: usize,
}

impl Caches {
    /// What every core of the last ten years has at least. It is used for CPUs that do not report
    /// their caches, and as the floor for those that do.
    pub(crate) const TYPICAL: Caches = Caches { l1: 32 << 10, l2: 256 << 10, l3: 2 << 20 };

    /// The caches of the CPU that runs this, detected at the first call.
    pub(crate) fn of_this_cpu() -> &'static Caches {
        static DETECTED: OnceLock<Caches> = OnceLock::new();
        DETECTED.get_or_init(detect)
    }
}

/// One cache as CPUID describes it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
struct Description {
    level: u32,
    holds_data: bool,
    bytes: usize,
    /// How many logical CPUs share it.
    shared_by: usize,
}

#[cfg(target_arch = "x86_64")]
impl Description {
    /// Reads the registers of leaf 4 (Intel) or 0x8000_001D (AMD), which have the same layout.
    /// Returns `None` after the last cache.
    fn from_registers(eax: u32, ebx: u32, ecx: u32) -> Option<Self> {
        let field = |register: u32, low: u32, bits: u32| (register >> low) & ((1 << bits) - 1);
        let kind = field(eax, 0, 5);
        let (line, partitions, ways) =
            (field(ebx, 0, 12) + 1, field(ebx, 12, 10) + 1, field(ebx, 22, 10) + 1);
        let sets = ecx as usize + 1;
        (kind != 0).then(|| Description {
            level: field(eax, 5, 3),
            holds_data: kind != 2,
            bytes: line as usize * partitions as usize * ways as usize * sets,
            shared_by: field(eax, 14, 12) as usize + 1,
        })
    }
}

/// The cache sizes that `descriptions` amount to, at least [`Caches::TYPICAL`].
#[cfg(target_arch = "x86_64")]
fn combine(descriptions: impl Iterator<Item = Description>) -> Caches {
    let mut caches = Caches::TYPICAL;
    for cache in descriptions.filter(|cache| cache.holds_data) {
        match cache.level {
            1 => caches.l1 = caches.l1.max(cache.bytes),
            // Two threads of a core may share it.
            2 => caches.l2 = caches.l2.max(cache.bytes / cache.shared_by.clamp(1, 2)),
            // Other cores use it too, but not all of them all the time. Where it is shared, count
            // on a quarter.
            3 => caches.l3 = caches.l3.max(cache.bytes / cache.shared_by.clamp(1, 4)),
            _ => {}
        }
    }
    caches
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Caches {
    const INTEL: u32 = 4;
    const AMD: u32 = 0x8000_001D;
    /// More caches than any CPU describes.
    const MOST: u32 = 16;
    let leaf_exists = |leaf: u32| cpuid(leaf & 0x8000_0000, 0).eax >= leaf;
    let caches_of = |leaf: u32| {
        (0..MOST).map_while(move |index| {
            let registers = cpuid(leaf, index);
            Description::from_registers(registers.eax, registers.ebx, registers.ecx)
        })
    };
    let leaf = if leaf_exists(INTEL) && caches_of(INTEL).next().is_some() { INTEL } else { AMD };
    if leaf_exists(leaf) { combine(caches_of(leaf)) } else { Caches::TYPICAL }
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "the intrinsic became safe after the oldest Rust that this crate supports")]
fn cpuid(leaf: u32, index: u32) -> core::arch::x86_64::CpuidResult {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { core::arch::x86_64::__cpuid_count(leaf, index) }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Caches {
    Caches::TYPICAL
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_as_the_manuals_say() {
        // An L1 data cache of 12 ways, 64 sets and 64-byte lines, shared by two threads; its
        // instruction cache; the end.
        let l1 = Description::from_registers(1 | 1 << 5 | 1 << 14, 63 | 11 << 22, 63).unwrap();
        assert_eq!((l1.level, l1.bytes, l1.shared_by, l1.holds_data), (1, 48 << 10, 2, true));
        assert!(!Description::from_registers(2 | 1 << 5, 63 | 7 << 22, 63).unwrap().holds_data);
        assert!(Description::from_registers(0, 0, 0).is_none());
    }

    #[test]
    fn a_shared_cache_counts_in_part_and_never_below_the_floor() {
        let cache = |level, bytes, shared_by| Description { level, holds_data: true, bytes, shared_by };
        let caches =
            combine([cache(1, 48 << 10, 1), cache(2, 2 << 20, 2), cache(3, 32 << 20, 16)].into_iter());
        assert_eq!(caches, Caches { l1: 48 << 10, l2: 1 << 20, l3: 8 << 20 });
        assert_eq!(combine([cache(1, 1, 1), cache(2, 1, 1), cache(3, 1, 64)].into_iter()), Caches::TYPICAL);
    }

    #[test]
    fn this_machine_has_caches() {
        let Caches { l1, l2, l3 } = *Caches::of_this_cpu();
        assert!(l1 < l2 && l2 < l3, "{l1} {l2} {l3}");
    }
}
