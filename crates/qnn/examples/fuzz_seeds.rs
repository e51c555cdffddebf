//! Writes the smallest files that have everything a reader knows, as seeds for `fuzz/`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use qcore::{ActivationFunction, CodeRange, QParams, Scheme, ZeroScale};
use qkernels::{
    Dynamic, Kernel, MatRef, PackEffort, PackedNibbles, PackedWeights, ScaledWeights, WeightScales,
};
use qnn::{
    DynamicLinear, FloatLinear, FloatMlp, Linear, QuantConfig, SaveOptions, StaticLinear, StaticParts,
    WeightConfig, WeightOnlyLinear, layers_to_bytes,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../fuzz/seeds", target].iter().collect();
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

fn linear(name: &str, n: usize, k: usize) -> Result<FloatLinear> {
    let weight = (0..n * k).map(|i| (i as f32 * 0.7).sin()).collect();
    Ok(FloatLinear::new(name, n, k, weight, vec![0.25; n])?)
}

fn safetensors(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Result<Vec<u8>> {
    let mut views = Vec::new();
    for (name, dtype, shape, data) in tensors {
        views.push((name.to_string(), TensorView::new(*dtype, shape.to_vec(), data)?));
    }
    Ok(safetensors::serialize(views, None)?)
}

/// Layers of every form, with choices that have names and with such that are said field by field.
fn layers(kernel: Kernel) -> Result<Vec<(&'static str, Linear)>> {
    let float = linear("a", 2, 3)?;
    let scheme = Scheme { codes: CodeRange::unsigned(7)?, ..Scheme::activations_u8() };
    let epsilon = Scheme { zero_scale: ZeroScale::AddEpsilon(1e-10), ..Scheme::weights_i8() };
    let dynamic = |how| DynamicLinear::quantize(&float, how, &WeightConfig::default(), kernel);
    let fixed = |input: QParams| {
        StaticLinear::new(
            StaticParts {
                name: "a".to_owned(),
                weight: MatRef::new(&[1_i8, -2, 3, 4, 5, -128], 2, 3)?,
                weight_scales: vec![0.5, 0.25],
                weight_zero_points: Some(vec![1, -1]),
                bias: Some(vec![7, -9]),
                input,
                activation: ActivationFunction::Relu,
            },
            kernel,
        )
    };
    let grouped = WeightConfig::default().in_groups_of(16);
    let four_bits = WeightConfig::with_bits(4)?.in_groups_of(16);
    let wide = linear("a", 2, 21)?;
    let in_groups = |weights| DynamicLinear::quantize(&wide, Dynamic::default(), weights, kernel);
    // Groups of 32 in parts of 16, the last of which is short.
    let codes: Vec<i8> = (0..2 * 40).map(|i| (i % 16) as i8).collect();
    let scales = WeightScales::per_group(&[0.5, 0.25, 1.0, 2.0], 32).with_minimums(&[-1.0, 0.0, 0.5, -2.0]);
    let bytes = PackedWeights::from_nk(MatRef::new(&codes, 2, 40)?, kernel)?;
    let minimums = ScaledWeights::new(bytes, scales)?;
    let nibbles = MatRef::new(bytemuck::cast_slice::<i8, u8>(&codes), 2, 40)?;
    let parts = scales.with_parts(16, &[1, -2, 3, 127, 0, 6]).with_part_minimums(&[0, 1, 2, 127, 4, 5]);
    let parts = ScaledWeights::of_nibbles(PackedNibbles::from_nk(nibbles, kernel)?, parts)?;
    let per_group = Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 16 };
    let blocks = WeightConfig::with_bits(4)?.in_groups_of(32);
    let affine = WeightConfig { scheme: Scheme::activations_i8(), ..grouped };
    let ordered = minimums.clone().with_input_order(&(0..40).rev().collect::<Vec<u32>>())?;
    Ok(vec![
        ("dynamic_preset", dynamic(Dynamic::default())?.into()),
        ("dynamic_choices", dynamic(Dynamic::PerTensor(scheme))?.into()),
        ("dynamic_number", dynamic(Dynamic::PerToken(epsilon))?.into()),
        ("static", fixed(QParams::new(0.5, 3, CodeRange::U8)?)?.into()),
        ("static_divisor", fixed(QParams::with_divisor(0.1, 0.3, 0, CodeRange::I8)?)?.into()),
        ("static_distant", fixed(QParams::with_distant_zero_point(0.5, 300, CodeRange::U8)?)?.into()),
        ("weight_only", WeightOnlyLinear::quantize(&float, &WeightConfig::default(), kernel)?.into()),
        ("weight_only_groups", WeightOnlyLinear::quantize(&linear("a", 1, 20)?, &grouped, kernel)?.into()),
        ("weight_only_affine", WeightOnlyLinear::quantize(&linear("a", 2, 17)?, &affine, kernel)?.into()),
        ("weight_only_4_bits", WeightOnlyLinear::quantize(&linear("a", 1, 21)?, &four_bits, kernel)?.into()),
        ("dynamic_groups", in_groups(&grouped)?.into()),
        ("dynamic_4_bits", in_groups(&four_bits)?.into()),
        (
            "dynamic_minimums",
            DynamicLinear::from_weights(minimums, None, Dynamic::default())?.with_name("a").into(),
        ),
        ("weight_only_parts", WeightOnlyLinear::from_weights(parts, None)?.with_name("a").into()),
        ("weight_only_order", WeightOnlyLinear::from_weights(ordered, None)?.with_name("a").into()),
        (
            "dynamic_input_groups",
            DynamicLinear::quantize(&wide, per_group, &grouped, kernel)?.with_name("a").into(),
        ),
        (
            "static_input_scale",
            fixed(QParams::new(0.5, 3, CodeRange::U8)?)?.with_input_scale(vec![0.5, 2.0, 1.5])?.into(),
        ),
        ("dynamic_input_scale", dynamic(Dynamic::default())?.with_input_scale(vec![0.5, 2.0, 1.5])?.into()),
        (
            "weight_only_input_scale",
            WeightOnlyLinear::quantize(&float, &WeightConfig::default(), kernel)?
                .with_input_scale(vec![0.5, 2.0, 1.5])?
                .into(),
        ),
        ("dynamic_ggml", DynamicLinear::quantize(&wide, Dynamic::GgmlQ8_0, &blocks, kernel)?.into()),
        ("float", float.clone().into()),
    ])
}

fn checkpoints() -> Result<()> {
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (scales, halves) = (f32s(&[0.5, 0.25]), [0, 0x3f, 0x80, 0x3e]); // the same in BF16
    let weight = ("q.weight", Dtype::I8, &[2, 3][..], &[1, 2, 3, 4, 5, 6][..]);
    let scale = ("q.weight_scale", Dtype::BF16, &[2, 1][..], &halves[..]);
    let bias = ("q.bias", Dtype::F32, &[2][..], &scales[..]);
    let zero_point = ("q.weight_zero_point", Dtype::I32, &[][..], &[3, 0, 0, 0][..]);
    let input = ("q.input_scale", Dtype::F32, &[1][..], &scales[..4]);
    let input_zero_point = ("q.input_zero_point", Dtype::I8, &[1][..], &[5][..]);
    let codes: Vec<u8> = (0..40).collect();
    let groups = f32s(&[0.5, 0.25, 1.0, 2.0]);
    let grouped = safetensors(&[
        ("q.weight", Dtype::I8, &[2, 20], &codes),
        ("q.weight_scale", Dtype::F32, &[2, 2], &groups),
        ("q.weight_zero_point", Dtype::I8, &[2, 2], &codes[..4]),
    ])?;
    let float = safetensors(&[
        ("q.weight", Dtype::F16, &[1, 2], &[0, 0x3c, 0, 0xc0]),
        ("q.bias", Dtype::F32, &[1], &[0; 4]),
    ])?;
    // Inputs in two groups of 16 by turns.
    let of_inputs: Vec<u8> = (0..32_i32).flat_map(|input| (input % 2).to_le_bytes()).collect();
    let words: Vec<u8> = (0..=255).collect();
    let gptq = safetensors(&[
        ("q.qweight", Dtype::I32, &[4, 8], &words[..128]),
        ("q.qzeros", Dtype::I32, &[2, 1], &words[100..108]),
        ("q.scales", Dtype::F32, &[2, 8], &f32s(&[0.5; 16])),
        ("q.g_idx", Dtype::I32, &[32], &of_inputs),
    ])?;
    let pack_quantized = safetensors(&[
        ("q.weight_packed", Dtype::I32, &[2, 4], &words[..32]),
        ("q.weight_shape", Dtype::I64, &[2], &[&[2, 0, 0, 0, 0, 0, 0, 0, 32][..], &[0; 7]].concat()),
        ("q.weight_scale", Dtype::F32, &[2, 2], &groups),
        ("q.weight_g_idx", Dtype::I32, &[32], &of_inputs),
    ])?;
    let whole = [
        ("gptq_order", gptq),
        ("pack_quantized_order", pack_quantized),
        ("dynamic", safetensors(&[weight, scale, bias, zero_point])?),
        ("static", safetensors(&[weight, scale, bias, input, input_zero_point])?),
        ("groups", grouped),
        ("float", float),
    ];
    for (name, bytes) in &whole {
        write("checkpoint", name, &[&[0][..], bytes].concat())?;
    }
    let (first, second) = (safetensors(&[weight, scale])?, safetensors(&[bias, zero_point])?);
    let index =
        br#"{"weight_map":{"q.weight":"a","q.weight_scale":"a","q.bias":"b","q.weight_zero_point":"b"}}"#;
    let piece = |bytes: &[u8]| -> Result<Vec<u8>> {
        Ok([&u16::try_from(bytes.len())?.to_le_bytes()[..], bytes].concat())
    };
    write("checkpoint", "shards", &[&[1][..], &piece(&first)?, &second].concat())?;
    write("checkpoint", "index", &[&[2][..], &piece(index)?, &piece(&first)?, &second].concat())
}

/// Operands of `MatMulNBits` behind the bytes that say which there are: n, k, bits and blocks,
/// kinds of operands, one that is too long.
fn nbits() -> Result<()> {
    let codes: Vec<u8> = (0..64_u32).map(|i| (i * 37 % 251) as u8).collect();
    let scales: Vec<u8> = [0.5_f32, -0.25, 1.0, 2.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let zeros: Vec<u8> = [7.5_f32, 8.0, 0.0, -1.0].iter().flat_map(|zero| zero.to_le_bytes()).collect();
    let by_turns: Vec<u8> = (0..32).map(|input| input % 2).collect();
    // n = 2 in two blocks of 16.
    for (name, head, operands) in [
        ("4_bits", [2, 32, 0, 4, 0, 0], vec![&codes[..32], &scales]),
        ("integer_zeros", [2, 30, 0, 4, 1, 0], vec![&codes[..32], &scales, &codes[..2]]),
        ("float_zeros", [2, 32, 0, 4, 2, 0], vec![&codes[..32], &scales, &codes[..2], &zeros]),
        ("8_bits_order", [2, 32, 0, 5, 5, 0], vec![&codes[..], &scales, &codes[..4], &by_turns]),
    ] {
        write("nbits", name, &[&head[..], &operands.concat()].concat())?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let kernel = Kernel::select()?;
    for (name, layer) in layers(kernel)? {
        write("layer_file", name, &layers_to_bytes(&layer)?)?;
        if matches!(name, "static" | "static_input_scale" | "float" | "dynamic_choices") {
            write("quant_mlp", name, &layers_to_bytes(&layer)?)?;
        }
        if matches!(name, "static" | "dynamic_choices") {
            let with_orders = SaveOptions::new().with_k_orders(PackEffort::Usual).to_bytes(&layer)?;
            write("layer_file", &format!("{name}_k_orders"), &with_orders)?;
        }
    }
    let float = FloatMlp::new(vec![linear("fc1", 3, 2)?, linear("fc2", 2, 3)?])?;
    let calibrated = float.calibrate([MatRef::new(&[0.0, 1.0, 0.5, -0.5], 2, 2)?])?;
    write("quant_mlp", "two_layers", &calibrated.quantize(&QuantConfig::default())?.to_bytes()?)?;

    let one = 1.0_f32.to_le_bytes();
    let weight = ("fc1.weight", Dtype::F32, &[1, 1][..], &one[..]);
    let bias = ("fc1.bias", Dtype::F32, &[1][..], &one[..]);
    write("float_mlp", "one_layer", &safetensors(&[weight, bias])?)?;
    let second = ("fc10.weight", Dtype::BF16, &[2, 1][..], &one[..]);
    write("float_mlp", "two_layers", &safetensors(&[weight, second])?)?;
    checkpoints()?;
    nbits()
}
