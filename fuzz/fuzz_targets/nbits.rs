//! `MatMulNBits` in every form and of every type of floats. What is taken runs, can be saved, is
//! then read as it was, and has the values that its operands say.
//!
//! The first bytes are n, k (two), bits and the length of blocks, which operands there are, and one
//! operand that is too long; then come the operands, with zeros where bytes are missing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qcore::{ActivationFunction, Float, Scheme};
use qkernels::Dynamic;
use qnn::{CodesForm, Linear, MatMulNBits, NBitsZeros};
use qnn_fuzz::{check_saved, kernel, run};

const FORMS: [CodesForm; 3] =
    [CodesForm::Float, CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8())), CodesForm::WeightOnly];

fuzz_target!(|bytes: &[u8]| {
    let Some((&[n, k, more_k, shape, there, longer], rest)) = bytes.split_first_chunk() else { return };
    let (n, k) = (usize::from(n % 20), usize::from(u16::from_le_bytes([k, more_k]) % 600));
    let (bits, block_size) = ([4, 8, 4, 3][usize::from(shape & 3)], 8 << (shape >> 2 & 7));
    let blocks = k.div_ceil(block_size);
    let mut rest = Rest { bytes: rest, operand: 0, longer };
    let b = rest.take(n * blocks * block_size * bits as usize / 8);
    let scales = rest.floats(n * blocks);
    let integers = rest.take(n * (blocks * bits as usize).div_ceil(8));
    let floats = rest.floats(if there & 3 == 2 { n * blocks } else { 0 });
    let of_inputs = if there & 8 == 0 { k } else { blocks * block_size };
    let g_idx: Vec<i32> = rest.take(of_inputs).iter().map(|&byte| byte.cast_signed().into()).collect();
    let bias = rest.floats(n);
    let zeros = [None, Some(NBitsZeros::Packed(&integers[..])), Some(NBitsZeros::Floats(&floats[..])), None];
    let node = MatMulNBits {
        n,
        k,
        bits,
        block_size,
        b: &b,
        scales: &scales,
        zero_points: zeros[usize::from(there & 3)],
        g_idx: (there & 4 != 0).then_some(&g_idx[..]),
        bias: (there & 16 != 0).then_some(&bias[..]),
    };
    for form in FORMS {
        let Ok(layer) = node.layer("q", form, ActivationFunction::Identity, kernel()) else { continue };
        run(&layer);
        check_saved(&layer);
        if let Linear::WeightOnly(layer) = &layer {
            check_values(&node, &layer.unpack());
        }
    }
    // Narrower floats, whatever the values become.
    check_type::<half::f16>(&node);
    check_type::<half::bf16>(&node);
});

/// What is left of the input.
struct Rest<'b> {
    bytes: &'b [u8],
    operand: u8,
    /// The operand that gets an element too many.
    longer: u8,
}

impl Rest<'_> {
    fn take(&mut self, len: usize) -> Vec<u8> {
        let longer = self.is_longer();
        self.bytes(len + longer)
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        let longer = self.is_longer();
        let bytes = self.bytes(4 * (len + longer));
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn is_longer(&mut self) -> usize {
        self.operand += 1;
        usize::from(self.operand == self.longer)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (taken, left) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = left;
        let mut taken = taken.to_vec();
        taken.resize(len, 0);
        taken
    }
}

/// The values, one by one, where zero points are integers.
fn check_values(node: &MatMulNBits<'_>, values: &[f32]) {
    let bits = node.bits as usize;
    let blocks = node.k.div_ceil(node.block_size);
    let code = |bytes: &[u8], start: usize, at: usize| -> i32 {
        let byte = bytes[start + at * bits / 8];
        (if bits == 4 { byte >> (at % 2 * 4) & 15 } else { byte }).into()
    };
    for (at, &value) in values.iter().enumerate() {
        let (j, p) = (at / node.k, at % node.k);
        let group = node.g_idx.map_or(p / node.block_size, |g_idx| g_idx[p] as usize);
        let zero = match node.zero_points {
            None => 1 << (bits - 1),
            Some(NBitsZeros::Packed(zeros)) => code(zeros, j * (blocks * bits).div_ceil(8), group),
            Some(_) => return,
        };
        let code = code(node.b, j * blocks * node.block_size * bits / 8, p);
        assert_eq!(value, (code - zero) as f32 * node.scales[j * blocks + group]);
    }
}

fn check_type<F: Float>(node: &MatMulNBits<'_>) {
    let narrow = |values: &[f32]| values.iter().map(|&value| F::narrow(value)).collect::<Vec<F>>();
    let &MatMulNBits { n, k, bits, block_size, b, g_idx, .. } = node;
    let (scales, bias) = (narrow(node.scales), node.bias.map(narrow));
    let floats = match node.zero_points {
        Some(NBitsZeros::Floats(zeros)) => narrow(zeros),
        _ => Vec::new(),
    };
    let zero_points = node.zero_points.map(|zeros| match zeros {
        NBitsZeros::Packed(zeros) => NBitsZeros::Packed(zeros),
        _ => NBitsZeros::Floats(&floats[..]),
    });
    let bias = bias.as_deref();
    let node = MatMulNBits { n, k, bits, block_size, b, scales: &scales, zero_points, g_idx, bias };
    if let Ok(layer) = node.layer("q", CodesForm::WeightOnly, ActivationFunction::Identity, kernel()) {
        run(&layer);
        check_saved(&layer);
    }
}
