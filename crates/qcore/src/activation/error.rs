//! Why an activation function cannot be used.

use thiserror::Error;

use crate::tensor::QuantizeError;

/// Why an [`ActivationFunction`](crate::ActivationFunction) cannot be used.
///
/// ```
/// use qcore::{ActivationError, ActivationFunction};
///
/// let error = ActivationFunction::LeakyRelu { slope: f32::INFINITY }.check().unwrap_err();
/// assert_eq!(error, ActivationError::Slope { slope: f32::INFINITY });
/// assert_eq!(error.to_string(), "slope inf is not finite");
/// ```
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// A bound of the clamp is NaN, or `min` is greater than `max`.
    #[error("clamp bounds {min:?} and {max:?} are not in order")]
    Clamp {
        /// The lower bound.
        min: f32,
        /// The upper bound.
        max: f32,
    },
    /// The slope of a leaky ReLU is NaN or infinite.
    #[error("slope {slope} is not finite")]
    Slope {
        /// The slope.
        slope: f32,
    },
    /// There is no function of that name.
    #[error("there is no activation function {name:?}")]
    Name {
        /// The name asked for.
        name: String,
    },
    /// The function takes another number of parameters.
    #[error("{function} takes {expected} parameter(s), got {got}")]
    Parameters {
        /// The function's name.
        function: &'static str,
        /// How many parameters it takes.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// The codes of a table do not fit the types that store them.
    #[error(transparent)]
    Codes(#[from] QuantizeError),
}
