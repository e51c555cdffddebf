//! Runs the demonstrations as a user does, and checks what they print, what they write, and how
//! they fail.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn xtask(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("xtask starts")
}

/// Pictures that depend only on arithmetic in a fixed order. The demos must draw exactly the
/// pictures of the documentation.
const EXACT: [&str; 5] = ["linear-quantize", "symmetric", "symmetric-bits", "asymmetric", "per-channel"];

/// Runs a demo that writes to a folder of its own, and returns its output without the lines that
/// name files.
fn demo(arguments: &[&str], stems: &[&str]) -> String {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().to_str().expect("a path in UTF-8");
    let output = xtask(&[&["demo"], arguments, &["--out", out]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for stem in stems {
        for extension in ["png", "svg"] {
            let path = folder.path().join(format!("{stem}.{extension}"));
            assert!(text.contains(&format!("Saved: {}\n", path.display())), "{text}");
            check_picture(&path);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2 * stems.len());
    text.lines().filter(|line| !line.starts_with("Saved: ")).map(|line| format!("{line}\n")).collect()
}

fn check_picture(path: &Path) {
    let bytes = fs::read(path).expect("a picture");
    let png = path.extension().is_some_and(|extension| extension == "png");
    let start: &[u8] = if png { b"\x89PNG\r\n\x1a\n" } else { b"<svg " };
    assert!(bytes.starts_with(start) && bytes.len() > 2000, "{}: {} bytes", path.display(), bytes.len());
}

/// The single line that a failing command prints.
fn error(arguments: &[&str]) -> String {
    let output = xtask(arguments);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

#[test]
fn linear_quantize_prints_what_the_course_prints() {
    let expected = "* Test linear_quantize()\n    target bitwidth: 2 bits\n        scale: 0.3333333333333333\n        zero point: -1\n* Test passed.\n";
    assert_eq!(demo(&["linear-quantize"], &["linear-quantize"]), expected);
}

#[test]
fn the_documentation_has_the_pictures_that_are_drawn() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().to_str().expect("a path in UTF-8");
    for name in ["linear-quantize", "symmetric", "asymmetric", "per-channel"] {
        assert!(xtask(&["demo", name, "--out", out]).status.success());
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/figures");
    for stem in EXACT {
        let file = format!("{stem}.svg");
        let [drawn, kept] = [folder.path(), &committed].map(|folder| fs::read_to_string(folder.join(&file)));
        assert!(drawn.expect("drawn") == kept.expect("kept"), "{file} is old: cargo xtask repro --out docs");
    }
}

#[test]
fn linear_quantize_passes_at_every_bitwidth() {
    for bits in ["2", "3", "4", "5", "6", "7", "8"] {
        let text = demo(&["linear-quantize", "--bitwidth", bits], &["linear-quantize"]);
        assert!(text.ends_with("* Test passed.\n"), "{text}");
        assert!(text.contains(&format!("target bitwidth: {bits} bits\n")), "{text}");
    }
}

#[test]
fn quantized_fc_prints_what_the_course_prints() {
    let expected = "* Test quantized_fc()\n    target bitwidth: 2 bits\n      batch size: 4\n      input channels: 8\n      output channels: 8\n* Test passed.\n";
    assert_eq!(demo(&["quantized-fc"], &["quantized-fc"]), expected);
}

#[test]
fn the_tutorial_s_figures_are_reproduced() {
    let text = demo(&["symmetric"], &["symmetric", "symmetric-bits"]);
    for part in
        ["scale: 0.03315781\n", "largest error: 0.015412 ", "mean error: 0.008745\n", "error: 1.41 %\n"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = demo(&["asymmetric"], &["asymmetric", "asymmetric-bits"]);
    for part in
        ["zero point: 0\n", "largest error: 0.003339 ", "mean error: 0.000834\n", "reduces error by 2.9x\n"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = demo(&["per-channel"], &["per-channel"]);
    for part in ["* Per-channel quantization reduces error by 3.7x\n", "per-tensor:  0.043527\n", "273.0x\n"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_layer_and_a_network_are_as_small_as_they_should_be() {
    let text = demo(&["linear"], &["linear"]);
    for part in ["f32:  525312 bytes\n", "int8: 133120 bytes ", "compression: 3.95x\n"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = demo(&["mlp"], &["mlp"]);
    for part in ["2678824  676944        3.96x\n", "* Logits of 2500 test images\n"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn every_layer_of_the_vgg_is_shown() {
    for bits in ["32", "8", "4", "2"] {
        let text = demo(&["weight-histograms", "--bitwidth", bits], &[&format!("weight-histograms-{bits}")]);
        assert!(text.contains("layers: 9\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("backbone.conv")).count(), 8, "{text}");
    }
}

#[test]
fn another_file_can_be_shown() {
    let file =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/qnn/data/mnist/mnist_mlp_784_256_128_10.safetensors");
    let text = demo(&["weight-histograms", "--bitwidth", "4", "--model", file], &["weight-histograms-4"]);
    assert!(text.contains("layers: 3\n") && text.contains("fc3"), "{text}");
}

#[test]
fn sensitivity_shows_both_networks() {
    let text = demo(&["sensitivity"], &["sensitivity"]);
    for part in ["784-256-128-10: SQNR of the logits, dB\n", "784-512-512-10: same prediction as f32, %\n"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("all ")).count(), 4, "{text}");
}

#[test]
fn five_questions_are_answered() {
    let stems = ["questions-error", "questions-calibration", "questions-loading", "questions-lanes"];
    let text = demo(&["questions"], &stems);
    for question in 1..=5 {
        assert!(text.contains(&format!("* Question {question}: ")), "{text}");
    }
    for part in ["235146", "940584", "237904", "scale: 0.003922\n", "SQNR: 48.13 dB", "\n500  "] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_bitwidth_without_codes_is_an_error() {
    for name in ["linear-quantize", "symmetric", "asymmetric"] {
        assert_eq!(error(&["demo", name, "--bitwidth", "9"]), "error: bitwidth 9: expected 2 to 8");
    }
    let text = error(&["demo", "weight-histograms", "--bitwidth", "9"]);
    assert_eq!(text, "error: bitwidth 9: expected 2 to 8, or 32");
}

#[test]
fn a_file_that_cannot_be_shown_is_an_error() {
    let text = error(&["demo", "weight-histograms", "--model", "nowhere.safetensors"]);
    assert!(text.starts_with("error: nowhere.safetensors: "), "{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = error(&["demo", "weight-histograms", "--model", file]);
    assert!(text.starts_with(&format!("error: {file} is not a safetensors file")), "{text}");
}

#[test]
fn mnist_says_what_seven_bits_cost() {
    let output = xtask(&["demo", "mnist", "--reduce-range"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("int8 model, u8 activations of 7 bits, "), "{text}");
    // (The last digits depend on the order of the f32 sums that ranges come from.)
    let cost = text.lines().last().expect("a line");
    assert!(cost.starts_with("activations of 7 bits cost 4."), "{cost}");
    assert!(cost.contains(" dB: logits SQNR 40.") && cost.contains(" dB, with 8 bits 45."), "{cost}");
}

#[test]
fn a_file_is_named_once() {
    let text = error(&["demo", "mnist", "--data", "nowhere"]);
    let file = "nowhere/mnist_mlp_784_256_128_10.safetensors";
    assert!(text.starts_with(&format!("error: could not read {file}: ")), "{text}");
    assert_eq!(text.matches("nowhere").count(), 1, "{text}");
}

#[test]
fn half_of_a_file_is_an_error() {
    let folder = TempDir::new().expect("a folder");
    let half = folder.path().join("half.safetensors");
    let whole =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/qnn/data/mnist/mnist_mlp_784_256_128_10.safetensors");
    let bytes = fs::read(whole).expect("a file");
    fs::write(&half, &bytes[..bytes.len() / 2]).expect("a file");
    let half = half.to_str().expect("a path in UTF-8");
    let out = folder.path().join("out");
    let out = out.to_str().expect("a path in UTF-8");
    let text = error(&["demo", "weight-histograms", "--model", half, "--out", out]);
    assert!(text.starts_with(&format!("error: {half} is not a safetensors file: ")), "{text}");
}

#[test]
fn nobody_has_to_read_to_the_end() {
    let folder = TempDir::new().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "linear-quantize", "--out"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xtask starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    for command in [&["demo", "linear-quantize"][..], &["demo", "questions"], &["repro"], &["bench"]] {
        let text = error(&[command, &["--out", file]].concat());
        assert!(text.starts_with(&format!("error: cannot write to {file}: ")), "{text}");
    }
}

#[test]
fn every_demo_explains_itself() {
    let output = xtask(&["demo", "--help"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for name in [
        "mnist",
        "linear-quantize",
        "quantized-fc",
        "weight-histograms",
        "symmetric",
        "asymmetric",
        "per-channel",
        "linear",
        "mlp",
        "questions",
        "sensitivity",
    ] {
        assert!(text.contains(&format!("\n  {name} ")), "{text}");
        assert!(xtask(&["demo", name, "--help"]).status.success(), "{name}");
    }
}
