//! Layers of every block format, with the codes, scales and minimums of the file.

use std::fs;
use std::path::PathBuf;

use qcore::{
    ActivationFunction, BlockFormat, BlockGroup, BlockPart, Scheme, group_term, group_term_with_minimum,
};
use qkernels::{Kernel, ScaledWeights};
use qnn::{CodesForm, Form, GgufError, GgufFile, GgufType, LayerFile, Linear, layers_to_bytes};

use super::writer::Writer;
use super::{FORMS, W8A8, dequantized, read, run, take};

/// Blocks of random codes, whose scales are ordinary numbers.
fn blocks(format: BlockFormat, count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut bytes: Vec<u8> = (0..count * format.block_bytes()).map(|_| next()).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in halves(format) {
            // An f16 of 2^-7 to 2^-4, of any sign.
            block[at + 1] = block[at + 1] & 0x8f | 0x20;
        }
    }
    bytes
}

/// Where the scale of a block is, and its minimum.
fn halves(format: BlockFormat) -> Vec<usize> {
    match format {
        BlockFormat::Q6K => vec![208],
        _ if format.has_minimum() => vec![0, 2],
        _ => vec![0],
    }
}

/// A file with one layer, `q`, and without a bias.
fn layer(format: BlockFormat, n: usize, k: usize, data: &[u8]) -> Vec<u8> {
    let named = ("q.weight".to_owned(), GgufType::Blocks(format), vec![n, k]);
    Writer { tensors: vec![(named, data.to_vec())], ..Writer::default() }.bytes()
}

/// A layer's blocks, taken apart: codes less their zero point, and what the other slices are for.
struct Parts {
    codes: Vec<i32>,
    groups: Vec<BlockGroup>,
    /// One for each group where the format has none.
    parts: Vec<BlockPart>,
    part_len: usize,
}

fn parts(format: BlockFormat, data: &[u8]) -> Parts {
    let blocks = data.len() / format.block_bytes();
    let mut codes = vec![0; blocks * format.block_len()];
    let mut groups = vec![BlockGroup::default(); blocks];
    let part_len = format.part_len().unwrap_or(format.block_len());
    let mut parts = vec![BlockPart { scale: 1, minimum: 1 }; codes.len() / part_len];
    match format.part_len() {
        None => format.unpack(data, &mut codes, &mut groups).unwrap(),
        Some(_) => format.unpack_parts(data, &mut codes, &mut groups, &mut parts).unwrap(),
    }
    let zero_point = i32::from(format.zero_point());
    Parts {
        codes: codes.into_iter().map(|code| i32::from(code) - zero_point).collect(),
        groups,
        parts,
        part_len,
    }
}

/// The output of a dynamic layer by the definition: exact sums of each group, one term for each.
fn by_definition(format: BlockFormat, data: &[u8], n: usize, x: &[f32]) -> Vec<f32> {
    let (k, len) = (x.len(), format.block_len());
    let Parts { codes, groups, parts, part_len } = parts(format, data);
    let range = qcore::Range::of(x).unwrap();
    let params = Scheme::weights_i8().choose(range).unwrap();
    let a: Vec<i32> = x.iter().map(|&x| params.quantize(x)).collect();
    let term = |row: usize, group: usize| {
        let at = (row * k + group * len) / len;
        let (mut sum, mut minimum) = (0, 0);
        for p in 0..len / part_len {
            let first = at * len + p * part_len;
            let part = parts[first / part_len];
            let a = &a[group * len + p * part_len..][..part_len];
            let dot: i32 = a.iter().zip(&codes[first..]).map(|(a, w)| a * w).sum();
            sum += i32::from(part.scale) * dot;
            minimum += i32::from(part.minimum) * a.iter().sum::<i32>();
        }
        let BlockGroup { scale, minimum: of_group } = groups[at];
        match format.has_minimum() {
            true => group_term_with_minimum(params.scale(), scale, sum, of_group, minimum),
            false => group_term(params.scale(), scale, sum),
        }
    };
    let output = |row| (1..k / len).fold(term(row, 0), |y, group| y + term(row, group));
    (0..n).map(output).collect()
}

/// What both forms have of a layer's weights.
fn check_weights(format: BlockFormat, data: &[u8], weights: &ScaledWeights) {
    let bits = if let BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K = format { 4 } else { 8 };
    assert_eq!((weights.bits(), weights.group_len()), (bits, format.block_len()), "{format}");
    let Parts { codes, groups, parts, part_len } = parts(format, data);
    let scales: Vec<f32> = groups.iter().map(|group| group.scale).collect();
    let minimums: Vec<f32> = groups.iter().map(|group| group.minimum).collect();
    assert_eq!(weights.scales(), scales, "{format}");
    assert_eq!(weights.minimums(), format.has_minimum().then_some(minimums), "{format}");
    assert_eq!(weights.part_len(), format.part_len(), "{format}");
    let each = |of: fn(&BlockPart) -> i8| parts.iter().map(of).collect::<Vec<i8>>();
    assert_eq!(weights.part_scales(), format.part_len().map(|_| each(|part| part.scale)), "{format}");
    let minimums = format.part_len().filter(|_| format.has_minimum()).map(|_| each(|part| part.minimum));
    assert_eq!(weights.part_minimums(), minimums, "{format}");
    // Values are those of ggml, but for the roundings of products of scales.
    let mut expected = vec![0.0; codes.len()];
    format.dequantize(data, &mut expected).unwrap();
    for (at, (got, &expected)) in weights.dequantize().into_iter().zip(&expected).enumerate() {
        let (group, part) = (groups[at / format.block_len()], parts[at / part_len]);
        let scaled = (group.scale * f32::from(part.scale) * codes[at] as f32).abs();
        let bound = (scaled + (group.minimum * f32::from(part.minimum)).abs()) * 4.0 * f32::EPSILON;
        let same =
            if format.part_len().is_none() { got == expected } else { (got - expected).abs() <= bound };
        assert!(same, "{format}: {got} at {at}, expected {expected}");
    }
}

/// On every kernel, in either form, and after it was saved.
#[test]
fn layers_of_every_format_have_the_codes_of_the_file() {
    let mut taken = 0;
    for (seed, format) in BlockFormat::ALL.into_iter().enumerate() {
        // Rows of one block and of several; columns that fill no panel.
        for (n, blocks_of_row) in [(1, 1), (5, 3), (19, 2)] {
            let k = blocks_of_row * format.block_len();
            let data = blocks(format, n * blocks_of_row, seed as u64);
            let file = layer(format, n, k, &data);
            let x: Vec<f32> = (0..2 * k).map(|i| (i as f32 * 0.61).sin() + 0.2).collect();
            let expected = [&x[..k], &x[k..]].map(|x| by_definition(format, &data, n, x)).concat();
            let relu: Vec<f32> = expected.iter().map(|y| y.max(0.0)).collect();
            for kernel in Kernel::available() {
                let what = format!("{format} {n} x {k} {kernel}");
                let dynamic = take(&file, "q", W8A8, kernel).unwrap();
                assert_eq!(run(&dynamic, &x), relu, "{what}");
                let weight_only = take(&file, "q", CodesForm::WeightOnly, kernel).unwrap();
                let Linear::WeightOnly(weights) = &weight_only else { panic!("another form") };
                check_weights(format, &data, weights.weights());
                for layer in [&dynamic, &weight_only] {
                    let saved = layers_to_bytes(layer).unwrap();
                    let mut file = LayerFile::parse(&saved).unwrap();
                    let restored = file.take("q", Some(kernel)).unwrap();
                    file.finish().unwrap();
                    let bits = |layer| run(layer, &x).into_iter().map(f32::to_bits).collect::<Vec<_>>();
                    assert_eq!(bits(&restored), bits(layer), "{what}");
                    assert_eq!(layers_to_bytes(&restored).unwrap(), saved, "{what}");
                    assert_eq!(restored.storage(), layer.storage(), "{what}");
                }
                taken += 1;
            }
        }
    }
    assert_eq!(taken, 8 * 3 * Kernel::available().count());
}

/// A constructor that does not ask for a form gets the one that the file is opened with.
#[test]
fn a_source_gives_layers_of_every_format() {
    for format in BlockFormat::ALL {
        let file = layer(format, 2, format.block_len(), &blocks(format, 2, 5));
        for (form, expected) in FORMS.into_iter().zip([Form::Float, Form::Dynamic, Form::WeightOnly]) {
            let mut file = GgufFile::parse(&file).unwrap();
            assert_eq!(file.source(form).linear("q").unwrap().form(), expected, "{format}");
            file.finish().unwrap();
        }
    }
}

/// What a layer computes is what its values stand for, up to the rounding of activations.
#[test]
fn outputs_are_those_of_the_values() {
    let kernel = Kernel::select().unwrap();
    for (seed, format) in BlockFormat::ALL.into_iter().enumerate() {
        let (n, k) = (9, 2 * format.block_len());
        let data = blocks(format, n * 2, 40 + seed as u64);
        let mut values = vec![0.0; n * k];
        format.dequantize(&data, &mut values).unwrap();
        let file = layer(format, n, k, &data);
        // Multiples of the scale, so that nothing is rounded.
        let x: Vec<f32> =
            (0..k).map(|i| if i == 3 { 127.0 } else { (i as f32 * 11.0) % 64.0 - 32.0 }).collect();
        let dot = |row: &[f32]| -> (f64, f64) {
            let terms = row.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
        };
        for form in [W8A8, CodesForm::WeightOnly] {
            let mut parsed = GgufFile::parse(&file).unwrap();
            let layer = parsed.take_linear("q", form, ActivationFunction::Identity, kernel).unwrap();
            for (row, got) in values.chunks_exact(k).zip(run(&layer, &x)) {
                let (expected, size) = dot(row);
                let error = (f64::from(got) - expected).abs();
                // Weights with minimums are small differences of larger numbers.
                assert!(error <= 1e-6 * size + 1e-4, "{format} {form:?}: {got}, expected {expected}");
            }
        }
    }
}

/// The files of the format's package, in which scales are more than ordinary.
#[test]
fn layers_of_the_package_s_files_have_its_values() {
    let kernel = Kernel::select().unwrap();
    let mut taken = 0;
    for name in ["align64", "kquants", "align32_default"] {
        let bytes = read(name);
        let parsed = GgufFile::parse(&bytes).unwrap();
        for tensor in parsed.tensors() {
            let Some((GgufType::Blocks(format), &[n, k])) = parsed.describe(tensor) else { continue };
            let mut again = parsed.clone();
            again.tie(tensor).unwrap();
            let expected = dequantized(&format!("{name}/{tensor}"));
            let form = CodesForm::WeightOnly;
            let layer = again.take_tied("q", tensor, form, ActivationFunction::Identity, kernel);
            let layer = match layer {
                Ok(Linear::WeightOnly(layer)) => layer,
                Ok(other) => panic!("{}", other.form()),
                Err(error) => {
                    assert!(expected.iter().any(|value| !value.is_finite()), "{tensor}: {error}");
                    continue;
                }
            };
            assert_eq!((layer.n(), layer.k()), (n, k));
            let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            let bound = if format.part_len().is_none() { 0.0 } else { 1e-6 * largest };
            let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= bound;
            assert!(layer.unpack().iter().zip(&expected).all(near), "{name} {tensor}");
            taken += 1;
        }
    }
    assert!(taken > 12, "{taken} of them");
}

#[test]
fn what_is_not_finite_is_named() {
    let kernel = Kernel::select().unwrap();
    let bad = |format: BlockFormat, at: usize, half: u16| {
        let mut data = blocks(format, 2, 7);
        data[format.block_bytes() + at..][..2].copy_from_slice(&half.to_le_bytes());
        layer(format, 2, format.block_len(), &data)
    };
    for format in BlockFormat::ALL {
        for (operand, at) in ["scale", "minimum"].into_iter().zip(halves(format)) {
            for half in [0x7c00, 0xfc00, 0x7e00] {
                let file = bad(format, at, half);
                for form in [W8A8, CodesForm::WeightOnly] {
                    let error = take(&file, "q", form, kernel).unwrap_err();
                    assert!(matches!(error, GgufError::Layer { .. }), "{error}");
                    let start = format!(r#"layer "q": the {operand} of group 0 of channel 1 is "#);
                    assert!(error.to_string().starts_with(&start), "{format}: {error}");
                }
                // Floats may be anything.
                let float = take(&file, "q", CodesForm::Float, kernel).map(|layer| layer.form());
                assert!(!matches!(float, Ok(form) if form != Form::Float), "{format}");
            }
        }
        for shape in [[0, format.block_len()], [format.block_len(), 0], [1 << 58, 0]] {
            let empty = layer(format, shape[0], shape[1], &[]);
            for form in FORMS {
                let error = take(&empty, "q", form, kernel).unwrap_err().to_string();
                assert!(error.contains("must be at least 1"), "{format}: {error}");
            }
        }
    }
}

/// Reports count every byte that a file has.
#[test]
fn reports_count_minimums_and_parts() {
    let kernel = Kernel::select().unwrap();
    for (format, n, blocks_of_row, expected) in [
        (BlockFormat::Q4_1, 3, 2, [3 * 32, 4 * 6, 4 * 6]),
        (BlockFormat::Q5_1, 3, 2, [3 * 64, 4 * 6, 4 * 6]),
        (BlockFormat::Q4K, 3, 2, [3 * 256, 4 * 6 + 48, 4 * 6 + 48]),
        (BlockFormat::Q5K, 3, 2, [3 * 512, 4 * 6 + 48, 4 * 6 + 48]),
        (BlockFormat::Q6K, 3, 2, [3 * 512, 4 * 6 + 96, 0]),
    ] {
        let data = blocks(format, n * blocks_of_row, 3);
        let file = layer(format, n, blocks_of_row * format.block_len(), &data);
        for form in [W8A8, CodesForm::WeightOnly] {
            let layer = take(&file, "q", form, kernel).unwrap();
            let stored = layer.storage();
            assert_eq!([stored.weights, stored.scales, stored.zero_points], expected, "{format}");
            let bytes = layers_to_bytes(&layer).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let data: usize = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum();
            assert_eq!(stored.total(), data, "{format}");
        }
    }
}

/// The bits that the guide to 4 bits has for each format, in the file and in memory.
#[test]
fn layers_take_as_many_bits_as_the_guide_says() {
    let guide: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../docs/guides/four-bits.md"].iter().collect();
    let guide = fs::read_to_string(guide).unwrap();
    let (n, k) = (192, 1024); // whole panels of every kernel
    for format in BlockFormat::ALL {
        let row = guide.lines().find(|line| line.starts_with(&format!("| {format} |"))).unwrap();
        let bits = row.trim_matches(['|', ' ']).rsplit('|').next().unwrap();
        let bits: Vec<f64> = bits.split(',').map(|bits| bits.trim().parse().unwrap()).collect();
        let data = blocks(format, n * k / format.block_len(), 1);
        assert_eq!(bits[0], 8.0 * data.len() as f64 / (n * k) as f64, "{format}");
        let file = layer(format, n, k, &data);
        let form = CodesForm::WeightOnly;
        let Linear::WeightOnly(layer) = take(&file, "q", form, Kernel::select().unwrap()).unwrap() else {
            panic!("another form")
        };
        // Packed bytes have a sum for each output, too.
        let got = 8.0 * layer.bytes() as f64 / (n * k) as f64;
        assert!((got - bits[1]).abs() < 0.1, "{format}: {got}, the guide has {}", bits[1]);
    }
}
