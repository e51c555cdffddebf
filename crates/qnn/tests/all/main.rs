//! The tests of the public API, in one program: several would each compile the same generic code.
//! To run one file of them: `cargo test --package qnn --test all mnist::`.
//!
//! What needs a process of its own, such as limits of its memory, runs this program again.

mod activation_functions;
mod allocations;
mod bad_files;
mod bad_float_files;
mod bad_input;
mod bad_scaled_files;
mod batches;
mod checkpoint;
mod contents;
mod dataset;
mod digest;
mod empty_dimensions;
mod evidence;
#[path = "../../../qcore/tests/all/fixture.rs"]
mod fixture;
mod gguf;
mod input_groups;
mod input_scale;
mod integer_models;
mod k_orders;
mod layer_files;
mod layers;
mod linear_scalar;
mod mnist;
mod nbits;
mod odd_shapes;
mod packed;
mod pass;
mod recipe;
mod reduce_range;
mod restored;
mod scalar;
mod schemes_in_files;
mod shards;
mod shared_input;
mod small;
mod tensor_files;
mod transformer;
mod trials;
mod weight_only;
mod whole_models;
