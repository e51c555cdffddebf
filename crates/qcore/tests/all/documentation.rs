//! Reads the worked numbers of `docs/quantization.md` from its tables and computes them again, and
//! follows its links.

use std::fs;
use std::path::{Path, PathBuf};

use qcore::{
    CodeRange, QParams, Range, RequantizeMode, Requantizer, Rounding, Scheme, SchemeError, ZeroPointOrder,
};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/quantization.md")
}

fn text() -> String {
    fs::read_to_string(path()).unwrap()
}

/// The body of the table whose heading begins with `heading`, cell by cell, without bold and code
/// marks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = text();
    let mut lines = text.lines().skip_while(|line| !line.starts_with(heading));
    assert!(lines.next().is_some() && lines.next().is_some(), "no table {heading:?}");
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "¦").replace(['*', '`'], "");
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('¦', "|")).collect()
    };
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// A number such as "5/127", "2^-23", "5e-7/127" or "(2^31 - 1) 2^-35". (The filter for bold marks
/// removes its asterisk.)
fn number(text: &str) -> f64 {
    if let Some((a, b)) = text.split_once('/') {
        return number(a) / number(b);
    }
    if let Some((a, b)) = text.split_once("  ") {
        return number(a) * number(b);
    }
    match text.trim_matches(['(', ')']).split_once(" - ") {
        Some((a, b)) => number(a) - number(b),
        None => match text.trim_matches(['(', ')']).split_once('^') {
            Some((a, b)) => number(a).powf(number(b)),
            None => text.trim_matches(['(', ')']).parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
        },
    }
}

#[test]
fn ties() {
    let rows = table("| x | `TiesToEven`, z = 0");
    for row in &rows {
        let x = number(&row[0]) as f32;
        let at = |z| QParams::new(1.0, z, CodeRange::I8).unwrap();
        let got = [
            at(0).quantize(x),
            at(0).with_rounding(Rounding::TiesAway).quantize(x),
            at(3).quantize(x),
            at(3).with_order(ZeroPointOrder::AddThenRound).quantize(x),
        ];
        assert_eq!(
            got.map(f64::from).to_vec(),
            row[1..].iter().map(|n| number(n)).collect::<Vec<_>>(),
            "{x}"
        );
    }
    assert_eq!(rows.len(), 6);
    let p = QParams::new(5.0 / 255.0, 153, CodeRange::U8).unwrap();
    assert_eq!((p.quantize(-2.5), p.quantize_by_reciprocal(-2.5)), (26, 25));
}

#[test]
fn requantization_modes() {
    let rows = table("| acc | m | acc * m |");
    for row in &rows {
        let (acc, m, z) = (number(&row[0]) as i32, number(&row[1]), number(&row[3]) as i32);
        assert!((number(&row[2]) - f64::from(acc) * m).abs() < 1e-4, "{row:?}");
        let code = |mode: RequantizeMode| {
            let requantizer: Requantizer = mode.requantizer(m, 1.0, 1.0).unwrap();
            requantizer.requantize(acc, z, CodeRange::I8)
        };
        let modes = [
            RequantizeMode::RoundThenAdd,
            RequantizeMode::AddThenRound,
            RequantizeMode::DoubleRounding,
            RequantizeMode::SingleRounding,
        ];
        let want: Vec<i32> = row[4..].iter().map(|n| number(n) as i32).collect();
        assert_eq!(modes.map(code).to_vec(), want, "{row:?}");
        assert_eq!(code(RequantizeMode::AddThenRoundF64), want[1], "{row:?}");
        assert_eq!(code(RequantizeMode::RoundThenAddF64), want[0], "{row:?}");
    }
    assert_eq!(rows.len(), 8);
}

fn presets() -> Vec<(&'static str, Scheme)> {
    let (i8, u8) = (CodeRange::I8, CodeRange::U8);
    vec![
        ("weights_i8", Scheme::weights_i8()),
        ("activations_u8", Scheme::activations_u8()),
        ("activations_i8", Scheme::activations_i8()),
        ("tutorial_symmetric", Scheme::tutorial_symmetric(i8)),
        ("tutorial_affine", Scheme::tutorial_affine(u8)),
        ("onnx_dynamic", Scheme::onnx_dynamic(u8)),
        ("pytorch_affine", Scheme::pytorch_affine(u8)),
        ("pytorch_symmetric", Scheme::pytorch_symmetric(i8)),
        ("tflite_weights", Scheme::tflite_weights()),
        ("tflite_activations", Scheme::tflite_activations(i8)),
        ("tinytorch", Scheme::tinytorch()),
        ("lab2_linear", Scheme::lab2_linear(i8)),
        ("lab2_weights", Scheme::lab2_weights(i8)),
        ("rowwise_epsilon", Scheme::rowwise_epsilon()),
        ("rowwise_described", Scheme::rowwise_described()),
        ("rotalabs_native_f16", Scheme::rotalabs_native_f16()),
    ]
}

/// Whether a cell describes what a scheme does to a tensor with these values.
fn agrees(cell: &str, scheme: Scheme, values: [f32; 2]) -> bool {
    let chosen = scheme.choose(Range::of(&values).unwrap());
    let off = |p: QParams| {
        let steps = values.map(|v| (f64::from(p.fake_quantize(v)) - f64::from(v)).abs() / p.scale_f64());
        steps[0].max(steps[1])
    };
    match (cell, chosen) {
        ("an error", Err(SchemeError::ZeroScale { .. })) => true,
        ("overflow, an error", Err(SchemeError::Overflow { .. })) => true,
        ("restored", Ok(p)) => off(p) < 0.001,
        ("half a step off", Ok(p)) => (off(p) - 0.5).abs() < 0.001,
        (_, Ok(p)) => {
            let (scale, rest) = cell.split_once(", ").unwrap();
            let (zero_point, restored) = rest.split_once(": ").unwrap();
            let close = |got: f64, want: f64| (got - want).abs() <= 2e-5 * want.abs();
            close(p.scale().into(), number(scale))
                && f64::from(p.zero_point()) == number(zero_point)
                && close(p.fake_quantize(values[0]).into(), number(restored))
        }
        _ => false,
    }
}

#[test]
fn degenerate_inputs() {
    let rows = table("| preset | all 0 | all 5.0");
    let inputs = [[0.0; 2], [5.0; 2], [3e-45; 2], [-1e38, 1e38], [-3e38, 3e38]];
    for ((name, scheme), row) in presets().into_iter().zip(&rows) {
        assert_eq!(row[0].split(',').next().unwrap(), name);
        for (values, cell) in inputs.into_iter().zip(&row[1..]) {
            let chosen = scheme.choose(Range::of(&values).unwrap());
            assert!(agrees(cell, scheme, values), "{name} of {values:?} is {chosen:?}, not {cell:?}");
        }
    }
    assert_eq!(rows.len(), presets().len());
    let p = Scheme::tutorial_affine(CodeRange::U8).choose(Range::new(5.4, 5.4).unwrap()).unwrap();
    assert_eq!(p.fake_quantize(5.4), 5.0);
}

#[test]
fn every_preset_has_a_row() {
    let names: Vec<String> =
        table("| preset | reproduces |").iter().map(|row| row[0].replace("(codes)", "")).collect();
    assert_eq!(names.len(), presets().len());
    for (name, _) in presets() {
        assert!(names.iter().any(|row| row == name), "{name}");
    }
}

/// Compares with the differences of the sources that the manifest of fixtures lists.
#[test]
fn every_convention_has_a_row() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fixtures.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let rows: Vec<String> = table("| choice | name |").into_iter().map(|row| row[0].clone()).collect();
    let conventions = manifest["conventions"].as_array().unwrap();
    for convention in conventions {
        let name = convention["name"].as_str().unwrap();
        assert!(rows.iter().any(|row| row == name), "no row for {name:?}");
    }
    assert_eq!(conventions.len(), 19);
}

#[test]
fn names_in_code_exist_and_links_lead_somewhere() {
    let text = text();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        match link.strip_prefix('#') {
            Some(anchor) => {
                let heading =
                    |line: &str| line.trim_start_matches(['#', ' ']).to_lowercase().replace(',', "");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| heading(line).replace(' ', "-") == anchor),
                    "no heading {anchor}"
                );
            }
            None => assert!(path().parent().unwrap().join(link).exists(), "no file {link}"),
        }
    }
    // Functions and types in code marks must occur in the sources, of this crate or of those that
    // build on it.
    let mut sources = String::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders = vec![crates.join("qcore/src"), crates.join("qkernels/src"), crates.join("qnn/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => sources.push_str(&fs::read_to_string(entry).unwrap_or_default()),
            }
        }
    }
    let body = &text[..text.find("## Figures").unwrap()];
    // Code blocks contain formulas, and these words are names of other libraries.
    let prose: String = body.split("```").step_by(2).collect();
    let others = ["quantize_int8", "reduce_range", "round", "per_row", "group", "channels"];
    for name in prose.split('`').skip(1).step_by(2) {
        let word = name.split(['(', '<', ' ', '{']).next().unwrap().rsplit("::").next().unwrap();
        let is_name = word.len() > 3 && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        if is_name && !others.contains(&word) {
            assert!(sources.contains(word), "`{name}` names nothing");
        }
    }
}
