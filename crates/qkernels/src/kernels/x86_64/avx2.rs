//! AVX2, on each panel as fast as its weights allow: `vpmaddubsw` where packing proves that it
//! cannot saturate, `vpmaddwd` elsewhere. Both bodies have files of their own. With `avx2_madd` the
//! latter runs on all panels.

use super::{avx2_madd, avx2_maddubs};
use crate::kernel::desc::KernelDesc;

pub(super) const KERNEL: KernelDesc =
    KernelDesc { name: "avx2_6x16", family: "avx2", proven: avx2_maddubs::KERNELS, ..avx2_madd::KERNEL };
