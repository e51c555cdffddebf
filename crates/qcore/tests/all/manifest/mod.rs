//! Walks the manifest of reference fixtures and runs every case in it. A case that nothing runs
//! fails the test.

mod integer;
mod observers;
mod per_channel;
mod per_tensor;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::fixture::{self, Case, Group};

/// The outcome of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Every output is reproduced within the tolerance of the case.
    Passed,
    /// The tensor of the case is not stored. Its figures are reproduced on another draw of it.
    ForInformation,
    /// The source of the case has no result for it. Here it is a typed error, which was tested.
    Undefined,
    /// Nothing runs this case.
    Unknown,
}

/// Runs one case.
type Runner = fn(&Case) -> Outcome;

/// The files of the manifest, and the function that runs the cases of each.
const FILES: [(&str, Runner); 9] = [
    ("00_rounding", per_tensor::rounding),
    ("01_symmetric", per_tensor::symmetric),
    ("02_asymmetric_u8", per_tensor::affine_unsigned),
    ("03_affine_i8", per_tensor::tinytorch),
    ("04_linear_nbit", per_tensor::lab2_linear),
    ("05_per_channel", per_channel::run),
    ("06_quantized_linear", integer::run),
    ("07_error_metrics", per_channel::errors),
    ("09_observers", observers::run),
];

#[test]
fn every_case_of_the_manifest() {
    let manifest = fs::read(fixture::dir().join("fixtures.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let mut expected: BTreeMap<&str, &str> = BTreeMap::new();
    for case in manifest["cases"].as_array().unwrap() {
        expected.insert(case["name"].as_str().unwrap(), case["file"].as_str().unwrap());
    }
    assert_eq!(expected.len(), 314, "names are unique");

    let mut tally: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (file, run) in FILES {
        for case in Group::load(file).cases() {
            let outcome = run(case);
            assert_ne!(outcome, Outcome::Unknown, "nothing runs {} of {file}", case.name);
            *tally.entry(outcome).or_default() += 1;
            assert!(expected.remove(case.name.as_str()).is_some(), "{} ran twice", case.name);
        }
    }
    assert!(expected.is_empty(), "nothing runs {expected:?}");
    let outcomes = [(Outcome::Passed, 310), (Outcome::ForInformation, 1), (Outcome::Undefined, 3)];
    assert_eq!(tally, BTreeMap::from(outcomes));
}
