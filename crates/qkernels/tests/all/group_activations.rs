//! Activations with a scale for each row and group of k. On every kernel products have the bits of
//! qcore's definition, and with ggml's quantizer those of ggml.

use half::{bf16, f16};
use qcore::{
    BlockFormat, BlockGroup, CodeRange, Float, GgmlQ8_0, Kind, Rounding, Scheme, SymmetricDivisor, ZeroScale,
};
use qkernels::{
    DequantizeTo, Dynamic, DynamicError, FloatStage, Kernel, MatMut, MatRef, PackedWeights, QuantizedRows,
    ScaledWeights, Scales, Threads, WeightScales, Workspace, gemm_dynamic, gemm_rows, gemm_scaled,
    gemm_scaled_rows,
};

use crate::fixture;
use crate::oracle::in_parts::Layer;
use crate::oracle::{Noise, around, pack, pack_scaled};

/// The schemes that groups may have, signed and unsigned.
fn schemes() -> [Scheme; 4] {
    let kind = Kind::Symmetric { divisor: SymmetricDivisor::HalfRange };
    let seven_bits = CodeRange::unsigned(7).unwrap();
    [
        Scheme::weights_i8(),
        Scheme { codes: CodeRange::U8, kind, ..Scheme::weights_i8() },
        Scheme {
            rounding: Rounding::TiesAway,
            zero_scale: ZeroScale::AddEpsilon(0.01),
            ..Scheme::weights_i8()
        },
        Scheme { codes: seven_bits, ..Scheme::weights_i8() },
    ]
}

/// Groups that fit a layer.
fn how(noise: &mut Noise, layer: &Layer) -> Dynamic {
    // The only group is as long as one likes.
    let only = layer.k + noise.below(3);
    let group_len = match layer.group_len {
        Some(len) if len < layer.k => len,
        _ => only,
    };
    let in_blocks = layer.group_len == Some(32) || (layer.k <= 32 && group_len == only);
    match noise.below(6) {
        0..3 if in_blocks => Dynamic::GgmlQ8_0,
        at => Dynamic::PerGroup { scheme: schemes()[at % 4], group_len },
    }
}

/// Rows whose groups have ranges of their own; a few are zeros, or have values that do not count.
fn values(noise: &mut Noise, m: usize, k: usize) -> Vec<f32> {
    let mut x = noise.floats(m * k, 1.0);
    for group in x.chunks_mut(16) {
        let magnitude = noise.choose(&[1e-3f32, 0.5, 1.0, 30.0]);
        group.iter_mut().for_each(|x| *x *= magnitude);
        match noise.below(20) {
            0 => group.fill(0.0),
            1 => group[0] = f32::NAN,
            2 => group[0] = f32::NEG_INFINITY,
            _ => {}
        }
    }
    x
}

/// The product, and that of rows that were quantized before.
fn products<F: Float>(
    x: MatRef<'_, F>,
    how: Dynamic,
    layer: &Layer,
    w: &ScaledWeights,
    threads: Threads<'_>,
) -> [Vec<u32>; 2] {
    let (m, stage) = (x.rows(), FloatStage::new().with_bias(&layer.bias).unwrap());
    let (mut rows, mut workspace) = (QuantizedRows::new(), Workspace::new());
    let mut y = [vec![f32::NAN; m * layer.n], vec![f32::NAN; m * layer.n]];
    let [first, second] = &mut y;
    let out = MatMut::new(first, m, layer.n).unwrap();
    gemm_scaled(x, how, w, &stage, out, threads, &mut workspace).unwrap();
    rows.quantize(x, how, w.kernel()).unwrap();
    let out = MatMut::new(second, m, layer.n).unwrap();
    gemm_scaled_rows(&rows, w, &stage, out, threads, &mut workspace).unwrap();
    y.map(|y| y.iter().map(|y| y.to_bits()).collect())
}

fn check(noise: &mut Noise, m: usize, layer: &Layer) {
    let (x, how) = (values(noise, m, layer.k), how(noise, layer));
    let expected = layer.expected(&x, how);
    let halves: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    let wide: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
    let of_halves = layer.expected(&wide, how);
    let (x, halves) = (MatRef::new(&x, m, layer.k).unwrap(), MatRef::new(&halves, m, layer.k).unwrap());
    for kernel in Kernel::available() {
        let w = layer.packed(kernel);
        // Sums may be kept, which changes nothing.
        for w in [w.clone(), w.clone().with_sums(), w.for_activations(how)] {
            for y in products(x, how, layer, &w, Threads::Serial) {
                assert!(y == expected, "{kernel}: {m} x {}, {how:?}", layer.form());
            }
            for y in products(halves, how, layer, &w, Threads::Serial) {
                assert!(y == of_halves, "{kernel}: {m} x {}, {how:?}, f16", layer.form());
            }
        }
    }
}

#[test]
fn every_shape_has_the_bits_of_the_definition() {
    let mut noise = Noise::new(270);
    for desc in Kernel::available().map(Kernel::desc) {
        for m in (1..=9).chain([13, 17]) {
            for n in around(desc.vector_columns).chain(around(desc.nr)).chain([2 * desc.nr + 1]) {
                let k = 1 + noise.below(300);
                let layer = Layer::new(&mut noise, n, k);
                check(&mut noise, m, &layer);
            }
        }
    }
    for k in 1..=100 {
        let layer = Layer::new(&mut noise, 19, k);
        check(&mut noise, 1 + k % 8, &layer);
    }
}

#[test]
fn formats_of_ggml() {
    let mut noise = Noise::new(271);
    for (bits, group, part, minimums) in [
        (8, 32, None, false),      // Q8_0
        (4, 32, None, false),      // Q4_0
        (4, 32, None, true),       // Q4_1
        (8, 32, None, true),       // Q5_1
        (4, 256, Some(32), true),  // Q4_K
        (8, 256, Some(16), false), // Q6_K
    ] {
        for m in 1..=13 {
            for k in [256, 512, 768 + 40] {
                let layer = Layer::of_format(&mut noise, (33, k), bits, Some(group), part);
                let layer =
                    if minimums { layer } else { Layer { minimums: None, part_minimums: None, ..layer } };
                check(&mut noise, m, &layer);
            }
        }
    }
}

#[test]
fn long_groups_and_many_rows_are_cut_into_blocks() {
    let mut noise = Noise::new(272);
    for (m, n, k, len) in [(300, 33, 1000, Some(256)), (5, 20, 3000, Some(1024)), (40, 70, 4096, Some(32))] {
        for bits in [8, 4] {
            let layer = Layer::of_format(&mut noise, (n, k), bits, len, None);
            let layer = Layer { minimums: None, ..layer };
            check(&mut noise, m, &layer);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_on_any_thread_in_any_batch_and_wherever_it_lies() {
    let mut noise = Noise::new(273);
    for bits in [8, 4] {
        let (m, n, k) = (130, 200, 288);
        let layer = Layer::of_format(&mut noise, (n, k), bits, Some(32), None);
        let x = values(&mut noise, m, k);
        let halves: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let mut columns = vec![bf16::ZERO; 3 * m * k];
        halves.iter().enumerate().for_each(|(at, &x)| columns[3 * (at % k * m + at / k)] = x);
        let w = layer.packed(Kernel::select().unwrap());
        for how in [Dynamic::GgmlQ8_0, Dynamic::PerGroup { scheme: schemes()[1], group_len: 32 }] {
            let view = MatRef::new(&halves, m, k).unwrap();
            let [y, again] = products(view, how, &layer, &w, Threads::Serial);
            assert!(
                y == again
                    && y == layer.expected(&halves.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), how)
            );
            for threads in 1..=4 {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(products(view, how, &layer, &w, Threads::Pool(&pool)).iter().all(|of| *of == y));
            }
            for i in [0, 7, 129] {
                let row = MatRef::new(&halves[i * k..(i + 1) * k], 1, k).unwrap();
                let [alone, _] = products(row, how, &layer, &w, Threads::Serial);
                assert!(alone == y[i * n..(i + 1) * n]);
                // One row, many times.
                let row = MatRef::with_strides(&halves[i * k..(i + 1) * k], 5, k, 0, 1).unwrap();
                let [repeated, _] = products(row, how, &layer, &w, Threads::Serial);
                assert!(repeated == y[i * n..(i + 1) * n].repeat(5));
            }
            let apart = MatRef::with_strides(&columns, m, k, 3, 3 * m).unwrap();
            assert!(products(apart, how, &layer, &w, Threads::Serial).iter().all(|of| *of == y));
        }
    }
}

#[test]
fn a_single_group_is_a_row() {
    let mut noise = Noise::new(274);
    let (m, n, k) = (7, 20, 100);
    let layer = Layer { minimums: None, ..Layer::of_format(&mut noise, (n, k), 8, None, None) };
    let x = values(&mut noise, m, k);
    let x = MatRef::new(&x, m, k).unwrap();
    let w = layer.packed(Kernel::select().unwrap());
    for scheme in schemes() {
        let rows = products(x, Dynamic::PerToken(scheme), &layer, &w, Threads::Serial);
        for group_len in [k, k + 1, usize::MAX] {
            let how = Dynamic::PerGroup { scheme, group_len };
            assert_eq!(products(x, how, &layer, &w, Threads::Serial), rows);
        }
    }
}

/// Blocks of weights as ggml has them.
fn of_blocks(format: BlockFormat, bytes: &[u8], (n, k): (usize, usize), kernel: Kernel) -> ScaledWeights {
    let (mut codes, mut groups) = (vec![0; n * k], vec![BlockGroup::default(); n * k / 32]);
    format.unpack(bytes, &mut codes, &mut groups).unwrap();
    let scales: Vec<f32> = groups.iter().map(|group| group.scale).collect();
    let (bits, zero_points) = match format {
        BlockFormat::Q8_0 => (8, None),
        _ => (4, Some(vec![format.zero_point(); scales.len()])),
    };
    let codes = MatRef::new(&codes, n, k).unwrap();
    pack_scaled(kernel, bits, codes, Some(32), &scales, zero_points.as_deref())
}

#[test]
fn products_are_those_of_ggml() {
    let tensors = fixture::load_tensors(&fixture::dir().join("11_ggml_dot.safetensors"));
    let (mut checked, mut exact) = (0, 0);
    for (name, x) in tensors.iter().filter(|(name, _)| name.ends_with("/x")) {
        let of = |what: &str| &tensors[&format!("{}{what}", name.strip_suffix("x").unwrap())];
        let (m, k, n) = (x.shape[0], x.shape[1], of("y").shape[1]);
        let format = if name.starts_with("Q8_0") { BlockFormat::Q8_0 } else { BlockFormat::Q4_0 };
        let (x, expected) = (x.f32(), of("y").f32());
        for kernel in Kernel::available() {
            let w = of_blocks(format, &of("w_bytes").bytes, (n, k), kernel);
            let mut y = vec![f32::NAN; m * n];
            let (x, out) = (MatRef::new(&x, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
            let (stage, workspace) = (FloatStage::new(), &mut Workspace::new());
            gemm_scaled(x, Dynamic::GgmlQ8_0, &w, &stage, out, Threads::Serial, workspace).unwrap();
            if format == BlockFormat::Q8_0 {
                // Its definition is ours.
                for (y, expected) in y.iter().zip(&expected) {
                    assert!(y.to_bits() == expected.to_bits() || *y == 0.0 && *expected == 0.0, "{name}");
                }
                exact += 1;
                continue;
            }
            // ggml multiplies the sum by one scale after the other.
            let magnitudes = of("y_abs").bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            for ((&y, &expected), magnitude) in y.iter().zip(&expected).zip(magnitudes) {
                let error = (f64::from(y) - f64::from(expected)).abs();
                assert!(error <= 2e-6 * magnitude, "{name}, {kernel}: {y}, expected {expected}");
            }
        }
        checked += 1;
    }
    assert_eq!((checked, exact), (10, 6 * Kernel::available().count()));
}

#[test]
fn what_does_not_fit_is_an_error_and_writes_nothing() {
    let mut noise = Noise::new(275);
    let (k, kernel) = (80, Kernel::select().unwrap());
    let layer = Layer { minimums: None, ..Layer::of_format(&mut noise, (3, k), 8, Some(32), None) };
    let w = layer.packed(kernel);
    let run = |x: &[f32], how: Dynamic, w: &ScaledWeights| {
        let (mut y, m) = ([7.0f32; 6], x.len() / k);
        let (x, out) = (MatRef::new(x, m, k).unwrap(), MatMut::new(&mut y[..3 * m], m, 3).unwrap());
        let stage = FloatStage::new();
        let error = gemm_scaled(x, how, w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap_err();
        assert_eq!(y, [7.0; 6]);
        error
    };
    let (scheme, x) = (Scheme::weights_i8(), vec![1.0; 2 * k]);
    let groups_of = |group_len| Dynamic::PerGroup { scheme, group_len };
    for group_len in [16, 64, 96, usize::MAX] {
        let error = run(&x, groups_of(group_len), &w);
        assert_eq!(error, DynamicError::GroupMismatch { group_len, of_weights: 32 });
        let mut rows = QuantizedRows::new();
        rows.quantize(MatRef::new(&x, 2, k).unwrap(), groups_of(group_len), kernel).unwrap();
        let (mut y, stage) = ([0.0f32; 6], FloatStage::new());
        let out = MatMut::new(&mut y, 2, 3).unwrap();
        let again = gemm_scaled_rows(&rows, &w, &stage, out, Threads::Serial, &mut Workspace::new());
        assert_eq!(again, Err(error));
    }
    let reversed: Vec<u32> = (0..k as u32).rev().collect();
    let error = run(&x, groups_of(32), &w.clone().with_input_order(&reversed).unwrap());
    assert_eq!(error, DynamicError::GroupOrder { group_len: 32 });
    let of_channels = Layer { minimums: None, ..Layer::of_format(&mut noise, (3, k), 4, None, None) };
    let error = run(&x, Dynamic::GgmlQ8_0, &of_channels.packed(kernel));
    assert_eq!(error, DynamicError::GroupMismatch { group_len: 32, of_weights: k });
    assert!(w.check_activations(groups_of(32)).is_ok() && w.check_activations(Dynamic::default()).is_ok());
    for group_len in [0, 1, 24] {
        let error = run(&x, groups_of(group_len), &w);
        assert_eq!(error, DynamicError::GroupLength { group_len });
        assert!(error.to_string().contains("multiple of 16"), "{error}");
        let mut rows = QuantizedRows::new();
        let again = rows.quantize(MatRef::new(&x, 2, k).unwrap(), groups_of(group_len), kernel);
        assert_eq!((again, rows.rows()), (Err(error), 0));
    }
    let affine = Scheme::activations_u8();
    let constant = Scheme {
        codes: CodeRange::U8,
        zero_scale: ZeroScale::ConstantIsZero { below: 1e-8 },
        ..Scheme::weights_i8()
    };
    for scheme in [affine, constant] {
        let error = run(&x, Dynamic::PerGroup { scheme, group_len: 32 }, &w);
        assert_eq!(error, DynamicError::GroupScheme { kind: scheme.kind, zero_scale: scheme.zero_scale });
    }
    // What a value of the last group of the second row does.
    let with = |value: f32| {
        let mut x = x.clone();
        x[k + 70] = value;
        x
    };
    let reject = Scheme { zero_scale: ZeroScale::Reject, ..scheme };
    let mut zeros = with(0.0);
    zeros[k + 64..].fill(0.0);
    let error = run(&zeros, Dynamic::PerGroup { scheme: reject, group_len: 32 }, &w);
    assert!(matches!(error, DynamicError::Scheme { row: 1, group: Some(2), .. }), "{error}");
    assert!(error.to_string().starts_with("no scale for group 2 of row 1: "), "{error}");
    let error = run(&with(1e7), Dynamic::GgmlQ8_0, &w);
    assert_eq!(error, DynamicError::HalfScale { row: 1, group: 2, scale: 1e7 / 127.0 });
    let scaled =
        |scale: f32| Layer { scales: vec![scale; 9], zero_points: None, ..layer_of(&layer) }.packed(kernel);
    let error = run(&with(1e5), groups_of(32), &scaled(1e36));
    assert!(matches!(error, DynamicError::ScaleRange { row: 1, group: Some(2), channel: 0, .. }), "{error}");
    assert!(error.to_string().contains("of group 2 of row 1 times"), "{error}");
    let error = run(&with(1e5), groups_of(32), &scaled(1e31));
    assert!(matches!(error, DynamicError::GroupRange { row: 1, group: Some(2), .. }), "{error}");
    // Sums that leave int32, which a single group of this length could.
    let k = 1 << 20;
    let weights = PackedWeights::from_nk(MatRef::new(&vec![127i8; k], 1, k).unwrap(), kernel).unwrap();
    let one = ScaledWeights::new(weights, WeightScales::per_group(&[1.0; 2], k / 2)).unwrap();
    let (x, how) = (vec![1.0; k], groups_of(k / 2));
    let (mut y, mut rows, stage) = ([0.0f32], QuantizedRows::new(), FloatStage::new());
    let (x, workspace) = (MatRef::new(&x, 1, k).unwrap(), &mut Workspace::new());
    let out = MatMut::new(&mut y, 1, 1).unwrap();
    let error = gemm_scaled(x, how, &one, &stage, out, Threads::Serial, workspace).unwrap_err();
    assert!(matches!(error, DynamicError::Gemm(_)), "{error}");
    rows.quantize(x, how, kernel).unwrap();
    let out = MatMut::new(&mut y, 1, 1).unwrap();
    assert_eq!(gemm_scaled_rows(&rows, &one, &stage, out, Threads::Serial, workspace), Err(error));
}

fn layer_of(layer: &Layer) -> Layer {
    let Layer { n, k, group_len, bits, ref codes, ref bias, .. } = *layer;
    let (codes, bias) = (codes.clone(), bias.clone());
    let (scales, zero_points, minimums, parts, part_minimums) = (Vec::new(), None, None, None, None);
    Layer { n, k, group_len, bits, codes, scales, zero_points, minimums, parts, part_minimums, bias }
}

#[test]
fn weights_with_a_scale_per_channel_refuse_groups() {
    let kernel = Kernel::select().unwrap();
    let w = pack(kernel, MatRef::new(&[1i8; 64], 2, 32).unwrap());
    let stage = DequantizeTo::<f32>::new(Scales::PerTensor(1.0)).unwrap();
    for how in [Dynamic::GgmlQ8_0, Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 32 }] {
        for m in [0, 3] {
            let (x, mut y, mut rows) = (vec![1.0f32; m * 32], vec![7.0; m * 2], QuantizedRows::new());
            let x = MatRef::new(&x, m, 32).unwrap();
            let out = MatMut::new(&mut y, m, 2).unwrap();
            let error = gemm_dynamic(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new());
            assert_eq!(error, Err(DynamicError::Groups { group_len: 32 }));
            rows.quantize(x, how, kernel).unwrap();
            let out = MatMut::new(&mut y, m, 2).unwrap();
            let again = gemm_rows(&rows, &w, &stage, out, Threads::Serial, &mut Workspace::new());
            assert_eq!(again, error);
            assert!(y.iter().all(|&y| y == 7.0) && error.unwrap_err().to_string().contains("gemm_scaled"));
        }
    }
}

#[test]
fn dimensions_may_be_0() {
    let kernel = Kernel::select().unwrap();
    for (n, m, k) in [(3, 0, 64), (0, 4, 64), (3, 2, 0)] {
        let w = pack(kernel, MatRef::new(&vec![1i8; n * k], n, k).unwrap());
        let scales = vec![1.0; n * k / 32];
        let w = ScaledWeights::new(w, WeightScales::per_group(&scales, 32)).unwrap();
        for how in [Dynamic::GgmlQ8_0, Dynamic::PerGroup { scheme: schemes()[1], group_len: 32 }] {
            let (x, mut y, mut rows) = (vec![1.0f32; m * k], vec![7.0; m * n], QuantizedRows::new());
            let (x, stage) = (MatRef::new(&x, m, k).unwrap(), FloatStage::new());
            let out = MatMut::new(&mut y, m, n).unwrap();
            gemm_scaled(x, how, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
            rows.quantize(x, how, kernel).unwrap();
            let out = MatMut::new(&mut y, m, n).unwrap();
            gemm_scaled_rows(&rows, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
            assert!(y.iter().all(|&y| y == 0.0));
        }
    }
    // More rows than memory has, of one that is repeated.
    let (x, mut rows) = ([1.0f32; 64], QuantizedRows::new());
    let x = MatRef::with_strides(&x, 1 << 58, 64, 0, 1).unwrap();
    let error = rows.quantize(x, Dynamic::GgmlQ8_0, kernel).unwrap_err();
    assert_eq!(error, DynamicError::Memory { rows: 1 << 58, cols: 64 });
    assert_eq!(GgmlQ8_0::BLOCK_LEN, 32);
}
