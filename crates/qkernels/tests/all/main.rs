//! The tests of the public API, in one program. Several programs would each compile the loops of a
//! product for every output stage. To run one file of them:
//! `cargo test --package qkernels --test all stages::`.
//!
//! Tests that need a process of their own, with limits of its memory, run this program again.

mod activations;
mod bad_input;
mod columns;
mod differential;
mod dynamic;
mod elementwise;
mod empty_dimensions;
mod extremes;
#[path = "../../../qcore/tests/all/fixture.rs"]
mod fixture;
mod fixtures;
mod float_errors;
mod float_product;
mod float_rows;
mod forced;
mod generic;
mod group_activations;
mod guard_page;
mod input_order;
mod invariance;
mod many_rows;
mod minimums;
mod no_allocation;
mod oracle;
mod ordered;
mod proven;
mod quantized_rows;
mod ranges;
mod scaled;
mod stack;
mod stages;
mod stages_in_l1;
mod weight_only;
mod weight_only_errors;
mod weights;
