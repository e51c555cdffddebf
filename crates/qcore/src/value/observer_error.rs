//! The error of an observer that saw no finite value.

use thiserror::Error;

/// Why an observer has no range.
///
/// ```
/// use qcore::{MinMaxObserver, Observer};
///
/// let error = MinMaxObserver::default().range().unwrap_err();
/// assert_eq!(error.to_string(), "no finite value was observed (0 that are not finite)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ObserverError {
    /// It saw no finite value.
    #[error("no finite value was observed ({non_finite} that are not finite)")]
    NoData {
        /// How many values were skipped because they are NaN or infinite.
        non_finite: u64,
    },
}
