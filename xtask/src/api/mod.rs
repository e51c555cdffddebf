//! `cargo xtask api`: writes the public API of each library to a text file in `docs/api`, so that a
//! review sees every change of it.
//!
//! The API is read from the pages that rustdoc writes. rustdoc knows what is public better than a
//! search of the sources would, and comes with the stable compiler. (rustdoc's JSON would be easier
//! to read, but needs nightly Rust.)

mod html;
mod listing;
mod page;

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::flags::Api;

/// The crates that users depend on.
const CRATES: [&str; 3] = ["qcore", "qkernels", "qnn"];

pub(crate) fn run(flags: &Api) -> Result<()> {
    document()?;
    let folder = cargo::root().join("docs/api");
    let mut changes = Vec::new();
    for name in CRATES {
        let doc = cargo::target_folder().join("doc").join(name);
        let listing = listing::of(name, &|file| read(&doc.join(file)))?;
        let path = folder.join(format!("{name}.txt"));
        if flags.check {
            let kept = read(&path).context("`cargo xtask api` was never run")?;
            changes.extend(
                listing::difference(&kept, &listing).map(|lines| format!("docs/api/{name}.txt\n{lines}")),
            );
        } else {
            let cannot = || format!("cannot write {}", path.display());
            fs::create_dir_all(&folder).with_context(cannot)?;
            fs::write(&path, &listing).with_context(cannot)?;
        }
        writeln!(stdout(), "api: {name}, {} lines", listing.lines().count())?;
    }
    if !changes.is_empty() {
        bail!(
            "the public API is not what docs/api says; if that is meant: `cargo xtask api`, then say it in \
             CHANGELOG.md\n{}",
            changes.join("\n")
        );
    }
    Ok(())
}

/// Runs rustdoc on the crates if its pages are not up to date. The flags are those of `.ci/run`;
/// other flags would rebuild everything.
fn document() -> Result<()> {
    let mut command = cargo::command();
    command.args(["doc", "--quiet", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    command.args(CRATES.iter().flat_map(|name| ["--package", name]));
    let status = command.status().context("cannot start cargo doc")?;
    if !status.success() {
        bail!("cargo doc: {status}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
