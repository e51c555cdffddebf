//! `cargo xtask tidy`: rules of the repository that no compiler checks.

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// The files that may contain `unsafe`. Everything else is safe Rust.
const UNSAFE_FILES: &[&str] = &[
    "benches/benches/roofline/tract.rs",
    "crates/qkernels/src/cpu/caches.rs",
    "crates/qkernels/src/product/float.rs",
    "crates/qkernels/src/kernel/token.rs",
    "crates/qkernels/src/kernels/aarch64/simd.rs",
    "crates/qkernels/src/kernels/x86_64/simd.rs",
    "crates/qkernels/src/kernels/x86_64/tile.rs",
    "crates/qkernels/src/cpu/vectorize.rs",
    "crates/qkernels/src/matrix/view.rs",
    "crates/qnn/examples/shared.rs",
];

/// Crate roots that forbid `unsafe` altogether.
const FORBIDDING_ROOTS: &[&str] = &[
    "benches/src/lib.rs",
    "crates/qcore/src/lib.rs",
    "crates/qnn/src/lib.rs",
    "xtask/src/main.rs",
    "xtask/render/src/main.rs",
];

/// Lines of a file before its tests.
const MOST_LINES: usize = 500;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];

pub(crate) fn run() -> Result<()> {
    let root = cargo::root();
    let mut files = Vec::new();
    for folder in ["crates", "benches", "xtask", "docs", "fuzz/src", "fuzz/fuzz_targets"] {
        walk(&root.join(folder), &mut files)?;
    }
    files.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    files.sort();

    let mut findings = Vec::new();
    for path in &files {
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => check_source(&name, &read(path)?, &mut findings),
            Some("md") => check_links(&name, path, &read(path)?, &mut findings),
            _ => {}
        }
    }
    for name in FORBIDDING_ROOTS {
        if !read(&root.join(name))?.contains("#![forbid(unsafe_code)]") {
            findings.push(format!("{name}: does not forbid unsafe code"));
        }
    }
    check_kernel_files(root, &mut findings);
    check_architecture(root, &mut findings)?;
    check_readme_commands(root, &mut findings)?;

    if findings.is_empty() {
        writeln!(stdout(), "tidy: {} files, nothing found", files.len())?;
        return Ok(());
    }
    bail!("{} finding(s)\n{}", findings.len(), findings.join("\n"));
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The text files below `folder`.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_source(name: &str, text: &str, findings: &mut Vec<String>) {
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
    let path = Path::new(name);
    let names = path.iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    for part in names {
        if EMPTY_NAMES.contains(&part) {
            findings.push(format!("{name}: `{part}` says nothing about what is inside"));
        }
    }
}

/// Whether the line has the keyword in code.
fn contains_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") && !code.contains('"')
}

/// Relative links of a document lead somewhere.
fn check_links(name: &str, path: &Path, text: &str, findings: &mut Vec<String>) {
    for (line, target) in
        text.lines().enumerate().flat_map(|(i, line)| links(line).map(move |link| (i + 1, link)))
    {
        let file = target.split('#').next().unwrap_or_default();
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        if !elsewhere && !file.is_empty() && !path.with_file_name(file).exists() {
            findings.push(format!("{name}:{line}: link to {target}, which does not exist"));
        }
    }
}

/// The targets of the line's Markdown links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// A kernel's family is the name of its file.
fn check_kernel_files(root: &Path, findings: &mut Vec<String>) {
    let folder = root.join("crates/qkernels/src/kernels");
    for desc in qkernels::kernels::all() {
        let file = format!("{}.rs", desc.family);
        if ![".", "x86_64", "aarch64"].iter().any(|arch| folder.join(arch).join(&file).exists()) {
            findings.push(format!("kernel {}: there is no {file} below {}", desc.name, folder.display()));
        }
    }
}

/// The map of the sources names every file of qkernels, and every file that may have `unsafe`.
fn check_architecture(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    const MAP: &str = "docs/architecture.md";
    let text = read(&root.join(MAP))?;
    let section = |title: &str| {
        let rest = text.split_once(title).map_or("", |(_, rest)| rest);
        rest.split("\n## ").next().unwrap_or_default()
    };
    let (products, unsafe_files) = (section("## A product, "), section("## Where unsafe is"));
    let mut missing = |part: &str, file: &str, section: &str| {
        if !section.contains(&format!("{file}`")) {
            findings.push(format!("{MAP}: {part} lacks {file}"));
        }
    };
    for entry in fs::read_dir(root.join("crates/qkernels/src"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rs") && name != "lib.rs" {
            missing("the table of files", &name, products);
        }
    }
    for file in UNSAFE_FILES {
        missing("the list of unsafe files", file.rsplit('/').next().unwrap_or(file), unsafe_files);
    }
    Ok(())
}

/// What the README tells a reader to run is what CI runs.
fn check_readme_commands(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let ci = read(&root.join(".ci/run"))?;
    for line in read(&root.join("README.md"))?.lines() {
        if line.starts_with("cargo ") && !ci.contains(line) {
            findings.push(format!("README.md: `{line}` is not in .ci/run"));
        }
    }
    Ok(())
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
    fn links_are_found() {
        assert_eq!(links("see [a](b.md) and [c](d.md#e)").collect::<Vec<_>>(), ["b.md", "d.md#e"]);
    }

    #[test]
    fn findings_name_the_file() {
        let mut findings = Vec::new();
        check_source("crates/qnn/src/utils.rs", "fn f() { unsafe { g() } }", &mut findings);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.starts_with("crates/qnn/src/utils.rs")));
    }
}
