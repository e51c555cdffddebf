//! Layers from files of other programs: the int-quantized layout of compressed-tensors, and whatever is wrong with one.

use half::{bf16, f16};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::{Checkpoint, FusedActivation, Int8Form, Linear, LinearWorkspace};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

type Tensors = Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>;

fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn bf16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

fn codes(values: &[i8]) -> Vec<u8> {
    values.iter().map(|v| v.cast_unsigned()).collect()
}

/// What a W8A8 checkpoint has for a layer of n = 2, k = 3.
fn w8a8() -> Tensors {
    vec![
        ("q.weight", Dtype::I8, vec![2, 3], codes(&[100, -50, 25, 1, 2, -128])),
        ("q.weight_scale", Dtype::BF16, vec![2, 1], bf16s(&[0.5, 0.25])),
        ("q.bias", Dtype::F16, vec![2], f16s(&[1.5, -2.0])),
    ]
}

fn take(tensors: &Tensors, form: Int8Form) -> Result<Linear, String> {
    let bytes = file(tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).map_err(|error| error.to_string())?;
    let kernel = Kernel::select().unwrap();
    let layer = checkpoint.take_int8("q", form, FusedActivation::None, kernel);
    let layer = layer.map_err(|error| error.to_string())?;
    checkpoint.finish().map_err(|error| error.to_string())?;
    Ok(layer)
}

fn run(layer: &Linear, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; layer.n()];
    let (x, out) = (MatRef::new(x, 1, layer.k()).unwrap(), MatMut::new(&mut y, 1, layer.n()).unwrap());
    layer.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    y
}

const DYNAMIC: Int8Form = Int8Form::Dynamic(Dynamic::PerToken(qcore::Scheme::weights_i8()));

#[test]
fn per_channel_weights_become_a_dynamic_layer() {
    let layer = take(&w8a8(), DYNAMIC).unwrap();
    assert_eq!((layer.method(), layer.n(), layer.k()), ("dynamic", 2, 3));
    assert_eq!(run(&layer, &[127.0, 0.0, 1.0]), [0.5 * (12700.0 + 25.0) + 1.5, 0.25 * (127.0 - 128.0) - 2.0]);
}

#[test]
fn one_scale_for_all_and_zero_points_are_taken() {
    let mut tensors = w8a8();
    tensors[1] = ("q.weight_scale", Dtype::F32, vec![1], 0.5_f32.to_le_bytes().to_vec());
    tensors[2] = ("q.weight_zero_point", Dtype::I8, vec![1], codes(&[1]));
    let layer = take(&tensors, DYNAMIC).unwrap();
    assert_eq!(run(&layer, &[127.0, 0.0, 1.0]), [0.5 * (127.0 * 99.0 + 24.0), 0.5 * -129.0]);
    tensors[2] = ("q.weight_zero_point", Dtype::I8, vec![2, 1], codes(&[0, 1]));
    let layer = take(&tensors, DYNAMIC).unwrap();
    assert_eq!(run(&layer, &[127.0, 0.0, 1.0]), [0.5 * (12700.0 + 25.0), 0.5 * -129.0]);
}

#[test]
fn a_scale_of_the_input_makes_a_static_layer() {
    let mut tensors = w8a8();
    tensors.push(("q.input_scale", Dtype::F32, vec![1], 0.5_f32.to_le_bytes().to_vec()));
    tensors.push(("q.input_zero_point", Dtype::I8, vec![1], codes(&[-3])));
    let layer = take(&tensors, Int8Form::Static).unwrap();
    let Linear::Static(layer) = &layer else { panic!("{}", layer.method()) };
    assert_eq!((layer.input().zero_point(), layer.bias()), (-3, Some(&[6, -16][..])));
    assert_eq!(
        run(&layer.clone().into(), &[2.0, 0.5, -1.0]),
        [0.5 * (200.0 - 25.0 - 25.0) + 1.5, 0.25 * (2.0 + 1.0 + 128.0) - 2.0]
    );
}

#[test]
fn groups_have_scales_of_their_own() {
    let weight: Vec<i8> = (0..64).map(|i| i as i8 - 32).collect();
    let tensors = vec![
        ("q.weight", Dtype::I8, vec![2, 32], codes(&weight)),
        ("q.weight_scale", Dtype::BF16, vec![2, 2], bf16s(&[0.5, 0.25, 1.0, 2.0])),
    ];
    let layer = take(&tensors, Int8Form::WeightOnly).unwrap();
    let mut x = [0.0; 32];
    (x[0], x[31]) = (1.0, 2.0);
    assert_eq!(layer.method(), "weight_only");
    assert_eq!(run(&layer, &x), [0.5 * -32.0 - (0.25 * 2.0), 2.0 * 2.0 * 31.0]);
    let layer = take(&w8a8(), Int8Form::WeightOnly).unwrap();
    assert_eq!(run(&layer, &[1.0, 0.0, 0.5]), [0.5 * (100.0 + 12.5) + 1.5, 0.25 * (1.0 - 64.0) - 2.0]);
}

#[test]
fn what_is_wrong_is_named() {
    let fails = |alter: &dyn Fn(&mut Tensors), form, message: &str| {
        let mut tensors = w8a8();
        alter(&mut tensors);
        assert_eq!(take(&tensors, form).unwrap_err(), message);
    };
    fails(&|_| (), Int8Form::Static, "tensor \"q.input_scale\" is missing");
    fails(&|t| drop(t.remove(1)), DYNAMIC, "tensor \"q.weight_scale\" is missing");
    fails(
        &|t| t[0] = ("q.weight", Dtype::U8, vec![2, 3], vec![0; 6]),
        DYNAMIC,
        "tensor \"q.weight\" is U8, expected I8",
    );
    fails(
        &|t| t[1] = ("q.weight_scale", Dtype::BF16, vec![2, 2], bf16s(&[1.0; 4])),
        DYNAMIC,
        "tensor \"q.weight_scale\" has shape [2, 2], expected one value, or n = 2",
    );
    fails(
        &|t| t[1] = ("q.weight_scale", Dtype::I8, vec![2], vec![0; 2]),
        DYNAMIC,
        "tensor \"q.weight_scale\" is I8, expected F32, F16 or BF16",
    );
    fails(
        &|t| t[1] = ("q.weight_scale", Dtype::BF16, vec![2], bf16s(&[1.0, f32::NAN])),
        DYNAMIC,
        "layer \"q\": weight scale NaN of channel 1 must be finite and greater than 0",
    );
    fails(
        &|t| t[2] = ("q.bias", Dtype::F16, vec![2], f16s(&[f32::INFINITY, 0.0])),
        DYNAMIC,
        "layer \"q\": the bias of channel 0 is inf; it must be finite",
    );
    fails(
        &|t| t[2] = ("q.bias", Dtype::F16, vec![1], f16s(&[1.0])),
        DYNAMIC,
        "tensor \"q.bias\" has shape [1], expected [2]",
    );
    fails(
        &|t| t.push(("q.input_scale", Dtype::BF16, vec![2], bf16s(&[1.0; 2]))),
        Int8Form::Static,
        "tensor \"q.input_scale\" has shape [2], expected one value, or n = 1",
    );
    fails(&|t| t.push(("q.g_idx", Dtype::I8, vec![1], vec![0])), DYNAMIC, "tensor \"q.g_idx\" is unexpected");
    fails(
        &|t| t[0] = ("q.weight", Dtype::I8, vec![0, 3], vec![]),
        DYNAMIC,
        "tensor \"q.weight_scale\" has shape [2, 1], expected one value, or n = 0",
    );
}
