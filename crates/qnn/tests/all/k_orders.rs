//! Files with the orders of k of their weights: the same model, the same bytes on any kernel, no
//! order that changes a result, and an error for bytes that are no orders.

use qkernels::{KOrdersError, Kernel, MatMut, PackEffort, Threads};
use qnn::{
    ActivationCodes, DynamicWeights, FloatMlp, Linear, LinearWorkspace, LoadError, Mlp, QuantConfig,
    QuantMlp, SaveOptions, layers_to_bytes,
};

use crate::contents::Contents;
use crate::small::{linear, mixed_model, rows};

const INPUTS: usize = 40;

fn model() -> Mlp {
    mixed_model(&[50, 33, 9, 8, 4], rows(&inputs(), INPUTS))
}

fn inputs() -> Vec<f32> {
    (0..7 * INPUTS).map(|at| (at as f32 * 0.37).sin()).collect()
}

fn outputs(model: &Mlp) -> Vec<f32> {
    let (x, mut y) = (inputs(), vec![0.0; 7 * 4]);
    let to = MatMut::new(&mut y, 7, 4).unwrap();
    model.forward(rows(&x, INPUTS), to, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
    y
}

/// How the windows of a layer's weights are summed.
fn windows(layer: &Linear) -> Option<String> {
    let weights = match layer {
        Linear::Static(layer) => layer.weights(),
        Linear::Dynamic(layer) => match layer.weights() {
            DynamicWeights::PerChannel { codes, .. } => codes,
            _ => return None,
        },
        _ => return None,
    };
    Some(weights.window_counts(0..weights.n()).to_string())
}

#[test]
fn files_have_them_if_they_are_asked_for() {
    let model = model();
    let plain = layers_to_bytes(&model).unwrap();
    let bytes = SaveOptions::new().with_k_orders(PackEffort::Usual).to_bytes(&model).unwrap();
    let contents = Contents::of(&bytes);
    assert!(contents.to_bytes() == bytes);
    let orders: Vec<_> = contents.tensors.iter().filter(|(name, _)| name.ends_with("orders")).collect();
    let orders: Vec<_> =
        orders.iter().map(|(name, (dtype, shape, _))| format!("{name} {dtype} {shape:?}")).collect();
    let expected = [
        "fc1.weight_k_orders U8 [4, 3, 10]",
        "fc2.weight_k_orders U8 [3, 4, 10]",
        "fc5.weight_k_orders U8 [1, 1, 10]",
    ];
    assert_eq!(orders, expected);
    assert_eq!(
        (&contents.description["version"], Contents::of(&plain).description["version"].as_u64()),
        (&7.into(), Some(2))
    );
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let expected = outputs(&model);
    for kernel in Kernel::available() {
        let searched = Mlp::from_bytes(&plain, Some(kernel)).unwrap();
        let restored = Mlp::from_bytes(&bytes, Some(kernel)).unwrap();
        for (restored, searched) in restored.layers().iter().zip(searched.layers()) {
            assert_eq!(windows(restored), windows(searched), "{kernel}");
        }
        assert_eq!(outputs(&restored), expected, "{kernel}");
        assert!(layers_to_bytes(&restored).unwrap() == plain, "{kernel}");
        let options = SaveOptions::new().with_threads(Threads::Pool(&pool));
        assert!(options.to_bytes(&restored).unwrap() == plain, "{kernel}");
        assert!(options.with_k_orders(PackEffort::Usual).to_bytes(&restored).unwrap() == bytes, "{kernel}");
    }
    // Orders without a search would be worse than none.
    assert!(SaveOptions::new().with_k_orders(PackEffort::Fast).to_bytes(&model).unwrap() == plain);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    SaveOptions::new().with_k_orders(PackEffort::Usual).save(&model, &path).unwrap();
    assert!(std::fs::read(path).unwrap() == bytes);
}

/// They are found for the codes of a layer's input, for which loading packs it.
#[test]
fn layers_of_seven_bits_are_as_fast_with_them() {
    let float = FloatMlp::new(vec![linear("fc1", 64, 320)]).unwrap();
    let inputs: Vec<f32> = (0..640).map(|at| (at as f32 * 0.37).sin()).collect();
    let calibrated = float.calibrate([rows(&inputs, 320)]).unwrap();
    for activations in ActivationCodes::ALL {
        let config = QuantConfig { activations, reduce_range: true, ..Default::default() };
        let model = calibrated.quantize(&config).unwrap();
        let bytes = SaveOptions::new().with_k_orders(PackEffort::Usual).to_bytes(model.as_mlp()).unwrap();
        // Any weights are proven for u8 of 7 bits.
        let none = bytes == model.to_bytes().unwrap();
        assert_eq!(none, activations == ActivationCodes::U8);
        for kernel in Kernel::available() {
            let searched = QuantMlp::from_bytes(&model.to_bytes().unwrap(), Some(kernel)).unwrap();
            let given = QuantMlp::from_bytes(&bytes, Some(kernel)).unwrap();
            let [searched, given] = [searched, given].map(|model| windows(&model.as_mlp().layers()[0]));
            assert_eq!(given, searched, "{kernel}");
        }
    }
}

#[test]
fn no_order_changes_a_result() {
    let model = model();
    let bytes = SaveOptions::new().with_k_orders(PackEffort::Usual).to_bytes(&model).unwrap();
    let mut contents = Contents::of(&bytes);
    for (name, (_, _, data)) in &mut contents.tensors {
        if name.ends_with("orders") {
            for (at, window) in data.chunks_mut(10).enumerate() {
                window[..8].rotate_left(at % 8);
                window[8..].copy_from_slice(&(at as u16).wrapping_mul(9241).to_le_bytes());
            }
        }
    }
    for kernel in Kernel::available() {
        let restored = Mlp::from_bytes(&contents.to_bytes(), Some(kernel)).unwrap();
        assert_eq!(outputs(&restored), outputs(&model), "{kernel}");
        assert!(layers_to_bytes(&restored).unwrap() == layers_to_bytes(&model).unwrap(), "{kernel}");
    }
}

#[test]
fn bytes_that_are_no_orders_are_refused() {
    let good = Contents::of(&SaveOptions::new().with_k_orders(PackEffort::Usual).to_bytes(&model()).unwrap());
    let error = |alter: &dyn Fn(&mut Contents)| {
        let mut contents = good.clone();
        alter(&mut contents);
        Mlp::from_bytes(&contents.to_bytes(), None).unwrap_err()
    };
    let tensor = "fc2.weight_k_orders";
    let missing = error(&|c| drop(c.tensors.remove(tensor)));
    assert_eq!(missing.to_string(), "tensor \"fc2.weight_k_orders\" is missing");
    let shaped = error(&|c| c.tensors.get_mut(tensor).unwrap().1 = vec![4, 3, 10]);
    let expected = "tensor \"fc2.weight_k_orders\" has shape [4, 3, 10], expected [3, 4, 10]";
    assert_eq!(shaped.to_string(), expected);
    let twice = error(&|c| c.tensors.get_mut(tensor).unwrap().2[50] = 0x55);
    assert!(matches!(
        twice,
        LoadError::KOrders { error: KOrdersError::Twice { channel: 16, window: 1, k: 5 }, .. }
    ));
    let text = "layer \"fc2\": the order of window 1 of channels 16.. has k = 5 of the window twice";
    assert_eq!(twice.to_string(), text);
    let version = error(&|c| c.description["version"] = 6.into());
    assert_eq!(version.to_string(), "version 6 of the format, expected 7");
    let without = error(&|c| drop(c.description["layers"][1].as_object_mut().unwrap().remove("k_orders")));
    assert_eq!(without.to_string(), "tensor \"fc2.weight_k_orders\" is unexpected");
    for (layer, form) in [(2, "weight_only"), (3, "float")] {
        let field = error(&|c| c.description["layers"][layer]["k_orders"] = true.into());
        let text = format!("layer \"fc{}\" is {form}: \"k_orders\" must not be there", layer + 1);
        assert_eq!(field.to_string(), text);
    }
}
