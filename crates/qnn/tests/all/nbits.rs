//! `MatMulNBits` of ONNX Runtime: what its operands stand for, and what is wrong with some.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use half::f16;
use proptest::prelude::*;
use proptest::sample::select;
use qcore::ActivationFunction;
use qkernels::Kernel;
use qnn::{
    CodesForm, InputGroupError, LayerFile, Linear, MatMulNBits, NBitsError, NBitsZeros, WeightOnlyLinear,
    layers_to_bytes,
};
use safetensors::SafeTensors;

use crate::packed::{FORMS, W4A8, assert_close, narrowed, product, quantized, run, values};

/// The layer in a form, with the name "q".
fn make<F: qcore::Float>(
    node: &MatMulNBits<'_, F>,
    form: CodesForm,
    kernel: Kernel,
) -> Result<Linear, NBitsError> {
    node.layer("q", form, ActivationFunction::Identity, kernel)
}

fn weight_only<F: qcore::Float>(node: &MatMulNBits<'_, F>) -> WeightOnlyLinear {
    let layer = make(node, CodesForm::WeightOnly, Kernel::select().unwrap());
    let Linear::WeightOnly(layer) = layer.unwrap() else { panic!("another form") };
    layer
}

#[test]
fn layers_stand_for_the_values_of_onnx_runtime() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/packed/nbits.safetensors"].iter().collect();
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases: BTreeMap<&str, BTreeMap<&str, _>> = BTreeMap::new();
    for (name, tensor) in file.iter() {
        let (case, part) = name.rsplit_once('/').unwrap();
        cases.entry(case).or_default().insert(part, tensor);
    }
    assert_eq!(cases.len(), 20);
    for (name, parts) in &cases {
        let floats = |part: &str| narrowed(&values(&parts[part]));
        let &[n, _, blob] = parts["B"].shape() else { panic!("{name}") };
        let k = parts["x"].shape()[1];
        let bits = if name.starts_with("w4") { 4 } else { 8 };
        let (scales, x) = (floats("scales"), floats("x"));
        let node = MatMulNBits {
            n,
            k,
            bits,
            block_size: blob * 8 / bits as usize,
            b: parts["B"].data(),
            scales: &scales,
            zero_points: parts.get("zero_points").map(|zeros| NBitsZeros::Packed(zeros.data())),
            g_idx: None,
            bias: None,
        };
        let y: Vec<_> = values(&parts["y"]).into_iter().zip(values(&parts["y_abs"])).collect();
        let dequantized = weight_only(&node).unpack();
        if parts.contains_key("dequantized") {
            assert_eq!(dequantized, floats("dequantized"), "{name}");
        }
        // With the padding behind k.
        let (codes, padded) = (parts["codes"].data(), parts["codes"].shape()[1]);
        let mut outputs = Vec::new();
        for kernel in Kernel::available() {
            let layer = make(&node, CodesForm::WeightOnly, kernel).unwrap();
            assert_close(&run(&layer, &x), &y, name);
            let Linear::WeightOnly(layer) = layer else { panic!("another form") };
            assert_eq!(layer.weights().bits(), bits, "{name}");
            let got = layer.weights().unpack();
            for (row, codes) in got.chunks(k).zip(codes.chunks(padded)) {
                let shift = if bits == 8 { 0x80 } else { 0 };
                assert!(
                    row.iter().zip(codes).all(|(got, code)| got.cast_unsigned() ^ shift == *code),
                    "{name}"
                );
            }
            let layer = make(&node, W4A8, kernel).unwrap();
            let expected: Vec<f64> = dequantized.iter().map(|&value| value.into()).collect();
            assert_close(&run(&layer, &x), &product(&quantized(&x, k), &expected, k), name);
            let saved = layers_to_bytes(&layer).unwrap();
            let restored = LayerFile::parse(&saved).unwrap().take("q", Some(kernel)).unwrap();
            assert_eq!(run(&restored, &x), run(&layer, &x), "{name}");
            outputs.push(run(&layer, &x));
        }
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{name}");
        let Linear::Float(float) = make(&node, CodesForm::Float, Kernel::select().unwrap()).unwrap() else {
            panic!("another form")
        };
        assert_eq!(float.weight(), dequantized, "{name}");
    }
}

/// n = 2, k = 40 in blocks of 16: three blocks, of which the last has 8 inputs.
const B: [u8; 2 * 3 * 8] = {
    let mut bytes = [0; 48];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at * 37 % 256) as u8;
        at += 1;
    }
    bytes
};
const SCALES: [f32; 6] = [0.5, -0.25, 1.0, 2.0, 0.125, 3.0];

fn node<'a>() -> MatMulNBits<'a> {
    let (n, k, bits, block_size) = (2, 40, 4, 16);
    MatMulNBits { n, k, bits, block_size, b: &B, scales: &SCALES, zero_points: None, g_idx: None, bias: None }
}

/// The code of output j and input p.
fn code(j: usize, p: usize) -> f32 {
    f32::from(B[j * 24 + p / 2] >> (p % 2 * 4) & 15)
}

/// Values by a formula of output, block and code.
fn by(value: impl Fn(usize, f32) -> f32) -> Vec<f32> {
    let at = |at: usize| (at / 40, at % 40);
    (0..80).map(at).map(|(j, p)| value(j * 3 + p / 16, code(j, p))).collect()
}

#[test]
fn zero_points_are_integers_or_floats() {
    let default = by(|group, code| (code - 8.0) * SCALES[group]);
    assert_eq!(weight_only(&node()).unpack(), default);
    // The half byte behind the third block of a row says nothing.
    let packed = NBitsZeros::Packed(&[0x1f, 0xf7, 0x80, 0x03]);
    let expected = [15.0, 1.0, 7.0, 0.0, 8.0, 3.0];
    let values = by(|group, code| (code - expected[group]) * SCALES[group]);
    let layer = weight_only(&MatMulNBits { zero_points: Some(packed), ..node() });
    assert_eq!((layer.unpack(), layer.weights().minimums()), (values.clone(), None));
    // The same as floats are the same layer.
    let floats = NBitsZeros::Floats(&expected);
    let layer = weight_only(&MatMulNBits { zero_points: Some(floats), ..node() });
    assert_eq!((layer.unpack(), layer.weights().minimums()), (values, None));
    assert_eq!(layer.weights().zero_points().unwrap(), expected.map(|zero| zero as i8));
    // Others become minimums, those beside them stay zero points.
    let mixed = [7.5, 15.0, -1.0, 16.0, 0.3, 0.0];
    let node_of_mixed = MatMulNBits { zero_points: Some(NBitsZeros::Floats(&mixed)), ..node() };
    let layer = weight_only(&node_of_mixed);
    assert_eq!(layer.weights().zero_points().unwrap(), [0, 15, 0, 0, 0, 0]);
    let expected = [-3.75, 0.0, 1.0, -32.0, -0.3 * 0.125, 0.0];
    assert_eq!(layer.weights().minimums().unwrap(), expected);
    let zero = |group: usize| if group == 1 { 15.0 } else { 0.0 };
    assert_eq!(layer.unpack(), by(|group, code| (code - zero(group)) * SCALES[group] + expected[group]));
    // All types of floats.
    let halves = SCALES.map(f16::from_f32);
    let zeros = mixed.map(f16::from_f32);
    let bias = [f16::ONE, f16::NEG_ONE];
    let of_halves = MatMulNBits {
        n: 2,
        k: 40,
        bits: 4,
        block_size: 16,
        b: &B,
        scales: &halves,
        zero_points: Some(NBitsZeros::Floats(&zeros)),
        g_idx: None,
        bias: Some(&bias),
    };
    let layer = weight_only(&of_halves);
    assert_eq!(layer.bias(), Some(&[1.0, -1.0][..]));
    assert_eq!(layer.weights().minimums().unwrap()[..4], expected[..4]);
    // A dynamic layer has the values of the definition, too.
    let x: Vec<f32> = (0..80).map(|i| (i as f32 * 0.37).sin()).collect();
    let values: Vec<f64> = weight_only(&node_of_mixed).unpack().iter().map(|&value| value.into()).collect();
    for kernel in Kernel::available() {
        let layer = make(&node_of_mixed, W4A8, kernel).unwrap();
        assert_close(&run(&layer, &x), &product(&quantized(&x, 40), &values, 40), "mixed");
    }
}

#[test]
fn bytes_have_zero_points_of_their_own() {
    let b: Vec<u8> = (0..2 * 32).map(|at| (at * 37 % 256) as u8).collect();
    let node = MatMulNBits::<f32> {
        n: 2,
        k: 20,
        bits: 8,
        block_size: 16,
        b: &b,
        scales: &[0.5, 2.0, -1.0, 0.25],
        zero_points: None,
        g_idx: None,
        bias: None,
    };
    let by = |zeros: [f32; 4]| -> Vec<f32> {
        let at = |at: usize| (at / 20 * 2 + at % 20 / 16, f32::from(b[at / 20 * 32 + at % 20]));
        (0..40).map(at).map(|(group, code)| (code - zeros[group]) * node.scales[group]).collect()
    };
    assert_eq!(weight_only(&node).unpack(), by([128.0; 4]));
    let zeros = NBitsZeros::Packed(&[0, 255, 128, 7]);
    let layer = weight_only(&MatMulNBits { zero_points: Some(zeros), ..node });
    assert_eq!(layer.unpack(), by([0.0, 255.0, 128.0, 7.0]));
    let zeros = NBitsZeros::Floats(&[0.0, 255.0, 128.0, 7.0]);
    assert_eq!(weight_only(&MatMulNBits { zero_points: Some(zeros), ..node }).unpack(), layer.unpack());
    // Halves are exact here.
    let zeros = NBitsZeros::Floats(&[0.5, 255.0, 256.0, -7.0]);
    let layer = weight_only(&MatMulNBits { zero_points: Some(zeros), ..node });
    assert_eq!(layer.unpack(), by([0.5, 255.0, 256.0, -7.0]));
    assert_eq!(layer.weights().minimums().unwrap(), [-0.25, 0.0, 256.0, 1.75]);
}

#[test]
fn inputs_may_be_in_any_block() {
    // The last of three blocks has 8 inputs: every fifth one.
    let mut counts = [0; 3];
    let g_idx: Vec<i32> = (0..40)
        .map(|input| {
            let block = if input % 5 == 0 { 2 } else { usize::from(counts[0] == 16) };
            counts[block] += 1;
            block as i32
        })
        .collect();
    let at = |at: usize| (at / 40, at % 40);
    let expected: Vec<f32> =
        (0..80).map(at).map(|(j, p)| (code(j, p) - 8.0) * SCALES[j * 3 + g_idx[p] as usize]).collect();
    let x: Vec<f32> = (0..80).map(|i| (i as f32 * 0.37).sin()).collect();
    let values: Vec<f64> = expected.iter().map(|&value| value.into()).collect();
    // What stands behind input k says nothing.
    let padded: Vec<i32> = g_idx.iter().copied().chain([-1; 8]).collect();
    for g_idx in [&g_idx, &padded] {
        let node = MatMulNBits { g_idx: Some(g_idx), ..node() };
        assert_eq!(weight_only(&node).unpack(), expected);
        assert!(weight_only(&node).weights().input_order().is_some());
        for kernel in Kernel::available() {
            let layer = make(&node, CodesForm::WeightOnly, kernel).unwrap();
            assert_close(&run(&layer, &x), &product(&x, &values, 40), "weight-only");
            let layer = make(&node, W4A8, kernel).unwrap();
            assert_close(&run(&layer, &x), &product(&quantized(&x, 40), &values, 40), "dynamic");
        }
    }
    let fails = |at: usize, block: i32| {
        let mut g_idx = g_idx.clone();
        g_idx[at] = block;
        make(&MatMulNBits { g_idx: Some(&g_idx), ..node() }, W4A8, Kernel::select().unwrap()).unwrap_err()
    };
    let NBitsError::InputGroups { error, .. } = fails(7, -1) else { panic!("another error") };
    assert_eq!(error, InputGroupError::Group { input: 7, group: -1, groups: 3 });
    assert_eq!(
        fails(39, 3).to_string(),
        r#"layer "q": g_idx: input 39 is in group 3, which is none of 0..3"#
    );
    assert_eq!(fails(0, 1).to_string(), r#"layer "q": g_idx: group 1 has 17 inputs, expected 16"#);
}

#[test]
fn what_does_not_fit_is_named() {
    let fails = |node: MatMulNBits<'_>, message: &str| {
        for form in FORMS {
            let error = make(&node, form, Kernel::select().unwrap()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    };
    for bits in [0, 2, 3, 16, u32::MAX] {
        let message = format!(r#"layer "q": codes of {bits} bits; those of 4 and 8 are read"#);
        fails(MatMulNBits { bits, ..node() }, &message);
    }
    for block_size in [0, 1, 8, 24, 48, usize::MAX] {
        let message = format!(
            r#"layer "q": blocks of {block_size}; their length must be a power of two, and 16 at least"#
        );
        fails(MatMulNBits { block_size, ..node() }, &message);
    }
    for (n, k) in [(0, 40), (2, 0), (0, usize::MAX)] {
        let message = format!(r#"layer "q": n = {n} outputs and k = {k} inputs; both must be at least 1"#);
        fails(MatMulNBits { n, k, ..node() }, &message);
    }
    fails(MatMulNBits { b: &B[1..], ..node() }, r#"layer "q": B has 47 elements, expected 48"#);
    fails(MatMulNBits { n: 3, ..node() }, r#"layer "q": B has 48 elements, expected 72"#);
    fails(MatMulNBits { bits: 8, ..node() }, r#"layer "q": B has 48 elements, expected 96"#);
    fails(MatMulNBits { block_size: 32, ..node() }, r#"layer "q": B has 48 elements, expected 64"#);
    // More than `usize` counts, and still the number that the shape asks for.
    let most = usize::MAX as u128;
    let longest = 1 << (usize::BITS - 1);
    for (huge, expected) in [
        (MatMulNBits { n: usize::MAX, ..node() }, most * 24),
        (MatMulNBits { k: usize::MAX, ..node() }, most + 1),
        (
            MatMulNBits { n: usize::MAX, k: usize::MAX, block_size: longest, bits: 8, ..node() },
            most * (most + 1),
        ),
    ] {
        fails(huge, &format!(r#"layer "q": B has 48 elements, expected {expected}"#));
    }
    fails(MatMulNBits { scales: &SCALES[1..], ..node() }, r#"layer "q": scales has 5 elements, expected 6"#);
    let zeros = Some(NBitsZeros::Packed(&[0; 3]));
    fails(
        MatMulNBits { zero_points: zeros, ..node() },
        r#"layer "q": zero_points has 3 elements, expected 4"#,
    );
    let zeros = Some(NBitsZeros::Floats(&[0.0; 7]));
    fails(
        MatMulNBits { zero_points: zeros, ..node() },
        r#"layer "q": zero_points has 7 elements, expected 6"#,
    );
    for len in [0, 39, 41, 47, 49] {
        let g_idx = vec![0; len];
        let message = format!(r#"layer "q": g_idx has {len} elements, expected 40"#);
        fails(MatMulNBits { g_idx: Some(&g_idx), ..node() }, &message);
    }
    fails(MatMulNBits { bias: Some(&[0.0; 3]), ..node() }, r#"layer "q": bias has 3 elements, expected 2"#);
    let infinite = [1.0, f32::INFINITY, 1.0, 1.0, 1.0, 1.0];
    fails(
        MatMulNBits { scales: &infinite, ..node() },
        r#"layer "q": the scale of group 1 of channel 0 is inf; it must be finite"#,
    );
    for (zero, scale, text) in [
        (f32::NAN, 1.0, "the zero point of block 1 of channel 1 is NaN"),
        (f32::INFINITY, 1.0, "the zero point of block 1 of channel 1 is inf"),
        // A product that is none.
        (-1e30, 1e30, "the minimum of group 1 of channel 1 is inf"),
    ] {
        let (mut zeros, mut scales) = ([0.0; 6], [1.0; 6]);
        (zeros[4], scales[4]) = (zero, scale);
        let zero_points = Some(NBitsZeros::Floats(&zeros));
        let message = format!(r#"layer "q": {text}; it must be finite"#);
        fails(MatMulNBits { zero_points, scales: &scales, ..node() }, &message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any numbers, often with operands of the lengths which they ask for: a layer, which then runs
    /// and is saved, or an error.
    #[test]
    fn hostile_operands_never_panic(
        n in select(vec![0, 1, 2, usize::MAX]),
        k in select(vec![0, 1, 15, 16, 17, 40, usize::MAX]),
        bits in select(vec![2, 4, 8]),
        block_size in select(vec![0, 16, 32, 64, 1 << 63]),
        longer in select(vec![0, 0, 0, 1]),
        bytes in proptest::collection::vec(any::<u8>(), 128),
        values in proptest::collection::vec(any::<f32>(), 8),
        g_idx in proptest::option::of(proptest::collection::vec(-1..3_i32, 1..64)),
        zeros in 0..3,
    ) {
        let blocks = k.div_ceil(usize::max(block_size, 1));
        let of = |each: usize| n.saturating_mul(each).saturating_add(longer).min(128);
        let b = &bytes[..of(blocks.saturating_mul(block_size / 8).saturating_mul(bits as usize))];
        let scales = &values[..of(blocks).min(8)];
        let zero_points = match zeros {
            0 => None,
            1 => Some(NBitsZeros::Packed(&bytes[..of((blocks.saturating_mul(bits as usize)).div_ceil(8))])),
            _ => Some(NBitsZeros::Floats(scales)),
        };
        let g_idx = g_idx.as_deref();
        let node = MatMulNBits { n, k, bits, block_size, b, scales, zero_points, g_idx, bias: None };
        for form in FORMS {
            if let Ok(layer) = make(&node, form, Kernel::select().unwrap()) {
                let saved = layers_to_bytes(&layer).unwrap();
                let restored = LayerFile::parse(&saved).unwrap().take("q", None).unwrap();
                prop_assert!(layers_to_bytes(&restored).unwrap() == saved);
            }
        }
    }
}
