//! The cargo that commands start in turn, and the folders it works in.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
#[cfg(not(feature = "figures"))]
use std::process::ExitCode;

#[cfg(not(feature = "figures"))]
use anyhow::{Context, Result};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The cargo that runs this program, or the first one in the path.
fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// That cargo, working on the whole workspace.
pub(crate) fn command() -> Command {
    let mut command = Command::new(program());
    command.current_dir(root());
    command
}

/// The target folder of that cargo.
pub(crate) fn target_folder() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The profile of this program, which the programs that it has cargo compile are to have, too.
pub(crate) const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "xtask" };

/// Runs the command that this process was asked for in a program that can draw.
#[cfg(not(feature = "figures"))]
pub(crate) fn run_with_figures() -> Result<ExitCode> {
    // In the current folder, which paths on the command line are relative to.
    let status = Command::new(program())
        .args(["run", "--profile", PROFILE, "--package", "xtask", "--features", "figures"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .arg("--")
        .args(env::args_os().skip(1))
        .status()
        .context("cannot start cargo run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
