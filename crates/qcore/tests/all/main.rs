//! The tests of the public API, in one program: several would each compile the same generic code.
//! To run one file of them: `cargo test --package qcore --test all manifest::`.

mod answers;
mod blocks;
mod documentation;
mod fixture;
mod manifest;
mod observers;
mod properties;
mod requantize_exact;
