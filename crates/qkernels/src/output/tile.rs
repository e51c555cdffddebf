//! Output stages on sums in L1, in scalar code that the compiler vectorizes.

use core::ops::Range;

use qcore::{Code, Float, Q31Multiplier};

use crate::matrix::view::MatMut;
use crate::output::operands::{
    Codes, FixedPoint, FixedPointRounding, ResidualCodes, RowTerms, StageOperands,
};

/// What is done to the sums of a strip, and where they belong.
#[derive(Clone, Debug)]
pub(crate) struct Place<'t> {
    pub(crate) stage: &'t StageOperands<'t>,
    /// The channels, as indices into the per-channel operands: those of the current panel and of
    /// the panels behind it in the strip.
    pub(crate) channels: Range<usize>,
    /// The strip's first row in the whole output. (Its first column there is that of `channels`.)
    pub(crate) first_row: usize,
    /// The terms of the strip's rows.
    pub(crate) row_terms: RowTerms<'t>,
    /// The row and the column of the target where the strip and its current panel begin.
    pub(crate) origin: (usize, usize),
}

/// Some rows of sums. Those of a product of a `FEW` numbers are stored without the loops over
/// vectors, which would be most of what is compiled for such products, once for each type of
/// activations and stage.
pub(crate) struct StoredTile<'s, const FEW: bool = false> {
    pub(crate) place: &'s Place<'s>,
    /// The index of the first of the rows in the strip.
    pub(crate) first: usize,
    pub(crate) acc: &'s [i32],
    /// Entries from a row's sums to those of the next one.
    pub(crate) stride: usize,
}

/// One element that is about to be stored.
#[derive(Clone, Copy)]
pub(crate) struct Element {
    /// Its complete sum.
    pub(crate) sum: i32,
    /// The factor of its channel.
    pub(crate) factor: f32,
    /// The bias of its channel. If there is none, -0.0, which changes nothing that it is added to.
    pub(crate) bias: f32,
    multiplier: Q31Multiplier,
    /// Distance of the residual's code from its zero point.
    pub(crate) residual: i32,
}

impl<const FEW: bool> StoredTile<'_, FEW> {
    #[inline(always)]
    pub(crate) fn store_sums(&self, out: &mut MatMut<'_, i32>) {
        self.store(out, |e| e.sum);
    }

    #[inline(always)]
    pub(crate) fn store_real<T: Float>(&self, out: &mut MatMut<'_, T>) {
        let stage = self.place.stage;
        let relu = stage.relu();
        let relu = |y: f32| if relu && y < 0.0 { 0.0 } else { y };
        self.store(out, |e| T::narrow(relu(qcore::dequantize_acc_bias(e.sum, e.factor, e.bias))));
    }

    /// Stores codes as bytes. Those of i8 are the low bytes of negative numbers, so one loop serves
    /// both types.
    #[inline(always)]
    pub(crate) fn store_codes(&self, out: &mut MatMut<'_, u8>) {
        let StageOperands { codes: Codes { zero_point, low, high }, fixed_point, residual, .. } =
            *self.place.stage;
        match (fixed_point, residual) {
            (None, None) => {
                self.store(out, |e| qcore::requantize(e.sum, e.factor, zero_point, low, high) as u8);
            }
            (None, Some(residual)) => self.store(out, |e| {
                let step = residual.multiplier;
                qcore::requantize_residual(e.sum, e.factor, e.residual, step, zero_point, low, high) as u8
            }),
            (Some(FixedPoint { rounding: FixedPointRounding::Double, .. }), _) => self.store(out, |e| {
                qcore::requantize_double_rounding(e.sum, e.multiplier, zero_point, low, high) as u8
            }),
            (Some(FixedPoint { rounding: FixedPointRounding::Single, .. }), _) => self.store(out, |e| {
                qcore::requantize_single_rounding(e.sum, e.multiplier, zero_point, low, high) as u8
            }),
        }
    }

    /// Stores `step` of every element where the tile belongs.
    #[inline(always)]
    pub(crate) fn store<T: Copy>(&self, out: &mut MatMut<'_, T>, step: impl Fn(Element) -> T) {
        let (row, column) = self.place.origin;
        self.store_at(out, (row + self.first, column), step);
    }

    /// Stores `step` of every element, from a row and a column of `out` on. Channels go through in
    /// chunks of fixed length, so each step becomes whole vectors, even in the last columns of a
    /// matrix.
    #[inline(always)]
    pub(crate) fn store_at<T: Copy>(
        &self,
        out: &mut MatMut<'_, T>,
        (row, column): (usize, usize),
        step: impl Fn(Element) -> T,
    ) {
        let columns = self.place.channels.len();
        let mut j = 0;
        if !FEW {
            while j + 16 <= columns {
                self.store_columns::<16, T>(j, out, (row, column + j), &step);
                j += 16;
            }
            if j + 8 <= columns {
                self.store_columns::<8, T>(j, out, (row, column + j), &step);
                j += 8;
            }
            if j + 4 <= columns {
                self.store_columns::<4, T>(j, out, (row, column + j), &step);
                j += 4;
            }
        }
        while j < columns {
            self.store_columns::<1, T>(j, out, (row, column + j), &step);
            j += 1;
        }
    }

    /// Columns `j..j + L` of the tile.
    #[inline(always)]
    fn store_columns<const L: usize, T: Copy>(
        &self,
        j: usize,
        out: &mut MatMut<'_, T>,
        (out_row, out_column): (usize, usize),
        step: &impl Fn(Element) -> T,
    ) {
        let Place { stage, channels, row_terms, .. } = self.place;
        let channel = channels.start + j;
        let channel_sum: [i32; L] = entries(stage.channel_sums, channel);
        let zero_point: [i32; L] = entries(stage.zero_points, channel);
        let factor: [f32; L] = entries(stage.factors, channel);
        let bias: [f32; L] = stage.float_bias.map_or([-0.0; L], |bias| entries(bias, channel));
        let multipliers = stage.fixed_point.map_or(&[][..], |fixed_point| fixed_point.multipliers);
        let multiplier: [Q31Multiplier; L] = entries(multipliers, channel);
        for (above, acc) in self.acc.chunks_exact(self.stride).enumerate() {
            let i = self.first + above;
            let out = out.row_mut(out_row + above);
            let out = out.and_then(|row| row.get_mut(out_column..)?.first_chunk_mut::<L>());
            let (Some(acc), Some(out)) = (acc.get(j..).and_then(<[i32]>::first_chunk::<L>), out) else {
                continue;
            };
            let mut sum = *acc;
            if let Some(&row_sum) = row_terms.sums.get(i) {
                for j in 0..L {
                    sum[j] = sum[j].wrapping_sub(row_sum.wrapping_mul(zero_point[j]));
                }
            }
            if let Some(&row_zero) = row_terms.zero_points.get(i) {
                for j in 0..L {
                    sum[j] = sum[j].wrapping_sub(row_zero.wrapping_mul(channel_sum[j]));
                }
            }
            // Times 1 changes nothing.
            let row_factor = row_terms.factors.get(i).copied().unwrap_or(1.0);
            let residual: [i32; L] = self.residual(i, j);
            for j in 0..L {
                out[j] = step(Element {
                    sum: sum[j],
                    factor: row_factor * factor[j],
                    bias: bias[j],
                    multiplier: multiplier[j],
                    residual: residual[j],
                });
            }
        }
    }

    /// The residual's distances from its zero point for row `i`, from column `j` on; zeros if there
    /// is none.
    #[inline(always)]
    fn residual<const L: usize>(&self, i: usize, j: usize) -> [i32; L] {
        let Some(residual) = self.place.stage.residual else { return [0; L] };
        let (row, column) = (self.place.first_row + i, self.place.channels.start + j);
        match residual.codes {
            ResidualCodes::I8(codes) => distances(codes.row_slice(row), column, residual.zero_point),
            ResidualCodes::U8(codes) => distances(codes.row_slice(row), column, residual.zero_point),
        }
    }
}

#[inline(always)]
fn distances<C: Code, const L: usize>(row: Option<&[C]>, column: usize, zero_point: i32) -> [i32; L] {
    let codes: [C; L] = entries(row.unwrap_or_default(), column);
    // `map` would be a function of its own, and not compiled for the kernel's vector level.
    let mut distances = [0; L];
    for j in 0..L {
        distances[j] = codes[j].widen().saturating_sub(zero_point);
    }
    distances
}

/// Entries `first..first + L` of an operand. They are zeros if the operand is empty because its
/// stage does not use it.
#[inline(always)]
fn entries<T: Copy + Default, const L: usize>(values: &[T], first: usize) -> [T; L] {
    values.get(first..).and_then(|values| values.first_chunk()).copied().unwrap_or([T::default(); L])
}
