//! Slow layers that define what the layers of courses and tutorials compute.
//!
//! They restore their weights for every call and multiply in f64. Nothing in the library runs on them: compare with them what
//! you wrote yourself, or what another library gives.

mod tinytorch;
mod tutorial;

pub use tinytorch::QuantizedLinear;
pub use tutorial::Int8Linear;
