//! `cargo bench --bench groups [-- [--test] [--csv FILE] [FILTER]]`: integer products of weights of
//! 8 and 4 bits that have a scale for each group of k, beside those with a scale per channel, one
//! thread. Activations are f32, quantized to i8 per row in each call. Few rows take turns with so
//! many copies of the weights that none is left in a cache. `-- --help` says more.
//!
//! The contenders take turns, see [`qbenches::Turns`].

mod definition;
mod format;
mod operands;
mod problem;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use qbenches::{
    Csv, CsvFlag, Kind, Record, Selection, Shape, floats, grouped_shapes, peak_gops, print_table,
};
use qcore::Scheme;
use qkernels::{Dynamic, Kernel};

use format::{FORMATS, PER_CHANNEL};
use operands::Operands;
use problem::Problem;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Integer products of weights in groups beside those with a scale per channel.
///
/// One thread, f32 activations, weights packed before, results verified, f32 output. Few rows take
/// their weights from memory. The contenders take turns: Gop/s and GB/s of weights are those of the
/// fastest round, the ratio is the median of the rounds' ratios to the product per channel. Beside
/// them stands the peak of the kernel's own instruction for 8 bits.
#[derive(Debug, Parser)]
#[command(name = "groups", bin_name = "cargo bench --bench groups --")]
struct Flags {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    csv: CsvFlag,
}

/// Rows up to which weights are taken from memory.
const FEW_ROWS: usize = 4;

/// How each row is quantized.
const SCHEME: Scheme = Scheme::weights_i8();

/// The same, for products.
const ACTIVATIONS: Dynamic = Dynamic::PerToken(SCHEME);

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    let selection = &flags.selection;
    let mut csv = flags.csv.open()?;
    for (shape, kernels) in selection.cases(grouped_shapes()) {
        let memory = selection.read_rate();
        csv.add(&Record::memory(memory))?;
        if csv.leaves_room_for_tables() {
            println!("read: {memory:.1} GB/s");
        }
        for kernel in kernels {
            one_shape(kernel, shape, selection, &mut csv).map_err(|error| format!("{kernel}: {error}"))?;
        }
    }
    Ok(())
}

fn one_shape(kernel: Kernel, shape: Shape, selection: &Selection, csv: &mut Csv) -> Result<()> {
    let Shape { m, n, k, .. } = shape;
    let (turns, cold) = (selection.turns(), m <= FEW_ROWS);
    let a = floats(m * k, 4);
    let operands = Operands::new(n, k);
    let problem = Problem { shape, a: &a, operands: &operands };
    let packed = operands.pack(kernel)?;

    let copies = turns.copies(packed.bytes.bytes(), cold);
    let mut contenders = vec![problem.per_channel(vec![packed.bytes.clone(); copies])?];
    for format in FORMATS {
        let w = operands.weights(&packed, format)?;
        let copies = turns.copies(w.bytes(), cold);
        contenders.push(problem.in_groups(format, vec![w; copies])?);
    }

    let budget = if selection.test { Duration::ZERO } else { Duration::from_millis(25) };
    let before = peak_gops(kernel, budget);
    let timings = turns.run(&mut contenders)?;
    let peak = before.max(peak_gops(kernel, budget));

    for (contender, timing) in contenders.iter().zip(&timings) {
        let is_per_channel = contender.name == PER_CHANNEL.name;
        csv.add(&Record {
            kind: Kind::Grouped,
            contender: kernel.name().into(),
            operands: contender.name.clone(),
            group: shape.group.into(),
            m,
            n,
            k,
            gops: shape.operations() / timing.seconds / 1e9,
            // Another instruction may multiply codes of 4 bits.
            peak: is_per_channel.then_some(peak),
            gigabytes: contender.bytes as f64 / timing.seconds / 1e9,
            over_per_channel: (!is_per_channel).then_some(timing.over_first),
            verdict: "exact".into(),
        })?;
    }
    if csv.leaves_room_for_tables() {
        let from = if cold { ", weights from memory" } else { "" };
        let title = format!("{kernel}, {m} x {n} x {k}{from} (peak: {peak:.0} Gop/s)");
        print_table(&title, shape.operations(), &contenders, &timings);
    }
    Ok(())
}
