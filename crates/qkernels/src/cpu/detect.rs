//! The instruction sets that this CPU can execute, detected once.

use core::fmt;
use std::sync::OnceLock;

/// An instruction-set extension that a kernel may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// 256-bit integer vectors.
    Avx2,
    /// Fused multiplication and addition of floats.
    Fma,
    /// `vpdpbusd` on 256-bit vectors, for CPUs without AVX-512.
    AvxVnni,
    /// 512-bit vectors.
    Avx512F,
    /// 512-bit vectors of bytes and 16-bit words.
    Avx512Bw,
    /// 512-bit conversions and logic on doublewords and quadwords.
    Avx512Dq,
    /// The AVX-512 instructions on 128- and 256-bit vectors.
    Avx512Vl,
    /// `vpdpbusd`: four u8 x i8 products summed into each int32 lane.
    Avx512Vnni,
    /// 128-bit vectors of aarch64. Every aarch64 CPU that runs an operating system has them.
    Neon,
    /// `sdot`: four i8 x i8 products summed into each int32 lane.
    Dotprod,
    /// `smmla`: two rows of eight i8 times two columns of eight.
    I8mm,
}

impl Feature {
    /// Every feature that a kernel of this crate asks about.
    pub const ALL: &[Feature] = &[
        Feature::Avx2,
        Feature::Fma,
        Feature::AvxVnni,
        Feature::Avx512F,
        Feature::Avx512Bw,
        Feature::Avx512Dq,
        Feature::Avx512Vl,
        Feature::Avx512Vnni,
        Feature::Neon,
        Feature::Dotprod,
        Feature::I8mm,
    ];

    /// The name as in Rust's `target_feature`.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Avx2 => "avx2",
            Feature::Fma => "fma",
            Feature::AvxVnni => "avxvnni",
            Feature::Avx512F => "avx512f",
            Feature::Avx512Bw => "avx512bw",
            Feature::Avx512Dq => "avx512dq",
            Feature::Avx512Vl => "avx512vl",
            Feature::Avx512Vnni => "avx512vnni",
            Feature::Neon => "neon",
            Feature::Dotprod => "dotprod",
            Feature::I8mm => "i8mm",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`Feature`]s: a CPU's, real or imagined.
///
/// ```
/// use qkernels::{Feature, Features};
/// let old = Features::from_iter([Feature::Avx2]);
/// assert!(old.has(Feature::Avx2) && !old.has(Feature::Avx512F));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// No extension beyond the target's baseline.
    pub const NONE: Features = Features(0);

    /// The features of the CPU that runs this, detected at the first call.
    pub fn of_this_cpu() -> Features {
        static DETECTED: OnceLock<Features> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// Whether `feature` is in the set.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    /// The first of `needed` that the set lacks.
    pub fn first_missing(self, needed: &[Feature]) -> Option<Feature> {
        needed.iter().copied().find(|&feature| !self.has(feature))
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Features(features.into_iter().fold(0, |set, feature| set | 1 << feature as u32))
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Features {
    // Both detectors also ask the operating system (XCR0) whether it saves the registers.
    // `cpufeatures` does not know VNNI.
    cpufeatures::new!(avx2, "avx2");
    cpufeatures::new!(fma, "fma");
    cpufeatures::new!(avx512f, "avx512f");
    cpufeatures::new!(avx512bw, "avx512bw");
    cpufeatures::new!(avx512dq, "avx512dq");
    cpufeatures::new!(avx512vl, "avx512vl");
    Feature::ALL
        .iter()
        .copied()
        .filter(|feature| match feature {
            Feature::Avx2 => avx2::get(),
            Feature::Fma => fma::get(),
            Feature::Avx512F => avx512f::get(),
            Feature::Avx512Bw => avx512bw::get(),
            Feature::Avx512Dq => avx512dq::get(),
            Feature::Avx512Vl => avx512vl::get(),
            Feature::AvxVnni => std::arch::is_x86_feature_detected!("avxvnni"),
            Feature::Avx512Vnni => std::arch::is_x86_feature_detected!("avx512vnni"),
            Feature::Neon | Feature::Dotprod | Feature::I8mm => false,
        })
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Features {
    Feature::ALL
        .iter()
        .copied()
        .filter(|feature| match feature {
            Feature::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Feature::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            Feature::I8mm => std::arch::is_aarch64_feature_detected!("i8mm"),
            _ => false,
        })
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Features {
    Features::NONE
}
