//! The table of kernels: one row each, best first.
//!
//! Selection, the environment override, the conformance tests, the benches and the listing all read [`all`]; a new
//! kernel is a new file and a new row (docs/adding-a-kernel.md).

use crate::kernel::KernelDesc;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod lanes;
pub(crate) mod portable;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod store;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod strip;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use aarch64::KERNELS as NATIVE;
#[cfg(target_arch = "x86_64")]
use x86_64::KERNELS as NATIVE;
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
const NATIVE: &[&KernelDesc] = &[];

/// Every kernel of this architecture, in order of preference, whether this CPU can run it or not.
pub fn all() -> impl Iterator<Item = &'static KernelDesc> {
    NATIVE.iter().copied().chain([&portable::KERNEL])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof;

    #[test]
    fn every_row_is_within_the_limits_of_the_code_around_kernels() {
        for desc in all() {
            // Weight-only products read groups of so many k, and no others (`float_tile.rs`).
            assert!([1, 2, 4, 8, 16].contains(&desc.kr), "{}: kr = {}", desc.name, desc.kr);
            // Wider panels are never proven, which would be slow in silence (`proof.rs`).
            assert!(
                desc.proven.is_empty() || desc.nr <= proof::MOST_COLUMNS,
                "{}: nr = {}",
                desc.name,
                desc.nr
            );
        }
    }
}
