//! `cargo xtask tidy`: rules of the repository that no compiler checks.

mod architecture;
mod columns;
mod links;
mod modules;
mod rooms;
mod source;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cargo;

/// The folders and files whose text is checked.
const FOLDERS: &[&str] = &["crates", "benches", "xtask", "docs", "fuzz/src", "fuzz/fuzz_targets"];
const FILES: &[&str] = &["README.md", "CHANGELOG.md", "CONTRIBUTING.md"];

/// The crates whose modules are organised in rooms.
const CRATES: &[&str] = &["crates/qcore", "crates/qkernels", "crates/qnn"];

/// Files by name, relative to the repository and with `/` on every system, and their texts.
type Files = BTreeMap<String, String>;

pub(crate) fn run() -> Result<()> {
    let root = cargo::root();
    let mut files = Files::new();
    for folder in FOLDERS {
        read_folder(folder, &root.join(folder), &mut files)?;
    }
    for name in FILES {
        files.insert((*name).to_owned(), read(&root.join(name))?);
    }

    let mut findings = Vec::new();
    for (name, text) in &files {
        if name.ends_with(".rs") {
            source::check(name, text, &mut findings);
            columns::check(name, text, &mut findings);
        } else {
            links::check(name, &root.join(name), text, &mut findings);
        }
    }
    source::check_roots(&files, &mut findings);
    for folder in CRATES {
        rooms::check(folder, &files, &mut findings);
    }
    architecture::check(CRATES, &files, &mut findings);
    check_kernel_files(&files, &mut findings);
    check_readme_commands(root, &files, &mut findings)?;

    if findings.is_empty() {
        writeln!(stdout(), "tidy: {} files, nothing found", files.len())?;
        return Ok(());
    }
    bail!("{} finding(s)\n{}", findings.len(), findings.join("\n"));
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Reads the sources and documents below `folder`, whose name in the repository is `name`.
fn read_folder(name: &str, folder: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let Some(file) = path.file_name().and_then(|file| file.to_str()) else { continue };
        let name = format!("{name}/{file}");
        if path.is_dir() {
            read_folder(&name, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            let text = read(&path)?;
            files.insert(name, text);
        }
    }
    Ok(())
}

/// The family of every kernel is the name of its file.
fn check_kernel_files(files: &Files, findings: &mut Vec<String>) {
    const KERNELS: &str = "crates/qkernels/src/kernels/";
    for desc in qkernels::kernels::all() {
        let file = format!("{}.rs", desc.family);
        let found = files.keys().filter_map(|name| name.strip_prefix(KERNELS));
        if !found.into_iter().any(|name| name.rsplit('/').next() == Some(&file)) {
            findings.push(format!("kernel {}: there is no {file} below {KERNELS}", desc.name));
        }
    }
}

/// The commands in the README are commands that CI runs.
fn check_readme_commands(root: &Path, files: &Files, findings: &mut Vec<String>) -> Result<()> {
    let ci = read(&root.join(".ci/run"))?;
    for line in files.get("README.md").map_or("", String::as_str).lines() {
        if line.starts_with("cargo ") && !ci.contains(line) {
            findings.push(format!("README.md: `{line}` is not in .ci/run"));
        }
    }
    Ok(())
}
