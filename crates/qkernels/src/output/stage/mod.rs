//! Output stages: from the int32 sums of a tile to what the caller stores, while the sums are in
//! registers or in L1.
//!
//! Each stage is a formula of qcore applied to `acc[i][j] + bias[j]`. Its float operations have the
//! order of the scalar function, so fused and unfused results are equal bit for bit.

mod dequantize;
mod fixed_point;
mod float;
mod int32;
mod output_codes;
mod requantize;
mod residual;

pub use dequantize::{Dequantize, DequantizeTo};
pub use fixed_point::RequantizeFixedPoint;
pub use float::FloatStage;
pub use int32::Int32;
pub use requantize::Requantize;
pub use residual::Residual;

use half::{bf16, f16};
use qcore::ActivationFunction;

/// Why an output stage cannot be applied to a product.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// A per-channel operand has the wrong number of entries.
    #[error("expected n = {n} entries in the stage's {operand}, got {len}")]
    Length {
        /// Which operand.
        operand: &'static str,
        /// Output channels of the weights.
        n: usize,
        /// Entries that the operand has.
        len: usize,
    },
    /// A scale or multiplier is NaN or infinite.
    #[error("the stage's {operand} is {value} at channel {channel}; it must be finite")]
    NotFinite {
        /// Which operand.
        operand: &'static str,
        /// Index of the first such value (0 for a value per tensor).
        channel: usize,
        /// The value.
        value: f32,
    },
    /// A slope of the activation function is not finite, or its bounds leave no value.
    #[error("activation function {function}: {}", reason(*function))]
    Activation {
        /// The function.
        function: ActivationFunction,
    },
    /// The stage has no real values to apply the activation function to.
    #[error("{stage} cannot apply {function}, it has no real values: use {instead}")]
    NeedsRealValues {
        /// The function.
        function: ActivationFunction,
        /// The stage.
        stage: &'static str,
        /// A stage that has real values.
        instead: &'static str,
    },
    /// The scale of the output is not a positive, finite number.
    #[error("output scale {scale:e} is not positive and finite")]
    OutputScale {
        /// The scale.
        scale: f32,
    },
    /// The bounds of a clamp are out of order.
    #[error("clamp from {low} to {high} is empty")]
    EmptyClamp {
        /// Lower bound.
        low: i32,
        /// Upper bound.
        high: i32,
    },
    /// The residual has another shape than the product.
    #[error("expected a {m} x {n} residual, got {rows} x {cols}")]
    ResidualShape {
        /// Rows of the product.
        m: usize,
        /// Columns of the product.
        n: usize,
        /// Rows of the residual.
        rows: usize,
        /// Columns of the residual.
        cols: usize,
    },
    /// A scaled sum and a scaled residual might both leave f32. Then there is nothing to round.
    #[error(
        "factor {multiplier:e} of channel {channel} and the residual's factor {residual_multiplier:e} may both leave the range of f32"
    )]
    ResidualRange {
        /// The output channel.
        channel: usize,
        /// Its multiplier.
        multiplier: f32,
        /// The residual's.
        residual_multiplier: f32,
    },
    /// Neighbours in a row of the residual are not adjacent in memory.
    #[error("the residual's columns are {col_stride} elements apart; they must be adjacent")]
    ResidualStride {
        /// Elements between two neighbours in a row.
        col_stride: usize,
    },
}

/// One factor for each output channel, or one for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales<'a> {
    /// One factor.
    PerTensor(f32),
    /// A factor for each of the n channels.
    PerChannel(&'a [f32]),
}

impl Scales<'_> {
    /// The factors as a slice: one, or one for each channel.
    pub(crate) fn values(&self) -> &[f32] {
        match self {
            Scales::PerTensor(scale) => core::slice::from_ref(scale),
            Scales::PerChannel(scales) => scales,
        }
    }

    fn check_finite(&self, operand: &'static str) -> Result<(), StageError> {
        check_finite(operand, self.values())
    }
}

pub(crate) fn check_finite(operand: &'static str, values: &[f32]) -> Result<(), StageError> {
    match qcore::first_non_finite(values) {
        None => Ok(()),
        Some((channel, value)) => Err(StageError::NotFinite { operand, channel, value }),
    }
}

/// What is wrong with the parameters of `function`.
fn reason(function: ActivationFunction) -> String {
    function.check().err().map_or_else(String::new, |error| error.to_string())
}

/// Returns `function` if its parameters make sense.
fn check_function(function: ActivationFunction) -> Result<ActivationFunction, StageError> {
    function.check().map_err(|_| StageError::Activation { function })
}

pub(crate) fn check_len(operand: &'static str, n: usize, len: usize) -> Result<(), StageError> {
    if len == n { Ok(()) } else { Err(StageError::Length { operand, n, len }) }
}

/// What is done to the int32 sums. Implemented by [`Int32`], [`Dequantize`] (and its forms for f16
/// and bf16), [`Requantize`] and [`RequantizeFixedPoint`]. Sealed.
///
/// Code that works with any stage names this trait, and the element type that the stage stores if
/// that matters:
///
/// ```
/// use qkernels::{
///     GemmError, Int32, Kernel, MatMut, MatRef, OutputStage, PackedWeights, Threads, Workspace, gemm,
/// };
/// /// The product of one row.
/// fn row<T, S: OutputStage<Out = T>>(x: &[u8], w: &PackedWeights, stage: &S, y: &mut [T]) -> Result<(), GemmError> {
///     let (Ok(x), Ok(y)) = (MatRef::new(x, 1, w.k()), MatMut::new(y, 1, w.n())) else { return Ok(()) };
///     gemm(x, w, stage, y, Threads::Serial, &mut Workspace::new())
/// }
/// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3, 4, 5, -6], 2, 3)?, Kernel::select()?)?;
/// let mut y = [0; 2];
/// row(&[1, 0, 2], &w, &Int32::new(), &mut y)?;
/// assert_eq!(y, [7, -8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait OutputStage: Sync + sealed::Stage {
    /// Element type that the stage stores.
    type Out: sealed::Stored;
}

/// Element type that a stage stores.
pub type Output<S> = <S as OutputStage>::Out;

/// f32, f16 or bf16, as [`DequantizeTo`] stores them. Sealed.
///
/// ```
/// use half::bf16;
/// use qkernels::{
///     DequantizeTo, Kernel, MatMut, MatRef, PackedWeights, Scales, StoredFloat, Threads, Workspace, gemm,
/// };
/// fn values<T: StoredFloat>(x: MatRef<'_, u8>, w: &PackedWeights, y: MatMut<'_, T>) -> Result<(), Box<dyn std::error::Error>> {
///     let stage = DequantizeTo::<T>::new(Scales::PerTensor(0.5))?;
///     Ok(gemm(x, w, &stage, y, Threads::Serial, &mut Workspace::new())?)
/// }
/// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3], 1, 3)?, Kernel::select()?)?;
/// let (x, mut y) = ([1, 0, 2], [bf16::ZERO]);
/// values(MatRef::new(&x, 1, 3)?, &w, MatMut::new(&mut y, 1, 1)?)?;
/// assert_eq!(y[0].to_f32(), 3.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait StoredFloat: qcore::Float + sealed::Stored {}

impl StoredFloat for f32 {}
impl StoredFloat for f16 {}
impl StoredFloat for bf16 {}

/// i8 or u8, as [`Requantize`] and [`RequantizeFixedPoint`] store them. Sealed.
///
/// ```
/// use qkernels::{
///     Kernel, MatMut, MatRef, PackedWeights, Requantize, Scales, StoredCode, Threads, Workspace, gemm,
/// };
/// fn codes<C: StoredCode>(x: MatRef<'_, u8>, w: &PackedWeights, y: MatMut<'_, C>) -> Result<(), Box<dyn std::error::Error>> {
///     let stage = Requantize::<C>::new(Scales::PerTensor(0.5))?;
///     Ok(gemm(x, w, &stage, y, Threads::Serial, &mut Workspace::new())?)
/// }
/// let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3], 1, 3)?, Kernel::select()?)?;
/// let (x, mut signed, mut unsigned) = ([0, 4, 1], [0i8], [9u8]);
/// codes(MatRef::new(&x, 1, 3)?, &w, MatMut::new(&mut signed, 1, 1)?)?;
/// codes(MatRef::new(&x, 1, 3)?, &w, MatMut::new(&mut unsigned, 1, 1)?)?;
/// assert_eq!((signed, unsigned), ([-2], [0])); // -2.5, to even
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait StoredCode: qcore::Code + sealed::Stored + sealed::Addend {}

impl StoredCode for i8 {}
impl StoredCode for u8 {}

pub(crate) mod sealed {
    use half::{bf16, f16};
    use qcore::{ActivationFunction, Q31Multiplier};

    use super::Scales;
    use crate::matrix::view::{MatMut, MatRef};
    use crate::output::operands::{Codes, FixedPointRounding, ResidualCodes, ResidualRef};
    use crate::output::target::Target;
    use crate::output::tile::StoredTile;

    pub trait Stage {
        /// The int32 bias, which the driver adds to the sums together with the terms of the zero
        /// point.
        fn bias(&self) -> Option<&[i32]>;

        /// Scale or multiplier; `None` if the sums stay int32.
        fn factor(&self) -> Option<Scales<'_>> {
            None
        }

        /// The caller's name for the factor.
        fn factor_name(&self) -> &'static str {
            "scale"
        }

        /// The f32 bias of each channel.
        fn float_bias(&self) -> Option<&[f32]> {
            None
        }

        /// The function applied to real results, or to codes before they are rounded.
        fn function(&self) -> ActivationFunction {
            ActivationFunction::Identity
        }

        /// The scale of codes that are made from real results.
        fn output_scale(&self) -> Option<f32> {
            None
        }

        /// The integer operands of a requantization; `None` if the stage is none.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn codes(&self) -> Option<Codes> {
            None
        }

        /// Fixed-point multipliers, one for each channel or one for all, in place of the factor.
        fn fixed_point(&self) -> Option<(&[Q31Multiplier], FixedPointRounding)> {
            None
        }

        /// The tensor to add before rounding.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn residual(&self) -> Option<ResidualRef<'_>> {
            None
        }
    }

    /// An element type of outputs.
    pub trait Stored: Copy + Send + Sync + 'static {
        /// The output, with its element type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn target(out: MatMut<'_, Self>) -> Target<'_>;

        /// Stores the few elements of `tile`, whose stage has no function for
        /// [`curve`](crate::output::curve).
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn store(tile: &StoredTile<'_, true>, out: &mut MatMut<'_, Self>);
    }

    /// An element type of residuals.
    pub trait Addend: Sized {
        /// The codes of a residual, with their type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn residual(codes: MatRef<'_, Self>) -> ResidualCodes<'_>;
    }

    macro_rules! stored {
        ($element:ty, $variant:ident, |$tile:ident, $out:ident| $store:expr) => {
            impl Stored for $element {
                #[expect(private_interfaces, reason = "sealed")]
                fn target(out: MatMut<'_, $element>) -> Target<'_> {
                    Target::$variant(out)
                }

                #[inline(always)]
                #[expect(private_interfaces, reason = "sealed")]
                fn store($tile: &StoredTile<'_, true>, $out: &mut MatMut<'_, $element>) {
                    $store;
                }
            }
        };
    }
    stored!(i32, I32, |tile, out| tile.store_sums(out));
    stored!(f32, F32, |tile, out| tile.store_real(out));
    stored!(f16, F16, |tile, out| tile.store_real(out));
    stored!(bf16, Bf16, |tile, out| tile.store_real(out));
    stored!(i8, I8, |tile, out| tile.store_codes(&mut out.as_bytes()));
    stored!(u8, U8, |tile, out| tile.store_codes(out));

    macro_rules! addend {
        ($element:ty, $variant:ident) => {
            impl Addend for $element {
                #[expect(private_interfaces, reason = "sealed")]
                fn residual(codes: MatRef<'_, $element>) -> ResidualCodes<'_> {
                    ResidualCodes::$variant(codes)
                }
            }
        };
    }
    addend!(i8, I8);
    addend!(u8, U8);
}

/// Whether the operands of `stage` fit a product with n channels whose output is (m, columns).
pub(crate) fn check<S: OutputStage>(
    stage: &S,
    n: usize,
    (m, columns): (usize, usize),
) -> Result<(), StageError> {
    if let Some(bias) = stage.bias() {
        check_len("bias", n, bias.len())?;
    }
    if let Some(bias) = stage.float_bias() {
        check_len("float bias", n, bias.len())?;
    }
    if let Some(residual) = stage.residual() {
        let (rows, cols) = residual.codes.shape();
        if (rows, cols) != (m, columns) {
            return Err(StageError::ResidualShape { m, n: columns, rows, cols });
        }
    }
    match (stage.factor(), stage.fixed_point()) {
        (Some(Scales::PerChannel(factors)), _) => check_len(stage.factor_name(), n, factors.len()),
        (None, Some((multipliers, _))) if multipliers.len() != 1 => {
            check_len(stage.factor_name(), n, multipliers.len())
        }
        _ => Ok(()),
    }
}
