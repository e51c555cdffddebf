//! Output stages with an activation function that is more than bounds on the codes. Real values go
//! through a buffer, where the function is applied. If they were inlined into every stage for every
//! element type, eight functions would be most of this crate's code.

use qcore::Float;

use crate::matrix::view::MatMut;
use crate::output::operands::{Codes, StageOperands};
use crate::output::target::Target;
use crate::output::tile::{Place, StoredTile};

/// Values that go through the buffer at a time: a tile of six rows of 16 columns, or two rows of
/// the widest panels.
const BUFFER: usize = 96;

/// How many rows of so many columns go through the buffer together. (A division would take longer
/// than the function of a row does.)
#[inline(always)]
fn rows_together(columns: usize) -> usize {
    match columns {
        ..=12 => 8,
        13..=16 => 6,
        17..=32 => 3,
        33..=48 => 2,
        _ => 1,
    }
}

/// Stores a tile whose stage has a function. As many rows as fit go through the buffer together: a
/// function is a long chain of instructions, of which a CPU does several at a time.
#[inline(always)]
pub(crate) fn store<const FEW: bool>(tile: &StoredTile<'_, FEW>, target: &mut Target<'_>) {
    let StoredTile { place, first, acc, stride } = *tile;
    let columns = place.channels.len();
    let mut buffer = [0.0; BUFFER];
    let mut column = 0;
    while column < columns {
        let len = BUFFER.min(columns - column);
        let start = place.channels.start + column;
        let place = &Place { channels: start..start + len, ..place.clone() };
        let together = if len == columns { rows_together(len) } else { 1 };
        let (mut row, mut rest) = (first, acc);
        while rest.len() >= stride.max(1) {
            let rows = if rest.len() >= together * stride { together } else { rest.len() / stride };
            let (sums, below) = rest.split_at(rows * stride);
            let values = &mut buffer[..rows * len];
            // Parts of a wide panel go through row by row.
            let (acc, stride) = if together == 1 { (&sums[column..][..len], len) } else { (sums, stride) };
            scaled(&StoredTile::<FEW> { place, first: row, acc, stride }, values, (rows, len));
            place.stage.function.apply_slice(values);
            let mut values = &*values;
            while let Some((of_row, others)) = values.split_at_checked(len) {
                let to = (place.origin.0 + row, place.origin.1 + column);
                match &mut *target {
                    // int32 sums take no function.
                    Target::I32(_) => {}
                    Target::F32(out) => narrow(of_row, out, to),
                    Target::F16(out) => narrow(of_row, out, to),
                    Target::Bf16(out) => narrow(of_row, out, to),
                    codes => {
                        if let Some(mut codes) = codes.code_bytes() {
                            requantize(of_row, place.stage, &mut codes, to);
                        }
                    }
                }
                (values, row) = (others, row + 1);
            }
            rest = below;
        }
        column += len;
    }
}

/// Computes the scaled sums of a part of a tile, with bias and residual: real values, or steps of
/// the output.
#[inline(always)]
fn scaled<const FEW: bool>(part: &StoredTile<'_, FEW>, values: &mut [f32], (rows, columns): (usize, usize)) {
    let Ok(mut out) = MatMut::new(values, rows, columns) else { return };
    match part.place.stage.residual {
        Some(residual) => part.store_at(&mut out, (0, 0), |e| {
            qcore::dequantize_acc_residual(e.sum, e.factor, e.residual, residual.multiplier)
        }),
        None => part.store_at(&mut out, (0, 0), |e| qcore::dequantize_acc_bias(e.sum, e.factor, e.bias)),
    }
}

/// Stores real values, rounded to the output's type.
#[inline(always)]
fn narrow<T: Float>(values: &[f32], out: &mut MatMut<'_, T>, (row, column): (usize, usize)) {
    let to = out.row_mut(row).and_then(|row| row.get_mut(column..column + values.len()));
    T::narrow_slice(values, to.unwrap_or_default());
}

/// Stores the codes of real values, or of steps of the output, as bytes.
#[inline(always)]
fn requantize(
    values: &[f32],
    stage: &StageOperands<'_>,
    out: &mut MatMut<'_, u8>,
    (row, column): (usize, usize),
) {
    let StageOperands { codes: Codes { zero_point, low, high }, output_scale, .. } = *stage;
    let to = out.row_mut(row).and_then(|row| row.get_mut(column..column + values.len()));
    let pairs = to.unwrap_or_default().iter_mut().zip(values);
    match output_scale {
        Some(scale) => pairs.for_each(|(to, &y)| {
            *to = qcore::requantize_real(y, scale, zero_point, low, high) as u8;
        }),
        None => pairs.for_each(|(to, &v)| {
            *to = qcore::requantize_scaled(v, zero_point, low, high) as u8;
        }),
    }
}

#[cfg(test)]
mod tests {
    use qcore::ActivationFunction;

    use super::*;
    use crate::output::operands::RowTerms;

    /// No kernel of today has panels wider than the buffer, but one may come.
    #[test]
    fn tiles_of_any_width_are_stored_whole() {
        for columns in [1, 12, 13, 16, 31, 48, 49, 95, 96, 97, 100, 150, 300] {
            let (rows, stride) = (7, columns + 3);
            let acc: Vec<i32> = (0..rows * stride).map(|i| i as i32 * 37 % 1000 - 500).collect();
            let factors = vec![0.01; columns];
            let stage = &StageOperands {
                offsets: &[],
                channel_sums: &[],
                zero_points: &[],
                factors: &factors,
                small_factors: false,
                float_bias: None,
                function: ActivationFunction::Gelu,
                output_scale: None,
                codes: Codes::default(),
                fixed_point: None,
                residual: None,
            };
            let row_terms = RowTerms::default();
            let place = &Place { stage, channels: 0..columns, first_row: 0, row_terms, origin: (0, 0) };
            let mut y = vec![f32::NAN; rows * columns];
            let mut target = Target::F32(MatMut::new(&mut y, rows, columns).unwrap());
            store::<false>(&StoredTile { place, first: 0, acc: &acc, stride }, &mut target);
            for (y, acc) in y.chunks_exact(columns).zip(acc.chunks_exact(stride)) {
                for (y, &sum) in y.iter().zip(acc) {
                    let expected = ActivationFunction::Gelu.apply(sum as f32 * 0.01);
                    assert_eq!(y.to_bits(), expected.to_bits(), "{columns} columns");
                }
            }
        }
    }
}
