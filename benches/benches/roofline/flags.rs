//! The bench's options.

use clap::Parser;
use qbenches::{CsvFlag, Selection};

/// Every kernel of this CPU beside other libraries, on every shape of benches/shapes.txt.
///
/// One thread, weights packed before, results verified, int32 output. Prints Gop/s; for our kernels
/// also the peak of the kernel's own instruction, measured beside it, and the share of it that was
/// reached; and the GB/s at which operands and result were moved. Ends with our best kernel over
/// the best exact peer and over f32, shape by shape.
#[derive(Debug, Parser)]
#[command(name = "roofline", bin_name = "cargo bench --bench roofline --")]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) csv: CsvFlag,
}
