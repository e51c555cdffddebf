//! Why a layer or a model could not be run.

use qkernels::{DynamicError, GemmError, StageError, ViewError};

use crate::config::activation_codes::ActivationCodes;

/// Why a model could not be run. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The input has a different width than the first layer takes.
    #[error("expected k = {expected} columns of input, got {got}")]
    Width {
        /// Inputs of the first layer.
        expected: usize,
        /// Columns of the input.
        got: usize,
    },
    /// The output has a different shape than the result.
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
    /// A value of the input is NaN or infinite, so it has no code. Only int8 layers refuse it.
    #[error("input value {value} at row {row}, column {col} is not finite")]
    NonFinite {
        /// The first row with such a value.
        row: usize,
        /// Its first such column.
        col: usize,
        /// The value.
        value: f32,
    },
    /// The values between two layers, or those of the result, do not fit into memory, or their
    /// number does not fit into a `usize`.
    #[error("there is no memory for {rows} rows of {cols} values")]
    Memory {
        /// Rows.
        rows: usize,
        /// Values of each.
        cols: usize,
    },
    /// A row was asked for that a tensor does not have, such as the embedding of an unknown token.
    #[error("there is no row {row}, which is index {at}: the tensor has {rows} rows")]
    NoRow {
        /// Where the row stands in the indices asked for.
        at: usize,
        /// The row.
        row: usize,
        /// Rows of the tensor.
        rows: usize,
    },
    /// The layer was asked for codes, but it has no scale for its output.
    #[error("the layer has no output scale, so that it gives no codes")]
    NoOutputScale,
    /// The codes have a different type than those of the layer.
    #[error("the {operand} has codes of type {expected}")]
    CodeType {
        /// Input or output.
        operand: &'static str,
        /// The type that it has.
        expected: ActivationCodes,
    },
    /// The product was refused. Callers can cause this by columns that are not whole panels, and by
    /// weight-only products that leave f32. In other cases it is a defect, because a layer is
    /// checked when it is made.
    #[error(transparent)]
    Gemm(#[from] GemmError),
    /// The product of an f32 layer was refused. This is a defect, because shapes are checked
    /// before.
    #[error(transparent)]
    FloatProduct(#[from] qkernels::float::FloatShapeError),
    /// The parameters of a static layer's input cannot quantize floats. This is a defect, because a
    /// layer is checked when it is made.
    #[error(transparent)]
    Codes(#[from] qkernels::CodesError),
    /// Values could not become codes. This is a defect, because a layer is checked when it is made.
    #[error(transparent)]
    Quantize(#[from] qcore::QuantizeError),
    /// The scheme of a dynamic layer gives the input no scale, or the product was refused.
    #[error(transparent)]
    Dynamic(#[from] DynamicError),
    /// Weights could not be dequantized. This is a defect, because a layer is checked when it is
    /// made.
    #[error(transparent)]
    Channel(#[from] qcore::ChannelError),
    /// A view of a matrix was refused. This is a defect if no view of the caller's was.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Outputs could not be compared. This is a defect, because they have the same shape.
    #[error(transparent)]
    Metrics(#[from] qcore::MetricsError),
}

impl ForwardError {
    /// Turns the error of a block of rows, which starts at row `first` of the input, into an error
    /// about the input.
    pub(crate) fn of_block_at(self, first: usize) -> Self {
        match self {
            ForwardError::NonFinite { row, col, value } => {
                ForwardError::NonFinite { row: first + row, col, value }
            }
            ForwardError::Dynamic(DynamicError::Scheme { row, group, error }) => {
                ForwardError::Dynamic(DynamicError::Scheme { row: first + row, group, error })
            }
            ForwardError::Dynamic(DynamicError::HalfScale { row, group, scale }) => {
                ForwardError::Dynamic(DynamicError::HalfScale { row: first + row, group, scale })
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
