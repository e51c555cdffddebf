//! `cargo xtask kernels`: lists every kernel, whether this CPU supports it, and which one runs and
//! why. With `--cost` it counts their instructions.

use std::io::{Write, stdout};

use anyhow::Result;

use crate::flags::Kernels;

mod assembly;
mod cost;

pub(crate) fn run(flags: &Kernels) -> Result<()> {
    if flags.cost {
        return cost::run(flags.target.as_deref());
    }
    writeln!(stdout(), "{}", qkernels::report()?)?;
    Ok(())
}
