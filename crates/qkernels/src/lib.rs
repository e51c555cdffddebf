//! Exact int8 x int8 -> int32 matrix products with fused output stages, with the best instructions
//! that the CPU has.
//!
//! - [`MatRef`], [`MatMut`]: the caller's matrices, with any strides and any alignment.
//! - [`PackedWeights`]: i8 weights in the order in which a kernel reads them, with their sums.
//! - [`gemm`]: the product of u8 or i8 [`Activations`] with packed weights, through an output stage
//!   ([`Int32`], [`Dequantize`], [`Requantize`]), on the calling thread or a pool ([`Threads`]).
//! - [`gemm_dynamic`], [`gemm_rows`]: floats that are quantized as they are read, and may be
//!   divided by a scale of their channel before ([`FloatRows`]).
//! - [`ScaledWeights`]: weights of 8 or 4 bits with scales per channel or per group of k, for
//!   products of integers ([`gemm_scaled`]) and of floats ([`weight_only`]).
//! - [`quantize`], [`dequantize`], [`range`](range()): qcore's loops over slices, vectorized.
//! - [`Kernel`], [`report`]: which kernel runs, and why. `QKERNELS_ISA=avx2` (or another family)
//!   forces one.
//!
//! # The promise
//! int32 results equal the mathematical sum on every kernel, for the full range of both operands.
//! The same row has the same bits whatever the kernel, the number of threads, the strides and the
//! batch that the row stands in. Where a sum could leave int32, packing or the product returns an
//! error instead of wrapping. Output stages equal qcore's scalar functions bit for bit.
//!
//! ```
//! use qkernels::{Kernel, MatMut, MatRef, PackedWeights, Requantize, Scales, Threads, Workspace, gemm};
//! let w = [12i8, -7, 3, 4, 5, -6]; // (n = 2, k = 3)
//! let weights = PackedWeights::from_nk(MatRef::new(&w, 2, 3)?, Kernel::select()?)?;
//! let x = [200u8, 10, 0, 255, 1, 9]; // (m = 2, k = 3)
//! let mut y = [0u8; 4];
//! let stage = Requantize::new(Scales::PerChannel(&[0.05, 0.1]))?.with_relu();
//! gemm(MatRef::new(&x, 2, 3)?, &weights, &stage, MatMut::new(&mut y, 2, 2)?, Threads::Serial, &mut Workspace::new())?;
//! assert_eq!(y, [116, 85, 154, 97]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What packing does
//! Weights (n, k) become panels of nr columns, one column for each output channel. A panel consists
//! of groups of kr consecutive k. What one instruction multiplies lies side by side, and a tile
//! reads its panel from front to back. For n = 3, k = 6 and a kernel with nr = 2, kr = 4:
//!
//! ```text
//!  weights          k 0 1 2 3 4 5         panel 0: channels 0, 1          panel 1: channel 2
//!
//!  channel 0          a b c d e f         group 0   a b c d   g h i j     group 0   m n o p
//!  channel 1          g h i j k l   ──►   group 1   e f 0 0   k l 0 0     group 1   q r 0 0
//!  channel 2          m n o p q r
//!                                         sums      a + ... + f, ...      for zero points, and to prove int32
//! ```
//!
//! A panel has as many columns as it needs, in whole vectors of the kernel (of one column here). k
//! is padded with 0.
//!
//! Some kernels have a faster form for weights that cannot saturate its sums, whatever the
//! activations. Packing proves this for each panel separately. [`PackedWeights::column_kernels`]
//! says which kernel each column got.

// The rooms, in the order in which data goes through them. Each imports only those above it
// (`cargo xtask tidy`).
mod matrix;
mod cpu;
mod output;
mod kernel;
pub mod kernels;
mod left;
mod weights;
mod drive;
mod product;
pub mod reference;

pub use cpu::detect::{Feature, Features};
pub use cpu::threads::Threads;
pub use kernel::desc::{ActivationForm, KernelDesc};
pub use kernel::token::{Kernel, KernelError};
pub use kernels::select::{ISA_VARIABLE, Reason, Report, SelectError, choose, report};
pub use left::codes::{Activation, Activations, Left, OutsideError};
pub use left::float_rows::{FloatRows, InputScaleError};
pub use left::floats::FloatActivations;
pub use matrix::signs::CodesError;
pub use matrix::view::{MatMut, MatRef, ViewError};
pub use matrix::workspace::Workspace;
pub use output::operands::FixedPointRounding;
pub use output::stage::{
    Dequantize, DequantizeTo, FloatStage, Int32, Output, OutputStage, Requantize, RequantizeFixedPoint,
    Residual, Scales, StageError, StoredCode, StoredFloat,
};
pub use product::dynamic::{Dynamic, DynamicError, gemm_dynamic};
pub use product::elementwise::{dequantize, first_non_finite, quantize, range};
#[cfg(feature = "float")]
pub use product::float;
pub use product::gemm::{GemmError, gemm, gemm_columns};
pub use product::quantized_rows::{QuantizedRows, gemm_rows, gemm_scaled_rows};
pub use product::scaled::gemm_scaled;
pub use product::weight_only::weight_only;
pub use weights::nibbles::PackedNibbles;
pub use weights::operand::{PackEffort, PackError, Weight, Weights, ZeroPoints};
pub use weights::order::counts::WindowCounts;
pub use weights::order::k_orders::{KOrders, KOrdersError};
pub use weights::packed::PackedWeights;
pub use weights::scaled::ScaledWeights;
pub use weights::scales::{GROUP_STEP, ScaleError, WeightScales};
