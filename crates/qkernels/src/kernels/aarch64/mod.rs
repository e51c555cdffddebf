//! The aarch64 kernels, best first.

use super::{store, strip};
use crate::kernel::KernelDesc;

mod finish128;
mod neon;
mod neon_dotprod;
mod neon_i8mm;
mod simd;
mod tile;

pub(super) const KERNELS: &[&KernelDesc] = &[&neon_i8mm::KERNEL, &neon_dotprod::KERNEL, &neon::KERNEL];
