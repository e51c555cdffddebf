//! Why per-channel quantization fails.

use thiserror::Error;

use super::quantize::{LengthError, QuantizeError};
use crate::params::SchemeError;
use crate::value::{ObserverError, RangeError};

/// Why a shape and an axis do not go together.
///
/// ```
/// let error = qcore::ChannelAxis::new(&[2, 3], 2).unwrap_err();
/// assert_eq!(error.to_string(), "no axis 2 in a tensor of rank 2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AxisError {
    /// The tensor has too few axes.
    #[error("no axis {axis} in a tensor of rank {rank}")]
    NoSuchAxis {
        /// The axis asked for.
        axis: usize,
        /// The number of axes of the tensor.
        rank: usize,
    },
    /// The number of elements overflows.
    #[error("the shape has more elements than can be counted")]
    TooLarge,
}

/// Why per-channel quantization fails.
///
/// ```
/// let rows = qcore::ChannelAxis::rows(2, 2)?;
/// let error = qcore::channel_ranges(&[1.0, 2.0, 3.0], rows).unwrap_err();
/// assert_eq!(error.to_string(), "the shape has 4 elements, the data 3");
/// # Ok::<(), qcore::AxisError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The length of the data is not that of the shape.
    #[error("the shape has {expected} elements, the data {got}")]
    Data {
        /// The length that the shape implies.
        expected: usize,
        /// Given.
        got: usize,
    },
    /// There are too few or too many parameters.
    #[error("{expected} channels need as many parameters, got {got}")]
    Params {
        /// The number of channels.
        expected: usize,
        /// Given.
        got: usize,
    },
    /// Input and output differ in length.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// A channel has no range. Indices in the source count from the start of the whole data.
    #[error("channel {channel}: {error}")]
    Range {
        /// Which.
        channel: usize,
        /// Why.
        error: RangeError,
    },
    /// The scheme has no parameters for a channel.
    #[error("channel {channel}: {error}")]
    Scheme {
        /// Which.
        channel: usize,
        /// Why.
        error: SchemeError,
    },
    /// A channel's observer has no range.
    #[error("channel {channel}: {error}")]
    Observer {
        /// Which.
        channel: usize,
        /// Why.
        error: ObserverError,
    },
    /// A channel's codes cannot be stored.
    #[error("channel {channel}: {error}")]
    Quantize {
        /// Which.
        channel: usize,
        /// Why.
        error: QuantizeError,
    },
}
