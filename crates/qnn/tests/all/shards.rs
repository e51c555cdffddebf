//! Checkpoints in several files: read as one, or refused with the names of tensor and file.

use qcore::ActivationFunction;
use qkernels::{Dynamic, Kernel};
use qnn::{Checkpoint, Int8Form, Linear, ShardIndex};
use safetensors::Dtype;

use crate::tensor_files::{codes, f32s, file, with_header};

const DYNAMIC: Int8Form =
    Int8Form::Dynamic { activations: Dynamic::PerToken(qcore::Scheme::weights_i8()), group: None };

/// The layer `q`, whose zero points and bias are in another file than its weights.
fn shards() -> [Vec<u8>; 2] {
    let first = vec![
        ("q.weight", Dtype::I8, vec![2, 3], codes(&[1, 2, 3, 4, 5, 6])),
        ("q.weight_scale", Dtype::F32, vec![2, 1], f32s(&[0.5, 0.25])),
    ];
    let second = vec![
        ("q.bias", Dtype::F32, vec![2], f32s(&[1.0, -1.0])),
        ("q.weight_zero_point", Dtype::I8, vec![2, 1], codes(&[3, -3])),
    ];
    [file(&first), file(&second)]
}

const INDEX: &str = r#"{"metadata": {"total_size": 24}, "weight_map": {
    "q.bias": "model-00002-of-00002.safetensors", "q.weight": "model-00001-of-00002.safetensors",
    "q.weight_scale": "model-00001-of-00002.safetensors", "q.weight_zero_point": "model-00002-of-00002.safetensors"}}"#;
const FILES: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn indexed(index: &str, shards: &[(&str, &[u8])]) -> Result<(), String> {
    let index = ShardIndex::parse(index.as_bytes()).map_err(|error| error.to_string())?;
    Checkpoint::parse_indexed(&index, shards.iter().copied()).map_err(|error| error.to_string()).map(drop)
}

#[test]
fn a_layer_in_two_files_has_all_of_its_tensors() {
    let [first, second] = shards();
    let index = ShardIndex::parse(INDEX.as_bytes()).unwrap();
    assert!(index.shards().eq(FILES));
    assert_eq!((index.shard_of("q.bias"), index.shard_of("q")), (Some(FILES[1]), None));
    let files = [(FILES[1], &second[..]), (FILES[0], &first[..])];
    for mut checkpoint in [
        Checkpoint::parse_shards([&first[..], &second]).unwrap(),
        Checkpoint::parse_shards([&second[..], &first]).unwrap(),
        Checkpoint::parse_indexed(&index, files).unwrap(),
    ] {
        assert!(checkpoint.is_int8("q") && checkpoint.layers() == ["q"]);
        let kernel = Kernel::select().unwrap();
        let layer = checkpoint.take_int8("q", DYNAMIC, ActivationFunction::Identity, kernel).unwrap();
        let Linear::Dynamic(layer) = layer else { panic!() };
        assert_eq!(layer.bias(), Some(&[1.0, -1.0][..]));
        assert_eq!(layer.weights().zero_points().unwrap(), [3, -3]);
        checkpoint.finish().unwrap();
    }
}

#[test]
fn files_that_make_no_checkpoint_are_named() {
    let [first, second] = shards();
    let listed = |files: &[&[u8]]| Checkpoint::parse_shards(files.iter().copied()).unwrap_err().to_string();
    assert_eq!(listed(&[]), "a checkpoint has at least one shard, got none");
    assert_eq!(
        listed(&[&first, &second, &first]),
        "tensor \"q.weight\" is in shard \"0\" and in shard \"2\""
    );
    assert_eq!(
        listed(&[&first, &second[..7]]),
        "shard \"1\": not a safetensors file, or cut off: the header ends at byte 8, the file at 7"
    );
    let twice = with_header(r#"{"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"a":{}}"#, &[]);
    assert!(listed(&[&first, &twice]).ends_with("the header has \"a\" twice"));

    let (a, b) = ((FILES[0], &first[..]), (FILES[1], &second[..]));
    assert_eq!(indexed(INDEX, &[a, b]), Ok(()));
    let fails = |index: &str, files: &[(&str, &[u8])], message: &str| {
        assert_eq!(indexed(index, files).unwrap_err(), message);
    };
    fails(INDEX, &[a], &format!("shard {:?} is missing, which has tensor \"q.bias\" by the index", FILES[1]));
    fails(INDEX, &[a, b, a], &format!("shard {:?} was given twice", FILES[0]));
    fails(INDEX, &[a, b, ("other", &first)], "the index knows no shard \"other\"");
    // The files exchanged: the first tensor by name tells.
    let exchanged = [(FILES[0], &second[..]), (FILES[1], &first[..])];
    let message = format!("tensor \"q.bias\" is in shard {:?} by the index, but in {:?}", FILES[1], FILES[0]);
    fails(INDEX, &exchanged, &message);
    fails(
        INDEX,
        &[a, (FILES[1], &first)],
        &format!("tensor \"q.weight\" is in shard {:?} and in shard {:?}", FILES[0], FILES[1]),
    );
    let more = INDEX.replace("\"q.bias\"", "\"q.g_idx\": \"model-00001-of-00002.safetensors\", \"q.bias\"");
    fails(
        &more,
        &[a, b],
        &format!("tensor \"q.g_idx\" is in shard {:?} by the index, but in none", FILES[0]),
    );
    let fewer = INDEX.replace("\"q.bias\": \"model-00002-of-00002.safetensors\",", "");
    fails(&fewer, &[a, b], &format!("tensor \"q.bias\" of shard {:?} is not in the index", FILES[1]));
    fails(
        INDEX,
        &[a, (FILES[1], &second[..20])],
        &format!(
            "shard {:?}: not a safetensors file, or cut off: the header ends at byte {}, the file at 20",
            FILES[1],
            8 + u64::from_le_bytes(*second.first_chunk().unwrap())
        ),
    );
}

#[test]
fn an_index_is_not_trusted() {
    let error = |index: &str| ShardIndex::parse(index.as_bytes()).unwrap_err().to_string();
    for broken in ["", "[]", "{}", "{", r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 1}}"#] {
        assert!(error(broken).starts_with("not an index of shards: "), "{broken}");
    }
    assert_eq!(
        error(r#"{"weight_map": {"a": "x", "b": "x", "a": "y"}}"#),
        "the index of shards has \"weight_map: a\" twice"
    );
    assert_eq!(
        error(r#"{"weight_map": {}, "weight_map": {}}"#),
        "the index of shards has \"weight_map\" twice"
    );
    for elsewhere in ["", ".", "..", "../x", "/etc/passwd", "a/b", "C:\\x", "a\\b", "a\0b"] {
        let index = serde_json::json!({"weight_map": {"a": "x", "b": elsewhere}}).to_string();
        let message =
            format!("the index has tensor \"b\" in {elsewhere:?}, which is no plain name of a file");
        assert_eq!(error(&index), message);
    }
}
