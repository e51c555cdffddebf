//! AVX2 with an order of k for every panel, whatever it gains: for tests, which so meet orders with
//! all their weights, and for comparisons.

use super::super::avx2_madd;
use super::ordered;
use crate::kernel::desc::KernelDesc;

pub(crate) const KERNEL: KernelDesc = KernelDesc {
    name: "avx2_all_ordered_6x16",
    family: "avx2_all_ordered",
    ordered: Some(&ordered::KERNEL),
    ..avx2_madd::KERNEL
};
