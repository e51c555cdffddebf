//! Follows `docs/adding-a-kernel.md` step by step on a copy of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const GUIDE: &str = include_str!("../../docs/adding-a-kernel.md");

/// A code block of the guide: a whole file, or lines of one to exchange.
#[derive(Debug)]
enum Step {
    File(String),
    Exchange { old: String, new: String },
}

/// The blocks that name a file, in order.
fn steps() -> Vec<(&'static str, Step)> {
    let mut steps = Vec::new();
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        let Some((language, file)) = line.strip_prefix("```").and_then(|fence| fence.split_once(",file="))
        else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let side = |sign: char| -> String {
            block.iter().filter_map(|line| line.strip_prefix(sign)).map(|line| format!("{line}\n")).collect()
        };
        let step = match language {
            "diff" => Step::Exchange { old: side('-'), new: side('+') },
            _ => Step::File(block.iter().map(|line| format!("{line}\n")).collect()),
        };
        steps.push((file, step));
    }
    steps
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).expect("a copy");
    }
}

/// Makes `folder` a workspace of qcore and qkernels that includes the toy kernel.
fn add_the_kernel(folder: &Path) {
    for part in ["crates/qcore", "crates/qkernels", "Cargo.lock"] {
        let to = folder.join(part);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
        copy(&root().join(part), &to);
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let members = |line: &&str| line.starts_with("members") || line.starts_with("default-members");
    let manifest = manifest.lines().fold(String::new(), |manifest, line| match line.split_once(" = ") {
        Some((key, _)) if members(&line) => manifest + key + " = [\"crates/qcore\", \"crates/qkernels\"]\n",
        _ => manifest + line + "\n",
    });
    fs::write(folder.join("Cargo.toml"), manifest).expect("a manifest");

    for (file, step) in steps() {
        let path = folder.join(file);
        match step {
            Step::File(text) => fs::write(path, text).expect("a file"),
            Step::Exchange { old, new } => {
                let text = fs::read_to_string(&path).expect("a file");
                assert_eq!(text.matches(&old).count(), 1, "{file} has these lines once:\n{old}");
                fs::write(path, text.replace(&old, &new)).expect("a file");
            }
        }
    }
}

#[test]
fn the_steps_can_be_followed() {
    let files: Vec<&str> = steps().iter().map(|(file, _)| *file).collect();
    let kernels = "crates/qkernels/src/kernels";
    assert_eq!(files, ["toy.rs", "mod.rs", "mod.rs"].map(|file| format!("{kernels}/{file}")));
    let folder = TempDir::new().expect("a folder");
    add_the_kernel(folder.path());
    let table = fs::read_to_string(folder.path().join(kernels).join("mod.rs")).expect("the table");
    assert!(table.contains("mod toy;\n") && table.contains("&toy::KERNEL, &portable::KERNEL"), "{table}");
}

/// Has cargo do this in a workspace with the kernel, and returns what it prints.
fn cargo(name: &str, arguments: &[&str]) -> String {
    // The folder is always the same, and inside the target folder of this build, so that
    // dependencies are already compiled.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the last run's folder goes");
    }
    add_the_kernel(&folder);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(&folder)
        .args(arguments)
        .env("CARGO_TARGET_DIR", target.parent().expect("a target folder"))
        // The sources are copied anew each time. There is nothing to build on incrementally, and an
        // interrupted run leaves nothing behind.
        .env("CARGO_INCREMENTAL", "0")
        .env("QKERNELS_ISA", "toy")
        .output()
        .expect("cargo starts");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_kernel_fits_the_crate_and_its_tests() {
    cargo("adding-a-kernel-check", &["check", "--offline", "--package", "qkernels", "--tests"]);
}

#[test]
#[ignore = "compiles qkernels and all its tests for minutes; .ci/long runs it"]
fn the_kernel_passes_the_conformance_tests() {
    let modules = ["differential::", "extremes::", "forced::", "stages::"];
    let test = ["test", "--offline", "--package", "qkernels", "--test", "all", "--", "--nocapture"];
    let text = cargo("adding-a-kernel", &[&test[..], &modules].concat());
    assert!(text.contains("runs: toy_2x3 ("), "{text}");
    for module in modules {
        assert!(text.contains(&format!("test {module}")), "no test of {module} ran: {text}");
    }
}
