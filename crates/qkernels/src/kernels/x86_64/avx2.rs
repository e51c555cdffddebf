//! AVX2, on each panel as fast as its weights allow: `vpmaddubsw` where packing proves that it
//! cannot saturate, as the weights lie or in an order of k that packing finds, and `vpmaddwd`
//! elsewhere. The bodies have files of their own. With `avx2_madd` the latter runs on all panels.
//! With `avx2_all_ordered` all panels have an order, which is for tests and comparisons.

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

pub(super) const ALL_ORDERED: KernelDesc = KernelDesc {
    name: "avx2_all_ordered_6x16",
    family: "avx2_all_ordered",
    ordered: Some(&ordered::KERNEL),
    ..avx2_madd::KERNEL
};
