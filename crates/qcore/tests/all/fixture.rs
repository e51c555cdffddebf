//! Reads the reference fixtures of `crates/qcore/tests/fixtures`: cases by name, tensors by label,
//! and comparisons within the tolerance of each case. The tests of the other crates include this
//! file by `#[path]`.

#![allow(dead_code, reason = "each program that includes this file uses a part of it")]

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The folder of the fixtures, from any crate beside qcore.
pub(crate) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../qcore/tests/fixtures")
}

/// The cases of one file, such as "01_symmetric", in the order of the manifest.
pub(crate) struct Group {
    cases: Vec<Case>,
}

impl Group {
    /// Loads a file's cases with their tensors.
    pub(crate) fn load(file: &str) -> Group {
        let manifest: Value =
            serde_json::from_slice(&read(&dir().join("fixtures.json"))).expect("a JSON manifest");
        let tensors = load_tensors(&dir().join(format!("{file}.safetensors")));
        let file = format!("{file}.safetensors");
        let cases = manifest["cases"].as_array().expect("a list of cases").iter();
        let cases: Vec<Case> =
            cases.filter(|case| case["file"] == *file).map(|case| Case::new(case, &tensors)).collect();
        assert!(!cases.is_empty(), "no cases of {file} in the manifest");
        Group { cases }
    }

    /// All cases.
    pub(crate) fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The cases whose name begins with `prefix`.
    pub(crate) fn starting(&self, prefix: &str) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(move |case| case.name.starts_with(prefix))
    }

    /// One case.
    pub(crate) fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
    }
}

/// One case: inputs, expected outputs, parameters and tolerances.
pub(crate) struct Case {
    /// Its name, unique in the manifest.
    pub(crate) name: String,
    json: Value,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    fn new(json: &Value, file: &HashMap<String, Tensor>) -> Case {
        let name = json["name"].as_str().expect("a name").to_owned();
        let mut tensors = HashMap::new();
        for kind in ["inputs", "outputs"] {
            for (label, entry) in json[kind].as_object().expect("labels") {
                let key = entry["tensor"].as_str().expect("a tensor's key");
                let tensor = file.get(key).unwrap_or_else(|| panic!("{name}: no tensor {key}"));
                tensors.insert(label.clone(), tensor.clone());
            }
        }
        Case { name, json: json.clone(), tensors }
    }

    /// Whether the case has a tensor of this label.
    pub(crate) fn has(&self, label: &str) -> bool {
        self.tensors.contains_key(label)
    }

    /// The elements of an input or output.
    pub(crate) fn get<T: Element>(&self, label: &str) -> Vec<T> {
        let tensor = self.tensor(label);
        assert_eq!(tensor.dtype, T::DTYPE, "{}: type of {label}", self.name);
        tensor.bytes.chunks_exact(size_of::<T>()).map(T::from_le).collect()
    }

    /// The single element of an input or output.
    pub(crate) fn scalar<T: Element>(&self, label: &str) -> T {
        match self.get::<T>(label).as_slice() {
            &[value] => value,
            values => panic!("{}: {label} has {} elements", self.name, values.len()),
        }
    }

    /// The shape of an input or output.
    pub(crate) fn shape(&self, label: &str) -> &[usize] {
        &self.tensor(label).shape
    }

    /// The type of an input or output.
    pub(crate) fn dtype(&self, label: &str) -> Dtype {
        self.tensor(label).dtype
    }

    /// An integer among the parameters, such as "num_bits".
    pub(crate) fn int(&self, param: &str) -> i64 {
        self.param(param).as_i64().unwrap_or_else(|| panic!("{}: parameter {param} is no integer", self.name))
    }

    /// A number among the parameters.
    pub(crate) fn float(&self, param: &str) -> f64 {
        self.param(param).as_f64().unwrap_or_else(|| panic!("{}: parameter {param} is no number", self.name))
    }

    /// A parameter of any type; null if the case has none of this name.
    pub(crate) fn param(&self, param: &str) -> &Value {
        &self.json["params"][param]
    }

    /// A JSON output, null if the case has none of this name.
    pub(crate) fn value(&self, label: &str) -> &Value {
        &self.json["values"][label]
    }

    /// The JSON outputs' labels.
    pub(crate) fn value_labels(&self) -> Vec<&str> {
        self.json["values"]
            .as_object()
            .map(|values| values.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// Compares with an output, within the tolerance that the case has for it.
    #[track_caller]
    pub(crate) fn check<T: Element>(&self, label: &str, got: &[T]) {
        let want = self.get::<T>(label);
        assert_eq!(got.len(), want.len(), "{}: length of {label}", self.name);
        let tolerance = self.tolerance(label);
        for (index, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let name = &self.name;
            assert!(
                tolerance.accepts(got, want),
                "{name}: {label}[{index}] is {got}, expected {want} ({tolerance:?})"
            );
        }
    }

    /// Compares one value with a scalar output.
    #[track_caller]
    pub(crate) fn check_scalar<T: Element>(&self, label: &str, got: T) {
        self.check(label, &[got]);
    }

    /// Compares with a JSON output, within the tolerance that the case has for it.
    #[track_caller]
    pub(crate) fn check_value(&self, label: &str, got: f64) {
        let want = match self.value(label) {
            Value::String(s) if s == "inf" => f64::INFINITY,
            Value::String(s) if s == "-inf" => f64::NEG_INFINITY,
            value => value.as_f64().unwrap_or_else(|| panic!("{}: value {label} is {value}", self.name)),
        };
        let tolerance = self.tolerance(label);
        let name = &self.name;
        assert!(
            tolerance.accepts(got, want),
            "{name}: value {label} is {got}, expected {want} ({tolerance:?})"
        );
    }

    /// The relative tolerance of a JSON output that is a list.
    pub(crate) fn tolerance_of(&self, label: &str) -> f64 {
        match self.tolerance(label) {
            Tolerance::AbsRel { abs: 0.0, rel } => rel,
            other => panic!("{}: tolerance of {label} is {other:?}", self.name),
        }
    }

    fn tensor(&self, label: &str) -> &Tensor {
        self.tensors.get(label).unwrap_or_else(|| panic!("{}: no tensor {label}", self.name))
    }

    fn tolerance(&self, label: &str) -> Tolerance {
        let all = &self.json["tolerance"];
        let entry = all.get(label).unwrap_or(&all["*"]);
        let number = |field: &str| entry[field].as_f64();
        match (entry.as_str(), number("max_diff"), number("abs"), number("rel")) {
            (Some("exact"), ..) => Tolerance::Exact,
            (_, Some(n), ..) => Tolerance::MaxDiff(n),
            (_, _, Some(abs), Some(rel)) => Tolerance::AbsRel { abs, rel },
            _ => panic!("{}: tolerance of {label} is {entry}", self.name),
        }
    }
}

/// How far a result may be from what is expected.
#[derive(Clone, Copy, Debug)]
enum Tolerance {
    /// The same bits. Any NaN equals any other.
    Exact,
    /// Integers may differ by this much.
    MaxDiff(f64),
    /// `|got - want| <= abs + rel * |want|`.
    AbsRel { abs: f64, rel: f64 },
}

impl Tolerance {
    fn accepts<T: Element>(self, got: T, want: T) -> bool {
        let (g, w) = (got.to_f64(), want.to_f64());
        let same = got.to_bits() == want.to_bits() || (g.is_nan() && w.is_nan());
        match self {
            Tolerance::Exact => same,
            Tolerance::MaxDiff(n) => same || (g - w).abs() <= n,
            Tolerance::AbsRel { abs, rel } => same || (g - w).abs() <= abs + rel * w.abs(),
        }
    }
}

/// A type of tensor elements.
pub(crate) trait Element: Copy + Debug + Display {
    /// Its name in a safetensors file.
    const DTYPE: Dtype;
    /// From little-endian bytes.
    fn from_le(bytes: &[u8]) -> Self;
    /// Its value; i64 beyond 2^53 is rounded.
    fn to_f64(self) -> f64;
    /// Its bits, or another integer that is as exact.
    fn to_bits(self) -> u64;
}

macro_rules! element {
    ($type:ty, $dtype:ident, $to_f64:expr, $to_bits:expr) => {
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            fn from_le(bytes: &[u8]) -> Self {
                <$type>::from_le_bytes(bytes.try_into().expect("as many bytes as the type has"))
            }
            fn to_f64(self) -> f64 {
                ($to_f64)(self)
            }
            fn to_bits(self) -> u64 {
                ($to_bits)(self)
            }
        }
    };
}

element!(f64, F64, |v| v, f64::to_bits);
element!(f32, F32, f64::from, |v| u64::from(f32::to_bits(v)));
element!(f16, F16, f16::to_f64, |v| u64::from(f16::to_bits(v)));
element!(i64, I64, |v| v as f64, |v| v as u64);
element!(i32, I32, f64::from, |v| v as u64);
element!(i8, I8, f64::from, |v| v as u64);
element!(u8, U8, f64::from, u64::from);

/// A tensor as it stands in a file.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    /// The elements, which must be f32.
    pub(crate) fn f32(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        self.bytes.chunks_exact(4).map(f32::from_le).collect()
    }
}

/// All tensors of a safetensors file.
pub(crate) fn load_tensors(path: &Path) -> HashMap<String, Tensor> {
    let bytes = read(path);
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let copy = |view: safetensors::tensor::TensorView<'_>| Tensor {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, copy(view))).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
