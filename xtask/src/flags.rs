//! All commands and options in one place.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

/// The trained networks and the images.
pub(crate) const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/qnn/data/mnist");

/// The trained VGG.
pub(crate) const VGG: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/qnn/data/mnist/mnist_vgg_quarter.safetensors");

/// Where pictures go.
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/figures");

/// Demos, benches with figures, kernel listing and repository checks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a demonstration.
    Demo {
        #[command(subcommand)]
        demo: Demo,
    },
    /// Run all demonstrations; write their figures and one HTML report that needs nothing else.
    ///
    /// Writes DIR/report.html and DIR/figures. With `--out docs` the pictures of the documentation
    /// are made again.
    Repro(Repro),
    /// Measure every kernel beside other libraries, and products in groups beside those per
    /// channel; print a summary, write a CSV, Markdown tables and pictures.
    ///
    /// Runs the benches `roofline` and `groups`, one thread, and writes DIR/CPU-DATE.csv and .md of
    /// both, .svg of the first and -groups.svg of the second. A second run of the same day on the
    /// same CPU overwrites them.
    Bench(Bench),
    /// List the kernels, whether this CPU has them, and which one runs.
    ///
    /// QKERNELS_ISA=avx2 (or another family or name in the list) forces a kernel.
    Kernels(Kernels),
    /// List the public API of the libraries in docs/api, one line for each item, read from
    /// rustdoc's pages.
    ///
    /// A change of the API changes these files, so a review sees it and CHANGELOG.md describes it.
    Api(Api),
    /// Check what the compiler does not: where unsafe is, the order of rooms, file lengths, names,
    /// the width of comments, links.
    Tidy,
}

#[derive(Debug, Args)]
pub(crate) struct Api {
    /// Instead of writing the files, fail if they are not what would be written, and show how they
    /// differ.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Kernels {
    /// Instead, count what the inner loop of each kernel executes for 64 products, in the
    /// compiler's assembly.
    #[arg(long)]
    pub(crate) cost: bool,
    /// The target to count for. Its standard library must be there (`rustup target add TRIPLE`);
    /// its CPU need not.
    #[arg(long, value_name = "TRIPLE", requires = "cost")]
    pub(crate) target: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Repro {
    /// Where to write; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "target/repro")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Only shapes whose group or size contains this, for example `mlp` or `1x4096`. A bench
    /// without such a shape does not run.
    pub(crate) filter: Option<String>,
    /// Only one of the benches.
    #[arg(long, value_enum, value_name = "BENCH")]
    pub(crate) only: Option<Only>,
    /// Where to write; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Also measure tract-linalg in `roofline`. Needs a C compiler, which assembles it, and about a
    /// minute more to build.
    #[arg(long)]
    pub(crate) tract: bool,
}

/// A bench that has tables and pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// int32 products on every shape, beside other libraries and f32, below the machine's peaks
    Roofline,
    /// Products of weights with a scale for each group of k, 8 and 4 bits and GGUF's formats
    Groups,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Demo {
    /// Quantize a trained MNIST network and compare it with its f32 original.
    ///
    /// Calibrates on 500 images, turns the network into an integer-only model, saves and loads it,
    /// runs 2,500 test images through both, and prints accuracy, agreement, error, size and speed.
    Mnist(Mnist),
    /// Quantize a 5x5 tensor to a few bits and restore it, and compare the codes with the expected
    /// ones.
    LinearQuantize(LinearQuantize),
    /// Compute a fully-connected layer in 2 bits, and compare the codes with the expected ones.
    QuantizedFc(Plain),
    /// Show what quantization does to the weights of every layer of a trained network.
    WeightHistograms(WeightHistograms),
    /// Quantize a tensor with one scale: part 1 of the PyTorch tutorial.
    Symmetric(Bits),
    /// Quantize activations with a zero point: part 2 of the PyTorch tutorial.
    Asymmetric(Bits),
    /// Quantize channels of very different size: part 3 of the PyTorch tutorial.
    PerChannel(Plain),
    /// Compare a layer of 512 inputs and 256 outputs in f32 and in int8: bytes and errors.
    Linear(Plain),
    /// Compare the trained 784-512-512-10 network in f32 and in int8: bytes, errors, accuracy.
    Mlp(Plain),
    /// Answer five questions by computing and measuring: memory, error, calibration, load time,
    /// speed.
    Questions(Plain),
    /// Show how few bits each layer of a network tolerates.
    Sensitivity(Plain),
    /// Quantize a sentence encoder of six transformer blocks: all schemes compared, nearest
    /// sentences before and after, times. Downloads the trained model (91 MB, once, by pip).
    Encoder(Plain),
}

/// Where a demo's pictures go.
#[derive(Debug, Args)]
pub(crate) struct Out {
    /// Folder for the pictures, PNG and SVG; made if it does not exist. Default: docs/figures.
    #[arg(long, value_name = "DIR", default_value = FIGURES, hide_default_value = true)]
    pub(crate) out: PathBuf,
}

/// A demo without choices.
#[derive(Debug, Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct LinearQuantize {
    /// Bits of a code, 2 to 8.
    #[arg(long, value_name = "BITS", default_value = "2")]
    pub(crate) bitwidth: u32,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct Bits {
    /// Bits of a code, 2 to 8.
    #[arg(long, value_name = "BITS", default_value = "8")]
    pub(crate) bitwidth: u32,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct WeightHistograms {
    /// Bits of a code, 2 to 8, or 32 for the weights as they are.
    #[arg(long, value_name = "BITS", default_value = "8")]
    pub(crate) bitwidth: u32,
    /// A safetensors file. Default: the VGG in crates/qnn/data/mnist.
    #[arg(long, value_name = "FILE", default_value = VGG, hide_default_value = true)]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct Mnist {
    /// Width of the first hidden layer: 784-256-128-10 or 784-512-512-10.
    #[arg(long, value_enum, default_value = "256")]
    pub(crate) model: Model,
    /// Codes of the activations.
    #[arg(long, value_enum, default_value = "u8")]
    pub(crate) activations: Codes,
    /// One weight scale for a whole layer instead of one for each output channel.
    #[arg(long)]
    pub(crate) per_tensor: bool,
    /// Use only 7 of the activations' 8 bits, as PyTorch's option of this name does, and print what
    /// that costs beside the report.
    ///
    /// It is for CPUs with AVX2 and without VNNI, where any weights then run on the fastest form of
    /// the kernel. On other kernels it is of no use.
    #[arg(long)]
    pub(crate) reduce_range: bool,
    /// Threads of both models, 1 to 1024.
    #[arg(long, default_value = "1", value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Also write the int8 model to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Folder with the trained networks and the images.
    #[arg(long, value_name = "DIR", default_value = DATA, hide_default_value = true)]
    pub(crate) data: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Model {
    /// 784-256-128-10, 235,146 parameters
    #[value(name = "256")]
    Mlp256,
    /// 784-512-512-10, 669,706 parameters
    #[value(name = "512")]
    Mlp512,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Codes {
    U8,
    I8,
}
