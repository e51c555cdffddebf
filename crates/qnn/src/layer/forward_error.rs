//! Why a layer or a model could not be run.

use qkernels::{DynamicError, GemmError, InputScaleError, OutsideError, StageError, ViewError};

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
    /// Where a layer has an input scale, the value is the quotient by that.
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
    /// A code is none of those that the layer takes: it has codes of 7 bits, say, and got one of 8.
    #[error(transparent)]
    OutsideCode(#[from] OutsideError),
    /// A layer was to take the codes of another one's output, which are none of its input. This is
    /// a defect, because models hand on codes only between layers that are linked.
    #[error("the codes of a layer's output are not those of the next one's input")]
    NotLinked,
    /// An input scale cannot divide the input. This is a defect, because a layer is checked when it
    /// is made.
    #[error(transparent)]
    InputScale(#[from] InputScaleError),
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
    pub(crate) fn of_block_at(mut self, first: usize) -> Self {
        match &mut self {
            ForwardError::NonFinite { row, .. }
            | ForwardError::OutsideCode(OutsideError { row, .. })
            | ForwardError::Gemm(GemmError::FloatRange { row, .. })
            | ForwardError::Dynamic(
                DynamicError::Scheme { row, .. }
                | DynamicError::ScaleRange { row, .. }
                | DynamicError::GroupRange { row, .. }
                | DynamicError::HalfScale { row, .. },
            ) => *row += first,
            _ => {}
        }
        self
    }
}

impl From<StageError> for ForwardError {
    fn from(error: StageError) -> Self {
        ForwardError::Gemm(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_row_of_a_block_is_about_that_row_of_the_input() {
        let (row, group, row_scale) = (3, Some(1), 2.0);
        let errors: [ForwardError; 6] = [
            ForwardError::NonFinite { row, col: 5, value: f32::NAN },
            OutsideError { row, col: 5, code: 128, min: 0, max: 127 }.into(),
            GemmError::FloatRange { row, channel: 5 }.into(),
            DynamicError::ScaleRange { row, group, row_scale, channel: 5, channel_scale: 1.5 }.into(),
            DynamicError::GroupRange { row, group, row_scale, scale: 1.5, largest_sum: 0.0 }.into(),
            DynamicError::HalfScale { row, group: 1, scale: 1e5 }.into(),
        ];
        for error in errors {
            assert!(error.to_string().contains("row 3"), "{error}");
            let of_input = error.of_block_at(64).to_string();
            assert!(of_input.contains("row 67") && !of_input.contains("row 3"), "{of_input}");
        }
        let no_row = ForwardError::NoOutputScale;
        assert_eq!(no_row.of_block_at(64), no_row);
    }
}
