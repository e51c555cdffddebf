//! Whole models in and out: tensors that are no linear layer, names and layouts of other programs,
//! one list of a model's parts, and one constructor for a checkpoint and for a file of this
//! library.

use qcore::ActivationFunction;
use qkernels::{MatRef, Threads};
use qnn::{
    Checkpoint, CheckpointError, FloatTensor, LayerFile, Layers, Linear, LinearWorkspace, LoadError,
    PassConfig, SaveError, Source, SourceError, TensorFileError, layers_to_bytes, quantize_model,
    save_layers,
};
use safetensors::Dtype;

use crate::small::{linear, rows};
use crate::tensor_files::{Tensors, bf16s, codes, f16s, f32s, file, i64s, sealed};

struct Block {
    norm: FloatTensor,
    up: Linear,
    down: Linear,
}
qnn::layers!(Block { norm, up, down });

struct Model {
    words: FloatTensor,
    blocks: Vec<Block>,
    extra: Option<Box<Linear>>,
    heads: [Linear; 2],
}
qnn::layers!(Model { words, blocks, extra, heads });

struct Pair(Linear, Linear);
qnn::layers!(Pair { 0, 1 });

const K: usize = 4;

impl Block {
    fn new(mut from: Source<'_>) -> Result<Self, SourceError> {
        Ok(Self {
            norm: from.tensor("norm.weight", &[K])?,
            up: from.pp("mlp").linear_then("up", ActivationFunction::Gelu)?,
            down: from.pp("mlp").linear("down")?,
        })
    }

    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut workspace = LinearWorkspace::new();
        let x: Vec<f32> = x.iter().zip(self.norm.values().iter().cycle()).map(|(x, w)| x * w).collect();
        let up = self.up.forward_vec(rows(&x, K), Threads::Serial, &mut workspace).unwrap();
        self.down.forward_vec(rows(&up, self.up.n()), Threads::Serial, &mut workspace).unwrap()
    }
}

impl Model {
    fn new(mut from: Source<'_>) -> Result<Self, SourceError> {
        let words = from.tensor_of_any_shape("words.weight")?;
        let blocks = (0..2).map(|i| Block::new(from.pp("blocks").pp(i)));
        let blocks = blocks.collect::<Result<_, _>>()?;
        let heads = [from.linear("heads.0")?, from.linear("heads.1")?];
        Ok(Self { words, blocks, extra: None, heads })
    }

    fn forward(&self, words: &[usize]) -> Vec<f32> {
        let x = self.words.gather(words).unwrap();
        self.blocks.iter().fold(x, |x, block| block.forward(&x))
    }
}

/// Values that differ from each other.
fn values(len: usize, phase: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
}

fn checkpoint_bytes() -> Vec<u8> {
    let f32 = |name, shape: &[usize], phase| {
        (name, Dtype::F32, shape.to_vec(), f32s(&values(shape.iter().product(), phase)))
    };
    let tensors: Tensors = vec![
        f32("words.weight", &[5, K], 0.0),
        f32("blocks.0.norm.weight", &[K], 1.0),
        f32("blocks.0.mlp.up.weight", &[6, K], 2.0),
        f32("blocks.0.mlp.up.bias", &[6], 3.0),
        f32("blocks.0.mlp.down.weight", &[K, 6], 4.0),
        f32("blocks.1.norm.weight", &[K], 5.0),
        f32("blocks.1.mlp.up.weight", &[6, K], 6.0),
        f32("blocks.1.mlp.down.weight", &[K, 6], 7.0),
        f32("heads.0.weight", &[2, K], 8.0),
        f32("heads.1.weight", &[3, K], 9.0),
    ];
    file(&tensors)
}

#[test]
fn one_file_holds_the_whole_quantized_model() {
    let bytes = checkpoint_bytes();
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let mut model = Model::new(checkpoint.source()).unwrap();
    checkpoint.finish().unwrap();
    let words = [0, 3, 4, 1];
    let float = model.forward(&words);
    let config = PassConfig { require_integer: true, ..PassConfig::default() }
        .with_rule("heads.*", qnn::Method::Float);
    let run = |model: &mut Model, words: &[usize]| {
        model.forward(words);
        Ok::<_, std::convert::Infallible>(())
    };
    quantize_model(&mut model, &config, [&words[..]], run, |_| {}).unwrap();
    let quantized = model.forward(&words);
    assert_ne!(float, quantized);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_layers(&model, &path).unwrap();
    let saved = std::fs::read(path).unwrap();
    let mut file = LayerFile::parse(&saved).unwrap();
    assert_eq!(file.tensor_names(), ["words.weight", "blocks.0.norm.weight", "blocks.1.norm.weight"]);
    let restored = Model::new(file.source()).unwrap();
    file.finish().unwrap();
    assert_eq!(restored.forward(&words), quantized);
    assert_eq!(restored.words, model.words);
    assert_eq!(layers_to_bytes(&restored).unwrap(), saved);
}

#[test]
fn a_tensor_that_no_file_can_have_is_refused() {
    let tensor = FloatTensor::new("__metadata__", [1], vec![1.0]).unwrap();
    let error = layers_to_bytes(&tensor).unwrap_err();
    assert!(matches!(error, SaveError::ReservedName { .. }), "{error}");
    let error = FloatTensor::new("t", [usize::MAX; 3], vec![]).unwrap_err().to_string();
    assert!(error.ends_with("got 0"), "{error}");
}

#[test]
fn both_walks_come_from_one_list() {
    let bytes = checkpoint_bytes();
    let mut model = Model::new(Checkpoint::parse(&bytes).unwrap().source()).unwrap();
    model.extra = Some(Box::new(linear("extra", 1, 1).into()));
    let (mut shown, mut shown_mut, mut tensors) = (Vec::new(), Vec::new(), Vec::new());
    model.visit(&mut |layer| shown.push(layer.name().to_owned()));
    model.visit_mut(&mut |layer| shown_mut.push(layer.name().to_owned()));
    model.visit_tensors(&mut |tensor| tensors.push(tensor.name().to_owned()));
    let blocks = ["blocks.0.mlp.up", "blocks.0.mlp.down", "blocks.1.mlp.up", "blocks.1.mlp.down"];
    assert_eq!(shown, [&blocks[..], &["extra", "heads.0", "heads.1"]].concat());
    assert_eq!(shown, shown_mut);
    assert_eq!(tensors, ["words.weight", "blocks.0.norm.weight", "blocks.1.norm.weight"]);

    let pair = Pair(linear("a", 1, 1).into(), linear("b", 1, 1).into());
    let mut names = String::new();
    pair.visit(&mut |layer| names += layer.name());
    assert_eq!(names, "ab");
}

/// Counts how often it is told that layers were replaced.
struct Counter(Linear, u32);

impl Layers for Counter {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        visit(&self.0);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        visit(&mut self.0);
    }

    fn replaced(&mut self) {
        self.1 += 1;
    }
}

struct Counters {
    first: Counter,
    more: Option<Box<[Counter; 2]>>,
}
qnn::layers!(Counters { first, more });

#[test]
fn every_part_hears_that_layers_were_replaced() {
    let counter = |name| Counter(linear(name, 1, 1).into(), 0);
    let mut model = Counters { first: counter("a"), more: Some(Box::new([counter("b"), counter("c")])) };
    model.replaced();
    let more = model.more.unwrap();
    assert_eq!((model.first.1, more[0].1, more[1].1), (1, 1, 1));
}

#[test]
fn tensors_of_any_float_are_widened() {
    let tensors: Tensors = vec![
        ("a", Dtype::F32, vec![2, 1], f32s(&[1.5, f32::NEG_INFINITY])),
        ("b", Dtype::F16, vec![1], f16s(&[-0.25])),
        ("c", Dtype::BF16, vec![], bf16s(&[3.0])),
        ("d", Dtype::F32, vec![0, 7], vec![]),
    ];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let a = checkpoint.take_tensor("a", Some(&[2, 1])).unwrap();
    assert_eq!((a.name(), a.shape(), a.values()), ("a", &[2, 1][..], &[1.5, f32::NEG_INFINITY][..]));
    assert_eq!(checkpoint.take_tensor("b", None).unwrap().values(), [-0.25]);
    assert_eq!(checkpoint.take_tensor("c", Some(&[])).unwrap().values(), [3.0]);
    assert!(checkpoint.take_tensor("d", Some(&[0, 7])).unwrap().values().is_empty());
    checkpoint.finish().unwrap();
}

#[test]
fn a_tensor_that_cannot_be_taken_stays() {
    let tensors: Tensors =
        vec![("norm", Dtype::F32, vec![2], f32s(&[1.0, 2.0])), ("ids", Dtype::I64, vec![2], i64s(&[0, 1]))];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let mut error = |name: &str, shape| checkpoint.take_tensor(name, shape).unwrap_err().to_string();
    assert_eq!(error("norm", Some(&[2, 1])), r#"tensor "norm" has shape [2], expected [2, 1]"#);
    assert_eq!(error("ids", None), r#"tensor "ids" is I64, expected F32, F16 or BF16"#);
    assert_eq!(error("other", None), r#"tensor "other" is missing"#);
    assert_eq!(checkpoint.take_tensor("norm", Some(&[2])).unwrap().values(), [1.0, 2.0]);
    let again = checkpoint.take_tensor("norm", None).unwrap_err();
    assert!(matches!(again, CheckpointError::File(TensorFileError::Taken { .. })), "{again}");
}

#[test]
fn all_that_is_left_is_listed() {
    let tensors: Tensors = vec![
        ("fc.weight", Dtype::F32, vec![1, 1], f32s(&[1.0])),
        ("embeddings.position_ids", Dtype::I64, vec![1], i64s(&[0])),
        ("norm", Dtype::F32, vec![1], f32s(&[1.0])),
        ("unused.codes", Dtype::I8, vec![1], codes(&[1])),
    ];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.take_float("fc").unwrap();
    let error = checkpoint.finish().unwrap_err();
    assert_eq!(error.to_string(), "nobody took 3 tensors: embeddings.position_ids, norm, unused.codes");
    let error = checkpoint.finish_except(&["*.position_ids", "unused.*"]).unwrap_err();
    assert_eq!(error.to_string(), "nobody took 1 tensor: norm");
    checkpoint.finish_except(&["*.position_ids", "unused.*", "norm"]).unwrap();
}

#[test]
fn weights_with_inputs_first_are_transposed_where_that_is_said() {
    // Rows are inputs: k = 2, n = 3; and a square one.
    let tensors: Tensors = vec![
        ("h.0.c_fc.weight", Dtype::F32, vec![2, 3], f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("h.0.c_fc.bias", Dtype::F32, vec![3], f32s(&[0.1, 0.2, 0.3])),
        ("h.1.c_fc.weight", Dtype::F16, vec![2, 2], f16s(&[1.0, 2.0, 3.0, 4.0])),
        ("lm_head.weight", Dtype::F32, vec![2, 2], f32s(&[1.0, 2.0, 3.0, 4.0])),
    ];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.stored_kn("h.?.c_fc");
    let wide = checkpoint.take_float("h.0.c_fc").unwrap();
    assert_eq!((wide.n(), wide.k(), wide.bias().unwrap()), (3, 2, &[0.1, 0.2, 0.3][..]));
    assert_eq!(wide.weight(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(checkpoint.take_float("h.1.c_fc").unwrap().weight(), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(checkpoint.take_float("lm_head").unwrap().weight(), [1.0, 2.0, 3.0, 4.0]);
    checkpoint.finish().unwrap();

    // The bias tells, where nobody did.
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let error = checkpoint.take_float("h.0.c_fc").unwrap_err();
    let said =
        [r#"layer "h.0.c_fc": 3 biases"#, "weights of shape [2, 3] that are read as (n, k)", "stored_kn"];
    assert!(said.iter().all(|part| error.to_string().contains(part)), "{error}");

    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.stored_kn("h.*");
    checkpoint.stored_kn("transformer.h.*");
    for name in ["h.0.c_fc", "h.1.c_fc", "lm_head"] {
        checkpoint.take_float(name).unwrap();
    }
    let error = checkpoint.finish().unwrap_err();
    assert!(error.to_string().contains(r#"matches "transformer.h.*""#), "{error}");
}

#[test]
fn a_tied_tensor_is_taken_as_often_as_the_model_needs_it() {
    let tensors: Tensors = vec![("words.weight", Dtype::F32, vec![2, 1], f32s(&[1.0, 2.0]))];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.tie("words.weight").unwrap();
    assert_eq!(checkpoint.finish().unwrap_err().to_string(), "nobody took 1 tensor: words.weight");
    assert_eq!(checkpoint.layers(), ["words"]);
    let embedding = checkpoint.take_tensor("words.weight", None).unwrap();
    assert_eq!(checkpoint.take_float("words").unwrap().weight(), embedding.values());
    checkpoint.finish().unwrap();
    assert_eq!((checkpoint.layers().len(), checkpoint.tensors().count()), (0, 0));
    let mut untied = Checkpoint::parse(&bytes).unwrap();
    untied.take_float("words").unwrap();
    assert_eq!(
        untied.tie("words.weight").unwrap_err().to_string(),
        r#"tensor "words.weight" was taken before; only one that is tied can be taken again"#
    );
    assert_eq!(untied.tie("word").unwrap_err().to_string(), r#"tensor "word" is missing"#);
}

#[test]
fn a_layer_may_share_its_weights_with_an_embedding() {
    struct Model {
        words: FloatTensor,
        head: Linear,
    }
    qnn::layers!(Model { words, head });
    let new = |mut from: Source<'_>| {
        let words = from.pp("model").tensor("words.weight", &[2, 3])?;
        Ok::<_, SourceError>(Model { words, head: from.linear_tied("head", "model.words.weight")? })
    };
    let mut tensors: Tensors = vec![
        ("model.words.weight", Dtype::F32, vec![2, 3], f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("head.bias", Dtype::F32, vec![2], f32s(&[0.5, 0.25])),
    ];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let error = new(checkpoint.source()).err().unwrap();
    assert_eq!(
        error.to_string(),
        r#"tensor "model.words.weight" was taken before; only one that is tied can be taken again"#
    );
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.tie("model.words.weight").unwrap();
    let mut model = new(checkpoint.source()).unwrap();
    checkpoint.finish().unwrap();
    let Linear::Float(head) = &model.head else { unreachable!() };
    assert_eq!(
        (head.name(), head.weight(), head.bias()),
        ("head", model.words.values(), Some(&[0.5, 0.25][..]))
    );
    // Quantized and saved, the layer has weights of its own.
    let x = [1.0, 2.0, 3.0];
    let run = |model: &mut Model, x: [f32; 3]| {
        let x = MatRef::new(&x, 1, 3)?;
        model.head.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new()).map(drop)
    };
    quantize_model(&mut model, &PassConfig::default(), [x], run, |_| {}).unwrap();
    let saved = layers_to_bytes(&model).unwrap();
    let mut layer_file = LayerFile::parse(&saved).unwrap();
    let restored = new(layer_file.source()).unwrap();
    layer_file.finish().unwrap();
    assert_eq!(layers_to_bytes(&restored).unwrap(), saved);
    // A checkpoint that has both is read as it is.
    tensors.push(("head.weight", Dtype::F32, vec![2, 3], f32s(&[0.0; 6])));
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    assert_eq!(checkpoint.take_tied("head", "model.words.weight").unwrap().weight(), [0.0; 6]);
}

#[test]
fn a_bias_that_was_taken_by_itself_is_not_lost() {
    let tensors: Tensors = vec![
        ("fc.weight", Dtype::F32, vec![1, 2], f32s(&[1.0, 2.0])),
        ("fc.bias", Dtype::F32, vec![1], f32s(&[1.0])),
    ];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.take_tensor("fc.bias", None).unwrap();
    assert_eq!(
        checkpoint.take_float("fc").unwrap_err().to_string(),
        r#"tensor "fc.bias" was taken before; only one that is tied can be taken again"#
    );
}

#[test]
fn names_of_other_programs_are_changed_before_layers_are_taken() {
    let tensors: Tensors = vec![
        ("bert.fc.weight", Dtype::F32, vec![1, 1], f32s(&[1.0])),
        ("fc.weight", Dtype::F32, vec![1, 1], f32s(&[2.0])),
        ("norm.gamma", Dtype::F32, vec![1], f32s(&[3.0])),
    ];
    let bytes = file(&tensors);
    let mut checkpoint = Checkpoint::parse(&bytes).unwrap();
    let error = checkpoint.rename(|name| Some(name.strip_prefix("bert.")?.to_owned())).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"tensors "bert.fc.weight" and "fc.weight" would both be named "fc.weight""#
    );
    assert_eq!(checkpoint.tensors().collect::<Vec<_>>(), ["bert.fc.weight", "fc.weight", "norm.gamma"]);
    checkpoint.tie("norm.gamma").unwrap();
    checkpoint.take_tensor("norm.gamma", None).unwrap();
    checkpoint.rename(|name| Some(name.replace("gamma", "weight").replace("bert", "encoder"))).unwrap();
    assert_eq!(checkpoint.tensors().collect::<Vec<_>>(), ["encoder.fc.weight", "fc.weight"]);
    assert_eq!(checkpoint.take_float("encoder.fc").unwrap().weight(), [1.0]);
    assert_eq!(checkpoint.take_tensor("norm.weight", None).unwrap().values(), [3.0]);
}

#[test]
fn names_that_two_tensors_would_have_are_refused() {
    let tensor = |name: &str| FloatTensor::new(name, [1], vec![1.0]).unwrap();
    let error = layers_to_bytes(&vec![tensor("a"), tensor("a")]).unwrap_err();
    assert!(matches!(&error, SaveError::SameTensor { tensor } if tensor == "a"), "{error}");
    struct Both(Linear, FloatTensor);
    qnn::layers!(Both { 1, 0 });
    let both = Both(linear("fc", 1, 1).into(), tensor("fc.weight"));
    let error = layers_to_bytes(&both).unwrap_err();
    assert_eq!(error.to_string(), r#"the model has two tensors "fc.weight""#);
}

#[test]
fn a_file_says_which_function_follows_and_which_shape_a_tensor_has() {
    let mut layer = linear("fc", 1, 1);
    layer = layer.with_activation(ActivationFunction::Silu);
    let bytes = layers_to_bytes(&Linear::from(layer)).unwrap();
    let mut file = LayerFile::parse(&bytes).unwrap();
    let error = file.source().linear("fc").unwrap_err();
    assert_eq!(error.to_string(), r#"layer "fc" was saved with activation function Silu, expected Identity"#);
    // It is still there.
    file.source().linear_then("fc", ActivationFunction::Silu).unwrap();

    let bytes = layers_to_bytes(&FloatTensor::new("norm", [2], vec![1.0, 2.0]).unwrap()).unwrap();
    let mut file = LayerFile::parse(&bytes).unwrap();
    assert!(file.names().is_empty());
    let error = file.source().tensor("norm", &[3]).unwrap_err();
    assert_eq!(error.to_string(), r#"tensor "norm" has shape [2], expected [3]"#);
    assert!(file.take("norm", None).is_err());
    assert_eq!(file.take_tensor("norm", None).unwrap().values(), [1.0, 2.0]);
    assert_eq!(
        file.take_tensor("norm", None).unwrap_err().to_string(),
        r#"tensor "norm" was taken before; only one that is tied can be taken again"#
    );
    file.finish().unwrap();
    let file = LayerFile::parse(&bytes).unwrap();
    assert_eq!(file.finish().unwrap_err().to_string(), r#"tensor "norm" is unexpected"#);
}

#[test]
fn tensors_of_a_layer_are_no_tensors_beside_it() {
    let bytes = layers_to_bytes(&Linear::from(linear("fc", 1, 1))).unwrap();
    let mut file = LayerFile::parse(&bytes).unwrap();
    let error = file.take_tensor("fc.weight", None).unwrap_err();
    assert_eq!(error.to_string(), r#"tensor "fc.weight" is missing"#);
    file.take("fc", None).unwrap();
}

/// A file whose description has this version and names these tensors; it has one, "norm".
fn file_that_says(version: u32, tensors: &str) -> Vec<u8> {
    let description = |checksum: &str| {
        format!(
            r#"{{"format":"qnn.layers","version":{version},"requantize":"f32_round_ties_even_then_zero_point","layers":[],{tensors}"checksum":"{checksum}"}}"#
        )
    };
    sealed(&[("norm", Dtype::F32, &[1], &f32s(&[1.0]))], description, None)
}

#[test]
fn a_description_names_the_tensors_that_are_there() {
    let parse = |bytes: &[u8]| LayerFile::parse(bytes).map(|file| file.tensor_names().to_vec());
    assert_eq!(parse(&file_that_says(3, r#""tensors":["norm"],"#)).unwrap(), ["norm"]);
    for tensors in [r#""tensors":["norm","norm"],"#, r#""tensors":["norm","other"],"#] {
        let error = parse(&file_that_says(3, tensors)).unwrap_err();
        assert!(matches!(error, LoadError::Described { .. }), "{error}");
    }
    // Version 2 has no such tensors, and version 3 has.
    for (version, tensors) in [(2, r#""tensors":["norm"],"#), (3, ""), (4, r#""tensors":["norm"],"#), (1, "")]
    {
        let error = parse(&file_that_says(version, tensors)).unwrap_err();
        assert!(matches!(error, LoadError::Version { got, .. } if got == version), "{error}");
    }
}

#[test]
fn any_altered_byte_of_a_file_with_tensors_is_noticed() {
    struct Small(FloatTensor, Linear);
    qnn::layers!(Small { 0, 1 });
    let model = Small(FloatTensor::new("norm", [2], vec![1.0, -0.0]).unwrap(), linear("fc", 1, 2).into());
    let good = layers_to_bytes(&model).unwrap();
    let read = |bytes: &[u8]| -> Result<(), SourceError> {
        let mut file = LayerFile::parse(bytes)?;
        file.source().linear("fc")?;
        file.source().tensor("norm", &[2])?;
        Ok(file.finish()?)
    };
    read(&good).unwrap();
    let mut bytes = good.clone();
    for at in 0..good.len() {
        for change in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            bytes[at] = good[at] ^ change;
            assert!(read(&bytes).is_err(), "byte {at} as {:#04x}", bytes[at]);
        }
        bytes[at] = good[at];
    }
}

#[test]
fn results_in_a_vector_are_those_that_are_written() {
    let layer = Linear::from(linear("fc", 3, 2));
    let (x, workspace) = ([0.5, -1.0, 2.0, 0.25], &mut LinearWorkspace::new());
    let y = layer.forward_vec(rows(&x, 2), Threads::Serial, workspace).unwrap();
    let mut expected = [0.0; 6];
    let out = qkernels::MatMut::new(&mut expected, 2, 3).unwrap();
    layer.forward(rows(&x, 2), out, Threads::Serial, workspace).unwrap();
    assert_eq!(y, expected);
    assert!(layer.forward_vec(rows(&[], 2), Threads::Serial, workspace).unwrap().is_empty());
    // The width is looked at before memory for a result is.
    let wide = MatRef::with_strides(&x, 1 << 60, 3, 0, 1).unwrap();
    let error = layer.forward_vec(wide, Threads::Serial, workspace).unwrap_err();
    assert_eq!(error.to_string(), "expected k = 2 columns of input, got 3");
    let long = MatRef::with_strides(&x, 1 << 60, 2, 0, 1).unwrap();
    let error = layer.forward_vec(long, Threads::Serial, workspace).unwrap_err();
    assert!(error.to_string().starts_with("there is no memory for"), "{error}");
}
