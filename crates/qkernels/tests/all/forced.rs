//! `QKERNELS_ISA` is obeyed or refused, never ignored. If it is set for these tests, they fail
//! where that kernel cannot run.

use std::env;

use qkernels::{
    Feature, ISA_VARIABLE, Int32, Kernel, KernelError, MatMut, MatRef, PackedWeights, Reason, Threads,
    Workspace, gemm, kernels, report,
};

use crate::oracle::this_program;

/// If the variable asks for a kernel that this CPU cannot run, the test fails. A job that asked for
/// that kernel would otherwise pass without it.
#[test]
fn the_kernel_that_the_environment_names_is_selected() {
    let forced = env::var(ISA_VARIABLE).unwrap_or_default();
    let kernel = Kernel::select().unwrap_or_else(|error| panic!("{error}"));
    let report = report().unwrap();
    println!("{report}");
    assert_eq!(report.kernel, kernel);
    if forced.is_empty() {
        assert_eq!(Some(kernel), Kernel::available().next());
        assert_eq!(report.reason, Reason::Best);
    } else {
        assert!(
            [kernel.desc().family, kernel.name()].contains(&forced.as_str()),
            "{ISA_VARIABLE}={forced} selected {kernel}"
        );
        assert_eq!(report.reason, Reason::Forced);
    }
}

/// A job on a CPU of a certain kind says in `QKERNELS_EXPECT` which family that CPU must run, so no
/// other family can pass its tests in its place.
#[test]
fn the_kernel_that_the_job_expects_is_selected() {
    let expected = env::var("QKERNELS_EXPECT").unwrap_or_default();
    if !expected.is_empty() {
        let kernel = Kernel::select().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(kernel.desc().family, expected);
    }
}

#[test]
fn the_report_lists_every_kernel_and_what_this_cpu_lacks() {
    let Ok(report) = report() else { return }; // the test above says why
    let listing = report.to_string();
    assert!(report.rows.iter().map(|(desc, _)| *desc).eq(kernels::all()));
    for (desc, missing) in &report.rows {
        let line = listing.lines().find(|line| line.starts_with(desc.name)).unwrap();
        let unsupported = missing.map(|missing| KernelError::Unsupported { name: desc.name, missing });
        assert_eq!(Kernel::new(desc).err(), unsupported);
        assert!(line.contains(missing.map_or("yes", Feature::name)), "{line}");
        assert!(
            desc.proven.iter().chain(&desc.ordered).all(|proven| listing.contains(proven.name)),
            "{listing}"
        );
    }
    assert!(listing.ends_with(&format!("runs: {} ({})", report.kernel, report.reason)), "{listing}");
}

/// The output of a process that has `ISA_VARIABLE` set to `name`, or not set.
fn child(name: Option<&str>) -> String {
    let mut command = this_program();
    command.args(["--exact", "forced::a_product_runs_on_what_is_selected", "--nocapture"]);
    match name {
        Some(name) => command.env(ISA_VARIABLE, name),
        None => command.env_remove(ISA_VARIABLE),
    };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The tests below run this one in processes of their own and read what it prints.
#[test]
fn a_product_runs_on_what_is_selected() {
    let kernel = match Kernel::select() {
        Ok(kernel) => kernel,
        Err(error) => return println!("refused: {error}."),
    };
    // The product runs on what was selected, and the 4 x -3 of it come out right.
    let w = PackedWeights::from_nk(MatRef::new(&[-3i8; 4], 1, 4).unwrap(), kernel).unwrap();
    let mut y = [0];
    let out = MatMut::new(&mut y, 1, 1).unwrap();
    let a = MatRef::new(&[255u8; 4], 1, 4).unwrap();
    gemm(a, &w, &Int32::new(), out, Threads::Serial, &mut Workspace::new()).unwrap();
    assert_eq!(y, [-3060]);
    println!("ran on {}, {}.", w.kernel(), report().unwrap().reason);
}

#[test]
fn an_unset_or_empty_variable_selects_the_best_kernel() {
    let best = Kernel::available().next().unwrap();
    for name in [None, Some("")] {
        let text = child(name);
        assert!(text.contains(&format!("ran on {best}, {}.", Reason::Best)), "{name:?}: {text}");
    }
}

#[test]
fn every_family_and_every_name_is_forced_or_refused_with_the_missing_feature() {
    for desc in kernels::all() {
        // A family stands for its first kernel that runs, or for its first kernel if none runs.
        let family = || kernels::all().filter(|other| other.family == desc.family);
        let first = family().find(|other| Kernel::new(other).is_ok()).unwrap_or(family().next().unwrap());
        for (name, selected) in [(desc.name, desc), (desc.family, first)] {
            let text = child(Some(name));
            let expected = match Kernel::new(selected) {
                Ok(kernel) => format!("ran on {kernel}, {}.", Reason::Forced),
                Err(KernelError::Unsupported { missing, .. }) => {
                    format!(
                        "refused: kernel {name:?} in {ISA_VARIABLE} needs {missing}, which this CPU lacks."
                    )
                }
                Err(error) => panic!("{error}"),
            };
            assert!(text.contains(&expected), "{name}: {text}");
        }
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_families_that_there_are() {
    // Names are exact. Neither a prefix nor capitals will do.
    for name in ["nonsense", "portabl", "PORTABLE", " portable", "portable,avx2"] {
        let text = child(Some(name));
        let expected = format!("refused: unknown kernel {name:?} in {ISA_VARIABLE}; this architecture has ");
        let known = text.split_once(&expected).unwrap_or_else(|| panic!("{name}: {text}")).1;
        for desc in kernels::all() {
            assert!(known.contains(desc.family), "{name}: {text}");
        }
    }
}
