//! The bench's options.

use std::path::PathBuf;

use clap::Parser;

/// Every kernel of this CPU beside other libraries, on every shape of benches/shapes.txt.
///
/// One thread, weights packed before, results verified, int32 output. Prints Gop/s; for our kernels
/// also the peak of the kernel's own instruction, measured beside it, and the share of it that was
/// reached; and the GB/s at which operands and result were moved. Ends with our best kernel over
/// the best exact peer and over f32, shape by shape.
#[derive(Debug, Parser)]
#[command(name = "roofline", bin_name = "cargo bench --bench roofline --")]
pub(crate) struct Flags {
    /// Only shapes whose group or size contains this, for example `bert`, `1x4096` or
    /// `odd 7x13x17`.
    pub(crate) filter: Option<String>,
    /// Run each contender once on the small shapes: whether it works, not how fast it is.
    #[arg(long)]
    pub(crate) test: bool,
    /// Also write every measurement to this file as it is made; `-` is standard output, in place of
    /// the tables.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}
