//! The table of kernels: one row each, best first.
//!
//! Selection, the environment override, the conformance tests, the benches and the listing all read [`all`]; a new
//! kernel is a new file and a new row (docs/adding-a-kernel.md).

use crate::kernel::KernelDesc;

pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
const NATIVE: &[&KernelDesc] = x86_64::KERNELS;
#[cfg(not(target_arch = "x86_64"))]
const NATIVE: &[&KernelDesc] = &[];

/// Every kernel of this architecture, in order of preference, whether this CPU can run it or not.
pub fn all() -> impl Iterator<Item = &'static KernelDesc> {
    NATIVE.iter().copied().chain([&portable::KERNEL])
}
