//! A layer's codes and what they mean, before they are packed for a kernel.

use qkernels::{Kernel, MatRef, ScaledWeights};

use crate::layer::layer_error::LayerError;
use crate::layer::stored::StoredGroups;
use crate::layer::weight_codes::{StoredCodes, i8_zero_points};

/// Codes of 4 or 8 bits, one to a byte, and what stands beside them.
pub(in crate::file) struct Parts {
    pub(in crate::file) bits: u32,
    pub(in crate::file) group: Option<usize>,
    /// (n, k), in the order of the inputs.
    pub(in crate::file) codes: Vec<u8>,
    /// (n, groups).
    pub(in crate::file) scales: Vec<f32>,
    /// As `scales`.
    pub(in crate::file) zero_points: Vec<u16>,
    /// As `scales`, if anything is added to values.
    pub(in crate::file) minimums: Option<Vec<f32>>,
    /// The order in which groups lie side by side, if it is not that of the inputs.
    pub(in crate::file) order: Option<Vec<u32>>,
}

/// A value for each row and column, row by row.
pub(in crate::file) fn each<T>(rows: usize, columns: usize, value: impl Fn(usize, usize) -> T) -> Vec<T> {
    let value = &value;
    (0..rows).flat_map(|row| (0..columns).map(move |column| value(row, column))).collect()
}

impl Parts {
    /// The weights, packed for `kernel`.
    pub(in crate::file) fn scaled(
        self,
        n: usize,
        k: usize,
        kernel: Kernel,
    ) -> Result<ScaledWeights, LayerError> {
        let Self { bits, group, mut codes, scales, zero_points, minimums, order } = self;
        if let Some(order) = &order {
            codes = each(n, k, |j, p| codes[j * k + order[p] as usize]);
        }
        let groups = StoredGroups { len: group, minimums, parts: None, order };
        // Zero points that are codes, of bytes less 128.
        let middle = if bits == 8 { 128 } else { 0 };
        let zeros = zero_points.iter().map(|&zero_point| i32::from(zero_point) - middle);
        let zeros = i8_zero_points(zeros, zero_points.len() / n.max(1), group.is_some())?;
        // One of 16 has no place among codes of 4 bits.
        if bits == 4 && zero_points.iter().all(|&zero_point| zero_point < 16) {
            let codes = StoredCodes::Nibbles(MatRef::new(&codes, n, k)?);
            return groups.pack(codes, &scales, Some(&zeros), kernel);
        }
        if bits == 8 {
            codes.iter_mut().for_each(|code| *code ^= 0x80);
        }
        let zeros = zeros.iter().any(|&zero| zero != 0).then_some(&zeros[..]);
        let codes = StoredCodes::Bytes(MatRef::new(bytemuck::cast_slice(&codes), n, k)?);
        groups.pack(codes, &scales, zeros, kernel)
    }
}
