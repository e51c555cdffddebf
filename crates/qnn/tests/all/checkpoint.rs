//! Layers from files of other programs: the int-quantized layout of compressed-tensors, and
//! whatever is wrong with one.

use qcore::{ActivationFunction, Scheme};
use qkernels::{Dynamic, Kernel, MatMut, MatRef, Threads};
use qnn::{Checkpoint, Int8Form, Linear, LinearWorkspace};
use safetensors::Dtype;

use crate::tensor_files::{Tensors, bf16s, codes, f16s, f32s, file, i32s, i64s};

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
    let layer = checkpoint.take_int8("q", form, ActivationFunction::Identity, kernel);
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

const DYNAMIC: Int8Form =
    Int8Form::Dynamic { activations: Dynamic::PerToken(Scheme::weights_i8()), group: None };
const PER_CHANNEL: Int8Form = Int8Form::WeightOnly { group: None };
const FORMS: [Int8Form; 3] = [Int8Form::Static, DYNAMIC, PER_CHANNEL];

fn grouped(group: usize) -> Int8Form {
    Int8Form::WeightOnly { group: Some(group) }
}

/// [`w8a8`] with the scale of an input where `form` needs one.
fn w8a8_for(form: Int8Form) -> Tensors {
    let mut tensors = w8a8();
    if matches!(form, Int8Form::Static) {
        tensors.push(("q.input_scale", Dtype::F32, vec![1], f32s(&[0.5])));
    }
    tensors
}

/// That no form takes the tensors as `alter` leaves them.
fn no_form_takes(alter: &dyn Fn(&mut Tensors), message: &str) {
    for form in FORMS {
        let mut tensors = w8a8_for(form);
        alter(&mut tensors);
        let error = take(&tensors, form).unwrap_err();
        assert!(error.ends_with(message), "{form:?}: {error}");
    }
}

#[test]
fn per_channel_weights_become_a_dynamic_layer() {
    let layer = take(&w8a8(), DYNAMIC).unwrap();
    assert_eq!((layer.form().name(), layer.n(), layer.k()), ("dynamic", 2, 3));
    assert_eq!(run(&layer, &[127.0, 0.0, 1.0]), [0.5 * (12700.0 + 25.0) + 1.5, 0.25 * (127.0 - 128.0) - 2.0]);
}

#[test]
fn one_scale_for_all_and_zero_points_are_taken() {
    let mut tensors = w8a8();
    tensors[1] = ("q.weight_scale", Dtype::F32, vec![1], f32s(&[0.5]));
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
    tensors.push(("q.input_scale", Dtype::F32, vec![1], f32s(&[0.5])));
    tensors.push(("q.input_zero_point", Dtype::I8, vec![1], codes(&[-3])));
    let layer = take(&tensors, Int8Form::Static).unwrap();
    let Linear::Static(layer) = &layer else { panic!("{}", layer.form().name()) };
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
    let layer = take(&tensors, grouped(16)).unwrap();
    let mut x = [0.0; 32];
    (x[0], x[31]) = (1.0, 2.0);
    let form = Int8Form::Dynamic { activations: Dynamic::PerToken(Scheme::weights_i8()), group: Some(16) };
    let dynamic = take(&tensors, form).unwrap();
    assert_eq!(layer.form().name(), "weight_only");
    let mut large = [0.0; 32];
    (large[0], large[31]) = (127.0, 1.0); // the scale is 1
    assert_eq!(run(&dynamic, &large), [0.5 * 127.0 * -32.0 - 0.25, 2.0 * 31.0]);
    assert_eq!(run(&layer, &x), [0.5 * -32.0 - (0.25 * 2.0), 2.0 * 2.0 * 31.0]);
    let layer = take(&w8a8(), PER_CHANNEL).unwrap();
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
        "tensor \"q.weight_scale\" has shape [2, 2]: 2 scales for each output; \
         how many of the k = 3 weights share one must be stated, a file does not say it",
    );
    fails(
        &|t| {
            t[1] = ("q.weight_scale", Dtype::BF16, vec![2, 2], bf16s(&[1.0; 4]));
            t.push(("q.input_scale", Dtype::F32, vec![1], f32s(&[0.5])));
        },
        Int8Form::Static,
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
        "layer \"q\": n = 0 outputs and k = 3 inputs; both must be at least 1",
    );
}

/// Weights (n, k) whose groups have the scales (n, groups).
fn with_groups(n: usize, k: usize, scales: &[f32]) -> Tensors {
    let weight: Vec<i8> = (0..n * k).map(|at| (at * 37 % 255) as i8).collect();
    let groups = scales.len() / n;
    vec![
        ("q.weight", Dtype::I8, vec![n, k], codes(&weight)),
        ("q.weight_scale", Dtype::F32, vec![n, groups], f32s(scales)),
    ]
}

#[test]
fn a_short_last_group_has_the_scale_that_it_has() {
    for (k, group) in
        [(160_usize, 128), (96, 64), (192, 128), (224, 128), (161, 128), (130, 16), (17, 16), (96, 32)]
    {
        let groups = k.div_ceil(group);
        let scales: Vec<f32> = (0..2 * groups).map(|at| 0.5_f32.powi(at as i32 % 7)).collect();
        let tensors = with_groups(2, k, &scales);
        let Linear::WeightOnly(layer) = take(&tensors, grouped(group)).unwrap() else { panic!() };
        for (at, value) in layer.unpack().into_iter().enumerate() {
            let scale = scales[at / k * groups + at % k / group];
            assert_eq!(
                value,
                f32::from((at * 37 % 255) as u8 as i8) * scale,
                "k = {k}, group = {group}, {at}"
            );
        }
    }
}

#[test]
fn the_length_of_groups_is_stated_and_fits_the_file() {
    let fails = |k, form, message: &str| {
        assert_eq!(take(&with_groups(2, k, &[0.5; 4]), form).unwrap_err(), message);
    };
    for k in [32, 160] {
        let unstated = format!(
            "tensor \"q.weight_scale\" has shape [2, 2]: 2 scales for each output; \
             how many of the k = {k} weights share one must be stated, a file does not say it"
        );
        fails(k, PER_CHANNEL, &unstated);
    }
    let wrong = |k: usize, group: usize| {
        let groups = k.div_ceil(group);
        format!(
            "tensor \"q.weight_scale\" has shape [2, 2], expected [2, {groups}]: \
             k = {k} in groups of {group} is {groups} of them"
        )
    };
    for group in [16, 32, 64, 160, 176, usize::MAX] {
        fails(160, grouped(group), &wrong(160, group));
    }
    let unsupported = |k: usize, group: usize| {
        format!(
            "layer \"q\": groups of {group} along k = {k} are not supported; lengths are multiples of 16 \
             (16, 32, 64, 128 and so on), or k and more for a single group"
        )
    };
    fails(160, grouped(0), &unsupported(160, 0));
    fails(160, grouped(100), &unsupported(160, 100));
    fails(16, grouped(8), &unsupported(16, 8));
    // Scales of whole channels are no groups, and groups are no whole channels.
    let mut tensors = with_groups(2, 32, &[0.5, 0.25]);
    for group in [32, 33, 128] {
        assert!(take(&tensors, grouped(group)).is_ok());
    }
    for shape in [vec![2, 1], vec![2], vec![1, 2]] {
        tensors[1].2 = shape;
        let error = take(&tensors, grouped(16)).unwrap_err();
        assert!(error.ends_with("expected [2, 2]: k = 32 in groups of 16 is 2 of them"), "{error}");
    }
    let mut one = with_groups(1, 32, &[0.5]);
    one[1].2 = vec![];
    assert!(take(&one, grouped(16)).is_err());
    // One output: a row of scales is groups all the same.
    assert!(take(&with_groups(1, 32, &[0.5, 0.25]), PER_CHANNEL).unwrap_err().contains("must be stated"));
    assert!(take(&with_groups(1, 32, &[0.5, 0.25]), grouped(16)).is_ok());
}

#[test]
fn zero_points_of_groups_are_as_many_as_the_scales() {
    let mut tensors = with_groups(2, 40, &[1.0; 4]);
    tensors.push(("q.weight_zero_point", Dtype::I64, vec![2, 2], i64s(&[1, -2, 3, -128])));
    let Linear::WeightOnly(layer) = take(&tensors, grouped(32)).unwrap() else { panic!() };
    assert_eq!(layer.weights().zero_points().unwrap(), [1, -2, 3, -128]);
    for (shape, values) in [(vec![], 1), (vec![2], 2), (vec![2, 1], 2), (vec![1, 4], 4), (vec![4], 4)] {
        tensors[2] = ("q.weight_zero_point", Dtype::I8, shape.clone(), vec![0; values]);
        let error = take(&tensors, grouped(32)).unwrap_err().to_string();
        let expected = format!("has shape {shape:?}, expected [2, 2]");
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn a_shape_that_only_has_as_many_entries_is_refused() {
    for shape in [vec![1, 2], vec![2, 1, 1], vec![1, 2, 1]] {
        for at in [1, 2] {
            let name = ["q.weight_scale", "q.bias"][at - 1];
            no_form_takes(
                &|t| t[at].2 = shape.clone(),
                &match name {
                    "q.bias" => format!("tensor \"q.bias\" has shape {shape:?}, expected [2]"),
                    _ => format!("tensor {name:?} has shape {shape:?}, expected one value, or n = 2"),
                },
            );
        }
        no_form_takes(
            &|t| t.push(("q.weight_zero_point", Dtype::I8, shape.clone(), vec![0; 2])),
            &format!("tensor \"q.weight_zero_point\" has shape {shape:?}, expected one value, or n = 2"),
        );
    }
    no_form_takes(&|t| t[2].2 = vec![2, 1], "tensor \"q.bias\" has shape [2, 1], expected [2]");
    // One value has up to two dimensions.
    for (shape, taken) in [(vec![], true), (vec![1], true), (vec![1, 1], true), (vec![1, 1, 1], false)] {
        for form in FORMS {
            let mut tensors = w8a8_for(form);
            tensors[1] = ("q.weight_scale", Dtype::F32, shape.clone(), f32s(&[0.5]));
            tensors.push(("q.weight_zero_point", Dtype::I8, shape.clone(), codes(&[1])));
            assert_eq!(take(&tensors, form).is_ok(), taken, "{shape:?}");
        }
        let mut tensors = w8a8_for(Int8Form::Static);
        tensors[3].2 = shape.clone();
        tensors.push(("q.input_zero_point", Dtype::I32, shape.clone(), i32s(&[3])));
        assert_eq!(take(&tensors, Int8Form::Static).is_ok(), taken, "{shape:?}");
    }
}

#[test]
fn scales_are_finite_and_greater_than_0_in_every_form() {
    for bad in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let message = "of channel 1 must be finite and greater than 0";
        no_form_takes(&|t| t[1].3 = bf16s(&[1.0, bad]), message);
        let error = take(&with_groups(2, 32, &[1.0, 1.0, 1.0, bad]), grouped(16)).unwrap_err();
        assert_eq!(error, format!("layer \"q\": weight scale {bad:e} of group 1 {message}"));
    }
}

#[test]
fn integers_of_any_type_are_taken_where_they_fit() {
    let zeros = [
        (Dtype::I8, 1),
        (Dtype::U8, 1),
        (Dtype::I16, 2),
        (Dtype::U16, 2),
        (Dtype::I32, 4),
        (Dtype::U32, 4),
        (Dtype::I64, 8),
        (Dtype::U64, 8),
    ];
    for (dtype, bytes) in zeros {
        for form in FORMS {
            let mut tensors = w8a8_for(form);
            tensors[2] = ("q.bias", dtype, vec![2], vec![0; 2 * bytes]);
            tensors.push(("q.weight_zero_point", dtype, vec![2, 1], vec![0; 2 * bytes]));
            if matches!(form, Int8Form::Static) {
                tensors.push(("q.input_zero_point", dtype, vec![], vec![0; bytes]));
            }
            assert!(take(&tensors, form).is_ok(), "{dtype}, {form:?}");
        }
        let mut tensors = w8a8();
        let mut one = vec![0; 2 * bytes];
        one[bytes] = 1;
        tensors.push(("q.weight_zero_point", dtype, vec![2], one.clone()));
        let unsigned = dtype.to_string().starts_with('U');
        let refused = format!(
            "tensor \"q.weight_zero_point\" is {dtype} and has 1 at index 1: \
             zero points of unsigned codes, but codes are I8"
        );
        assert_eq!(take(&tensors, DYNAMIC).err(), unsigned.then_some(refused));
        no_form_takes(
            &|t| t[2] = ("q.bias", dtype, vec![2], one.clone()),
            &format!(
                "tensor \"q.bias\" is {dtype} and has 1 at index 1; nothing says in which unit, so only 0 is taken"
            ),
        );
    }
    let zero_points = |values: &[i32]| {
        let mut tensors = w8a8();
        tensors.push(("q.weight_zero_point", Dtype::I32, vec![2], i32s(values)));
        take(&tensors, DYNAMIC)
    };
    let Linear::Dynamic(layer) = zero_points(&[-128, 127]).unwrap() else { panic!() };
    assert_eq!(layer.weights().zero_points().unwrap(), [-128, 127]);
    for bad in [-129, 128, 256, i32::MIN, i32::MAX] {
        let message = "zero points of i8 codes are -128 to 127";
        assert_eq!(
            zero_points(&[0, bad]).unwrap_err(),
            format!("tensor \"q.weight_zero_point\" has {bad} at index 1; {message}")
        );
    }
    no_form_takes(
        &|t| t.push(("q.weight_zero_point", Dtype::F32, vec![1], f32s(&[0.0]))),
        "tensor \"q.weight_zero_point\" is F32, expected I8",
    );
    no_form_takes(
        &|t| t[2] = ("q.bias", Dtype::BOOL, vec![2], vec![0; 2]),
        "tensor \"q.bias\" is BOOL, expected F32, F16 or BF16",
    );
}

#[test]
fn a_tensor_of_the_layer_that_is_not_understood_is_refused_when_it_is_taken() {
    let kernel = Kernel::select().unwrap();
    for part in ["g_idx", "weight_g_idx", "weight_shape", "output_scale", "weight.absmax", "weight_scale_2"] {
        let tensor: &'static str = format!("q.{part}").leak();
        let message = format!("tensor {tensor:?} is unexpected");
        for form in FORMS {
            let mut tensors = w8a8_for(form);
            tensors.push((tensor, Dtype::I32, vec![1], vec![0; 4]));
            let bytes = file(&tensors);
            let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
            let error = checkpoint.take_int8("q", form, ActivationFunction::Identity, kernel).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let float = vec![
            ("q.weight", Dtype::F32, vec![1, 1], f32s(&[1.0])),
            (tensor, Dtype::I32, vec![1], vec![0; 4]),
        ];
        let error = Checkpoint::parse(&file(&float)).unwrap().take_float("q").unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    // Those of a layer within it, or of one whose name only begins so, are none of its own.
    let mut tensors = w8a8();
    for other in ["q.inner.g_idx", "q2.g_idx", "qq", "a.g_idx"] {
        tensors.push((other, Dtype::I32, vec![1], vec![0; 4]));
    }
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    assert!(checkpoint.take_int8("q", DYNAMIC, ActivationFunction::Identity, kernel).is_ok());
}

#[test]
fn other_layouts_are_named() {
    let expect = |parts: &[(&'static str, Dtype)], layout: &str, tensor: &str| {
        let tensors: Tensors = parts
            .iter()
            .map(|&(name, dtype)| (name, dtype, vec![1, 1], vec![0; dtype.bitsize() / 8]))
            .collect();
        let unsupported = layout.starts_with("FP8") || layout.starts_with("bitsandbytes");
        let advice = match unsupported {
            true => "it is not supported yet",
            false => "`Checkpoint::take_packed` takes it",
        };
        let message =
            format!("layer \"q\" is in the layout of {layout}, as tensor {tensor:?} says; {advice}");
        for form in FORMS {
            assert_eq!(take(&tensors, form).unwrap_err(), message);
        }
        let bytes = file(&tensors);
        let error = Checkpoint::parse(&bytes).unwrap().take_float("q").unwrap_err().to_string();
        assert!(error == message || error.contains("is I8"), "{error}");
    };
    let packed = "compressed-tensors' packed weights";
    expect(
        &[("q.weight_packed", Dtype::I32), ("q.weight_scale", Dtype::BF16), ("q.weight_shape", Dtype::I64)],
        packed,
        "q.weight_packed",
    );
    expect(
        &[
            ("q.qweight", Dtype::I32),
            ("q.qzeros", Dtype::I32),
            ("q.scales", Dtype::F16),
            ("q.g_idx", Dtype::I32),
        ],
        "GPTQ or AWQ",
        "q.qweight",
    );
    expect(&[("q.qzeros", Dtype::I32), ("q.weight", Dtype::I8)], "GPTQ or AWQ", "q.qzeros");
    expect(&[("q.scales", Dtype::F16)], "GPTQ or AWQ", "q.scales");
    expect(&[("q.weight", Dtype::I8), ("q.SCB", Dtype::F32)], "bitsandbytes' LLM.int8()", "q.SCB");
}

#[test]
fn what_was_taken_is_not_called_missing_and_what_failed_can_be_taken_otherwise() {
    let bytes = file(&w8a8());
    let kernel = Kernel::select().unwrap();
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let mut take = |form| checkpoint.take_int8("q", form, ActivationFunction::Identity, kernel);
    assert_eq!(take(Int8Form::Static).unwrap_err().to_string(), "tensor \"q.input_scale\" is missing");
    assert!(take(DYNAMIC).is_ok());
    for form in FORMS {
        assert_eq!(
            take(form).unwrap_err().to_string(),
            "tensor \"q.weight\" was taken before; only one that is tied can be taken again"
        );
    }
    assert_eq!(
        checkpoint.take_float("q").unwrap_err().to_string(),
        "tensor \"q.weight\" was taken before; only one that is tied can be taken again"
    );
    assert_eq!(checkpoint.take_float("r").unwrap_err().to_string(), "tensor \"r.weight\" is missing");
    checkpoint.finish().unwrap();
}
