//! Where results go, whatever their type.

use half::{bf16, f16};

use crate::matrix::view::MatMut;
use crate::output::operands::{RowTerms, StageOperands};

/// Where results go. The element type decides what is done to the sums.
#[derive(Debug)]
pub(crate) enum Target<'o> {
    /// `acc`
    I32(MatMut<'o, i32>),
    /// `f32(acc) * factor + float_bias`, ReLU
    F32(MatMut<'o, f32>),
    /// As `F32`, rounded once more.
    F16(MatMut<'o, f16>),
    /// As `F32`, rounded once more.
    Bf16(MatMut<'o, bf16>),
    /// `clamp(round(f32(acc) * factor) + zero_point)`
    I8(MatMut<'o, i8>),
    /// As `I8`.
    U8(MatMut<'o, u8>),
}

/// Evaluates `$body` for the matrix in `$target`, wrapped in the same variant again.
macro_rules! each_target {
    ($target:expr, $out:ident => $body:expr, $wrap:ident => $result:expr) => {
        match $target {
            Target::I32($out) => {
                let $wrap = Target::I32;
                let $out = $body;
                $result
            }
            Target::F32($out) => {
                let $wrap = Target::F32;
                let $out = $body;
                $result
            }
            Target::F16($out) => {
                let $wrap = Target::F16;
                let $out = $body;
                $result
            }
            Target::Bf16($out) => {
                let $wrap = Target::Bf16;
                let $out = $body;
                $result
            }
            Target::I8($out) => {
                let $wrap = Target::I8;
                let $out = $body;
                $result
            }
            Target::U8($out) => {
                let $wrap = Target::U8;
                let $out = $body;
                $result
            }
        }
    };
}

impl<'o> Target<'o> {
    /// Codes of either type as bytes; `None` for what is no code.
    #[inline]
    pub(crate) fn code_bytes(&mut self) -> Option<MatMut<'_, u8>> {
        match self {
            Target::I8(out) => Some(out.as_bytes()),
            Target::U8(out) => Some(out.reborrow()),
            Target::I32(_) | Target::F32(_) | Target::F16(_) | Target::Bf16(_) => None,
        }
    }

    /// How many columns it has.
    pub(crate) fn columns(&self) -> usize {
        each_target!(self, out => out.cols(), _wrap => out)
    }

    /// The rows before `row`, and the rows from it on; `None` if there are fewer.
    pub(crate) fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        each_target!(self, out => out.split_at_row(row)?, wrap => Some((wrap(out.0), wrap(out.1))))
    }

    /// The columns before `column`, and the columns from it on; `None` if there are fewer.
    pub(crate) fn split_at_col(self, column: usize) -> Option<(Self, Self)> {
        each_target!(self, out => out.split_at_col(column)?, wrap => Some((wrap(out.0), wrap(out.1))))
    }
}

/// Whether a kernel that applies stages itself can apply this one.
pub(crate) fn fits_registers(
    stage: &StageOperands<'_>,
    row_terms: &RowTerms<'_>,
    target: &Target<'_>,
) -> bool {
    let StageOperands { zero_points, fixed_point, residual, .. } = stage;
    let rows = !row_terms.zero_points.is_empty() || !row_terms.factors.is_empty();
    let codes_fit = |highest| {
        stage.saturates(highest)
            && stage.function_fits_registers()
            && zero_points.is_empty()
            && !rows
            && fixed_point.is_none()
            && residual.is_none()
    };
    match target {
        Target::I32(_) => zero_points.is_empty() && !rows,
        Target::I8(_) => codes_fit(i8::MAX.into()),
        Target::U8(_) => codes_fit(u8::MAX.into()),
        Target::F32(_) => zero_points.is_empty() && stage.function_fits_registers(),
        Target::F16(_) | Target::Bf16(_) => false,
    }
}
