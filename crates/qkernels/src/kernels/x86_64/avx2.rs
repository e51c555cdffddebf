//! AVX2, on each panel as fast as its weights allow: `vpmaddubsw` where packing proves that it
//! cannot saturate, as the weights lie or in an order of k that packing finds, and `vpmaddwd`
//! elsewhere. The bodies have files of their own. With `avx2_madd` the latter runs on all panels.

pub(super) mod avx2_all_ordered;
mod maddubs;
mod ordered;

use super::avx2_madd;
use crate::kernel::desc::KernelDesc;

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx2_6x16",
    family: "avx2",
    proven: maddubs::KERNELS,
    ordered: Some(&ordered::KERNEL),
    ..avx2_madd::KERNEL
};
