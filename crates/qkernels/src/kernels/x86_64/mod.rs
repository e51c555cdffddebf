//! The x86-64 kernels, best first.

use super::{store, strip};
use crate::kernel::desc::KernelDesc;

mod avx2;
mod avx2_madd;
mod avx512_vnni;
mod avx_vnni;
mod float256;
mod float512;
mod nibbles256;
mod scaled;
mod simd;
mod tile;
mod vec256;
mod vec512;

pub(super) const KERNELS: &[&KernelDesc] = &[
    &avx512_vnni::KERNEL,
    &avx_vnni::KERNEL,
    &avx2::KERNEL,
    &avx2_madd::KERNEL,
    &avx2::avx2_all_ordered::KERNEL,
];
