//! Whatever bytes an f32 model's file has, reading it gives a typed error with names and numbers,
//! never a panic.

use qnn::{CheckpointError, FloatLinear, FloatMlp, TensorFileError};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn bytes(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn error(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> CheckpointError {
    FloatMlp::from_safetensors(&bytes(tensors)).unwrap_err()
}

const F32: Dtype = Dtype::F32;

#[test]
fn layers_are_ordered_as_people_count() {
    let (one, w, b): (_, &[usize], &[usize]) = ([0_u8; 4], &[1, 1], &[1]);
    let file = ["fc10", "fc2", "fc1"].map(|l| (format!("{l}.weight"), format!("{l}.bias")));
    let tensors: Vec<_> =
        file.iter().flat_map(|(x, y)| [(&x[..], F32, w, &one[..]), (&y[..], F32, b, &one[..])]).collect();
    let model = FloatMlp::from_safetensors(&bytes(&tensors)).unwrap();
    assert_eq!(model.layers().iter().map(FloatLinear::name).collect::<Vec<_>>(), ["fc1", "fc2", "fc10"]);
}

#[test]
fn tensors_are_checked() {
    let (weight, bias) =
        (("fc2.weight", F32, &[1, 2][..], &[0; 8][..]), ("fc2.bias", F32, &[1][..], &[0; 4][..]));
    let expect = |tensors: &[_], message: &str| assert_eq!(error(tensors).to_string(), message);
    expect(&[], "a model needs at least one layer, got none");
    expect(&[bias], "nobody took 1 tensor: fc2.bias");
    expect(&[weight, bias, ("bn.mean", F32, &[1], &[0; 4])], "nobody took 1 tensor: bn.mean");
    expect(
        &[weight, ("fc2.bias", F32, &[1, 1], &[0; 4])],
        "tensor \"fc2.bias\" has shape [1, 1], expected [1]",
    );
    expect(&[weight, ("fc2.bias", F32, &[3], &[0; 12])], "tensor \"fc2.bias\" has shape [3], expected [1]");
    expect(&[("fc2.weight", F32, &[2], &[0; 8]), bias], "nobody took 2 tensors: fc2.bias, fc2.weight");
    expect(
        &[("fc2.weight", Dtype::I32, &[1, 2], &[0; 8]), bias],
        "tensor \"fc2.weight\" is I32, expected F32, F16 or BF16",
    );
    let nan = [0, 0, 0, 0, 0, 0, 0xc0, 0x7f];
    expect(
        &[("fc2.weight", F32, &[1, 2], &nan), bias],
        "fc2.weight is NaN at index 1; weights and biases must be finite",
    );
    expect(
        &[("fc2.weight", F32, &[0, 2], &[]), ("fc2.bias", F32, &[0], &[])],
        "layer \"fc2\" has n = 0 outputs and k = 2 inputs; both must be at least 1",
    );
    let first = [("fc1.weight", F32, &[3, 1][..], &[0; 12][..]), ("fc1.bias", F32, &[3][..], &[0; 12][..])];
    expect(
        &[weight, bias, first[0], first[1]],
        "layer \"fc2\" takes k = 2 inputs, but \"fc1\" before it has n = 3 outputs",
    );
}

#[test]
fn halves_are_widened_and_a_bias_may_be_absent() {
    let halves = [0x00, 0x3c, 0x00, 0xc0]; // 1.0, -2.0
    let bfloats = [0x80, 0x3f, 0x00, 0xc0];
    for (dtype, data) in [(Dtype::F16, halves), (Dtype::BF16, bfloats)] {
        let file = bytes(&[("fc1.weight", dtype, &[1, 2], &data), ("fc1.bias", dtype, &[1], &data[..2])]);
        let model = FloatMlp::from_safetensors(&file).unwrap();
        let layer = &model.layers()[0];
        assert_eq!((layer.weight(), layer.bias()), (&[1.0, -2.0][..], Some(&[1.0][..])));
        let file = bytes(&[("fc1.weight", dtype, &[1, 2], &data)]);
        assert_eq!(FloatMlp::from_safetensors(&file).unwrap().layers()[0].bias(), None);
    }
}

#[test]
fn damage_is_noticed() {
    let good = bytes(&[("fc2.weight", F32, &[1, 2], &[0; 8]), ("fc2.bias", F32, &[1], &[0; 4])]);
    assert!(FloatMlp::from_safetensors(&good).is_ok());
    for len in 0..good.len() {
        assert!(FloatMlp::from_safetensors(&good[..len]).is_err(), "cut off at {len}");
    }
    let error = FloatMlp::from_safetensors(&good[..good.len() - 1]).unwrap_err().to_string();
    assert_eq!(error, "the tensors have 12 bytes of data, the file has 11");
    let missing = FloatMlp::load("no/such/file.safetensors").unwrap_err();
    assert!(matches!(&missing, CheckpointError::File(TensorFileError::Read { .. })), "{missing}");
    assert!(missing.to_string().contains("no/such/file.safetensors"));
}
