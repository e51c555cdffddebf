//! Which kernel runs and why: the best row of the table that the CPU supports, or the one that the
//! environment names.

use core::fmt;
use std::env;

use crate::cpu::detect::{Feature, Features};
use crate::kernel::desc::{KernelDesc, PanelKind};
use crate::kernel::token::{Kernel, KernelError};
use crate::kernels;

/// The environment variable that forces a kernel, by family (`avx2`) or full name (`avx2_6x16`).
/// Empty counts as unset.
///
/// A kernel brings along the faster forms of itself that run panels of proven weights. A variant
/// without them is a row of its own: `avx2_madd` is `avx2` that treats all panels alike.
pub const ISA_VARIABLE: &str = "QKERNELS_ISA";

/// Why no kernel could be selected. A forced kernel that cannot run is an error, never a reason to
/// take another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// No kernel of this architecture has the name.
    #[error("unknown kernel {name:?} in {ISA_VARIABLE}; this architecture has {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The families that exist, separated by commas.
        known: String,
    },
    /// The kernel exists, but not for this CPU.
    #[error("kernel {name:?} in {ISA_VARIABLE} needs {missing}, which this CPU lacks")]
    Unsupported {
        /// The name asked for.
        name: String,
        /// The first feature that the CPU lacks.
        missing: Feature,
    },
    /// The kernel runs some panels of weights that are packed for another one.
    #[error("{ISA_VARIABLE}: {0}")]
    SomePanelsOnly(KernelError),
}

/// Why a kernel was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is the first row of the table whose features the CPU has.
    Best,
    /// The environment variable names it.
    Forced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Best => f.write_str("the best that this CPU has"),
            Reason::Forced => write!(f, "forced by {ISA_VARIABLE}"),
        }
    }
}

/// The row of the table that a CPU with `features` runs, given the value of the override. The
/// function is pure, so it can be asked about any CPU on any machine.
///
/// ```
/// use qkernels::{Features, Reason, choose};
/// let (kernel, reason) = choose(Features::NONE, None)?;
/// assert_eq!((kernel.family, reason), ("portable", Reason::Best));
/// # Ok::<(), qkernels::SelectError>(())
/// ```
///
/// # Errors
/// [`SelectError`] if `forced` names no kernel, only kernels that need more than `features`, or a
/// kernel for some panels.
pub fn choose(
    features: Features,
    forced: Option<&str>,
) -> Result<(&'static KernelDesc, Reason), SelectError> {
    let name = forced.unwrap_or_default();
    let mut first_missing = None;
    for desc in kernels::all() {
        if !name.is_empty() && name != desc.family && name != desc.name {
            continue;
        }
        match features.first_missing(desc.features) {
            None => return Ok((desc, if name.is_empty() { Reason::Best } else { Reason::Forced })),
            Some(missing) => first_missing = first_missing.or(Some(missing)),
        }
    }
    if let Some(missing) = first_missing {
        return Err(SelectError::Unsupported { name: name.to_owned(), missing });
    }
    let mut forms = kernels::all().flat_map(KernelDesc::panel_forms);
    let error = forms.find(|form| [form.name, form.family].contains(&name)).map(check_any_weights);
    Err(match error {
        Some(Err(error)) => SelectError::SomePanelsOnly(error),
        _ => SelectError::Unknown { name: name.to_owned(), known: families() },
    })
}

fn families() -> String {
    let mut families: Vec<_> = kernels::all().map(|desc| desc.family).collect();
    families.dedup();
    families.join(", ")
}

/// The choice of [`Kernel::select`] on this machine, with the reason and every row that it looked
/// at.
///
/// Its `Display` is the listing: one line for each kernel, then the choice.
#[derive(Clone, Debug)]
pub struct Report {
    /// The kernel that runs.
    pub kernel: Kernel,
    /// Why it runs.
    pub reason: Reason,
    /// Every kernel of this architecture in order of preference, with the first feature that this
    /// CPU lacks for it.
    pub rows: Vec<(&'static KernelDesc, Option<Feature>)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(desc, _)| desc.name.len()).max().unwrap_or(0);
        for (desc, missing) in &self.rows {
            write!(f, "{:width$}  {:2} x {:2} tile, {} k a step  ", desc.name, desc.mr, desc.nr, desc.kr)?;
            match missing {
                None => writeln!(f, "yes")?,
                Some(feature) => writeln!(f, "no: this CPU lacks {feature}")?,
            }
            if !desc.proven.is_empty() {
                let names: Vec<_> = desc.proven.iter().map(|proven| proven.name).collect();
                writeln!(f, "{:width$}  for panels of proven weights: {}", "", names.join(", "))?;
            }
            if let Some(ordered) = desc.ordered {
                let which = if desc.proven.is_empty() { "all panels" } else { "most other panels" };
                writeln!(f, "{:width$}  for {which}, in an order of k: {}", "", ordered.name)?;
            }
        }
        write!(f, "runs: {} ({})", self.kernel, self.reason)
    }
}

impl Kernel {
    /// The token for `desc`, a row of the [table](crate::kernels::all).
    ///
    /// ```
    /// use qkernels::{Kernel, KernelError, kernels};
    /// for desc in kernels::all() {
    ///     match Kernel::new(desc) {
    ///         Ok(kernel) => println!("{kernel}"),
    ///         Err(error) => println!("{error}"), // kernel avx_vnni_6x16 needs avxvnni, which this CPU lacks
    ///     }
    ///     for proven in desc.proven {
    ///         assert!(matches!(Kernel::new(proven), Err(KernelError::ProvenPanelsOnly { .. })));
    ///     }
    ///     if let Some(ordered) = desc.ordered {
    ///         assert!(matches!(Kernel::new(ordered), Err(KernelError::OrderedPanelsOnly { .. })));
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`KernelError`] that names the missing feature, or says that `desc` is one of the
    /// [`proven`](KernelDesc::proven) or [`ordered`](KernelDesc::ordered) kernels of another row.
    pub fn new(desc: &'static KernelDesc) -> Result<Self, KernelError> {
        check_any_weights(desc)?;
        Kernel::supported(desc).map_err(|missing| KernelError::Unsupported { name: desc.name, missing })
    }

    /// Every kernel that this CPU can run, in order of preference.
    pub fn available() -> impl Iterator<Item = Kernel> {
        kernels::all().filter_map(|desc| Kernel::new(desc).ok())
    }

    /// An error unless the kernel's sums are exact for any weights. Only then may weights be packed
    /// for it.
    pub(crate) fn check_any_weights(self) -> Result<(), KernelError> {
        check_any_weights(self.desc())
    }

    /// The kernel to use on this machine: the best that the CPU has, or the one that `QKERNELS_ISA`
    /// names.
    ///
    /// # Errors
    /// [`SelectError`] if the variable names an unknown or unsupported kernel.
    pub fn select() -> Result<Kernel, SelectError> {
        Ok(selection()?.0)
    }
}

fn check_any_weights(desc: &KernelDesc) -> Result<(), KernelError> {
    let base = kernels::all().find(|base| base.panel_forms().any(|form| form == desc));
    let (name, base) = (desc.name, base.map_or("no kernel", |base| base.name));
    match desc.kind {
        PanelKind::Any => Ok(()),
        PanelKind::Proven => Err(KernelError::ProvenPanelsOnly { name, base }),
        PanelKind::Ordered => Err(KernelError::OrderedPanelsOnly { name, base }),
    }
}

fn selection() -> Result<(Kernel, Reason), SelectError> {
    let forced = env::var_os(ISA_VARIABLE);
    let forced = forced.as_ref().map(|name| name.to_string_lossy());
    let (desc, reason) = choose(Features::of_this_cpu(), forced.as_deref())?;
    let kernel = Kernel::supported(desc)
        .map_err(|missing| SelectError::Unsupported { name: desc.name.to_owned(), missing })?;
    Ok((kernel, reason))
}

/// Which kernel runs on this machine, and why.
///
/// # Errors
/// [`SelectError`] as for [`Kernel::select`].
pub fn report() -> Result<Report, SelectError> {
    let (kernel, reason) = selection()?;
    let cpu = Features::of_this_cpu();
    let rows = kernels::all().map(|desc| (desc, cpu.first_missing(desc.features))).collect();
    Ok(Report { kernel, reason, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_can_be_forced_by_its_name_where_its_features_are() {
        for desc in kernels::all() {
            let features = desc.features.iter().copied().collect();
            assert_eq!(choose(features, Some(desc.name)).unwrap(), (desc, Reason::Forced));
            assert_eq!(choose(features, Some(desc.family)).unwrap().0.family, desc.family);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_families() {
        let error = choose(Features::NONE, Some("sse9")).unwrap_err();
        assert!(error.to_string().contains("\"sse9\"") && error.to_string().contains("portable"), "{error}");
    }

    #[test]
    fn an_empty_name_counts_as_unset() {
        assert_eq!(choose(Features::NONE, Some("")), choose(Features::NONE, None));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_x86_cpu_gets_its_best_kernel() {
        let skylake = [
            Feature::Avx2,
            Feature::Fma,
            Feature::Avx512F,
            Feature::Avx512Bw,
            Feature::Avx512Dq,
            Feature::Avx512Vl,
        ];
        let family =
            |features: &[Feature]| choose(features.iter().copied().collect(), None).unwrap().0.family;
        assert_eq!(family(&[]), "portable");
        assert_eq!(family(&[Feature::Avx2]), "portable");
        assert_eq!(family(&[Feature::Avx2, Feature::Fma]), "avx2");
        assert_eq!(family(&skylake), "avx2");
        assert_eq!(family(&[Feature::Avx2, Feature::Fma, Feature::AvxVnni]), "avx_vnni");
        assert_eq!(family(Feature::ALL), "avx512_vnni");
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn each_arm_cpu_gets_its_best_kernel() {
        let family =
            |features: &[Feature]| choose(features.iter().copied().collect(), None).unwrap().0.family;
        assert_eq!(family(&[]), "portable");
        assert_eq!(family(&[Feature::Neon]), "neon");
        assert_eq!(family(&[Feature::Neon, Feature::Dotprod]), "neon_dotprod");
        assert_eq!(family(&[Feature::Neon, Feature::I8mm]), "neon_i8mm");
        assert_eq!(family(Feature::ALL), "neon_i8mm");
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn a_forced_kernel_that_the_cpu_lacks_is_an_error_that_names_the_feature() {
        for (name, missing) in [("neon_dotprod", Feature::Dotprod), ("neon_i8mm_8x12", Feature::I8mm)] {
            assert_eq!(
                choose(Features::from_iter([Feature::Neon]), Some(name)),
                Err(SelectError::Unsupported { name: name.to_owned(), missing })
            );
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_forced_kernel_that_the_cpu_lacks_is_an_error_that_names_the_feature() {
        assert_eq!(
            choose(Features::from_iter([Feature::Avx2, Feature::Fma]), Some("avx512_vnni")),
            Err(SelectError::Unsupported { name: "avx512_vnni".to_owned(), missing: Feature::Avx512F })
        );
    }
}
