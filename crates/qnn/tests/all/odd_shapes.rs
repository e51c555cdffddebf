//! Tensors without elements may claim any dimensions beside their 0: no reader allocates for them,
//! and no layer is made.

use qcore::ActivationFunction;
use qkernels::{Dynamic, Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
use qnn::{Checkpoint, FloatMlp, Int8Form, LayerError, LayerFile, Mlp, QuantMlp, WeightOnlyLinear};
use safetensors::Dtype;

use crate::tensor_files::{Tensors, f32s, file, i32s, sealed};

const LARGE: [usize; 5] = [0, 1, 1 << 33, 1 << 62, usize::MAX];

fn shapes() -> impl Iterator<Item = [usize; 2]> {
    LARGE.into_iter().flat_map(|large| [[large, 0], [0, large]])
}

fn message(n: usize, k: usize) -> String {
    format!("n = {n} outputs and k = {k} inputs; both must be at least 1")
}

#[test]
fn checkpoints() {
    let forms = [
        Int8Form::Static,
        Int8Form::Dynamic { activations: Dynamic::default(), group: None },
        Int8Form::WeightOnly { group: None },
        Int8Form::WeightOnly { group: Some(16) },
        Int8Form::WeightOnly { group: Some(usize::MAX) },
    ];
    for [n, k] in shapes() {
        for scale in [vec![], vec![1], vec![n, 0], vec![0]] {
            let elements = scale.iter().product::<usize>();
            let tensors: Tensors = vec![
                ("q.weight", Dtype::I8, vec![n, k], vec![]),
                ("q.weight_scale", Dtype::F32, scale.clone(), vec![0; 4 * elements]),
                ("q.input_scale", Dtype::F32, vec![], f32s(&[1.0])),
                ("q.weight_zero_point", Dtype::I8, vec![], vec![1]),
            ];
            for form in forms {
                let mut tensors = tensors.clone();
                if !matches!(form, Int8Form::Static) {
                    tensors.remove(2);
                }
                let bytes = file(&tensors);
                let kernel = Kernel::select().unwrap();
                let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
                let error =
                    checkpoint.take_int8("q", form, ActivationFunction::Identity, kernel).unwrap_err();
                assert_eq!(error.to_string(), format!("layer \"q\": {}", message(n, k)));
            }
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let bytes = file(&vec![("q.weight", dtype, vec![n, k], vec![])]);
            let error = Checkpoint::parse(&bytes).unwrap().take_float("q").unwrap_err();
            assert!(error.to_string().contains(&format!("n = {n} outputs and k = {k} inputs")), "{error}");
            assert!(FloatMlp::from_safetensors(&bytes).is_err());
        }
    }
    // Tensors beside the weights.
    for odd in shapes() {
        for name in ["q.weight_scale", "q.weight_zero_point", "q.bias", "q.input_scale", "q.input_zero_point"]
        {
            let mut tensors: Tensors = vec![
                ("q.weight", Dtype::I8, vec![1, 1], vec![1]),
                ("q.weight_scale", Dtype::F32, vec![], f32s(&[1.0])),
                ("q.input_scale", Dtype::F32, vec![], f32s(&[1.0])),
            ];
            tensors.retain(|tensor| tensor.0 != name);
            let dtype = if name.ends_with("point") { Dtype::I8 } else { Dtype::F32 };
            tensors.push((name, dtype, odd.to_vec(), vec![]));
            let bytes = file(&tensors);
            let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
            let kernel = Kernel::select().unwrap();
            let layer = checkpoint.take_int8("q", Int8Form::Static, ActivationFunction::Identity, kernel);
            assert!(layer.unwrap_err().to_string().contains(&format!("{odd:?}")), "{name}");
        }
    }
}

/// A file of this format with one layer of this form, and what its description has besides.
fn layer_file(form: &str, besides: &str, tensors: &Tensors) -> Vec<u8> {
    let mut tensors: Vec<_> =
        tensors.iter().map(|(name, d, s, data)| (*name, *d, &s[..], &data[..])).collect();
    tensors.sort_by_key(|tensor| tensor.0);
    let description = |checksum: &str| {
        format!(
            "{{\"format\":\"qnn.layers\",\"version\":2,\"requantize\":\"f32_round_ties_even_then_zero_point\",\
             \"layers\":[{{\"name\":\"q\",\"form\":\"{form}\",\"activation\":\"none\"{besides}}}],\
             \"checksum\":\"{checksum}\"}}"
        )
    };
    sealed(&tensors, description, None)
}

#[test]
fn files_of_layers() {
    let input = ",\"input\":{\"codes\":[0,255],\"order\":\"round_then_add\",\"rounding\":\"ties_to_even\"}";
    let dynamic = ",\"dynamic\":{\"per\":\"token\",\"scheme\":\"weights_i8\"}";
    let huge = format!(",\"group\":{}", usize::MAX);
    let forms = [
        ("float", ""),
        ("static", input),
        ("dynamic", dynamic),
        ("weight_only", ""),
        ("weight_only", ",\"group\":16"),
        ("weight_only", &huge),
    ];
    for [n, k] in shapes() {
        for (form, besides) in forms {
            let float = form == "float";
            let dtype = if float { Dtype::F32 } else { Dtype::I8 };
            let mut tensors: Tensors = vec![("q.weight", dtype, vec![n, k], vec![])];
            if !float {
                // A scale for each channel has data, unless there are none of either.
                let groups = if besides.contains("group") { vec![n, k.div_ceil(16)] } else { vec![n] };
                let empty = groups.contains(&0);
                let shape = if empty { groups } else { vec![0] };
                tensors.push(("q.weight_scale", Dtype::F32, shape, vec![]));
            }
            if form == "static" {
                tensors.push(("q.input_scale", Dtype::F32, vec![], f32s(&[1.0])));
                tensors.push(("q.input_zero_point", Dtype::I32, vec![], i32s(&[0])));
            }
            let bytes = layer_file(form, besides, &tensors);
            let error = LayerFile::parse(&bytes).unwrap().take("q", None).unwrap_err().to_string();
            let named =
                error.contains(&message(n, k)) || error.starts_with("tensor \"q.weight_scale\" has shape");
            assert!(named, "{form} ({n}, {k}): {error}");
            assert!(Mlp::from_bytes(&bytes, None).is_err() && QuantMlp::from_bytes(&bytes, None).is_err());
        }
    }
}

#[test]
fn weights_without_elements_make_no_layer() {
    let kernel = Kernel::select().unwrap();
    for (n, k) in [(0, 0), (0, 3), (3, 0), (0, usize::MAX)] {
        let weights = PackedWeights::from_nk(MatRef::new(&[0_i8; 0], n, k).unwrap(), kernel).unwrap();
        let scaled = ScaledWeights::new(weights, WeightScales::per_channel(&vec![1.0; n])).unwrap();
        let error = WeightOnlyLinear::from_weights(scaled, None).unwrap_err();
        assert_eq!(error, LayerError::Empty { n, k });
    }
}
