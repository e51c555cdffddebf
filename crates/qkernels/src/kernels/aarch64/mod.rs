//! The aarch64 kernels, best first.

use super::{store, strip};
use crate::kernel::desc::KernelDesc;

mod neon;
mod neon_dotprod;
mod neon_i8mm;
mod nibbles;
mod scaled;
mod simd;
mod tile;
mod vec128;

pub(super) const KERNELS: &[&KernelDesc] = &[&neon_i8mm::KERNEL, &neon_dotprod::KERNEL, &neon::KERNEL];
