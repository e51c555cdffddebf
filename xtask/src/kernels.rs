//! `cargo xtask kernels`: every kernel, whether this CPU has it, and which one runs and why.

use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    println!("{}", qkernels::report()?);
    Ok(())
}
