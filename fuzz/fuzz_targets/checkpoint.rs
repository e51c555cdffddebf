//! `Checkpoint` of one file, of two, and of two with an index; every layer taken in every form,
//! then every tensor. What is taken runs, can be saved, and is then read as it was.
//!
//! The first byte says how many pieces follow (`pieces`), each but the last with its length in two
//! bytes before it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qcore::{ActivationFunction, Scheme};
use qkernels::Dynamic;
use qnn::{Checkpoint, CheckpointError, CodesForm, GptqZeros, Int8Form, Linear, PackedLayout, ShardIndex};
use qnn_fuzz::{check_saved, kernel, run};

const FORMS: [Int8Form; 6] = [
    Int8Form::Static,
    Int8Form::Dynamic { activations: Dynamic::PerToken(Scheme::weights_i8()), group: None },
    Int8Form::WeightOnly { group: None },
    Int8Form::WeightOnly { group: Some(16) },
    Int8Form::WeightOnly { group: Some(32) },
    Int8Form::WeightOnly { group: Some(usize::MAX) },
];

const LAYOUTS: [PackedLayout; 8] = [
    PackedLayout::PackQuantized { bits: 4, group: Some(16) },
    PackedLayout::PackQuantized { bits: 8, group: Some(16) },
    PackedLayout::PackQuantized { bits: 4, group: None },
    PackedLayout::Gptq { bits: 4, group: Some(16), zeros: GptqZeros::LessOne },
    PackedLayout::Gptq { bits: 4, group: Some(32), zeros: GptqZeros::LessOneInWords },
    PackedLayout::Gptq { bits: 8, group: Some(16), zeros: GptqZeros::Plain },
    PackedLayout::Awq { group: Some(16) },
    PackedLayout::Awq { group: None },
];

const W4A8: CodesForm = CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8()));

/// How layers are taken.
#[derive(Clone, Copy)]
enum As {
    Float,
    Int8(Int8Form),
    Packed(PackedLayout, CodesForm),
}

fuzz_target!(|bytes: &[u8]| {
    let packed =
        |layout| [CodesForm::Float, W4A8, CodesForm::WeightOnly].map(|form| As::Packed(layout, form));
    let ways = [As::Float].into_iter().chain(FORMS.map(As::Int8));
    for way in ways.chain(LAYOUTS.into_iter().flat_map(packed)) {
        let Ok(mut checkpoint) = parse(bytes) else { return };
        // Some layers have their inputs first.
        checkpoint.stored_kn("*c");
        let parts = |tensor: &str| tensor.rsplit_once('.').map(|(layer, _)| layer.to_owned());
        let mut names: Vec<String> = checkpoint.tensors().filter_map(parts).collect();
        names.dedup();
        for name in names {
            let before = checkpoint.tensors().count();
            let relu = ActivationFunction::Relu;
            let layer = match way {
                As::Float => checkpoint.take_float(&name).map(Linear::from),
                As::Int8(form) => checkpoint.take_int8(&name, form, relu, kernel()),
                As::Packed(layout, form) => checkpoint.take_packed(&name, layout, form, relu, kernel()),
            };
            match layer {
                Ok(layer) => {
                    run(&layer);
                    check_saved(&layer);
                    assert!(checkpoint.take_float(&name).is_err(), "a layer is taken once");
                }
                Err(_) => assert_eq!(before, checkpoint.tensors().count(), "what failed is as it was"),
            }
        }
        let left: Vec<String> = checkpoint.tensors().map(str::to_owned).collect();
        for name in left {
            let before = checkpoint.tensors().count();
            match checkpoint.take_tensor(&name, None) {
                Ok(tensor) => assert_eq!(tensor.name(), name),
                Err(_) => assert_eq!(before, checkpoint.tensors().count(), "what failed is as it was"),
            }
        }
        let _ = checkpoint.finish();
    }
});

fn parse(bytes: &[u8]) -> Result<Checkpoint<'_>, CheckpointError> {
    let (kind, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    match kind % 3 {
        0 => Checkpoint::parse(bytes),
        1 => Checkpoint::parse_shards(pieces::<2>(bytes)),
        _ => {
            let [index, first, second] = pieces(bytes);
            let index = ShardIndex::parse(index)?;
            Checkpoint::parse_indexed(&index, index.shards().zip([first, second]))
        }
    }
}

/// The bytes in so many pieces.
fn pieces<const N: usize>(mut bytes: &[u8]) -> [&[u8]; N] {
    core::array::from_fn(|at| {
        let length = match bytes.split_first_chunk::<2>() {
            Some((length, rest)) if at + 1 < N => {
                bytes = rest;
                usize::from(u16::from_le_bytes(*length))
            }
            _ => bytes.len(),
        };
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        piece
    })
}
