//! The operands of `MatMulNBits`, the operator of ONNX Runtime (domain `com.microsoft`) for weights
//! of few bits in blocks, as a layer.

use qcore::{ActivationFunction, Float};
use qkernels::Kernel;

use super::input_groups::input_order;
use super::nbits_error::NBitsError;
use super::parts::{Parts, each};
use crate::file::codes_form::CodesForm;
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::weight_codes::check_shape;

/// The attributes and constant operands of a `MatMulNBits` node, as slices: whatever reads the ONNX
/// file has them. The value of a weight is `(code - zero_point) * scale`. Scales, floats among zero
/// points and the bias have one type, which is f32, f16 or bf16.
///
/// ```
/// use qcore::ActivationFunction;
/// use qkernels::Kernel;
/// use qnn::{CodesForm, Linear, MatMulNBits};
/// let mut b = [0x88; 16]; // one output, one block of 32 codes, all 8
/// b[0] = 0x69; // 9, then 6
/// let node = MatMulNBits::<f32> { n: 1, k: 20, bits: 4, block_size: 32, b: &b, scales: &[0.5],
///     zero_points: None, g_idx: None, bias: None };
/// let (form, identity) = (CodesForm::WeightOnly, ActivationFunction::Identity);
/// let Linear::WeightOnly(layer) = node.layer("lm_head", form, identity, Kernel::select()?)? else {
///     unreachable!("the form that was asked for")
/// };
/// assert_eq!(layer.unpack()[..3], [0.5, -1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MatMulNBits<'a, F = f32> {
    /// Attribute `N`, outputs.
    pub n: usize,
    /// Attribute `K`, inputs.
    pub k: usize,
    /// Attribute `bits`: 4 or 8. (ONNX Runtime has 2, too, which are not read.)
    pub bits: u32,
    /// Attribute `block_size`: consecutive inputs that share a scale, a power of two of at least
    /// 16.
    pub block_size: usize,
    /// Operand `B` (n, blocks, block_size * bits / 8), where blocks are k / block_size rounded up:
    /// the codes, of 4 bits the first one in the low half of its byte. What lies behind input k is
    /// not looked at.
    pub b: &'a [u8],
    /// Operand `scales` (n, blocks).
    pub scales: &'a [F],
    /// Operand `zero_points`; without it, all are 8, or 128 for 8 bits.
    pub zero_points: Option<NBitsZeros<'a, F>>,
    /// Operand `g_idx` (k, or block_size for each block): the block whose scale each input has, if
    /// it is not the block that it lies in. Each block must have `block_size` inputs, the last one
    /// what is left of k.
    pub g_idx: Option<&'a [i32]>,
    /// Operand `bias` (n).
    pub bias: Option<&'a [F]>,
}

/// The zero points of [`MatMulNBits`].
///
/// ```
/// use qnn::NBitsZeros;
/// let packed = NBitsZeros::<f32>::Packed(&[0x87]); // of two blocks: 7, then 8
/// let floats = NBitsZeros::Floats(&[7.0f32, 8.5]);
/// # _ = (packed, floats);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum NBitsZeros<'a, F = f32> {
    /// Integers, packed as codes are: (n, blocks * bits / 8 rounded up).
    Packed(&'a [u8]),
    /// Floats (n, blocks). One that is a code (0 to 15, or to 255 with 8 bits) is as exact as the
    /// same integer. Of another one, a block gets the minimum `-zero_point * scale`, rounded to f32
    /// once: its weights are `code * scale + minimum`, while the difference `code - zero_point` is
    /// rounded in ONNX Runtime. The two differ by the roundings of f32.
    Floats(&'a [F]),
}

impl<F: Float> MatMulNBits<'_, F> {
    /// The layer, with the codes as they are (4 bits keep their 4 bits), packed for `kernel`.
    /// `activation` is the function that follows.
    ///
    /// # Errors
    /// [`NBitsError`] if an attribute has a value that is not read, an operand has another length
    /// than these say, `g_idx` names blocks that are not there or fills them unevenly, or the
    /// values do not make a layer (a scale that is not finite, for instance).
    pub fn layer(
        &self,
        name: &str,
        form: CodesForm,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, NBitsError> {
        let of_layer = |error: LayerError| NBitsError::Layer { layer: name.to_owned(), error };
        let parts = self.parts(name)?;
        let bias = self.bias.map(widened);
        form.layer(name, parts.scaled(self.n, self.k, kernel).map_err(of_layer)?, bias, activation, of_layer)
    }

    /// What the operands hold, their lengths checked.
    fn parts(&self, name: &str) -> Result<Parts, NBitsError> {
        let &Self { n, k, bits, block_size, b, .. } = self;
        let layer = || name.to_owned();
        check_shape(n, k).map_err(|error| NBitsError::Layer { layer: layer(), error })?;
        if !matches!(bits, 4 | 8) {
            return Err(NBitsError::Bits { layer: layer(), bits });
        }
        if block_size < 16 || !block_size.is_power_of_two() {
            return Err(NBitsError::BlockSize { layer: layer(), block_size });
        }
        let (blocks, of_byte) = (k.div_ceil(block_size), 8 / bits as usize);
        // No slice is as long as what saturates here.
        let check = |operand, [rows, columns, each]: [usize; 3], got| {
            let expected = (rows as u128 * columns as u128).saturating_mul(each as u128);
            match expected == got as u128 {
                true => Ok(()),
                false => Err(NBitsError::Length { layer: layer(), operand, expected, got }),
            }
        };
        let of_block = block_size / of_byte;
        check("B", [n, blocks, of_block], b.len())?;
        check("scales", [n, blocks, 1], self.scales.len())?;
        if let Some(bias) = self.bias {
            check("bias", [n, 1, 1], bias.len())?;
        }
        let order = match self.g_idx {
            None => None,
            Some(g_idx) => {
                if g_idx.len() != blocks.saturating_mul(block_size) {
                    check("g_idx", [k, 1, 1], g_idx.len())?;
                }
                let of_inputs = g_idx.iter().map(|&block| block.into());
                let order = input_order(of_inputs, k, block_size);
                order.map_err(|error| NBitsError::InputGroups { layer: layer(), error })?
            }
        };
        let scales = widened(self.scales);
        // The code at a place of a row that begins at some byte.
        let code = |bytes: &[u8], start: usize, at: usize| {
            let byte = bytes[start + at / of_byte];
            if bits == 4 { byte >> (at % 2 * 4) & 15 } else { byte }
        };
        let (zero_points, minimums) = match self.zero_points {
            None => (vec![1 << (bits - 1); n * blocks], None),
            Some(NBitsZeros::Packed(zeros)) => {
                let of_row = blocks.div_ceil(of_byte);
                check("zero_points", [n, of_row, 1], zeros.len())?;
                (each(n, blocks, |j, g| code(zeros, j * of_row, g).into()), None)
            }
            Some(NBitsZeros::Floats(zeros)) => {
                check("zero_points", [n, blocks, 1], zeros.len())?;
                let zeros = widened(zeros);
                if let Some((at, zero_point)) = qcore::first_non_finite(&zeros) {
                    let (layer, channel, block) = (name.to_owned(), at / blocks, at % blocks);
                    return Err(NBitsError::ZeroPoint { layer, channel, block, zero_point });
                }
                float_zeros(&zeros, &scales, bits)
            }
        };
        let codes = each(n, k, |j, p| code(b, j * blocks * of_block, p));
        Ok(Parts { bits, group: Some(block_size), codes, scales, zero_points, minimums, order })
    }
}

/// Zero points that are codes as they are, and minimums where others are, if any is.
fn float_zeros(zeros: &[f32], scales: &[f32], bits: u32) -> (Vec<u16>, Option<Vec<f32>>) {
    let largest = (1_u16 << bits) - 1;
    let is_code = |zero: f32| (0.0..=f32::from(largest)).contains(&zero) && zero.fract() == 0.0;
    let codes = zeros.iter().map(|&zero| if is_code(zero) { zero as u16 } else { 0 }).collect();
    let minimum = |(&zero, scale): (&f32, &f32)| if is_code(zero) { 0.0 } else { -zero * scale };
    let any = zeros.iter().any(|&zero| !is_code(zero));
    (codes, any.then(|| zeros.iter().zip(scales).map(minimum).collect()))
}

/// Values in f32.
fn widened<F: Float>(values: &[F]) -> Vec<f32> {
    values.iter().map(|value| value.widen()).collect()
}
