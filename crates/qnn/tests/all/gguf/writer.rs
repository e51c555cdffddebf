//! GGUF files in the making, which may lie about themselves.

use qcore::BlockFormat;
use qnn::GgufType;

fn number(element: GgufType) -> u32 {
    match element {
        GgufType::F32 => 0,
        GgufType::F16 => 1,
        GgufType::Bf16 => 30,
        GgufType::Blocks(BlockFormat::Q4_0) => 2,
        GgufType::Blocks(BlockFormat::Q4_1) => 3,
        GgufType::Blocks(BlockFormat::Q5_0) => 6,
        GgufType::Blocks(BlockFormat::Q5_1) => 7,
        GgufType::Blocks(BlockFormat::Q8_0) => 8,
        GgufType::Blocks(BlockFormat::Q4K) => 12,
        GgufType::Blocks(BlockFormat::Q5K) => 13,
        GgufType::Blocks(BlockFormat::Q6K) => 14,
        other => panic!("{other}"),
    }
}

pub(super) type Named = (String, GgufType, Vec<usize>);

/// A file in the making, any number of which may lie.
pub(super) struct Writer {
    pub(super) version: u32,
    /// The counts in the header, if they are to be others than there are.
    pub(super) counts: [Option<u64>; 2],
    /// The bytes of each entry: its key, its type, its value.
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) alignment: usize,
    pub(super) tensors: Vec<(Named, Vec<u8>)>,
    /// What is changed in the description of a tensor: its dimensions, its type, its offset.
    pub(super) lie: fn(&mut Vec<u64>, &mut u32, &mut u64),
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            version: 3,
            counts: [None; 2],
            entries: vec![],
            alignment: 32,
            tensors: vec![],
            lie: |_, _, _| (),
        }
    }
}

pub(super) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

pub(super) fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), value].concat()
}

impl Writer {
    /// A layer of Q8_0 with the scale 1 and the codes 1.
    pub(super) fn layer(n: usize) -> Self {
        let block = [&[0, 0x3c][..], &[1; 32]].concat();
        let named = ("q.weight".to_owned(), GgufType::Blocks(BlockFormat::Q8_0), vec![n, 32]);
        Self { tensors: vec![(named, block.repeat(n))], ..Self::default() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        let counts = [self.tensors.len(), self.entries.len()];
        for (claim, count) in self.counts.iter().zip(counts) {
            bytes.extend(claim.unwrap_or(count as u64).to_le_bytes());
        }
        bytes.extend(self.entries.concat());
        let (mut data, mut described) = (Vec::new(), Vec::new());
        for ((name, element, shape), values) in &self.tensors {
            let mut dimensions: Vec<u64> = shape.iter().rev().map(|&d| d as u64).collect();
            let (mut kind, mut offset) = (number(*element), data.len() as u64);
            (self.lie)(&mut dimensions, &mut kind, &mut offset);
            described.extend(string(name));
            described.extend((dimensions.len() as u32).to_le_bytes());
            described.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
            described.extend(kind.to_le_bytes());
            described.extend(offset.to_le_bytes());
            data.extend(values);
            data.resize(data.len().next_multiple_of(self.alignment), 0);
        }
        bytes.extend(described);
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(data);
        bytes
    }
}
