//! Why a layer or a model could not be run.

use qkernels::{DynamicError, GemmError, StageError, ViewError};

use crate::config::activation_codes::ActivationCodes;

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
