//! Slow layers that define what the layers of courses and tutorials compute.
//!
//! They restore their weights in every call and multiply in f64. Nothing in the library runs on
//! them. Use them to check a layer that you wrote, or one of another library.

mod tinytorch;
mod tutorial;

pub use tinytorch::QuantizedLinear;
pub use tutorial::Int8Linear;
