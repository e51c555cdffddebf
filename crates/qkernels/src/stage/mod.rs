//! Output stages: from the int32 sums of a tile to what the caller stores, while the sums are in registers or in L1.
//!
//! Each stage is a formula of qcore applied to `acc[i][j] + bias[j]`, in the same order of float operations as the scalar
//! function, so fused and unfused results are equal bit for bit.

mod dequantize;
mod fixed_point;
mod int32;
mod output_codes;
mod requantize;
mod residual;

pub use dequantize::{Dequantize, DequantizeTo};
pub use fixed_point::RequantizeFixedPoint;
pub use int32::Int32;
pub use requantize::Requantize;
pub use residual::Residual;

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
    /// Neighbours in a row of the residual are not adjacent in memory.
    #[error("the residual's columns are {col_stride} elements apart; they must be adjacent")]
    ResidualStride {
        /// Elements between two neighbours in a row.
        col_stride: usize,
    },
}

/// A factor for each output channel, or one for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales<'a> {
    /// One factor.
    PerTensor(f32),
    /// A factor for each of the n channels.
    PerChannel(&'a [f32]),
}

impl Scales<'_> {
    fn values(&self) -> &[f32] {
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

pub(crate) fn check_len(operand: &'static str, n: usize, len: usize) -> Result<(), StageError> {
    if len == n { Ok(()) } else { Err(StageError::Length { operand, n, len }) }
}

/// What becomes of the int32 sums. Implemented by [`Int32`], [`Dequantize`] (and its forms for
/// f16 and bf16), [`Requantize`] and [`RequantizeFixedPoint`]. Sealed.
pub trait OutputStage: Sync + sealed::Stage {}

impl<S: sealed::Stage + Sync> OutputStage for S {}

/// Element type that a stage stores.
pub type Output<S> = <S as sealed::Stage>::Out;

pub(crate) mod sealed {
    use half::{bf16, f16};
    use qcore::Q31Multiplier;

    use super::Scales;
    use crate::finish::{Codes, FixedPointRounding, ResidualCodes, ResidualRef, Target};
    use crate::view::{MatMut, MatRef};

    pub trait Stage {
        type Out: Copy + Send;

        /// The int32 bias, which the driver adds to the sums together with the terms of the zero point.
        fn bias(&self) -> Option<&[i32]>;

        /// Scale or multiplier; `None` where the sums stay int32.
        fn factor(&self) -> Option<Scales<'_>> {
            None
        }

        /// What the caller knows the factor as.
        fn factor_name(&self) -> &'static str {
            "scale"
        }

        /// The f32 bias of each channel.
        fn float_bias(&self) -> Option<&[f32]> {
            None
        }

        /// Whether negative f32 results become 0.
        fn relu(&self) -> bool {
            false
        }

        /// The integers of a requantization; `None` where it is none.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn codes(&self) -> Option<Codes> {
            None
        }

        /// Multipliers in fixed point, one for each channel or one for all, in place of the factor.
        fn fixed_point(&self) -> Option<(&[Q31Multiplier], FixedPointRounding)> {
            None
        }

        /// The tensor to add before rounding.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn residual(&self) -> Option<ResidualRef<'_>> {
            None
        }

        /// The output with its element type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn target(out: MatMut<'_, Self::Out>) -> Target<'_>;
    }

    /// f32, f16 or bf16 as an output.
    pub trait StoredFloat: qcore::Float {
        /// The output with its element type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn target(out: MatMut<'_, Self>) -> Target<'_>;
    }

    /// i8 or u8 as an output.
    pub trait StoredCode: qcore::Code {
        /// The output with its element type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn target(out: MatMut<'_, Self>) -> Target<'_>;

        /// The codes of a residual with their type as a value.
        #[expect(private_interfaces, reason = "sealed: only this crate names it")]
        fn residual(codes: MatRef<'_, Self>) -> ResidualCodes<'_>;
    }

    macro_rules! stored_float {
        ($element:ty, $variant:ident) => {
            impl StoredFloat for $element {
                #[expect(private_interfaces, reason = "sealed")]
                fn target(out: MatMut<'_, $element>) -> Target<'_> {
                    Target::$variant(out)
                }
            }
        };
    }
    stored_float!(f32, F32);
    stored_float!(f16, F16);
    stored_float!(bf16, Bf16);

    macro_rules! stored_code {
        ($element:ty, $variant:ident) => {
            impl StoredCode for $element {
                #[expect(private_interfaces, reason = "sealed")]
                fn target(out: MatMut<'_, $element>) -> Target<'_> {
                    Target::$variant(out)
                }

                #[expect(private_interfaces, reason = "sealed")]
                fn residual(codes: MatRef<'_, $element>) -> ResidualCodes<'_> {
                    ResidualCodes::$variant(codes)
                }
            }
        };
    }
    stored_code!(i8, I8);
    stored_code!(u8, U8);
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
