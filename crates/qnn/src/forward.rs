//! What a forward pass asks of its operands, whatever the model.

use crate::config::ActivationCodes;
use qkernels::{DynamicError, GemmError, MatMut, MatRef, StageError, ViewError};

/// Why a model could not be run. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The input has another width than the first layer takes.
    #[error("expected k = {expected} columns of input, got {got}")]
    Width {
        /// Inputs of the first layer.
        expected: usize,
        /// Columns of the input.
        got: usize,
    },
    /// The output has another shape than the result.
    #[error("expected a {m} x {n} output, got {rows} x {cols}")]
    OutputShape {
        /// Rows of the input.
        m: usize,
        /// Outputs of the last layer.
        n: usize,
        /// Rows of the output.
        rows: usize,
        /// Columns of the output.
        cols: usize,
    },
    /// A value of the input is NaN or infinite (int8 models only: it has no code).
    #[error("input value {value} at row {row}, column {col} is not finite")]
    NonFinite {
        /// The first row with such a value.
        row: usize,
        /// Its first such column.
        col: usize,
        /// The value.
        value: f32,
    },
    /// The values between two layers, or those of the result, are more than memory has room for, or than can be counted.
    #[error("there is no memory for {rows} rows of {cols} values")]
    Memory {
        /// Rows.
        rows: usize,
        /// Values of each.
        cols: usize,
    },
    /// Codes were asked of a layer that knows no scale for its output.
    #[error("the layer has no output scale, so that it gives no codes")]
    NoOutputScale,
    /// Codes of another type than the layer's.
    #[error("the {operand} has codes of type {expected}")]
    CodeType {
        /// Input or output.
        operand: &'static str,
        /// The type that it has.
        expected: ActivationCodes,
    },
    /// A product of int8 layers was refused. Layers are checked when a model is made, so this means a defect.
    #[error(transparent)]
    Gemm(#[from] GemmError),
    /// A product of f32 layers was refused: a defect, as above.
    #[error(transparent)]
    FloatProduct(#[from] qkernels::float::FloatShapeError),
    /// The input could not be quantized: a defect, as above.
    #[error(transparent)]
    Codes(#[from] qkernels::CodesError),
    /// The input of a dynamic layer has no scale, or its product was refused.
    #[error(transparent)]
    Dynamic(#[from] DynamicError),
    /// Weights could not be dequantized: a defect, as above.
    #[error(transparent)]
    Channel(#[from] qcore::ChannelError),
    /// A view of the workspace was refused: a defect, as above.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Outputs could not be compared: a defect, as above.
    #[error(transparent)]
    Metrics(#[from] qcore::MetricsError),
}

impl ForwardError {
    /// The error of a block of rows as that of the whole input, of which the block starts at row `first`.
    pub(crate) fn of_block_at(self, first: usize) -> Self {
        match self {
            ForwardError::NonFinite { row, col, value } => {
                ForwardError::NonFinite { row: first + row, col, value }
            }
            ForwardError::Dynamic(DynamicError::Scheme { row, error }) => {
                ForwardError::Dynamic(DynamicError::Scheme { row: first + row, error })
            }
            other => other,
        }
    }
}

impl From<StageError> for ForwardError {
    fn from(error: StageError) -> Self {
        ForwardError::Gemm(error.into())
    }
}

/// `x` is (any, k).
pub(crate) fn check_input<T: Copy>(x: &MatRef<'_, T>, k: usize) -> Result<(), ForwardError> {
    if x.cols() == k { Ok(()) } else { Err(ForwardError::Width { expected: k, got: x.cols() }) }
}

/// `out` is (m, n).
pub(crate) fn check_output<T: Copy>(out: &MatMut<'_, T>, m: usize, n: usize) -> Result<(), ForwardError> {
    let (rows, cols) = (out.rows(), out.cols());
    if (rows, cols) == (m, n) { Ok(()) } else { Err(ForwardError::OutputShape { m, n, rows, cols }) }
}

/// The first `rows * cols` elements of a buffer that grows when it must.
pub(crate) fn grown<T: Copy + Default>(
    buffer: &mut Vec<T>,
    rows: usize,
    cols: usize,
) -> Result<&mut [T], ForwardError> {
    let error = ForwardError::Memory { rows, cols };
    let len = rows.checked_mul(cols).ok_or(error)?;
    if let Some(more) = len.checked_sub(buffer.len()) {
        buffer.try_reserve(more).map_err(|_| error)?;
        buffer.resize(len, T::default());
    }
    Ok(&mut buffer[..len])
}
