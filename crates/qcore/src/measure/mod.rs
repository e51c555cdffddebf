//! How far restored values are from the originals.

mod classes;
mod clipped;
mod error;
mod metrics;
mod sqnr;

pub use classes::{Agreement, agreement, argmax};
pub use clipped::{clipped_fraction, clipped_fraction_per_channel};
pub use error::MetricsError;
pub use metrics::ErrorMetrics;
pub use sqnr::{Sqnr, SqnrAboutMean, sqnr_db};
