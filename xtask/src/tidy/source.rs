//! Rules for each source by itself: where `unsafe` may be, its length, its name.

use std::path::Path;

use super::Files;

/// The files that may contain `unsafe`. Everything else is safe Rust.
pub(super) const UNSAFE_FILES: &[&str] = &[
    "benches/benches/roofline/tract.rs",
    "crates/qkernels/src/cpu/caches.rs",
    "crates/qkernels/src/product/float.rs",
    "crates/qkernels/src/kernel/desc.rs",
    "crates/qkernels/src/kernel/token.rs",
    "crates/qkernels/src/kernels/aarch64/simd.rs",
    "crates/qkernels/src/kernels/x86_64/simd.rs",
    "crates/qkernels/src/kernels/x86_64/tile.rs",
    "crates/qkernels/src/cpu/stream.rs",
    "crates/qkernels/src/cpu/vectorize.rs",
    "crates/qkernels/src/matrix/view.rs",
    "crates/qkernels/src/weights/pack/transpose.rs",
    "crates/qnn/examples/shared.rs",
];

/// Crate roots that forbid `unsafe` altogether.
const FORBIDDING_ROOTS: &[&str] = &[
    "benches/src/lib.rs",
    "crates/qcore/src/lib.rs",
    "crates/qnn/src/lib.rs",
    "xtask/src/main.rs",
    "xtask/render/src/main.rs",
    "xtask/tokens/src/main.rs",
];

/// Where loops must not call functions.
const KERNEL_FOLDERS: &[&str] =
    &["crates/qkernels/src/kernels/aarch64/", "crates/qkernels/src/kernels/x86_64/"];

/// Iterators of the standard library with steps that are not marked for inlining. Where a program
/// is compiled in several units and without link-time optimization, as with `lto = "off"` or
/// incrementally, each step is a call. A kernel's sums then go through memory: 45 instead of 130
/// Gop/s with AVX2.
const NOT_INLINED: &[&str] = &[".chunks_exact(", ".chunks("];

/// The most lines a file may have before its tests.
const MOST_LINES: usize = 500;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];

pub(super) fn check(name: &str, text: &str, findings: &mut Vec<String>) {
    let has_unsafe = text.lines().any(contains_unsafe);
    let in_tests = name.contains("/tests/");
    if has_unsafe && !in_tests && !UNSAFE_FILES.contains(&name) {
        findings.push(format!("{name}: unsafe outside of the files that may have it"));
    }
    if !has_unsafe && UNSAFE_FILES.contains(&name) {
        findings.push(format!("{name}: listed for unsafe, but has none"));
    }
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    if lines > MOST_LINES {
        findings.push(format!("{name}: {lines} lines before its tests, more than {MOST_LINES}"));
    }
    if KERNEL_FOLDERS.iter().any(|folder| name.starts_with(folder)) {
        for called in NOT_INLINED.iter().filter(|called| text.contains(**called)) {
            findings.push(format!("{name}: `{called}` is a call, before which all registers are saved"));
        }
    }
    let path = Path::new(name);
    let names = path.iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    for part in names {
        if EMPTY_NAMES.contains(&part) {
            findings.push(format!("{name}: `{part}` says nothing about what is inside"));
        }
    }
}

/// Crate roots forbid unsafe code, and the files listed for it exist.
pub(super) fn check_roots(files: &Files, findings: &mut Vec<String>) {
    for name in FORBIDDING_ROOTS {
        if !files.get(*name).is_some_and(|text| text.contains("#![forbid(unsafe_code)]")) {
            findings.push(format!("{name}: does not forbid unsafe code"));
        }
    }
    for name in UNSAFE_FILES {
        if !files.contains_key(*name) {
            findings.push(format!("{name}: listed for unsafe, but not there"));
        }
    }
}

/// Whether the line has the keyword in code.
fn contains_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") && !code.contains('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyword_is_found_in_code_only() {
        assert!(contains_unsafe("    let x = unsafe { f() };"));
        assert!(contains_unsafe("pub unsafe fn f()"));
        assert!(!contains_unsafe("// unsafe is not used here"));
        assert!(!contains_unsafe("#![forbid(unsafe_code)]"));
    }

    #[test]
    fn kernels_may_not_call_an_iterator() {
        let mut findings = Vec::new();
        let text = "for b in b.chunks_exact(width) {}";
        check("crates/qkernels/src/kernels/x86_64/tile.rs", text, &mut findings);
        check("crates/qkernels/src/kernels/store.rs", text, &mut findings);
        findings.retain(|finding| finding.contains("is a call"));
        assert_eq!(findings.len(), 1, "{findings:?}");
    }

    #[test]
    fn findings_name_the_file() {
        let mut findings = Vec::new();
        check("crates/qnn/src/utils.rs", "fn f() { unsafe { g() } }", &mut findings);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.starts_with("crates/qnn/src/utils.rs")));
    }
}
