//! The encoder's files, which a script downloads, and the tokens of sentences, which a separate
//! program finds (the library that does it is not compiled for anything else).

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Where the files are.
pub(super) fn folder() -> PathBuf {
    cargo::root().join("target/encoder")
}

/// Downloads what is not there yet.
pub(super) fn fetch() -> Result<()> {
    let script = cargo::root().join("xtask/fetch-encoder");
    let status = Command::new(&script).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {}", script.display()))?;
    ensure!(status.success(), "{}: {status}", script.display());
    Ok(())
}

/// The bytes of the trained model.
pub(super) fn trained() -> Result<Vec<u8>> {
    let path = folder().join("model.safetensors");
    fs::read(&path).with_context(|| path.display().to_string())
}

/// The tokens of each sentence.
pub(super) fn tokens(sentences: &[&str]) -> Result<Vec<Vec<usize>>> {
    let mut input: File = tempfile::tempfile().context("cannot write a temporary file")?;
    for sentence in sentences {
        writeln!(input, "{sentence}")?;
    }
    input.seek(SeekFrom::Start(0))?;
    let mut command = cargo::command();
    command.args(["run", "--quiet", "--profile", cargo::PROFILE, "--package", "tokens", "--"]);
    command.arg(folder().join("tokenizer.json")).stdin(input).stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo run")?;
    ensure!(output.status.success(), "finding tokens: {}", output.status);
    let text = String::from_utf8(output.stdout).context("tokens")?;
    let ids = |line: &str| line.split(' ').map(|id| Ok(id.parse()?)).collect::<Result<Vec<usize>>>();
    let tokens = text.lines().map(ids).collect::<Result<Vec<_>>>().context("tokens")?;
    ensure!(tokens.len() == sentences.len(), "tokens of {} sentences, got {}", sentences.len(), tokens.len());
    Ok(tokens)
}
