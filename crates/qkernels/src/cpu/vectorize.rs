//! Plain element-wise loops, compiled once per vector level.
//!
//! The formulas around the products (quantize, requantize, dequantize, copy and shift) are qcore's
//! scalar functions. A [`Task`] is a loop over one of them. Its body is always inlined, so
//! [`Level::run`] makes the compiler emit that very loop with AVX2 or AVX-512 instructions. There
//! is no second, vector form of a formula that could differ from the first.

use crate::cpu::detect::Feature;

/// A loop to compile for several vector levels.
pub(crate) trait Task {
    /// What the loop returns.
    type Output;

    /// The loop. Implementations are `#[inline(always)]`: only then is it compiled for the level.
    fn run(self) -> Self::Output;
}

/// The instruction sets that tasks are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The instructions that every CPU of the target has.
    Baseline,
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The features that the level needs.
    #[cfg_attr(not(test), expect(dead_code, reason = "the table's test is its reader"))]
    pub(crate) fn features(self) -> &'static [Feature] {
        match self {
            Level::Baseline => &[],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &[Feature::Avx2],
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                &[Feature::Avx2, Feature::Avx512F, Feature::Avx512Bw, Feature::Avx512Dq, Feature::Avx512Vl]
            }
        }
    }

    /// Runs `task` with this level's instructions.
    ///
    /// # Safety
    /// 1. The CPU has all of `self.features()`.
    #[inline]
    pub(crate) unsafe fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            // This is a function of its own, like the others. Otherwise, without optimization, its
            // frame would be on the stack beside theirs.
            Level::Baseline => baseline(task),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: by precondition 1.
            Level::Avx2 => unsafe { avx2(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: by precondition 1.
            Level::Avx512 => unsafe { avx512(task) },
        }
    }
}

fn baseline<T: Task>(task: T) -> T::Output {
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<T: Task>(task: T) -> T::Output {
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
fn avx512<T: Task>(task: T) -> T::Output {
    task.run()
}
